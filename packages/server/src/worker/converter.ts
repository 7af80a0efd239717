import { spawn } from 'node:child_process';
import { createReadStream } from 'node:fs';
import { mkdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import {
  type ErrorData,
  type FileGeometry,
  type Label,
  type OutputFormat,
  type OutputType,
  TomaatError,
} from '@tomaat/core';
import { ownExtension } from '../source.ts';
import { createFairPlaces } from './fair-places.ts';
import { limitedNode } from './limited-node.ts';
import { machineMemoryMb } from './memory-limit.ts';

/** An output in another format than it is stored in. */
export interface Conversion {
  /** Path of the stored output, and the SHA-256 (`sha256:…`) that it must have. */
  path: string;
  digest: string;
  type: OutputType;
  from: OutputFormat;
  to: OutputFormat;
  labels: readonly Label[];
  /** For a label map: the grid as stated in the header of the input. */
  geometry?: FileGeometry;
  /**
   * For a label map that a viewer reads: its grid in mm, whatever the header of the input states; NRRD without naming the unit.
   * `numbered`: the k-th of `labels` is k + 1 in it, and it is uint8. `compressed` where the format leaves the choice; true if
   * missing.
   */
  forViewer?: { numbered: boolean; compressed?: boolean };
}

export interface Converter {
  /**
   * The converted bytes, to be read to the end or destroyed; their file is deleted after its last reader. Ends
   * with the signal. Equal conversions of one owner are done once, and owners share the places fairly. BUSY if too many
   * wait, DAMAGED if the stored output is, OUT_OF_MEMORY or TIMEOUT if it exceeds the limits of a conversion.
   */
  convert(
    conversion: Conversion,
    owner: string,
    signal: AbortSignal,
  ): Promise<{ stream: Readable; sizeBytes: number }>;
  close(): Promise<void>;
}

/** A conversion and the requests that wait for its result. */
interface Run {
  users: number;
  readonly stop: AbortController;
  readonly target: string;
  /** Resolves with the size of the whole target, bytes. */
  readonly done: Promise<number>;
}

const childFile = fileURLToPath(new URL(`./convert-child${ownExtension}`, import.meta.url));
const atATime = 2;
const maxWaiting = 32;
/** The most memory of one conversion, MB; a quarter of it on a small machine. */
const memoryMb = Math.round(Math.max(1000, Math.min(4000, machineMemoryMb() / 4)));
const limitMs = 300_000;

/** Converts in separate processes, so that the server keeps answering whatever a conversion needs. */
export async function openConverter(folder: string): Promise<Converter> {
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const closing = new AbortController();
  const running = new Set<Promise<unknown>>();
  const runs = new Map<string, Run>();
  const places = createFairPlaces({
    atATime,
    maxWaiting,
    busyMessage: 'Too many conversions are waiting. Try again in a minute, or request the stored format.',
  });
  let count = 0;

  /** Converts until the target is whole; restarts if its place was needed for another owner. */
  async function run(
    conversion: Conversion,
    owner: string,
    target: string,
    stop: AbortSignal,
  ): Promise<number> {
    for (let again = false; ; again = true) {
      using place = await places.enter(owner, stop, { again });
      try {
        await runConversion(conversion, target, AbortSignal.any([stop, place.revoked]));
        return (await stat(target)).size;
      } catch (error) {
        await rm(target, { force: true });
        if (!place.revoked.aborted || stop.aborted) throw error;
      }
    }
  }

  function start(key: string, conversion: Conversion, owner: string): Run {
    const stop = new AbortController();
    const target = join(folder, `${count++}.${conversion.to}`);
    const done = run(conversion, owner, target, AbortSignal.any([stop.signal, closing.signal]));
    const tracked = done.catch(() => runs.delete(key));
    running.add(tracked);
    void tracked.finally(() => running.delete(tracked));
    return { users: 0, stop, done, target };
  }

  return {
    async convert(conversion, owner, signal) {
      signal.throwIfAborted();
      closing.signal.throwIfAborted();
      const key = JSON.stringify([owner, conversion]);
      const one = runs.get(key) ?? start(key, conversion, owner);
      runs.set(key, one);
      one.users++;
      let isUsed = true;
      const leave = () => {
        if (!isUsed) return;
        isUsed = false;
        if (--one.users > 0) return;
        if (runs.get(key) === one) runs.delete(key);
        one.stop.abort(new TomaatError('CANCELED', 'Nobody waits for the result any longer.'));
        void one.done.catch(() => {}).then(() => rm(one.target, { force: true }));
      };
      try {
        const sizeBytes = await orAborted(one.done, signal);
        const stream = createReadStream(one.target, { highWaterMark: 256 * 1024 });
        stream.once('close', leave);
        return { stream, sizeBytes };
      } catch (error) {
        leave();
        throw error;
      }
    },
    async close() {
      closing.abort(new TomaatError('BUSY', 'The server is stopping. Try again in a minute.'));
      await Promise.allSettled(running);
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** The same; rejects with the signal's reason as soon as that aborts. */
async function orAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  let onAbort = () => {};
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

/** One conversion in a child; resolves when the whole target is written. */
function runConversion(conversion: Conversion, target: string, signal: AbortSignal): Promise<void> {
  const [file, args] = limitedNode(childFile, [JSON.stringify({ ...conversion, target })], memoryMb);
  const child = spawn(file, args, {
    // Through the channel it notices when this process is gone.
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    detached: process.platform !== 'win32',
  });
  let said = '';
  let complained = '';
  child.stdout?.on('data', (chunk: Buffer) => {
    said = (said + chunk.toString('utf8')).slice(-8000);
  });
  child.stderr?.on('data', (chunk: Buffer) => {
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
    `Writing the output as ${format} took longer than ${limitMs / 1000} s. Request another format.`,
  );
}

function whyOf(said: string, complained: string, format: string): TomaatError {
  const data = /^\{.*\}$/m.exec(said)?.[0];
  if (data) return TomaatError.from(JSON.parse(data) as ErrorData);
  if (/out of memory|bad_alloc|Array buffer allocation failed/i.test(complained) || complained === '') {
    return new TomaatError(
      'OUT_OF_MEMORY',
      `Writing the output as ${format} needs more memory than the ${memoryMb} MB that it may use. Request another format.`,
    );
  }
  return new TomaatError(
    'INTERNAL',
    `The output could not be written as ${format}. Request another format.`,
    {
      cause: new Error(complained),
    },
  );
}
