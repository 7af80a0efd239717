import { TomaatError } from '@tomaat/core';
import type { MemoryLimit } from './memory-limit.ts';

/** Whether the allocation of a typed array failed; if V8's own heap is too small, the process ends instead. */
export function isOutOfMemory(error: unknown): boolean {
  const { cause } = (error ?? {}) as { cause?: unknown };
  return [error, cause].some(
    (e) => e instanceof RangeError && e.message === 'Array buffer allocation failed',
  );
}

/** The error of a job that needed more than its limit. */
export function outOfMemory(limit: Pick<MemoryLimit, 'memoryMb' | 'from'> | undefined): TomaatError {
  const than = limit ? `the ${limit.memoryMb} MB that ${whose(limit)} may use` : 'this machine has';
  return new TomaatError(
    'OUT_OF_MEMORY',
    `The prediction needed more memory than ${than}. Send a smaller volume, or ask the operator ${howToRaise(limit)}.`,
  );
}

const whose = ({ from }: Pick<MemoryLimit, 'from'>): string =>
  from === 'manifest' ? 'the app' : 'a prediction';

/** How an operator gives a prediction more memory, after “ask the operator”. */
export function howToRaise(limit: Pick<MemoryLimit, 'from'> | undefined): string {
  switch (limit?.from) {
    case 'manifest':
      return 'to raise limits.memoryMb of the app’s manifest';
    case 'operator':
      return 'to raise the limit (--memory-mb)';
    case 'machine':
      return 'to raise the limit (--memory-mb, or fewer --workers)';
    default:
      return 'for a machine with more memory';
  }
}
