import { describe, expect, it } from 'vitest';
import type { Tensor } from '../tensor.ts';
import { positional, slidingWindow, volumeOf } from './fixtures.ts';
import { infer } from './inferer.ts';
import type { InfererSpec, NetworkSession, Reduction } from './spec.ts';

const input = volumeOf([7, 6, 5]);
const count = 7 * 6 * 5;
const specs: [string, InfererSpec][] = [
  ['whole volume', { type: 'simple' }],
  ['windows along z', slidingWindow({ roiSize: [4, 5, 2], mode: 'gaussian' })],
  ['windows along y', slidingWindow({ roiSize: [4, 2, 5], mode: 'gaussian' })],
];
const rules = [
  { channel: 1, above: 0.2, value: 7 },
  { channel: 0, above: -0.4, value: 2 },
  { channel: 1, above: 0.9, value: 0 },
  { channel: 3, above: 0.6, value: 9 },
];

async function both(spec: InfererSpec, session: NetworkSession, reduction: Reduction) {
  const kept = await infer(input, session, spec, { type: 'none' });
  const made = await infer(input, session, spec, reduction);
  if (!('scores' in kept) || !('labels' in made)) throw new Error('scores and labels');
  const scores = (channel: number, i: number) => Number(kept.scores.voxels[channel * count + i]);
  return { scores, labels: made.labels };
}

describe('infer() with compose', () => {
  it.each(specs)('gives the value of the last rule that a voxel meets: %s', async (_name, spec) => {
    const { scores, labels } = await both(spec, positional(4), { type: 'compose', rules });
    expect(labels).toMatchObject({ size: [7, 6, 5], components: 1, affine: input.affine });
    const expected = Array.from({ length: count }, (_, i) => {
      if (scores(3, i) > 0.6) return 9;
      if (scores(1, i) > 0.9) return 0;
      if (scores(0, i) > -0.4) return 2;
      return scores(1, i) > 0.2 ? 7 : 0;
    });
    expect(labels.voxels).toEqual(Uint8Array.from(expected));
    expect(new Set(expected)).toEqual(new Set([0, 2, 7, 9]));
  });

  it.each(specs)('stores values above 255 in two bytes: %s', async (_name, spec) => {
    const reduction: Reduction = { type: 'compose', rules: [{ channel: 2, above: 0, value: 65_535 }] };
    const { scores, labels } = await both(spec, positional(3), reduction);
    const expected = Array.from({ length: count }, (_, i) => (scores(2, i) > 0 ? 65_535 : 0));
    expect(labels.voxels).toEqual(Uint16Array.from(expected));
  });

  it.each(specs)('refuses a channel that the network does not give: %s', async (_name, spec) => {
    const reduction: Reduction = { type: 'compose', rules: [{ channel: 3, above: 0, value: 1 }] };
    await expect(infer(input, positional(3), spec, reduction)).rejects.toMatchObject({
      code: 'BAD_MANIFEST',
      message: expect.stringContaining('The step compose names channel 3'),
    });
  });
});

/** Scores of 255 or more classes: class `i mod K` has `i − 100`, all others −500. */
const manyClasses = (classes: number): NetworkSession => ({
  run: async ({ dims }) => {
    const data = new Float32Array(classes * count).fill(-500);
    for (let i = 0; i < count; i++) data[((i + classes - 1) % classes) * count + i] = i - 100;
    return { data, dims: [1, classes, ...dims.slice(2)] };
  },
});

describe('infer() with foreground', () => {
  it.each(specs)('gives 1 + the best class, and 0 where none is above: %s', async (_name, spec) => {
    const { scores, labels } = await both(spec, positional(3), { type: 'foreground', atMost: 0.3 });
    const expected = Array.from({ length: count }, (_, i) => {
      const values = [0, 1, 2].map((channel) => scores(channel, i));
      const most = Math.max(...values);
      return most > 0.3 ? values.indexOf(most) + 1 : 0;
    });
    expect(labels.voxels).toEqual(Uint8Array.from(expected));
    expect(new Set(expected)).toEqual(new Set([0, 1, 2, 3]));
  });

  it.each([
    [255, Uint8Array],
    [256, Uint16Array],
    [257, Uint16Array],
  ] as const)('holds the last of %i classes', async (classes, Type) => {
    const window = slidingWindow({ roiSize: [7, 6, 5] });
    for (const spec of [{ type: 'simple' } as const, window]) {
      const { labels } = await both(spec, manyClasses(classes), { type: 'foreground', atMost: -101 });
      expect(labels.voxels).toBeInstanceOf(Type);
      expect([...labels.voxels].slice(0, 3)).toEqual([classes, 1, 2]);
      const floor = await both(spec, manyClasses(classes), { type: 'foreground', atMost: -98 });
      expect([...floor.labels.voxels].slice(0, 5)).toEqual([0, 0, 0, 3, 4]);
    }
  });

  it('compares the scores, so the engine’s own labels are not asked for', async () => {
    const session: NetworkSession = {
      run: async (tensor: Tensor) => tensor,
      runLabels: async () => {
        throw new Error('asked');
      },
    };
    const simple = { type: 'simple' } as const;
    await expect(infer(input, session, simple, { type: 'foreground', atMost: 0 })).resolves.toBeDefined();
    await expect(infer(input, session, simple, { type: 'compose', rules })).rejects.toThrow('channel 1');
  });

  it.each<[Reduction, string]>([
    [{ type: 'foreground', atMost: 0 }, 'Remove backgroundAtMost of argmax.'],
    [{ type: 'compose', rules }, 'Remove the compose step.'],
  ])('refuses label values (%j)', async (reduction, remedy) => {
    const session: NetworkSession = {
      run: async ({ dims }) => ({ data: new Uint8Array(count), dims, integer: true }),
    };
    await expect(infer(input, session, { type: 'simple' }, reduction)).rejects.toMatchObject({
      code: 'BAD_MANIFEST',
      message: expect.stringContaining(remedy),
    });
  });
});
