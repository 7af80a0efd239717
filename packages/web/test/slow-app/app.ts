import {
  type AppContext,
  type InputValue,
  numericVoxels,
  TomaatError,
  type Vec3,
  type Volume,
} from '@tomaat/core';

/** A mask of what is above zero, after the seconds that were asked for. */
export async function infer(inputs: Readonly<Record<string, InputValue>>, context: AppContext) {
  const { seconds, loud, mode } = context.parameters;
  const end = Date.now() + Number(seconds) * 1000;
  for (let left = end - Date.now(); left > 0; left = end - Date.now()) {
    context.progress(1 - left / (Number(seconds) * 1000));
    await new Promise((resolve) => setTimeout(resolve, Math.min(200, left)));
  }
  if (loud) throw new TomaatError('APP_FAILED', 'The mask would not hold <b>still</b>. Ask for less.');
  const volume = inputs.volume as Volume;
  return {
    mask: {
      ...volume,
      voxels: Uint8Array.from(numericVoxels(volume.voxels), (value) => (value > 0 ? 1 : 0)),
    },
    points: inputs.seeds as readonly Vec3[],
    report: `mode ${String(mode)}`,
  };
}
