import {
  type Affine,
  type Grid,
  invert,
  multiply,
  numericVoxels,
  sameGrid,
  type Vec3,
  type Volume,
  voxelCount,
} from '@tomaat/core';
import { toNifti } from '../form/scan.ts';

/* What the viewer draws of a volume, computed apart from NiiVue and from the page: in a worker where the volume is large. */

/** How voxels become those that are drawn. */
export type Reduction =
  /** Means of blocks of `factor`³ voxels, for values. */
  | { readonly kind: 'mean'; readonly factor: number }
  /** Labels, which have no mean, on the grid that is drawn. */
  | { readonly kind: 'labels'; readonly grid: Grid };

export interface Prepared {
  /** NIfTI, on the reduced grid. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Of all voxels of a scan, before the reduction. */
  readonly lowest: number;
  readonly highest: number;
}

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
export function reducedGrid(
  { size, affine }: Pick<Volume, 'size' | 'affine'>,
  factor: number,
): { size: Vec3; affine: Affine } {
  const middle = (factor - 1) / 2;
  const rows = [0, 1, 2].flatMap((row) => {
    const [x, y, z, shift] = affine.slice(4 * row, 4 * row + 4);
    return [x * factor, y * factor, z * factor, shift + middle * (x + y + z)];
  });
  return { size: reducedSize(size, factor), affine: [...rows, 0, 0, 0, 1] as unknown as Affine };
}

/** The mean of each block, of the first component, on `reducedGrid()`. */
export const reduceVolume = (volume: Volume, factor: number): Volume => reduce(volume, factor).reduced;

/** The same with the range of all voxels, in one pass: a scan of 100 million voxels is read only once. */
function reduce(volume: Volume, factor: number): { reduced: Volume; range: Range } {
  const whole = firstComponent(volume);
  if (factor === 1) {
    return {
      reduced: { ...volume, components: 1, voxels: whole as Volume['voxels'] },
      range: rangeOf(whole),
    };
  }
  const [nx, ny, nz] = volume.size;
  const grid = reducedGrid(volume, factor);
  const [mx, my, mz] = grid.size;
  const voxels = new (whole.constructor as Float32ArrayConstructor)(mx * my * mz);
  const isFloat = whole instanceof Float32Array || whole instanceof Float64Array;
  const sums = new Float64Array(mx);
  let [lowest, highest] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (let z = 0; z < mz; z++) {
    const [z0, z1] = [z * factor, Math.min(z * factor + factor, nz)];
    for (let y = 0; y < my; y++) {
      const [y0, y1] = [y * factor, Math.min(y * factor + factor, ny)];
      sums.fill(0);
      for (let k = z0; k < z1; k++) {
        for (let j = y0; j < y1; j++) {
          const row = nx * (j + ny * k);
          let at = row;
          for (let x = 0; x < mx; x++) {
            const end = row + Math.min(x * factor + factor, nx);
            let sum = 0;
            while (at < end) {
              const value = whole[at++];
              sum += value;
              if (value < lowest) lowest = value;
              if (value > highest) highest = value;
            }
            sums[x] += sum;
          }
        }
      }
      const out = mx * (y + my * z);
      for (let x = 0; x < mx; x++) {
        const mean = sums[x] / ((Math.min(x * factor + factor, nx) - x * factor) * (y1 - y0) * (z1 - z0));
        voxels[out + x] = isFloat ? mean : Math.round(mean);
      }
    }
  }
  const hasRange = Number.isFinite(lowest) && Number.isFinite(highest);
  return {
    reduced: { ...grid, components: 1, voxels: voxels as Volume['voxels'] },
    range: hasRange ? { lowest, highest } : rangeOf(whole),
  };
}

/**
 * A label map on another grid, on which no label vanishes. A voxel has the label of the nearest voxel of the map, or,
 * before that, a label of which a voxel's centre lies in it: where there are several, the one with the fewest voxels
 * in the map. Of the first component; the same voxels if the grid is the map's.
 */
export function labelsOn(map: Volume, { size, affine }: Grid): Volume {
  const whole = firstComponent(map);
  if (sameGrid(map, { size, affine })) return { ...map, components: 1, voxels: whole as Volume['voxels'] };
  const voxels = new (whole.constructor as Float32ArrayConstructor)(voxelCount({ size }));
  const grid = { size, affine };
  fillNearest(voxels, grid, whole, map);
  const counts = countLabels(whole);
  const [nx, ny, nz] = map.size;
  const [mx, my, mz] = size;
  const m = multiply(invert(affine), map.affine);
  let from = 0;
  for (let z = 0; z < nz; z++) {
    for (let y = 0; y < ny; y++) {
      for (let x = 0; x < nx; x++) {
        const value = whole[from++];
        if (!(value > 0 || value < 0)) continue;
        const i = Math.round(m[0] * x + m[1] * y + m[2] * z + m[3]);
        const j = Math.round(m[4] * x + m[5] * y + m[6] * z + m[7]);
        const k = Math.round(m[8] * x + m[9] * y + m[10] * z + m[11]);
        if (!(i >= 0 && j >= 0 && k >= 0 && i < mx && j < my && k < mz)) continue;
        const at = i + mx * (j + my * k);
        const other = voxels[at];
        if (other === value) continue;
        if (other === 0 || counts.get(value)! < counts.get(other)!) voxels[at] = value;
      }
    }
  }
  return { ...grid, components: 1, voxels: voxels as Volume['voxels'] };
}

/** Fills a grid with the nearest voxels of a map, where it has any. */
function fillNearest(out: Voxels, grid: Grid, whole: Voxels, map: Grid): void {
  const [nx, ny, nz] = map.size;
  const [mx, my, mz] = grid.size;
  const m = multiply(invert(map.affine), grid.affine);
  let at = 0;
  for (let z = 0; z < mz; z++) {
    for (let y = 0; y < my; y++) {
      for (let x = 0; x < mx; x++, at++) {
        const i = Math.round(m[0] * x + m[1] * y + m[2] * z + m[3]);
        const j = Math.round(m[4] * x + m[5] * y + m[6] * z + m[7]);
        const k = Math.round(m[8] * x + m[9] * y + m[10] * z + m[11]);
        if (!(i >= 0 && j >= 0 && k >= 0 && i < nx && j < ny && k < nz)) continue;
        const value = whole[i + nx * (j + ny * k)];
        if (value > 0 || value < 0) out[at] = value;
      }
    }
  }
}

function countLabels(whole: Voxels): Map<number, number> {
  const counts = new Map<number, number>();
  for (let i = 0; i < whole.length; ) {
    const value = whole[i];
    const start = i++;
    while (i < whole.length && whole[i] === value) i++;
    counts.set(value, (counts.get(value) ?? 0) + i - start);
  }
  return counts;
}

type Voxels = ReturnType<typeof numericVoxels>;

const firstComponent = (volume: Volume): Voxels =>
  numericVoxels(volume.voxels.subarray(0, voxelCount(volume)) as Volume['voxels']);

/** What the viewer is given of a volume. Values that are not finite do not count for the range. */
export async function prepare(volume: Volume, by: Reduction): Promise<Prepared> {
  if (by.kind === 'labels') {
    const labels = labelsOn(volume, by.grid);
    return { bytes: await toNifti(labels), ...rangeOf(firstComponent(labels)) };
  }
  const { reduced, range } = reduce(volume, by.factor);
  return { bytes: await toNifti(reduced), ...range };
}

interface Range {
  readonly lowest: number;
  readonly highest: number;
}

function rangeOf(voxels: Voxels): Range {
  let lowest = Number.POSITIVE_INFINITY;
  let highest = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < voxels.length; i++) {
    const value = voxels[i];
    if (value < lowest && value !== Number.NEGATIVE_INFINITY) lowest = value;
    if (value > highest && value !== Number.POSITIVE_INFINITY) highest = value;
  }
  return lowest > highest ? { lowest: 0, highest: 0 } : { lowest, highest };
}
