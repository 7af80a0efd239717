/**
 * Makes `smooth.onnx` and `sample.nii.gz`: node --conditions=tomaat-source examples/onnx-smooth/make-model.ts
 * The network: class 0 has the score 0, class 1 the smoothed input minus 0.5.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { collectBytes, type Volume, writeVolume } from '@tomaat/core';
import { nodePlatform } from '../../packages/server/src/node-platform.ts';
import { encodeModel } from '../../packages/server/test/onnx-fixture.ts';

export function makeModel(): Uint8Array {
  const side = 5;
  const sigmaVoxels = 0.8;
  const weight = (i: number) => Math.exp(-0.5 * ((i - 2) / sigmaVoxels) ** 2);
  const gaussian = Float32Array.from(
    { length: side ** 3 },
    (_, i) => weight(i % 5) * weight(Math.floor(i / 5) % 5) * weight(Math.floor(i / 25)),
  );
  const sum = gaussian.reduce((a, b) => a + b, 0);
  const weights = new Float32Array(2 * side ** 3);
  weights.set(
    gaussian.map((w) => w / sum),
    side ** 3,
  );
  return encodeModel({
    nodes: [
      {
        op: 'Conv',
        inputs: ['image', 'weights', 'bias'],
        outputs: ['scores'],
        attributes: { kernel_shape: [side, side, side], pads: [2, 2, 2, 2, 2, 2] },
      },
    ],
    initializers: [
      { name: 'weights', dims: [2, 1, side, side, side], data: weights },
      { name: 'bias', dims: [2], data: Float32Array.of(0, -0.5) },
    ],
    inputs: [{ name: 'image', dims: [1, 1, 'z', 'y', 'x'] }],
    outputs: [{ name: 'scores', dims: [1, 2, 'z', 'y', 'x'] }],
  });
}

/** An egg without noise, off centre, in an oblique and anisotropic frame. */
export function makeSample(): Volume {
  const size = [44, 36, 20] as const;
  const voxels = new Int16Array(size[0] * size[1] * size[2]);
  for (let z = 0, i = 0; z < size[2]; z++) {
    for (let y = 0; y < size[1]; y++) {
      for (let x = 0; x < size[0]; x++, i++) {
        const r = Math.hypot((x - 17) / (x < 17 ? 9 : 15), (y - 20) / 10, (z - 8) / 5);
        voxels[i] = Math.round(1000 / (1 + Math.exp(8 * (r - 1))));
      }
    }
  }
  const affine = [-1.18, 0.2, 0.3, 22, 0.21, 1.47, -0.55, -30, 0.12, 0.31, 2.9, 5, 0, 0, 0, 1];
  return { voxels, size, components: 1, affine };
}

if (process.argv[1] === import.meta.filename) {
  await writeFile(join(import.meta.dirname, 'smooth.onnx'), makeModel());
  await writeFile(
    join(import.meta.dirname, 'sample.nii.gz'),
    await collectBytes(writeVolume(makeSample(), 'nii.gz', nodePlatform)),
  );
}
