import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { type Affine, applyAffine, collectBytes, type Volume, writeVolume } from '@tomaat/core';
import { nodePlatform } from '../packages/server/src/node-platform.ts';
import { encodeModel } from '../packages/server/test/onnx-fixture.ts';

/**
 * Makes the network of apps/ct-bone and its self-test: a Gaussian over the CT, which removes the noise before the
 * density is compared. Nothing in it is learned. Usage: node --conditions=tomaat-source scripts/make-bone-network.ts;
 * prints the sha256 for the manifest.
 */

const side = 5;
const sigmaVoxels = 0.7;

function gaussian(): Float32Array {
  const weight = (i: number) => Math.exp(-0.5 * ((i - (side - 1) / 2) / sigmaVoxels) ** 2);
  const values = Float32Array.from(
    { length: side ** 3 },
    (_, i) => weight(i % side) * weight(Math.floor(i / side) % side) * weight(Math.floor(i / side ** 2)),
  );
  const sum = values.reduce((a, b) => a + b, 0);
  return values.map((value) => value / sum);
}

/** The border is repeated, so that bone cut by the field of view keeps its density. */
const model = encodeModel({
  nodes: [
    { op: 'Pad', inputs: ['image', 'pads'], outputs: ['padded'], attributes: { mode: 'edge' } },
    {
      op: 'Conv',
      inputs: ['padded', 'weights'],
      outputs: ['density'],
      attributes: { kernel_shape: [side, side, side] },
    },
  ],
  initializers: [
    { name: 'pads', dims: [10], data: BigInt64Array.from([0n, 0n, 2n, 2n, 2n, 0n, 0n, 2n, 2n, 2n]) },
    { name: 'weights', dims: [1, 1, side, side, side], data: gaussian() },
  ],
  inputs: [{ name: 'image', dims: [1, 1, 'z', 'y', 'x'] }],
  outputs: [{ name: 'density', dims: [1, 1, 'z', 'y', 'x'] }],
});

/** A vertebra and two unequal ribs in soft tissue, tilted; 2.1 x 1.8 x 3 mm. */
const size = [46, 40, 24] as const;
const affine: Affine = [-2.1, 0.1, 0.2, 46, 0.12, -1.8, 0.25, 38, 0.1, 0.15, 3, -36, 0, 0, 0, 1];

function isBone([x, y, z]: readonly number[]): boolean {
  const body = Math.hypot(x / 17, (y + 6) / 13, 0) < 1 && Math.abs(z) < 24;
  const canal = Math.hypot(x / 8, (y + 22) / 8, 0);
  const arch = canal > 1 && canal < 1.8 && Math.abs(z) < 14;
  const rib = (x0: number, radius: number) =>
    Math.hypot(y - 20 + 0.02 * (x - x0) ** 2, z - 6 - 0.1 * x) < radius && Math.abs(x - x0) < 15;
  return body || arch || rib(25, 6) || rib(-26, 4.5);
}

const image = new Int16Array(size[0] * size[1] * size[2]);
const bones = new Uint8Array(image.length);
let state = 7;
for (let z = 0, i = 0; z < size[2]; z++) {
  for (let y = 0; y < size[1]; y++) {
    for (let x = 0; x < size[0]; x++, i++) {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      const bone = isBone(applyAffine(affine, [x, y, z]));
      bones[i] = bone ? 1 : 0;
      image[i] = Math.round((bone ? 620 : 40) + (state / 2 ** 32 - 0.5) * 240);
    }
  }
}

const volume: Volume = { voxels: image, size, components: 1, affine };
const folder = new URL('../apps/ct-bone/', import.meta.url);
const save = (file: string, bytes: Uint8Array) => writeFile(fileURLToPath(new URL(file, folder)), bytes);
await save('smooth.onnx', model);
await save('sample.nii.gz', await collectBytes(writeVolume(volume, 'nii.gz', nodePlatform)));
const expected = writeVolume({ ...volume, voxels: bones }, 'nii.gz', nodePlatform, { intent: 'label' });
await save('sample-expected.nii.gz', await collectBytes(expected));
console.log(createHash('sha256').update(model).digest('hex'));
