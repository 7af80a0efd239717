import {
  type AppContext,
  componentOf,
  fillHoles,
  type InputValue,
  keepLargestComponent,
  numericVoxels,
  openLabels,
  orientationOf,
  type Volume,
  voxelCount,
} from '@tomaat/core';

/** The largest dense piece, cut loose from the table, filled slice by slice. */
export function infer(inputs: Readonly<Record<string, InputValue>>, { parameters, progress }: AppContext) {
  const volume = inputs.volume as Volume;
  const source = numericVoxels(componentOf(volume, 0).voxels);
  const voxels = new Uint8Array(voxelCount(volume));
  const thresholdHu = parameters.threshold as number;
  for (let i = 0; i < voxels.length; i++) if (source[i] > thresholdHu) voxels[i] = 1;
  let body: Volume = { ...volume, voxels, components: 1 };
  progress(0.1);
  const radiusMm = parameters.opening as number;
  if (radiusMm > 0) body = openLabels(body, { radiusMm });
  progress(0.5);
  body = keepLargestComponent(body, { connectivity: 6 });
  progress(0.7);
  // Lungs and bowel reach the ends of the field of view: a hole is what is enclosed within its axial slice.
  const upright = [...orientationOf(volume.affine)].findIndex((letter) => letter === 'S' || letter === 'I');
  return { segmentation: fillHoles(body, { slicewise: (['x', 'y', 'z'] as const)[upright] }) };
}
