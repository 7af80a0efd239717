import { describe, expect, it } from 'vitest';
import { createVoxels, type Volume, type VoxelType } from '../volume.ts';
import { oblique } from './fixtures.ts';
import { convertVolume, createLike, fillValue, floatVoxels, storeValues } from './voxel-type.ts';

/** What an integer of so many bits holds. */
const ranges: readonly (readonly [VoxelType, bigint, bigint])[] = [8n, 16n, 32n, 64n].flatMap((bits) => [
  [`uint${bits}` as VoxelType, 0n, 2n ** bits - 1n] as const,
  [`int${bits}` as VoxelType, -(2n ** (bits - 1n)), 2n ** (bits - 1n) - 1n] as const,
]);
const narrow = ranges.filter(([type]) => !type.endsWith('64'));

/** Numbers, and the integers they are with halves up. */
const rounded: readonly (readonly [number, number])[] = [
  [0, 0],
  [0.49, 0],
  [0.5, 1],
  [1.5, 2],
  [2.5, 3],
  [99.51, 100],
];

describe('fillValue()', () => {
  it.each(ranges)('clamps to the range of %s', (type, low, high) => {
    const voxels = createVoxels(type, 1);
    const filled = (value: number) => BigInt(fillValue(voxels, value));
    expect(filled(Number.NEGATIVE_INFINITY)).toBe(low);
    expect(filled(Number.POSITIVE_INFINITY)).toBe(high);
    expect(filled(-1e30)).toBe(low);
    expect(filled(1e30)).toBe(high);
    expect(filled(Number.NaN)).toBe(0n);
    for (const [value, integer] of rounded) expect(filled(value)).toBe(BigInt(integer));
    if (low < 0n)
      for (const [value, integer] of [
        [-0.5, 0],
        [-0.51, -1],
        [-2.5, -2],
      ])
        expect(filled(value)).toBe(BigInt(integer));
  });

  it.each(narrow)('keeps both ends of %s and what lies beside them', (type, low, high) => {
    const voxels = createVoxels(type, 1);
    for (const value of [low, low + 1n, high - 1n, high])
      expect(BigInt(fillValue(voxels, Number(value)))).toBe(value);
    for (const value of [low - 1n, high + 1n])
      expect(BigInt(fillValue(voxels, Number(value)))).toBe(value < 0n || value < low ? low : high);
  });

  it('clamps a double that is just above 64 bits', () => {
    expect(fillValue(new BigInt64Array(1), 2 ** 63)).toBe(2n ** 63n - 1n);
    expect(fillValue(new BigInt64Array(1), -(2 ** 63))).toBe(-(2n ** 63n));
    expect(fillValue(new BigInt64Array(1), 2 ** 63 - 1024)).toBe(2n ** 63n - 1024n);
    expect(fillValue(new BigUint64Array(1), 2 ** 64)).toBe(2n ** 64n - 1n);
    expect(fillValue(new BigUint64Array(1), 2 ** 64 - 2048)).toBe(2n ** 64n - 2048n);
  });

  it('leaves floats as they are', () => {
    expect(fillValue(new Float32Array(1), 0.3)).toBe(0.3);
    expect(fillValue(new Float64Array(1), Number.NaN)).toBeNaN();
  });

  it('is never a negative zero', () => {
    expect(Object.is(fillValue(new Int16Array(1), -0.2), 0)).toBe(true);
  });
});

describe('storeValues()', () => {
  it.each(ranges)('rounds and clamps %s from its offset on', (type, low, high) => {
    const voxels = createVoxels(type, 8);
    const values = Float64Array.of(
      41,
      Number.NaN,
      2.5,
      Number.NEGATIVE_INFINITY,
      Number.POSITIVE_INFINITY,
      77,
    );
    storeValues(voxels, 2, values, 5);
    expect([...voxels].map(BigInt)).toEqual([0n, 0n, 41n, 0n, 3n, low, high, 0n]);
  });

  it.each(narrow)('keeps both ends of %s', (type, low, high) => {
    const voxels = createVoxels(type, 4);
    const ends = [low, low + 1n, high - 1n, high];
    storeValues(voxels, 0, Float64Array.from(ends, Number), 4);
    expect([...voxels].map(BigInt)).toEqual(ends);
  });

  it('leaves floats as they are', () => {
    const voxels = new Float64Array(3);
    storeValues(voxels, 1, Float64Array.of(-0.7, Number.NaN, 5), 2);
    expect([...voxels]).toEqual([0, -0.7, Number.NaN]);
  });
});

describe('createLike()', () => {
  it.each([...ranges.map(([type]) => type), 'float32', 'float64'] as VoxelType[])(
    'makes zeros of %s',
    (type) => {
      const voxels = createLike(createVoxels(type, 2), 3);
      expect(voxels.constructor).toBe(createVoxels(type, 1).constructor);
      expect([...voxels].map(Number)).toEqual([0, 0, 0]);
    },
  );
});

describe('floatVoxels()', () => {
  it('takes float32 where it holds every value, else float64', () => {
    // float32 holds integers to 2^24.
    const short = floatVoxels(Uint16Array.of(65535, 1));
    expect(short).toBeInstanceOf(Float32Array);
    expect([...short]).toEqual([65535, 1]);
    const long = floatVoxels(Int32Array.of(2 ** 24 + 1, -3));
    expect(long).toBeInstanceOf(Float64Array);
    expect([...long]).toEqual([16777217, -3]);
    expect([...floatVoxels(BigInt64Array.of(-5n, 7n))]).toEqual([-5, 7]);
  });

  it('gives floats as they come', () => {
    for (const voxels of [Float32Array.of(0.5), Float64Array.of(0.1)])
      expect(floatVoxels(voxels)).toBe(voxels);
  });
});

describe('convertVolume()', () => {
  /** 9000 voxels: more than are converted at once. */
  const value = (i: number) => (i % 1000) - 300.5;
  const volume: Volume = {
    voxels: Float32Array.from({ length: 20 * 15 * 10 * 3 }, (_, i) => value(i)),
    size: [20, 15, 10],
    components: 3,
    affine: oblique,
  };

  it('converts every voxel and keeps the grid', () => {
    const { voxels, ...grid } = convertVolume(volume, 'int16');
    expect(voxels).toBeInstanceOf(Int16Array);
    // Halves up: -300.5 is -300.
    expect([...voxels]).toEqual(Array.from({ length: 9000 }, (_, i) => (i % 1000) - 300));
    expect(grid).toEqual({ size: [20, 15, 10], components: 3, affine: oblique });
  });

  it('converts 64-bit integers', () => {
    const voxels = BigInt64Array.from({ length: 9000 }, (_, i) => BigInt(i) - 4000n);
    const converted = convertVolume({ ...volume, voxels }, 'int8').voxels;
    expect([...converted]).toEqual(
      Array.from({ length: 9000 }, (_, i) => Math.min(127, Math.max(-128, i - 4000))),
    );
  });

  it('gives a volume of that type as it comes', () => {
    expect(convertVolume(volume, 'float32')).toBe(volume);
  });
});
