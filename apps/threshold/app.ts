import { type AppContext, componentOf, type InputValue, numericVoxels, type Volume, voxelCount } from '@tomaat/core';

interface Data {
  volume: Volume;
  threshold: number;
}

/** The mean of all finite voxels, times the factor. */
export function preprocess(inputs: Readonly<Record<string, InputValue>>, { parameters }: AppContext): Data {
  const volume = componentOf(inputs.volume as Volume, 0);
  const voxels = numericVoxels(volume.voxels);
  let sum = 0;
  let count = 0;
  for (let i = 0; i < voxels.length; i++) {
    if (!Number.isFinite(voxels[i])) continue;
    sum += voxels[i];
    count++;
  }
  return { volume, threshold: (sum / Math.max(1, count)) * (parameters.factor as number) };
}

export function infer({ volume, threshold }: Data): Volume {
  const source = numericVoxels(volume.voxels);
  const voxels = new Uint8Array(voxelCount(volume));
  for (let i = 0; i < voxels.length; i++) if (source[i] > threshold) voxels[i] = 1;
  return { ...volume, voxels };
}

export function postprocess(segmentation: Volume) {
  return { segmentation };
}
