import { type Affine, numericVoxels, type Vec3, type Volume, voxelCount } from '@tomaat/core';
import { toNifti } from '../form/scan.ts';

/* What the viewer draws of a volume, computed apart from NiiVue and from the page: in a worker where the volume is large. */

/** `mean` for values, `nearest` for labels, which have no mean. */
export type Reduction = 'mean' | 'nearest';

export interface Prepared {
  /** NIfTI, on the reduced grid. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Of all voxels, before the reduction. */
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

/** The first component on `reducedGrid()`: the mean of a block, or the voxel in its middle (the upper of two). */
export function reduceVolume(volume: Volume, factor: number, by: Reduction): Volume {
  const whole = numericVoxels(volume.voxels.subarray(0, voxelCount(volume)) as Volume['voxels']);
  if (factor === 1) return { ...volume, components: 1, voxels: whole as Volume['voxels'] };
  const [nx, ny, nz] = volume.size;
  const grid = reducedGrid(volume, factor);
  const [mx, my, mz] = grid.size;
  const voxels = new (whole.constructor as Float32ArrayConstructor)(mx * my * mz);
  const isFloat = whole instanceof Float32Array || whole instanceof Float64Array;
  const middle = factor >> 1;
  let out = 0;
  for (let z = 0; z < mz; z++) {
    for (let y = 0; y < my; y++) {
      for (let x = 0; x < mx; x++, out++) {
        const [x0, y0, z0] = [x * factor, y * factor, z * factor];
        if (by === 'nearest') {
          const at = (start: number, n: number) => Math.min(start + middle, n - 1);
          voxels[out] = whole[at(x0, nx) + nx * (at(y0, ny) + ny * at(z0, nz))];
          continue;
        }
        const [x1, y1, z1] = [
          Math.min(x0 + factor, nx),
          Math.min(y0 + factor, ny),
          Math.min(z0 + factor, nz),
        ];
        let sum = 0;
        for (let k = z0; k < z1; k++) {
          for (let j = y0; j < y1; j++) {
            const row = nx * (j + ny * k);
            for (let i = x0; i < x1; i++) sum += whole[row + i];
          }
        }
        const mean = sum / ((x1 - x0) * (y1 - y0) * (z1 - z0));
        voxels[out] = isFloat ? mean : Math.round(mean);
      }
    }
  }
  return { ...grid, components: 1, voxels: voxels as Volume['voxels'] };
}

/** What the viewer is given of a volume. Values that are not finite do not count for the range. */
export async function prepare(volume: Volume, factor: number, by: Reduction): Promise<Prepared> {
  const reduced = reduceVolume(volume, factor, by);
  const count = voxelCount(volume);
  const voxels =
    factor === 1
      ? (reduced.voxels as Float32Array)
      : numericVoxels(volume.voxels.subarray(0, count) as Volume['voxels']);
  let lowest = Number.POSITIVE_INFINITY;
  let highest = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < count; i++) {
    const value = voxels[i];
    if (value < lowest && value !== Number.NEGATIVE_INFINITY) lowest = value;
    if (value > highest && value !== Number.POSITIVE_INFINITY) highest = value;
  }
  if (lowest > highest) lowest = highest = 0;
  return { bytes: await toNifti(reduced), lowest, highest };
}
