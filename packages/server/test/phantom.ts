import { type Affine, collectBytes, type Volume, type VolumeExtension, writeVolume } from '@tomaat/core';
import { nodePlatform } from '../src/node-platform.ts';

/** Oblique, anisotropic, left-handed: swapped or mirrored axes show. */
export const obliqueAffine: Affine = [
  -1.4, 0.35, 0.3, 30, 0.4, 1.9, -0.5, -40, -0.2, 0.3, 2.8, 12, 0, 0, 0, 1,
];

/** A volume with one bright off-centre block and a smaller, brighter one, so that no symmetry hides a fault. */
export function phantom(
  affine: Affine = obliqueAffine,
  size: readonly [number, number, number] = [23, 17, 11],
): Volume {
  const voxels = new Int16Array(size[0] * size[1] * size[2]).fill(10);
  const [nx, ny] = size;
  const block = (x0: number, x1: number, y0: number, y1: number, z0: number, z1: number, value: number) => {
    for (let z = z0; z < z1; z++) {
      for (let y = y0; y < y1; y++) for (let x = x0; x < x1; x++) voxels[x + nx * (y + ny * z)] = value;
    }
  };
  block(3, 9, 2, 8, 1, 5, 400);
  block(14, 17, 11, 15, 7, 10, 900);
  return { voxels, size, components: 1, affine };
}

export async function encode(volume: Volume, extension: VolumeExtension): Promise<Uint8Array> {
  return collectBytes(writeVolume(volume, extension, nodePlatform));
}
