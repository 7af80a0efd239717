import { readVolume, sourceFromBytes, type VolumeExtension } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { nodePlatform } from '../src/node-platform.ts';
import { encode, obliqueAffine, phantom } from './phantom.ts';
import { startTestServer, type TestServer } from './test-server.ts';

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
    'gives back the label map on the grid and in the format of a .%s',
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

  it('names what exists when nothing is there', async () => {
    const response = await post('/segmentation/prostate', { volume: await encode(phantom(), 'nii.gz') });
    expect(response.status).toBe(404);
    const problem = (await response.json()) as { detail: string; code: string };
    expect(problem.detail).toContain('/segmentation/lung');
  });
});
