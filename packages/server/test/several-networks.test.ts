import { createHash } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { readVolume, type Size, sourceFromBytes, type Volume } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openApp } from '../src/apps.ts';
import { checkApp } from '../src/check-app.ts';
import { writeHashes } from '../src/cli/write-hash.ts';
import { memoryNeed } from '../src/http/memory-need.ts';
import { nodePlatform } from '../src/node-platform.ts';
import { writeApp } from './app-fixture.ts';
import { pointwiseNetwork, thresholdNetwork, writeModel } from './onnx-fixture.ts';
import { encode } from './phantom.ts';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

/* Three ONNX networks in one app: two whose labels are merged, and one that finds labels for the second of them. */

const networks = {
  // 1 from 20 on, 2 from 10 on: scores 0, v − 9.5, 2 v − 29 cross there.
  'organs.onnx': pointwiseNetwork({ weights: [[0], [1], [2]], bias: [0, -9.5, -29] }),
  'low.onnx': thresholdNetwork(25),
  // Above 14.5, and below 25.5 where the mask of `low` adds −100.
  'ribs.onnx': pointwiseNetwork({
    weights: [
      [0, 0],
      [1, -100],
    ],
    bias: [0, -14.5],
  }),
};
type Name = keyof typeof networks;
const hashOf = (name: Name) => createHash('sha256').update(networks[name]).digest('hex');
const net = (file: Name, more: object = {}) => ({ runtime: 'onnx', file, sha256: hashOf(file), ...more });

// Oblique, left-handed, anisotropic.
const affine: Volume['affine'] = [-1.4, 0.35, 0.3, 12, 0.4, -1.9, -0.5, -14, -0.2, 0.3, -2.8, -9, 0, 0, 0, 1];
const size: Size = [6, 5, 4];
const voxels = Float32Array.from({ length: 120 }, (_, i) => (i * 7) % 31);
const volume: Volume = { voxels, size, components: 1, affine };

const organs = net('organs.onnx', { merge: [{ from: 2, to: 3 }, { from: 1, to: 1 }] }); // biome-ignore format: a table
const manifest = {
  inputs: { volume: { type: 'volume' }, ribs: { type: 'checkbox', default: true } },
  preprocess: [{ orientation: { axcodes: 'RAS' } }],
  model: [
    organs,
    net('low.onnx', { id: 'low', when: { ribs: true } }),
    net('ribs.onnx', {
      when: { ribs: true },
      channels: ['volume', { labelsOf: 'low', values: [1] }],
      merge: [{ from: 1, to: 300 }],
    }),
  ],
  postprocess: ['argmax', 'restore', { labelFilter: { appliedLabels: [1, 3, 300] } }],
  labels: [
    { value: 1, name: 'liver' },
    { value: 3, name: 'spleen' },
    { value: 300, name: 'ribs', when: { ribs: true } },
  ],
};
const expected = (v: number, ribs: boolean) =>
  ribs && v >= 15 && v <= 25 ? 300 : v >= 20 ? 3 : v >= 10 ? 1 : 0;

let server: TestServer;
let folder: string;
let path: string;
beforeAll(async () => {
  folder = await temporaryFolder();
  path = await writeApp(folder, 'several', manifest);
  for (const name of Object.keys(networks) as Name[]) await writeModel(path, name, networks[name]);
  server = await startTestServer([path]);
});
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

describe('an app with several networks', () => {
  it.each([true, false])('merges the labels of those that run (ribs: %s)', async (ribs) => {
    const form = new FormData();
    form.set('volume', new Blob([Uint8Array.from(await encode(volume, 'nrrd'))]), 'scan.nrrd');
    form.set('ribs', String(ribs));
    const response = await fetch(`${server.url}/several/any`, { method: 'POST', body: form });
    const bytes = new Uint8Array(await response.arrayBuffer());
    expect(response.status, Buffer.from(bytes).toString('utf8', 0, 500)).toBe(200);
    const result = (await readVolume([sourceFromBytes('a.nrrd', bytes)], nodePlatform)).volume;
    expect(result.size).toEqual(size);
    result.affine.forEach((v, i) => void expect(v).toBeCloseTo(affine[i], 4));
    expect(Array.from(result.voxels, Number)).toEqual(Array.from(voxels, (v) => expected(v, ribs)));
  });

  it('has all of them tried before it is served', async () => {
    const found: [string, boolean, string][] = [];
    for await (const { name, ok, detail } of checkApp(path, new AbortController().signal))
      found.push([name, ok, detail]);
    expect(found.filter(([, ok]) => !ok)).toEqual([]);
    const [, [, , models]] = found;
    const measured = /; a run takes \d+ bytes per voxel$/;
    const lines = models.split('\n');
    expect(lines.filter((line) => !measured.test(line))).toEqual([]);
    expect(lines.map((line) => line.replace(measured, ''))).toEqual([
      'organs.onnx: 1 × 1 × 32 × 32 × 32 → 3 classes',
      'low.onnx: 1 × 1 × 32 × 32 × 32 → 2 classes',
      'ribs.onnx: 1 × 2 × 32 × 32 × 32 → 2 classes',
    ]);
  });

  it('shows the hashes of all of them on its card', async () => {
    const card = await (await fetch(`${server.url}/api/services/several`)).json();
    const hashes = (Object.keys(networks) as Name[]).map(hashOf);
    expect(card).toMatchObject({ modelSha256: hashes[0], modelSha256s: hashes });
  });

  it('names the network whose table does not fit', async () => {
    const model = [{ ...organs, merge: [{ from: 2, to: 3 }, { from: 7, to: 1 }] }, ...manifest.model.slice(1)]; // biome-ignore format: a table
    const wrong = await writeApp(folder, 'wrong', { ...manifest, model });
    for (const name of Object.keys(networks) as Name[]) await writeModel(wrong, name, networks[name]);
    const faults: string[] = [];
    for await (const { ok, detail } of checkApp(wrong, new AbortController().signal))
      if (!ok) faults.push(detail);
    expect(faults).toEqual([
      'organs.onnx: The network gives 3 classes, so it never gives the value 7 of merge. Correct merge.',
    ]);
  });

  it('needs memory for the files of those that run', async () => {
    const app = await openApp(path);
    const facts = { volume: { size, affine, components: 1, voxelType: 'float32' as const } };
    const need = async (ribs: boolean) =>
      (await memoryNeed(app, facts, { ribs }, () => undefined)).neededBytes;
    const [all, one] = [await need(true), await need(false)];
    const sizes = networks['low.onnx'].length + networks['ribs.onnx'].length;
    // Twice the files, and in both cases a few bytes for each of 120 voxels.
    expect(all - one).toBeGreaterThan(2 * sizes);
    expect(all - one).toBeLessThan(2 * sizes + 120 * 100);
  });

  it('gets the hashes of all its files', async () => {
    const model = manifest.model.map(({ sha256: _, ...spec }) => spec);
    const plain = await writeApp(folder, 'plain', { ...manifest, model });
    for (const name of Object.keys(networks) as Name[]) await writeModel(plain, name, networks[name]);
    const written = await writeHashes(plain);
    expect(written).toEqual(
      (['organs.onnx', 'low.onnx', 'ribs.onnx'] as const).map((file) => ({
        file,
        sha256: hashOf(file),
        changed: true,
      })),
    );
    expect((await openApp(plain)).manifest.model).toHaveLength(3);
  });
});
