import { fillHoles } from '../labels/components.ts';
import { numericVoxels, type Volume, voxelCount } from '../volume.ts';

/**
 * nnU-Net's foreground (nnunetv2 create_nonzero_mask): 1 at each voxel that is not 0 in at least one component, or that
 * such voxels enclose, else 0. Enclosed means that no path through faces of voxels leads to the border of the volume
 * (scipy.ndimage.binary_fill_holes).
 *
 * It is the same within a crop to its box as in the whole volume: what is enclosed has foreground on all sides, so it
 * neither reaches the border of the box nor is more enclosed there. So every step computes it of the volume at hand, and no
 * mask travels along.
 */
export function foregroundMask(volume: Volume): Uint8Array {
  const n = voxelCount(volume);
  const voxels = numericVoxels(volume.voxels);
  const mask = new Uint8Array(n);
  // A piece at a time as float64, so that the loop meets one kind of array; NaN is not 0.
  const values = new Float64Array(Math.min(n, 16_384));
  for (let start = 0; start < voxels.length; ) {
    const first = start % n;
    const count = Math.min(values.length, n - first);
    values.set(voxels.subarray(start, start + count));
    for (let i = 0; i < count; i++) if (values[i] !== 0) mask[first + i] = 1;
    start += count;
  }
  const { size, affine } = volume;
  return fillHoles({ voxels: mask, size, affine, components: 1 }, { connectivity: 6 }).voxels as Uint8Array;
}
