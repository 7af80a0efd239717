import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  createDeidentifier,
  encodeDicomFile,
  parseDicom,
  parseManifest,
  predict,
  readVolume,
  type SourceFile,
  sourceFromBytes,
  type Volume,
} from '@tomaat/core';
import { describe, expect, it } from 'vitest';
import { nodePlatform } from '../packages/server/src/node-platform.ts';
import { dataFolder } from './real-data.ts';

/* SUV of a PET series in Bq/mL, whose slices have different slopes, against those that another program computed. */

const data = dataFolder();
const folder = join(data ?? '', 'dicom_cases');
const manifest = parseManifest(
  JSON.stringify({
    schemaVersion: 1,
    id: 'pet',
    name: 'PET',
    description: 'A test.',
    version: '1',
    modality: 'PT',
    anatomy: 'body',
    task: 'segmentation',
    authors: ['Someone'],
    licence: 'MIT',
    intendedUse: 'Tests.',
    inputs: { pet: { type: 'volume' } },
    preprocess: [{ orientation: { axcodes: 'RAS' } }, 'standardUptakeValue'],
    model: { runtime: 'module', file: 'app.js' },
    outputs: { found: { type: 'PlainText' } },
  }),
);

/** The volume that the model is given, on the axes of the truth. */
async function suvOf(pet: readonly SourceFile[]): Promise<Volume> {
  let seen: Volume | undefined;
  await predict(
    manifest,
    { files: { pet }, parameters: {} },
    {
      platform: nodePlatform,
      write: async () => {},
      load: async () => ({
        kind: 'program',
        run: async (inputs) => {
          seen = inputs.pet as Volume;
          return { found: '' };
        },
      }),
    },
  );
  return seen!;
}

describe.skipIf(!data)('standardUptakeValue of a real series', () => {
  const originals = () =>
    readdirSync(join(folder, 'pet_bqml_suv')).map((name) => readFileSync(join(folder, 'pet_bqml_suv', name)));
  const filesOf = (all: readonly Uint8Array[]) =>
    all.map((bytes, i) => sourceFromBytes(`${i}.dcm`, new Uint8Array(bytes)));
  const deidentified = (options: { keepPatientCharacteristics: boolean; shiftDates: boolean }) => {
    const run = createDeidentifier({ uidKey: new Uint8Array(32).fill(7), ...options });
    return filesOf(originals().map((bytes) => Buffer.concat(encodeDicomFile(run(parseDicom(bytes)!).file))));
  };
  const factorOf = async (files: SourceFile[]) => (await readVolume(files, nodePlatform)).volume.suv;

  it('equals the truth in every voxel, by its place', async () => {
    const path = join(folder, 'pet_bqml_suv_suv_truth.nii.gz');
    const truth = await readVolume([sourceFromBytes(path, new Uint8Array(readFileSync(path)))], nodePlatform);
    const found = await suvOf(filesOf(originals()));
    const [nx, ny, nz] = found.size;
    expect([nx, ny, nz]).toEqual([48, 40, 11]);
    // The truth runs to the left and to the back: its columns and rows are those of the files, the model's those of RAS.
    expect(truth.volume.affine.map((value) => Math.sign(value)).slice(0, 11)).toEqual([
      -1, 0, 0, 1, 0, -1, 0, 1, 0, 0, 1,
    ]);
    let worst = 0;
    for (let z = 0; z < nz; z++) {
      for (let y = 0; y < ny; y++) {
        for (let x = 0; x < nx; x++) {
          const expected = Number(truth.volume.voxels[(z * ny + (ny - 1 - y)) * nx + (nx - 1 - x)]);
          const value = Number(found.voxels[(z * ny + y) * nx + x]);
          worst = Math.max(worst, Math.abs(value - expected) / Math.max(Math.abs(expected), 1e-6));
        }
      }
    }
    expect(worst).toBeLessThan(1e-5);
    expect(Math.max(...(found.voxels as Float32Array))).toBeCloseTo(11.015962600708008, 5);
  });

  it('has the factor that calculate-suv computes, also de-identified with both options', async () => {
    // @cornerstonejs/calculate-suv 1.1.0
    const factor = 0.00030705137653771206;
    expect(await factorOf(filesOf(originals()))).toEqual({ factor });
    const kept = deidentified({ keepPatientCharacteristics: true, shiftDates: true });
    expect(await factorOf(kept)).toEqual({ factor });
  });

  it.each([
    [{ keepPatientCharacteristics: false, shiftDates: true }, '--keep-patient-characteristics'],
    [{ keepPatientCharacteristics: true, shiftDates: false }, 'shiftDates'],
  ])('names the option that is missing (%j)', async (options, expected) => {
    await expect(suvOf(deidentified(options))).rejects.toMatchObject({
      code: 'BAD_INPUT',
      field: 'pet',
      message: expect.stringContaining(expected),
    });
  });
});
