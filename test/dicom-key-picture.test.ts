import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { buildKeyPicture } from '../packages/core/src/dicom/key-picture.ts';
import { writeDicomFile } from '../packages/core/src/dicom/write-file.ts';
import { collectBytes, readVolume, sourceFromBytes } from '../packages/core/src/formats/volume-file.ts';
import { numericVoxels, type Voxels } from '../packages/core/src/volume.ts';
import { asymmetricLabels, sourceOf } from '../packages/core/test/dicom-source.ts';
import { nodePlatform } from '../packages/server/src/node-platform.ts';
import { findDciodvfy, findPython } from './programs.ts';
import { dataFolder } from './real-data.ts';

/* Key pictures of real series, as the programs of others read them: pydicom with the images, and the validator dciodvfy. */

const run = promisify(execFile);
const data = dataFolder();
const python = data && findPython('pydicom', 'scipy');
const dciodvfy = data && findDciodvfy();
const folder = mkdtempSync(join(tmpdir(), 'tomaat-key-pictures-'));
afterAll(() => rmSync(folder, { recursive: true }));

/**
 * Oblique, decubitus, feet first, tilted, sagittal, with pixels that are not square, multi-frame: each with the directions of its rows
 * and columns, from ImageOrientationPatient by hand. What is less than 15 degrees is left out.
 */
const series: Readonly<Record<string, readonly [right: string, down: string]>> = {
  'dicom_cases/ct_oblique': ['LP', 'PRH'],
  'dicom_cases/ct_hfdr': ['P', 'R'],
  'dicom_cases/ct_ffs': ['L', 'P'],
  'dicom_cases/ct_tilt_regular': ['L', 'PH'],
  'dicom_cases/mr_hfdl_sagittal': ['P', 'F'],
  'dicom_cases/mr9_nonsquare': ['L', 'P'],
  'dicom_cases/mr9_enhanced_shuffled': ['L', 'P'],
  'dicom_cases/pet_bqml_suv': ['L', 'P'],
  'dicom_cases/mr9_name_japanese': ['L', 'P'],
};
const names = Object.keys(series);
const colors = { 1: '#e6194b', 2: '#42d4f4', 3: '#3cb44b' };
const found = new Map<string, Record<string, unknown>>();
const fileOf = (name: string) => join(folder, `${names.indexOf(name)}.dcm`);

beforeAll(async () => {
  if (!data) return;
  const described: object[] = [];
  for (const name of names) {
    const paths = readdirSync(join(data, name))
      .map((file) => join(data, name, file))
      .filter((path) => statSync(path).isFile());
    const files = paths.map((path) => Uint8Array.from(readFileSync(path)));
    const { grid } = sourceOf(files);
    const labelMap = asymmetricLabels(grid);
    const { volume, source } = await readVolume(
      files.map((bytes, i) => sourceFromBytes(`${i}.dcm`, bytes)),
      nodePlatform,
    );
    const plane = grid.size[0] * grid.size[1];
    const object = await buildKeyPicture(labelMap, source!, {
      labels: [1, 2, 3].map((value) => ({
        value,
        name: ['Prostate gland', 'Größe', '肝臓'][value - 1],
        color: colors[value as 1],
      })),
      readSlice: async (k) => numericVoxels(volume.voxels.slice(k * plane, (k + 1) * plane) as Voxels),
      maker: { id: 'an-app', name: 'An app', version: '1.2.0' },
      description: 'Labels',
      role: 'labels',
      seed: 'a job',
    });
    writeFileSync(fileOf(name), await collectBytes(writeDicomFile(object)));
    const labels = `${fileOf(name)}.raw`;
    writeFileSync(labels, labelMap.voxels as Uint8Array);
    const rgb = Object.fromEntries(
      Object.entries(colors).map(([value, color]) => [value, [...Buffer.from(color.slice(1), 'hex')]]),
    );
    described.push({ picture: fileOf(name), series: paths, ...grid, labels, colors: rgb });
  }
  if (!python) return;
  writeFileSync(join(folder, 'cases.json'), JSON.stringify(described));
  const checker = join(import.meta.dirname, 'check-key-picture.py');
  const { stdout } = await run(python, [checker, join(folder, 'cases.json')], { maxBuffer: 2 ** 24 });
  for (const [i, one] of (JSON.parse(stdout) as Record<string, unknown>[]).entries())
    found.set(names[i], one);
}, 120_000);

describe('buildKeyPicture() of a real series', () => {
  it.skipIf(!python).each(names)('of %s outlines the pixels of its labels, by their place', (name) => {
    const { off, outline, ...rest } = found.get(name)!;
    expect(rest).toMatchObject({ wrong: 0, 'is largest': true, square: true, 'same study': true });
    expect(outline).toBeGreaterThan(100);
    // Interpolated brightness is rounded in another order.
    expect(off).toBeLessThanOrEqual(1.5);
    expect(rest.orientation).toEqual(series[name]);
  });

  it.skipIf(!dciodvfy).each(names)('of %s is valid to dciodvfy', async (name) => {
    const { stderr, stdout } = await run(dciodvfy!, [fileOf(name)]).catch(
      (error) => error as { stderr: string; stdout: string },
    );
    expect(`${stderr}${stdout}`).toContain('SCImage');
    expect(`${stderr}${stdout}`.split('\n').filter((line) => line.startsWith('Error'))).toEqual([]);
  });
});
