import { rm } from 'node:fs/promises';
import { readVolume, sourceFromBytes, type VolumeExtension } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { nodePlatform } from '../src/node-platform.ts';
import { writeApp } from './app-fixture.ts';
import { encode, obliqueAffine, phantom } from './phantom.ts';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer(['threshold', 'ct-lung', 'ct-body']);
});
afterAll(() => server?.[Symbol.asyncDispose]());

function post(path: string, fields: Record<string, string | Uint8Array>, fileName = 'patient_001.nii.gz') {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    if (typeof value === 'string') form.append(name, value);
    else form.append(name, new Blob([value as Uint8Array<ArrayBuffer>]), fileName);
  }
  return fetch(`${server.url}${path}`, { method: 'POST', body: form });
}

describe('POST /{task}/{anatomy}', () => {
  it.each(['nii.gz', 'nii', 'mha', 'nrrd'] as VolumeExtension[])(
    'returns the label map on the grid and in the format .%s',
    async (extension) => {
      const volume = phantom();
      const response = await post(
        '/threshold/any',
        { volume: await encode(volume, extension) },
        `patient 001.${extension}`,
      );
      const bytes = new Uint8Array(await response.arrayBuffer());
      expect(response.status, new TextDecoder().decode(bytes.subarray(0, 500))).toBe(200);
      expect(response.headers.get('content-length')).toBe(String(bytes.length));
      expect(response.headers.get('tomaat-service')).toBe('threshold');
      expect(response.headers.get('content-disposition')).toContain(`patient_001_segmentation.${extension}`);
      const { volume: result, header } = await readVolume([sourceFromBytes('x', bytes)], nodePlatform);
      expect(header.extension).toBe(extension);
      expect(result.size).toEqual(volume.size);
      for (const [i, v] of result.affine.entries()) expect(v).toBeCloseTo(obliqueAffine[i], 4);
      const expected = Array.from(volume.voxels as Int16Array, (v) => (v > 100 ? 1 : 0));
      expect(Array.from(result.voxels as Uint8Array)).toEqual(expected);
    },
  );

  it.each([
    ['Läsion 1.nii.gz', 'Lasion_1', 'Läsion_1'],
    ['La\u0308sion.nii.gz', 'Lasion', 'Läsion'],
    ['肺.nii.gz', '_', '肺'],
    ['हिन्दी.nii.gz', '_', 'हिन्दी'],
    [`${'a'.repeat(79)}𠀀𠀀.nii.gz`, `${'a'.repeat(79)}_`, `${'a'.repeat(79)}𠀀`],
    [`${'肺'.repeat(90)}.nii.gz`, '_', '肺'.repeat(60)],
  ])('names the result after %s, in letters of any script', async (fileName, ascii, name) => {
    const response = await post('/threshold/any', { volume: await encode(phantom(), 'nii.gz') }, fileName);
    await response.arrayBuffer();
    expect(response.headers.get('content-disposition')).toBe(
      `attachment; filename="${ascii}_segmentation.nii.gz"; filename*=UTF-8''${encodeURIComponent(name)}_segmentation.nii.gz`,
    );
  });

  it.each([
    ['a field of a form', new URLSearchParams({ volume: '/data/scan.nii.gz' })],
    [
      'a part without a file name',
      (() => {
        const form = new FormData();
        form.append('volume', '/data/scan.nii.gz');
        return form;
      })(),
    ],
  ])('says that the volume came as text: %s', async (_what, body) => {
    const response = await fetch(`${server.url}/threshold/any`, { method: 'POST', body });
    expect(response.status).toBe(422);
    expect(await response.json()).toMatchObject({
      code: 'BAD_INPUT',
      field: 'volume',
      detail: expect.stringMatching(/volume came as text.*files=\{"volume": open.*-F volume=@PATH/),
    });
  });

  it('takes the volume as application/octet-stream, with parameters in the query', async () => {
    const response = await fetch(`${server.url}/threshold/any?factor=5`, {
      method: 'POST',
      body: (await encode(phantom(), 'nii.gz')) as Uint8Array<ArrayBuffer>,
      headers: { 'content-type': 'application/octet-stream' },
    });
    expect(response.status).toBe(200);
    const { volume } = await readVolume(
      [sourceFromBytes('x', new Uint8Array(await response.arrayBuffer()))],
      nodePlatform,
    );
    expect((volume.voxels as Uint8Array).reduce((a, b) => a + b, 0)).toBe(180);
  });

  it('takes the last of several formats, and refuses unknown ones before creating jobs', async () => {
    const volume = await encode(phantom(), 'nii.gz');
    const last = await post('/threshold/any?format=nrrd&format=nii', { volume });
    expect([last.status, last.headers.get('content-disposition')]).toEqual([
      200,
      expect.stringContaining('_segmentation.nii"'),
    ]);
    await last.arrayBuffer();
    const metrics = async (name: RegExp) => (await (await fetch(`${server.url}/metrics`)).text()).match(name);
    // Until the jobs of the answers so far are gone, and with them counted.
    await expect.poll(() => metrics(/^tomaat_jobs\S* [1-9]\d*$/gm)).toBeNull();
    const counted = /^tomaat_predictions\S* \d+$/gm;
    const before = await metrics(counted);
    expect(before?.length).toBeGreaterThan(0);
    const refused = await post('/threshold/any?format=nii&format=docx', { volume });
    expect(refused.status).toBe(406);
    expect(await refused.json()).toMatchObject({ code: 'NOT_ACCEPTABLE', field: 'format' });
    // The query is what is answered by, so it is looked at even where the body names another format.
    const named = await fetch(`${server.url}/threshold/any?format=docx`, {
      method: 'POST',
      body: JSON.stringify({ inputs: {}, format: 'nii' }),
      headers: { 'content-type': 'application/json' },
    });
    expect(named.status).toBe(406);
    expect(await metrics(/^tomaat_jobs\S* [1-9]\d*$/gm)).toBeNull();
    expect(await metrics(counted)).toEqual(before);
  });

  it('answers waiting callers when the server stops, even without a grace period', async () => {
    const folder = await temporaryFolder();
    try {
      const app = await writeApp(folder, 'slow', { infer: 'await sleep(60_000);' });
      await using slow = await startTestServer([app]);
      const form = new FormData();
      form.append('volume', new Blob([(await encode(phantom(), 'nii.gz')) as Uint8Array<ArrayBuffer>]));
      const answer = fetch(`${slow.url}/slow/any`, { method: 'POST', body: form });
      const running = async () => (await (await fetch(`${slow.url}/metrics`)).text()).includes('running"} 1');
      await expect.poll(running, { timeout: 10_000 }).toBe(true);
      await slow.close();
      const response = await answer;
      expect(response.status).toBe(503);
      expect(await response.json()).toMatchObject({ code: 'BUSY' });
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });

  it('names the available services when none matches', async () => {
    const response = await post('/segmentation/prostate', { volume: await encode(phantom(), 'nii.gz') });
    expect(response.status).toBe(404);
    const problem = (await response.json()) as { detail: string; code: string };
    expect(problem.detail).toContain('/segmentation/lung');
  });
});
