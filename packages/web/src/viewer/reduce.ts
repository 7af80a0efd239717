import { type Affine, type Grid, numericVoxels, type Vec3, type Volume, voxelCount } from '@tomaat/core';

/* A scan with fewer voxels: what is drawn of it at first. */

export type Voxels = ReturnType<typeof numericVoxels>;

/** The least and the greatest of all voxels; 0 and 0 if none is finite. */
export interface Range {
  readonly lowest: number;
  readonly highest: number;
}

export const firstComponent = (volume: Volume): Voxels =>
  numericVoxels(volume.voxels.subarray(0, voxelCount(volume)) as Volume['voxels']);

/** The least power of two by which a grid has to be divided along each axis so that it has at most `maxVoxels` voxels. */
export function factorFor(size: Vec3, maxVoxels: number): number {
  let factor = 1;
  while (voxelCount({ size: reducedSize(size, factor) }) > maxVoxels) factor *= 2;
  return factor;
}

const reducedSize = (size: Vec3, factor: number): Vec3 =>
  size.map((n) => Math.ceil(n / factor)) as [number, number, number];

/**
 * The grid whose voxels are blocks of `factor`³ voxels: the world position of a centre (RAS+ mm) is the mean of those
 * of its block. The last block along an axis may reach beyond the volume.
 */
export function reducedGrid({ size, affine }: Grid, factor: number): { size: Vec3; affine: Affine } {
  const middle = (factor - 1) / 2;
  const rows = [0, 1, 2].flatMap((row) => {
    const [x, y, z, shift] = affine.slice(4 * row, 4 * row + 4);
    return [x * factor, y * factor, z * factor, shift + middle * (x + y + z)];
  });
  return { size: reducedSize(size, factor), affine: [...rows, 0, 0, 0, 1] as unknown as Affine };
}

/** The mean of each block, of the first component, on `reducedGrid()`. */
export const reduceVolume = (volume: Volume, factor: number): Volume => reduce(volume, factor).reduced;

/** The same with the range of all voxels. */
export function reduce(volume: Volume, factor: number): { reduced: Volume; range: Range } {
  const whole = firstComponent(volume);
  if (factor === 1) {
    const reduced = { ...volume, components: 1, voxels: whole as Volume['voxels'] };
    return { reduced, range: rangeOf(whole) };
  }
  const reducer = createReducer(volume, factor);
  reducer.add(whole);
  return reducer.finish();
}

/** Takes a volume in slabs, which need not be there at once. */
export interface Reducer {
  /** The next planes along the third axis: a multiple of the factor, but for the last. */
  add(planes: Voxels): void;
  finish(): { reduced: Volume; range: Range };
}

/** Reads each voxel once, for its block's mean and for the range: a scan may have 100 million. */
export function createReducer(whole: Grid, factor: number): Reducer {
  const [nx, ny] = whole.size;
  const grid = reducedGrid(whole, factor);
  const [mx, my, mz] = grid.size;
  let voxels: Voxels | undefined;
  let isFloat = false;
  /** Sums along the second and the third axis of the blocks of a row. */
  const sums = new Float64Array(nx);
  const found = new Float64Array([Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]);
  let out = 0;
  return {
    add(planes) {
      voxels ??= new (planes.constructor as Float32ArrayConstructor)(mx * my * mz);
      isFloat = planes instanceof Float32Array || planes instanceof Float64Array;
      const nz = planes.length / (nx * ny);
      for (let z = 0; z < nz; z += factor) {
        for (let y = 0; y < ny; y += factor) {
          const [y1, z1] = [Math.min(y + factor, ny), Math.min(z + factor, nz)];
          sums.fill(0);
          for (let k = z; k < z1; k++) {
            for (let j = y; j < y1; j++) addRow(sums, planes, nx * (j + ny * k), found);
          }
          const rows = (y1 - y) * (z1 - z);
          for (let x = 0; x < nx; ) {
            const end = Math.min(x + factor, nx);
            const count = (end - x) * rows;
            let sum = 0;
            while (x < end) sum += sums[x++];
            const mean = sum / count;
            voxels[out++] = isFloat ? mean : Math.round(mean);
          }
        }
      }
    },
    finish() {
      const [lowest, highest] = found;
      return {
        reduced: { ...grid, components: 1, voxels: voxels as Volume['voxels'] },
        range: lowest > highest ? { lowest: 0, highest: 0 } : { lowest, highest },
      };
    },
  };
}

/** Adds the row that begins at an index, and widens the range by its values. */
function addRow(sums: Float64Array, planes: Voxels, from: number, range: Float64Array): void {
  let lowest = range[0];
  let highest = range[1];
  for (let x = 0; x < sums.length; x++) {
    const value = planes[from + x];
    sums[x] += value;
    if (value < lowest && value !== Number.NEGATIVE_INFINITY) lowest = value;
    if (value > highest && value !== Number.POSITIVE_INFINITY) highest = value;
  }
  range[0] = lowest;
  range[1] = highest;
}

/** Values that are not finite do not count. */
export function rangeOf(voxels: Voxels): Range {
  let lowest = Number.POSITIVE_INFINITY;
  let highest = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < voxels.length; i++) {
    const value = voxels[i];
    if (value < lowest && value !== Number.NEGATIVE_INFINITY) lowest = value;
    if (value > highest && value !== Number.POSITIVE_INFINITY) highest = value;
  }
  return lowest > highest ? { lowest: 0, highest: 0 } : { lowest, highest };
}
