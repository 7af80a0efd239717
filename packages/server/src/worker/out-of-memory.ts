import { TomaatError } from '@tomaat/core';

/** Whether the memory of a typed array was refused; where V8's own heap is too small, the process ends instead. */
export function isOutOfMemory(error: unknown): boolean {
  const { cause } = (error ?? {}) as { cause?: unknown };
  return [error, cause].some(
    (e) => e instanceof RangeError && e.message === 'Array buffer allocation failed',
  );
}

/** What a job is told; `limitMb` is the `limits.memoryMb` of its app. */
export function outOfMemory(limitMb: number | undefined): TomaatError {
  return new TomaatError(
    'OUT_OF_MEMORY',
    `The prediction needed more memory than ${limitMb ? `the ${limitMb} MB that the app may use` : 'this machine has'}. Send a smaller volume, or ask the operator to raise the limit.`,
  );
}
