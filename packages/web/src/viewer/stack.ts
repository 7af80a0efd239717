import { applyAffine, type Grid, invert, type Vec3 } from '@tomaat/core';

/** Slices of a grid: which of its axes a plane moves along, and where a slice lies. All positions are RAS+ mm. */
export interface Stack {
  /** The axis of the grid that counts the slices. */
  readonly axis: 0 | 1 | 2;
  /** -1 if the slices are counted against the voxel index. */
  readonly sign: 1 | -1;
  readonly count: number;
}

/** The stack whose slices follow each other along `direction`, a world vector. */
export function stackAlong({ size, affine }: Grid, direction: Vec3): Stack {
  const toIndex = invert(affine);
  const steps = [0, 1, 2].map(
    (r) =>
      toIndex[4 * r] * direction[0] + toIndex[4 * r + 1] * direction[1] + toIndex[4 * r + 2] * direction[2],
  );
  const relative = steps.map((step, axis) => Math.abs(step) / size[axis]);
  const axis = relative.indexOf(Math.max(...relative)) as 0 | 1 | 2;
  return { axis, sign: steps[axis] < 0 ? -1 : 1, count: size[axis] };
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
