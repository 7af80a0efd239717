import { describe, expect, it } from 'vitest';
import { type Affine, applyAffine } from '../geometry/affine.ts';
import type { Size, Volume } from '../volume.ts';
import { surfaceDistances } from './surface-distance.ts';

function volumeOf(size: Size, affine: Affine, isLabel: (x: number, y: number, z: number) => number): Volume {
  const [nx, ny, nz] = size;
  const voxels = Uint8Array.from({ length: nx * ny * nz }, (_, i) =>
    isLabel(i % nx, Math.floor(i / nx) % ny, Math.floor(i / (nx * ny))),
  );
  return { voxels, size, components: 1, affine: affine as Volume['affine'] };
}

const straight = [-0.8, 0, 0, 9, 0, 1.5, 0, -4, 0, 0, 3, 2, 0, 0, 0, 1];

describe('surfaceDistances()', () => {
  it('has the distances of two boxes, by hand', () => {
    const box = (from: number, to: number) => (x: number, y: number, z: number) =>
      x >= from && x <= to && y === 2 && z === 1 ? 4 : 0;
    // Voxels 1 to 4, and 3 to 8, along x: 2 and 4 voxels are in one alone, 0.8 mm apart.
    const a = volumeOf([10, 5, 3], straight, box(1, 4));
    const b = volumeOf([10, 5, 3], straight, box(3, 8));
    const { mean, hausdorff, hausdorff95 } = surfaceDistances(a, b).get(4)!;
    expect(mean).toBeCloseTo((0.8 * (1 + 2 + 1 + 2 + 3 + 4)) / 10, 12);
    expect(hausdorff).toBeCloseTo(3.2, 12);
    // Of 0, 0, 1, 2, 3, 4 voxels at 4.75 of 5 steps: 3.75.
    expect(hausdorff95).toBeCloseTo(3.75 * 0.8, 12);
  });

  it('leaves out the inside, and labels of one map alone', () => {
    const cube = volumeOf([7, 7, 7], straight, (...at) => (at.every((v) => v > 0 && v < 6) ? 1 : 0));
    const core = volumeOf([7, 7, 7], straight, (...at) =>
      at.every((v) => v === 3) ? 1 : at[0] === 0 ? 2 : 0,
    );
    const found = surfaceDistances(cube, core);
    expect([...found.keys()]).toEqual([1]);
    // The corner of the cube is 2 voxels away along each axis; the voxel in the middle from its faces by x, 1.6 mm.
    expect(found.get(1)!.hausdorff).toBeCloseTo(Math.hypot(1.6, 3, 6), 12);
  });

  it('measures on an oblique, sheared, left-handed grid by world position', () => {
    const affine = [1.2, -0.7, 0.3, 5, 0.4, 1.9, 0.9, -7, 0.1, 0.2, -2.7, 3, 0, 0, 0, 1];
    const size: Size = [9, 8, 6];
    const ball = (cx: number, cy: number, cz: number, r: number) => (x: number, y: number, z: number) =>
      Math.hypot(x - cx, y - cy, 1.5 * (z - cz)) <= r ? 3 : 0;
    const a = volumeOf(size, affine, ball(3, 3, 2, 2.6));
    const b = volumeOf(size, affine, ball(5, 4, 3, 3.1));
    const surfaceOf = ({ voxels }: Volume) => {
      const at = (x: number, y: number, z: number) =>
        x < 0 || y < 0 || z < 0 || x >= 9 || y >= 8 || z >= 6 ? 0 : voxels[x + 9 * (y + 8 * z)];
      const points: number[][] = [];
      for (let z = 0; z < 6; z++)
        for (let y = 0; y < 8; y++)
          for (let x = 0; x < 9; x++) {
            const around = [
              [1, 0, 0],
              [-1, 0, 0],
              [0, 1, 0],
              [0, -1, 0],
              [0, 0, 1],
              [0, 0, -1],
            ];
            if (at(x, y, z) === 3 && around.some(([i, j, k]) => at(x + i, y + j, z + k) !== 3))
              points.push(applyAffine(affine, [x, y, z]));
          }
      return points;
    };
    const nearest = (p: number[], others: number[][]) =>
      Math.min(...others.map((q) => Math.hypot(...p.map((v, k) => v - q[k]))));
    const [ours, theirs] = [surfaceOf(a), surfaceOf(b)];
    const all = [...ours.map((p) => nearest(p, theirs)), ...theirs.map((p) => nearest(p, ours))];
    const { mean, hausdorff } = surfaceDistances(a, b).get(3)!;
    expect(mean).toBeCloseTo(all.reduce((sum, d) => sum + d, 0) / all.length, 10);
    expect(hausdorff).toBeCloseTo(Math.max(...all), 10);
  });
});
