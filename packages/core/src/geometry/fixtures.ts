import { createVoxels, type Size, type Volume, type VoxelType } from '../volume.ts';
import { type Affine, composeAffine, type Vec3 } from './affine.ts';

/** Shared by the tests of geometry and transforms: small asymmetric volumes, oblique frames. */

/**
 * Reproducible integers from 0 to 2³² − 1: a linear congruential generator (Numerical Recipes). Its low bits have a
 * short period: use the high ones.
 */
export function createNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state;
  };
}

/** The rotation about x, then y, then z (radians), as 3×3 directions. */
export function rotation(x: number, y: number, z: number): number[] {
  const [cx, sx, cy, sy, cz, sz] = [
    Math.cos(x),
    Math.sin(x),
    Math.cos(y),
    Math.sin(y),
    Math.cos(z),
    Math.sin(z),
  ];
  return [
    cz * cy,
    cz * sy * sx - sz * cx,
    cz * sy * cx + sz * sx,
    sz * cy,
    sz * sy * sx + cz * cx,
    sz * sy * cx - cz * sx,
    -sy,
    cy * sx,
    cy * cx,
  ];
}

/** Anisotropic, oblique, left-handed. */
export const oblique: Affine = composeAffine([1.2, 0.8, 2.5], flipX(rotation(0.3, -0.4, 0.5)), [10, -20, 30]);

function flipX(direction: number[]): number[] {
  return direction.map((v, i) => (i % 3 === 0 ? -v : v));
}

/** Voxels that differ from position to position: (7x + 13y + 29z + 3xy + 5c) mod 31. */
export function patterned(
  size: Size,
  affine: Affine = oblique,
  type: VoxelType = 'int16',
  components = 1,
): Volume {
  const voxels = createVoxels(type, size[0] * size[1] * size[2] * components);
  let i = 0;
  for (let c = 0; c < components; c++) {
    for (let z = 0; z < size[2]; z++) {
      for (let y = 0; y < size[1]; y++) {
        for (let x = 0; x < size[0]; x++) {
          const v = (7 * x + 13 * y + 29 * z + 3 * x * y + 5 * c) % 31;
          voxels[i++] = voxels instanceof BigInt64Array || voxels instanceof BigUint64Array ? BigInt(v) : v;
        }
      }
    }
  }
  return { voxels, size, components, affine };
}

export function voxelAt(volume: Volume, [x, y, z]: Vec3, component = 0): number {
  return Number(volume.voxels[((component * volume.size[2] + z) * volume.size[1] + y) * volume.size[0] + x]);
}

/** The 48 orientations: every axis order with every choice of directions. */
export const allOrientations: readonly string[] = ['012', '021', '102', '120', '201', '210'].flatMap(
  (order) =>
    [0, 1, 2, 3, 4, 5, 6, 7].map((flips) =>
      [...order].map((digit, k) => ['LR', 'PA', 'IS'][Number(digit)][(flips >> k) & 1]).join(''),
    ),
);
