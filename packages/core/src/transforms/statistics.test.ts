import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createVoxels, type VoxelType } from '../volume.ts';
import {
  extremes,
  forEachPiece,
  hasFewValues,
  percentiles,
  placesOf,
  summarize,
  valuesOf,
} from './statistics.ts';

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

  it('finds the first and the last value of each type', () => {
    const ends: [Int8Array | Uint8Array | Int16Array | Uint16Array | Int32Array | Uint32Array, number[]][] = [
      [Int8Array.of(-128, 3, 127), [-128, 3, 127]],
      [Uint8Array.of(0, 3, 255), [0, 3, 255]],
      [Int16Array.of(-32768, 3, 32767), [-32768, 3, 32767]],
      [Uint16Array.of(0, 3, 65535), [0, 3, 65535]],
      [Int32Array.of(-(2 ** 31), 3, 2 ** 31 - 1), [-(2 ** 31), 3, 2 ** 31 - 1]],
      [Uint32Array.of(0, 3, 2 ** 32 - 1), [0, 3, 2 ** 32 - 1]],
    ];
    for (const [voxels, expected] of ends) {
      expect(percentiles(voxels, [0, 50, 100]), voxels.constructor.name).toEqual(expected);
      expect(percentiles(voxels.toReversed(), [0, 50, 100]), voxels.constructor.name).toEqual(expected);
    }
  });

  it('leaves out what is not finite', () => {
    const voxels = Float32Array.of(Number.NaN, 1, Infinity, 2, -Infinity, 3, Number.NaN);
    expect(percentiles(voxels, [0, 50, 100])).toEqual([1, 2, 3]);
    expect(percentiles(Float64Array.from(voxels), [0, 50, 100])).toEqual([1, 2, 3]);
    expect(percentiles(Float32Array.of(Number.NaN), [50])).toEqual([0]);
    expect(percentiles(BigInt64Array.of(5n, -1n, 2n), [50])).toEqual([2]);
  });

  it('takes percents below 0 and above 100 for the ends', () => {
    expect(percentiles(Float32Array.of(3, 1, 2), [-5, 105, 0, 100])).toEqual([1, 3, 1, 3]);
    expect(percentiles(Float64Array.of(8), [0, 30, 100])).toEqual([8, 8, 8]);
    expect(percentiles(new Int16Array(0), [0, 50])).toEqual([0, 0]);
    expect(percentiles(Float64Array.of(Number.NaN), [0, 50])).toEqual([0, 0]);
  });

  it('counts from the nearer rank to keep digits of large differences', () => {
    // 1e-17 of the way from 1 to 1e17 is 2; 2^-53 before the end of the way from -1e17 to 1 is 1 - 1e17 / 2^53.
    expect(percentiles(Float64Array.of(1, 1e17), [1e-15])[0]).toBeCloseTo(2, 6);
    expect(percentiles(Float64Array.of(1, -1e17), [99.99999999999999])[0]).toBeCloseTo(-10.1022302, 6);
    // The middle is counted from the upper one, as numpy does: from the lower one it would be 2^53.
    expect(percentiles(Float64Array.of(3, 2 ** 54), [50])[0]).toBe(2 ** 53 + 2);
  });

  it.each([
    ['int8', [-128, 127, -1, 0]],
    ['uint8', [0, 255, 128, 127]],
    ['int16', [-32768, 32767, -1, 0]],
    ['uint16', [0, 65535, 32768, 32767]],
    ['int32', [-(2 ** 31), 2 ** 31 - 1, -1, 0, 65535, 65536, -65536, -65537]],
    ['uint32', [0, 2 ** 32 - 1, 2 ** 31, 2 ** 31 - 1, 65535, 65536]],
    [
      'float32',
      [-3.4028234663852886e38, 3.4028234663852886e38, -(2 ** -149), 2 ** -149, 0, -1, 1, -65536, 65535],
    ],
    ['float64', [-Number.MAX_VALUE / 2, Number.MAX_VALUE / 2, -5e-324, 5e-324, 0]],
  ] as const)('orders the extremes of %s', (type, numbers) => {
    // Not from the beginning of the memory, and every value three times.
    const voxels = (createVoxels(type, 3 * numbers.length + 2) as Float64Array).subarray(
      1,
      3 * numbers.length + 1,
    );
    voxels.set([...numbers, ...numbers, ...numbers]);
    const last = 3 * numbers.length - 1;
    const expected = [...numbers].sort((a, b) => a - b);
    const middles = numbers.map((_, i) => (100 * (3 * i + 1)) / last);
    const near = expected.map((v) => expect.closeTo(v, 6));
    expect(percentiles(voxels, middles)).toEqual(type === 'float64' || type === 'float32' ? near : expected);
    expect(percentiles(voxels, [0, 100])).toEqual([expected[0], expected[numbers.length - 1]]);
  });

  it('orders integers of 64 bits', () => {
    expect(percentiles(BigUint64Array.of(7n, 2n ** 63n, 1n), [0, 50, 100])).toEqual([1, 7, 2 ** 63]);
    expect(percentiles(BigInt64Array.of(7n, -(2n ** 63n), 1n), [0, 50, 100])).toEqual([-(2 ** 63), 1, 7]);
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

  it('counts all voxels of more than one piece', () => {
    // 0 … 39999 in another order: the mean is 19999.5, the variance (40000² − 1) / 12, of the upper half (20000² − 1) / 12.
    const voxels = Int32Array.from({ length: 40_000 }, (_, i) => (i * 7919) % 40_000);
    const all = { count: 40_000, min: 0, max: 39_999, mean: 19_999.5 };
    expect(summarize(voxels)).toEqual({ ...all, std: expect.closeTo(11547.005379, 5) });
    expect(summarize(voxels, 'nonzero')).toEqual({
      ...{ count: 39_999, min: 1, max: 39_999, mean: 20_000 },
      std: expect.closeTo(Math.sqrt((39_999 ** 2 - 1) / 12), 5),
    });
    expect(summarize(voxels, 'aboveMean')).toEqual({
      ...{ count: 20_000, min: 20_000, max: 39_999, mean: 29_999.5 },
      std: expect.closeTo(5773.502685, 5),
    });
  });

  it.each([
    ['all', { count: 5, min: -6, max: 6, mean: 0, std: Math.sqrt(80 / 5) }],
    ['nonzero', { count: 4, min: -6, max: 6, mean: 0, std: Math.sqrt(80 / 4) }],
    ['aboveMean', { count: 2, min: 2, max: 6, mean: 4, std: 2 }],
  ] as const)('leaves out of %s what is not finite, and the mean itself', (mask, expected) => {
    const voxels = [-6, Number.NaN, 2, -0, Infinity, 6, -Infinity, -2];
    expect(summarize(Float64Array.from(voxels), mask)).toEqual(expected);
    expect(summarize(Float32Array.from(voxels), mask)).toEqual(expected);
  });

  it.each([BigInt64Array, BigUint64Array])('takes integers of 64 bits as %o', (type) => {
    expect(summarize(type.of(1n, 0n, 5n))).toEqual({
      ...{ count: 3, min: 0, max: 5, mean: 2 },
      std: expect.closeTo(Math.sqrt(14 / 3), 12),
    });
    expect(summarize(type.of(1n, 0n, 5n), 'nonzero')).toEqual({ count: 2, min: 1, max: 5, mean: 3, std: 2 });
  });

  it('gives zeros where the mask holds no voxel', () => {
    const none = { count: 0, min: 0, max: 0, mean: 0, std: 0 };
    expect(summarize(Int16Array.of(0, 0), 'nonzero')).toEqual(none);
    expect(summarize(Int16Array.of(4, 4), 'aboveMean')).toEqual(none);
    expect(summarize(new Float32Array(0))).toEqual(none);
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

  it('finds both ends of a type, and a constant', () => {
    expect(extremes(Int8Array.of(-1, -128, 127))).toEqual({ min: -128, max: 127 });
    expect(extremes(Uint8Array.of(255, 0))).toEqual({ min: 0, max: 255 });
    expect(extremes(Int16Array.of(-32768, 32767))).toEqual({ min: -32768, max: 32767 });
    expect(extremes(Uint16Array.of(65535))).toEqual({ min: 65535, max: 65535 });
    expect(extremes(Int16Array.of(-5, -5))).toEqual({ min: -5, max: -5 });
    expect(extremes(Float32Array.of(-5, -5))).toEqual({ min: -5, max: -5 });
    expect(extremes(BigInt64Array.of(-5n, 9n))).toEqual({ min: -5, max: 9 });
  });

  it('leaves out what is not finite', () => {
    expect(extremes(Float32Array.of(Infinity, 3, Number.NaN, -2, -Infinity))).toEqual({ min: -2, max: 3 });
    expect(extremes(Float64Array.of(Number.NaN, Infinity, -Infinity))).toEqual({ min: 0, max: 0 });
    expect(extremes(Float32Array.of(Infinity))).toEqual({ min: 0, max: 0 });
  });

  it.each([0, 20_000, 39_999])('finds the ends at %i of more than one piece', (place) => {
    const voxels = new Float32Array(40_000).fill(5);
    voxels[place] = 7;
    voxels[39_999 - place] = -3;
    expect(extremes(voxels)).toEqual({ min: -3, max: 7 });
  });
});

describe('forEachPiece()', () => {
  it.each([0, 1, 16_383, 16_384, 16_385, 40_000])('gives %i voxels in order, in pieces', (length) => {
    const seen: number[] = [];
    forEachPiece(
      Int32Array.from({ length }, (_, i) => i - 7),
      (values, start) => {
        expect(start).toBe(seen.length);
        expect(values.length).toBe(Math.min(16_384, length - start));
        for (const v of values) seen.push(v);
      },
    );
    expect(seen).toEqual(Array.from({ length }, (_, i) => i - 7));
  });

  it('makes integers of 64 bits numbers', () => {
    const pieces: number[][] = [];
    forEachPiece(BigInt64Array.of(-5n, 7n), (values) => pieces.push([...values]));
    forEachPiece(BigUint64Array.of(2n ** 53n, 1n, 0n), (values) => pieces.push([...values]));
    const long = new BigInt64Array(16_386).fill(3n);
    long[16_385] = -2n;
    forEachPiece(long, (values, start) => start > 0 && pieces.push([...values]));
    expect(pieces).toEqual([
      [-5, 7],
      [2 ** 53, 1, 0],
      [3, -2],
    ]);
  });
});

describe('hasFewValues()', () => {
  it.each([
    ['uint8', true],
    ['int8', true],
    ['uint16', true],
    ['int16', true],
    ['uint32', false],
    ['int32', false],
    ['float32', false],
    ['float64', false],
    ['int64', false],
    ['uint64', false],
  ] as const)('says of %s %s', (type, few) => {
    expect(hasFewValues(createVoxels(type, 1))).toBe(few);
  });
});

describe('placesOf() and valuesOf()', () => {
  it.each([
    [Uint8Array, [0, 127, 128, 255], [0, 127, 128, 255], 256],
    [Int8Array, [0, 127, -128, -1], [0, 127, 128, 255], 256],
    [Uint16Array, [0, 32767, 32768, 65535], [0, 32767, 32768, 65535], 65536],
    [Int16Array, [0, 32767, -32768, -1], [0, 32767, 32768, 65535], 65536],
  ] as const)('find the values of %o again', (type, voxels, places, count) => {
    // Not from the beginning of the memory.
    const part = type.from([9, ...voxels, 9]).subarray(1, 5);
    expect([...placesOf(part)]).toEqual(places);
    const table = valuesOf(part);
    expect(table.length).toBe(count);
    expect(places.map((place) => table[place])).toEqual(voxels);
  });
});
