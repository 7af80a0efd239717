import { describe, expect, it } from 'vitest';
import { copyNumbers, numericVoxels, takeNumericVoxels, type Voxels } from './volume.ts';

const signed = [
  0n,
  1n,
  -1n,
  300n,
  -32_769n,
  2n ** 31n,
  -(2n ** 32n),
  2n ** 53n,
  2n ** 53n + 1n,
  2n ** 53n + 3n,
];
const extremes = [2n ** 63n - 1n, -(2n ** 63n), -(2n ** 53n) - 1n, 123_456_789_012_345_678n];
const unsigned = [0n, 1n, 2n ** 32n - 1n, 2n ** 32n, 2n ** 63n, 2n ** 64n - 1n, 2n ** 53n + 1n];

const cases: [name: string, voxels: () => Voxels][] = [
  ['int64', () => BigInt64Array.from([...signed, ...extremes])],
  ['uint64', () => BigUint64Array.from(unsigned)],
  // Not from the beginning of its memory.
  ['a part of int64', () => BigInt64Array.from([7n, ...signed]).subarray(1)],
];
/** What the language itself makes of each value. */
const numbersOf = (voxels: Voxels) => Array.from(voxels as ArrayLike<bigint>, Number);

describe.each(cases)('%s', (_name, make) => {
  it('numericVoxels() rounds each value to the nearest number', () => {
    const voxels = make();
    const expected = numbersOf(voxels);
    const numbers = numericVoxels(voxels);
    expect(numbers).toBeInstanceOf(Float64Array);
    expect(Array.from(numbers)).toEqual(expected);
    expect(numbersOf(voxels)).toEqual(expected);
  });

  it('takeNumericVoxels() gives the same in the same memory', () => {
    const voxels = make();
    const expected = numbersOf(voxels);
    const { buffer, byteOffset } = voxels;
    const numbers = takeNumericVoxels(voxels);
    expect(Array.from(numbers)).toEqual(expected);
    expect([numbers.buffer, numbers.byteOffset]).toEqual([buffer, byteOffset]);
  });

  it('copyNumbers() fills floats', () => {
    const voxels = make();
    const floats = new Float32Array(voxels.length);
    copyNumbers(voxels, floats);
    expect(Array.from(floats)).toEqual(numbersOf(voxels).map(Math.fround));
  });
});

describe('numericVoxels(), takeNumericVoxels()', () => {
  it('leave all other types as they are', () => {
    for (const voxels of [
      Int16Array.of(-1, 2),
      Float32Array.of(0.5),
      Float64Array.of(1e300),
      Uint8Array.of(9),
    ]) {
      expect(numericVoxels(voxels)).toBe(voxels);
      expect(takeNumericVoxels(voxels)).toBe(voxels);
    }
  });

  it('take no more memory than the numbers', () => {
    const voxels = new BigInt64Array(4_000_000).fill(-5n);
    const before = process.memoryUsage();
    const numbers = numericVoxels(voxels);
    const after = process.memoryUsage();
    expect(numbers[3_999_999]).toBe(-5);
    const grownBytes = after.arrayBuffers - before.arrayBuffers + after.heapTotal - before.heapTotal;
    // An array of bigints in between took 64 bytes a voxel.
    expect(grownBytes).toBeLessThan(16 * voxels.length);
  });
});
