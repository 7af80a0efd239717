import {
  componentOf,
  defineApp,
  fillHoles,
  keepLargestComponent,
  numericVoxels,
  openLabels,
  orientationOf,
  type Volume,
  voxelCount,
} from '@tomaat/core';

export default defineApp({
  inputs: { volume: { type: 'volume' }, threshold: { type: 'slider' }, opening: { type: 'slider' } },
  outputs: { segmentation: { type: 'LabelVolume' } },
  /** The largest dense component, separated from the table and filled slice by slice. */
  infer({ volume, threshold, opening }, { progress }) {
    const source = numericVoxels(componentOf(volume, 0).voxels);
    const voxels = new Uint8Array(voxelCount(volume));
    for (let i = 0; i < voxels.length; i++) if (source[i] > threshold) voxels[i] = 1;
    let body: Volume = { ...volume, voxels, components: 1 };
    progress(0.1);
    if (opening > 0) body = openLabels(body, { radiusMm: opening });
    progress(0.5);
    body = keepLargestComponent(body, { connectivity: 6 });
    progress(0.7);
    // Lungs and bowel reach the ends of the field of view, so a hole is whatever is enclosed within its axial slice.
    const upright = [...orientationOf(volume.affine)].findIndex((letter) => letter === 'S' || letter === 'I');
    return { segmentation: fillHoles(body, { slicewise: (['x', 'y', 'z'] as const)[upright] }) };
  },
});
