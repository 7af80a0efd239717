import { createHash } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { verifyReceipt } from '@tomaat/client';
import { readVolume, type Size, sourceFromBytes, type Volume } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openApp } from '../src/apps.ts';
import { nodePlatform } from '../src/node-platform.ts';
import { createMemoryPolicy } from '../src/worker/memory-limit.ts';
import { verifyApp } from '../src/worker/verify-app.ts';
import { writeApp } from './app-fixture.ts';
import { unetNetwork, writeModel } from './onnx-fixture.ts';
import { encode } from './phantom.ts';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

/* One network in two apps: computed in its faster form, and as its file has it. */

const network = unetNetwork({ classes: 3, channels: [3, 4, 6], upKernel: 3, activation: 'prelu' });

// Oblique, left-handed, anisotropic; its size is a multiple of nothing.
const affine: Volume['affine'] = [-1.4, 0.35, 0.3, 12, 0.4, -1.9, -0.5, -14, -0.2, 0.3, -2.8, -9, 0, 0, 0, 1];
const size: Size = [13, 9, 7];
const voxels = Float32Array.from({ length: 13 * 9 * 7 }, (_, i) => ((i * 7919) % 1013) / 500);
const volume: Volume = { voxels, size, components: 1, affine };

let folder: string;
let server: TestServer;
const paths: string[] = [];
beforeAll(async () => {
  folder = await temporaryFolder();
  for (const [id, more] of [
    ['faster', {}],
    ['stated', { rewrite: false }],
  ] as const) {
    const model = {
      runtime: 'onnx',
      file: 'net.onnx',
      sha256: createHash('sha256').update(network).digest('hex'),
      inferer: { type: 'slidingWindow', roiSize: [12, 8, 8], overlap: 0.5 },
      ...more,
    };
    const path = await writeApp(folder, id, {
      preprocess: [{ orientation: { axcodes: 'RAS' } }],
      model,
      postprocess: ['argmax', 'restore'],
    });
    await writeModel(path, 'net.onnx', network);
    paths.push(path);
  }
  server = await startTestServer(paths);
});
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

async function predict(service: string) {
  const form = new FormData();
  form.set('volume', new Blob([Uint8Array.from(await encode(volume, 'nrrd'))]), 'scan.nrrd');
  const response = await fetch(`${server.url}/${service}/any`, { method: 'POST', body: form });
  const bytes = new Uint8Array(await response.arrayBuffer());
  expect(response.status, Buffer.from(bytes).toString('utf8', 0, 500)).toBe(200);
  const { receipt } = await verifyReceipt(response.headers.get('tomaat-receipt')!);
  const result = (await readVolume([sourceFromBytes('a.nrrd', bytes)], nodePlatform)).volume;
  return { result, receipt };
}

describe('a network whose graph is rewritten', () => {
  it('finds the same labels at the same voxels, and the receipt says so', async () => {
    const [faster, stated] = [await predict('faster'), await predict('stated')];
    expect(faster.result).toEqual(stated.result);
    expect(new Set(Array.from(faster.result.voxels, Number)).size).toBeGreaterThan(1);
    expect(faster.receipt.rewrites?.toSorted()).toEqual(['leaky-relu', 'sub-pixel']);
    expect(stated.receipt.rewrites).toBeUndefined();
  });

  it('is named when the app is verified', async () => {
    const summaries: string[] = [];
    for (const path of paths) {
      const [{ summary, faults }] = await verifyApp(
        await openApp(path),
        createMemoryPolicy({ slots: 1 }),
        new AbortController().signal,
      );
      expect(faults).toEqual([]);
      summaries.push(summary);
    }
    expect(summaries[0]).toBe(`${summaries[1]}; computed in faster forms: leaky-relu, sub-pixel`);
  });
});
