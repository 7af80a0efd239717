import { type InputValue, numericVoxels, type Volume } from '@tomaat/core';

/** A mask of what is above 200 in the first volume, and what both are in words. */
export async function infer(inputs: Readonly<Record<string, InputValue>>) {
  const [fixed, moving] = [inputs.fixed as Volume, inputs.moving as Volume];
  const described = (volume: Volume) => `${volume.size.join(' × ')}, first voxel ${volume.voxels[0]}`;
  return {
    mask: {
      ...fixed,
      voxels: Uint8Array.from(numericVoxels(fixed.voxels), (value) => (value > 200 ? 1 : 0)),
    },
    report: `fixed ${described(fixed)}\nmoving ${described(moving)}\n`,
  };
}
