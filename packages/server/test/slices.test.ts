import { createHash } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { applyAffine, readVolume, type Size, sourceFromBytes, type Volume } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { checkApp } from '../src/check-app.ts';
import { nodePlatform } from '../src/node-platform.ts';
import { writeApp } from './app-fixture.ts';
import { encodeModel, writeModel } from './onnx-fixture.ts';
import { encode } from './phantom.ts';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

/* A 2-D network on slices of two volumes, each with steps of its own, whose overlapping channels become one label map. */

/** Scores of a pixel: a − b of the one before it in its row, b − a of the one in the row before. */
const network = encodeModel({
  inputs: [{ name: 'image', dims: ['n', 2, 'rows', 'columns'] }],
  outputs: [{ name: 'scores', dims: ['n', 2, 'rows', 'columns'] }],
  initializers: [
    // [class, channel, row before and own, column before and own]
    {
      name: 'w',
      dims: [2, 2, 2, 2],
      data: Float32Array.of(0, 0, 0, 1, 0, 0, -1, 0, 0, -1, 0, 0, 0, 0, 0, 1),
    },
  ],
  nodes: [
    {
      op: 'Conv',
      inputs: ['image', 'w'],
      outputs: ['scores'],
      attributes: { kernel_shape: [2, 2], pads: [1, 1, 0, 0] },
    },
  ],
});

// Oblique, left-handed, anisotropic: along x to the left, y to the back, z down.
const affine: Volume['affine'] = [-1.4, 0.35, 0.3, 12, 0.4, -1.9, -0.5, -14, -0.2, 0.3, -2.8, -9, 0, 0, 0, 1];
const size: Size = [6, 5, 4];
const value = (x: number, y: number, z: number) => (7 * x + 13 * y + 5 * z + 3 * x * y) % 17;
const filled = (each: (x: number, y: number, z: number) => number): Volume => {
  const voxels = new Float32Array(120);
  let i = 0;
  for (let z = 0; z < 4; z++)
    for (let y = 0; y < 5; y++) for (let x = 0; x < 6; x++) voxels[i++] = each(x, y, z);
  return { voxels, size, components: 1, affine };
};
const a = filled(value);
const b = filled((x, y, z) => value(z, x, y));

let server: TestServer;
let folder: string;
let path: string;
beforeAll(async () => {
  folder = await temporaryFolder();
  const orient = { orientation: { axcodes: 'RAS' } };
  path = await writeApp(folder, 'slices', {
    inputs: {
      a: { type: 'volume', preprocess: [orient] },
      b: {
        type: 'volume',
        // In another order first: both are on one grid again before they are stacked.
        preprocess: [
          { orientation: { axcodes: 'SPL' } },
          orient,
          { scaleIntensityRange: { aMin: 0, aMax: 1, bMax: 2 } },
        ],
      },
    },
    model: {
      runtime: 'onnx',
      file: 'model.onnx',
      sha256: createHash('sha256').update(network).digest('hex'),
      channels: ['a', 'b'],
      inferer: { type: 'slice', axis: 'y' },
    },
    postprocess: [
      {
        compose: [
          { channel: 0, above: -4, value: 1 },
          { channel: 1, above: 5, value: 300 },
          { channel: 0, above: 6, value: 2 },
        ],
      },
      'restore',
    ],
    labels: [1, 2, 300].map((value) => ({ value, name: `v${value}` })),
  });
  await writeModel(path, 'model.onnx', network);
  server = await startTestServer([path]);
});
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

describe('an app with the inferer slice', () => {
  it('labels each voxel by its row and column in the prepared volume', async () => {
    const form = new FormData();
    for (const [name, volume] of Object.entries({ a, b }))
      form.set(name, new Blob([Uint8Array.from(await encode(volume, 'nrrd'))]), `${name}.nrrd`);
    const response = await fetch(`${server.url}/slices/any`, { method: 'POST', body: form });
    const bytes = new Uint8Array(await response.arrayBuffer());
    expect(response.status, Buffer.from(bytes).toString('utf8', 0, 500)).toBe(200);
    const { volume } = await readVolume([sourceFromBytes('a.nrrd', bytes)], nodePlatform);
    expect(volume.size).toEqual(size);
    for (const corner of [
      [0, 0, 0],
      [5, 4, 3],
    ] as const)
      applyAffine(volume.affine, corner).forEach((v, i) => {
        expect(v).toBeCloseTo(applyAffine(affine, corner)[i], 4);
      });
    // Columns go to the right and rows up: the pixel before is at x + 1, the row before at z + 1.
    const at = (source: Volume, x: number, y: number, z: number) =>
      x > 5 || z > 3 ? 0 : Number(source.voxels[(z * 5 + y) * 6 + x]);
    const seen = new Set<number>();
    for (let z = 0; z < 4; z++)
      for (let y = 0; y < 5; y++)
        for (let x = 0; x < 6; x++) {
          const first = at(a, x, y, z) - 2 * at(b, x + 1, y, z);
          const second = 2 * at(b, x, y, z) - at(a, x, y, z + 1);
          const expected = first > 6 ? 2 : second > 5 ? 300 : first > -4 ? 1 : 0;
          expect([x, y, z, volume.voxels[(z * 5 + y) * 6 + x]]).toEqual([x, y, z, expected]);
          seen.add(expected);
        }
    expect(seen).toEqual(new Set([0, 1, 2, 300]));
  });

  it('is tried on one slice before it is served', async () => {
    const found: [string, boolean, string][] = [];
    for await (const { name, ok, detail } of checkApp(path, new AbortController().signal))
      found.push([name, ok, detail]);
    expect(found.filter(([, ok]) => !ok)).toEqual([]);
    expect(found).toContainEqual(['model', true, expect.stringContaining('1 × 2 × 32 × 32 → 2 classes')]);
  });

  it('shows its inputs without their steps', async () => {
    const response = await fetch(`${server.url}/api/services/slices`);
    const card = (await response.json()) as { inputs: object[] };
    expect(card.inputs).toEqual(
      ['a', 'b'].map((name) => ({ name, type: 'volume', optional: false, frames: 'one' })),
    );
  });
});
