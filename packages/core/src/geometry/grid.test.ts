import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Grid } from '../volume.ts';
import { applyAffine, composeAffine, determinant, orientationOf, spacingOf, type Vec3 } from './affine.ts';
import { allOrientations, oblique, rotation } from './fixtures.ts';
import {
  centerCrop,
  checkGrid,
  corners,
  cropGrid,
  divisibleSize,
  flippedGrid,
  orientedGrid,
  padAround,
  resizedGrid,
  sameGrid,
  spacedGrid,
} from './grid.ts';

const grid: Grid = { size: [7, 5, 6], affine: oblique };
const sorted = (points: readonly Vec3[]) => points.map((p) => p.map((v) => v.toFixed(6)).join(' ')).sort();

describe('orientedGrid()', () => {
  it('reaches all 48 orientations with the same corners in the world', () => {
    expect(new Set(allOrientations).size).toBe(48);
    for (const axcodes of allOrientations) {
      const to = orientedGrid(grid, axcodes);
      expect(orientationOf(to.affine)).toBe(axcodes);
      expect(sorted(corners(to))).toEqual(sorted(corners(grid)));
      expect(Math.abs(determinant(to.affine))).toBeCloseTo(1.2 * 0.8 * 2.5, 9);
    }
  });

  it('refuses letters that are no orientation', () => {
    for (const bad of ['', 'RA', 'RRS', 'RLA', 'XYZ', 'ras']) {
      expect(() => orientedGrid(grid, bad)).toThrow(/orientation/);
    }
  });
});

describe('spacedGrid()', () => {
  it('has the size and first centre of MONAI’s compute_shape_offset', () => {
    // Sizes by numpy: np.round((n - 1) * old / new + 1).
    const from: Grid = {
      size: [7, 5, 6],
      affine: composeAffine([1.2, 0.8, 2.5], rotation(0.1, 0.2, 0.3), [1, 2, 3]),
    };
    const to = spacedGrid(from, [1, 2, -1]);
    expect(to.size).toEqual([8, 3, 6]);
    spacingOf(to.affine).forEach((mm, axis) => {
      expect(mm).toBeCloseTo([1, 2, 2.5][axis], 9);
    });
    expect(applyAffine(to.affine, [0, 0, 0])).toEqual([1, 2, 3]);
  });

  it('rounds halves to even, as numpy, in spite of float32 spacings', () => {
    const mm = Math.fround(0.3);
    const half = (n: number) =>
      spacedGrid(
        { size: [n, 1, 1], affine: composeAffine([mm, 1, 1], rotation(0, 0, 0), [0, 0, 0]) },
        [0.6, 1, 1],
      ).size[0];
    // (n − 1) / 2 + 1 = 2.5, 3.5, 4.5
    expect([half(4), half(6), half(8)]).toEqual([2, 4, 4]);
  });

  it('keeps the outer edge of the first voxel with scaleExtent', () => {
    const to = spacedGrid(grid, [2.4, 2.4, 1], { scaleExtent: true });
    expect(to.size).toEqual([4, 2, 15]);
    const edge = applyAffine(to.affine, [-0.5, -0.5, -0.5]);
    const before = applyAffine(grid.affine, [-0.5, -0.5, -0.5]);
    edge.forEach((v, axis) => {
      expect(v).toBeCloseTo(before[axis], 9);
    });
  });
});

describe('resizedGrid()', () => {
  it('keeps the field of view', () => {
    fc.assert(
      fc.property(
        fc.tuple(
          fc.integer({ min: 1, max: 20 }),
          fc.integer({ min: 1, max: 20 }),
          fc.integer({ min: 1, max: 20 }),
        ),
        (size) => {
          const a = corners(grid, 'edges');
          const b = corners(resizedGrid(grid, size), 'edges');
          for (let i = 0; i < 8; i++) for (let k = 0; k < 3; k++) expect(b[i][k]).toBeCloseTo(a[i][k], 8);
        },
      ),
      { numRuns: 50 },
    );
  });
});

describe('cropGrid()', () => {
  it('puts a voxel where it was, for negative starts too', () => {
    const to = cropGrid(grid, [-3, 2, 1], [9, 2, 4]);
    const there = applyAffine(grid.affine, [1, 3, 3]);
    applyAffine(to.affine, [4, 1, 2]).forEach((v, k) => {
      expect(v).toBeCloseTo(there[k], 9);
    });
  });
});

describe('flippedGrid()', () => {
  it('names voxels from the other end', () => {
    const to = flippedGrid(grid, ['x', 'z']);
    applyAffine(to.affine, [1, 2, 0]).forEach((v, axis) => {
      expect(v).toBeCloseTo(applyAffine(grid.affine, [5, 2, 5])[axis], 9);
    });
  });
});

describe('centerCrop(), padAround(), divisibleSize()', () => {
  it('follow MONAI’s rounding', () => {
    const of = (n: number): Grid => ({ size: [n, n, n], affine: oblique });
    // CenterSpatialCrop: start = n // 2 − roi // 2.
    expect(centerCrop(of(7), [4, 3, 9])).toEqual({ start: [1, 2, 0], size: [4, 3, 7] });
    expect(centerCrop(of(8), [3, 5, 8])).toEqual({ start: [3, 2, 0], size: [3, 5, 8] });
    // SpatialPad: (new − n) // 2 before.
    expect(padAround(of(7), [10, 8, 3])).toEqual({ start: [-1, 0, 0], size: [10, 8, 7] });
    expect(padAround(of(7), [10, 8, 3], 'end')).toEqual({ start: [0, 0, 0], size: [10, 8, 7] });
    expect(divisibleSize([7, 16, 17], 16)).toEqual([16, 16, 32]);
    expect(divisibleSize([7, 16, 17], [1, 3, 4])).toEqual([7, 18, 20]);
  });
});

describe('sameGrid()', () => {
  it('sees a rotation that only shows at the far corner', () => {
    const big: Grid = {
      size: [500, 400, 300],
      affine: composeAffine([1, 1, 1], rotation(0, 0, 0), [0, 0, 0]),
    };
    const turned = { ...big, affine: composeAffine([1, 1, 1], rotation(0, 0, 1e-4), [0, 0, 0]) };
    expect(sameGrid(big, turned, 0.01)).toBe(false);
    expect(sameGrid(big, turned, 0.1)).toBe(true);
    expect(sameGrid(big, { ...big, size: [500, 400, 299] }, 1e9)).toBe(false);
  });
});

describe('checkGrid()', () => {
  it('says no before anything is allocated', () => {
    expect(() => checkGrid({ size: [100_000, 100_000, 100_000], affine: oblique })).toThrow(/too large/);
    expect(() => checkGrid({ size: [1, 0, 1], affine: oblique })).toThrow(/at least 1/);
    expect(() => checkGrid({ size: [1, 1.5, 1], affine: oblique })).toThrow(/whole/);
    expect(() => checkGrid({ size: [1, 1, 1], affine: oblique.map(() => 0) })).toThrow(/singular/);
    expect(() => checkGrid({ size: [1, 1, 1], affine: oblique.map(() => Number.NaN) })).toThrow(/singular/);
    expect(() => resizedGrid(grid, [1e6, 1e6, 1])).toThrow(/too large/);
  });
});
