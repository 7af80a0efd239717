import { createWriteStream } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { InputParameter, NamedBytes } from '@tomaat/client';
import {
  type Bytes,
  isDicomFormat,
  isFileInput,
  isReadBack,
  type Manifest,
  mediaTypes,
  type OutputFormat,
  type OutputType,
  outputFormats,
  readSegmentationFile,
  readVolume,
  sourceFromBytes,
  supportedExtensions,
  TomaatError,
  type Volume,
  writeVolume,
} from '@tomaat/core';
import { type App, openApp as readApp } from './apps.ts';
import { nodePlatform } from './node-platform.ts';
import type { ModelServers } from './trust/model-servers.ts';
import { type Child, startChild } from './worker/child-process.ts';
import { createMemoryPolicy } from './worker/memory-limit.ts';
import type { WrittenOutput } from './worker/messages.ts';
import { computeIn, ofThisMachine } from './worker/run-app.ts';

/*
 * An app on this machine without a server, for programs in Node. It computes as the server does, in a child process: a network
 * does not block the caller's event loop, and a prediction can be aborted and has a memory limit.
 */

export interface OpenAppOptions {
  /** Most memory of a prediction, MB (10^6 bytes); 0 for no limit. The manifest's own limit, or most of the machine's if missing. */
  memoryMb?: number;
  /** What the app may use of model servers; only those of this machine if missing. */
  modelServers?: ModelServers;
  /** Volumes with more voxels are refused; 2^30 if missing. */
  maxVoxels?: number;
}

/** A file of an input: a volume in memory, the bytes of a file with or without its name, a Blob, or a file on disk. */
export type LocalFile = Volume | NamedBytes | Uint8Array | ArrayBuffer | Blob | { readonly path: string };

/** As in `predict` of the client. */
export interface LocalPredictOptions {
  /** The file of each file input; several for a volume that consists of several files (.hdr and .img). */
  volumes: Readonly<Record<string, LocalFile | readonly LocalFile[]>>;
  /** Values of the other inputs. Points are RAS+ mm. */
  values?: Readonly<Record<string, InputParameter>>;
  /** The frame of a 4-D volume, counted from 0. */
  frame?: number;
  /** The DICOM series, if the files of a volume hold several: its UID, or its number. */
  series?: string;
  /** The format of each output; by default a label map is written in the format of the first volume (a Volume counts as NRRD). */
  formats?: Readonly<Record<string, OutputFormat>>;
  signal?: AbortSignal;
  /** The stage of the work, and the fraction of the whole, 0 to 1. */
  onProgress?(stage: string, fraction: number): void;
  onLog?(text: string): void;
}

export interface LocalOutput {
  readonly name: string;
  readonly type: OutputType;
  readonly label: string;
  readonly format: OutputFormat;
  readonly fileName: string;
  readonly mediaType: string;
  readonly sizeBytes: number;
  bytes(): Promise<Bytes>;
  blob(): Promise<Blob>;
  /** The bytes as UTF-8 text. */
  text(): Promise<string>;
  /** The parsed text: of Measurements, and of other outputs in the format json. BAD_REQUEST if it is not JSON. */
  json<T = unknown>(): Promise<T>;
  /** A label map as voxels and affine (RAS+ mm). BAD_REQUEST if it is not in a volume format. */
  volume(): Promise<Volume>;
}

export interface LocalPrediction {
  readonly outputs: readonly LocalOutput[];
  readonly seconds: number;
  /** An output by name, the primary one if missing: the first label map, else the first. BAD_REQUEST if there is none. */
  output(name?: string): LocalOutput;
}

export interface LocalApp extends AsyncDisposable {
  readonly folder: string;
  readonly manifest: Manifest;
  /**
   * One prediction; concurrent ones run one after the other, and the loaded model is kept for the next. Rejects with a
   * TomaatError: the caller's error (BAD_INPUT, NOT_ACCEPTED …) or the app's (APP_FAILED, TIMEOUT, OUT_OF_MEMORY …). An
   * aborted signal rejects with its own reason.
   */
  predict(options: LocalPredictOptions): Promise<LocalPrediction>;
  /** Ends a running prediction and frees the model. Until then the process that opened the app may not exit by itself. */
  close(): Promise<void>;
}

/**
 * Opens an app folder: tomaat.yaml, weights, code. Checks the manifest and the hashes; the model is loaded by the first prediction.
 * Close it, or declare it with `await using`.
 * @throws {TomaatError} BAD_MANIFEST, which names every fault
 */
export async function openApp(folder: string, options: OpenAppOptions = {}): Promise<LocalApp> {
  const app = await readApp(folder);
  const memory = createMemoryPolicy({ slots: 1, memoryMb: options.memoryMb });
  const work = await mkdtemp(join(tmpdir(), 'tomaat-app-'));
  const closing = new AbortController();
  let child: Child | undefined;
  let jobs = 0;
  let last: Promise<unknown> = Promise.resolve();

  async function compute(prediction: LocalPredictOptions, signal: AbortSignal): Promise<LocalPrediction> {
    signal.throwIfAborted();
    const folder = join(work, `job-${++jobs}`);
    try {
      const inputs = join(folder, 'inputs');
      await mkdir(inputs, { recursive: true, mode: 0o700 });
      const files = await placeFiles(app, prediction.volumes, inputs);
      if (!child?.alive) child = await startChild(app, memory, () => {}, { permitted: options.modelServers });
      const { outputs, seconds } = await computeIn(child, {
        ...prediction,
        files,
        parameters: prediction.values ?? {},
        maxVoxels: options.maxVoxels,
        folder: join(folder, 'outputs'),
        signal,
      });
      return await collect(outputs, seconds);
    } catch (error) {
      throw withMemoryOption(app, ofThisMachine(error));
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }

  async function close(): Promise<void> {
    closing.abort(
      new TomaatError('CANCELED', `The app ${app.manifest.id} was closed. Open it again to predict.`),
    );
    await last;
    await child?.stop();
    await rm(work, { recursive: true, force: true });
  }

  return {
    folder: app.folder,
    manifest: app.manifest,
    async predict(prediction) {
      const given = prediction.signal ? [prediction.signal] : [];
      const signal = AbortSignal.any([closing.signal, ...given]);
      signal.throwIfAborted();
      const result = last.then(() => compute(prediction, signal));
      last = result.catch(() => {});
      return await unlessAborted(result, signal);
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** Names the option that sets this program's limit, if the manifest sets none. */
function withMemoryOption(app: App, error: unknown): unknown {
  const isOurs = error instanceof TomaatError && error.code === 'OUT_OF_MEMORY';
  if (!isOurs || app.manifest.limits.memoryMb !== undefined) return error;
  return new TomaatError(
    'OUT_OF_MEMORY',
    `${error.message} In a program, it is the option memoryMb of openApp().`,
    {
      cause: error,
    },
  );
}

/** The result; or the reason of the abort at once, even while the prediction waits for its turn. */
async function unlessAborted<T>(result: Promise<T>, signal: AbortSignal): Promise<T> {
  let stop = () => {};
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason);
    signal.addEventListener('abort', stop, { once: true });
  });
  try {
    return await Promise.race([result, aborted]);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

interface Placed {
  path: string;
  sizeBytes: number;
}

/** The files of the inputs on disk, where the child reads them. */
async function placeFiles(
  app: App,
  volumes: LocalPredictOptions['volumes'],
  folder: string,
): Promise<Record<string, Placed[]>> {
  const placed: Record<string, Placed[]> = {};
  for (const [input, given] of Object.entries(volumes)) {
    if (!Object.hasOwn(app.manifest.inputs, input) || !isFileInput(app.manifest.inputs[input])) {
      const known = Object.keys(app.manifest.inputs).filter((name) => isFileInput(app.manifest.inputs[name]));
      throw new TomaatError(
        'BAD_INPUT',
        `volumes.${input} is not a file input of the app ${app.manifest.id}. Available: ${known.join(', ') || 'none'}.`,
        { field: input },
      );
    }
    const files = Array.isArray(given) ? (given as readonly LocalFile[]) : [given as LocalFile];
    placed[input] = [];
    for (const [index, file] of files.entries())
      placed[input].push(await placeFile(input, file, join(folder, `${input}-${index}`)));
  }
  return placed;
}

async function placeFile(input: string, file: LocalFile, target: string): Promise<Placed> {
  const fault = (what: string, cause?: unknown) =>
    new TomaatError(
      'BAD_INPUT',
      `volumes.${input} ${what}. Give a Volume, bytes as { name, bytes }, a Blob, or { path }.`,
      { field: input, cause },
    );
  if (typeof file !== 'object' || file === null)
    throw fault(file === null ? 'is null' : `is of type ${typeof file}`);
  if ('path' in file && typeof file.path === 'string') {
    try {
      const found = await stat(file.path);
      if (found.isFile()) return { path: file.path, sizeBytes: found.size };
    } catch (error) {
      throw fault(`cannot be read: ${(error as Error).message}`, error);
    }
    throw fault(`is not a file: ${file.path}`);
  }
  const name = 'name' in file && typeof file.name === 'string' ? basename(file.name) : 'volume';
  const [path, chunks] =
    'voxels' in file
      ? [`${target}.nrrd`, writeVolume(file, 'nrrd', nodePlatform, { level: 0 })]
      : [`${target}-${name.replaceAll(/[^\w.-]/g, '_').slice(-80)}`, chunksOf(file)];
  if (!chunks) throw fault('is not a known file');
  await pipeline(Readable.from(chunks), createWriteStream(path, { mode: 0o600 }));
  return { path, sizeBytes: (await stat(path)).size };
}

function chunksOf(
  file: Exclude<LocalFile, Volume>,
): Iterable<Uint8Array> | AsyncIterable<Uint8Array> | undefined {
  if (file instanceof Blob) return file.stream() as unknown as AsyncIterable<Uint8Array>;
  const bytes = 'bytes' in file ? file.bytes : file;
  if (bytes instanceof Uint8Array) return [bytes];
  if (bytes instanceof ArrayBuffer) return [new Uint8Array(bytes)];
  return undefined;
}

/** Reads the child's outputs into memory: its files are deleted after the prediction. */
async function collect(written: readonly WrittenOutput[], seconds: number): Promise<LocalPrediction> {
  const outputs: LocalOutput[] = [];
  for (const output of written) outputs.push(localOutput(output, await readFile(output.path)));
  const primary = written.findIndex((output) => output.primary);
  return {
    outputs,
    seconds,
    output(name) {
      const found = name === undefined ? outputs[primary] : outputs.find((output) => output.name === name);
      if (found) return found;
      throw new TomaatError(
        'BAD_REQUEST',
        `The app has no output ${name}. Available: ${outputs.map((output) => output.name).join(', ')}.`,
      );
    },
  };
}

function localOutput({ name, type, label, format }: WrittenOutput, file: Buffer): LocalOutput {
  const bytes: Bytes = new Uint8Array(file.buffer as ArrayBuffer, file.byteOffset, file.byteLength);
  const mediaType = mediaTypes[format];
  const text = () => new TextDecoder().decode(bytes);
  const wrongFormat = (what: string, formats: readonly string[], cause?: unknown) =>
    new TomaatError(
      'BAD_REQUEST',
      formats.length > 0
        ? `The output ${name} is ${format}, not ${what}. Request another format: formats: { ${name}: '${formats[0]}' }.`
        : `The output ${name} of type ${type} is not ${what} in any format.`,
      { cause },
    );
  return {
    name,
    type: type as OutputType,
    label,
    format,
    fileName: `${name}.${format}`,
    mediaType,
    sizeBytes: bytes.length,
    bytes: async () => bytes,
    blob: async () => new Blob([bytes], { type: mediaType }),
    text: async () => text(),
    async json<T>() {
      const hasJson = (outputFormats[type as OutputType] as readonly string[]).includes('json');
      if (format !== 'json') throw wrongFormat('JSON', hasJson ? ['json'] : []);
      return JSON.parse(text()) as T;
    },
    async volume() {
      const isReadable = isReadBack(type as OutputType, format);
      if (isReadable && isDicomFormat(format)) return readSegmentationFile(bytes).labelMap;
      const isVolume = (supportedExtensions as readonly string[]).includes(format);
      if (!isVolume) throw wrongFormat('a volume', type === 'LabelVolume' ? ['nii.gz'] : []);
      const frame = type === 'TransformGrid' ? ('all' as const) : undefined;
      return (await readVolume([sourceFromBytes(`${name}.${format}`, bytes)], nodePlatform, { frame }))
        .volume;
    },
  };
}
