import type { Affine, Volume } from '@tomaat/core';
import { describe, expect, it } from 'vitest';
import { contoursOf } from './contours.ts';

const affine: Affine = [-0.8, 0.1, 0, 9, 0.2, 1.5, 0, -7, 0, 0, 4, 30, 0, 0, 0, 1];
const size = [5, 4, 3] as const;

/** 7 in two voxels along x, [1, 2, 1] and [2, 2, 1], with 9 at [3, 2, 1] beside them. */
function labelMap(): Volume {
  const voxels = new Uint16Array(60);
  const at = (x: number, y: number, z: number) => x + 5 * (y + 4 * z);
  voxels[at(1, 2, 1)] = voxels[at(2, 2, 1)] = 7;
  voxels[at(3, 2, 1)] = 9;
  return { size, components: 1, affine, voxels };
}

/** The segments, each with its ends in order, sorted. */
const sorted = (ends: readonly number[] = []) =>
  Array.from({ length: ends.length / 4 }, (_, i) => ends.slice(4 * i, 4 * i + 4).join(' ')).sort();

describe('contoursOf()', () => {
  it('follows the edges of the voxels of each label', () => {
    const { axes, segments } = contoursOf(labelMap(), labelMap(), 2, 1);
    expect(axes).toEqual([0, 1]);
    expect([...segments.keys()].sort()).toEqual([7, 9]);
    expect(sorted(segments.get(7))).toEqual(
      [
        '0.5 1.5 0.5 2.5',
        '2.5 1.5 2.5 2.5',
        '0.5 1.5 1.5 1.5',
        '1.5 1.5 2.5 1.5',
        '0.5 2.5 1.5 2.5',
        '1.5 2.5 2.5 2.5',
      ].sort(),
    );
    expect(sorted(segments.get(9))).toEqual(
      ['2.5 1.5 2.5 2.5', '3.5 1.5 3.5 2.5', '2.5 1.5 3.5 1.5', '2.5 2.5 3.5 2.5'].sort(),
    );
    expect(contoursOf(labelMap(), labelMap(), 2, 0).segments.size).toBe(0);
  });

  it('cuts along every axis', () => {
    const alongX = contoursOf(labelMap(), labelMap(), 0, 3);
    expect(alongX.axes).toEqual([1, 2]);
    expect(sorted(alongX.segments.get(9))).toEqual(
      ['1.5 0.5 1.5 1.5', '2.5 0.5 2.5 1.5', '1.5 0.5 2.5 0.5', '1.5 1.5 2.5 1.5'].sort(),
    );
    const alongY = contoursOf(labelMap(), labelMap(), 1, 2);
    expect(alongY.axes).toEqual([0, 2]);
    expect(alongY.segments.get(7)).toHaveLength(4 * 6);
  });

  it('closes the outline at the edge of the grid', () => {
    const voxels = new Uint8Array(60).fill(1);
    const { segments } = contoursOf({ size, components: 1, affine, voxels }, labelMap(), 2, 2);
    expect(segments.get(1)).toHaveLength(4 * 2 * (5 + 4));
  });

  it('finds a label by world position where the grids differ', () => {
    // The same voxels in another storage order: x reversed, its origin at the old end.
    const { voxels } = labelMap();
    const reversed = new Uint16Array(60);
    for (let i = 0; i < 60; i++) reversed[4 - (i % 5) + 5 * Math.floor(i / 5)] = Number(voxels[i]);
    const flipped: Affine = [0.8, 0.1, 0, 9 - 4 * 0.8, -0.2, 1.5, 0, -7 + 4 * 0.2, 0, 0, 4, 30, 0, 0, 0, 1];
    const other: Volume = { size, components: 1, affine: flipped, voxels: reversed };
    const found = contoursOf(other, labelMap(), 2, 1).segments;
    const expected = contoursOf(labelMap(), labelMap(), 2, 1).segments;
    for (const label of [7, 9]) expect(sorted(found.get(label))).toEqual(sorted(expected.get(label)));
  });
});
