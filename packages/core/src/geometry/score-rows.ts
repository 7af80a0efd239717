import type { Grid } from '../volume.ts';
import { type VoxelMove, voxelMove } from './exact.ts';
import { type Fit, linearPlace, nearestPlace } from './fit.ts';
import { indexMap } from './grid.ts';
import { slack } from './sample.ts';

/*
 * Where the voxels of a grid lie among class scores, if the rows of both run along the same axis.
 */

/** A location along one axis of the scores: the cell, and the fraction within it; cell −1 outside. */
export interface Place {
  readonly cell: number;
  readonly fraction: number;
}

const nowhere: Place = { cell: -1, fraction: 0 };

/** The location of a position along one axis of the scores. */
function locate(q: number, n: number): Place {
  if (!(q >= -0.5 - slack && q < n - 0.5 + slack)) return nowhere;
  const p = q > 0 ? (q < n - 1 ? q : n - 1) : 0;
  const cell = Math.max(0, Math.min(Math.floor(p), n - 2));
  return { cell, fraction: p - cell };
}

/** Where the rows of the target lie, if they run along the rows of the scores: the places along x, and those of row (y, z). */
export interface Rows {
  readonly places: readonly Place[];
  rowAt(y: number, z: number): readonly [atY: Place, atZ: Place];
}

/** The rows of a grid by their positions in the world; undefined if they run across those of the scores. */
export function rowsInWorld(source: Grid, grid: Grid): Rows | undefined {
  const map = indexMap(source, grid);
  const [nx, ny, nz] = source.size;
  if (map[0] === 0 || map[1] || map[2] || map[4] || map[8]) return undefined;
  return {
    places: Array.from({ length: grid.size[0] }, (_, x) => locate(map[3] + map[0] * x, nx)),
    rowAt: (y, z) => [
      locate(map[7] + map[5] * y + map[6] * z, ny),
      locate(map[11] + map[9] * y + map[10] * z, nz),
    ],
  };
}

/**
 * The rows of a fit's first grid, by the arithmetic of the fit: positions on its second one, as linear interpolation or the
 * nearest slice takes them, and there the scores, which may be padded, cropped or flipped.
 */
export function rowsOfFit(source: Grid, { from, to, sliceAxisBack }: Fit): Rows {
  const move = moveAlongAxes(source, to);
  if (!move) throw new RangeError('the scores are not on the grid of the fit');
  const [places, alongY, alongZ] = ([0, 1, 2] as const).map((axis) =>
    Array.from({ length: from.size[axis] }, (_, i) => {
      const place = axis === sliceAxisBack ? nearestPlace : linearPlace;
      const p = place(i, to.size[axis], from.size[axis]);
      return locate(move.sign[axis] * p + move.offset[axis], source.size[axis]);
    }),
  );
  return { places, rowAt: (y, z) => [alongY[y], alongZ[z]] };
}

/** The voxels of `to` among those of `from`, if the grids differ by padding, cropping and flips alone. */
export function moveAlongAxes(from: Grid, to: Grid): VoxelMove | undefined {
  const move = voxelMove(from, to);
  return move?.axis.every((axis, k) => axis === k) ? move : undefined;
}
