import type { Volume } from '@tomaat/core';
import { describe, expect, it } from 'vitest';
import { type AuthorStage, bisect, nameFirst } from './bisect.ts';

const affine = [-0.7, 0.55, 0, 10, 0.4, 0.95, 0, -20, 0, 0, 1.7, 30, 0, 0, 0, 1];
const volumeOf = (change: (voxels: Float32Array) => void = () => {}, more: Partial<Volume> = {}): Volume => {
  const voxels = Float32Array.from({ length: 48 }, (_, i) => (i % 7) - 3);
  change(voxels);
  return { voxels, size: [2, 3, 4], components: 2, affine, ...more };
};
const author = (stage: string, volume = volumeOf(), placed = true): AuthorStage => ({
  stage,
  volume,
  placed,
});
const order = ['preprocess[0]', 'input', 'window', 'scores', 'postprocess[1]', 'labels'];

describe('bisect()', () => {
  it('names the first stage that differs, in the order of the pipeline', () => {
    const wrong = volumeOf((voxels) => {
      voxels[30] += 0.25;
    });
    const ours = new Map([
      ['labels', wrong],
      ['scores', wrong],
      ['input', volumeOf()],
    ]);
    const { first, stages } = bisect(order, [author('labels'), author('scores'), author('input')], ours);
    expect(first).toBe('scores');
    expect(stages.map(({ stage, agrees }) => [stage, agrees])).toEqual([
      ['input', true],
      ['scores', false],
      ['labels', false],
    ]);
    // Value 30 of 24 a channel: channel 1, voxel 6 of 2 × 3 × 4.
    expect(stages[1]).toMatchObject({ maxDifference: 0.25, maxValue: 3, differ: 1 });
    expect(stages[1].detail).toContain('1 of 48 values differ, by up to 0.250 at (0, 0, 1) of channel 1');
  });

  it('passes over a difference that a later stage does not have, but not for one window', () => {
    const wrong = volumeOf((voxels) => {
      voxels[30] += 0.25;
    });
    const dumps = order.map((stage) => author(stage));
    const ours = (agreeing: readonly string[]) =>
      new Map(order.map((stage) => [stage, agreeing.includes(stage) ? volumeOf() : wrong]));
    expect(bisect(order, dumps, ours(['preprocess[0]', 'postprocess[1]'])).first).toBe('labels');
    expect(bisect(order, dumps, ours(['preprocess[0]', 'window'])).first).toBe('input');
    expect(bisect(order, dumps, ours(['window', 'labels'])).first).toBeUndefined();
  });

  it('takes the last of several volumes that the author has for a stage', () => {
    const early = volumeOf((voxels) => voxels.fill(9));
    const dumps = [author('input', early), author('input')];
    expect(bisect(order, dumps, new Map([['input', volumeOf()]])).first).toBeUndefined();
  });

  it('names the author’s step with the first stage that differs', () => {
    const wrong = volumeOf((voxels) => voxels.fill(9));
    const dumps = [author('input'), { ...author('scores'), source: 'inferer' }];
    const found = bisect(
      order,
      dumps,
      new Map([
        ['input', volumeOf()],
        ['scores', wrong],
      ]),
    );
    expect(nameFirst(found)).toBe('scores (the author’s inferer)');
    expect(nameFirst(bisect(order, [author('scores')], new Map([['scores', wrong]])))).toBe('scores');
    expect(nameFirst({ stages: [] })).toBeUndefined();
  });

  it('ignores stages that only one side has', () => {
    const ours = new Map([['input', volumeOf()]]);
    expect(bisect(order, [author('window')], ours)).toEqual({ stages: [] });
  });

  it.each([
    ['preprocess[0]', 2e-4, true],
    ['preprocess[0]', 4e-4, false],
    ['scores', 2e-3, true],
    ['scores', 4e-3, false],
    ['labels', 1e-6, false],
    ['postprocess[1]', 1e-6, false],
  ])('takes rounding for what it is: %s, %d of 3', (stage, by, agrees) => {
    const ours = volumeOf((voxels) => {
      voxels[7 * 3 + 3] = by;
    });
    expect(bisect(order, [author(stage)], new Map([[stage, ours]])).stages[0].agrees).toBe(agrees);
  });

  it('finds another size, other channels, another place and another spacing', () => {
    const detailOf = (more: Partial<Volume>, placed = true) => {
      const ours = new Map([['input', volumeOf(undefined, more)]]);
      return bisect(order, [author('input', undefined, placed)], ours).stages[0];
    };
    expect(detailOf({ size: [2, 4, 3] })).toMatchObject({
      agrees: false,
      detail: '2 × 4 × 3 voxels, the author has 2 × 3 × 4',
    });
    expect(detailOf({ components: 1 }).detail).toBe('1 channels, the author has 2');
    const moved = affine.map((v, i) => (i === 3 ? v + 0.4 : v));
    expect(detailOf({ affine: moved })).toMatchObject({ agrees: false, differ: 0 });
    expect(detailOf({ affine: moved }).detail).toMatch(
      /^the first voxel lies at \(10\.40, -20\.00, 30\.00\) mm/,
    );
    expect(detailOf({ affine: affine.map((v, i) => (i === 10 ? 2 : v)) }).detail).toMatch(/spacing differs/);
    expect(detailOf({ affine: moved }, false).agrees).toBe(true);
  });

  it('takes NaN for equal to NaN alone', () => {
    const withNaN = volumeOf((voxels) => {
      voxels[5] = Number.NaN;
    });
    const compare = (ours: Volume) => bisect(order, [author('input', withNaN)], new Map([['input', ours]]));
    expect(compare(withNaN).first).toBeUndefined();
    expect(compare(volumeOf()).stages[0].maxDifference).toBe(Number.POSITIVE_INFINITY);
  });
});
