import { describe, expect, it } from 'vitest';
import { createNumbers } from '../geometry/fixtures.ts';
import { createVoxels, type Size, type Volume, type Voxels, type VoxelType, voxelTypes } from '../volume.ts';
import {
  copyOf,
  holdsLabel,
  type LabelVoxels,
  labelTypeFor,
  labelVoxels,
  roundLabels,
  scanLabels,
  setLabel,
} from './label-map.ts';

const affine = [0, -0.7, 0.1, 3, 1.1, 0, 0, -4, 0, 0.2, 2.3, 5, 0, 0, 0, 1];
const volumeOf = (voxels: Voxels, components = 1): Volume => ({
  voxels,
  size: [voxels.length / components, 1, 1],
  components,
  affine,
});
const badInput = (message: RegExp) =>
  expect.objectContaining({ code: 'BAD_INPUT', message: expect.stringMatching(message) });

describe('labelVoxels()', () => {
  it.each([
    Uint8Array.of(0, 255),
    Int8Array.of(-128, 127),
    Uint16Array.of(0, 65535),
    Int16Array.of(-32768, 32767),
    Int32Array.of(-2147483648, 2147483647),
    Uint32Array.of(0, 2147483647),
  ])('gives integers as they are: %o', (voxels) => {
    expect(labelVoxels(volumeOf(voxels))).toBe(voxels);
  });

  it.each([
    Float32Array.of(-2, 0, 16777216),
    Float64Array.of(-2147483648, 0, 2147483647),
    BigInt64Array.of(-2147483648n, 0n, 2147483647n),
    BigUint64Array.of(2147483647n, 0n, 5n),
  ])('copies floats and 64-bit integers to int32: %o', (voxels) => {
    expect(labelVoxels(volumeOf(voxels))).toEqual(Int32Array.from(voxels as Float32Array, Number));
  });

  it.each([
    [Uint32Array.of(7, 2147483648), /2147483648/],
    [Float32Array.of(0.5, 1), /0\.5/],
    [Float32Array.of(1, Number.NaN), /NaN/],
    [Float64Array.of(1, Number.POSITIVE_INFINITY), /Infinity/],
    [Float64Array.of(1, 2147483648), /2147483648/],
    [BigInt64Array.of(1n, -2147483649n), /-2147483649/],
    [BigUint64Array.of(1n, 4294967297n), /4294967297/],
  ])('refuses values that are not labels: %o', (voxels, message) => {
    expect(() => labelVoxels(volumeOf(voxels))).toThrow(badInput(message));
  });

  it('refuses several components', () => {
    expect(() => labelVoxels(volumeOf(Uint8Array.of(1, 2), 2))).toThrow(badInput(/has 2\. Take/));
  });
});

describe('copyOf()', () => {
  it('copies the voxels and keeps type and grid', () => {
    const volume = volumeOf(Int16Array.of(3, -4));
    const { result, voxels } = copyOf(volume);
    expect(result).toEqual(volume);
    expect(result.voxels).toBe(voxels);
    voxels[0] = 9;
    expect(volume.voxels[0]).toBe(3);
  });
});

describe('setLabel()', () => {
  it.each(voxelTypes)('writes one voxel of %s', (type) => {
    const voxels = createVoxels(type, 3);
    setLabel(voxels, 1, 77);
    expect([...voxels].map(Number)).toEqual([0, 77, 0]);
  });
});

describe('labelTypeFor()', () => {
  it.each([
    [[], 'uint8'],
    [[7], 'uint8'],
    [[255, 0, 3], 'uint8'],
    [[256], 'uint16'],
    [[3, 65535], 'uint16'],
    [[65536], 'int32'],
    [[-1], 'int16'],
    [[-32768, 32767], 'int16'],
    [[-1, 32768], 'int32'],
    [[-32769], 'int32'],
    [[-2147483648, 2147483647], 'int32'],
  ] as [number[], VoxelType][])('is the smallest type that holds %j', (values, type) => {
    expect(labelTypeFor(new Set(values))).toBe(type);
  });

  it.each([
    [[1, 2147483648], /value 2147483648/],
    [[-2147483649, 1], /value -2147483649/],
    [[1.5], /value 1\.5/],
    [[Number.NaN], /value NaN/],
  ])('refuses %j', (values, message) => {
    expect(() => labelTypeFor(values)).toThrow(badInput(message));
  });
});

describe('holdsLabel()', () => {
  it.each([
    ['uint8', [0, 255], [-1, 256]],
    ['int8', [-128, 127], [-129, 128]],
    ['uint16', [0, 65535], [-1, 65536]],
    ['int16', [-32768, 32767], [-32769, 32768]],
    ['uint32', [0, 2147483647], [-1]],
    ['int32', [-2147483648, 2147483647], [2147483648]],
    ['uint64', [0, 2147483647], [-1, -2147483648]],
    ['int64', [-2147483648, 2147483647], []],
    ['float32', [16777216, -16777216], [16777217]],
    ['float64', [-2147483648, 2147483647], []],
  ] as [VoxelType, number[], number[]][])('knows what %s holds', (type, held, others) => {
    const voxels = createVoxels(type, 0);
    expect(held.filter((value) => !holdsLabel(voxels, value))).toEqual([]);
    expect(others.filter((value) => holdsLabel(voxels, value))).toEqual([]);
  });
});

/** Voxel by voxel. */
function bruteForce(voxels: LabelVoxels, [nx, ny]: Size) {
  const found = new Map<number, [x: number, y: number, z: number][]>();
  voxels.forEach((value, i) => {
    if (value === 0) return;
    const at: [number, number, number] = [i % nx, Math.floor(i / nx) % ny, Math.floor(i / (nx * ny))];
    found.set(value, [...(found.get(value) ?? []), at]);
  });
  return [...found]
    .sort(([a], [b]) => a - b)
    .map(([value, places]) => {
      const along = [0, 1, 2].map((k) => places.map((place) => place[k]));
      const min = along.map((all) => Math.min(...all));
      const max = along.map((all) => Math.max(...all));
      const sum = along.map((all) => all.reduce((a, b) => a + b));
      return [value, { voxels: places.length, sum, box: { min, max } }];
    });
}

describe('scanLabels()', () => {
  it('counts, sums and bounds one label, by hand', () => {
    const voxels = new Int16Array(7 * 5 * 3);
    // -1 is the first voxel and the last of the first row; 4 a run of three; both once more.
    for (const [x, y, z, value] of [
      [0, 0, 0, -1],
      [6, 0, 0, -1],
      [2, 1, 1, 4],
      [3, 1, 1, 4],
      [4, 1, 1, 4],
      [1, 3, 2, 4],
      [5, 4, 2, -1],
    ])
      voxels[(z * 5 + y) * 7 + x] = value;
    expect([...scanLabels(voxels, [7, 5, 3])]).toEqual([
      [-1, { voxels: 3, sum: [11, 4, 2], box: { min: [0, 0, 0], max: [6, 4, 2] } }],
      [4, { voxels: 4, sum: [10, 6, 5], box: { min: [1, 1, 1], max: [4, 3, 2] } }],
    ]);
  });

  it.each([
    [1, [7, 5, 3]],
    [3, [1, 6, 9]],
    [16, [11, 7, 5]],
    [17, [11, 7, 5]],
    [90, [13, 11, 4]],
  ] as [number, Size][])('finds %i labels as voxel by voxel', (labels, size) => {
    const next = createNumbers(7);
    const voxels = Int32Array.from({ length: size[0] * size[1] * size[2] }, (_, i) => {
      const label = (next() >>> 16) % (labels + 1);
      return label === 0 || i % 5 === 4 ? 0 : label * 1000 - 3500;
    });
    expect([...scanLabels(voxels, size)]).toEqual(bruteForce(voxels, size));
  });

  it('finds nothing in background', () => {
    expect(scanLabels(new Uint8Array(24), [2, 3, 4]).size).toBe(0);
  });
});

describe('roundLabels()', () => {
  it('rounds fractions as numpy.round does, and counts them', () => {
    const { labels, fractional } = roundLabels(volumeOf(Float32Array.of(0.5, 1.5, 2.5, 1.49, 3, 0)));
    expect([...(labels.voxels as Float32Array)]).toEqual([0, 2, 2, 1, 3, 0]);
    expect(fractional).toBe(4);
  });

  it('returns whole numbers as they are', () => {
    for (const voxels of [Float64Array.of(0, 1, 2, 3, 4, 5), Uint8Array.of(0, 1, 2, 3, 4, 5)]) {
      const given = volumeOf(voxels);
      expect(roundLabels(given)).toEqual({ labels: given, fractional: 0 });
    }
  });
});
