import { describe, expect, it } from 'vitest';
import { createIdleWatch } from './idle-watch.ts';

const { signal } = new AbortController();

describe('createIdleWatch()', () => {
  it('ends all slots together, once each of them asked in vain', async () => {
    const watch = createIdleWatch(2, 0);
    let isOver = false;
    const first = watch.mayEnd(signal).finally(() => {
      isOver = true;
    });
    await new Promise(setImmediate);
    expect(isOver).toBe(false);
    expect(await watch.mayEnd(signal)).toBe(true);
    expect(await first).toBe(true);
  });

  it('sends a slot that waits back to work when another one gets a job', async () => {
    const watch = createIdleWatch(2, 0);
    const first = watch.mayEnd(signal);
    const letGo = watch.hold();
    expect(await first).toBe(false);
    expect(await watch.mayEnd(signal)).toBe(false);
    letGo();
    letGo(); // Counts once.
    const holding = watch.hold();
    expect(await watch.mayEnd(signal)).toBe(false);
    holding();
    expect(await Promise.all([watch.mayEnd(signal), watch.mayEnd(signal)])).toEqual([true, true]);
  });

  it('releases a slot that waits when the worker is stopped', async () => {
    const stop = new AbortController();
    const waiting = createIdleWatch(2, 0).mayEnd(stop.signal);
    stop.abort();
    expect(await waiting).toBe(false);
  });

  it('never ends without a limit', async () => {
    expect(await createIdleWatch(1, Number.POSITIVE_INFINITY).mayEnd(signal)).toBe(false);
  });
});
