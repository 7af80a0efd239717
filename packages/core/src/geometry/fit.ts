import { type Grid, type Size, type Volume, voxelCount } from '../volume.ts';
import { type Affine, spacingOf, type Vec3 } from './affine.ts';
import { asWords } from './exact.ts';
import { checkGrid, resizedGrid } from './grid.ts';
import { roundHalfEven } from './round.ts';
import { type FloatVoxels, filterLines, type Interpolation } from './sample.ts';
import { convertVolume, createLike, floatVoxels } from './voxel-type.ts';

/*
 * Resampling onto another number of voxels between the same outer edges, as nnU-Net does (nnunetv2 2.8.1,
 * resampling/default_resampling.py; skimage.transform.resize with mode "edge"; scipy.ndimage.zoom with grid_mode). It
 * differs from resample() in its size, in its borders and, for cubic, in its limit; and it is done axis by axis.
 */

export type AxisIndex = 0 | 1 | 2;

/** A change of the grid by fitVolume(), and how scores go back through it. */
export interface Fit {
  /** The grid before. */
  readonly from: Grid;
  /** The grid after: the same outer edges. */
  readonly to: Grid;
  /** The axis whose slices are resampled by themselves; none if all three axes are interpolated. */
  readonly sliceAxis?: AxisIndex;
  /** The same on the way back, for scores: linear in the plane, and the nearest slice. */
  readonly sliceAxisBack?: AxisIndex;
}

export const separations = ['auto', 'x', 'y', 'z'] as const;
/** The axis whose slices are resampled by themselves, or 'auto' to choose it by the spacings. */
export type Separate = (typeof separations)[number];

/** The ratio of spacings above which nnU-Net resamples slices by themselves. */
const anisotropy = 3;

/**
 * The grid with about this spacing in mm along its own axes (0 or less keeps an axis) and the same outer edges. The size is
 * n · old / new, rounded, halves to even, so that the spacing is seldom exactly the one asked for.
 */
export function fittedGrid(grid: Grid, spacingMm: Vec3): Grid {
  const old = statedSpacing(grid.affine);
  const size = grid.size.map((n, axis) =>
    spacingMm[axis] > 0 ? Math.max(1, roundHalfEven((old[axis] / spacingMm[axis]) * n)) : n,
  );
  return resizedGrid(grid, [size[0], size[1], size[2]]);
}

/**
 * The axis whose slices are resampled by themselves: the given one, or with 'auto' the axis of the largest spacing, if that is
 * more than three times the smallest. The first of the spacings for which this holds decides; none if two axes share its largest.
 */
function sliceAxisOf(separate: Separate | undefined, ...spacings: readonly Vec3[]): AxisIndex | undefined {
  if (separate === undefined) return undefined;
  if (separate !== 'auto') return (['x', 'y', 'z'] as const).indexOf(separate) as AxisIndex;
  const spacing = spacings.find((mm) => Math.max(...mm) / Math.min(...mm) > anisotropy);
  if (!spacing) return undefined;
  const most = Math.max(...spacing);
  const coarse = ([0, 1, 2] as const).filter((axis) => spacing[axis] === most);
  return coarse.length === 1 ? coarse[0] : undefined;
}

/** The fit onto a spacing in mm (0 or less keeps an axis). On the way back the two spacings swap places. */
export function fitOf(grid: Grid, spacingMm: Vec3, separate?: Separate): Fit {
  const { size, affine } = grid;
  const old = statedSpacing(affine);
  const wanted: Vec3 = [0, 1, 2].map((k) => (spacingMm[k] > 0 ? spacingMm[k] : old[k])) as unknown as Vec3;
  return {
    from: { size, affine },
    to: fittedGrid(grid, spacingMm),
    sliceAxis: sliceAxisOf(separate, old, wanted),
    sliceAxisBack: sliceAxisOf(separate, wanted, old),
  };
}

/**
 * The spacing as the file states it. The length of an oblique column has the rounding errors of its three numbers, which
 * would decide about halves, so it is rounded to six digits.
 */
function statedSpacing(affine: Affine): Vec3 {
  const [x, y, z] = spacingOf(affine).map((mm, axis) => {
    const across = [0, 1, 2].filter((row) => affine[row * 4 + axis] !== 0);
    return across.length > 1 ? Number(mm.toPrecision(6)) : mm;
  });
  return [x, y, z];
}

/** The voxels along an axis that a target's voxel is made of, and their weights: `taps` of each, by the target's index. */
interface Taps {
  readonly taps: number;
  readonly index: Int32Array;
  readonly weight: Float64Array;
}

/** The position of target voxel i along an axis of `n` voxels that becomes one of `m`; the products in the order of scipy's. */
const positionOf = (i: number, n: number, m: number) => (n / m) * (i + 0.5) - 0.5;

/** The voxel nearest to a target's voxel: halfway the higher one, without tolerance. */
export function nearestPlace(i: number, n: number, m: number): number {
  return Math.min(n - 1, Math.max(0, Math.floor(positionOf(i, n, m) + 0.5)));
}

/** The position among the voxels' centres: outside them the border's. */
export function linearPlace(i: number, n: number, m: number): number {
  return Math.min(n - 1, Math.max(0, positionOf(i, n, m)));
}

/** Voxels that repeat the border before the filter of the spline (scipy's _prepad_for_spline_filter). */
const splineBorder = 12;

function tapsOf(mode: Interpolation, n: number, m: number): Taps {
  const taps = mode === 'nearest' ? 1 : mode === 'linear' ? 2 : 4;
  const index = new Int32Array(taps * m);
  const weight = new Float64Array(taps * m).fill(1);
  for (let i = 0; i < m; i++) {
    if (mode === 'nearest') index[i] = nearestPlace(i, n, m);
    else if (mode === 'linear') {
      const p = linearPlace(i, n, m);
      const low = Math.floor(p);
      index.set([low, Math.min(n - 1, low + 1)], 2 * i);
      weight.set([1 - (p - low), p - low], 2 * i);
    } else {
      // Both ends lie within the border, which is why nothing is clamped.
      const p = positionOf(i, n, m) + splineBorder;
      const low = Math.floor(p);
      const t = p - low;
      const u = 1 - t;
      index.set([low - 1, low, low + 1, low + 2], 4 * i);
      const inner = [2 / 3 - t * t * (1 - t / 2), 2 / 3 - u * u * (1 - u / 2)];
      weight.set([(u * u * u) / 6, ...inner, (t * t * t) / 6], 4 * i);
    }
  }
  return { taps, index, weight };
}

/**
 * The volume on a grid with the same outer edges and another number of voxels, all components. Positions are those of
 * skimage's resize; beyond the outermost centres the border goes on. Cubic is the interpolating B-spline of the volume with
 * twelve more voxels of its border on each side; its values are limited to the range of the component, or of the slice if slices are
 * resampled by themselves. Linear and cubic give float32; nearest keeps the type. Throws as resample().
 */
export function fitVolume(volume: Volume, grid: Grid, mode: Interpolation, slices?: AxisIndex): Volume {
  checkGrid(grid);
  const { size, affine } = grid;
  const same = size.every((n, axis) => n === volume.size[axis]);
  if (same) return mode === 'nearest' ? volume : convertVolume(volume, 'float32');
  if (mode === 'nearest') return gatherNearest(volume, grid);
  const n = voxelCount(volume);
  const voxels = new Float32Array(voxelCount(grid) * volume.components);
  const all = floatVoxels(volume.voxels);
  for (let c = 0; c < volume.components; c++) {
    const source = all.subarray(c * n, (c + 1) * n) as FloatVoxels;
    const target = voxels.subarray(c * voxelCount(grid), (c + 1) * voxelCount(grid));
    if (slices === undefined) fitWhole(source, volume.size, target, size, mode);
    else fitSlices(source, volume.size, target, size, mode, slices);
  }
  return { voxels, size, components: volume.components, affine };
}

function gatherNearest(volume: Volume, { size, affine }: Grid): Volume {
  const [xs, ys, zs] = size.map((m, axis) =>
    Int32Array.from({ length: m }, (_, i) => nearestPlace(i, volume.size[axis], m)),
  );
  const [nx, ny, nz] = volume.size;
  const voxels = createLike(volume.voxels, voxelCount({ size }) * volume.components);
  const [from, to] = [asWords(volume.voxels), asWords(voxels)];
  let t = 0;
  for (let c = 0; c < volume.components; c++) {
    for (const z of zs) {
      for (const y of ys) {
        const row = ((c * nz + z) * ny + y) * nx;
        for (let x = 0; x < xs.length; x++) to[t++] = from[row + xs[x]];
      }
    }
  }
  return { voxels, size, components: volume.components, affine };
}

/**
 * One component, along all axes. The one that grows most comes last, so that what is between is not larger than the larger of
 * the two volumes.
 */
function fitWhole(source: FloatVoxels, from: Size, target: Float32Array, to: Size, mode: Interpolation) {
  const grown = from.map((n, axis) => to[axis] / n);
  const last = grown.indexOf(Math.max(...grown)) as AxisIndex;
  const flat = to.map((m, axis) => (axis === last ? from[axis] : m)) as unknown as Size;
  const floats = source instanceof Float32Array ? Float32Array : Float64Array;
  const between = to[last] === from[last] ? target : new floats(voxelCount({ size: flat }));
  const planes = openPlanes(source, from, flat, last, mode);
  for (let s = 0; s < from[last]; s++) planes.write(planes.fit(s), between, s);
  if (between !== target) fitAxis(between, flat, target, last, to[last], mode);
  if (mode === 'cubic') limit(target, rangeOf(source));
}

/** One component, slice by slice: each limited to its own range, and written wherever it is the nearest one. */
function fitSlices(
  source: FloatVoxels,
  from: Size,
  target: Float32Array,
  to: Size,
  mode: Interpolation,
  axis: AxisIndex,
) {
  const planes = openPlanes(source, from, to, axis, mode);
  let last = -1;
  let made: Float64Array | undefined;
  for (let t = 0; t < to[axis]; t++) {
    const s = nearestPlace(t, from[axis], to[axis]);
    if (s !== last || !made) {
      made = planes.fit(s);
      if (mode === 'cubic') limit(made, rangeOf(planes.slice));
    }
    last = s;
    planes.write(made, target, t);
  }
}

/** The slices of a volume across an axis, each resampled in its plane, in double. */
function openPlanes(source: FloatVoxels, from: Size, to: Size, across: AxisIndex, mode: Interpolation) {
  const [a, b] = ([0, 1, 2] as const).filter((k) => k !== across);
  const [read, write] = [stridesOf(from), stridesOf(to)];
  const slice = new Float64Array(from[a] * from[b]);
  const wide = new Float64Array(to[a] * from[b]);
  const made = new Float64Array(to[a] * to[b]);
  return {
    /** The voxels of the slice that fit() took. */
    slice,
    /** Slice `s` in its plane; the same memory each time. */
    fit(s: number): Float64Array {
      for (let j = 0, i = 0; j < from[b]; j++) {
        const row = s * read[across] + j * read[b];
        for (let k = 0; k < from[a]; k++) slice[i++] = source[row + k * read[a]];
      }
      fitAxis(slice, [from[a], from[b], 1], wide, 0, to[a], mode);
      fitAxis(wide, [to[a], from[b], 1], made, 1, to[b], mode);
      return made;
    },
    /** Writes a slice as slice `t` of a volume of the size `to`, whatever its extent across. */
    write(values: Float64Array, target: FloatVoxels, t: number): void {
      for (let j = 0, i = 0; j < to[b]; j++) {
        const row = t * write[across] + j * write[b];
        for (let k = 0; k < to[a]; k++) target[row + k * write[a]] = values[i++];
      }
    },
  };
}

const stridesOf = (size: Size): readonly [number, number, number] => [1, size[0], size[0] * size[1]];

/**
 * One axis of a volume: `m` voxels instead of size[axis]. Lines are gathered in blocks [position][line], so that filter and
 * sums run along memory for every axis.
 */
function fitAxis(
  source: FloatVoxels,
  size: Size,
  target: FloatVoxels,
  axis: AxisIndex,
  m: number,
  mode: Interpolation,
): void {
  const n = size[axis];
  if (n === m) {
    target.set(source);
    return;
  }
  const { taps, index, weight } = tapsOf(mode, n, m);
  const border = mode === 'cubic' ? splineBorder : 0;
  const to = size.map((length, k) => (k === axis ? m : length)) as unknown as Size;
  const [read, write] = [stridesOf(size), stridesOf(to)];
  // A block holds the lines of one x-row, or for lines along x those of one plane.
  const across = axis === 0 ? 1 : 0;
  const outer = axis === 2 ? 1 : 2;
  const lines = size[across];
  const block = new Float64Array((n + 2 * border) * lines);
  const made = new Float64Array(lines);
  for (let o = 0; o < size[outer]; o++) {
    const first = o * read[outer];
    for (let i = 0; i < n + 2 * border; i++) {
      const at = first + Math.min(n - 1, Math.max(0, i - border)) * read[axis];
      for (let l = 0; l < lines; l++) block[i * lines + l] = source[at + l * read[across]];
    }
    if (mode === 'cubic') filterLines(block, 0, n + 2 * border, lines, lines, 1);
    for (let i = 0; i < m; i++) {
      made.fill(0);
      for (let k = i * taps; k < (i + 1) * taps; k++) {
        const [from, w] = [index[k] * lines, weight[k]];
        // Voxels of weight zero may be anything, also not finite.
        if (w !== 0) for (let l = 0; l < lines; l++) made[l] += w * block[from + l];
      }
      const at = o * write[outer] + i * write[axis];
      for (let l = 0; l < lines; l++) target[at + l * write[across]] = made[l];
    }
  }
}

/** Least and greatest number; NaN is neither. */
function rangeOf(values: FloatVoxels): [number, number] {
  let [min, max] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (let i = 0; i < values.length; i++) {
    const v = values[i];
    if (v < min) min = v;
    if (v > max) max = v;
  }
  return [min, max];
}

function limit(values: FloatVoxels, [min, max]: readonly [number, number]): void {
  for (let i = 0; i < values.length; i++) {
    if (values[i] < min) values[i] = min;
    else if (values[i] > max) values[i] = max;
  }
}
