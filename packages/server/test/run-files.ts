import { createReadStream } from 'node:fs';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { type OutputFormat, readVolume, type SourceFile, sourceFromBytes, type Volume } from '@tomaat/core';
import { type App, openApp } from '../src/apps.ts';
import { nodePlatform } from '../src/node-platform.ts';
import type { ModelServers } from '../src/trust/model-servers.ts';
import { runApp } from '../src/worker/run-app.ts';
import { temporaryFolder } from './test-server.ts';

/** A file on disk as core reads it. */
export function fileSource(path: string): SourceFile {
  return { name: basename(path), open: (start = 0) => createReadStream(path, { start }) };
}

export interface FileRun {
  /** Bytes of the results by the name of the output. */
  outputs: Record<string, Buffer>;
  types: Record<string, string>;
  formats: Record<string, OutputFormat>;
  log: string[];
  progress: { stage: string; fraction: number }[];
}

export interface FileRunOptions {
  parameters?: Readonly<Record<string, unknown>>;
  formats?: Readonly<Record<string, OutputFormat>>;
  modelServers?: ModelServers;
  signal?: AbortSignal;
  onLog?(text: string): void;
}

/** Runs an app, in a child as the server does, on files given as bytes: `{ input: ['scan.nii.gz', bytes] }`. */
export async function runFiles(
  app: App | string,
  files: Readonly<Record<string, readonly [name: string, bytes: Uint8Array]>>,
  options: FileRunOptions = {},
): Promise<FileRun> {
  const folder = await temporaryFolder();
  const run: FileRun = { outputs: {}, types: {}, formats: {}, log: [], progress: [] };
  try {
    const paths: Record<string, { path: string; sizeBytes: number }[]> = {};
    for (const [input, [name, bytes]] of Object.entries(files)) {
      const path = join(folder, name);
      await writeFile(path, bytes);
      paths[input] = [{ path, sizeBytes: bytes.length }];
    }
    await using result = await runApp({
      app: typeof app === 'string' ? await openApp(app) : app,
      files: paths,
      parameters: options.parameters ?? {},
      formats: options.formats,
      modelServers: options.modelServers,
      signal: options.signal,
      onProgress: (stage, fraction) => run.progress.push({ stage, fraction }),
      onLog: (text) => {
        run.log.push(text);
        options.onLog?.(text);
      },
    });
    for (const { name, type, format, path } of result.outputs) {
      run.outputs[name] = await readFile(path);
      run.types[name] = type;
      run.formats[name] = format;
    }
    return run;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** The volume in bytes of any format. */
export async function decode(bytes: Uint8Array): Promise<Volume> {
  return (await readVolume([sourceFromBytes('result', bytes)], nodePlatform)).volume;
}
