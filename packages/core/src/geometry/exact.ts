import { type Grid, type Size, type Volume, type Voxels, voxelCount } from '../volume.ts';
import type { Vec3 } from './affine.ts';
import { applyAffine } from './affine.ts';
import { checkGrid, cropGrid, flippedGrid, indexMap, orientedGrid } from './grid.ts';
import { createLike, fillValue } from './voxel-type.ts';

/*
 * Grid changes that only move voxels: flips, axis permutations, crops, pads. Every voxel is copied bit for bit, for
 * any type.
 */

/** Target index t of axis k comes from source axis `axis[k]`: s = sign[k] · t + offset[axis[k]]. */
export interface VoxelMove {
  readonly axis: readonly [number, number, number];
  readonly sign: readonly [number, number, number];
  readonly offset: readonly [number, number, number];
}

/** The tolerance, in voxels, within which a map counts as integer at a corner. */
const exactVoxels = 1e-3;

/**
 * The map from the voxels of `to` to those of `from`, if it only permutes and flips axes and shifts by whole voxels
 * (to a thousandth of a voxel at every corner, to tolerate float32 headers).
 */
export function voxelMove(from: Grid, to: Grid): VoxelMove | undefined {
  const map = indexMap(from, to);
  const axis: number[] = [];
  const sign: number[] = [];
  for (let row = 0; row < 3; row++) {
    for (let column = 0; column < 3; column++) {
      const whole = Math.round(map[row * 4 + column]);
      if (whole === 0) continue;
      if (Math.abs(whole) !== 1 || axis[column] !== undefined) return undefined;
      axis[column] = row;
      sign[column] = whole;
    }
  }
  if (!axis.includes(0) || !axis.includes(1) || !axis.includes(2)) return undefined;
  const offset = [Math.round(map[3]), Math.round(map[7]), Math.round(map[11])];
  const far = to.size.map((n) => n - 1);
  for (let corner = 0; corner < 8; corner++) {
    const at = [0, 1, 2].map((k) => (corner & (1 << k) ? far[k] : 0));
    const exact = applyAffine(map, [at[0], at[1], at[2]]);
    for (let k = 0; k < 3; k++) {
      if (Math.abs(sign[k] * at[k] + offset[axis[k]] - exact[axis[k]]) > exactVoxels) return undefined;
    }
  }
  return {
    axis: [axis[0], axis[1], axis[2]],
    sign: [sign[0], sign[1], sign[2]],
    offset: [offset[0], offset[1], offset[2]],
  };
}

/** Whether every voxel of `grid` has a source. */
export function coversGrid(volume: Grid, grid: Grid, move: VoxelMove): boolean {
  return [0, 1, 2].every((k) => {
    const first = move.offset[move.axis[k]];
    const last = first + move.sign[k] * (grid.size[k] - 1);
    return Math.min(first, last) >= 0 && Math.max(first, last) < volume.size[move.axis[k]];
  });
}

/** Whether every voxel keeps its index: then the voxels of `from` already are those of `to`. */
export function movesNothing(from: Grid, to: Grid, { axis, sign, offset }: VoxelMove): boolean {
  return [0, 1, 2].every(
    (k) => axis[k] === k && sign[k] === 1 && offset[k] === 0 && from.size[k] === to.size[k],
  );
}

type Words = Uint8Array | Uint16Array | Uint32Array | BigUint64Array;

/** The same memory as unsigned integers of the same width: copies preserve every bit, including NaN payloads. */
export function asWords(voxels: Voxels): Words {
  const { buffer, byteOffset, length, BYTES_PER_ELEMENT: width } = voxels;
  if (width === 1) return new Uint8Array(buffer, byteOffset, length);
  if (width === 2) return new Uint16Array(buffer, byteOffset, length);
  if (width === 4) return new Uint32Array(buffer, byteOffset, length);
  return new BigUint64Array(buffer, byteOffset, length);
}

/** Side of the tiles for copying rows that run across memory. */
const tile = 32;

/** The voxels of `volume` on `grid`, each copied unchanged; `fill` outside the volume. */
export function moveVoxels(volume: Volume, grid: Grid, move: VoxelMove, fill = 0): Volume {
  checkGrid(grid);
  const n = voxelCount(grid);
  const voxels = createLike(volume.voxels, n * volume.components);
  const value = fillValue(voxels, fill);
  const strides = [1, volume.size[0], volume.size[0] * volume.size[1]];
  const step = [0, 1, 2].map((k) => move.sign[k] * strides[move.axis[k]]);
  // The range of target indices, from the first to one past the last, that have a source.
  const range = [0, 1, 2].map((k) => {
    const length = volume.size[move.axis[k]];
    const offset = move.offset[move.axis[k]];
    const [a, b] = move.sign[k] > 0 ? [-offset, length - offset] : [offset - length + 1, offset + 1];
    return [Math.max(0, a), Math.min(grid.size[k], b)] as const;
  });
  const empty = range.some(([a, b]) => a >= b);
  const whole = range.every(([a, b], k) => a === 0 && b === grid.size[k]);
  if (!whole && value !== 0 && value !== 0n) (voxels as Uint8Array).fill(value as number);
  if (!empty) {
    const start = move.offset[0] + move.offset[1] * strides[1] + move.offset[2] * strides[2];
    const from = asWords(volume.voxels);
    const to = asWords(voxels);
    for (let c = 0; c < volume.components; c++) {
      const source = start + c * voxelCount(volume);
      if (step[0] === 1) copyRows(from, to, source, c * n, step, range, grid.size);
      else copyTiles(from, to, source, c * n, step, range, grid.size);
    }
  }
  return { voxels, size: grid.size, components: volume.components, affine: grid.affine };
}

type Ranges = readonly (readonly [number, number])[];

function copyRows(
  from: Words,
  to: Words,
  source: number,
  target: number,
  step: number[],
  range: Ranges,
  size: Size,
) {
  const [[xa, xb], [ya, yb], [za, zb]] = range;
  for (let z = za; z < zb; z++) {
    for (let y = ya; y < yb; y++) {
      const s = source + z * step[2] + y * step[1];
      const row = from.subarray(s + xa, s + xb);
      // Both have the same type, which TypeScript cannot express.
      (to as Uint8Array).set(row as Uint8Array, target + (z * size[1] + y) * size[0] + xa);
    }
  }
}

/** In tiles of the target's x axis and the axis along the source's rows, so that both stay in the cache. */
function copyTiles(
  from: Words,
  to: Words,
  source: number,
  target: number,
  step: number[],
  range: Ranges,
  size: Size,
) {
  const targetStep = [1, size[0], size[0] * size[1]];
  const inner = Math.abs(step[2]) === 1 ? 2 : 1;
  const outer = 3 - inner;
  const [xa, xb] = range[0];
  const [ia, ib] = range[inner];
  for (let o = range[outer][0]; o < range[outer][1]; o++) {
    for (let i0 = ia; i0 < ib; i0 += tile) {
      const i1 = Math.min(ib, i0 + tile);
      for (let x0 = xa; x0 < xb; x0 += tile) {
        const x1 = Math.min(xb, x0 + tile);
        for (let i = i0; i < i1; i++) {
          const s = source + o * step[outer] + i * step[inner];
          const t = target + o * targetStep[outer] + i * targetStep[inner];
          copyStrided(from, to, s + x0 * step[0], t + x0, step[0], x1 - x0);
        }
      }
    }
  }
}

function copyStrided(from: Words, to: Words, s: number, t: number, step: number, count: number) {
  if (from instanceof Uint16Array) copyStrided16(from, to as Uint16Array, s, t, step, count);
  else if (from instanceof Uint8Array) copyStrided8(from, to as Uint8Array, s, t, step, count);
  else if (from instanceof Uint32Array) copyStrided32(from, to as Uint32Array, s, t, step, count);
  else for (let x = 0; x < count; x++) to[t + x] = from[s + x * step];
}

// One function for each width: a loop over several kinds of array is several times slower.
function copyStrided8(from: Uint8Array, to: Uint8Array, s: number, t: number, step: number, count: number) {
  for (let x = 0; x < count; x++) to[t + x] = from[s + x * step];
}
function copyStrided16(
  from: Uint16Array,
  to: Uint16Array,
  s: number,
  t: number,
  step: number,
  count: number,
) {
  for (let x = 0; x < count; x++) to[t + x] = from[s + x * step];
}
function copyStrided32(
  from: Uint32Array,
  to: Uint32Array,
  s: number,
  t: number,
  step: number,
  count: number,
) {
  for (let x = 0; x < count; x++) to[t + x] = from[s + x * step];
}

/**
 * The volume with its axes permuted and flipped to match an orientation such as "RAS" or "LIA" (axis k points to the
 * k-th letter). Every voxel keeps its value, bit for bit, and its world position. A volume that already has this
 * orientation is returned unchanged. Throws BAD_INPUT for other letters.
 */
export function reorient(volume: Volume, axcodes: string): Volume {
  return onto(volume, orientedGrid(volume, axcodes));
}

/** The volume with some axes reversed; every voxel keeps its value and its world position. */
export function flip(volume: Volume, axes: readonly ('x' | 'y' | 'z')[]): Volume {
  return onto(volume, flippedGrid(volume, axes));
}

function onto(volume: Volume, grid: Grid): Volume {
  const move = voxelMove(volume, grid);
  if (!move) throw new Error('a permutation of axes was expected');
  if (movesNothing(volume, grid, move)) return volume;
  return moveVoxels(volume, grid, move);
}

export interface PadOptions {
  /** The voxels outside the volume: one value, its outermost voxels repeated, or its mirror image (numpy's "reflect"). */
  mode?: 'constant' | 'edge' | 'reflect';
  /** For 'constant', default 0; rounded and clamped to the voxel type. */
  value?: number;
}

/**
 * `size` voxels from voxel index `start`, which may be negative; the end may be beyond the volume. Voxels inside the
 * volume are copied exactly and keep their world positions.
 */
export function cropOrPad(volume: Volume, start: Vec3, size: Size, options: PadOptions = {}): Volume {
  const grid = checkGrid(cropGrid(volume, start, size));
  const { mode = 'constant', value = 0 } = options;
  if (mode === 'constant') {
    return moveVoxels(
      volume,
      grid,
      { axis: [0, 1, 2], sign: [1, 1, 1], offset: start as [number, number, number] },
      value,
    );
  }
  const index = [0, 1, 2].map((k) =>
    Int32Array.from({ length: size[k] }, (_, i) => outsideIndex(i + start[k], volume.size[k], mode)),
  );
  const [nx, ny, nz] = volume.size;
  const voxels = createLike(volume.voxels, voxelCount(grid) * volume.components);
  const from = asWords(volume.voxels);
  const to = asWords(voxels);
  let t = 0;
  for (let c = 0; c < volume.components; c++) {
    for (let z = 0; z < size[2]; z++) {
      for (let y = 0; y < size[1]; y++) {
        const s = ((c * nz + index[2][z]) * ny + index[1][y]) * nx;
        for (let x = 0; x < size[0]; x++) to[t++] = from[s + index[0][x]];
      }
    }
  }
  return { voxels, size, components: volume.components, affine: grid.affine };
}

function outsideIndex(i: number, n: number, mode: 'edge' | 'reflect'): number {
  if (mode === 'edge' || n === 1) return Math.min(n - 1, Math.max(0, i));
  const period = 2 * n - 2;
  const k = ((i % period) + period) % period;
  return k < n ? k : period - k;
}
