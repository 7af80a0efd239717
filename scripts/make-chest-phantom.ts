import { createWriteStream } from 'node:fs';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { type Affine, applyAffine, type Volume, writeVolume } from '@tomaat/core';
import { nodePlatform } from '../packages/server/src/node-platform.ts';

/**
 * Makes the sample of the CT apps: a chest of ellipsoids in Hounsfield units, on a table, slightly tilted, with
 * noise. Usage: node --conditions=tomaat-source scripts/make-chest-phantom.ts; writes apps/ct-lung/sample.nii.gz
 * and the exact lungs beside it.
 */

const size = [88, 68, 56] as const;
const angle = 0.12;
const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
const spacing = [4.4, 4.4, 6] as const;
/** Stored as by scanners (x to the left, y to the back), rotated about the long axis of the body. */
const affine: Affine = [
  -spacing[0] * cos,
  spacing[1] * sin,
  0,
  193,
  -spacing[0] * sin,
  -spacing[1] * cos,
  0,
  171,
  0,
  0,
  spacing[2],
  -160,
  0,
  0,
  0,
  1,
];

/** 1 inside an ellipsoid around a centre (RAS mm) with these radii (mm), falling to 0 across its edge. */
function inside(p: readonly number[], center: readonly number[], radii: readonly number[]): boolean {
  return center.reduce((sum, c, i) => sum + ((p[i] - c) / radii[i]) ** 2, 0) < 1;
}

let state = 20_260_101;
function random(): number {
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
  return state / 2 ** 32;
}
const noise = () => (random() + random() + random() - 1.5) * 40;

function density(p: readonly number[]): { hu: number; lung: boolean } {
  const [x, y, z] = p;
  // A tapering trunk with unequal lungs: the right one is larger, and the heart dents the left one.
  const trunk = inside([x, y, 0], [0, 0, 0], [165, 110, 1]);
  if (!trunk) {
    const table = y < -118 && y > -130 && Math.abs(x) < 150;
    return { hu: table ? 120 : -1000, lung: false };
  }
  const heart = inside(p, [-28, 22, -20], [52, 42, 55]);
  const lung = inside(p, [72, -5, 0], [58, 76, 125]) || (inside(p, [-76, -8, 8], [52, 72, 112]) && !heart);
  const vessel =
    lung &&
    (Math.abs(Math.sin(x / 17) * Math.cos(z / 23) - y / 90) < 0.03 || inside(p, [40, 5, 10], [12, 10, 14]));
  const spine = inside([x, y, 0], [0, -66, 0], [19, 21, 1]);
  const skin = !inside([x, y, 0], [0, 0, 0], [152, 97, 1]);
  if (vessel) return { hu: 35, lung: true };
  if (lung) return { hu: -830 + 90 * Math.sin(y / 60), lung: true };
  if (heart) return { hu: 45, lung: false };
  if (spine) return { hu: 380, lung: false };
  return { hu: skin ? -95 : 40, lung: false };
}

const image = new Int16Array(size[0] * size[1] * size[2]);
const lungs = new Uint8Array(image.length);
for (let z = 0, i = 0; z < size[2]; z++) {
  for (let y = 0; y < size[1]; y++) {
    for (let x = 0; x < size[0]; x++, i++) {
      const { hu, lung } = density(applyAffine(affine, [x, y, z]));
      image[i] = Math.round(hu + noise());
      lungs[i] = lung ? 1 : 0;
    }
  }
}

async function save(file: string, volume: Volume, intent?: 'label'): Promise<void> {
  const target = createWriteStream(new URL(`../apps/ct-lung/${file}`, import.meta.url));
  await pipeline(Readable.from(writeVolume(volume, 'nii.gz', nodePlatform, { intent, level: 9 })), target);
}
await save('sample.nii.gz', { voxels: image, size, components: 1, affine });
await save('sample-expected.nii.gz', { voxels: lungs, size, components: 1, affine }, 'label');
