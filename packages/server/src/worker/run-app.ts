import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { type OutputFormat, TomaatError } from '@tomaat/core';
import type { App } from '../apps.ts';
import type { ComputeDevice } from '../runtimes/devices.ts';
import { settings } from '../settings.ts';
import type { ModelServers } from '../trust/model-servers.ts';
import { type Child, type ChildResult, startChild } from './child-process.ts';
import { createMemoryPolicy, type MemoryPolicy } from './memory-limit.ts';
import type { WrittenOutput, WrittenTrace } from './messages.ts';

/** A prediction without a server, for `tomaat run` and `tomaat check`. */
export interface LocalPrediction {
  app: App;
  /** Files of each file input; the files of one volume form one list. */
  files: Readonly<Record<string, readonly { path: string; sizeBytes: number }[]>>;
  parameters: Readonly<Record<string, unknown>>;
  frame?: number;
  series?: string;
  formats?: Readonly<Record<string, OutputFormat>>;
  maxVoxels?: number;
  /** Whether an output in a format that cannot be read back is also written in one that can. */
  keepsValues?: boolean;
  /** Whether an empty label map is explained. */
  explains?: boolean;
  /** Stages whose volumes are written too; see `traceStages()`. */
  traces?: readonly string[];
  /** Memory limit; most of the machine's memory if missing. */
  memory?: MemoryPolicy;
  /** What the app may use of model servers; only those of this machine if missing. */
  modelServers?: ModelServers;
  /** What computes its networks; the processor if missing. */
  device?: ComputeDevice;
  signal?: AbortSignal;
  onProgress?(stage: string, fraction: number): void;
  onLog?(text: string): void;
}

export interface LocalResult extends AsyncDisposable {
  /** Files in a temporary folder, which is deleted when the result is disposed of. */
  outputs: WrittenOutput[];
  traces: WrittenTrace[];
  /** With `explains`: why the primary label map is empty, in lines. */
  empty?: string[];
  seconds: number;
}

/** Runs an app on files of this machine, in a separate child process, as the server does. */
export async function runApp(prediction: LocalPrediction): Promise<LocalResult> {
  const { app, signal = new AbortController().signal } = prediction;
  const folder = await mkdtemp(join(tmpdir(), 'tomaat-run-'));
  const dispose = () => rm(folder, { recursive: true, force: true });
  try {
    const memory = prediction.memory ?? createMemoryPolicy({ slots: 1 });
    const child = await startChild(app, memory, () => {}, {
      permitted: prediction.modelServers,
      device: prediction.device,
    });
    try {
      const { outputs, traces, seconds, empty } = await computeIn(child, { ...prediction, signal, folder });
      return { outputs, traces, seconds, empty, [Symbol.asyncDispose]: dispose };
    } finally {
      await child.stop();
    }
  } catch (error) {
    await dispose();
    throw ofThisMachine(error);
  }
}

/** One prediction in a child, within the time of the manifest's `limits.seconds`. Outputs are written to `folder`. */
export async function computeIn(
  child: Child,
  { signal, folder, ...prediction }: Omit<LocalPrediction, 'app'> & { signal: AbortSignal; folder: string },
): Promise<ChildResult> {
  const { seconds: limit } = child.app.manifest.limits;
  const timeout = new AbortController();
  const timer = setTimeout(() => {
    timeout.abort(
      new TomaatError(
        'TIMEOUT',
        `The prediction took longer than the ${limit} s of the manifest’s limits.seconds.`,
      ),
    );
  }, limit * 1000);
  try {
    return await child.predict(
      {
        type: 'predict',
        job: basename(folder),
        files: Object.entries(prediction.files).flatMap(([input, files]) =>
          files.map(({ path, sizeBytes }) => ({ input, path, name: basename(path), sizeBytes })),
        ),
        parameters: { ...prediction.parameters },
        frame: prediction.frame,
        series: prediction.series,
        formats: prediction.formats && { ...prediction.formats },
        folder,
        maxVoxels: prediction.maxVoxels ?? settings.maxVoxels.default,
        keepsValues: prediction.keepsValues,
        explains: prediction.explains,
        traces: prediction.traces,
      },
      {
        signal: AbortSignal.any([signal, timeout.signal]),
        onProgress: (stage, fraction) => prediction.onProgress?.(stage, fraction),
        onLog: (text) => prediction.onLog?.(text),
      },
    );
  } finally {
    clearTimeout(timer);
  }
}

/** An error of a child, reworded for a user of this machine: there is no server whose disk could be full. */
export function ofThisMachine(error: unknown): unknown {
  if (!(error instanceof TomaatError) || error.code !== 'DISK_FULL') return error;
  return new TomaatError(
    'DISK_FULL',
    `There is not enough space in ${tmpdir()} for the app's temporary files. Free some there, or set TMPDIR to another folder.`,
    { cause: error },
  );
}
