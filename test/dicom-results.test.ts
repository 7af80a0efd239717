import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, describe, expect, it } from 'vitest';
import { buildSegmentation, type SegmentationOptions } from '../packages/core/src/dicom/segmentation.ts';
import { writeDicomFile } from '../packages/core/src/dicom/write-file.ts';
import { collectBytes } from '../packages/core/src/formats/volume-file.ts';
import { asymmetricLabels, sourceOf } from '../packages/core/test/dicom-source.ts';
import { findProgram, findPython } from './programs.ts';
import { dataFolder } from './real-data.ts';

/* Segmentations of real series, as the programs of others read them: pydicom, highdicom, and the validator dciodvfy. */

const run = promisify(execFile);
const data = dataFolder();
const python = findPython('pydicom', 'highdicom');
// Without a file it explains itself, and ends with 1.
const dciodvfy = findProgram('dciodvfy', ['-version']);
const checker = join(import.meta.dirname, 'check-segmentation.py');
const folder = mkdtempSync(join(tmpdir(), 'tomaat-dicom-results-'));
afterAll(() => rmSync(folder, { recursive: true }));

const series = {
  'dicom/prostate_t2_tra': {},
  'dicom/head_t1_enhanced': {},
  'dicom_cases/ct_oblique': {},
  'dicom_cases/ct_hfdr': {},
  'dicom_cases/ct_tilt_regular': {},
  'dicom_cases/mr9_enhanced_shuffled': {},
  'dicom_cases/mr9_name_japanese': {},
  'dicom_seg/23x38x3/image': {},
  'dicom_seg/24x38x3/image': {},
  'dicom_seg/23x38x3/multiframe': {},
} as const;

const options: SegmentationOptions = {
  labels: [
    {
      value: 1,
      name: 'Prostate',
      color: '#e6194b',
      code: { scheme: 'SCT', value: '41216001', meaning: 'Prostate' },
    },
    {
      value: 3,
      name: 'Left lung',
      color: '#3cb44b',
      modifier: { scheme: 'SCT', value: '7771000', meaning: 'Left' },
    },
    { value: 9, name: 'Never seen' },
  ],
  maker: { id: 'an-app', name: 'An app', version: '1.2.0' },
  description: 'Labels',
  role: 'labels',
  seed: 'a job',
};

const filesOf = (name: string) =>
  readdirSync(join(data!, name))
    .map((file) => join(data!, name, file))
    .filter((file) => statSync(file).isFile());

describe.skipIf(!data)('buildSegmentation()', () => {
  for (const name of Object.keys(series)) {
    for (const type of ['BINARY', 'LABELMAP'] as const) {
      it.skipIf(!python || !dciodvfy)(
        `of ${name} as ${type} is read by others voxel by voxel`,
        { timeout: 120_000 },
        async () => {
          const paths = filesOf(name);
          const { source, grid } = sourceOf(paths.map((path) => readFileSync(path)));
          const labelMap = asymmetricLabels(grid);
          const object = await buildSegmentation(labelMap, source, { ...options, type });
          const [file, expected, raw] = ['seg.dcm', 'expected.json', 'labels.raw'].map((one) =>
            join(folder, one),
          );
          writeFileSync(file, await collectBytes(writeDicomFile(object)));
          writeFileSync(raw, labelMap.voxels as Uint8Array);
          const values = type === 'BINARY' ? { 1: 1, 2: 3, 3: 9, 4: 2 } : { 1: 1, 2: 2, 3: 3, 9: 9 };
          writeFileSync(expected, JSON.stringify({ ...grid, labels: raw, values }));
          const { stdout } = await run(python!, [checker, file, expected, ...paths]);
          console.log(name, type, stdout);
          const { stderr } = await run(dciodvfy!, [file]).catch((error) => error);
          console.log(
            stderr
              .split('\n')
              .filter((l: string) => /^Error/.test(l))
              .join('\n'),
          );
          const found = JSON.parse(stdout);
          expect(found).toMatchObject({
            wrong: 0,
            distance: 0,
            sameStudy: true,
            sameFrameOfReference: true,
            patient: true,
          });
        },
      );
    }
  }
});
