import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { type NetworkSession, TomaatError, type WindowsLeft } from '@tomaat/core';
import { ownExtension } from '../source.ts';
import type { FromLane, LaneData, LaneRun } from './lane-messages.ts';
import type { FreeMemory, OnnxOptions } from './onnx-options.ts';

/*
 * Windows of a volume at the same time: N sessions of one thread each, instead of one session of N threads. Measured on two cores with a
 * U-Net of 64³ voxels: the same bits in 0.87 (busy machine) to 0.99 (quiet) of the time, as the engine's threads wait for each other in every
 * layer, and windows are cut and blended meanwhile. (With very small tensors the engine rounds differently with another number of threads:
 * 3e-6.) Batches of windows gained nothing there (1.00 to 1.06 of the CPU time), so there are none.
 */

/** What a thread takes without its session, bytes: measured with Node 24. */
const threadBytes: FreeMemory = { resident: 40e6, data: 560e6 };
/**
 * Sessions that are opened for less work than this cost more time than they save: the work of a volume, and of those before it, as they stay
 * open for the next one.
 */
const leastWorkMs = 10_000;
const laneFile = fileURLToPath(new URL(`./lane-thread${ownExtension}`, import.meta.url));

export interface LaneOptions {
  readonly modelFile: string;
  readonly options: OnnxOptions;
  /** What this process may still take; undefined where the system does not say: then there is one session. */
  readonly freeMemory: () => FreeMemory | undefined;
  /** Memory of this process before `session` was opened, bytes. */
  readonly residentBefore: number;
  readonly leastWorkMs?: number;
}

/** A session in a thread of its own. */
interface Lane extends NetworkSession {
  close(): Promise<void>;
}

/** The session, which opens others for further windows where they fit into the memory and the work is worth it. */
export function withLanes<Session extends NetworkSession & { close(): Promise<void> }>(
  session: Session,
  about: LaneOptions,
): Session {
  const threads = about.options.threads ?? availableParallelism();
  let open: Lane[] = [];
  let sessionBytes: number | undefined;
  let workMs = 0;
  const closeAll = async () => {
    const closing = open;
    open = [];
    await Promise.all(closing.map((lane) => lane.close()));
  };
  return {
    ...session,
    // It may change; see `withLighter` in faster-form.ts.
    get rewrites() {
      return session.rewrites;
    },
    async spread(rest) {
      const free = about.freeMemory();
      workMs += rest.windows * rest.windowMs;
      sessionBytes ??= Math.max(process.memoryUsage.rss() - about.residentBefore, 2 * rest.windowBytes);
      if (open.length > 0 && free && Math.min(free.resident, free.data) > rest.otherBytes) return open;
      await closeAll();
      const count = free ? laneCount(rest, { threads, sessionBytes, free }) : 1;
      if (count < 2 || workMs < (about.leastWorkMs ?? leastWorkMs)) return [session];
      const { roiSize, freeMemory, log, ...options } = about.options;
      const each: LaneData['options'] = {
        ...options,
        threads: Math.floor(threads / count),
        rewrite: session.rewrites ?? false,
      };
      const started = Array.from({ length: count }, () =>
        openLane({ modelFile: about.modelFile, options: each }),
      );
      const opened = await Promise.allSettled(started);
      open = opened.flatMap((lane) => (lane.status === 'fulfilled' ? [lane.value] : []));
      if (open.length === count) return open;
      await closeAll();
      for (const lane of opened)
        if (lane.status === 'rejected' && lane.reason?.code !== 'OUT_OF_MEMORY') throw lane.reason;
      // There was less memory than it seemed: one session is enough.
      return [session];
    },
    async close() {
      await closeAll();
      await session.close();
    },
  };
}

/** How many sessions the processor and the memory allow, of those that the windows keep busy. */
export function laneCount(
  { windows, windowBytes, otherBytes }: Omit<WindowsLeft, 'windowMs'>,
  { threads, sessionBytes, free }: { threads: number; sessionBytes: number; free: FreeMemory },
): number {
  const fitting = (kind: keyof FreeMemory) =>
    Math.floor((free[kind] - otherBytes) / (threadBytes[kind] + sessionBytes + 2 * windowBytes));
  return Math.max(1, Math.min(threads, Math.floor(windows / 2), fitting('resident'), fitting('data')));
}

async function openLane(data: LaneData): Promise<Lane> {
  const worker = new Worker(laneFile, { workerData: data });
  // The process lives as long as it has other work.
  worker.unref();
  let waiting: { resolve(message: FromLane): void; reject(error: unknown): void } | undefined;
  let settled: Promise<unknown> = Promise.resolve();
  const end = (error: unknown) => waiting?.reject(error);
  worker.on('message', (message: FromLane) => waiting?.resolve(message));
  worker.on('error', (error: NodeJS.ErrnoException) => end(threadFault(error)));
  worker.on('exit', () =>
    end(new TomaatError('WORKER_DIED', 'A thread that ran the network ended. Try again.')),
  );
  const next = () =>
    new Promise<FromLane>((resolve, reject) => {
      waiting = { resolve, reject };
    });

  async function run({ data, dims }: LaneRun) {
    const moved = data.slice();
    const reply = next();
    settled = reply.catch(() => {});
    worker.postMessage({ data: moved, dims } satisfies LaneRun, [moved.buffer]);
    const message = await reply;
    if (message.type === 'failed') throw TomaatError.from(message.error);
    if (message.type !== 'done') throw new TypeError(`a thread said ${message.type} instead of a result`);
    const { data: found, integer } = message;
    if (integer)
      return { data: found as Uint8Array<ArrayBuffer>, dims: message.dims, integer: true as const };
    return { data: found as Float32Array<ArrayBuffer>, dims: message.dims };
  }

  async function close(): Promise<void> {
    // Ending a thread in the middle of a run would end the process.
    await settled;
    await worker.terminate();
  }

  const first = await next().catch((error: unknown) => error);
  if ((first as Partial<FromLane>)?.type === 'ready') return { run, close };
  await worker.terminate();
  throw (first as FromLane).type === 'failed'
    ? TomaatError.from((first as Extract<FromLane, { type: 'failed' }>).error)
    : first;
}

function threadFault(error: NodeJS.ErrnoException): unknown {
  if (error.code !== 'ERR_WORKER_OUT_OF_MEMORY') return error;
  return new TomaatError(
    'OUT_OF_MEMORY',
    'A thread that ran the network ran out of memory. Send a smaller volume, or ask the operator to raise the memory limit.',
    { cause: error },
  );
}
