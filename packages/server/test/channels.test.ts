import { createHash } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { applyAffine, invert, readVolume, type Size, sourceFromBytes, type Volume } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { nodePlatform } from '../src/node-platform.ts';
import { writeApp } from './app-fixture.ts';
import { pointwiseNetwork, writeModel } from './onnx-fixture.ts';
import { encode } from './phantom.ts';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

/* Two volumes as the channels of one network: each is brought onto the grid of the first. */

/** Class 1 where `weights · channels` is above `level`. */
const network = (weights: readonly [number, number], level: number) =>
  pointwiseNetwork({ weights: [[0, 0], weights], bias: [0, -level] });
const level = 31.3;

let server: TestServer;
let folder: string;
beforeAll(async () => {
  folder = await temporaryFolder();
  const app = async (id: string, weights: readonly [number, number], channels: string[], more = {}) => {
    const path = await writeApp(folder, id, {
      inputs: { first: { type: 'volume' }, second: { type: 'volume' } },
      labels: [{ value: 1, name: 'above' }],
      ...more,
      model: {
        runtime: 'onnx',
        file: 'model.onnx',
        sha256: createHash('sha256').update(network(weights, level)).digest('hex'),
        channels,
      },
    });
    await writeModel(path, 'model.onnx', network(weights, level));
    return path;
  };
  server = await startTestServer([
    await app('second-seen', [0, 1], ['first', 'second']),
    await app('first-seen', [1, 0], ['first', 'second']),
    await app('turned-round', [1, 0], ['second', 'first']),
    await app('oriented', [0, 1], ['first', 'second'], { preprocess: [{ orientation: { axcodes: 'RAS' } }] }),
  ]);
});
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

/** Linear in the world, so that linear interpolation gives it back at every place between voxels. */
const brightness = ([x, y, z]: readonly number[]) => 2 * x - 1.5 * y + 0.75 * z;

function ramp(size: Size, affine: Volume['affine'], value: (at: readonly number[]) => number): Volume {
  const voxels = new Float32Array(size[0] * size[1] * size[2]);
  let i = 0;
  for (let z = 0; z < size[2]; z++)
    for (let y = 0; y < size[1]; y++)
      for (let x = 0; x < size[0]; x++) voxels[i++] = value(applyAffine(affine, [x, y, z]));
  return { voxels, size, components: 1, affine };
}

// Oblique, left-handed, of another spacing and origin than the second one, within which it lies.
const first: Volume['affine'] = [-1.4, 0.35, 0.3, 12, 0.4, 1.9, -0.5, -14, -0.2, 0.3, 2.8, -9, 0, 0, 0, 1];
const firstSize: Size = [11, 9, 7];
const second: Volume['affine'] = [0.2, 0, 3.1, -32, 2.3, 0.1, 0, -35, 0, -1.9, 0.3, 40, 0, 0, 0, 1];
const secondSize: Size = [29, 40, 23];

async function predict(service: string, volumes: Record<string, Volume>): Promise<Volume> {
  const form = new FormData();
  for (const [name, volume] of Object.entries(volumes))
    form.set(name, new Blob([Uint8Array.from(await encode(volume, 'nrrd'))]), `${name}.nrrd`);
  const response = await fetch(`${server.url}/${service}/any`, { method: 'POST', body: form });
  const bytes = new Uint8Array(await response.arrayBuffer());
  expect(response.status, Buffer.from(bytes).toString('utf8', 0, 500)).toBe(200);
  return (await readVolume([sourceFromBytes('a.nrrd', bytes)], nodePlatform)).volume;
}

/** Labels by the world alone; voxels whose brightness is within `margin` of the level are left out. */
function expectLabels(
  found: Volume,
  grid: { size: Size; affine: Volume['affine'] },
  { covered = secondSize, margin = 1e-3 } = {},
) {
  expect([found.size, found.affine.map((v) => v.toFixed(9))]).toEqual([
    grid.size,
    grid.affine.map((v) => v.toFixed(9)),
  ]);
  const toSecond = invert(second);
  const seen = new Set<number>();
  let i = 0;
  for (let z = 0; z < grid.size[2]; z++) {
    for (let y = 0; y < grid.size[1]; y++) {
      for (let x = 0; x < grid.size[0]; x++, i++) {
        const world = applyAffine(grid.affine, [x, y, z]);
        const at = applyAffine(toSecond, world);
        // Half a voxel beyond the outermost centres the border counts, which is not the ramp: left out.
        if (at.some((v, k) => (v > -0.6 && v < 0) || (v > covered[k] - 1 && v < covered[k] - 0.4))) continue;
        const isInside = at.every((v, k) => v >= 0 && v <= covered[k] - 1);
        const value = isInside ? brightness(world) : 0;
        if (Math.abs(value - level) < margin) continue;
        const label = value > level ? 1 : 0;
        seen.add(label);
        if (found.voxels[i] !== label)
          throw new Error(`voxel ${x}, ${y}, ${z}: ${found.voxels[i]} instead of ${label}`);
      }
    }
  }
  expect(seen).toEqual(new Set([0, 1]));
}

describe('a network of two channels', () => {
  const zeros = ramp(firstSize, first, () => 0);

  it.each(['second-seen', 'oriented'])(
    '%s: sees the second volume where it lies in the world',
    async (service) => {
      const labels = await predict(service, { first: zeros, second: ramp(secondSize, second, brightness) });
      expectLabels(labels, zeros);
    },
  );

  it('sees 0 where the second volume does not reach', async () => {
    const cut: Size = [secondSize[0], 26, secondSize[2]];
    const labels = await predict('second-seen', { first: zeros, second: ramp(cut, second, brightness) });
    expectLabels(labels, zeros, { covered: cut });
  });

  it('keeps the order of the channels, not that of the inputs', async () => {
    const [one, two] = [ramp(firstSize, first, brightness), ramp(secondSize, second, () => 0)];
    expectLabels(await predict('first-seen', { first: one, second: two }), one);
    // Now the network works on the grid of the second volume; the nearest labels of that come back to the first input's grid.
    const bright = ramp(secondSize, second, brightness);
    const labels = await predict('turned-round', { first: zeros, second: bright });
    // Half a voxel along each axis of the second volume changes the brightness by 1.6, 0.8 and 3.3.
    expectLabels(labels, zeros, { margin: 5.7 });
  });

  it('takes volumes on one grid as they are', async () => {
    const bright = ramp(firstSize, first, brightness);
    const labels = await predict('second-seen', { first: zeros, second: bright });
    expect([...labels.voxels]).toEqual(Array.from(bright.voxels as Float32Array, (v) => (v > level ? 1 : 0)));
  });
});
