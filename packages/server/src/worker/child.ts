import { createHash } from 'node:crypto';
import { mkdir, open, readFile } from 'node:fs/promises';
import * as nodeModule from 'node:module';
import { join } from 'node:path';
import {
  type EncodedOutput,
  explainEmpty,
  isExplained,
  type LoadedModel,
  type ModelSpec,
  type NetworkSession,
  numericVoxels,
  type OutputFormat,
  observe,
  type PredictionContext,
  type PredictionRequest,
  predict,
  type SourceFile,
  TomaatError,
  type Volume,
  writeVolume,
} from '@tomaat/core';
import { type App, openApp } from '../apps.ts';
import { nodePlatform } from '../node-platform.ts';
import { registerAppModules } from '../runtimes/app-modules.ts';
import type { ComputeDevice } from '../runtimes/devices.ts';
import { EndedBySignal } from '../runtimes/ended-by-signal.ts';
import type { RuntimeContext } from '../runtimes/runtime.ts';
import { openModel } from '../runtimes/runtimes.ts';
import { diskError, writeAll } from '../store/files/disk.ts';
import { filePieces } from '../store/files/file-pieces.ts';
import type { ModelServers } from '../trust/model-servers.ts';
import { behaveAsChild } from './behave-as-child.ts';
import { freeMemory } from './free-memory.ts';
import type { MemoryLimit } from './memory-limit.ts';
import type {
  FromChild,
  PredictMessage,
  ToChild,
  WrittenFile,
  WrittenOutput,
  WrittenTrace,
} from './messages.ts';
import { isOutOfMemory, outOfMemory } from './out-of-memory.ts';
import { markOutlived } from './survivors.ts';

/**
 * The process that computes: one app, one prediction at a time. It may be killed at any moment; only
 * what it has reported as done counts. Started by the supervisor with the app's folder, its memory limit and its device as arguments.
 */

behaveAsChild();

const memoryLimit = (JSON.parse(process.argv[3] ?? 'null') ?? undefined) as MemoryLimit | undefined;
const device = (JSON.parse(process.argv[4] ?? 'null') ?? undefined) as ComputeDevice | undefined;

const progressEveryMs = 100;
/** A prediction this young may be done before anyone reads its progress. */
const tinyMs = 5;
/** A file up to this size is kept while its prediction runs: first its header is read, then its voxels. */
const smallBytes = 1 << 16;

registerAppModules();

function send(message: FromChild): void {
  // Without a callback a channel that has just closed would end this process before `disconnect` is heard.
  process.send?.(message, () => {});
}

/** An error in the form that crosses processes; an unexpected one is a failure of the app. */
function toData(error: unknown) {
  if (isOutOfMemory(error)) return outOfMemory(memoryLimit).toJSON();
  if (error instanceof TomaatError) return error.toJSON();
  const known = error as NodeJS.ErrnoException;
  if (known?.code === 'ENOSPC')
    return { code: 'DISK_FULL' as const, message: 'The disk of the server is full. Try again later.' };
  return { code: 'APP_FAILED' as const, message: `The app failed: ${known?.message ?? String(error)}` };
}

/** Of an app that uses model servers. */
let modelServers: ModelServers | undefined;
const models = new Map<ModelSpec, Promise<LoadedModel>>();

/** Aborts when this process is about to end. */
const closing = new AbortController();
/** The process groups of programs. */
const programs = new Set<number>();

function load(app: App, spec: ModelSpec): Promise<LoadedModel> {
  const loaded = models.get(spec) ?? openModel(app, spec, processContext);
  models.set(spec, loaded);
  loaded.catch(() => models.delete(spec));
  return loaded;
}

const processContext: RuntimeContext = {
  get folder() {
    return lastFolder ?? '';
  },
  closing: closing.signal,
  device,
  freeMemory: () => freeMemory(memoryLimit),
  log: (text) => {
    if (lastJob !== undefined) send({ type: 'log', job: lastJob, text: text.slice(0, 2000) });
  },
  get modelServers() {
    return modelServers;
  },
  onSpawn(pid) {
    programs.add(pid);
    send({ type: 'spawned', pid });
  },
  onExit(pid) {
    programs.delete(pid);
    send({ type: 'exited', pid });
    if (!process.connected) exitUnlessBusy();
  },
};

/** An input's bytes from any offset; a small file is read once. A failing disk is not a failure of the app. */
function openInput(path: string, sizeBytes: number): SourceFile['open'] {
  let small: Promise<Uint8Array> | undefined;
  return async function* (start = 0, room) {
    try {
      if (sizeBytes <= smallBytes) {
        small ??= readFile(path);
        return yield (await small).subarray(start);
      }
      yield* filePieces(path, sizeBytes, { start, room });
    } catch (error) {
      throw diskError(error);
    }
  };
}

/**
 * Forwards the progress of the prediction: a new stage at once, except in the first moments; other progress at once if the
 * last report was long ago, otherwise a little later or not at all.
 */
function progressTo(job: string): { report(stage: string, fraction: number): void; stop(): void } {
  let timer: NodeJS.Timeout | undefined;
  let at = { stage: '', fraction: 0 };
  const startedMs = performance.now();
  let saidMs = startedMs;
  const say = () => {
    clearTimeout(timer);
    timer = undefined;
    saidMs = performance.now();
    send({ type: 'progress', job, ...at });
  };
  return {
    report(stage, fraction) {
      const isNew = stage !== at.stage;
      at = { stage, fraction };
      const now = performance.now();
      const isLong = now - startedMs > tinyMs;
      // A stage may block this thread until its end, so a timer would fire too late.
      const dueMs = isNew && (isLong || stage === 'infer') ? 0 : saidMs + progressEveryMs - now;
      if (dueMs <= 0) say();
      else timer ??= setTimeout(say, dueMs);
    },
    stop: () => clearTimeout(timer),
  };
}

async function makeJobFolder(folder: string): Promise<void> {
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw diskError(error);
  }
}

/** Writes one output to the job's folder, and with `keepsValues` the file that is kept besides. */
async function writeOutput(
  { folder, keepsValues }: PredictMessage,
  { bytes, kept, ...output }: EncodedOutput,
): Promise<WrittenOutput> {
  const write = ({ format, bytes }: Pick<EncodedOutput, 'format' | 'bytes'>) =>
    writeBytes(join(folder, `${output.name}.${format}`), format, bytes);
  const file = await write({ format: output.format, bytes });
  return { ...output, ...file, ...(keepsValues && kept && { kept: await write(kept) }) };
}

/** Writes a volume between two steps; a `.nrrd` keeps its type, its components and its place. */
async function writeTrace(folder: string, index: number, volume: Volume): Promise<string> {
  const path = join(folder, `trace-${index}.nrrd`);
  await writeBytes(path, 'nrrd', writeVolume(volume, 'nrrd', nodePlatform));
  return path;
}

/** Writes a file, durable, and computes its digest while writing. */
async function writeBytes(
  path: string,
  format: OutputFormat,
  bytes: AsyncIterable<Uint8Array>,
): Promise<WrittenFile> {
  const hash = createHash('sha256');
  let sizeBytes = 0;
  try {
    await using file = await open(path, 'wx', 0o600);
    for await (const chunk of bytes) {
      hash.update(chunk);
      await writeAll(file, chunk, sizeBytes);
      sizeBytes += chunk.length;
    }
    await file.sync();
  } catch (error) {
    throw diskError(error);
  }
  return { format, path, digest: `sha256:${hash.digest('hex')}`, sizeBytes };
}

/** Why a prediction finds nothing, in lines: it runs once more, observed, and nothing is written. */
async function explain(
  manifest: App['manifest'],
  request: PredictionRequest,
  context: PredictionContext,
): Promise<string[]> {
  const { trace, load, seen } = observe(manifest, context.load);
  await predict(manifest, request, { ...context, trace, load, write: async () => {} });
  return explainEmpty(manifest, seen());
}

let canceling: AbortController | undefined;
/** A message about the previous job, which the supervisor may still consider running. */
let lastFolder: string | undefined;
let lastJob: string | undefined;

async function run(app: App, message: PredictMessage): Promise<void> {
  canceling = new AbortController();
  lastFolder = message.folder;
  lastJob = message.job;
  const { signal } = canceling;
  const files: Record<string, SourceFile[]> = {};
  for (const { input, path, name, sizeBytes } of message.files) {
    files[input] ??= [];
    files[input].push({
      name,
      // The names of the files were checked at the intake and not kept.
      renamed: true,
      sizeBytes,
      open: openInput(path, sizeBytes),
    });
  }
  const outputs: WrittenOutput[] = [];
  const networks = new Set<NetworkSession>();
  const traces: WrittenTrace[] = [];
  const progress = progressTo(message.job);
  try {
    await makeJobFolder(message.folder);
    const request: PredictionRequest = {
      files,
      parameters: message.parameters,
      frame: message.frame,
      series: message.series,
      formats: message.formats,
      seed: message.seed,
    };
    const isWatched = message.explains === true && isExplained(app.manifest);
    let isEmpty = false;
    const context: PredictionContext = {
      platform: nodePlatform,
      limits: { maxVoxels: message.maxVoxels },
      signal,
      load: async (spec) => {
        const loaded = await load(app, spec);
        if (loaded.kind === 'network') networks.add(loaded.session);
        return loaded;
      },
      onProgress: progress.report,
      log: (text) => send({ type: 'log', job: message.job, text: text.slice(0, 2000) }),
      trace: {
        stages: [...(message.traces ?? []), ...(isWatched ? ['labels'] : [])],
        take: async (stage, volume) => {
          if (message.traces?.includes(stage))
            traces.push({ stage, path: await writeTrace(message.folder, traces.length, volume) });
          if (stage === 'labels') isEmpty = numericVoxels(volume.voxels).every((value) => value === 0);
        },
      },
      write: async (output) => {
        outputs.push(await writeOutput(message, output));
      },
    };
    const times = await predict(app.manifest, request, context);
    const empty = isWatched && isEmpty ? await explain(app.manifest, request, context) : undefined;
    // Asked now: a volume may have needed a form that takes less memory.
    const rewrites = [...new Set([...networks].flatMap((session) => session.rewrites ?? []))];
    send({ type: 'done', job: message.job, outputs, traces, times, rewrites, empty });
  } catch (error) {
    const bySignal = error instanceof EndedBySignal;
    send({ type: 'failed', job: message.job, error: toData(error), bySignal });
  } finally {
    canceling = undefined;
    progress.stop();
  }
}

/** A thread may be in the middle of a run of the engine, which aborts on exit, and a core dump would hold voxels. */
function end(): void {
  if (programs.size > 0) process.exit(1);
  process.kill(process.pid, 'SIGKILL');
}

function exitUnlessBusy(): void {
  if (!canceling && programs.size === 0) process.exit(1);
}

// The supervisor is gone: nobody wants the result. The aborts send SIGTERM to programs; those that ignore it are killed by this
// process when it exits.
process.on('disconnect', () => {
  if (lastFolder) markOutlived(lastFolder);
  canceling?.abort();
  closing.abort();
  setTimeout(end, 3000);
  exitUnlessBusy();
});

try {
  const app = await openApp(process.argv[2]);
  process.on('message', (message: ToChild) => {
    if (message.type === 'predict') void run(app, message);
    else if (message.type === 'permit') modelServers = message.modelServers;
    else {
      canceling?.abort(new TomaatError('CANCELED', 'The job was cancelled.'));
      closing.abort();
    }
  });
  send({ type: 'ready' });
  // Node saves compiled code only when a process exits by itself, which this one never does.
  setImmediate(() => (nodeModule as Partial<typeof nodeModule>).flushCompileCache?.());
} catch (error) {
  send({ type: 'failed', error: toData(error) });
}
