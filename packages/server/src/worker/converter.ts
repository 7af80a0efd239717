import { spawn } from 'node:child_process';
import { createReadStream } from 'node:fs';
import { mkdir, rm, stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { type ErrorData, type Label, type OutputFormat, type OutputType, TomaatError } from '@tomaat/core';
import { ownExtension } from '../source.ts';
import { limitedNode } from './limited-node.ts';

/** An output in another format than it is stored in. */
export interface Conversion {
  path: string;
  type: OutputType;
  from: OutputFormat;
  to: OutputFormat;
  labels: readonly Label[];
}

export interface Converter {
  /**
   * The converted bytes; their file is unlinked when the stream ends. Ends with the signal. BUSY when too many wait,
   * OUT_OF_MEMORY or TIMEOUT when it takes more than a conversion may.
   */
  convert(conversion: Conversion, signal: AbortSignal): Promise<{ stream: Readable; sizeBytes: number }>;
  close(): Promise<void>;
}

const childFile = fileURLToPath(new URL(`./convert-child${ownExtension}`, import.meta.url));
const atATime = 2;
const maxWaiting = 32;
const memoryMb = 4000;
const limitMs = 300_000;

/** Converts in processes of their own, so that the server goes on answering whatever a conversion needs. */
export async function openConverter(folder: string): Promise<Converter> {
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const closing = new AbortController();
  const running = new Set<Promise<void>>();
  const waiting: (() => void)[] = [];
  let busy = 0;
  let count = 0;

  /** Waits for one of the places; a waiter that gives up leaves its place in the queue. */
  async function takePlace(signal: AbortSignal): Promise<void> {
    if (busy < atATime) {
      busy++;
      return;
    }
    if (waiting.length >= maxWaiting) {
      throw new TomaatError(
        'BUSY',
        'Too many conversions are waiting. Try again in a minute, or take the stored format.',
      );
    }
    await new Promise<void>((resolve, reject) => {
      const enter = () => {
        signal.removeEventListener('abort', leave);
        resolve();
      };
      const leave = () => {
        waiting.splice(waiting.indexOf(enter), 1);
        reject(signal.reason);
      };
      waiting.push(enter);
      signal.addEventListener('abort', leave, { once: true });
    });
  }

  /** Gives the place to the next one that waits. */
  function leavePlace(): void {
    const next = waiting.shift();
    if (next) next();
    else busy--;
  }

  return {
    async convert(conversion, callerSignal) {
      const signal = AbortSignal.any([callerSignal, closing.signal]);
      signal.throwIfAborted();
      await takePlace(signal);
      const target = join(folder, `${count++}.${conversion.to}`);
      const run = runConversion(conversion, target, signal);
      running.add(run);
      try {
        await run;
        const { size } = await stat(target);
        const stream = createReadStream(target, { highWaterMark: 256 * 1024 });
        stream.once('close', () => void unlink(target).catch(() => {}));
        return { stream, sizeBytes: size };
      } catch (error) {
        await unlink(target).catch(() => {});
        throw error;
      } finally {
        running.delete(run);
        leavePlace();
      }
    },
    async close() {
      closing.abort(new TomaatError('BUSY', 'The server stops. Try again in a minute.'));
      await Promise.allSettled(running);
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** One conversion in a child; resolves when the whole target is written. */
function runConversion(conversion: Conversion, target: string, signal: AbortSignal): Promise<void> {
  const [file, args] = limitedNode(childFile, [JSON.stringify({ ...conversion, target })], memoryMb);
  const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  let complained = '';
  child.stdout.on('data', (chunk: Buffer) => {
    said = (said + chunk.toString('utf8')).slice(-8000);
  });
  child.stderr.on('data', (chunk: Buffer) => {
    complained = (complained + chunk.toString('utf8')).slice(-4000);
  });
  return new Promise((resolve, reject) => {
    let late = false;
    const kill = () => child.kill('SIGKILL');
    const timer = setTimeout(() => {
      late = true;
      kill();
    }, limitMs);
    if (signal.aborted) kill();
    signal.addEventListener('abort', kill, { once: true });
    child.once('error', (error) => {
      complained += error.message;
    });
    child.once('close', (code) => {
      clearTimeout(timer);
      signal.removeEventListener('abort', kill);
      if (signal.aborted) reject(signal.reason);
      else if (code === 0) resolve();
      else reject(late ? tooLong(conversion.to) : whyOf(said, complained, conversion.to));
    });
  });
}

function tooLong(format: string): TomaatError {
  return new TomaatError(
    'TIMEOUT',
    `Writing the output as ${format} took longer than ${limitMs / 1000} s. Take another format.`,
  );
}

function whyOf(said: string, complained: string, format: string): TomaatError {
  const data = /^\{.*\}$/m.exec(said)?.[0];
  if (data) return TomaatError.from(JSON.parse(data) as ErrorData);
  if (/out of memory|bad_alloc|Array buffer allocation failed/i.test(complained) || complained === '') {
    return new TomaatError(
      'OUT_OF_MEMORY',
      `Writing the output as ${format} needs more memory than the ${memoryMb} MB that it may use. Take another format.`,
    );
  }
  return new TomaatError('INTERNAL', `The output could not be written as ${format}. Take another format.`, {
    cause: new Error(complained),
  });
}
