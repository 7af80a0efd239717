import { applyAffine, type Grid, invert, spacingOf, type Vec3 } from '@tomaat/core';
import type { Plane } from './layouts.ts';

/** Slices of a grid: which of its axes a plane moves along, and where a slice lies. All positions are RAS+ mm. */
export interface Stack {
  /** The axis of the grid that counts the slices. */
  readonly axis: 0 | 1 | 2;
  /** -1 if the slices are counted against the voxel index. */
  readonly sign: 1 | -1;
  readonly count: number;
}

/**
 * The slices of each plane, by the axis of the grid that is drawn along S, A and R: the first axis of the grid is drawn
 * along the body's axis nearest to it, the second along the nearer one of the others. NiiVue chooses in the same way, in
 * single precision.
 */
export function stacksOf({ size, affine }: Grid): Readonly<Record<Plane, Stack>> {
  const along = (row: number, axis: number) => Math.fround(affine[4 * row + axis]);
  const nearer = (rows: readonly number[], axis: number) =>
    rows.reduce((best, row) => (Math.abs(along(row, axis)) > Math.abs(along(best, axis)) ? row : best));
  const first = nearer([0, 1, 2], 0);
  // Of two that are equally near it is the later one.
  const second = nearer(
    [2, 1, 0].filter((row) => row !== first),
    1,
  );
  const axisOfRow = [0, 1, 2].map((row) => (row === first ? 0 : row === second ? 1 : 2)) as (0 | 1 | 2)[];
  const [sagittal, coronal, axial] = axisOfRow.map((axis, row) => ({
    axis,
    sign: along(row, axis) < 0 ? (-1 as const) : (1 as const),
    count: size[axis],
  }));
  return { axial, coronal, sagittal };
}

/** How far a grid reaches along R, A and S as it is drawn, mm. */
export function extentOf({ affine }: Grid, stacks: ReturnType<typeof stacksOf>): Vec3 {
  const spacing = spacingOf(affine);
  const [r, a, s] = [stacks.sagittal, stacks.coronal, stacks.axial].map(
    ({ axis, count }) => spacing[axis] * count,
  );
  return [r, a, s];
}

/** The voxel in the middle, RAS+ mm: where the crosshair is at first. */
export const centreOf = ({ affine, size }: Grid): Vec3 => applyAffine(affine, middleOf(size));

/** Its indices. */
export function middleOf(size: Vec3): Vec3 {
  const [x, y, z] = size.map((n) => Math.floor((n - 1) / 2));
  return [x, y, z];
}

/** The number of the slice that contains a position, from 1; beyond the grid that of the nearest slice. */
export function sliceNumber({ affine }: Grid, { axis, sign, count }: Stack, position: Vec3): number {
  const index = Math.min(count - 1, Math.max(0, Math.round(applyAffine(invert(affine), position)[axis])));
  return sign > 0 ? index + 1 : count - index;
}

/** The position moved along the stack's axis to the middle of a slice; numbers beyond the stack are its ends. */
export function moveToSlice({ affine }: Grid, stack: Stack, position: Vec3, number: number): Vec3 {
  const kept = Math.min(stack.count, Math.max(1, Math.round(number)));
  const index = [...applyAffine(invert(affine), position)] as [number, number, number];
  index[stack.axis] = stack.sign > 0 ? kept - 1 : stack.count - kept;
  return applyAffine(affine, index);
}

/** A position moved by a number of voxels along a stack's axis; not beyond the grid. */
export function moveByVoxels(grid: Grid, stack: Stack, position: Vec3, voxels: number): Vec3 {
  return moveToSlice(grid, stack, position, sliceNumber(grid, stack, position) + voxels);
}
