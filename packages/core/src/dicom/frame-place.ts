import { spacingOf, type Vec3 } from '../geometry/affine.ts';
import type { Grid } from '../volume.ts';

/** The most that a frame may lie beside its voxels along an axis, in voxels. */
const toleranceVoxels = 0.1;

/** Images of one series may lie this far beside their grid, as a share of the distance of slices: what `stackOf()` lets pass. */
const toleranceSteps = 0.04;

/**
 * Whether a place on a grid is that of a voxel but for the rounding of positions. Slices of pixels that are small against their
 * distance may be off by more than a tenth of a pixel; the first one fixes the grid and may not.
 *
 * @param index the place, in voxels
 * @param voxel the voxel that it should be; whole numbers
 */
export function isAtVoxel({ affine }: Grid, index: Vec3, voxel: Vec3): boolean {
  const spacing = spacingOf(affine);
  const roundingMm = voxel[2] === 0 ? 0 : toleranceSteps * spacing[2];
  return voxel.every(
    (expected, axis) =>
      Math.abs(index[axis] - expected) <= Math.max(toleranceVoxels, roundingMm / spacing[axis]),
  );
}
