import { describe, expect, it } from 'vitest';
import { applyAffine } from '../geometry/affine.ts';
import type { Volume } from '../volume.ts';
import { affine, identityNetwork, positional, slidingWindow, volumeOf } from './fixtures.ts';
import { estimateMemory, infer } from './inferer.ts';
import { infererSchema, type NetworkSession } from './spec.ts';

describe('infer() with the whole volume', () => {
  const input = volumeOf([5, 4, 3]);
  it('keeps scores, takes the largest, or compares with a threshold', async () => {
    const session = positional(4);
    const scores = (await session.run({ data: input.voxels as Float32Array, dims: [1, 1, 3, 4, 5] })).data;
    expect(await infer(input, session, { type: 'simple' }, { type: 'none' })).toEqual({
      scores: { ...input, components: 4, voxels: scores },
    });
    const best = Uint8Array.from({ length: 60 }, (_, i) => {
      const values = [0, 1, 2, 3].map((k) => scores[k * 60 + i]);
      return values.indexOf(Math.max(...values));
    });
    expect(await infer(input, session, { type: 'simple' }, { type: 'argmax' })).toEqual({
      labels: { ...input, voxels: best },
    });
    const above = Uint8Array.from({ length: 60 }, (_, i) => (scores[120 + i] > 0.25 ? 1 : 0));
    expect(
      await infer(input, session, { type: 'simple' }, { type: 'threshold', channel: 2, above: 0.25 }),
    ).toEqual({ labels: { ...input, voxels: above } });
  });
  it('asks for labels alone where only they are needed', async () => {
    const asked: string[] = [];
    const voxels = Uint8Array.from({ length: 60 }, (_, i) => i % 7);
    const session: NetworkSession = {
      run: async (tensor) => {
        asked.push('scores');
        return tensor;
      },
      runLabels: async ({ dims }) => {
        asked.push('labels');
        return { data: voxels, dims, integer: true };
      },
    };
    const simple = { type: 'simple' } as const;
    expect(await infer(input, session, simple, { type: 'argmax' })).toEqual({ labels: { ...input, voxels } });
    await infer(input, session, simple, { type: 'none' });
    await infer(input, session, simple, { type: 'threshold', channel: 0, above: 0 });
    await infer(input, session, slidingWindow({ roiSize: [5, 4, 3] }), { type: 'argmax' });
    expect(asked).toEqual(['labels', 'scores', 'scores', 'scores']);
  });
  it('reports that it is done, and stops before and after the network', async () => {
    const controller = new AbortController();
    const seen: number[] = [];
    const options = { signal: controller.signal, onProgress: (fraction: number) => seen.push(fraction) };
    let runs = 0;
    const session = (end: boolean): NetworkSession => ({
      run: async (tensor) => {
        runs++;
        if (end) controller.abort();
        return tensor;
      },
    });
    await infer(input, session(false), { type: 'simple' }, { type: 'argmax' }, options);
    expect([runs, seen]).toEqual([1, [1]]);
    for (const expected of [2, 2]) {
      await expect(
        infer(input, session(true), { type: 'simple' }, { type: 'argmax' }, options),
      ).rejects.toMatchObject({ code: 'CANCELED' });
      expect([runs, seen]).toEqual([expected, [1]]);
    }
    const spec = slidingWindow({ roiSize: [5, 4, 3] });
    await expect(infer(input, session(false), spec, { type: 'argmax' }, options)).rejects.toMatchObject({
      code: 'CANCELED',
    });
    expect(runs).toBe(2);
  });
  it('refuses a channel that the network does not give', async () => {
    for (const channel of [-1, 1])
      await expect(
        infer(input, identityNetwork, { type: 'simple' }, { type: 'threshold', channel, above: 0 }),
      ).rejects.toMatchObject({ code: 'BAD_MANIFEST' });
  });
  it('compares a classifier’s score with a threshold', async () => {
    const session: NetworkSession = {
      run: async () => ({ data: Float32Array.of(0.1, 0.7, 0.2), dims: [1, 3] }),
    };
    for (const [channel, label] of [
      [0, 0],
      [1, 1],
      [2, 0],
    ])
      expect(
        await infer(input, session, { type: 'simple' }, { type: 'threshold', channel, above: 0.5 }),
      ).toMatchObject({ labels: { voxels: Uint8Array.of(label), size: [1, 1, 1], components: 1 } });
  });
  it.each([[[1, 1]], [[1, 1, 1, 1, 1]]])('lays one label of %j over the whole volume', async (dims) => {
    const session: NetworkSession = { run: async () => ({ data: Uint8Array.of(6), dims, integer: true }) };
    const result = await infer(input, session, { type: 'simple' }, { type: 'argmax' });
    if (!('labels' in result)) throw new Error('no labels');
    expect(result.labels).toMatchObject({ voxels: Uint8Array.of(6), size: [1, 1, 1], components: 1 });
    expect(applyAffine(result.labels.affine, [-0.5, 0.5, -0.5])).toEqual(
      applyAffine(affine, [-0.5, 3.5, -0.5]).map((v) => expect.closeTo(v, 9)),
    );
    expect(result.labels.affine.slice(12)).toEqual([0, 0, 0, 1]);
  });
  it.each([
    [[1, 1, 4, 4, 5], 60],
    [[1, 1, 3, 3, 5], 60],
    [[1, 1, 3, 4, 6], 60],
    [[1, 1, 3, 4, 5], 59],
    [[1, 1, 3, 4, 5], 120],
  ])('refuses labels of %j in %i numbers', async (dims, length) => {
    const session: NetworkSession = {
      run: async () => ({ data: new Uint8Array(length), dims, integer: true }),
    };
    await expect(infer(input, session, { type: 'simple' }, { type: 'argmax' })).rejects.toMatchObject({
      code: 'APP_OUTPUT',
      message: expect.stringContaining(`labels of ${dims.join(' × ')} for a volume of 3 × 4 × 5`),
    });
  });
  it('has nothing to compare with a threshold where a network gives labels', async () => {
    const session: NetworkSession = {
      run: async ({ dims }) => ({ data: new Uint8Array(60), dims, integer: true }),
    };
    await expect(
      infer(input, session, { type: 'simple' }, { type: 'threshold', channel: 0, above: 0 }),
    ).rejects.toMatchObject({ code: 'BAD_MANIFEST', message: expect.stringContaining('threshold') });
  });
  it('takes label values as they are', async () => {
    const data = Uint8Array.from({ length: 60 }, (_, i) => i);
    const session: NetworkSession = { run: async () => ({ data, dims: [1, 1, 3, 4, 5], integer: true }) };
    for (const type of ['none', 'argmax'] as const)
      expect(await infer(input, session, { type: 'simple' }, { type })).toEqual({
        labels: { ...input, voxels: data },
      });
    const turned: NetworkSession = { run: async () => ({ data, dims: [1, 1, 5, 4, 3], integer: true }) };
    await expect(infer(input, turned, { type: 'simple' }, { type: 'argmax' })).rejects.toMatchObject({
      code: 'APP_OUTPUT',
    });
  });
  it('gives a classifier’s answer as one voxel that covers the volume', async () => {
    for (const dims of [
      [1, 3],
      [1, 3, 1, 1, 1],
    ]) {
      const session: NetworkSession = { run: async () => ({ data: Float32Array.of(0.1, 0.7, 0.2), dims }) };
      const result = await infer(input, session, { type: 'simple' }, { type: 'none' });
      if (!('scores' in result)) throw new Error('no scores');
      expect(result.scores).toMatchObject({ size: [1, 1, 1], components: 3 });
      // Its corners are the corners of the volume.
      for (const corner of [
        [-0.5, -0.5, -0.5],
        [0.5, -0.5, 0.5],
        [0.5, 0.5, 0.5],
      ] as const) {
        const there = applyAffine(affine, [
          (corner[0] + 0.5) * 5 - 0.5,
          (corner[1] + 0.5) * 4 - 0.5,
          (corner[2] + 0.5) * 3 - 0.5,
        ]);
        expect(applyAffine(result.scores.affine, corner)).toEqual(there.map((v) => expect.closeTo(v, 9)));
      }
      expect(await infer(input, session, { type: 'simple' }, { type: 'argmax' })).toMatchObject({
        labels: { voxels: Uint8Array.of(1), size: [1, 1, 1] },
      });
    }
  });
  it('says what a network of fixed size takes', async () => {
    const session: NetworkSession = { run: async (tensor) => tensor, inputDims: [1, 1, 48, 60, 48] };
    await expect(infer(input, session, { type: 'simple' }, { type: 'argmax' })).rejects.toMatchObject({
      code: 'BAD_MANIFEST',
      message: expect.stringContaining('1 × 1 × 48 × 60 × 48'),
    });
  });
  it('refuses voxels that are not float32', async () => {
    const other: Volume = { ...input, voxels: new Int16Array(60) };
    for (const spec of [{ type: 'simple' } as const, slidingWindow({ roiSize: [2, 2, 2] })])
      await expect(infer(other, identityNetwork, spec, { type: 'argmax' })).rejects.toMatchObject({
        code: 'APP_FAILED',
      });
  });
});

describe('infererSchema', () => {
  it('has MONAI’s defaults', () => {
    expect(infererSchema.parse({ type: 'slidingWindow', roiSize: [96, 80, 64] })).toEqual({
      type: 'slidingWindow',
      roiSize: [96, 80, 64],
      overlap: 0.25,
      mode: 'constant',
      sigmaScale: 0.125,
      paddingMode: 'constant',
      paddingValue: 0,
      stepping: 'monai',
    });
  });
  it.each([
    { roiSize: [1, 4096, 7] },
    { overlap: 0 },
    { overlap: 0.999 },
    { overlap: [0, 0.5, 0.999] },
    { mode: 'gaussian', sigmaScale: 10 },
    { mode: 'constant', paddingMode: 'constant', stepping: 'monai' },
    { paddingMode: 'reflect', stepping: 'nnunet' },
    { paddingMode: 'replicate', paddingValue: -1024 },
    { mirrorAxes: [] },
    { mirrorAxes: ['x', 'y', 'z'] },
  ])('takes a sliding window with %o', (spec) => {
    const whole = { type: 'slidingWindow', roiSize: [9, 9, 9], ...spec };
    expect(infererSchema.parse(whole)).toMatchObject(whole);
  });
  it.each([
    { roiSize: [9, 9, 0] },
    { roiSize: [4097, 9, 9] },
    { roiSize: [9, 9.5, 9] },
    { roiSize: [9, 9] },
    { roiSize: [9, 9, 9, 9] },
    { overlap: 1 },
    { overlap: -0.01 },
    { overlap: [0, 0, 1] },
    { overlap: [0, 0] },
    { mode: 'linear' },
    { sigmaScale: 0 },
    { sigmaScale: 10.5 },
    { paddingMode: 'wrap' },
    { paddingValue: 'air' },
    { stepping: 'torch' },
    { mirrorAxes: ['w'] },
    { mirrorAxes: ['x', 'y', 'z', 'x'] },
    { roi: 1 },
  ])('refuses a sliding window with %o', (spec) => {
    const whole = { type: 'slidingWindow', roiSize: [9, 9, 9], ...spec };
    expect(infererSchema.safeParse(whole).success).toBe(false);
  });
  it.each([{ type: 'slidingWindow' }, { type: 'simple', roi: 1 }, { type: 'magic' }, {}])(
    'refuses %o',
    (spec) => {
      expect(infererSchema.safeParse(spec).success).toBe(false);
    },
  );
});

describe('estimateMemory()', () => {
  it('counts the ring, not all scores, and nothing is allocated for it', () => {
    const spec = slidingWindow({ roiSize: [128, 128, 128], overlap: 0.5 });
    const labels = estimateMemory(spec, [512, 512, 300], 1, 118);
    const voxels = 512 * 512 * 300;
    // Planes of 512 × 300 along y are smaller than 512 × 512 along z.
    const ring = 118 * 128 * 512 * 300 * 4;
    expect(labels).toBeGreaterThan(ring + voxels * 5);
    expect(labels).toBeLessThan(ring * 1.02 + voxels * 5 + 119 * 128 ** 3 * 4);
    expect(estimateMemory(spec, [512, 512, 300], 1, 118, 'none')).toBeGreaterThan(ring + voxels * 4 * 118);
    expect(estimateMemory({ type: 'simple' }, [256, 256, 256], 1, 3)).toBe(256 ** 3 * (4 + 12 + 1));
  });

  it.each([
    ['argmax', 7, 480 + 1680 + 60],
    ['threshold', 7, 480 + 1680 + 60],
    ['none', 7, 480 + 1680],
    ['argmax', 256, 480 + 61440 + 60],
    ['argmax', 257, 480 + 61680 + 120],
    ['threshold', 257, 480 + 61680 + 60],
    ['none', 257, 480 + 61680],
  ] as const)('adds input, scores and result of the whole volume: %s of %i', (reduction, classes, bytes) => {
    // 3 · 4 · 5 voxels of two components are 480 bytes.
    expect(estimateMemory({ type: 'simple' }, [3, 4, 5], 2, classes, reduction)).toBe(bytes);
  });

  it.each([
    // 480 voxels: 3840 bytes of input in two components. A window of 60, z planes of 80, three deep: 60 weights, 60 scores
    // of a class, 8 ones, 48 for the labels, then the ring, all in float32. The network's own window: 60 · 4 · (2 + 7).
    ['argmax', undefined, 3840 + 480 + 4 * (60 + 60 + 8 + 48 + 7 * 240) + 2160],
    ['none', undefined, 3840 + 480 * 28 + 4 * (60 + 60 + 8 + 48 + 8 * 240) + 2160],
    ['threshold', undefined, 3840 + 480 + 4 * (60 + 60 + 8 + 48 + 2 * 240) + 2160],
    ['argmax', [], 3840 + 480 + 4 * (60 + 60 + 8 + 48 + 7 * 240) + 2160],
    ['argmax', ['y'], 3840 + 480 + 4 * (60 + 60 + 8 + 48 + 7 * 240) + 4320],
  ] as const)('adds ring and windows of a sliding window: %s, mirrored %j', (reduction, axes, bytes) => {
    const spec = slidingWindow({ roiSize: [5, 4, 3], mirrorAxes: axes && [...axes] });
    expect(estimateMemory(spec, [10, 8, 6], 2, 7, reduction)).toBe(bytes);
    if (reduction === 'argmax') expect(estimateMemory(spec, [10, 8, 6], 2, 7)).toBe(bytes);
  });
});
