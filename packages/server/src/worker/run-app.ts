import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { type OutputFormat, TomaatError } from '@tomaat/core';
import type { App } from '../apps.ts';
import { startChild } from './child-process.ts';
import type { WrittenOutput } from './messages.ts';

/** A prediction without a server: the author's loop, and what `tomaat check` tries the app with. */
export interface LocalPrediction {
  app: App;
  /** Files of each file input; those that belong together in one list. */
  files: Readonly<Record<string, readonly { path: string; sizeBytes: number }[]>>;
  parameters: Readonly<Record<string, unknown>>;
  frame?: number;
  formats?: Readonly<Record<string, OutputFormat>>;
  maxVoxels?: number;
  signal?: AbortSignal;
  onProgress?(stage: string, fraction: number): void;
  onLog?(text: string): void;
}

export interface LocalResult extends AsyncDisposable {
  /** Files in a temporary folder, which goes when the result is disposed of. */
  outputs: WrittenOutput[];
  seconds: number;
}

/** Runs an app on files of this machine, in a child process of its own as the server does. */
export async function runApp(prediction: LocalPrediction): Promise<LocalResult> {
  const { app, signal = new AbortController().signal } = prediction;
  const folder = await mkdtemp(join(tmpdir(), 'tomaat-run-'));
  const dispose = () => rm(folder, { recursive: true, force: true });
  try {
    const child = await startChild(app, () => {});
    const { seconds: limit } = app.manifest.limits;
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
      const { outputs, seconds } = await child.predict(
        {
          type: 'predict',
          job: 'run',
          files: Object.entries(prediction.files).flatMap(([input, files]) =>
            files.map(({ path, sizeBytes }) => ({ input, path, name: basename(path), sizeBytes })),
          ),
          parameters: { ...prediction.parameters },
          frame: prediction.frame,
          formats: prediction.formats && { ...prediction.formats },
          folder,
          maxVoxels: prediction.maxVoxels ?? 2 ** 30,
        },
        {
          signal: AbortSignal.any([signal, timeout.signal]),
          onProgress: (stage, fraction) => prediction.onProgress?.(stage, fraction),
          onLog: (text) => prediction.onLog?.(text),
        },
      );
      return { outputs, seconds, [Symbol.asyncDispose]: dispose };
    } finally {
      clearTimeout(timer);
      await child.stop();
    }
  } catch (error) {
    await dispose();
    throw error;
  }
}
