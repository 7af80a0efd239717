import type { Affine, Grid, Vec3 } from '@tomaat/core';
import { describe, expect, it } from 'vitest';
import { formatLength, isOnSlice, lengthMm } from './ruler.ts';
import { moveByVoxels, moveToSlice, sliceNumber, stacksOf } from './stack.ts';

/** World position of a place in voxels, by hand. */
const worldOf = (a: Affine, [x, y, z]: Vec3): Vec3 =>
  [0, 1, 2].map((r) => a[4 * r] * x + a[4 * r + 1] * y + a[4 * r + 2] * z + a[4 * r + 3]) as unknown as Vec3;

/** Each with the axis that its slices along S, A and R are counted on, and the sign. */
const grids: Record<string, { grid: Grid; axes: [number, 1 | -1][] }> = {
  'anisotropic, left-handed': {
    grid: { size: [7, 5, 3], affine: [-0.8, 0, 0, 9, 0, 1.5, 0, -7, 0, 0, 4, 30, 0, 0, 0, 1] },
    axes: [
      [2, 1],
      [1, 1],
      [0, -1],
    ],
  },
  'sagittally acquired': {
    grid: { size: [7, 5, 3], affine: [0, 0, 2.9, 3, -1.2, 0, 0, 8, 0, -1.7, 0, 20, 0, 0, 0, 1] },
    axes: [
      [1, -1],
      [0, -1],
      [2, 1],
    ],
  },
  // Columns of 2, 0.7 and 5 mm along (2, 3, 6)/7, (3, -6, 2)/7 and (-6, -2, 3)/7.
  oblique: {
    grid: {
      size: [6, 8, 4],
      affine: [4 / 7, 0.3, -30 / 7, 10, 6 / 7, -0.6, -10 / 7, -20, 12 / 7, 0.2, 15 / 7, 30, 0, 0, 0, 1],
    },
    axes: [
      [0, 1],
      [1, -1],
      [2, -1],
    ],
  },
  // A tilted gantry: the slices follow each other along S and A.
  sheared: {
    grid: { size: [6, 8, 4], affine: [1, 0, 0, 0, 0, 1.5, 2, 5, 0, 0, 3, -4, 0, 0, 0, 1] },
    axes: [
      [2, 1],
      [1, 1],
      [0, 1],
    ],
  },
};

describe.each(Object.entries(grids))('slices of a grid that is %s', (_, { grid, axes }) => {
  const { axial, coronal, sagittal } = stacksOf(grid);
  const stacks = [axial, coronal, sagittal];

  it('are counted on the axis of their plane', () => {
    expect(stacks.map(({ axis, sign }) => [axis, sign])).toEqual(axes);
    expect(stacks.map(({ count }) => count)).toEqual(axes.map(([axis]) => grid.size[axis]));
  });

  it('have numbers from 1 to the count, in the middle and up to their edges', () => {
    stacks.forEach(({ axis, sign, count }, i) => {
      for (let index = 0; index < count; index++) {
        for (const shift of [-0.45, 0, 0.45]) {
          const voxel = [2, 1, 1].map((v, k) => (k === axis ? index + shift : v)) as unknown as Vec3;
          const number = sliceNumber(grid, stacks[i], worldOf(grid.affine, voxel));
          expect(number).toBe(sign > 0 ? index + 1 : count - index);
        }
      }
    });
  });

  it('are reached without leaving the line through the position', () => {
    const start: Vec3 = [2.3, 1.2, 0.9];
    stacks.forEach((stack) => {
      for (let number = 1; number <= stack.count; number++) {
        const index = stack.sign > 0 ? number - 1 : stack.count - number;
        const expected = worldOf(
          grid.affine,
          start.map((v, k) => (k === stack.axis ? index : v)) as unknown as Vec3,
        );
        const found = moveToSlice(grid, stack, worldOf(grid.affine, start), number);
        found.forEach((v, k) => void expect(v).toBeCloseTo(expected[k], 9));
      }
      const position = worldOf(grid.affine, start);
      const ends = [-50, 50].map((by) => sliceNumber(grid, stack, moveByVoxels(grid, stack, position, by)));
      expect(ends).toEqual([1, stack.count]);
    });
  });

  it('show a ruler in its own slice alone', () => {
    const [stack] = stacks;
    const at = (index: number, u: number): Vec3 =>
      worldOf(grid.affine, [0, 1, 2].map((k) => (k === stack.axis ? index : u)) as unknown as Vec3);
    const measure = { plane: 'axial' as const, from: at(1, 0), to: at(1.3, 2) };
    expect([0, 1, 2].map((index) => isOnSlice(grid, stack, measure, at(index, 1)))).toEqual([
      false,
      true,
      false,
    ]);
  });
});

describe('lengthMm()', () => {
  const lengthOf = (name: string, from: Vec3, to: Vec3) => {
    const { affine } = grids[name].grid;
    return lengthMm({ plane: 'axial', from: worldOf(affine, from), to: worldOf(affine, to) });
  };

  it('is measured in the world on anisotropic grids', () => {
    // 3 voxels of 0.8 mm and 4 of 1.5 mm.
    expect(lengthOf('anisotropic, left-handed', [1, 0, 2], [4, 4, 2])).toBeCloseTo(Math.hypot(2.4, 6), 9);
  });

  it('follows the axes of an oblique grid', () => {
    // At right angles, 2, 0.7 and 5 mm.
    expect(lengthOf('oblique', [0, 1, 0], [3, 6, 2])).toBeCloseTo(Math.hypot(6, 3.5, 10), 9);
  });

  it('follows the slant of a sheared grid', () => {
    // Along the slices: 2 mm forward and 3 mm up each; the same by number of voxels and spacing would be 3 × √13 and 2 × 1.5 at right angles.
    expect(lengthOf('sheared', [0, 0, 0], [0, 2, 3])).toBeCloseTo(Math.hypot(2 * 1.5 + 3 * 2, 9), 9);
  });
});

describe('formatLength()', () => {
  it('has a precision that fits the length', () => {
    expect([123.456, 12.345, 0.01234].map(formatLength)).toEqual(['123.5 mm', '12.35 mm', '0.012 mm']);
  });
});
