import type { Grid, Volume } from '../volume.ts';
import { movesNothing, voxelMove } from './exact.ts';
import { checkGrid } from './grid.ts';
import { type Interpolation, resample } from './resample.ts';

/**
 * A result back on the input's grid. Transforms that change geometry only ever give a volume a new affine, so however
 * many there were, their inverse is this one resampling; where only flips, changes of axes, crops and pads happened it
 * is an exact copy. Voxels of the grid that the result does not cover become 0. Default mode: 'nearest', for labels;
 * the type of the voxels stays with it. A result that lies on the grid already comes back with the same voxels.
 * Throws as resample().
 */
export function restore(result: Volume, inputGrid: Grid, mode: Interpolation = 'nearest'): Volume {
  const { size, affine } = checkGrid(inputGrid);
  const move = mode === 'nearest' ? voxelMove(result, { size, affine }) : undefined;
  if (move && movesNothing(result, { size, affine }, move)) return { ...result, affine };
  return resample(result, { size, affine }, { mode });
}
