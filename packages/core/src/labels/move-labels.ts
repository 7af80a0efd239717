import { affinesEqual } from '../geometry/affine.ts';
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

/** To the last bit: the volumes that result lie beside each other as channels. */
const isSameGrid = (a: Grid, b: Grid): boolean =>
  a.size.every((n, axis) => n === b.size[axis]) && affinesEqual(a.affine, b.affine, 0);

/**
 * A label map taken along the changes of a grid, as nnU-Net takes the labels of a previous stage (nnunetv2 2.8.1,
 * resampling/default_resampling.py; batchgenerators 0.25.5, resize_segmentation with order 1): where voxels only move they are
 * copied, and what comes in from outside is 0. Where a step resampled, the mask of each value is interpolated linearly and the largest
 * wins; of equal ones that of the nearest voxel, if it is among them, otherwise the smallest value. Throws as resample().
 */
export function moveLabels(labels: Volume, changes: readonly GridChange[]): Volume {
  return changes.reduce((moved, { from, to, fit }) => {
    if (isSameGrid(from, to)) return moved;
    if (voxelMove(from, to)) return restore(moved, to);
    return interpolateLabels(moved, to, (volume, mode) =>
      fit ? fitVolume(volume, to, mode, fit.sliceAxis) : resample(volume, to, { mode, outside: 'edge' }),
    );
  }, labels);
}

function interpolateLabels(
  labels: Volume,
  { size, affine }: Grid,
  sample: (volume: Volume, mode: 'linear' | 'nearest') => Volume,
): Volume {
  const source = labelVoxels(labels);
  const scans = scanLabels(source, labels.size);
  const count = [...scans.values()].reduce((sum, { voxels }) => sum + voxels, 0);
  const values = count < source.length ? [0, ...scans.keys()] : [...scans.keys()];
  const n = voxelCount({ size });
  const nearest = labelVoxels(sample(labels, 'nearest'));
  const voxels = createVoxels(labelTypeFor(values), n) as Uint8Array | Uint16Array;
  const best = new Float32Array(n);
  /** Whether the value of the nearest voxel is among the best. */
  const isNearest = new Uint8Array(n);
  const mask = new Float32Array(source.length);
  for (const value of values) {
    for (let i = 0; i < source.length; i++) mask[i] = source[i] === value ? 1 : 0;
    const score = sample({ ...labels, voxels: mask }, 'linear').voxels as Float32Array;
    for (let i = 0; i < n; i++) {
      if (score[i] > best[i]) {
        best[i] = score[i];
        voxels[i] = value;
        isNearest[i] = nearest[i] === value ? 1 : 0;
      } else if (score[i] === best[i] && score[i] > 0 && nearest[i] === value) isNearest[i] = 1;
    }
  }
  for (let i = 0; i < n; i++) if (isNearest[i] === 1) voxels[i] = nearest[i];
  return { voxels, size, components: 1, affine };
}
