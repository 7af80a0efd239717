import { describe, expect, it } from 'vitest';
import { oblique } from '../geometry/fixtures.ts';
import { createVoxels, type Size, type Volume, voxelTypeOf } from '../volume.ts';
import { antiAliasSigma, finiteFloat32, gaussianFilter, medianFilter } from './filters.ts';

const volumeOf = (voxels: Volume['voxels'], size: Size, components = 1): Volume => ({
  voxels,
  size,
  components,
  affine: oblique,
});

describe('finiteFloat32()', () => {
  it.each(['uint8', 'int16', 'uint32', 'float32', 'float64'] as const)('copies %s', (type) => {
    const voxels = createVoxels(type, 4) as Float64Array;
    voxels.set([1, 0, 7, 100]);
    const out = finiteFloat32(voxels);
    expect(out).toEqual(Float32Array.of(1, 0, 7, 100));
    expect(out).not.toBe(voxels);
  });

  it('copies integers of 64 bits', () => {
    expect(finiteFloat32(BigInt64Array.of(-5n, 3n))).toEqual(Float32Array.of(-5, 3));
    expect(finiteFloat32(BigUint64Array.of(5n, 3n))).toEqual(Float32Array.of(5, 3));
  });

  it('puts 0 where float32 holds no finite number', () => {
    const voxels = [Number.NaN, 1.5, Infinity, -Infinity, -2, Number.NaN];
    expect(finiteFloat32(Float32Array.from(voxels))).toEqual(Float32Array.of(0, 1.5, 0, 0, -2, 0));
    expect(finiteFloat32(Float64Array.from([1e300, ...voxels]))).toEqual(
      Float32Array.of(0, 0, 1.5, 0, 0, -2, 0),
    );
  });
});

describe('gaussianFilter()', () => {
  // exp(−k² / 2) for k = 0 … 4, over their sum on both sides, 2.5066208.
  const weights = [0.3989435, 0.2419714, 0.0539911, 0.0044319, 0.0001338];

  it.each([0, 1, 2])('spreads a voxel along axis %i alone, four sigma to each side', (axis) => {
    const size: Size = [11, 12, 13];
    const count = 11 * 12 * 13;
    const at = ([x, y, z]: readonly number[], component: number) => ((component * 13 + z) * 12 + y) * 11 + x;
    const places = [
      [5, 4, 6],
      [4, 5, 7],
    ];
    const voxels = new Int16Array(2 * count);
    const expected = new Float32Array(2 * count);
    for (const [component, place] of places.entries()) {
      const height = 1000 * (component + 1);
      voxels[at(place, component)] = height;
      for (let k = -4; k <= 4; k++) {
        const there = place.map((v, i) => (i === axis ? v + k : v));
        expected[at(there, component)] = height * weights[Math.abs(k)];
      }
    }
    const volume = volumeOf(voxels, size, 2);
    const out = gaussianFilter(volume, [axis === 0 ? 1 : 0, axis === 1 ? 1 : 0, axis === 2 ? 1 : 0]);
    expect(out).toMatchObject({ size, components: 2, affine: oblique });
    expect(out.voxels).toBeInstanceOf(Float32Array);
    const worst = expected.reduce((most, v, i) => Math.max(most, Math.abs(v - Number(out.voxels[i]))), 0);
    expect(worst).toBeLessThan(2e-4);
  });

  it.each([0, 1, 2])('mirrors the border of axis %i with its edge repeated', (axis) => {
    const smooth = (...line: number[]) => {
      const size = [1, 1, 1].map((n, i) => (i === axis ? line.length : n)) as unknown as Size;
      const { voxels } = gaussianFilter(volumeOf(Float32Array.from(line), size), [1, 1, 1]);
      return [...(voxels as Float32Array)];
    };
    const near = (...numbers: number[]) => numbers.map((v) => expect.closeTo(v, 5));
    const [w0, w1, w2, w3, w4] = weights;
    expect(smooth(7)).toEqual(near(7));
    // a b | b a a b b a a b …: the first of two lies at −4, −1, 0, 3 and 4 from the first.
    const first = w4 + w1 + w0 + w3 + w4;
    expect(smooth(1, 0)).toEqual(near(first, 1 - first));
    // a b c: c c b a | a b c | c b a a.
    expect(smooth(1, 0, 0)).toEqual(near(w0 + w1, w2 + w1 + w4, 2 * w3 + w2 + w4));
    expect(smooth(0, 0, 1)).toEqual(near(2 * w3 + w2 + w4, w2 + w1 + w4, w0 + w1));
  });

  it('cuts off at four sigma, rounded to whole voxels', () => {
    const reach = (sigma: number) => {
      const voxels = new Float32Array(41);
      voxels[20] = 1;
      const out = gaussianFilter(volumeOf(voxels, [41, 1, 1]), [sigma, 0, 0]).voxels as Float32Array;
      return out.filter((v) => v > 0).length;
    };
    // floor(4 · sigma + 0.5) voxels to each side.
    expect([0.1, 0.125, 0.37, 0.375, 1.1, 1.2, 2].map(reach)).toEqual([1, 3, 3, 5, 9, 11, 17]);
  });

  it('copies voxels as float32 where sigma is 0, non-finite values as 0', () => {
    const voxels = Float32Array.of(1, Number.NaN, 3, Infinity);
    const out = gaussianFilter(volumeOf(voxels, [4, 1, 1]), [0, 0, 0]);
    expect(out.voxels).toEqual(Float32Array.of(1, 0, 3, 0));
    expect(voxels[0]).toBe(1);
    expect(gaussianFilter(volumeOf(voxels, [1, 4, 1]), [0, Number.NaN, -1]).voxels).toEqual(out.voxels);
  });
});

describe('antiAliasSigma()', () => {
  it('is half of what a factor is above 1, never negative', () => {
    expect(antiAliasSigma([1, 2, 7])).toEqual([0, 0.5, 3]);
    expect(antiAliasSigma([3, 0.5, 1.5])).toEqual([1, 0, 0.25]);
  });
});

describe('medianFilter()', () => {
  /** Reproducible whole numbers from 0 to 99. */
  const noise = (length: number) => Array.from({ length }, (_, i) => (i * i * 31 + i * 17 + (i >> 2)) % 100);

  /** By sorting the neighbours: those outside are the nearest ones inside. */
  function sorted({ voxels, size, components }: Volume, radius: number): number[] {
    const [nx, ny, nz] = size;
    const inside = (v: number, n: number) => Math.min(n - 1, Math.max(0, v));
    const offsets = Array.from({ length: 2 * radius + 1 }, (_, i) => i - radius);
    return Array.from({ length: components * nx * ny * nz }, (_, i) => {
      const [x, y, z] = [i % nx, Math.floor(i / nx) % ny, Math.floor(i / (nx * ny)) % nz];
      const component = Math.floor(i / (nx * ny * nz));
      const near = offsets.flatMap((dz) =>
        offsets.flatMap((dy) =>
          offsets.map((dx) => {
            const row = (component * nz + inside(z + dz, nz)) * ny + inside(y + dy, ny);
            return Number(voxels[row * nx + inside(x + dx, nx)]);
          }),
        ),
      );
      // A typed array sorts by value, NaN last.
      return Float64Array.from(near).sort()[(near.length - 1) / 2];
    });
  }

  it.each([
    ['int16', 1, [6, 5, 4], 2],
    ['uint8', 2, [5, 3, 7], 2],
    ['float32', 3, [4, 6, 2], 1],
    ['float64', 5, [3, 1, 2], 1],
  ] as const)('gives %s of radius %i what sorting gives', (type, radius, size, components) => {
    const voxels = createVoxels(type, size[0] * size[1] * size[2] * components) as Float64Array;
    voxels.set(noise(voxels.length));
    const volume = volumeOf(voxels, size, components);
    const out = medianFilter(volume, radius);
    expect(out).toMatchObject({ size, components, affine: oblique });
    expect(voxelTypeOf(out.voxels)).toBe(type);
    expect([...(out.voxels as Float64Array)]).toEqual(sorted(volume, radius));
    expect([...voxels]).toEqual(noise(voxels.length));
  });

  it('sorts NaN above all numbers', () => {
    const voxels = Float32Array.from(noise(120), (v, i) => (i % 3 === 0 || i > 70 ? Number.NaN : v));
    const volume = volumeOf(voxels, [6, 5, 4]);
    const expected = sorted(volume, 1);
    expect(new Set(expected.map(Number.isNaN)).size).toBe(2);
    expect([...(medianFilter(volume, 1).voxels as Float32Array)]).toEqual(expected);
  });

  it.each([
    [13, 14],
    [14, Number.NaN],
    [27, Number.NaN],
    [0, 14],
  ])('gives for %i NaN among 27 the median %f', (nans, median) => {
    // 14 is the largest number where 13 are NaN, and the middle of 1 … 27.
    for (const behind of [true, false]) {
      const numbers = Array.from({ length: 27 - nans }, (_, i) => i + 1);
      const none = Array.from({ length: nans }, () => Number.NaN);
      const voxels = Float32Array.from(behind ? [...numbers, ...none] : [...none, ...numbers]);
      expect(medianFilter(volumeOf(voxels, [3, 3, 3]), 1).voxels[13]).toBe(median);
    }
  });

  it.each([0, 6, -1, 1.5, Number.NaN])('refuses a radius of %f', (radius) => {
    expect(() => medianFilter(volumeOf(new Uint8Array(1), [1, 1, 1]), radius)).toThrow(
      expect.objectContaining({ code: 'BAD_INPUT', message: expect.stringContaining(`radius ${radius} `) }),
    );
  });

  it('refuses integers of 64 bits', () => {
    for (const voxels of [new BigInt64Array(1), new BigUint64Array(1)])
      expect(() => medianFilter(volumeOf(voxels, [1, 1, 1]), 1)).toThrow(
        expect.objectContaining({
          code: 'BAD_INPUT',
          message: expect.stringContaining('Convert the volume'),
        }),
      );
  });
});
