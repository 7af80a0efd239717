import { Readable } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { countBytes } from './byte-counter.ts';

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'performance'] });
});
afterEach(() => void vi.useRealTimers());

/** What becomes of a body whose sender says nothing, after so many seconds. */
async function silentFor(seconds: number, limits: { minBytesPerSecond?: number; patienceMs?: number } = {}) {
  const outcome = vi.fn();
  const body = countBytes(new Readable({ read() {} }), { maxUploadBytes: 1e6, ...limits });
  const reading = body[Symbol.asyncIterator]().next().then(outcome, outcome);
  await Promise.resolve();
  for (let second = 0; second < seconds; second++) await vi.advanceTimersByTimeAsync(1000);
  if (outcome.mock.calls.length === 0) return 'waits';
  await reading;
  return (outcome.mock.calls[0][0] as { code?: string }).code;
}

describe('countBytes() of a silent sender', () => {
  it.each([
    ['by default waits 30 s', {}, 29, 'waits'],
    ['by default gives up after 30 s', {}, 33, 'UPLOAD_TOO_SLOW'],
    [
      'takes undefined for the default',
      { minBytesPerSecond: undefined, patienceMs: undefined },
      33,
      'UPLOAD_TOO_SLOW',
    ],
    ['waits as long as it is told', { patienceMs: 60_000 }, 55, 'waits'],
    ['waits without end for a pace of 0', { minBytesPerSecond: 0 }, 1000, 'waits'],
  ] as const)('%s', async (_name, limits, seconds, expected) => {
    expect(await silentFor(seconds, limits)).toBe(expected);
  });
});
