import { describe, expect, it } from 'vitest';
import type { Volume } from '../volume.ts';
import { applyAffine, determinant, directionOf, orientationOf, spacingOf, type Vec3 } from './affine.ts';
import { deriveCase, deriveGrids } from './derive-cases.ts';
import { reorient } from './exact.ts';
import { oblique } from './fixtures.ts';
import { corners, inverseAffine } from './grid.ts';

/** A linear function of the world position in RAS+ mm, which linear interpolation reproduces exactly. */
const ramp = ([x, y, z]: Vec3) => 0.7 * x - 1.3 * y + 2.1 * z + 5;

/** Left-handed, oblique, anisotropic, not cubic: 1.2 × 0.8 × 2.5 mm. */
const scan = volumeOf([50, 64, 26]);

function volumeOf(size: [number, number, number]): Volume {
  const voxels = new Float32Array(size[0] * size[1] * size[2]);
  let i = 0;
  for (let z = 0; z < size[2]; z++)
    for (let y = 0; y < size[1]; y++)
      for (let x = 0; x < size[0]; x++) voxels[i++] = ramp(applyAffine(oblique, [x, y, z]));
  return { voxels, size, components: 1, affine: oblique };
}

/** Degrees between the directions of two grids whose axes are in the same order. */
function angleBetween(a: readonly number[], b: readonly number[]): number {
  const [d, e] = [directionOf(a), directionOf(b)];
  const trace = d.reduce((sum, v, i) => sum + v * e[i], 0);
  return (Math.acos((trace - 1) / 2) * 180) / Math.PI;
}

describe('deriveGrids()', () => {
  const stored = orientationOf(oblique);
  const grids = deriveGrids(scan, { spacingMm: [1.5, 1.5, 2] });

  it('gives two grids with other orders and signs of the axes, one of the other handedness', () => {
    expect(stored).toBe('LAS');
    expect(grids.map(({ name, grid }) => [name, orientationOf(grid.affine)])).toEqual([
      ['axes', 'ILP'],
      ['oblique', 'ARI'],
    ]);
    expect(grids.map(({ grid }) => Math.sign(determinant(grid.affine)))).toEqual([-1, 1]);
    expect(Math.sign(determinant(oblique))).toBe(-1);
  });

  it('has 1.1 to 1.7 times the spacing of the network along its axes', () => {
    // ILP: the first axis is the network’s z (2 mm), the second its x, the third its y.
    expect(spacingOf(grids[0].grid.affine).map((mm) => mm.toFixed(3))).toEqual(['3.225', '1.698', '2.054']);
    // ARI: y, x, z.
    expect(spacingOf(grids[1].grid.affine).map((mm) => mm.toFixed(3))).toEqual(['1.968', '1.781', '2.943']);
  });

  it('rotates the second one by 7° against the scan', () => {
    const back = grids.map(({ grid }) =>
      reorient({ ...grid, voxels: new Uint8Array(0), components: 0 }, stored),
    );
    expect(angleBetween(back[0].affine, oblique)).toBeLessThan(1e-4);
    expect(angleBetween(back[1].affine, oblique)).toBeCloseTo(7, 6);
  });

  it('stays within the scan, and covers most of it', () => {
    for (const { grid } of grids) {
      const volume = spacingOf(grid.affine).reduce((a, b) => a * b) * grid.size.reduce((a, b) => a * b);
      expect(volume / (1.2 * 0.8 * 2.5 * 50 * 64 * 26)).toBeGreaterThan(0.5);
      const inverse = inverseAffine(oblique);
      for (const corner of corners(grid)) {
        // The corners of the rotated one may lie outside by a few voxels.
        for (const [k, v] of applyAffine(inverse, corner).entries()) {
          expect(v).toBeGreaterThan(-4);
          expect(v).toBeLessThan(scan.size[k] + 3);
        }
      }
    }
  });

  it('has no plane halfway between two of the scan', () => {
    const centre = applyAffine(oblique, [24.5, 31.5, 12.5]);
    for (const { grid } of grids) {
      const at = applyAffine(inverseAffine(grid.affine), centre);
      for (const v of at) expect(Math.abs(v * 2 - Math.round(v * 2))).toBeGreaterThan(0.1);
    }
  });

  it('keeps order and signs of the axes, and which spacing is the coarse one, for nnU-Net', () => {
    const kept = deriveGrids(scan, { spacingMm: [0.5, 0.5, 1.6], keepOrder: true });
    expect(kept.map(({ name, grid }) => [name, orientationOf(grid.affine)])).toEqual([
      ['spacing', stored],
      ['oblique', stored],
    ]);
    for (const { grid } of kept) {
      const [x, y, z] = spacingOf(grid.affine);
      expect(z / Math.min(x, y)).toBeGreaterThan(3);
    }
  });

  it('takes the spacing of the scan if the network has none', () => {
    const [{ grid }] = deriveGrids(scan);
    // Of x = 1.2, y = 0.8 and z = 2.5 mm the finest has the smallest factor.
    expect(spacingOf(grid.affine).map((mm) => mm.toFixed(3))).toEqual(['4.032', '1.643', '0.905']);
  });

  it('is cropped to the largest size around the same centre', () => {
    const [whole] = deriveGrids(scan);
    const [small] = deriveGrids(scan, { maxBytes: 4 * 5000 });
    const count = small.grid.size.reduce((a, b) => a * b);
    expect(count).toBeLessThanOrEqual(5000);
    expect(count).toBeGreaterThan(3500);
    const middle = ({ grid }: typeof small) =>
      applyAffine(grid.affine, grid.size.map((n) => (n - 1) / 2) as unknown as Vec3);
    for (const [k, mm] of middle(small).entries()) expect(mm).toBeCloseTo(middle(whole)[k], 6);
  });

  it('gives the same grids for the same volume, and takes a single slice', () => {
    expect(deriveGrids(scan, { spacingMm: [1.5, 1.5, 2] })).toEqual(grids);
    for (const { grid } of deriveGrids(volumeOf([30, 20, 1]))) expect(Math.min(...grid.size)).toBe(1);
  });
});

describe('deriveCase()', () => {
  it('has the value of the world position at every voxel inside the scan', () => {
    const inverse = inverseAffine(oblique);
    for (const { grid } of deriveGrids(scan, { spacingMm: [1.5, 1.5, 2] })) {
      const { voxels, size } = deriveCase(scan, grid);
      let inside = 0;
      let i = 0;
      for (let z = 0; z < size[2]; z++) {
        for (let y = 0; y < size[1]; y++) {
          for (let x = 0; x < size[0]; x++, i++) {
            const world = applyAffine(grid.affine, [x, y, z]);
            const at = applyAffine(inverse, world);
            if (at.some((v, k) => v < 0 || v > scan.size[k] - 1)) continue;
            inside++;
            expect(Math.abs((voxels[i] as number) - ramp(world))).toBeLessThan(1e-3);
          }
        }
      }
      expect(inside / i).toBeGreaterThan(0.9);
    }
  });

  it('has the lowest value outside, and the type of the scan', () => {
    const voxels = Int16Array.from(scan.voxels as Float32Array, (v) => v - 1024);
    const lowest = voxels.reduce((a, b) => Math.min(a, b));
    const far = { size: [3, 2, 2] as const, affine: oblique.map((v, i) => (i === 3 ? 1e4 : v)) };
    const derived = deriveCase({ ...scan, voxels }, far);
    expect(derived.voxels).toEqual(new Int16Array(12).fill(lowest));
  });
});
