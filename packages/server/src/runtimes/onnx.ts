import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { access, readFile, realpath, stat } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { basename, dirname, isAbsolute, join, sep } from 'node:path';
import {
  canaryDims,
  channelCount,
  chooseInput,
  chooseOutput,
  convertOutput,
  type LabelTensor,
  type ModelSpec,
  type NetworkSession,
  networkValuesOf,
  saysOutOfMemory,
  type Tensor,
  TomaatError,
  toHalf,
  type NetworkValue as Value,
} from '@tomaat/core';
import type { InferenceSession, Tensor as OrtTensor, TensorConstructor } from 'onnxruntime-node';
import { appFile } from '../apps.ts';
import { outOfCardMemory } from './card-memory.ts';
import { isCard, processor, providersOf } from './devices.ts';
import { type GraphChoice, openFaster, withLighter } from './faster-form.ts';
import { recordOf } from './measured.ts';
import { type GraphFacts, inspectGraph, labelOutputName, withLabelOutput } from './onnx-graph.ts';
import { withLanes } from './onnx-lanes.ts';
import type { OnnxOptions } from './onnx-options.ts';
import { rewriteGraph } from './rewrite-graph.ts';
import { rewrites as table } from './rewrites/table.ts';
import type { Runtime } from './runtime.ts';

export interface OnnxSession extends NetworkSession {
  readonly inputDims: readonly (number | null)[];
  /** What was done with its graph. */
  readonly graph: GraphChoice;
  /**
   * Runs the network once on zeros of these dimensions: the first run is up to 30 % slower than the others, and it shows
   * whether the graph works at all. Throws BAD_MANIFEST if it does not.
   */
  warmUp(dims: readonly number[]): Promise<void>;
  close(): Promise<void>;
}

type OpenedSession = Omit<OnnxSession, 'graph'>;

/** The `onnx` runtime of an app's manifest. */
export const onnxRuntime: Runtime<Extract<ModelSpec, { runtime: 'onnx' }>> = {
  name: 'onnx',
  description: 'A network in an ONNX file, on the CPU or a graphics card (onnxruntime)',
  async open(app, spec, { device, freeMemory, log }) {
    const { inferer } = spec;
    const modelFile = await appFile(app, spec.file);
    const options = {
      threads: spec.threads,
      device,
      inputName: spec.input,
      outputName: spec.output,
      labels: inferer.type === 'simple',
      slices: inferer.type === 'slice',
      rewrite: spec.rewrite,
      components: channelCount(spec),
      roiSize: inferer.type === 'simple' ? undefined : inferer.roiSize,
      freeMemory,
      log: log && ((text: string) => log(`${spec.file}: ${text}`)),
    };
    const residentBefore = process.memoryUsage.rss();
    const opened = await openOnnxSession(modelFile, options);
    const spreads = freeMemory && inferer.type === 'slidingWindow' && !(device && isCard(device));
    const session = spreads ? withLanes(opened, { modelFile, options, freeMemory, residentBefore }) : opened;
    return { kind: 'network', session };
  },
};

/** Networks of fixed input size up to this many numbers are warmed up by default. */
const warmUpVoxelsMax = 128 ** 3;

/**
 * Loads an ONNX file into onnxruntime, on one device. A run blocks its thread until it ends and cannot be stopped, so each
 * session belongs in its own process. Throws BAD_MANIFEST if the file is not a network that takes one float tensor [1, C,
 * z, y, x] (see `slices`), OUT_OF_MEMORY; running throws APP_FAILED, APP_OUTPUT or OUT_OF_MEMORY.
 */
export async function openOnnxSession(modelFile: string, options: OnnxOptions = {}): Promise<OnnxSession> {
  const name = basename(modelFile);
  const { bytes, facts } = await readModel(modelFile, name);
  if (facts) await checkExternalFiles(modelFile, name, facts.externalFiles);
  // Since 1.30 the engine on Linux and macOS sends usage data to its vendor, and leaves files for that in the temporary folder.
  process.env.ORT_DISABLE_TELEMETRY = '1';
  const ort = await import('onnxruntime-node');
  const create = async (model: string | Uint8Array): Promise<InferenceSession> => {
    const settings = sessionOptions(options);
    return typeof model === 'string'
      ? ort.InferenceSession.create(model, settings)
      : ort.InferenceSession.create(model, settings);
  };

  const load = (model: string | Uint8Array) =>
    create(model).catch((cause) => {
      throw loadError(cause, name, options.device);
    });

  const { rewrite } = options;
  const names = typeof rewrite === 'object' ? rewrite : [];
  const compared =
    names.length > 0
      ? rewriteGraph(
          bytes,
          table.filter(({ name }) => names.includes(name)),
        )
      : undefined;
  const session = await load(compared && 'bytes' in compared ? compared.bytes : modelFile);
  let opened: OpenedSession | undefined;
  try {
    const input = chooseInput(
      networkValuesOf(session.inputMetadata),
      name,
      options.inputName,
      options.slices,
    );
    const output = chooseOutput(networkValuesOf(session.outputMetadata), name, options.outputName);
    // The shapes decide whether an argmax may be added, and only the engine infers them: hence the second load. If
    // the engine rejects the added nodes, the network is still usable without them.
    const givesLabels = options.labels && facts && canLabel(output, facts);
    const wrap = (loaded: InferenceSession, withLabels: boolean) =>
      wrapSession(loaded, ort.Tensor, name, input, output.name, withLabels, options);
    const open = async (model?: Uint8Array) => {
      const labelling =
        givesLabels && (await create(withLabelOutput(model ?? bytes, output.name)).catch(() => undefined));
      return labelling ? wrap(labelling, true) : wrap(await load(model ?? modelFile), false);
    };
    const original = wrap(session, false);
    opened = original;
    const { inputDims } = original;
    const window = windowDims(inputDims, options);
    const kept = reasonToKeep(facts, options);
    let choice: GraphChoice = { applied: {}, left: kept };
    const warmDims = options.warmUpDims ?? window ?? fixedDims(inputDims);
    let isWarm: boolean | undefined;
    let fits: ((dims: readonly number[]) => boolean) | undefined;
    if (kept === undefined) {
      const { freeMemory, log, device } = options;
      const digest = createHash('sha256').update(bytes).digest('hex');
      const about = {
        tries: canaryDims(inputDims, window, options.components ?? 1),
        warmDims,
        record: recordOf(digest, device, options.threads),
        makesTrial: device?.measures !== false,
        freeMemory,
        log,
      };
      ({ session: opened, choice, isWarm, fits } = await openFaster(bytes, original, about, open));
    }
    if (givesLabels && opened === original) {
      await original.close();
      opened = await open();
    }
    if (warmDims && !isWarm) await opened.warmUp(warmDims);
    const rewrites = Object.keys(choice.applied);
    const chosen = { ...opened, graph: choice, ...(rewrites.length > 0 && { rewrites }) };
    return fits ? withLighter(chosen, fits, originalOf(modelFile, options)) : chosen;
  } catch (error) {
    await (opened ? opened.close() : session.release());
    throw error;
  }
}

/** Outside of the function that loads a model, so that a session does not keep the bytes of the file in memory. */
const originalOf = (modelFile: string, options: OnnxOptions) => () =>
  openOnnxSession(modelFile, { ...options, rewrite: false, roiSize: undefined, warmUpDims: undefined });

/** Why a graph is not rewritten, if it may not be. */
function reasonToKeep(
  facts: GraphFacts | undefined,
  { rewrite = true, device = processor }: OnnxOptions,
): string | undefined {
  if (!facts) return 'it has another format';
  // What is slow on a processor need not be on a card.
  if (isCard(device)) return 'a graphics card computes it';
  if (typeof rewrite === 'object') return 'another session has compared it';
  if (device.rewrite === false) return 'the operator wants it as it is';
  return rewrite ? undefined : 'the app wants it as it is';
}

/** Dimensions of the input of a network that takes only one size, if that is small enough for a first run. */
function fixedDims(inputDims: readonly (number | null)[]): readonly number[] | undefined {
  const dims = inputDims.map((d, i) => (i === 0 && inputDims.length > 3 ? 1 : d));
  const isKnown = dims.every((d) => d !== null) && dims.reduce((a, b) => a * b, 1) <= warmUpVoxelsMax;
  return isKnown ? dims : undefined;
}

/** Dimensions of a window of a network that takes windows of any size; undefined for others. */
function windowDims(
  inputDims: readonly (number | null)[],
  { roiSize, components = 1 }: OnnxOptions,
): readonly number[] | undefined {
  if (!roiSize || !inputDims.slice(1).includes(null)) return undefined;
  const hasBatch = inputDims.length > roiSize.length + 1;
  return [...(hasBatch ? [1] : []), inputDims[hasBatch ? 1 : 0] ?? components, ...[...roiSize].reverse()];
}

/** The engine's options: fixed threads that do not spin, and the least memory. */
export function sessionOptions({
  threads,
  memPattern = false,
  device = processor,
}: OnnxOptions): InferenceSession.SessionOptions {
  return {
    executionProviders: providersOf(device.device),
    intraOpNumThreads: threads ?? availableParallelism(),
    interOpNumThreads: 1,
    executionMode: 'sequential',
    enableMemPattern: memPattern,
    logSeverityLevel: 4, // what it would print is already in its errors
    // Waiting threads that spin take time from the other processes of a busy machine.
    extra: { session: { 'intra_op.allow_spinning': '0', 'inter_op.allow_spinning': '0' } },
  };
}

/** The file's bytes and the files they refer to (unknown for onnxruntime's own format, .ort). */
export async function readModel(
  modelFile: string,
  name: string,
): Promise<{ bytes: Uint8Array; facts?: GraphFacts }> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(modelFile);
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? cause.code : undefined;
    const message =
      code === 'ENOENT'
        ? `The model file ${name} does not exist. Put it in the folder of the app, or correct \`model.file\`.`
        : code === 'ERR_FS_FILE_TOO_LARGE'
          ? `The model file ${name} is larger than 2 GiB. Export it with its weights in a separate file next to it (external data).`
          : `The model file ${name} cannot be read (${code ?? cause}). Check that it is a file and its permissions.`;
    throw new TomaatError('BAD_MANIFEST', message, { cause });
  }
  const start = new TextDecoder('latin1').decode(bytes.subarray(0, 64));
  if (start.slice(4, 8) === 'ORTM') return { bytes };
  const is =
    bytes.length === 0
      ? 'is empty'
      : start.startsWith('version https://git-lfs')
        ? 'is a pointer of Git LFS, not the model itself. Run `git lfs pull`'
        : /^\s*<(!doctype|html)/i.test(start)
          ? 'is a web page, not a model. Download the file itself'
          : start.startsWith('PK')
            ? 'is a zip archive (perhaps a PyTorch checkpoint). Export the network with torch.onnx.export'
            : undefined;
  if (is) throw new TomaatError('BAD_MANIFEST', `The model file ${name} ${is}.`);
  try {
    return { bytes, facts: inspectGraph(bytes) };
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw new TomaatError(
      'BAD_MANIFEST',
      `The model file ${name} is not an ONNX model, or is truncated (${cause.message}). Compare it with the original, or export it again.`,
      { cause },
    );
  }
}

/** Weights must be next to the model: a model must not read other files of the machine. */
export async function checkExternalFiles(
  modelFile: string,
  name: string,
  locations: readonly string[],
): Promise<void> {
  const folder = await realpath(dirname(modelFile));
  for (const location of locations) {
    let path: string;
    try {
      path = await realpath(join(folder, location));
    } catch (cause) {
      throw new TomaatError(
        'BAD_MANIFEST',
        `The model ${name} has weights in ${location}, which is not next to it. Put that file in the same folder.`,
        { cause },
      );
    }
    if (isAbsolute(location) || !path.startsWith(folder + sep)) {
      throw new TomaatError(
        'BAD_MANIFEST',
        `The model ${name} has weights in ${location}, outside its folder. Put that file in the folder of the app and name it without a path.`,
      );
    }
    if ((await stat(path)).nlink > 1) {
      throw new TomaatError(
        'BAD_MANIFEST',
        `The weights ${location} of the model ${name} have more than one name (a hard link), and may be another file of this machine. Put a copy in the folder of the app.`,
      );
    }
    await access(path, constants.R_OK);
  }
}

/** Whether the scores allow an argmax in the graph: float32, five dimensions, few classes, weights inside the file. */
function canLabel({ type, shape }: Value, { externalFiles, opset }: GraphFacts): boolean {
  const classes = shape[1];
  return (
    type === 'float32' &&
    shape.length === 5 &&
    typeof classes === 'number' &&
    classes <= 256 &&
    opset >= 7 &&
    externalFiles.length === 0
  );
}

function wrapSession(
  session: InferenceSession,
  OnnxTensor: TensorConstructor,
  name: string,
  input: Value,
  outputName: string,
  withLabels: boolean,
  { slices = false, device }: Pick<OnnxOptions, 'slices' | 'device'>,
): OpenedSession {
  const inputDims = input.shape.map((d) => (typeof d === 'number' ? d : null));
  let closed = false;

  const fetch = async ({ data, dims }: Tensor, output: string): Promise<OrtTensor> => {
    if (closed) throw new TomaatError('INTERNAL', `The session of ${name} is closed.`);
    try {
      const feed =
        input.type === 'float16' ? halfTensor(OnnxTensor, data, dims) : new OnnxTensor('float32', data, dims);
      const results = await session.run({ [input.name]: feed }, [output]);
      return results[output];
    } catch (cause) {
      throw runError(cause, name, dims, device);
    }
  };
  const run = async (tensor: Tensor) => convertOutput(await fetch(tensor, outputName), name);

  return {
    inputDims: inputDims.length > 0 ? inputDims : new Array<null>(slices ? 4 : 5).fill(null),
    run,
    ...(withLabels && {
      async runLabels(tensor: Tensor): Promise<LabelTensor> {
        const { data, dims } = await fetch(tensor, labelOutputName);
        return { data: data as Uint8Array, dims, integer: true };
      },
    }),
    async warmUp(dims) {
      try {
        await run({ data: new Float32Array(dims.reduce((a, b) => a * b, 1)), dims });
      } catch (cause) {
        // A file may ask for any number of channels.
        if (cause instanceof RangeError) throw outOfMemory(name, cause, `on a tensor of ${dims.join(' × ')}`);
        if (!(cause instanceof TomaatError) || cause.code !== 'APP_FAILED') throw cause;
        throw new TomaatError('BAD_MANIFEST', cause.message, { cause });
      }
    },
    async close() {
      if (closed) return;
      closed = true;
      await session.release();
    },
  };
}

/** The binding (1.30) takes float16 as Uint16Array only, and the tensor class turns that into a Float16Array. */
function halfTensor(OnnxTensor: TensorConstructor, data: Float32Array, dims: readonly number[]): OrtTensor {
  const half = toHalf(data);
  const bits = new Uint16Array(half.buffer, half.byteOffset, half.length);
  return Object.defineProperty(new OnnxTensor('float16', bits, dims), 'data', { value: bits });
}

const messageOf = (cause: unknown) => (cause instanceof Error ? cause.message : String(cause));

function outOfMemory(name: string, cause: unknown, doing: string): TomaatError {
  return new TomaatError(
    'OUT_OF_MEMORY',
    `The network ${name} ran out of memory ${doing}. Send a smaller or coarser volume; the author of the app can use the sliding window or a smaller roiSize; the operator of the server can raise the memory limit.`,
    { cause },
  );
}

export function loadError(cause: unknown, name: string, device = processor): TomaatError {
  const message = messageOf(cause);
  const card = isCard(device) && outOfCardMemory(message, { name, device, cause });
  if (card) return card;
  if (saysOutOfMemory(message)) return outOfMemory(name, cause, 'while it was loaded');
  return new TomaatError(
    'BAD_MANIFEST',
    `onnxruntime cannot load the model ${name}: ${message}. Export it with standard operators of opset 7 to 23, and check it with onnx.checker.`,
    { cause },
  );
}

function runError(cause: unknown, name: string, dims: readonly number[], device = processor): TomaatError {
  if (cause instanceof TomaatError) return cause;
  const message = messageOf(cause);
  const card = isCard(device) && outOfCardMemory(message, { name, device, dims, cause });
  if (card) return card;
  const on = `on a tensor of ${dims.join(' × ')}`;
  if (saysOutOfMemory(message)) return outOfMemory(name, cause, on);
  const axes = dims.length === 5 ? 'batch × components × z × y × x' : 'batch × components × rows × columns';
  const hint = /mismatch|broadcast|shape|dimension/i.test(message)
    ? ' Networks that halve their input need sizes that are multiples of 8, 16 or 32: see divisiblePad and roiSize.'
    : ' Check the network and the output of the preprocessing.';
  return new TomaatError(
    'APP_FAILED',
    `The network ${name} failed ${on} (${axes}): ${message.trim()}.${hint}`,
    {
      cause,
    },
  );
}
