import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/** An app folder made for a test: `infer` is the code of the body of `infer({ volume, … }, context)`. */
export async function writeApp(
  folder: string,
  id: string,
  { infer, ...more }: { infer?: string; [key: string]: unknown },
): Promise<string> {
  const path = join(folder, id);
  await mkdir(path, { recursive: true });
  const manifest = {
    schemaVersion: 1,
    id,
    name: id,
    description: 'Made for a test.',
    version: '1.0.0',
    modality: 'any',
    anatomy: 'any',
    task: id,
    authors: ['The TOMAAT authors'],
    licence: 'Apache-2.0',
    intendedUse: 'Testing.',
    inputs: { volume: { type: 'volume' } },
    ...(infer === undefined ? {} : { model: { runtime: 'module', file: 'app.js' } }),
    outputs: { segmentation: { type: 'LabelVolume' } },
    ...more,
  };
  await writeFile(join(path, 'tomaat.yaml'), JSON.stringify(manifest));
  if (infer !== undefined) {
    const code = `const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const bright = (volume) => ({ ...volume, voxels: Uint8Array.from(volume.voxels, (v) => (v > 100 ? 1 : 0)) });
export async function infer(inputs, context) {
  const { volume } = inputs;
  ${infer}
}
`;
    await writeFile(join(path, 'app.js'), code);
    await writeFile(join(path, 'package.json'), '{ "type": "module" }');
  }
  return path;
}

/** Marks what is brighter than 100. */
export const inferBright = 'return { segmentation: bright(volume) };';
