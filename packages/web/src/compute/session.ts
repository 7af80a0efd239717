import { type Calls, callWorker } from '../worker-calls.ts';
import type { Operations } from './messages.ts';

/** A worker that computes in this browser. Closing it stops what it does at once, and frees its memory. */
export const openComputer = (): Calls<Operations> =>
  callWorker<Operations>(new Worker(new URL('./worker.ts', import.meta.url), { type: 'module' }), {
    stopped:
      'The part of this page that computes stopped, perhaps for want of memory. Close other pages and try again, or send the volume to the server.',
    closed: 'The computation was stopped.',
  });

/** What this browser offers for computing. */
export interface Abilities {
  /** Of one run of a network. */
  readonly threads: number;
  /** Bytes that a computation may take: half of the machine's memory, and no more than WebAssembly can address. */
  readonly allowedBytes: number;
}

/** More threads than this gain nothing, and each takes memory. */
const mostThreads = 16;
const addressableBytes = 4e9;

export function findAbilities(): Abilities {
  const { hardwareConcurrency = 1, deviceMemory } = navigator as Navigator & { deviceMemory?: number };
  return {
    // Without isolation, browsers share no memory between threads.
    threads: globalThis.crossOriginIsolated ? Math.min(mostThreads, hardwareConcurrency) : 1,
    allowedBytes: Math.min(addressableBytes, ((deviceMemory ?? 8) / 2) * 1e9),
  };
}
