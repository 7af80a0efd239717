import { voxelMove } from '../geometry/exact.ts';
import { type Fit, fitVolume } from '../geometry/fit.ts';
import { resample } from '../geometry/resample.ts';
import { restore } from '../geometry/restore.ts';
import { createVoxels, type Grid, type Volume, voxelCount } from '../volume.ts';
import { labelTypeFor, labelVoxels, scanLabels } from './label-map.ts';

/** What one step of the preprocessing did to the grid of a volume. */
export interface GridChange {
  readonly from: Grid;
  readonly to: Grid;
  /** How the volume was resampled, if by a fit. */
  readonly fit?: Fit;
}

/** Whether two grids are the same to the last bit. */
export const isSameGrid = (a: Grid, b: Grid): boolean =>
  a.size.every((n, axis) => n === b.size[axis]) && a.affine.every((v, i) => v === b.affine[i]);

/**
 * A label map taken along the changes of a grid, as nnU-Net takes the labels of a previous stage (nnunetv2 2.8.1,
 * resampling/default_resampling.py; batchgenerators resize_segmentation, order 1): where voxels only move they are copied, and what
 * comes in from outside is 0. Where a step resampled, the mask of each value is interpolated linearly, a value takes the
 * voxels where its mask is at least 0.5, and of two the larger one. Only values that are not below `least` arrive. Throws as resample().
 */
export function moveLabels(labels: Volume, changes: readonly GridChange[], least = 1): Volume {
  return changes.reduce((moved, { from, to, fit }) => {
    if (isSameGrid(from, to)) return moved;
    if (voxelMove(from, to)) return restore(moved, to);
    return interpolateLabels(moved, to, least, (mask) =>
      fit
        ? fitVolume(mask, to, 'linear', fit.sliceAxis)
        : resample(mask, to, { mode: 'linear', outside: 'edge' }),
    );
  }, labels);
}

function interpolateLabels(
  labels: Volume,
  { size, affine }: Grid,
  least: number,
  interpolate: (mask: Volume) => Volume,
): Volume {
  const source = labelVoxels(labels);
  const values = [...scanLabels(source, labels.size).keys()].filter((value) => value >= least);
  const voxels = createVoxels(labelTypeFor(values), voxelCount({ size })) as
    | Uint8Array
    | Uint16Array
    | Int32Array;
  const mask = new Float32Array(source.length);
  // Ascending, so that of two halves the larger value stays.
  for (const value of values) {
    for (let i = 0; i < source.length; i++) mask[i] = source[i] === value ? 1 : 0;
    const found = interpolate({ ...labels, voxels: mask }).voxels as Float32Array;
    for (let i = 0; i < found.length; i++) if (found[i] >= 0.5) voxels[i] = value;
  }
  return { voxels, size, components: 1, affine };
}
