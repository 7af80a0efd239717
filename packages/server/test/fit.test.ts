import { rm } from 'node:fs/promises';
import type { Fit } from '@tomaat/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { inferBright, writeApp } from './app-fixture.ts';
import { encode, phantom } from './phantom.ts';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

let server: TestServer;
let folder: string;
beforeAll(async () => {
  folder = await temporaryFolder();
  server = await startTestServer(
    [
      'ct-bone',
      await writeApp(folder, 'picky', {
        infer: inferBright,
        limits: { memoryMb: 800 },
        preprocess: [{ spacing: { pixdim: [1, 1, 1] } }],
        acceptance: [{ spacingMm: { maximum: 3 }, size: { minimum: 8 }, message: 'Thin slices are needed' }],
      }),
    ],
    { maxVoxels: 2 ** 27, maxUploadBytes: 1e8 },
  );
});
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

async function ask(
  service: string,
  body: unknown,
): Promise<{ status: number; fit: Fit & { field?: string } }> {
  const response = await fetch(`${server.url}/api/services/${service}/fit`, {
    method: 'POST',
    body: JSON.stringify(body),
  });
  return { status: response.status, fit: (await response.json()) as Fit };
}
const volume = (facts: Record<string, unknown>) => ({ inputs: { volume: facts } });

describe('POST /api/services/{id}/fit', () => {
  it('reports a large volume’s windows, and more memory for more voxels', async () => {
    const small = (
      await ask('ct-bone', volume({ size: [160, 160, 100], spacing: [2, 2, 2], voxelType: 'int16' }))
    ).fit;
    const large = (
      await ask('ct-bone', volume({ size: [512, 512, 300], spacing: [0.8, 0.8, 1], voxelType: 'int16' }))
    ).fit;
    expect(large.verdict).toBe('tiled');
    expect(large.windows).toBeGreaterThan(1);
    expect(large.reason).toContain(`${large.windows} windows`);
    expect(large.neededMb).toBeGreaterThan(small.neededMb! + (512 * 512 * 300 * 4) / 1e6);
  });

  it('is too big where the resampled volume exceeds the app’s memory', async () => {
    expect((await ask('picky', volume({ size: [200, 200, 20], spacing: [1, 1, 2] }))).fit.verdict).toBe(
      'fits',
    );
    // As many voxels, but of 3 mm: 27 times as many after resampling.
    const { fit } = await ask('picky', volume({ size: [400, 400, 100], spacing: [3, 3, 3] }));
    expect(fit).toMatchObject({ verdict: 'too big', allowedMb: 800 });
    expect(fit.neededMb).toBeGreaterThan(3000);
    expect(fit.reason).toMatch(/Crop or resample/);
  });

  it('applies the limits of the server and the rules of the app', async () => {
    expect((await ask('picky', volume({ size: [1024, 1024, 512] }))).fit).toMatchObject({
      verdict: 'too big',
      reason: expect.stringContaining('134217728'),
    });
    expect((await ask('picky', volume({ size: [10, 10, 10], sizeBytes: 2e8 }))).fit.verdict).toBe('too big');
    const affine = [0, 0, 5, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    expect((await ask('picky', volume({ size: [20, 20, 20], affine }))).fit).toMatchObject({
      verdict: 'not accepted',
      reason:
        'Thin slices are needed The app does not accept this volume: its voxel spacing is 5 mm, but at most 3 mm is allowed.',
    });
    expect((await ask('picky', volume({ size: [20, 20, 4] }))).fit.verdict).toBe('not accepted');
  });

  it('knows the seconds from the service’s own history, in proportion to the voxels', async () => {
    const fresh = (await ask('picky', volume({ size: [23, 17, 11] }))).fit;
    expect(fresh.expectedSeconds).toBeUndefined();
    const body = (await encode(phantom(), 'nii.gz')) as Uint8Array<ArrayBuffer>;
    const done = await fetch(`${server.url}/picky/any`, {
      method: 'POST',
      body,
      headers: { 'content-type': 'application/octet-stream' },
    });
    expect(done.status).toBe(200);
    await done.arrayBuffer();
    const same = (await ask('picky', volume({ size: [23, 17, 11] }))).fit.expectedSeconds!;
    const double = (await ask('picky', volume({ size: [46, 17, 11] }))).fit.expectedSeconds!;
    expect(same).toBeGreaterThan(0);
    expect(double / same).toBeCloseTo(2, 5);
  });

  it.each([
    // What is no input of the service is not said back.
    [{ inputs: { mask: { size: [1, 1, 1] } } }, 422, undefined],
    [volume({ size: [0, 1, 1] }), 400, 'inputs.volume.size.0'],
    [volume({ size: [8, 8, 8], voxelType: 'int24' }), 422, 'inputs.volume.voxelType'],
    [volume({ size: [8, 8, 8], surprise: 1 }), 400, 'inputs.volume'],
  ])('refuses %j', async (body, status, field) => {
    const answer = await ask('picky', body);
    expect([answer.status, answer.fit.field]).toEqual([status, field]);
  });
});
