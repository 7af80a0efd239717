import { setTimeout as delay } from 'node:timers/promises';
import { TomaatError } from '@tomaat/core';

/** Time between two attempts. */
export const firstPauseMs = 250;
export const longestPauseMs = 5_000;

/** Whether the database, or the store of files, is away for now. */
export const isAway = (error: unknown): boolean => error instanceof TomaatError && error.code === 'BUSY';

/** Repeats `work` while the database or the store is away. Rejects with the reason of the signal when that aborts. */
export async function patiently<T>(signal: AbortSignal, work: () => T | Promise<T>): Promise<T> {
  for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(pauseMs * 2, longestPauseMs)) {
    try {
      return await work();
    } catch (error) {
      if (!isAway(error)) throw error;
    }
    await delay(pauseMs, undefined, { signal }).catch(() => {});
    signal.throwIfAborted();
  }
}
