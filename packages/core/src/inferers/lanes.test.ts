import { describe, expect, it } from 'vitest';
import { TomaatError } from '../errors.ts';
import type { Tensor } from '../tensor.ts';
import { positional, slidingWindow, volumeOf } from './fixtures.ts';
import { infer } from './inferer.ts';
import type { InferResult, NetworkSession, WindowsLeft } from './spec.ts';

const input = volumeOf([23, 17, 11]);
const spec = slidingWindow({ roiSize: [8, 6, 4], overlap: 0.5, mode: 'gaussian', mirrorAxes: ['x'] });
const network = positional(3);

/** A session that spreads to others, of which later ones are quicker; what they do is in `seen`. */
function spreading(count: number, run = network.run) {
  const seen = { asked: [] as WindowsLeft[], running: 0, most: 0, runs: 0 };
  const lane = (index: number): NetworkSession => ({
    async run(tensor) {
      seen.most = Math.max(seen.most, ++seen.running);
      for (let turn = index; turn < count; turn++) await new Promise(setImmediate);
      seen.running--;
      seen.runs++;
      return run(tensor);
    },
  });
  const session: NetworkSession = {
    run: network.run,
    async spread(rest) {
      seen.asked.push(rest);
      return Array.from({ length: count }, (_, index) => lane(index));
    },
  };
  return { session, seen };
}

const scoresOf = async (session: NetworkSession) =>
  ((await infer(input, session, spec, { type: 'none' })) as Extract<InferResult, { scores: unknown }>).scores
    .voxels;

describe('infer() with several sessions', () => {
  it.each([2, 3, 7])('of %i gives the same bits as one', async (count) => {
    const { session, seen } = spreading(count);
    expect(await scoresOf(session)).toEqual(await scoresOf(network));
    expect(seen.most).toBe(count);
  });

  it('asks once, after the first window, and says what is left', async () => {
    const { session, seen } = spreading(2);
    await scoresOf(session);
    // 5 × 5 × 5 windows of 192 voxels, one component and three classes; two mirrorings of each.
    expect(seen.asked).toMatchObject([{ windows: 124, windowBytes: 192 * 4 * (1 + 3) }]);
    expect(seen.asked[0].otherBytes).toBeGreaterThan(23 * 17 * 11 * 3 * 4);
    expect(seen.runs).toBe(124 * 2);
  });

  it('leaves the rest of a round to its own session, which has all threads', async () => {
    for (const [count, together] of [
      [3, 123],
      [5, 124],
      [8, 120],
    ]) {
      const { session, seen } = spreading(count);
      await scoresOf(session);
      expect([count, seen.runs]).toEqual([count, together * 2]);
    }
  });

  it('stays with its own session where there is nothing to spread', async () => {
    const { session, seen } = spreading(1);
    expect(await scoresOf(session)).toEqual(await scoresOf(network));
    expect(seen.runs).toBe(0);
    const small = await infer(volumeOf([8, 6, 4]), session, spec, { type: 'argmax' });
    expect(small).toHaveProperty('labels');
    expect(seen.asked).toHaveLength(1);
  });

  it('ends with the fault of any of them', async () => {
    let runs = 0;
    const failing = async (tensor: Tensor) => {
      if (++runs === 10) throw new TomaatError('OUT_OF_MEMORY', 'There is none left.');
      return network.run(tensor);
    };
    await expect(scoresOf(spreading(3, failing).session)).rejects.toThrow('There is none left.');
    expect(runs).toBeLessThan(20);
  });

  it('stops between windows when it is cancelled', async () => {
    const abort = new AbortController();
    const { session, seen } = spreading(3);
    const onProgress = (fraction: number) => fraction > 0.2 && abort.abort();
    const work = infer(input, session, spec, { type: 'argmax' }, { signal: abort.signal, onProgress });
    await expect(work).rejects.toMatchObject({ code: 'CANCELED' });
    expect(seen.runs).toBeLessThan(100);
  });
});
