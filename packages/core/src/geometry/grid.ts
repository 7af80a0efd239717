import { TomaatError } from '../errors.ts';
import type { Grid, Size } from '../volume.ts';
import {
  type Affine,
  applyAffine,
  invert,
  multiply,
  orientationOf,
  shiftIndex,
  spacingOf,
  type Vec3,
} from './affine.ts';
import { roundHalfEven } from './round.ts';

/*
 * Grids derived from grids. Nothing here touches voxels. Sizes are voxels along x, y, z of the current grid; all
 * positions are RAS+ mm. A voxel's position is its centre; it extends half a voxel to each side.
 */

/** The maximum number of voxels of a grid. */
const maxGridVoxels = 2 ** 30;

const axisNames = ['x', 'y', 'z'] as const;

/**
 * The grid, if it is valid: a size of positive integers, at most 2^30 voxels, an affine that is finite and not
 * singular. Throws BAD_INPUT or TOO_MANY_VOXELS.
 */
export function checkGrid<G extends Grid>(grid: G): G {
  const { size, affine } = grid;
  if (size.length !== 3 || !size.every((n) => Number.isSafeInteger(n) && n > 0)) {
    throw new TomaatError(
      'BAD_INPUT',
      `A grid of ${size.join(' × ')} voxels is invalid. Give three whole numbers, each at least 1.`,
    );
  }
  if (size[0] * size[1] * size[2] > maxGridVoxels) {
    throw new TomaatError(
      'TOO_MANY_VOXELS',
      `A grid of ${size.join(' × ')} voxels is too large (at most ${maxGridVoxels}). Choose a larger spacing or crop first.`,
    );
  }
  inverseAffine(affine);
  return grid;
}

/** The inverse of a grid's affine. Throws BAD_INPUT if there is none. */
export function inverseAffine(affine: Affine): Affine {
  try {
    const inverse = invert(affine);
    if (affine.length === 16 && inverse.every(Number.isFinite)) return inverse;
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
  }
  throw new TomaatError(
    'BAD_INPUT',
    'The affine of the volume is singular or not finite, so its voxels have no world positions. Correct the header.',
  );
}

/**
 * The map from voxel index in `to` to voxel index in `from`, through the world. Numbers within 1e-9 of an integer are
 * rounded to it, so that a flip or a crop is exact in floating point too.
 */
export function indexMap(from: Grid, to: Grid): Affine {
  return multiply(inverseAffine(from.affine), to.affine).map((v) =>
    Math.abs(v - Math.round(v)) < 1e-9 ? Math.round(v) + 0 : v,
  );
}

/** The eight corners in world mm: of the outermost voxels' centres, or of the field of view ('edges'). */
export function corners(grid: Grid, of: 'centers' | 'edges' = 'centers'): Vec3[] {
  const pad = of === 'edges' ? 0.5 : 0;
  const ends = grid.size.map((n) => [-pad, n - 1 + pad]);
  const out: Vec3[] = [];
  for (const z of ends[2]) {
    for (const y of ends[1]) for (const x of ends[0]) out.push(applyAffine(grid.affine, [x, y, z]));
  }
  return out;
}

/**
 * Whether two grids have the same size, and every voxel of one is within `toleranceMm` of its counterpart. The
 * default is a micrometre, to tolerate float32 headers, or a fiftieth of the finest spacing for very small voxels.
 */
export function sameGrid(
  a: Grid,
  b: Grid,
  toleranceMm = Math.min(1e-3, Math.min(...spacingOf(a.affine)) / 50),
): boolean {
  if (!a.size.every((n, axis) => n === b.size[axis])) return false;
  // The distance between counterparts is largest at a corner, because both maps are affine.
  const others = corners(b);
  return corners(a).every((p, i) => distance(p, others[i]) <= toleranceMm);
}

function distance(a: Vec3, b: Vec3): number {
  return Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);
}

/** The letters of an orientation such as "RAS" or "LIA", checked: one of L/R, one of P/A, one of I/S. */
function checkAxcodes(axcodes: string): string {
  const groups = [...axcodes].map((letter) => ['LR', 'PA', 'IS'].findIndex((pair) => pair.includes(letter)));
  if (groups.length === 3 && [0, 1, 2].every((group) => groups.includes(group))) return axcodes;
  throw new TomaatError(
    'BAD_INPUT',
    `"${axcodes}" is not an orientation. Give three letters, one of L or R, one of P or A and one of I or S, such as "RAS".`,
  );
}

/**
 * The same voxels in another order: axis k of the result points to the k-th letter, in the notation of nibabel and
 * MONAI's Orientation. Only permutes and flips axes; an oblique grid stays oblique. Throws BAD_INPUT for letters that
 * are not an orientation, or an affine without an inverse.
 */
export function orientedGrid(grid: Grid, axcodes: string): Grid {
  inverseAffine(grid.affine);
  const current = orientationOf(grid.affine);
  const source = [...checkAxcodes(axcodes)].map((letter) => {
    const pair = ['LR', 'PA', 'IS'].find((p) => p.includes(letter)) as string;
    const axis = [...current].findIndex((c) => pair.includes(c));
    return { axis, flip: current[axis] !== letter };
  });
  const { affine, size } = grid;
  const first = [0, 0, 0];
  for (const { axis, flip } of source) if (flip) first[axis] = size[axis] - 1;
  const origin = applyAffine(affine, [first[0], first[1], first[2]]);
  const row = (r: number) => [
    ...source.map(({ axis, flip }) => (flip ? -affine[r * 4 + axis] : affine[r * 4 + axis])),
    origin[r],
  ];
  return {
    size: [size[source[0].axis], size[source[1].axis], size[source[2].axis]],
    affine: [...row(0), ...row(1), ...row(2), 0, 0, 0, 1],
  };
}

/** The same voxels with some axes reversed; each voxel keeps its world position. */
export function flippedGrid(grid: Grid, axes: readonly ('x' | 'y' | 'z')[]): Grid {
  const flips = axisNames.map((name) => axes.includes(name));
  const first: Vec3 = [0, 1, 2].map((a) => (flips[a] ? grid.size[a] - 1 : 0)) as unknown as Vec3;
  const origin = applyAffine(grid.affine, first);
  const affine = grid.affine.map((v, i) => {
    const column = i % 4;
    if (i >= 12) return v;
    if (column === 3) return origin[(i - 3) / 4];
    return flips[column] ? -v : v;
  });
  return { size: grid.size, affine };
}

/**
 * A part of the grid, or an extension of it: `size` voxels from voxel index `start`, which may be negative (padding);
 * the end may be beyond the grid.
 */
export function cropGrid(grid: Grid, start: Vec3, size: Size): Grid {
  return { size, affine: shiftIndex(grid.affine, start) };
}

/**
 * The grid with this spacing in mm along its own axes (0 or less keeps an axis), like MONAI's Spacing
 * (compute_shape_offset): directions and the first voxel's centre are kept, the size is round((n − 1) · old / new +
 * 1), halves to even. With `scaleExtent` the outer edge of the first voxel is kept instead and the size is round(n ·
 * old / new). Unlike in MONAI, a sheared grid keeps its shear. Where rounding has left the axes of a rotated grid not
 * quite at right angles, MONAI may find no first corner, and aligns the indices n / 2 instead: this follows it.
 */
export function spacedGrid(grid: Grid, spacingMm: Vec3, options: { scaleExtent?: boolean } = {}): Grid {
  const old = spacingOf(grid.affine);
  const factor = spacingMm.map((mm, axis) => (mm > 0 ? mm / old[axis] : 1));
  const size = grid.size.map((n, axis) => {
    const exact = options.scaleExtent ? n / factor[axis] : (n - 1) / factor[axis] + 1;
    // An exact half must be recognised even if the spacing was stored as a float32.
    const near = Math.round(exact * 2) / 2;
    return Math.max(1, roundHalfEven(Math.abs(exact - near) < 1e-4 ? near : exact));
  });
  const isCentred = !options.scaleExtent && hasNoFirstCorner(grid, factor);
  const shift = factor.map((f, axis) => {
    if (isCentred) return grid.size[axis] / 2 - (size[axis] / 2) * f;
    return options.scaleExtent ? (f - 1) / 2 : 0;
  });
  return checkGrid({ size: [size[0], size[1], size[2]], affine: scaleIndex(grid.affine, factor, shift) });
}

/** A shear of more than this, in voxels at the far corner, is not one of rounding. */
const mostRoundingVoxels = 0.01;

/**
 * Whether MONAI finds no corner that is the first along all axes of a grid without the shear (`np.allclose` with its absolute
 * tolerance of 1e-8): the axes of the result are Q of affine = Q · R, and R's entries beside the diagonal the shear.
 */
function hasNoFirstCorner({ affine, size }: Grid, factor: readonly number[]): boolean {
  const column = (axis: number): Vec3 => [affine[axis], affine[4 + axis], affine[8 + axis]];
  const dot = (a: Vec3, b: Vec3) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
  const [a, b, c] = [column(0), column(1), column(2)];
  const lengthA = Math.sqrt(dot(a, a));
  const u: Vec3 = [a[0] / lengthA, a[1] / lengthA, a[2] / lengthA];
  const [ub, uc] = [dot(u, b), dot(u, c)];
  const rest: Vec3 = [b[0] - ub * u[0], b[1] - ub * u[1], b[2] - ub * u[2]];
  const lengthB = Math.sqrt(dot(rest, rest));
  const vc = dot(rest, c) / lengthB;
  const [far, deep] = [size[1] - 1, size[2] - 1];
  // Voxels of the result.
  const [x, y] = [lengthA * factor[0], lengthB * factor[1]];
  const shears = [(ub * far) / x, (uc * deep) / x, (vc * deep) / y];
  if (shears.some((shear) => Math.abs(shear) > mostRoundingVoxels)) return false;
  const [first, second, third] = shears.map((shear) => Math.min(0, shear));
  return first + second < -1e-8 || third < -1e-8;
}

/**
 * The grid with this many voxels over the same field of view: outer edges are kept, as in PyTorch's interpolate
 * without align_corners and in scikit-image's resize.
 */
export function resizedGrid(grid: Grid, size: Size): Grid {
  const factor = size.map((n, axis) => grid.size[axis] / n);
  return checkGrid({
    size,
    affine: scaleIndex(
      grid.affine,
      factor,
      factor.map((f) => (f - 1) / 2),
    ),
  });
}

/** The affine of a grid whose voxel i is at i · factor + shift of the old one, per axis. */
function scaleIndex(affine: Affine, factor: readonly number[], shift: readonly number[]): Affine {
  const [fx, fy, fz] = factor;
  return multiply(affine, [fx, 0, 0, shift[0], 0, fy, 0, shift[1], 0, 0, fz, shift[2], 0, 0, 0, 1]);
}

/** The size, each axis rounded up to a multiple of k. */
export function divisibleSize(size: Size, k: number | Vec3): Size {
  const ks = typeof k === 'number' ? [k, k, k] : k;
  const up = (axis: number) => Math.ceil(size[axis] / ks[axis]) * ks[axis];
  return [up(0), up(1), up(2)];
}

/**
 * Start of a centred crop to `size`: floor(n / 2) − floor(size / 2), as in MONAI's CenterSpatialCrop; axes that are
 * not larger than `size` are kept.
 */
export function centerCrop(grid: Grid, size: Size): { start: Vec3; size: Size } {
  const out = grid.size.map((n, axis) => Math.min(n, size[axis]));
  const start = out.map((n, axis) => (n === grid.size[axis] ? 0 : (grid.size[axis] >> 1) - (n >> 1)));
  return { start: [start[0], start[1], start[2]], size: [out[0], out[1], out[2]] };
}

/**
 * Start of padding to at least `size` (0 or negative): half before, the odd voxel after, as in MONAI's SpatialPad; or
 * all of it after ('end').
 */
export function padAround(
  grid: Grid,
  size: Size,
  method: 'symmetric' | 'end' = 'symmetric',
): { start: Vec3; size: Size } {
  const out = grid.size.map((n, axis) => Math.max(n, size[axis]));
  const before = out.map((n, axis) => (method === 'end' ? 0 : (n - grid.size[axis]) >> 1));
  return { start: [0 - before[0], 0 - before[1], 0 - before[2]], size: [out[0], out[1], out[2]] };
}
