import {
  type AppContext,
  componentOf,
  type InputValue,
  numericVoxels,
  type Volume,
  voxelCount,
} from '@tomaat/core';

/** The volume arrives smoothed and scaled to 0 … 1, as the manifest specifies. */
export function infer(inputs: Readonly<Record<string, InputValue>>, { parameters }: AppContext) {
  const volume = componentOf(inputs.volume as Volume, 0);
  const source = numericVoxels(volume.voxels);
  const level = parameters.level as number;
  const voxels = new Uint8Array(voxelCount(volume));
  for (let i = 0; i < voxels.length; i++) if (source[i] > level) voxels[i] = 1;
  return { segmentation: { ...volume, voxels } };
}
