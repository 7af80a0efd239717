import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { buildStructureSet, type StructureSetOptions } from '../packages/core/src/dicom/structure-set.ts';
import { writeDicomFile } from '../packages/core/src/dicom/write-file.ts';
import { collectBytes } from '../packages/core/src/formats/volume-file.ts';
import type { Grid, Volume } from '../packages/core/src/volume.ts';
import { madeFiles, sourceOf } from '../packages/core/test/dicom-source.ts';
import { findDciodvfy, findPython } from './programs.ts';
import { dataFolder } from './real-data.ts';

/* RT structure sets of real and made series, as the programs of others read them: pydicom, and the validator dciodvfy. */

const run = promisify(execFile);
const data = dataFolder();
const python = findPython('pydicom', 'numpy');
const dciodvfy = findDciodvfy();
const folder = mkdtempSync(join(tmpdir(), 'tomaat-structure-sets-'));
afterAll(() => rmSync(folder, { recursive: true }));

const real = [
  'dicom/prostate_t2_tra',
  'dicom_cases/ct_oblique',
  'dicom_cases/ct_hfdr',
  'dicom_cases/ct_tilt_regular',
  'dicom_cases/mr_hfdl_sagittal',
  'dicom_cases/mr9_enhanced_shuffled',
  'dicom_cases/mr9_name_japanese',
];
/** GB18030, with the patient's name of PS3.5 J.3. */
const chinese = 'a series in Chinese';
const all = [...(data ? real : []), chinese];

const options: StructureSetOptions = {
  labels: [
    {
      value: 1,
      name: '前立腺',
      color: '#e6194b',
      code: { scheme: 'SCT', value: '41216001', meaning: 'Prostate' },
    },
    {
      value: 3,
      name: '左肺',
      code: { scheme: 'SCT', value: '39607008', meaning: 'Lung' },
      modifier: { scheme: 'SCT', value: '7771000', meaning: 'Left' },
    },
    { value: 9, name: 'Never seen' },
    { value: 5, name: 'Shell' },
  ],
  maker: { id: 'an-app', name: 'An app', version: '1.2.0' },
  description: 'Organs at risk',
  role: 'labels',
  seed: 'a job',
};

/** A large tube (5), its section an ellipse with an elliptic hole off its centre, and ragged labels near the first corner. */
function labelsOn({ size, affine }: Grid): Volume {
  const [nx, ny, nz] = size;
  const voxels = new Uint8Array(nx * ny * nz);
  const isIn = (x: number, y: number, cx: number, r: number) =>
    ((x / nx - cx) / r) ** 2 + ((y / ny - 0.55) / (1.2 * r)) ** 2 < 1;
  const labelAt = (x: number, y: number, z: number) => {
    if (isIn(x, y, 0.55, 0.35)) return z < nz - 1 && !isIn(x, y, 0.62, 0.15) ? 5 : 0;
    if (y < 4 + z && x < 19 && (x * 3 + y * 2) % 7 < 5) return 1;
    return x < 3 && y > 7 + z && y < 14 + 2 * z ? 3 : 0;
  };
  for (let i = 0; i < voxels.length; i++)
    voxels[i] = labelAt(i % nx, Math.floor(i / nx) % ny, Math.floor(i / (nx * ny)));
  voxels[voxels.length - 1] = 2;
  return { size, affine, components: 1, voxels };
}

/** What check-structure-set.py says. */
interface Found {
  readonly offPlane: number;
  readonly areas: Record<string, number | null>;
  readonly [name: string]: unknown;
}

const files = new Map<string, string>();
const found = new Map<string, Found>();

async function pathsOf(name: string): Promise<string[]> {
  if (name !== chinese)
    return readdirSync(join(data!, name))
      .map((file) => join(data!, name, file))
      .filter((path) => statSync(path).isFile());
  const patientName = Buffer.from('57616e675e5869616f446f6e673dcdf55ed0a1b6ab3d', 'hex');
  const size = [61, 47, 5] as const;
  const made = await madeFiles(
    { size, shearMm: 0.7, characterSets: ['GB18030'], patientName },
    new Int16Array(61 * 47 * 5),
  );
  return made.map((bytes, i) => {
    const path = join(folder, `chinese-${i}.dcm`);
    writeFileSync(path, bytes);
    return path;
  });
}

beforeAll(async () => {
  const cases: object[] = [];
  for (const [i, name] of all.entries()) {
    const paths = await pathsOf(name);
    const { source, grid } = sourceOf(paths.map((path) => readFileSync(path)));
    const labelMap = labelsOn(grid);
    const [file, labels] = [join(folder, `${i}.rtstruct.dcm`), join(folder, `${i}.raw`)];
    const object = await buildStructureSet(labelMap, source, options);
    writeFileSync(file, await collectBytes(writeDicomFile(object)));
    writeFileSync(labels, labelMap.voxels as Uint8Array);
    files.set(name, file);
    cases.push({ structures: file, series: paths, ...grid, labels });
  }
  if (!python) return;
  writeFileSync(join(folder, 'cases.json'), JSON.stringify(cases));
  const checker = join(import.meta.dirname, 'check-structure-set.py');
  const { stdout } = await run(python, [checker, join(folder, 'cases.json')], { maxBuffer: 2 ** 24 });
  for (const [i, one] of (JSON.parse(stdout) as Found[]).entries()) found.set(all[i], one);
}, 300_000);

describe.skipIf(!python)('buildStructureSet()', () => {
  it.each(all)('of %s gives pydicom every voxel and the area of the labels', (name) => {
    const { offPlane, areas, ...rest } = found.get(name)!;
    expect(rest).toMatchObject({
      ...{ wrong: 0, unknown: [], differs: [], references: true, frameOfReference: true },
      names: { 1: '前立腺', 3: '左肺', 9: 'Never seen', 5: 'Shell', 2: 'label 2' },
      colors: { 1: [230, 25, 75], 3: [], 9: [], 5: [], 2: [] },
      types: { 1: 'ORGAN', 3: 'ORGAN', 9: '', 5: '', 2: '' },
    });
    expect(offPlane).toBeLessThan(0.001);
    expect(Math.abs(areas[5]! - 1)).toBeLessThan(0.01);
    // A single pixel is a diamond.
    expect(areas[2]).toBeCloseTo(0.5, 2);
    expect(areas[9]).toBe(null);
  });

  it.skipIf(!data)('keeps a patient’s name in Japanese', () => {
    expect(found.get('dicom_cases/mr9_name_japanese')!.patientName).toBe(
      'Yamada^Tarou=山田^太郎=やまだ^たろう',
    );
  });

  it('keeps a patient’s name in Chinese', () => {
    expect(found.get(chinese)!.patientName).toBe('Wang^XiaoDong=王^小东');
  });
});

describe.skipIf(!dciodvfy)('dciodvfy', () => {
  it.each(all)('finds no fault in the structure set of %s', async (name) => {
    const { stderr } = await run(dciodvfy!, [files.get(name)!]).catch((error) => error);
    expect(stderr).toMatch(/^RTStructureSet$/m);
    expect((stderr as string).split('\n').filter((line) => line.startsWith('Error'))).toEqual([]);
  });
});
