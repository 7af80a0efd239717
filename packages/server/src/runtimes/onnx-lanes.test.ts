import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { infer, infererSchema, type Volume } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { unetNetwork, writeModel } from '../../test/onnx-fixture.ts';
import { freeMemory } from '../worker/free-memory.ts';
import { openOnnxSession } from './onnx.ts';
import { laneCount, withLanes } from './onnx-lanes.ts';
import type { FreeMemory } from './onnx-options.ts';

let folder: string;
let modelFile: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-lanes-'));
  modelFile = await writeModel(folder, 'unet.onnx', unetNetwork({ classes: 3, channels: [4, 8] }));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const plenty: FreeMemory = { resident: 64e9, data: 64e9 };
const spec = infererSchema.parse({
  type: 'slidingWindow',
  roiSize: [16, 12, 8],
  overlap: 0.5,
  mode: 'gaussian',
});
/** Oblique, anisotropic and left-handed. */
const volume: Volume = {
  voxels: Float32Array.from({ length: 37 * 25 * 19 }, (_, i) => Math.sin(i * 0.7) + Math.cos(i * 0.011)),
  size: [37, 25, 19],
  components: 1,
  affine: [-1.4, 0.35, 0.3, 30, 0.4, 1.9, -0.5, -40, -0.2, 0.3, 2.8, 12, 0, 0, 0, 1],
};

/** The class with the largest of three scores, of each voxel. */
const winners = (scores: Float32Array) => {
  const count = scores.length / 3;
  return Array.from({ length: count }, (_, i) => {
    const own = [0, 1, 2].map((k) => scores[k * count + i]);
    return own.indexOf(Math.max(...own));
  });
};

async function scoresWith(free: FreeMemory | undefined, leastWorkMs = 0) {
  const options = { threads: 3 };
  const session = withLanes(await openOnnxSession(modelFile, options), {
    modelFile,
    options,
    freeMemory: () => free,
    residentBefore: process.memoryUsage.rss(),
    leastWorkMs,
  });
  let lanes = 0;
  const counted = {
    ...session,
    spread: async (rest: Parameters<NonNullable<typeof session.spread>>[0]) => {
      const sessions = await session.spread!(rest);
      lanes = sessions.length;
      return sessions;
    },
  };
  try {
    const first = await infer(volume, counted, spec, { type: 'none' });
    const again = await infer(volume, counted, spec, { type: 'none' });
    expect(again).toEqual(first);
    return { lanes, scores: 'scores' in first && first.scores };
  } finally {
    await session.close();
  }
}

describe('withLanes()', () => {
  it('gives the labels of one session, and its scores to rounding', { timeout: 60_000 }, async () => {
    const alone = await openOnnxSession(modelFile, { threads: 1 });
    const expected = await infer(volume, alone, spec, { type: 'none' });
    await alone.close();
    const { lanes, scores } = await scoresWith(plenty);
    expect(lanes).toBe(3);
    const [found, wanted] = [scores, 'scores' in expected && expected.scores].map(
      (one) => (one as Volume).voxels as Float32Array,
    );
    // The engine itself sums small tensors in another order with another number of threads.
    const largest = wanted.reduce((most, value, i) => Math.max(most, Math.abs(value - found[i])), 0);
    expect(largest).toBeLessThan(1e-5);
    expect(winners(found)).toEqual(winners(wanted));
    expect(new Set(winners(wanted)).size).toBe(3);
  });

  it.each([
    ['the system does not say what is free', undefined, 0],
    ['there is no memory', { resident: 70e6, data: 64e9 }, 0],
    ['the process limit leaves no room for threads', { resident: 64e9, data: 900e6 }, 0],
    ['the work is little', plenty, 60_000],
  ] as const)('stays with one session where %s', async (_, free, leastWorkMs) => {
    expect((await scoresWith(free, leastWorkMs)).lanes).toBe(1);
  });

  it('opens sessions once the volumes so far have been enough work', { timeout: 60_000 }, async () => {
    const options = { threads: 2 };
    const session = withLanes(await openOnnxSession(modelFile, options), {
      modelFile,
      options,
      freeMemory: () => plenty,
      residentBefore: process.memoryUsage.rss(),
      leastWorkMs: 10_000,
    });
    const asked = { windows: 10, windowMs: 400, windowBytes: 1e4, otherBytes: 0 };
    const lanes: number[] = [];
    for (let volume = 0; volume < 4; volume++) lanes.push((await session.spread!(asked)).length);
    expect(lanes).toEqual([1, 1, 2, 2]);
    await session.close();
  });

  it('passes on the fault of a run', { timeout: 60_000 }, async () => {
    const options = { threads: 2 };
    const session = withLanes(await openOnnxSession(modelFile, options), {
      modelFile,
      options,
      freeMemory: () => plenty,
      residentBefore: 0,
      leastWorkMs: 0,
    });
    const [lane] = await session.spread!({ windows: 100, windowMs: 1, windowBytes: 1e4, otherBytes: 0 });
    // An odd size does not fit the network, which halves and doubles it.
    const odd = { data: new Float32Array(7 * 7 * 7), dims: [1, 1, 7, 7, 7] };
    await expect(lane.run(odd)).rejects.toMatchObject({ code: 'APP_FAILED' });
    const even = { data: new Float32Array(512), dims: [1, 1, 8, 8, 8] };
    expect((await lane.run(even)).dims).toEqual([1, 3, 8, 8, 8]);
    expect(even.data).toHaveLength(512);
    await session.close();
  });
});

describe('laneCount()', () => {
  const rest = { windows: 100, windowBytes: 10e6, otherBytes: 1e9 };
  const about = { threads: 16, sessionBytes: 400e6, free: plenty };

  it('is bounded by threads, windows and memory', () => {
    expect(laneCount(rest, about)).toBe(16);
    expect(laneCount({ ...rest, windows: 9 }, about)).toBe(4);
    // 40 MB of a thread, 400 MB of a session and twice 10 MB: 460 MB each, after 1 GB for the rest.
    expect(laneCount(rest, { ...about, free: { resident: 1e9 + 5 * 460e6, data: 64e9 } })).toBe(5);
    // As the process limit counts, 980 MB each.
    expect(laneCount(rest, { ...about, free: { resident: 64e9, data: 1e9 + 3 * 980e6 } })).toBe(3);
    expect(laneCount(rest, { ...about, free: { resident: 5e8, data: 64e9 } })).toBe(1);
  });
});

describe('freeMemory()', () => {
  it.skipIf(process.platform !== 'linux')('is what the limit leaves of what the process has', () => {
    const free = freeMemory({ memoryMb: 5000, dataMb: 7000, from: 'operator' })!;
    expect(5e9 - free.resident).toBeGreaterThan(30e6);
    // It was read at another moment.
    expect(Math.abs(5e9 - free.resident - process.memoryUsage.rss())).toBeLessThan(300e6);
    expect(7e9 - free.data).toBeGreaterThan(5e9 - free.resident - 100e6);
    expect(freeMemory(undefined)!.data).toBe(Number.POSITIVE_INFINITY);
  });

  it('is unknown where the system does not say', () => {
    expect(freeMemory(undefined, '/nonexistent')).toBeUndefined();
    expect(freeMemory(undefined, '/dev/null')).toBeUndefined();
  });
});
