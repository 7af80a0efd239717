import { type Grid, type Volume, voxelCount } from '../volume.ts';
import { type Activation, activate } from './activation.ts';
import { movesNothing, voxelMove } from './exact.ts';
import { type Fit, fitVolume } from './fit.ts';
import { checkGrid } from './grid.ts';
import { type Interpolation, resample } from './resample.ts';
import type { ScoreOptions } from './resample-scores.ts';
import { moveAlongAxes } from './score-rows.ts';

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

/**
 * How a volume came onto its grid. Every change of the grid shows in its affine; a fit also says how scores go back through it.
 */
export interface GridPath {
  /** The grid of the input. */
  readonly start: Grid;
  /** The fits among the steps, in their order. */
  readonly fits: readonly Fit[];
}

/** Scores as labels on a grid: resampleArgmax() or resampleThreshold(), with their options. */
export type Decide = (scores: Volume, grid: Grid, options: ScoreOptions) => Volume;

/**
 * Labels on the input's grid from class scores, which go back as their grid came about: through each fit by its own
 * arithmetic, otherwise by one linear interpolation. The last interpolation is done by `decide`, so that scores of
 * all classes never exist on the input's grid. After a fit that only permutations, flips, crops and pads preceded, labels are
 * copied; outside a crop they are 0. `activation` comes first, in the memory of the scores. Throws as resample().
 */
export function restoreScores(
  scores: Volume,
  { start, fits }: GridPath,
  decide: Decide,
  activation?: Activation,
): Volume {
  if (fits.length === 0) return decide(scores, start, { activation });
  const [first, ...others] = fits;
  const endsInCopy = voxelMove(first.from, start) !== undefined;
  if (others.length === 0 && endsInCopy && moveAlongAxes(scores, first.to)) {
    return restore(decide(scores, first.from, { activation, fit: first }), start);
  }
  if (activation) activate(scores.voxels as Float32Array, voxelCount(scores), activation);
  let current = scores;
  for (const fit of others.reverse()) current = undoFit(current, fit);
  if (!endsInCopy) return decide(undoFit(current, first), start, {});
  return restore(decide(onGrid(current, first.to), first.from, { fit: first }), start);
}

const undoFit = (scores: Volume, { from, to, sliceAxisBack }: Fit): Volume =>
  fitVolume(onGrid(scores, to), from, 'linear', sliceAxisBack);

/** Scores on a grid; what they do not cover is NaN, which wins nowhere. */
const onGrid = (scores: Volume, grid: Grid): Volume =>
  resample(scores, grid, { mode: 'linear', fill: Number.NaN });
