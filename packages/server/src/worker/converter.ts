import { createReadStream } from 'node:fs';
import { mkdir, rm, stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { type ErrorData, type OutputFormat, type OutputType, TomaatError } from '@tomaat/core';
import { ownExtension, ownNodeOptions } from '../source.ts';

/** An output in another format than it is stored in. */
export interface Conversion {
  path: string;
  type: OutputType;
  from: OutputFormat;
  to: OutputFormat;
}

export interface Converter {
  /** The converted bytes; their file is unlinked when the stream ends. */
  convert(conversion: Conversion): Promise<{ stream: Readable; sizeBytes: number }>;
  close(): Promise<void>;
}

const workerFile = fileURLToPath(new URL(`./convert-thread${ownExtension}`, import.meta.url));
const atATime = 2;

/** Converts in threads of their own, so that the server goes on answering. */
export async function openConverter(folder: string): Promise<Converter> {
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const threads = new Set<Worker>();
  const waiting: (() => void)[] = [];
  let count = 0;

  function run(conversion: Conversion, target: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const thread = new Worker(workerFile, {
        workerData: { ...conversion, target },
        execArgv: [...ownNodeOptions],
      });
      threads.add(thread);
      thread.once('message', (error: ErrorData | undefined) =>
        error ? reject(TomaatError.from(error)) : resolve(),
      );
      thread.once('error', reject);
      thread.once('exit', (code) => {
        threads.delete(thread);
        if (code !== 0)
          reject(
            new TomaatError('INTERNAL', 'The conversion ended without a result. Ask for another format.'),
          );
      });
    });
  }

  return {
    async convert(conversion) {
      if (threads.size >= atATime) await new Promise<void>((resolve) => waiting.push(resolve));
      const target = join(folder, `${count++}.${conversion.to}`);
      try {
        await run(conversion, target);
        const { size } = await stat(target);
        const stream = createReadStream(target, { highWaterMark: 256 * 1024 });
        stream.once('close', () => void unlink(target).catch(() => {}));
        return { stream, sizeBytes: size };
      } catch (error) {
        await unlink(target).catch(() => {});
        throw error;
      } finally {
        waiting.shift()?.();
      }
    },
    async close() {
      await Promise.all([...threads].map((thread) => thread.terminate()));
      await rm(folder, { recursive: true, force: true });
    },
  };
}
