import { spacingOf, type Vec3 } from '../geometry/affine.ts';
import type { Grid } from '../volume.ts';

/** The maximum distance of a frame from its voxels along an axis, in voxels. */
const toleranceVoxels = 0.1;

/**
 * The maximum distance of images in a series from their grid, as a fraction of the slice distance: the tolerance of
 * `stackOf()`.
 */
const toleranceSteps = 0.04;

/**
 * Whether a position on a grid is that of a voxel, apart from rounding of positions. Slices with pixels much smaller
 * than the slice distance may be off by more than a tenth of a pixel; the first one fixes the grid and may not.
 *
 * @param index the position, in voxels
 * @param voxel the expected voxel; integers
 */
export function isAtVoxel({ affine }: Grid, index: Vec3, voxel: Vec3): boolean {
  const spacing = spacingOf(affine);
  const roundingMm = voxel[2] === 0 ? 0 : toleranceSteps * spacing[2];
  return voxel.every(
    (expected, axis) =>
      Math.abs(index[axis] - expected) <= Math.max(toleranceVoxels, roundingMm / spacing[axis]),
  );
}
