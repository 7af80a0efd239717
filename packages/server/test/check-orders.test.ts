import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { checkApp } from '../src/check-app.ts';
import { writeApp } from './app-fixture.ts';
import { encode, phantom } from './phantom.ts';
import { temporaryFolder } from './test-server.ts';

/* `tomaat check` of an app that, as networks do, depends on the order in which voxels are stored. */

let folder: string;
beforeAll(async () => {
  folder = await temporaryFolder();
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** Marks the voxels of the first quarter along x, as they are given. */
const infer = `const nx = volume.size[0];
  const voxels = Uint8Array.from(volume.voxels, (_, i) => (i % nx < nx / 4 ? 1 : 0));
  return { segmentation: { ...volume, voxels } };`;

async function geometryOf(id: string, preprocess: readonly object[]) {
  const scan = phantom();
  const nx = scan.size[0];
  const expected = {
    ...scan,
    voxels: new Uint8Array(scan.voxels.length).map((_, i) => (i % nx < nx / 4 ? 1 : 0)),
  };
  const path = await writeApp(folder, id, {
    infer,
    inputs: { volume: { type: 'volume', preprocess } },
    selftest: { inputs: { volume: 'scan.nii' }, expected: 'expected.nii', agree: 1 },
  });
  await writeFile(join(path, 'scan.nii'), await encode(scan, 'nii'));
  await writeFile(join(path, 'expected.nii'), await encode(expected, 'nii'));
  const found = [];
  for await (const result of checkApp(path, new AbortController().signal)) found.push(result);
  expect(found.slice(0, -1).filter(({ ok }) => !ok)).toEqual([]);
  return found.at(-1)!;
}

it('fails an app that depends on the order of storage without saying so', async () => {
  const { name, ok, detail } = await geometryOf('silent', []);
  expect({ name, ok }).toEqual({ name: 'geometry', ok: false });
  expect(detail).toContain('stored as SAR instead of LAS');
  expect(detail).toContain('orientation: { axcodes: stored }');
});

it('reports how far it depends on it where the manifest says so', async () => {
  const { name, ok, detail } = await geometryOf('stated', [{ orientation: { axcodes: 'stored' } }]);
  expect({ name, ok }).toEqual({ name: 'geometry', ok: true });
  // 23 × 17 × 11 voxels: the first 6 planes of x and, stored as SAR, the first 3 of z have 6 × 17 × 3 voxels in common:
  // 2 × 306 / (1122 + 1173).
  expect(detail).toMatch(/the order of storage matters: .* by a Dice of 0\.2667 or more/);
});

it('passes an app that turns its volumes', async () => {
  const { ok, detail } = await geometryOf('turned', [{ orientation: { axcodes: 'LAS' } }]);
  expect({ ok, detail }).toMatchObject({
    ok: true,
    detail: expect.stringContaining('a Dice of at least 1.0000'),
  });
});
