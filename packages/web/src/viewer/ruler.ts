import { applyAffine, type Grid, invert, type Vec3 } from '@tomaat/core';
import type { Plane } from './layouts.ts';
import type { Stack } from './stack.ts';

/** A distance that was measured in a plane; both ends RAS+ mm. */
export interface Measure {
  readonly plane: Plane;
  readonly from: Vec3;
  readonly to: Vec3;
}

/** Between the ends in the world, mm: the same on every grid, however its axes lie. */
export const lengthMm = ({ from, to }: Measure): number =>
  Math.hypot(to[0] - from[0], to[1] - from[1], to[2] - from[2]);

/** Four digits at most: a voxel is rarely known better. */
export function formatLength(mm: number): string {
  const digits = mm >= 100 ? 1 : mm >= 1 ? 2 : 3;
  return `${mm.toFixed(digits)} mm`;
}

/** Whether a measure lies in the slice that goes through `position`. */
export function isOnSlice({ affine }: Grid, { axis }: Stack, { from, to }: Measure, position: Vec3): boolean {
  const toIndex = invert(affine);
  const along = (at: Vec3) => applyAffine(toIndex, at)[axis];
  const here = Math.round(along(position));
  return [from, to].every((end) => Math.round(along(end)) === here);
}
