import type { Grid, Volume } from '../volume.ts';
import { movesNothing, voxelMove } from './exact.ts';
import { checkGrid } from './grid.ts';
import { type Interpolation, resample } from './resample.ts';

/**
 * Returns a result to the input's grid. Transforms that change geometry only assign a new affine, so the inverse of
 * any number of them is this one resampling; if only flips, axis permutations, crops and pads were applied it is an
 * exact copy. Voxels of the grid that the result does not cover become 0. Default mode: 'nearest', for labels, which
 * keeps the voxel type. A result that is already on the grid is returned with the same voxels. Throws as resample().
 */
export function restore(result: Volume, inputGrid: Grid, mode: Interpolation = 'nearest'): Volume {
  const { size, affine } = checkGrid(inputGrid);
  const move = mode === 'nearest' ? voxelMove(result, { size, affine }) : undefined;
  if (move && movesNothing(result, { size, affine }, move)) return { ...result, affine };
  return resample(result, { size, affine }, { mode });
}
