import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Volume } from '@tomaat/core';
import { writeApp } from './app-fixture.ts';
import { encode, phantom } from './phantom.ts';
import { decode, type FileRunOptions, runFiles } from './run-files.ts';

/** Steps that change the grid, and whose result has to come back from it. */
const steps = {
  preprocess: [
    { orientation: { axcodes: 'RAS' } },
    { spacing: { pixdim: [1.5, 1.7, 2.1] } },
    { scaleIntensityRange: { aMin: 0, aMax: 1000, bMin: 0, bMax: 1 } },
  ],
  postprocess: ['argmax', 'restore'],
};

/** An app whose network is on a model server. */
export const writeServedApp = (
  folder: string,
  id: string,
  model: { url: string; model: string } & Record<string, unknown>,
  more: Record<string, unknown> = {},
): Promise<string> => writeApp(folder, id, { ...steps, model: { runtime: 'oip', ...model }, ...more });

/** The same app with the network in a file. */
export async function writeFileApp(
  folder: string,
  id: string,
  bytes: Uint8Array,
  model: Record<string, unknown> = {},
  more: Record<string, unknown> = {},
): Promise<string> {
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  const path = await writeApp(folder, id, {
    ...steps,
    model: { runtime: 'onnx', file: 'net.onnx', sha256, ...model },
    ...more,
  });
  await writeFile(join(path, 'net.onnx'), bytes);
  return path;
}

/** The label map of an app for a volume, in a child as the server runs it. */
export async function labelsOf(
  app: string,
  volume: Volume = phantom(),
  options: FileRunOptions = {},
): Promise<Volume> {
  const { outputs } = await runFiles(
    app,
    { volume: ['scan.nii', await encode(volume, 'nii')] },
    { ...options, formats: { segmentation: 'nii' } },
  );
  return decode(outputs.segmentation);
}
