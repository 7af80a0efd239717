import type { LabelTensor, Tensor } from '@tomaat/core';
import { describe, expect, it } from 'vitest';
import { differenceOf } from './canary.ts';

const scores = (values: readonly number[], dims: readonly number[]): Tensor => ({
  data: Float32Array.from(values),
  dims,
});

describe('differenceOf()', () => {
  const dims = [1, 2, 1, 100, 200];
  const half = 20_000;
  /** Two classes; the second has the larger score at the first `ones` voxels, by 1e-5. */
  const withOnes = (ones: number) =>
    scores(
      Array.from({ length: 2 * half }, (_, i) => (i < half ? 1 : i - half < ones ? 1.00001 : 0.99999)),
      dims,
    );

  it('accepts at most one label in 10,000 that differs', () => {
    const few = '3 of 20000 voxels (0.015 %) get another label than from the original graph, and 0.01 % may';
    expect(differenceOf(withOnes(50), withOnes(50))).toBeUndefined();
    expect(differenceOf(withOnes(50), withOnes(52))).toBeUndefined();
    expect(differenceOf(withOnes(50), withOnes(53))).toBe(few);
    const labels = (value: number): LabelTensor => ({
      data: Uint8Array.from({ length: half }, (_, i) => (i < 3 ? value : 0)),
      dims: [1, 1, 1, 100, 200],
      integer: true,
    });
    expect(differenceOf(labels(1), labels(2))).toBe(few);
    expect(differenceOf(labels(1), labels(1))).toBeUndefined();
  });

  it('finds scores that differ, are not numbers, or have other dimensions', () => {
    const one = scores([0, 1, 2, -4], [1, 1, 1, 2, 2]);
    expect(differenceOf(one, scores([0.003, 1, 2, -4], one.dims))).toBeUndefined();
    expect(differenceOf(one, scores([0.005, 1, 2, -4], one.dims))).toContain('% of the largest');
    expect(differenceOf(one, scores([Number.NaN, 1, 2, -4], one.dims))).toContain('not finite');
    expect(differenceOf(one, scores([0, 1, Number.POSITIVE_INFINITY, -4], one.dims))).toContain('not finite');
    const infinite = scores([Number.NaN, Number.POSITIVE_INFINITY, 2, -4], one.dims);
    expect(differenceOf(infinite, infinite)).toBeUndefined();
    expect(differenceOf(one, scores([0, 1, 2, -4], [1, 1, 1, 4, 1]))).toContain(
      'the original graph one of 1 × 1 × 1 × 2 × 2',
    );
  });
});
