import {
  closeLabels,
  componentOf,
  defineApp,
  fillHoles,
  findComponents,
  numericVoxels,
  orientationOf,
  removeSmallObjects,
  type Volume,
  voxelCount,
} from '@tomaat/core';

/** Components of air smaller than this are not lung, ml. */
const smallestMl = 20;

export default defineApp({
  inputs: { volume: { type: 'volume' }, threshold: { type: 'slider' }, closing: { type: 'slider' } },
  outputs: { segmentation: { type: 'LabelVolume' } },
  /** Air inside the body: thin enough, and not surrounding the body. */
  infer({ volume, threshold, closing }, { progress }) {
    let lungs = dropOutsideAir(airOf(volume, threshold));
    progress(0.4);
    lungs = removeSmallObjects(lungs, { minVolumeMl: smallestMl, connectivity: 6 });
    progress(0.6);
    if (closing > 0) lungs = closeLabels(lungs, { radiusMm: closing });
    progress(0.9);
    return { segmentation: fillHoles(lungs) };
  },
});

function airOf(volume: Volume, thresholdHu: number): Volume {
  const source = numericVoxels(componentOf(volume, 0).voxels);
  const voxels = new Uint8Array(voxelCount(volume));
  for (let i = 0; i < voxels.length; i++) if (source[i] < thresholdHu) voxels[i] = 1;
  return { ...volume, voxels, components: 1 };
}

/**
 * Removes the air around the body: it touches two or more sides of the image (left, right, front, back), while a lung
 * cut by the field of view touches only one. Top and bottom do not count: lungs may end there.
 */
function dropOutsideAir(air: Volume): Volume {
  const upright = [...orientationOf(air.affine)].findIndex((letter) => letter === 'S' || letter === 'I');
  const found = findComponents(air.voxels as Uint8Array, air.size, { connectivity: 6 });
  const sides = new Uint8Array(found.count);
  const [nx, ny] = air.size;
  for (let run = 0; run < found.start.length; run++) {
    for (const i of [found.start[run], found.end[run] - 1]) {
      const at = [i % nx, Math.floor(i / nx) % ny, Math.floor(i / (nx * ny))];
      for (let axis = 0; axis < 3; axis++) {
        if (axis === upright) continue;
        if (at[axis] === 0) sides[found.component[run]] |= 1 << (2 * axis);
        if (at[axis] === air.size[axis] - 1) sides[found.component[run]] |= 2 << (2 * axis);
      }
    }
  }
  const isOutside = Array.from(sides, (bits) => (bits & (bits - 1)) !== 0);
  const voxels = new Uint8Array(air.voxels.length);
  for (let run = 0; run < found.start.length; run++) {
    if (!isOutside[found.component[run]]) voxels.fill(1, found.start[run], found.end[run]);
  }
  return { ...air, voxels };
}
