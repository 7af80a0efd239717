import type { Affine, Volume } from '@tomaat/core';
import { describe, expect, it } from 'vitest';
import { drawResult } from './picture.ts';

const size = [8, 6, 4] as const;

/** One labelled voxel at the patient's right, anterior corner, in the third of four slices from below. */
function labelMap(
  affine: Affine,
  at: readonly [number, number, number],
  grid: readonly [number, number, number],
): Volume {
  const voxels = new Uint8Array(grid[0] * grid[1] * grid[2]);
  voxels[at[0] + grid[0] * (at[1] + grid[1] * at[2])] = 1;
  return { voxels, size: grid, components: 1, affine };
}

const red = new Map([[1, '#ff0000']]);

function colorAt(
  { width, rgba }: { width: number; rgba: Uint8ClampedArray },
  column: number,
  row: number,
): number[] {
  return [...rgba.slice(4 * (row * width + column), 4 * (row * width + column) + 3)];
}

describe('drawResult()', () => {
  it.each([
    ['RAS', [1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 3, 0, 0, 0, 0, 1], [7, 5, 2], size],
    ['LPS', [-1, 0, 0, 0, 0, -2, 0, 0, 0, 0, 3, 0, 0, 0, 0, 1], [0, 0, 2], size],
    ['left-handed', [-1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 3, 0, 0, 0, 0, 1], [0, 5, 2], size],
    // Axes: feet–head, right–left, back–front.
    ['permuted', [0, -1, 0, 0, 0, 0, 2, 0, 3, 0, 0, 0, 0, 0, 0, 1], [2, 0, 5], [4, 8, 6]],
  ] as [string, Affine, [number, number, number], [number, number, number]][])(
    'shows the right of the patient at the left and anterior up: %s',
    (_, affine, at, grid) => {
      const picture = drawResult(labelMap(affine, at, grid), undefined, red);
      // 8 mm by 12 mm: 64 by 96 pixels.
      expect([picture.width, picture.height]).toEqual([64, 96]);
      expect(colorAt(picture, 0, 0)).toEqual([255, 0, 0]);
      expect(colorAt(picture, 7, 15)).toEqual([255, 0, 0]);
      expect(colorAt(picture, 8, 0)).toEqual([0, 0, 0]);
      expect(colorAt(picture, 63, 0)).toEqual([0, 0, 0]);
      expect(colorAt(picture, 0, 95)).toEqual([0, 0, 0]);
    },
  );
});
