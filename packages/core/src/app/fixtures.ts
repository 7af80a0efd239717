import {
  collectBytes,
  type ReadLimits,
  readVolume,
  type SourceFile,
  sourceFromBytes,
  type VolumeExtension,
  writeVolume,
} from '../formats/volume-file.ts';
import { webPlatform } from '../formats/web-platform.ts';
import type { Vec3 } from '../geometry/affine.ts';
import { patterned } from '../geometry/fixtures.ts';
import type { NetworkSession } from '../inferers/spec.ts';
import type { Bytes } from '../platform.ts';
import type { Tensor } from '../tensor.ts';
import type { Size, Volume } from '../volume.ts';
import { parseManifest } from './parse-manifest.ts';
import {
  type AppContext,
  type EncodedOutput,
  type LoadedModel,
  type PredictionContext,
  type PredictionRequest,
  predict,
} from './predict.ts';
import type { Stage } from './stages.ts';
import type { InputValue, OutputValue } from './values.ts';

/** Shared by the tests of predictions: small manifests, models in TypeScript, a run that collects everything. */

export const app = {
  schemaVersion: 1,
  id: 'app',
  name: 'App',
  description: 'A test.',
  version: '1',
  modality: 'CT',
  anatomy: 'liver',
  task: 'segmentation',
  authors: ['Someone'],
  licence: 'MIT',
  intendedUse: 'Tests.',
  inputs: { volume: { type: 'volume' } },
  outputs: { segmentation: { type: 'LabelVolume' } },
};
export const onnx = { runtime: 'onnx', file: 'net.onnx', sha256: '0'.repeat(64) };
export const programOf = (more: object = {}) =>
  parseManifest(JSON.stringify({ ...app, model: { runtime: 'module', file: 'app.js' }, ...more }));
export const networkOf = (more: object = {}) =>
  parseManifest(JSON.stringify({ ...app, model: onnx, postprocess: ['argmax'], ...more }));

/** Voxels of 0 to 30, oblique, anisotropic and left-handed. */
export const size: Size = [5, 4, 3];
export const scan = patterned(size);
export const level = (value: number) => (value > 20 ? 2 : value > 10 ? 1 : 0);

export async function fileOf(volume: Volume, extension: VolumeExtension = 'nii'): Promise<SourceFile> {
  const bytes = await collectBytes(writeVolume(volume, extension, webPlatform));
  return sourceFromBytes(`scan.${extension}`, bytes);
}
export const scanFiles = async (extension?: VolumeExtension) => ({ volume: [await fileOf(scan, extension)] });

type Program = (
  inputs: Readonly<Record<string, InputValue>>,
  context: AppContext,
) => Record<string, unknown> | Promise<Record<string, unknown>>;
export const program = (run: Program): LoadedModel => ({
  kind: 'program',
  run: async (inputs, context) => (await run(inputs, context)) as Record<string, OutputValue>,
});

/** A network that scores each voxel by the values of its channels; `seen` are the tensors that it was given. */
export function network(scoresOf: (channels: number[]) => number[], seen: Tensor[] = []): LoadedModel {
  const session: NetworkSession = {
    async run(input) {
      seen.push({ data: input.data.slice(), dims: input.dims });
      const [, channels, ...space] = input.dims;
      const n = space.reduce((a, b) => a * b);
      const scores = Array.from({ length: n }, (_, i) =>
        scoresOf(Array.from({ length: channels }, (_, c) => input.data[c * n + i])),
      );
      const classes = scores[0].length;
      const data = Float32Array.from({ length: classes * n }, (_, i) => scores[i % n][Math.floor(i / n)]);
      return { data, dims: [1, classes, ...space] };
    },
  };
  return { kind: 'network', session };
}
export const levels = network(([v]) => [0, 1, 2].map((k) => Number(level(v) === k)));

export interface Given extends Partial<PredictionRequest> {
  signal?: AbortSignal;
  limits?: ReadLimits;
  load?: PredictionContext['load'];
  trace?: PredictionContext['trace'];
  onProgress?: (stage: Stage, fraction: number) => void;
}
export type Output = EncodedOutput & { data: Bytes };

export async function run(manifest: ReturnType<typeof programOf>, model: LoadedModel, given: Given = {}) {
  const { files, parameters = {}, frame, formats, seed, onProgress, ...context } = given;
  const written: Output[] = [];
  const progress: [Stage, number][] = [];
  const logs: string[] = [];
  const request = { files: files ?? (await scanFiles()), parameters, frame, formats, seed };
  const times = await predict(manifest, request, {
    platform: webPlatform,
    load: async () => model,
    onProgress(stage, fraction) {
      progress.push([stage, Math.round(fraction * 1e6) / 1e6]);
      onProgress?.(stage, fraction);
    },
    log: (text) => logs.push(text),
    write: async (output) => void written.push({ ...output, data: await collectBytes(output.bytes) }),
    ...context,
  });
  const outputs = Object.fromEntries(written.map((output) => [output.name, output]));
  return { times, progress, logs, written, outputs };
}
export const volumeIn = async ({ format, data }: Output) =>
  (await readVolume([sourceFromBytes(`result.${format}`, data)], webPlatform)).volume;
export const textIn = ({ data }: Output) => new TextDecoder().decode(data);

export function forEachVoxel([nx, ny, nz]: Size, each: (at: Vec3) => void) {
  for (let z = 0; z < nz; z++) for (let y = 0; y < ny; y++) for (let x = 0; x < nx; x++) each([x, y, z]);
}
export const labelled = (volume: Volume, labelOf: (value: number) => number): Volume => ({
  ...volume,
  voxels: Uint8Array.from(volume.voxels as Int16Array, labelOf),
});
export const answer: Program = ({ volume }) => ({ segmentation: labelled(volume as Volume, level) });
