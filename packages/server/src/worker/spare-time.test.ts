import { expect, it } from 'vitest';
import { createSpareTime } from './spare-time.ts';

const quietMs = 20;

it('run() begins when nothing was computed for a while, and resolves when the work is done', async () => {
  const spare = createSpareTime(new AbortController().signal, quietMs);
  const letGo = spare.hold();
  let isHeld = true;
  let beganHeld: boolean | undefined;
  const done = spare.run(async () => {
    beganHeld = isHeld;
  });
  await new Promise((resolve) => setTimeout(resolve, 5 * quietMs));
  expect(beganHeld).toBeUndefined();
  isHeld = false;
  letGo();
  await done;
  expect(beganHeld).toBe(false);
});

it('run() gives way to what is computed, and begins the work again', async () => {
  const spare = createSpareTime(new AbortController().signal, quietMs);
  const begun: AbortSignal[] = [];
  const { promise: first, resolve: isBegun } = Promise.withResolvers<void>();
  const done = spare.run(async (signal) => {
    begun.push(signal);
    isBegun();
    if (begun.length === 1)
      await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
  });
  await first;
  const letGo = spare.hold();
  expect(begun[0].aborted).toBe(true);
  letGo();
  letGo();
  await done;
  expect(begun).toHaveLength(2);
});

it('run() ends when the process stops, and rejects with a fault of the work', async () => {
  const stopping = new AbortController();
  const spare = createSpareTime(stopping.signal, quietMs);
  const { promise: begun, resolve: isBegun } = Promise.withResolvers<void>();
  const ended = spare.run(async (signal) => {
    isBegun();
    await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()));
  });
  await begun;
  stopping.abort();
  await ended;
  await spare.run(() => Promise.reject(new Error('never begun')));
  const other = createSpareTime(new AbortController().signal, 0);
  await expect(other.run(() => Promise.reject(new Error('broken')))).rejects.toThrow('broken');
});
