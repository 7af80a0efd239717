import type { Affine } from '../geometry/affine.ts';
import { createNumbers } from '../geometry/fixtures.ts';
import { type Size, type Volume, voxelCount } from '../volume.ts';
import { infererSchema, type NetworkSession, type SlidingWindowSpec } from './spec.ts';

/** Shared by the tests of inferers: noise on an oblique grid, and networks. */

/** Oblique, anisotropic, left-handed. */
export const affine: Affine = [-0.8, 0.1, 0.3, 12, 0.05, 1.4, -0.2, -30, 0.1, 0.2, 2.5, 7, 0, 0, 0, 1];

/** Reproducible numbers in [−1, 1). */
export function noise(length: number, seed = 1): Float32Array {
  const next = createNumbers(seed);
  return Float32Array.from({ length }, () => next() / 2 ** 31 - 1);
}

export function volumeOf(size: Size, components = 1, seed = 1): Volume {
  return { voxels: noise(voxelCount({ size }) * components, seed), size, components, affine };
}

export function slidingWindow(
  spec: Partial<SlidingWindowSpec> & { roiSize: [number, number, number] },
): SlidingWindowSpec {
  const parsed = infererSchema.parse({ type: 'slidingWindow', ...spec });
  if (parsed.type !== 'slidingWindow') throw new Error('not a sliding window');
  return parsed;
}

/** A network that mixes position in the window and value, so that overlapping windows disagree. */
export function positional(classes: number): NetworkSession {
  return {
    run: async ({ data, dims }) => {
      const count = dims[2] * dims[3] * dims[4];
      const out = new Float32Array(classes * count);
      for (let k = 0; k < classes; k++) {
        for (let i = 0; i < count; i++)
          out[k * count + i] = data[i] * Math.cos(k + 1) + Math.sin(i * (k + 2));
      }
      return { data: out, dims: [1, classes, ...dims.slice(2)] };
    },
  };
}

export const identityNetwork: NetworkSession = { run: async (input) => input };
