import {
  collectBytes,
  encodeOutput,
  estimatePrediction,
  isNetworkSpec,
  type LoadedModel,
  labelsWith,
  largestThatFits,
  type Manifest,
  type ModelSpec,
  modelsFor,
  type OutputFormat,
  parseManifest,
  parseParameters,
  predict,
  type RunBytesOf,
  readOutput,
  type SourceFile,
  stages,
  TomaatError,
  voxelCount,
} from '@tomaat/core';
import { sourceOf } from '../blob-source.ts';
import { dicomPlatform } from '../dicom/codecs.ts';
import { sha256Of } from '../sha256.ts';
import { answerCalls, type Handlers } from '../worker-calls.ts';
import type { ComputedOutput, GivenFiles, Operations } from './messages.ts';

/*
 * The worker that computes a prediction in this browser, as a server's child does: bytes in, bytes out, by the same
 * function of core. It has no connection of its own but for its own code. It may be terminated at any moment.
 */

const readManifest = (text: string): Manifest => parseManifest(text, 'The manifest of this service');

const handlers: Handlers<Operations> = {
  async plan({ manifest: text, volumes, values, allowedBytes, modelBytes = 0, runBytes = {} }) {
    const manifest = readManifest(text);
    const parameters = parseParameters(manifest.inputs, values);
    const runBytesOf: RunBytesOf = (spec) => (spec.runtime === 'onnx' ? runBytes[spec.sha256] : undefined);
    const { neededBytes } = estimatePrediction(manifest, volumes, parameters, modelBytes, runBytesOf);
    const [largest] = Object.keys(volumes).sort((a, b) => voxelCount(volumes[b]) - voxelCount(volumes[a]));
    if (neededBytes > allowedBytes && largest !== undefined) {
      const fitting = largestThatFits(manifest, volumes, parameters, {
        modelBytes,
        runBytesOf,
        allowedBytes,
      });
      throw tooBig(neededBytes, allowedBytes, {
        name: largest,
        size: volumes[largest].size,
        fitting: fitting?.[largest],
        elsewhere:
          manifest.compute === 'caller' ? 'use a computer with more memory' : 'send it to the server',
      });
    }
    const models = new Set(modelsFor(manifest, parameters).map(digestOfModel));
    const sha256 = await sha256Of(new Blob([text]));
    return { manifest: { sha256, version: manifest.version }, models: [...models], parameters };
  },

  async predict({ manifest: text, files, values, frame, isSeries, models, threads }, { report }) {
    const manifest = readManifest(text);
    const { createEngines } = await import('./engines.ts');
    const engines = createEngines(manifest, threads);
    const loaded = new Map<string, Promise<LoadedModel>>();
    const load = async (spec: ModelSpec): Promise<LoadedModel> => {
      if (spec.runtime !== 'onnx') throw notHere(spec);
      const bytes = new Uint8Array(await models[spec.sha256].arrayBuffer());
      return { kind: 'network', session: await engines.open(bytes, spec) };
    };
    const keyOf = (spec: ModelSpec) => JSON.stringify(spec);
    const outputs: ComputedOutput[] = [];
    const times = await predict(
      manifest,
      { files: sourcesOf(files), parameters: values, frame, formats: isSeries ? asVolumes(manifest) : {} },
      {
        platform: dicomPlatform,
        load: (spec) => {
          const known = loaded.get(keyOf(spec)) ?? load(spec);
          loaded.set(keyOf(spec), known);
          return known;
        },
        onProgress: (stage, fraction) => report(fraction, 1, stage),
        write: async ({ bytes, kept: _, ...output }) => {
          const blob = new Blob([await collectBytes(bytes)]);
          outputs.push({ ...output, blob, digest: `sha256:${await sha256Of(blob)}` });
        },
      },
    );
    report(1, 1, stages.at(-1));
    return {
      outputs,
      inputs: await digestsOf(files),
      times,
      labels: labelsWith(manifest.labels, parseParameters(manifest.inputs, values)),
      engine: engines.describe(),
    };
  },

  async convert({ type, format, geometry, blob, to, labels }) {
    const file = sourceOf({ name: `output.${format}`, blob });
    const { value, stated } = await readOutput({ type, format, file }, dicomPlatform);
    const options = { geometry: geometry ?? stated, labels: [...labels] };
    return new Blob([await collectBytes(encodeOutput(type, value, to, dicomPlatform, options))]);
  },
};

/** Label maps of a DICOM series as volumes: what was read may be de-identified, and results belong to the original images. */
const asVolumes = ({ outputs }: Manifest): Record<string, OutputFormat> =>
  Object.fromEntries(
    Object.entries(outputs).flatMap(([name, { type }]) => (type === 'LabelVolume' ? [[name, 'nii.gz']] : [])),
  );

const sourcesOf = (files: GivenFiles): Record<string, SourceFile[]> =>
  Object.fromEntries(Object.entries(files).map(([name, list]) => [name, list.map(sourceOf)]));

function digestOfModel(spec: ModelSpec): string {
  if (isNetworkSpec(spec) && spec.runtime === 'onnx') return spec.sha256;
  throw notHere(spec);
}

const notHere = ({ runtime }: ModelSpec): TomaatError =>
  new TomaatError(
    'BAD_MANIFEST',
    `A browser cannot run the runtime ${runtime} of this service. Send the volume to the server.`,
  );

function tooBig(
  neededBytes: number,
  allowedBytes: number,
  {
    name,
    size,
    fitting,
    elsewhere,
  }: { name: string; size: readonly number[]; fitting?: readonly number[]; elsewhere: string },
): TomaatError {
  const mb = (bytes: number) => Math.round(bytes / 1e6);
  const shown = (sizes: readonly number[]) => sizes.join(' × ');
  const wouldFit = fitting
    ? `About ${shown(fitting)} voxels would fit. Crop or resample the volume, or ${elsewhere}`
    : `No volume would fit: ${elsewhere}`;
  return new TomaatError(
    'TOO_MANY_VOXELS',
    `A volume of ${shown(size)} voxels needs about ${mb(neededBytes)} MB of memory, and this page may use ${mb(allowedBytes)} MB. ${wouldFit}.`,
    { field: name },
  );
}

const digestsOf = async (files: GivenFiles) =>
  (
    await Promise.all(
      Object.entries(files).map(([name, list]) =>
        Promise.all(list.map(async ({ blob }) => ({ name, digest: `sha256:${await sha256Of(blob)}` }))),
      ),
    )
  ).flat();

answerCalls<Operations>(handlers);
