import { TomaatError } from '../errors.ts';
import { sameGrid } from '../geometry/grid.ts';
import { resample } from '../geometry/resample.ts';
import { componentOf, numericVoxels, type SuvScale, type Volume, voxelCount } from '../volume.ts';

/** No factor holds for channels that are different images. */
const stackedSuv: SuvScale = {
  refusal:
    'No SUV can be computed of several volumes as channels of one: the author of the app must list standardUptakeValue in the steps of the PET (inputs.NAME.preprocess)',
};

/**
 * Volumes as the channels of one, all on the grid of the first (linear).
 *
 * @throws TomaatError BAD_INPUT for a volume with several components
 */
export function stackVolumes(volumes: readonly Volume[]): Volume {
  const [first, ...others] = volumes;
  if (others.length === 0) return first;
  if (volumes.some((volume) => volume.components !== 1)) {
    throw new TomaatError(
      'BAD_INPUT',
      'One of the volumes has several components per voxel, but each is one channel of the network. Send volumes with one component.',
    );
  }
  const n = voxelCount(first);
  const voxels = new Float32Array(n * volumes.length);
  for (const [channel, volume] of volumes.entries()) {
    const aligned = sameGrid(volume, first) ? volume : resample(volume, first, { mode: 'linear' });
    voxels.set(numericVoxels(componentOf(aligned, 0).voxels), channel * n);
  }
  const suv = volumes.some((volume) => volume.suv) ? { suv: stackedSuv } : {};
  return { voxels, size: first.size, affine: first.affine, components: volumes.length, ...suv };
}
