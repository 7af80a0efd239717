import { TomaatError } from '../errors.ts';
import { createVoxels, type Grid, type Volume, type VoxelType, voxelCount, voxelTypeOf } from '../volume.ts';
import { asWords, coversGrid, moveVoxels, voxelMove } from './exact.ts';
import { checkGrid, indexMap } from './grid.ts';
import {
  type FloatVoxels,
  type Interpolation,
  type Line,
  layOut,
  type Positions,
  sampleCubicRow,
  sampleLinearLine,
  sampleLinearRow,
  sampleNearestLine,
  sampleNearestRow,
  splineCoefficients,
} from './sample.ts';
import { convertVolume, createLike, fillValue, floatVoxels, storeValues } from './voxel-type.ts';

export {
  resampleArgmax,
  resampleComposed,
  resampleForeground,
  resampleThreshold,
} from './resample-scores.ts';
export { type Interpolation, interpolations } from './sample.ts';

export interface ResampleOptions {
  /** Default 'linear', or 'nearest' for label maps. */
  mode?: Interpolation;
  /** The value outside the source, default 0. */
  fill?: number;
  /** The voxels are labels: only 'nearest' is allowed, and is the default. */
  label?: boolean;
  /** 'edge' uses the nearest border voxel's value everywhere outside, instead of `fill`. */
  outside?: 'fill' | 'edge';
  /**
   * Type of the result. Default: the source's for 'nearest'; otherwise float64 for float64 and integers of 32 bits or
   * more, and float32 for the rest. Integer types are rounded (halves up) and clamped; they never wrap around.
   */
  type?: VoxelType;
}

/**
 * The volume sampled on another grid: every voxel of the result has the value of its world position in the source,
 * all components, any affines (oblique, left-handed, sheared).
 *
 * Positions up to half a voxel outside the outermost centres, i.e. within the field of view, have the value of the
 * border; beyond that, `fill`. With 'nearest', a position halfway between two voxels uses the higher index. When the
 * grids differ by flips, permutations and whole voxels only, values are copied (bit for bit if the type is kept).
 * Otherwise non-finite voxels spread to those interpolated from them.
 *
 * Throws BAD_INPUT (invalid options or affines), TOO_MANY_VOXELS.
 */
export function resample(volume: Volume, grid: Grid, options: ResampleOptions = {}): Volume {
  checkGrid(grid);
  const { type } = settle(volume, options);
  const move = voxelMove(volume, grid);
  if (move && (options.outside !== 'edge' || coversGrid(volume, grid, move))) {
    return moveVoxels(convertVolume(volume, type), grid, move, options.fill);
  }
  const map = indexMap(volume, grid);
  const line = { start: new Float64Array(3), step: Float64Array.of(map[0], map[4], map[8]) };
  return sampleRows(volume, grid, options, line, (y, z) => {
    for (let k = 0; k < 3; k++) line.start[k] = map[4 * k + 1] * y + map[4 * k + 2] * z + map[4 * k + 3];
  });
}

function settle(volume: Volume, options: ResampleOptions): { mode: Interpolation; type: VoxelType } {
  const mode = options.mode ?? (options.label ? 'nearest' : 'linear');
  if (options.label && mode !== 'nearest') {
    throw new TomaatError('BAD_INPUT', `Labels cannot be interpolated (mode "${mode}"). Use "nearest".`);
  }
  const own = voxelTypeOf(volume.voxels);
  const wide = ['float64', 'int32', 'uint32', 'int64', 'uint64'].includes(own) ? 'float64' : 'float32';
  return { mode, type: options.type ?? (mode === 'nearest' ? own : wide) };
}

/**
 * Like resample(), with the positions given by a function: it fills `at` with the source's voxel coordinates for the
 * row (y, z) of the grid.
 */
export function sampleAt(
  volume: Volume,
  grid: Grid,
  options: ResampleOptions,
  positionsOfRow: (y: number, z: number, at: Positions) => void,
): Volume {
  const n = checkGrid(grid).size[0];
  const at = { px: new Float64Array(n), py: new Float64Array(n), pz: new Float64Array(n) };
  return sampleRows(volume, grid, options, at, (y, z) => positionsOfRow(y, z, at));
}

/** Samples row by row: `place` writes the positions of row (y, z) into `where`. */
function sampleRows(
  volume: Volume,
  grid: Grid,
  options: ResampleOptions,
  where: Positions | Line,
  place: (y: number, z: number) => void,
): Volume {
  const { mode, type } = settle(volume, options);
  const n = voxelCount(grid);
  const sourceCount = voxelCount(volume);
  const { size, components } = volume;
  const own = type === voxelTypeOf(volume.voxels);
  const voxels = own ? createLike(volume.voxels, n * components) : createVoxels(type, n * components);
  const [nx, ny, nz] = grid.size;
  const edge = options.outside === 'edge';
  const fill = options.fill ?? 0;
  const line = 'step' in where ? where : undefined;
  const at =
    'step' in where
      ? { px: new Float64Array(nx), py: new Float64Array(nx), pz: new Float64Array(nx) }
      : where;
  const rows = (each: (target: number) => void) => {
    for (let z = 0; z < nz; z++) {
      for (let y = 0; y < ny; y++) {
        place(y, z);
        each((z * ny + y) * nx);
      }
    }
  };
  const index = new Int32Array(nx);
  const findNearest = () => {
    if (line) sampleNearestLine(index, nx, size, line, edge);
    else sampleNearestRow(index, nx, size, at, edge);
  };

  if (mode === 'nearest' && own) {
    const from = asWords(volume.voxels);
    const to = asWords(voxels);
    const one = createLike(volume.voxels, 1);
    one[0] = fillValue(voxels, fill);
    const empty = asWords(one)[0];
    rows((target) => {
      findNearest();
      for (let c = 0; c < components; c++) gather(from, to, c * sourceCount, c * n + target, index, empty);
    });
    return { voxels, size: grid.size, components, affine: grid.affine };
  }

  const row = new Float64Array(nx);
  const direct = voxels instanceof Float32Array || voxels instanceof Float64Array ? voxels : undefined;
  const all = floatVoxels(volume.voxels);
  const sources = Array.from({ length: components }, (_, c) => {
    const source = all.subarray(c * sourceCount, (c + 1) * sourceCount) as FloatVoxels;
    return mode === 'cubic' ? splineCoefficients(source, size) : source;
  });
  rows((target) => {
    if (mode === 'nearest') findNearest();
    if (mode === 'cubic' && line) layOut(line, nx, at);
    for (let c = 0; c < components; c++) {
      const source = sources[c];
      const t = c * n + target;
      if (mode === 'linear' && line && direct) {
        sampleLinearLine(direct, t, nx, source, size, line, fill, edge);
        continue;
      }
      if (mode === 'cubic') sampleCubicRow(row, nx, source, size, at, fill, edge);
      else if (mode === 'nearest')
        for (let x = 0; x < nx; x++) row[x] = index[x] < 0 ? fill : source[index[x]];
      else if (line) sampleLinearLine(row, 0, nx, source, size, line, fill, edge);
      else sampleLinearRow(row, nx, source, size, at, fill, edge);
      storeValues(voxels, t, row, nx);
    }
  });
  return { voxels, size: grid.size, components, affine: grid.affine };
}

type Words = ReturnType<typeof asWords>;

function gather(from: Words, to: Words, s: number, t: number, index: Int32Array, empty: number | bigint) {
  if (from instanceof Uint8Array) gather8(from, to as Uint8Array, s, t, index, empty as number);
  else if (from instanceof Uint16Array) gather16(from, to as Uint16Array, s, t, index, empty as number);
  else if (from instanceof Uint32Array) gather32(from, to as Uint32Array, s, t, index, empty as number);
  else for (let x = 0; x < index.length; x++) to[t + x] = index[x] < 0 ? empty : from[s + index[x]];
}

// One function for each width: a loop over several kinds of array is several times slower.
function gather8(from: Uint8Array, to: Uint8Array, s: number, t: number, index: Int32Array, empty: number) {
  for (let x = 0; x < index.length; x++) to[t + x] = index[x] < 0 ? empty : from[s + index[x]];
}
function gather16(
  from: Uint16Array,
  to: Uint16Array,
  s: number,
  t: number,
  index: Int32Array,
  empty: number,
) {
  for (let x = 0; x < index.length; x++) to[t + x] = index[x] < 0 ? empty : from[s + index[x]];
}
function gather32(
  from: Uint32Array,
  to: Uint32Array,
  s: number,
  t: number,
  index: Int32Array,
  empty: number,
) {
  for (let x = 0; x < index.length; x++) to[t + x] = index[x] < 0 ? empty : from[s + index[x]];
}
