import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Grid } from '../volume.ts';
import {
  applyAffine,
  composeAffine,
  determinant,
  identity,
  orientationOf,
  spacingOf,
  type Vec3,
} from './affine.ts';
import { allOrientations, oblique, rotation } from './fixtures.ts';
import {
  centerCrop,
  checkGrid,
  corners,
  cropGrid,
  divisibleSize,
  flippedGrid,
  indexMap,
  inverseAffine,
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

  it('refuses letters that are not an orientation', () => {
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

  it('keeps the first centre or aligns n / 2 as MONAI does after a rounded affine', () => {
    // Affines of NIfTI files in float32, and what Spacingd of MONAI 1.6.1 made of them for 1.5 × 1.5 × 2 mm.
    const rotated: Grid = {
      size: [180, 135, 26],
      affine: [
        1.7683253288269043, -0.19018881022930145, 0.1963866502046585, -144.76532430946827,
        0.17588849365711212, 1.957372784614563, -0.08644312620162964, 16.036576822400093,
        -0.11315078288316727, 0.0703810602426529, 2.9347665309906006, 105.99681111425161, 0, 0, 0, 1,
      ],
    };
    const centred = spacedGrid(rotated, [1.5, 1.5, 2]);
    expect(centred.size).toEqual([213, 177, 38]);
    [-144.2511277354673, 16.158796919372207, 106.22047980148825].forEach((mm, axis) => {
      expect(centred.affine[4 * axis + 3]).toBeCloseTo(mm, 5);
    });
    const inPlane: Grid = {
      size: [150, 120, 22],
      affine: [
        2.1836016178131104, -0.26811257004737854, 0, -143.1819581091404, 0.26811257004737854,
        2.1836016178131104, 0, 11.42031642794609, 0, 0, 4, 95.8017578125, 0, 0, 0, 1,
      ],
    };
    const kept = spacedGrid(inPlane, [1.5, 1.5, 2]);
    expect(kept.size).toEqual([220, 176, 43]);
    expect(applyAffine(kept.affine, [0, 0, 0])).toEqual([
      -143.1819581091404, 11.42031642794609, 95.8017578125,
    ]);
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

  it('keeps the spacing of an axis that is given none', () => {
    for (const none of [0, -1]) {
      const to = spacedGrid(grid, [none, 1.6, none]);
      // (5 - 1) / 2 + 1
      expect(to.size).toEqual([7, 3, 6]);
      spacingOf(to.affine).forEach((mm, axis) => {
        expect(mm).toBeCloseTo([1.2, 1.6, 2.5][axis], 9);
      });
    }
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

describe('spacedGrid() along each axis', () => {
  const at = (spacing: Vec3, size: Vec3): Grid => ({
    size,
    affine: composeAffine(spacing, rotation(0, 0, 0), [1, 2, 3]),
  });

  it.each([
    // round((n - 1) * old / new + 1): 9.4, 5.5 and 6.5 to even.
    [[0.84, 4.5, 11] as Vec3, [11, 10, 2] as Vec3, [1, 9, 2] as Vec3, [9, 6, 6]],
    // 2.50005 and 2.49995 count as halves, 2.5002 does not.
    [[1.50005, 1.49995, 1.5002] as Vec3, [2, 2, 2] as Vec3, [1, 1, 1] as Vec3, [2, 2, 3]],
    [[1, 1, 1] as Vec3, [1, 2, 3] as Vec3, [50, 50, 50] as Vec3, [1, 1, 1]],
  ])('of %j mm and %j voxels to %j mm', (old, size, mm, expected) => {
    const to = spacedGrid(at(old, size), mm);
    expect(to.size).toEqual(expected);
    expect(applyAffine(to.affine, [0, 0, 0])).toEqual([1, 2, 3]);
  });

  it('keeps the outer edge, and never has less than a voxel', () => {
    // round(n * old / new): 5 * 0.5 and 3 * 0.5 to even, 0.04 to 1.
    const from = at([1, 1, 1], [5, 3, 2]);
    const to = spacedGrid(from, [2, 2, 50], { scaleExtent: true });
    expect(to.size).toEqual([2, 2, 1]);
    // First centres lie half of the difference further in.
    expect(applyAffine(to.affine, [0, 0, 0])).toEqual([1.5, 2.5, 3 + 24.5]);
    expect(spacedGrid(from, [0, 0, 0], { scaleExtent: true })).toEqual({
      size: [5, 3, 2],
      affine: from.affine.map((v) => v + 0),
    });
    expect(spacedGrid(from, [2, 2, 50], { scaleExtent: false }).affine[3]).toBe(1);
  });

  it('refuses more voxels than a grid may have', () => {
    expect(() => spacedGrid(at([1, 1, 1], [100, 100, 100]), [0.01, 0.01, 0.01])).toThrow(/too large/);
  });
});

describe('resizedGrid()', () => {
  it('has the affine that follows by hand', () => {
    const from: Grid = { size: [4, 3, 10], affine: [2, 0, 0, 10, 0, 1, 0, 20, 0, 0, 3, 30, 0, 0, 0, 1] };
    // Voxels of 1, 3 and 6 mm; the outer edges at 9, 19.5 and 28.5 stay.
    expect(resizedGrid(from, [8, 1, 5])).toEqual({
      size: [8, 1, 5],
      affine: [1, 0, 0, 9.5, 0, 3, 0, 21, 0, 0, 6, 31.5, 0, 0, 0, 1],
    });
  });

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

describe('flippedGrid(), orientedGrid()', () => {
  it('reverse each axis by hand', () => {
    const from: Grid = { size: [3, 4, 5], affine: [2, 0, 0, 10, 0, -3, 0, 20, 1, 0, 4, 30, 0, 0, 0, 1] };
    const flipped = (...axes: ('x' | 'y' | 'z')[]) => flippedGrid(from, axes);
    expect(flipped()).toEqual(from);
    expect(flipped('x').affine).toEqual([-2, 0, 0, 14, -0, -3, 0, 20, -1, 0, 4, 32, 0, 0, 0, 1]);
    expect(flipped('y').affine).toEqual([2, -0, 0, 10, 0, 3, 0, 11, 1, -0, 4, 30, 0, 0, 0, 1]);
    expect(flipped('z').affine).toEqual([2, 0, -0, 10, 0, -3, -0, 20, 1, 0, -4, 46, 0, 0, 0, 1]);
    // The first axis is to become the one upwards, reversed; then to the left, then to the front.
    expect(orientedGrid(from, 'ILA')).toEqual({
      size: [5, 3, 4],
      affine: [-0, -2, -0, 14, -0, -0, 3, 11, -4, -1, -0, 30 + 2 + 16, 0, 0, 0, 1],
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
    expect(centerCrop({ size: [9, 8, 7], affine: oblique }, [9, 5, 2])).toEqual({
      start: [0, 2, 2],
      size: [9, 5, 2],
    });
    expect(padAround({ size: [9, 8, 7], affine: oblique }, [9, 13, 8])).toEqual({
      start: [0, -2, 0],
      size: [9, 13, 8],
    });
    for (const method of ['symmetric', 'end'] as const)
      expect(padAround(of(7), [10, 8, 12], method).start).toEqual(method === 'end' ? [0, 0, 0] : [-1, 0, -2]);
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

  const at = (spacing: Vec3, origin: Vec3): Grid => ({
    size: [7, 5, 6],
    affine: composeAffine(spacing, rotation(0.3, -0.4, 0.5), origin),
  });

  // A micrometre, or a fiftieth of the finest spacing: 0.2 µm for 0.01 mm.
  it.each([
    [[1.2, 0.8, 2.5], 0, true],
    [[1.2, 0.8, 2.5], 0.0009, true],
    [[1.2, 0.8, 2.5], 0.0011, false],
    [[1.2, 0.8, 2.5], 0.01, false],
    [[1.2, 0.8, 2.5], 0.7, false],
    [[1.2, 0.8, 2.5], 4, false],
    [[0.05, 0.8, 2.5], 0.0009, true],
    [[0.01, 0.8, 2.5], 0.00019, true],
    [[0.01, 0.8, 2.5], 0.00021, false],
    [[1.2, 0.01, 2.5], 0.00021, false],
    [[1.2, 0.8, 0.01], 0.00021, false],
  ] as [Vec3, number, boolean][])('of %j mm, %d mm apart: %s', (spacing, mm, expected) => {
    const grid = at(spacing, [10, -20, 30]);
    for (const axis of [0, 1, 2]) {
      for (const sign of [1, -1]) {
        const origin = [10, -20, 30].map((v, i) => (i === axis ? v + sign * mm : v));
        const other = at(spacing, [origin[0], origin[1], origin[2]]);
        expect([sameGrid(grid, other), sameGrid(other, grid)]).toEqual([expected, expected]);
      }
    }
  });

  it('sees a spacing that only shows at the far corner', () => {
    // 1e-4 mm a voxel are 6e-4 mm after 6 voxels; 3e-4 mm are 1.8e-3 mm.
    for (const axis of [0, 1, 2]) {
      const moved = (mm: number) =>
        at([1.2, 0.8, 2.5].map((v, i) => (i === axis ? v + mm : v)) as unknown as Vec3, [10, -20, 30]);
      expect(sameGrid(at([1.2, 0.8, 2.5], [10, -20, 30]), moved(1e-4))).toBe(true);
      expect(sameGrid(at([1.2, 0.8, 2.5], [10, -20, 30]), moved(3e-4))).toBe(false);
    }
  });
});

describe('corners()', () => {
  const from: Grid = { size: [3, 4, 5], affine: [2, 0, 0, 10, 0, -3, 0, 20, 1, 0, 4, 30, 0, 0, 0, 1] };

  it('are the centres of the outermost voxels, x fastest, or their edges', () => {
    expect(corners(from)).toEqual([
      [10, 20, 30],
      [14, 20, 32],
      [10, 11, 30],
      [14, 11, 32],
      [10, 20, 46],
      [14, 20, 48],
      [10, 11, 46],
      [14, 11, 48],
    ]);
    expect(corners(from, 'centers')).toEqual(corners(from));
    const edges = corners(from, 'edges');
    expect(edges).toHaveLength(8);
    expect(edges[0]).toEqual([9, 21.5, 27.5]);
    expect(edges[7]).toEqual([15, 9.5, 50.5]);
  });
});

describe('indexMap()', () => {
  const from: Grid = { size: [3, 4, 5], affine: [2, 0, 0, 10, 0, -4, 0, 20, 0, 0, 0.5, 30, 0, 0, 0, 1] };

  it('takes voxels of one grid to those of another', () => {
    const to: Grid = { size: [3, 4, 5], affine: [0, 3, 0, 14, 2, 0, 0, 12, 0, 0, 1, 31, 0, 0, 0, 1] };
    expect(indexMap(from, to)).toEqual([0, 1.5, 0, 2, -0.5, 0, 0, 2, 0, 0, 2, 2, 0, 0, 0, 1]);
  });

  it('rounds values within 1e-9 of an integer, never to negative zero', () => {
    const map = (off: number) =>
      indexMap(
        { size: [1, 1, 1], affine: identity },
        { size: [1, 1, 1], affine: identity.map((v, i) => (i < 12 ? v + off : v)) },
      );
    for (const off of [9e-10, -9e-10]) expect(map(off)).toEqual([...identity]);
    for (const off of [2e-9, -2e-9]) expect(map(off)).toEqual(identity.map((v, i) => (i < 12 ? v + off : v)));
    expect(Object.is(map(-9e-10)[1], 0)).toBe(true);
  });
});

describe('inverseAffine()', () => {
  it.each([
    ['zeros', identity.map(() => 0)],
    ['two equal columns', [1, 1, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]],
    ['twelve numbers', identity.slice(0, 12)],
    ['seventeen numbers', [...identity, 0]],
    ['an origin that is not a number', identity.map((v, i) => (i === 7 ? Number.NaN : v))],
    ['an infinite origin', identity.map((v, i) => (i === 3 ? Number.POSITIVE_INFINITY : v))],
    ['a spacing that has no reciprocal', identity.map((v, i) => (i === 0 ? 5e-324 : v))],
  ])('refuses %s', (_, affine) => {
    expect(() => inverseAffine(affine)).toThrow(
      expect.objectContaining({ code: 'BAD_INPUT', message: expect.stringContaining('singular') }),
    );
    expect(() => orientedGrid({ size: [1, 1, 1], affine }, 'RAS')).toThrow(/singular/);
  });
});

describe('checkGrid()', () => {
  it('takes up to 2^30 voxels', () => {
    const full: Grid = { size: [1024, 2048, 512], affine: oblique };
    expect(checkGrid(full)).toBe(full);
    expect(checkGrid({ size: [1, 1, 1], affine: oblique }).size).toEqual([1, 1, 1]);
    for (const size of [
      [1025, 2048, 512],
      [1024, 2049, 512],
      [1024, 2048, 513],
      [2 ** 30 + 1, 1, 1],
      [1, 2 ** 30 + 1, 1],
      [1, 1, 2 ** 30 + 1],
    ] as [number, number, number][])
      expect(() => checkGrid({ size, affine: oblique })).toThrow(
        expect.objectContaining({ code: 'TOO_MANY_VOXELS', message: expect.stringContaining('1073741824') }),
      );
  });

  it.each([
    [[2, 2]],
    [[2, 2, 2, 1]],
    [[0, 2, 2]],
    [[2, -1, 2]],
    [[2, 2, 0.5]],
    [[2, Number.NaN, 2]],
    [[2, 2 ** 53, 2]],
  ])('refuses a size of %j', (size) => {
    expect(() => checkGrid({ size: size as unknown as [number, number, number], affine: oblique })).toThrow(
      expect.objectContaining({ code: 'BAD_INPUT', message: expect.stringContaining(size.join(' × ')) }),
    );
  });

  it('says no before anything is allocated', () => {
    expect(() => checkGrid({ size: [100_000, 100_000, 100_000], affine: oblique })).toThrow(/too large/);
    expect(() => checkGrid({ size: [1, 0, 1], affine: oblique })).toThrow(/at least 1/);
    expect(() => checkGrid({ size: [1, 1.5, 1], affine: oblique })).toThrow(/whole/);
    expect(() => checkGrid({ size: [1, 1, 1], affine: oblique.map(() => 0) })).toThrow(/singular/);
    expect(() => checkGrid({ size: [1, 1, 1], affine: oblique.map(() => Number.NaN) })).toThrow(/singular/);
    expect(() => resizedGrid(grid, [1e6, 1e6, 1])).toThrow(/too large/);
  });
});
