import { describe, expect, it } from 'vitest';
import type { Volume } from '../volume.ts';
import { meanIntensities, withMeanIntensity } from './intensity.ts';
import { measureLabels } from './measure.ts';

/** Oblique, left-handed, 0.8 × 1.5 × 2.5 mm. */
const affine = [-0.64, 0.9, 0, 12, 0.48, 1.2, 0, -7, 0, 0, 2.5, 30, 0, 0, 0, 1];
const grid = { size: [7, 5, 4] as const, components: 1, affine };
const indices = Array.from({ length: 140 }, (_, i) => i);
/** 0, 1, 3, 4, 5 and 9: the squares modulo 11. */
const labelMap: Volume = { ...grid, voxels: Uint8Array.from(indices, (i) => (i * i) % 11) };
const values = indices.map((i) => ((i * 7919) % 2003) - 1000);
const scan: Volume = { ...grid, voxels: Int16Array.from(values) };

/** By scipy 1.17.1, ndimage.mean() of the same arrays. */
const expected = new Map([
  [1, 224.16],
  [3, -99.73076923076923],
  [4, 60.2],
  [5, -99.73076923076923],
  [9, -103.76],
]);

describe('meanIntensities()', () => {
  it('equals scipy for every label', () => {
    const means = meanIntensities(labelMap, scan);
    expect([...means.keys()].sort((a, b) => a - b)).toEqual([...expected.keys()]);
    for (const [label, mean] of expected) expect(means.get(label)).toBeCloseTo(mean, 10);
  });

  it('leaves out values that are not finite, and labels without others', () => {
    const voxels = Float32Array.from(values, (value) => value / 7);
    voxels[1] = voxels[2] = Number.NaN;
    voxels[5] = Number.POSITIVE_INFINITY;
    for (const i of indices) if ((i * i) % 11 === 9) voxels[i] = Number.NaN;
    const means = meanIntensities(labelMap, { ...scan, voxels });
    // By scipy, of the finite values.
    expect([...means].sort(([a], [b]) => a - b)).toEqual([
      [1, expect.closeTo(27.940475806593895, 10)],
      [3, expect.closeTo(-17.891428604125977, 10)],
      [4, expect.closeTo(4.095237794021766, 10)],
      [5, expect.closeTo(-14.24725290445181, 10)],
    ]);
  });

  it('reads 64-bit integers as the numbers they are', () => {
    const voxels = BigInt64Array.from(values, BigInt);
    expect(meanIntensities(labelMap, { ...scan, voxels })).toEqual(meanIntensities(labelMap, scan));
  });

  it('refuses a scan on another grid, or with several components', () => {
    const moved = { ...scan, affine: affine.map((v, i) => (i === 3 ? v + 0.1 : v)) };
    expect(() => meanIntensities(labelMap, moved)).toThrow('different grids');
    const turned: Volume = { ...scan, size: [5, 7, 4] };
    expect(() => meanIntensities(labelMap, turned)).toThrow('7×5×4 and 5×7×4 voxels');
    const colours: Volume = { ...scan, components: 3, voxels: new Uint8Array(420) };
    expect(() => meanIntensities(labelMap, colours)).toThrow('3 components');
  });
});

describe('withMeanIntensity()', () => {
  it('adds the mean to labels that have voxels', () => {
    const rows = withMeanIntensity(measureLabels(labelMap, [{ value: 2, name: 'none' }]), labelMap, scan);
    expect(rows.map(({ value, meanIntensity }) => [value, meanIntensity])).toEqual([
      [2, undefined],
      ...[...expected].map(([value, mean]) => [value, expect.closeTo(mean, 10)]),
    ]);
    expect(Object.keys(rows[0])).not.toContain('meanIntensity');
  });
});
