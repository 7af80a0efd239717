import {
  type AppContext,
  buildSurface,
  componentOf,
  type InputValue,
  numericVoxels,
  TomaatError,
  type Volume,
  voxelCount,
} from '@tomaat/core';

/** A mesh is `positions` (x, y, z of each vertex, mm, RAS+) and `triangles` (three vertices each). */
export async function infer(inputs: Readonly<Record<string, InputValue>>, { parameters }: AppContext) {
  const volume = componentOf(inputs.volume as Volume, 0);
  const source = numericVoxels(volume.voxels);
  const level = parameters.level as number;
  const voxels = new Uint8Array(voxelCount(volume));
  for (let i = 0; i < voxels.length; i++) if (source[i] > level) voxels[i] = 1;
  if (!voxels.includes(1)) {
    throw new TomaatError('BAD_INPUT', `Nothing is brighter than the level ${level}. Choose a lower one.`, {
      field: 'level',
    });
  }
  return { surface: await buildSurface({ ...volume, voxels }, { smooth: parameters.smooth as boolean }) };
}
