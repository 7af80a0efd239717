import { TomaatError, withField } from '../errors.ts';
import type { FileGeometry } from '../formats/file-geometry.ts';
import { meshToStl, meshToVtk } from '../formats/mesh-file.ts';
import { formatPoints, formatPointsJson } from '../formats/points.ts';
import { defaultExtension } from '../formats/table.ts';
import {
  readTransform,
  type SpatialTransform,
  type TransformExtension,
  writeTransform,
} from '../formats/transform-file.ts';
import {
  type ReadLimits,
  readVolume,
  type SourceFile,
  type VolumeExtension,
  writeVolume,
} from '../formats/volume-file.ts';
import { sameGrid } from '../geometry/grid.ts';
import { resample, resampleArgmax, resampleThreshold } from '../geometry/resample.ts';
import { restore } from '../geometry/restore.ts';
import { infer } from '../inferers/inferer.ts';
import type { InfererSpec, NetworkSession, Reduction } from '../inferers/spec.ts';
import type { LabelMeasurement } from '../labels/measure.ts';
import { measurementsToCsv } from '../labels/measurement-csv.ts';
import { buildSurface, type Mesh } from '../labels/surface.ts';
import type { Bytes, Platform } from '../platform.ts';
import {
  componentOf,
  type Grid,
  numericVoxels,
  takeNumericVoxels,
  type Volume,
  voxelCount,
} from '../volume.ts';
import { accept, checkResult } from './acceptance.ts';
import { type Output, type OutputFormat, outputFormats } from './elements.ts';
import { type Manifest, type ModelSpec, primaryOutput, volumeInputs } from './manifest.ts';
import {
  asLabels,
  checkPlace,
  checkType,
  derive,
  fromOf,
  hasLabel,
  isVolume,
  missingOutput,
} from './results.ts';
import { applies, applyTransform, labelsWith, resolveParameters, type Step } from './steps.ts';
import { type InputValue, isFileInput, type OutputValue, type Parameter, parseParameters } from './values.ts';

/**
 * One prediction, from the bytes that came to the bytes that go: decode → accept → preprocess → infer →
 * postprocess → encode. It runs in the worker's child, in `tomaat run`, and in tests; nothing here knows of
 * HTTP, jobs or files.
 */

/** What a caller asks for. */
export interface PredictionRequest {
  /** The files of each file input: one, or those that belong together (.mhd and its data). */
  files: Readonly<Record<string, readonly SourceFile[]>>;
  /** Values of the other inputs, as text or typed. */
  parameters: Readonly<Record<string, unknown>>;
  /** Which frame of a 4-D volume. */
  frame?: number;
  /** The wanted format by output name; a label map is otherwise written as the input was. */
  formats?: Readonly<Record<string, OutputFormat>>;
}

/** What a model gets to see of the prediction that it takes part in. */
export interface AppContext {
  readonly parameters: Readonly<Record<string, Parameter>>;
  readonly signal: AbortSignal;
  /** 0…1 of the model's own work, and what is being done. */
  progress(fraction: number, note?: string): void;
  log(text: string): void;
}

/** A loaded model: a network that core drives, or a program that turns inputs into outputs by itself. */
export type LoadedModel =
  | { readonly kind: 'network'; readonly session: NetworkSession }
  | {
      readonly kind: 'program';
      run(
        inputs: Readonly<Record<string, InputValue>>,
        context: AppContext,
      ): Promise<Record<string, OutputValue>>;
    };

export interface PredictionContext {
  readonly platform: Platform;
  readonly limits?: ReadLimits;
  readonly signal?: AbortSignal;
  load(model: ModelSpec): Promise<LoadedModel>;
  onProgress?(stage: Stage, fraction: number): void;
  log?(text: string): void;
  /** Takes one encoded output; called once for each, in the manifest's order. */
  write(output: EncodedOutput): Promise<void>;
}

export interface EncodedOutput {
  readonly name: string;
  readonly type: Output['type'];
  readonly label: string;
  readonly primary: boolean;
  readonly format: OutputFormat;
  /** Of a label map: what the header of the input stated of their grid. Another format made of it later needs it again. */
  readonly geometry?: FileGeometry;
  readonly bytes: AsyncIterable<Bytes>;
}

export const stages = ['decode', 'preprocess', 'infer', 'postprocess', 'encode'] as const;
export type Stage = (typeof stages)[number];

/** Where each stage begins and ends in the progress of the whole. */
const share: Record<Stage, readonly [number, number]> = {
  decode: [0, 0.05],
  preprocess: [0.05, 0.1],
  infer: [0.1, 0.9],
  postprocess: [0.9, 0.96],
  encode: [0.96, 1],
};

export type StageTimes = Record<Stage, number>;

/**
 * Runs a prediction and hands every output to `context.write`. Returns the milliseconds that each stage took.
 * Throws TomaatError: the caller's fault (BAD_INPUT, BAD_VOXELS, NOT_ACCEPTED …) or the app's (APP_FAILED,
 * APP_OUTPUT …).
 */
export async function predict(
  manifest: Manifest,
  request: PredictionRequest,
  context: PredictionContext,
): Promise<StageTimes> {
  const times: StageTimes = { decode: 0, preprocess: 0, infer: 0, postprocess: 0, encode: 0 };
  const stage = async <T>(
    name: Stage,
    work: (progress: (fraction: number) => void) => Promise<T>,
  ): Promise<T> => {
    context.signal?.throwIfAborted();
    const [from, to] = share[name];
    const report = (fraction: number) =>
      context.onProgress?.(name, from + (to - from) * Math.min(1, Math.max(0, fraction)));
    report(0);
    const start = performance.now();
    try {
      return await work(report);
    } catch (error) {
      if (error instanceof TomaatError || context.signal?.aborted) throw error;
      // The author reads this: what the engine or the app's own code said, and where.
      throw new TomaatError('APP_FAILED', `The app failed in its ${name} stage: ${messageOf(error)}`, {
        cause: error,
      });
    } finally {
      times[name] = performance.now() - start;
      report(1);
    }
  };

  const parameters = parseParameters(manifest.inputs, request.parameters);
  const decoded = await stage('decode', (progress) => decode(manifest, request, context, progress));
  const prepared = await stage('preprocess', async () => {
    const volumes: Record<string, Volume> = {};
    for (const [name, volume] of Object.entries(decoded.volumes)) {
      accept(manifest.acceptance, name, volume);
      volumes[name] = volume;
    }
    const model = manifest.model.find((candidate) => applies(candidate.when, parameters));
    if (!model) {
      throw new TomaatError(
        'BAD_INPUT',
        'No model of the app is meant for these parameters. Choose other values.',
      );
    }
    const steps = manifest.preprocess.filter((step) => applies(step.when, parameters));
    if (model.runtime === 'onnx') {
      const names = model.channels ?? volumeInputs(manifest).slice(0, 1);
      const stacked = stack(names.map((name) => need(volumes, name)));
      return { model, inputs: { '': await preprocess(stacked, steps, parameters, context) } };
    }
    const inputs: Record<string, InputValue> = { ...parameters, ...decoded.transforms };
    for (const [name, volume] of Object.entries(volumes)) {
      inputs[name] = await preprocess(volume, steps, parameters, context);
    }
    return { model, inputs };
  });

  const raw = await stage('infer', async (progress) => {
    const loaded = await context.load(prepared.model);
    if (loaded.kind === 'network') {
      if (prepared.model.runtime !== 'onnx') throw new TypeError('a network belongs to the onnx runtime');
      const reduction = reductionOf(manifest, parameters);
      return inferNetwork(prepared.inputs[''] as Volume, loaded.session, prepared.model.inferer, reduction, {
        onProgress: progress,
        signal: context.signal,
      });
    }
    return loaded.run(prepared.inputs, {
      parameters,
      signal: context.signal ?? new AbortController().signal,
      progress: (fraction, note) => {
        progress(fraction);
        if (note) context.log?.(note);
      },
      log: (text) => context.log?.(text),
    });
  });

  const results = await stage('postprocess', () => {
    const { model, inputs } = prepared;
    if (model.runtime === 'onnx') return finish(manifest, 'network', raw, decoded.grid, parameters, context);
    // A program may answer on the grid of what it was given, or on that of the caller's volume.
    const given = [...Object.values(inputs), ...Object.values(decoded.volumes)].filter(isVolume);
    for (const [name, output] of Object.entries(manifest.outputs)) {
      if (output.type === 'LabelVolume') checkPlace(name, raw[name], given);
    }
    return finish(manifest, 'program', raw, decoded.grid, parameters, context);
  });

  await stage('encode', async (progress) => {
    const names = Object.keys(manifest.outputs);
    for (const [index, name] of names.entries()) {
      const output = manifest.outputs[name];
      const format = chooseFormat(name, output, request.formats?.[name], decoded.extension);
      const geometry = output.type === 'LabelVolume' ? decoded.geometry : undefined;
      await context.write({
        name,
        type: output.type,
        label: output.label ?? name,
        primary: name === primaryOutput(manifest),
        format,
        geometry,
        bytes: encodeOutput(output.type, results[name], format, context.platform, {
          geometry,
          labels: labelsWith(manifest.labels, parameters),
        }),
      });
      progress((index + 1) / names.length);
    }
  });
  return times;
}

interface Decoded {
  volumes: Record<string, Volume>;
  transforms: Record<string, SpatialTransform>;
  /** The grid of the first volume: results go back onto it. */
  grid?: Grid;
  extension: VolumeExtension;
  /** What the header of the first volume states of its grid. */
  geometry?: FileGeometry;
}

async function decode(
  manifest: Manifest,
  request: PredictionRequest,
  context: PredictionContext,
  progress: (fraction: number) => void,
): Promise<Decoded> {
  const decoded: Decoded = { volumes: {}, transforms: {}, extension: defaultExtension };
  const missing: string[] = [];
  // A program gets the voxels in a file, of the type that they came in.
  const isProgram = manifest.model.some(({ runtime }) => runtime === 'command');
  for (const name of Object.keys(request.files)) {
    if (Object.hasOwn(manifest.inputs, name) && isFileInput(manifest.inputs[name])) continue;
    throw new TomaatError('BAD_INPUT', `${name} is no file input of this app.`, { field: name });
  }
  for (const [name, input] of Object.entries(manifest.inputs)) {
    const files = request.files[name];
    if (!isFileInput(input)) continue;
    if (!files || files.length === 0) {
      if (!('optional' in input && input.optional)) missing.push(name);
      continue;
    }
    try {
      if (input.type === 'transform') {
        decoded.transforms[name] = await readTransform(files[0], context.platform, context.limits);
        continue;
      }
      const frame = input.type === 'volume' && input.frames === 'all' ? 'all' : request.frame;
      const { volume, header } = await readVolume([...files], context.platform, {
        frame,
        limits: context.limits,
        onProgress: progress,
      });
      decoded.volumes[name] = isProgram ? volume : { ...volume, voxels: takeNumericVoxels(volume.voxels) };
      if (!decoded.grid) {
        decoded.grid = { size: volume.size, affine: volume.affine };
        decoded.extension = header.extension;
        decoded.geometry = header.geometry;
      }
    } catch (error) {
      throw withField(error, name);
    }
  }
  if (missing.length > 0) {
    throw new TomaatError(
      'INPUTS_MISSING',
      `The app needs ${missing.join(' and ')} too. Send ${missing.length > 1 ? 'them' : 'it'} along.`,
      {
        detail: { missing },
      },
    );
  }
  return decoded;
}

/** Volumes as the channels of one, all on the grid of the first. */
function stack(volumes: readonly Volume[]): Volume {
  const [first, ...others] = volumes;
  if (others.length === 0) return first;
  if (volumes.some((volume) => volume.components !== 1)) {
    throw new TomaatError(
      'BAD_INPUT',
      'A volume that is one channel of several has one component a voxel, and one of these has more. Send them one by one.',
    );
  }
  const n = voxelCount(first);
  const voxels = new Float32Array(n * volumes.length);
  for (const [channel, volume] of volumes.entries()) {
    const aligned = sameGrid(volume, first) ? volume : resample(volume, first, { mode: 'linear' });
    voxels.set(numericVoxels(componentOf(aligned, 0).voxels), channel * n);
  }
  return { voxels, size: first.size, affine: first.affine, components: volumes.length };
}

async function preprocess(
  volume: Volume,
  steps: readonly Step[],
  parameters: Readonly<Record<string, Parameter>>,
  context: PredictionContext,
): Promise<Volume> {
  let current = volume;
  for (const step of steps) {
    context.signal?.throwIfAborted();
    current = await applyTransform(step, 'preprocess', current, {
      parameters,
      signal: context.signal,
      log: (text) => context.log?.(text),
    });
  }
  return current;
}

/**
 * How scores become labels. `argmax` before `restore` lets the inferer reduce tile by tile; `restore` before
 * `argmax` keeps the scores on the model's grid and interpolates them onto the input's, fused with the argmax.
 */
export function reductionOf(manifest: Manifest, parameters: Readonly<Record<string, Parameter>>): Reduction {
  const steps = manifest.postprocess.filter((step) => applies(step.when, parameters));
  const index = steps.findIndex((step) => step.name === 'argmax' || step.name === 'threshold');
  if (index < 0) return { type: 'argmax' };
  if (steps.slice(0, index).some((step) => step.name === 'restore')) return { type: 'none' };
  return reductionBy(steps[index], parameters);
}

function reductionBy(step: Step, parameters: Readonly<Record<string, Parameter>>): Reduction {
  if (step.name === 'argmax') return { type: 'argmax' };
  const { channel, above } = resolveParameters(step, 'postprocess', parameters) as {
    channel: number;
    above: number;
  };
  return { type: 'threshold', channel, above };
}

/** The network's result under the empty name: labels, or scores where they are still to be restored. */
async function inferNetwork(
  input: Volume,
  session: NetworkSession,
  spec: InfererSpec,
  reduction: Reduction,
  options: { onProgress(fraction: number): void; signal?: AbortSignal },
): Promise<Record<string, OutputValue>> {
  const floats =
    input.voxels instanceof Float32Array
      ? input
      : { ...input, voxels: Float32Array.from(numericVoxels(input.voxels)) };
  const result = await infer(floats, session, spec, reduction, options);
  return 'labels' in result ? { labels: result.labels } : { scores: result.scores };
}

/** Label maps back on the input's grid, checked; and what is derived from them. */
async function finish(
  manifest: Manifest,
  by: LoadedModel['kind'],
  raw: Record<string, OutputValue>,
  grid: Grid | undefined,
  parameters: Readonly<Record<string, Parameter>>,
  context: PredictionContext,
): Promise<Record<string, OutputValue>> {
  const network = by === 'network';
  const primary = primaryOutput(manifest);
  const results: Record<string, OutputValue> = network ? {} : { ...raw };
  for (const name of Object.keys(results)) {
    if (!Object.hasOwn(manifest.outputs, name)) {
      throw new TomaatError(
        'APP_OUTPUT',
        `The app returned ${name}, which its manifest does not list among the outputs.`,
        { field: name },
      );
    }
  }
  const labelMaps = Object.keys(manifest.outputs).filter(
    (name) => manifest.outputs[name].type === 'LabelVolume',
  );
  if (labelMaps.length === 0 && network) {
    throw new TomaatError('BAD_MANIFEST', 'An app with an onnx model lists an output of type LabelVolume.', {
      field: 'outputs',
    });
  }
  for (const name of labelMaps) {
    const start = network ? (name === primary ? raw : undefined) : raw[name] && { labels: raw[name] };
    if (!start) throw missingOutput(name);
    const labels = await finishLabels(manifest, name, start, grid, parameters, context);
    if (!network && hasLabel(raw[name] as Volume) && !hasLabel(labels) && manifest.postprocess.length === 0) {
      throw new TomaatError(
        'APP_OUTPUT',
        `None of the labels of ${name} lie inside the caller’s volume. Write the label map with the affine (spacing, directions, origin) of the volume that the app was given.`,
        { field: name },
      );
    }
    if (!manifest.postprocess.some((step) => step.name === 'check' && applies(step.when, parameters)))
      for (const check of checksOf(manifest, name)) checkResult(check, labels);
    results[name] = labels;
  }
  const labels = labelsWith(manifest.labels, parameters);
  for (const [name, output] of Object.entries(manifest.outputs)) {
    if (results[name] === undefined) {
      const source = results[fromOf(output) ?? primary];
      const derived = isVolume(source) ? await derive(output, source, labels) : undefined;
      if (derived === undefined) throw missingOutput(name);
      results[name] = derived;
    }
    checkType(name, output, results[name]);
  }
  return results;
}

/** The checks that an output's label map has to pass. */
const checksOf = (manifest: Manifest, name: string) =>
  manifest.resultChecks.filter(({ output = primaryOutput(manifest) }) => output === name);

async function finishLabels(
  manifest: Manifest,
  name: string,
  start: Record<string, OutputValue>,
  grid: Grid | undefined,
  parameters: Readonly<Record<string, Parameter>>,
  context: PredictionContext,
): Promise<Volume> {
  let labels = start.labels === undefined ? undefined : asLabels(name, start.labels);
  const scores = start.scores as Volume | undefined;
  for (const step of manifest.postprocess) {
    context.signal?.throwIfAborted();
    if (!applies(step.when, parameters)) continue;
    if (step.name === 'restore') {
      if (!grid)
        throw new TomaatError('BAD_MANIFEST', 'restore needs a volume among the inputs.', {
          field: 'postprocess',
        });
      if (labels) labels = restore(labels, grid);
    } else if (step.name === 'argmax' || step.name === 'threshold') {
      if (!labels && scores && grid) {
        const reduction = reductionBy(step, parameters);
        labels =
          reduction.type === 'threshold'
            ? resampleThreshold(scores, reduction.channel, reduction.above, grid)
            : resampleArgmax(scores, grid);
      }
      if (step.name === 'threshold' && labels) {
        const { value } = resolveParameters(step, 'postprocess', parameters) as { value: number };
        if (value !== 1)
          labels = { ...labels, voxels: Uint16Array.from(numericVoxels(labels.voxels), (v) => v * value) };
      }
    } else {
      if (!labels)
        throw new TomaatError('BAD_MANIFEST', `${step.name} comes after argmax or threshold.`, {
          field: 'postprocess',
        });
      if (step.name === 'check') {
        for (const check of checksOf(manifest, name)) checkResult(check, labels);
        continue;
      }
      labels = await applyTransform(step, 'postprocess', labels, {
        parameters,
        signal: context.signal,
        log: (text) => context.log?.(text),
      });
    }
  }
  if (!labels) throw missingOutput(name);
  if (grid) labels = restore(labels, grid);
  return asLabels(name, labels);
}

/** The format of an output: the wanted one, else the input's for a label map, else the type's first. */
export function chooseFormat(
  name: string,
  output: Pick<Output, 'type'>,
  wanted: string | undefined,
  inputExtension: VolumeExtension,
): OutputFormat {
  const possible: readonly OutputFormat[] = outputFormats[output.type];
  if (wanted !== undefined) {
    if ((possible as readonly string[]).includes(wanted)) return wanted as OutputFormat;
    throw new TomaatError(
      'NOT_ACCEPTABLE',
      `${name} cannot be given as ${wanted}; it can be had as: ${possible.join(', ')}.`,
      { field: 'format' },
    );
  }
  return output.type === 'LabelVolume' ? inputExtension : possible[0];
}

/** The bytes of one output in a format. Meshes and points are RAS mm; the volume formats hold what they hold. */
export async function* encodeOutput(
  type: Output['type'],
  value: OutputValue,
  format: OutputFormat,
  platform: Platform,
  options: { geometry?: FileGeometry; labels?: Manifest['labels'] } = {},
): AsyncGenerator<Bytes> {
  const text = (s: string) => new TextEncoder().encode(s);
  if (type === 'LabelVolume' && (format === 'vtk' || format === 'stl')) {
    const mesh = await buildSurface(value as Volume, { smooth: true, keepTriangles: 0.5 });
    yield* format === 'vtk' ? meshToVtk(mesh) : meshToStl(mesh);
  } else if (type === 'LabelVolume') {
    yield* writeVolume(value as Volume, format as VolumeExtension, platform, {
      geometry: options.geometry,
      intent: 'label',
      labels: options.labels,
    });
  } else if (type === 'VTKMesh') {
    yield* format === 'vtk' ? meshToVtk(value as Mesh) : meshToStl(value as Mesh);
  } else if (type === 'Fiducials') {
    const points = value as readonly (readonly [number, number, number])[];
    yield text(format === 'json' ? `${formatPointsJson(points)}\n` : formatPoints(points));
  } else if (type === 'PlainText') {
    yield text(format === 'json' ? `${JSON.stringify({ text: value })}\n` : (value as string));
  } else if (type === 'Measurements') {
    const labels = value as readonly LabelMeasurement[];
    yield text(format === 'csv' ? measurementsToCsv(labels) : `${JSON.stringify({ labels }, null, 2)}\n`);
  } else {
    yield* writeTransform(value as SpatialTransform, format as TransformExtension, platform);
  }
}

function need(volumes: Readonly<Record<string, Volume>>, name: string): Volume {
  if (volumes[name]) return volumes[name];
  throw new TomaatError('INPUTS_MISSING', `The app needs the volume ${name} too. Send it along.`, {
    field: name,
    detail: { missing: [name] },
  });
}

function messageOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split('\n')[0].slice(0, 500);
}
