import type { DicomSource } from '../dicom/source.ts';
import { createSeed } from '../dicom/uids.ts';
import { TomaatError, withField } from '../errors.ts';
import type { FileGeometry } from '../formats/file-geometry.ts';
import { defaultExtension } from '../formats/table.ts';
import { readTransform, type SpatialTransform } from '../formats/transform-file.ts';
import {
  type ReadLimits,
  readVolume,
  type SourceFile,
  type VolumeExtension,
} from '../formats/volume-file.ts';
import type { NetworkSession } from '../inferers/spec.ts';
import type { Bytes, Platform } from '../platform.ts';
import {
  type Grid,
  type NumericVoxels,
  numericVoxels,
  takeNumericVoxels,
  type Volume,
  type Voxels,
} from '../volume.ts';
import { accept } from './acceptance.ts';
import type { Output, OutputFormat } from './elements.ts';
import { type MeasuredLabelMap, noLabelMap } from './encode-dicom.ts';
import { chooseFormat, encodeOutput, formatKept, formatOfResult } from './encode-output.ts';
import {
  isNetworkSpec,
  type Manifest,
  type ModelSpec,
  type NetworkSpec,
  type ProgramSpec,
  primaryOutput,
} from './manifest.ts';
import { modelsFor, volumeChannels } from './networks.ts';
import { finishProgram, type Outputs } from './postprocess.ts';
import { missingVolume, prepareProgram } from './prepare.ts';
import { fromOf, isVolume } from './results.ts';
import { runNetworks } from './run-networks.ts';
import {
  createStages,
  nothingDone,
  type Report,
  type RunStage,
  type Stage,
  type StageTimes,
  type Trace,
  traceVolume,
} from './stages.ts';
import { labelsWith, type StepContext } from './steps.ts';
import { acceptSuv } from './suv-inputs.ts';
import { stageOfInput } from './trace.ts';
import { type InputValue, isFileInput, type OutputValue, type Parameter, parseParameters } from './values.ts';

/**
 * One prediction, from the received bytes to the returned ones: decode → accept → preprocess → infer →
 * postprocess → encode. It runs in the worker's child, in `tomaat run`, and in tests; it is independent of
 * HTTP, jobs and files.
 */

/** The request of a caller. */
export interface PredictionRequest {
  /** The files of each file input: one, or those of one volume (.mhd and its data). */
  files: Readonly<Record<string, readonly SourceFile[]>>;
  /** Values of the other inputs, as text or typed. */
  parameters: Readonly<Record<string, unknown>>;
  /** The frame of a 4-D volume. */
  frame?: number;
  /** The DICOM series, if the files of a volume hold several: its UID, or its number. */
  series?: string;
  /** The requested format by output name; by default a label map is written in the input's format. */
  formats?: Readonly<Record<string, OutputFormat>>;
  /** Of which the UIDs of DICOM results are made: the same for the same seed, so that a repeated job replaces them. Random if missing. */
  seed?: string;
}

/** A model's view of the current prediction. */
export interface AppContext {
  readonly parameters: Readonly<Record<string, Parameter>>;
  readonly signal: AbortSignal;
  /** 0…1 of the model's own work, and the current step. */
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
  /** For comparisons: takes volumes between the steps. With scores among them, those of the whole volume are kept in memory. */
  trace?: Trace;
  /** Takes one encoded output; called once for each, in the manifest's order. */
  write(output: EncodedOutput): Promise<void>;
}

export interface EncodedOutput {
  readonly name: string;
  readonly type: Output['type'];
  readonly label: string;
  readonly primary: boolean;
  readonly format: OutputFormat;
  /** For a label map: the grid as stated in the header of the input. A later conversion needs it again. */
  readonly geometry?: FileGeometry;
  readonly bytes: AsyncIterable<Bytes>;
  /** The same output in a format that can be read back, where `format` cannot; made only if it is read. */
  readonly kept?: { readonly format: OutputFormat; readonly bytes: AsyncIterable<Bytes> };
}

/**
 * Runs a prediction and passes every output to `context.write`. Returns the milliseconds of each stage.
 * Throws TomaatError: the caller's error (BAD_INPUT, BAD_VOXELS, NOT_ACCEPTED …) or the app's (APP_FAILED,
 * APP_OUTPUT …).
 */
export async function predict(
  manifest: Manifest,
  request: PredictionRequest,
  context: PredictionContext,
): Promise<StageTimes> {
  const parameters = parseParameters(manifest.inputs, request.parameters);
  const { signal, trace } = context;
  const stepContext = { parameters, signal, trace, log: (text: string) => context.log?.(text) };
  const prediction: Prediction = { manifest, request, context, stepContext };
  const { times, stage } = createStages(context);
  const decoded = await stage('decode', (report) => decode(prediction, report));
  const results = await compute(prediction, decoded, stage);
  await stage('encode', (report) => encode(prediction, decoded, results, report));
  return times;
}

/** The data shared by the stages of one prediction. */
interface Prediction {
  readonly manifest: Manifest;
  readonly request: PredictionRequest;
  readonly context: PredictionContext;
  readonly stepContext: StepContext;
}

interface Decoded {
  volumes: Record<string, Volume>;
  transforms: Record<string, SpatialTransform>;
  /** The grid of the first volume: results go back onto it. */
  grid?: Grid;
  extension: VolumeExtension;
  /** The grid as stated in the header of the first volume. */
  geometry?: FileGeometry;
  /** The images of the first volume, where it is a DICOM series. */
  source?: DicomSource;
  /** The first volume as it was read. */
  image?: Volume;
}

/** Reads the files of the request: volumes and spatial transforms by the names of their inputs. */
async function decode({ manifest, request, context }: Prediction, report: Report): Promise<Decoded> {
  const decoded: Decoded = { volumes: {}, transforms: {}, extension: defaultExtension };
  const missing: string[] = [];
  // A program gets the voxels in a file, in their original type.
  const isProgram = manifest.model.some(({ runtime }) => runtime === 'command');
  for (const name of Object.keys(request.files)) {
    if (Object.hasOwn(manifest.inputs, name) && isFileInput(manifest.inputs[name])) continue;
    throw new TomaatError('BAD_INPUT', `${name} is not a file input of this app. Remove it.`, {
      field: name,
    });
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
      const { volume, header, source } = await readVolume([...files], context.platform, {
        frame,
        series: request.series,
        limits: context.limits,
        onProgress: report,
      });
      decoded.volumes[name] = isProgram ? volume : { ...volume, voxels: takeNumericVoxels(volume.voxels) };
      if (!decoded.grid) {
        decoded.grid = { size: volume.size, affine: volume.affine };
        decoded.extension = header.extension;
        decoded.geometry = header.geometry;
        decoded.source = source;
        decoded.image = decoded.volumes[name];
      }
    } catch (error) {
      throw withField(error, name);
    }
  }
  if (missing.length > 0) {
    throw new TomaatError(
      'INPUTS_MISSING',
      `The app also needs ${missing.join(' and ')}. Send ${missing.length > 1 ? 'them' : 'it'} in the same request.`,
      {
        detail: { missing },
      },
    );
  }
  // A format that the results cannot have is refused before they are computed.
  for (const [name, output] of Object.entries(manifest.outputs)) {
    const format = chooseFormat(name, output, request.formats?.[name], decoded);
    if (format === 'sr.dcm' && manifest.outputs[madeFrom(manifest, output)]?.type !== 'LabelVolume')
      throw noLabelMap(name);
  }
  return decoded;
}

/** Looks whether the volumes are accepted, chooses the models, and runs them. */
async function compute(prediction: Prediction, decoded: Decoded, stage: RunStage): Promise<Outputs> {
  const { manifest, context, stepContext } = prediction;
  const models = await stage('preprocess', () => acceptVolumes(prediction, decoded), nothingDone);
  const networks = models.filter(isNetworkSpec);
  const [program] = models.filter((spec) => !isNetworkSpec(spec));
  if (program) return runProgram(prediction, decoded, program, stage);
  const load = async (spec: NetworkSpec) => {
    const loaded = await context.load(spec);
    if (loaded.kind === 'network') return loaded.session;
    throw new TypeError(`the runtime ${spec.runtime} must give a network`);
  };
  const { volumes, grid } = decoded;
  if (!grid) throw missingVolume(volumeChannels(manifest, networks[0])[0]);
  return runNetworks({ manifest, volumes, grid, context: stepContext, load }, networks, stage);
}

/** The models to run. Throws if a volume is not accepted, or there is no model for these parameters. */
async function acceptVolumes(
  { manifest, stepContext }: Prediction,
  { volumes }: Decoded,
): Promise<ModelSpec[]> {
  const { parameters } = stepContext;
  for (const [name, volume] of Object.entries(volumes)) {
    accept(manifest.acceptance, name, volume);
    acceptSuv(manifest, parameters, name, volume.suv);
    await traceVolume(stepContext.trace, stageOfInput(name), volume);
  }
  const models = modelsFor(manifest, parameters);
  if (models.length > 0) return models;
  throw new TomaatError('BAD_INPUT', 'The app has no model for these parameters. Choose other values.');
}

/** Runs a program on its inputs, and makes the outputs of the manifest of what it returns. */
async function runProgram(
  { manifest, context, stepContext }: Prediction,
  { volumes, transforms, grid }: Decoded,
  spec: ProgramSpec,
  stage: RunStage,
): Promise<Outputs> {
  const { parameters, signal, log } = stepContext;
  const inputs: Record<string, InputValue> = await stage('preprocess', async () => ({
    ...parameters,
    ...transforms,
    ...(await prepareProgram(manifest, volumes, spec, stepContext)),
  }));
  const outputs = await stage('infer', async (report) => {
    const loaded = await context.load(spec);
    if (loaded.kind !== 'program') throw new TypeError(`the runtime ${spec.runtime} must give a program`);
    return loaded.run(inputs, {
      parameters,
      signal: signal ?? new AbortController().signal,
      progress: (fraction, note) => {
        report(fraction);
        if (note) log(note);
      },
      log,
    });
  });
  return stage('postprocess', () => {
    // A program may use the grid of its input, or that of the caller's volume.
    const given = [...Object.values(inputs), ...Object.values(volumes)].filter(isVolume);
    return finishProgram(manifest, outputs, given, grid, stepContext);
  });
}

/** Passes every output to `context.write`, in the order of the manifest. */
async function encode(
  { manifest, request, context, stepContext }: Prediction,
  decoded: Decoded,
  results: Readonly<Outputs>,
  report: Report,
): Promise<void> {
  const labels = labelsWith(manifest.labels, stepContext.parameters);
  const names = Object.keys(manifest.outputs);
  const formatOf = (name: string) =>
    formatOfResult(name, manifest.outputs[name], results[name], request.formats?.[name], decoded);
  // One for all outputs: they refer to each other.
  const seed = request.seed ?? createSeed();
  for (const [index, name] of names.entries()) {
    const output = manifest.outputs[name];
    const value = results[name];
    const format = formatOf(name);
    const keptFormat = formatKept(name, output, value, format, decoded);
    const geometry = output.type === 'LabelVolume' ? decoded.geometry : undefined;
    const dicom = decoded.source && {
      source: decoded.source,
      maker: manifest,
      name,
      description: `${manifest.name}: ${output.label ?? name}`,
      seed,
      readSlice: async (index: number) => sliceOf(decoded.image!, index),
      labelMap:
        output.type === 'Measurements' ? measuredLabelMap(manifest, output, results, formatOf) : undefined,
    };
    const bytesIn = (wanted: OutputFormat) =>
      encodeOutput(output.type, value, wanted, context.platform, { geometry, labels, dicom });
    await context.write({
      name,
      type: output.type,
      label: output.label ?? name,
      primary: name === primaryOutput(manifest),
      format,
      geometry,
      bytes: bytesIn(format),
      ...(keptFormat && { kept: { format: keptFormat, bytes: bytesIn(keptFormat) } }),
    });
    report((index + 1) / names.length);
  }
}

/** The label map whose measurements an output has; undefined if the app returns none. */
function measuredLabelMap(
  manifest: Manifest,
  output: Output,
  results: Readonly<Outputs>,
  formatOf: (name: string) => OutputFormat,
): MeasuredLabelMap | undefined {
  const name = madeFrom(manifest, output);
  if (manifest.outputs[name]?.type !== 'LabelVolume') return undefined;
  return { name, volume: results[name] as Volume, format: formatOf(name) };
}

/** The output from which another one is derived. */
const madeFrom = (manifest: Manifest, output: Output): string => fromOf(output) ?? primaryOutput(manifest);

/** The values of a slice, of the first component where there are several. */
function sliceOf({ voxels, size }: Volume, index: number): NumericVoxels {
  const plane = size[0] * size[1];
  return numericVoxels(voxels.subarray(index * plane, (index + 1) * plane) as Voxels);
}
