import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createVoxels, type VoxelType } from '../volume.ts';
import { extremes, percentiles, summarize } from './statistics.ts';

describe('percentiles()', () => {
  it('gives numpy’s values', () => {
    const voxels = Float32Array.of(-3.5, 0, 0, 1e-3, 2.25, -1e4, 7, 7, 1e5, 3.3, -0, 12);
    const numpy = [-10000, -4501.925, 0.00007, 1.1255, 11.5, 94500.66, 100000];
    percentiles(voxels, [0, 5, 37, 50, 90, 99.5, 100]).forEach((v, i) => {
      expect(v).toBeCloseTo(numpy[i], 2);
    });
    const whole = Array.from({ length: 1000 }, (_, i) => ((i * 7919) % 1009) - 300);
    const expected = [-300, -250.05, 36.667, 205.5, 658.05, 707.001, 708];
    for (const type of ['int16', 'int32', 'float32', 'float64'] as const) {
      const typed = createVoxels(type, 1000) as Int16Array;
      typed.set(whole);
      percentiles(typed, [0, 5, 33.3, 50, 95, 99.9, 100]).forEach((v, i) => {
        expect(v).toBeCloseTo(expected[i], 3);
      });
    }
  });

  it('finds the value of every rank, as sorting does, in every type', () => {
    const types: VoxelType[] = ['uint8', 'int8', 'uint16', 'int16', 'uint32', 'int32', 'float32', 'float64'];
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: -3e9, max: 5e9, noNaN: true }), { minLength: 1, maxLength: 40 }),
        (values) => {
          for (const type of types) {
            const voxels = createVoxels(type, values.length) as Float64Array;
            voxels.set(values);
            const sorted = Float64Array.from(voxels).sort();
            const ranks = Array.from(sorted, (_, i) =>
              sorted.length === 1 ? 0 : (100 * i) / (sorted.length - 1),
            );
            percentiles(voxels, ranks).forEach((v, i) => {
              const near = 1e-9 * Math.max(1, Math.abs(sorted[0]), Math.abs(sorted[sorted.length - 1]));
              expect(Math.abs(v - sorted[i])).toBeLessThanOrEqual(near);
            });
          }
        },
      ),
    );
  });

  it('leaves out what is not finite', () => {
    const voxels = Float32Array.of(Number.NaN, 1, Infinity, 2, -Infinity, 3, Number.NaN);
    expect(percentiles(voxels, [0, 50, 100])).toEqual([1, 2, 3]);
    expect(percentiles(Float64Array.from(voxels), [0, 50, 100])).toEqual([1, 2, 3]);
    expect(percentiles(Float32Array.of(Number.NaN), [50])).toEqual([0]);
    expect(percentiles(BigInt64Array.of(5n, -1n, 2n), [50])).toEqual([2]);
  });
});

describe('summarize()', () => {
  it('gives numpy’s mean and standard deviation under each mask', () => {
    const voxels = Int16Array.from({ length: 1000 }, (_, i) => ((i * 7919) % 1009) - 300);
    const all = summarize(voxels);
    expect([all.mean, all.min, all.max]).toEqual([204.678, -300, 708]);
    expect(all.std).toBeCloseTo(291.359071106427, 9);
    expect(summarize(voxels, 'aboveMean').mean).toBeCloseTo(456.4491017964072, 9);
    expect(summarize(voxels, 'aboveMean').std).toBeCloseTo(145.60489803412713, 9);
    expect(summarize(voxels, 'nonzero').mean).toBeCloseTo(204.88288288288288, 9);
    expect(summarize(voxels, 'nonzero').std).toBeCloseTo(291.4328505911799, 9);
  });

  it('keeps its digits when the mean is large against the deviation', () => {
    const voxels = Float64Array.of(1e9, 1e9 + 1, 1e9 + 2);
    expect(summarize(voxels).std).toBeCloseTo(Math.sqrt(2 / 3), 6);
  });

  it('leaves out what is not finite', () => {
    expect(summarize(Float32Array.of(Number.NaN, 2, Infinity, 4))).toMatchObject({
      count: 2,
      min: 2,
      max: 4,
      mean: 3,
    });
    expect(summarize(Float32Array.of(Number.NaN))).toEqual({ count: 0, min: 0, max: 0, mean: 0, std: 0 });
  });
});

describe('extremes()', () => {
  it.each(['uint8', 'int8', 'uint16', 'int16', 'int32', 'float32'] as const)(
    'finds lowest and highest of %s',
    (type) => {
      const voxels = createVoxels(type, 9) as Int16Array;
      voxels.set([3, 17, 99, 4, 100, 7, 3, 3, 55]);
      expect(extremes(voxels.subarray(1, 6))).toEqual({ min: 4, max: 100 });
      const lowest = type.startsWith('u') ? 0 : -101;
      voxels[8] = lowest;
      expect(extremes(voxels)).toEqual({ min: lowest, max: 100 });
      expect(extremes(voxels.subarray(0, 0))).toEqual({ min: 0, max: 0 });
    },
  );
});
