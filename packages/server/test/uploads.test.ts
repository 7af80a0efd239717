import { createHash } from 'node:crypto';
import { readdir, stat } from 'node:fs/promises';
import { request as httpRequest } from 'node:http';
import { join } from 'node:path';
import { createClient, type FileSource, requireSuccess } from '@tomaat/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { encode, phantom } from './phantom.ts';
import { startTestServer, type TestServer } from './test-server.ts';

let server: TestServer;
let volume: Uint8Array;
beforeAll(async () => {
  server = await startTestServer(['threshold'], { maxUploadBytes: 400_000_000 });
  volume = await encode(phantom(), 'nii.gz');
});
afterAll(() => server?.[Symbol.asyncDispose]());

const tus = { 'tus-resumable': '1.0.0' };
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
const base64 = (text: string) => Buffer.from(text).toString('base64');

async function begin(bytes: number, metadata = ''): Promise<string> {
  const response = await fetch(`${server.url}/api/uploads`, {
    method: 'POST',
    headers: { ...tus, 'upload-length': String(bytes), 'upload-metadata': metadata },
  });
  expect(response.status).toBe(201);
  expect(Date.parse(response.headers.get('upload-expires') ?? '')).toBeGreaterThan(Date.now() + 3_000_000);
  return `${server.url}${response.headers.get('location')}`;
}

const patch = (url: string, offset: number, body: Uint8Array) =>
  fetch(url, {
    method: 'PATCH',
    headers: { ...tus, 'upload-offset': String(offset), 'content-type': 'application/offset+octet-stream' },
    body: body as Uint8Array<ArrayBuffer>,
  });

const offsetOf = async (url: string) => {
  const response = await fetch(url, { method: 'HEAD', headers: tus });
  return response.ok ? Number(response.headers.get('upload-offset')) : response.status;
};

/** Sends some bytes of a body that was promised longer, and cuts the connection when they are in the server's file. */
async function sendAndCut(url: string, offset: number, bytes: Uint8Array, promised: number): Promise<void> {
  const part = join(server.dataFolder, 'uploads', url.slice(url.lastIndexOf('/') + 1));
  const closed = Promise.withResolvers<void>();
  const request = httpRequest(url, {
    method: 'PATCH',
    headers: {
      ...tus,
      'upload-offset': String(offset),
      'content-type': 'application/offset+octet-stream',
      'content-length': promised,
    },
  });
  request.on('error', () => {});
  request.on('close', () => closed.resolve());
  request.write(bytes);
  await expect.poll(async () => (await stat(part)).size).toBe(offset + bytes.length);
  request.destroy();
  await closed.promise;
}

const predict = (body: unknown) =>
  fetch(`${server.url}/api/services/threshold/predictions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', prefer: 'wait=20' },
    body: JSON.stringify(body),
  });

describe('tus 1.0', () => {
  it('OPTIONS says version, extensions and the largest size', async () => {
    const response = await fetch(`${server.url}/api/uploads`, { method: 'OPTIONS' });
    expect(response.status).toBe(204);
    expect(response.headers.get('tus-version')).toBe('1.0.0');
    expect(response.headers.get('tus-extension')).toBe('creation,expiration,termination');
    expect(response.headers.get('tus-max-size')).toBe('400000000');
  });

  it('resumes after a break, and serves several predictions when complete', async () => {
    const metadata = `filename ${base64('patient 7.nii.gz')},sha256 ${base64(sha256(volume))}`;
    const url = await begin(volume.length, metadata);
    await sendAndCut(url, 0, volume.subarray(0, 100), volume.length);
    expect(await offsetOf(url)).toBe(100);
    const whole = await patch(url, 100, volume.subarray(100));
    expect(whole.status).toBe(204);
    expect(whole.headers.get('tomaat-digest')).toBe(`sha256:${sha256(volume)}`);
    const upload = url.slice(url.lastIndexOf('/') + 1);
    for (const ref of [
      { upload },
      [{ upload }],
      { blob: `sha256:${sha256(volume)}`, fileName: 'x.nii.gz' },
    ]) {
      const response = await predict({ inputs: { volume: ref }, parameters: { factor: 5 } });
      const job = (await response.json()) as { state: string; outputs: { fileName: string }[] };
      expect([response.status, job.state], JSON.stringify(job)).toEqual([200, 'succeeded']);
    }
    expect((await fetch(url, { method: 'DELETE', headers: tus })).status).toBe(204);
    expect(await offsetOf(url)).toBe(404);
    const gone = await predict({ inputs: { volume: { upload } } });
    expect(gone.status).toBe(404);
    expect(await gone.json()).toMatchObject({ code: 'NOT_FOUND', field: 'upload' });
  });

  it('refuses wrong offsets, versions and hashes, incomplete uploads, and excess bytes', async () => {
    const url = await begin(volume.length, `sha256 ${base64(sha256(new Uint8Array(3)))}`);
    const conflict = await patch(url, 5, volume);
    expect(conflict.status).toBe(409);
    expect(await conflict.json()).toMatchObject({ field: 'Upload-Offset', facts: { offsetBytes: 0 } });
    const other = await fetch(url, { method: 'HEAD', headers: { 'tus-resumable': '0.2.2' } });
    expect(other.status).toBe(412);
    const early = await predict({ inputs: { volume: { upload: url.slice(url.lastIndexOf('/') + 1) } } });
    expect(early.status).toBe(409);
    const wrong = await patch(url, 0, volume);
    expect(wrong.status).toBe(422);
    expect(await wrong.json()).toMatchObject({ field: 'sha256' });
    expect(await offsetOf(url)).toBe(404);
    const short = await begin(10);
    expect((await patch(short, 0, volume.subarray(0, 11))).status).toBe(400);
    await fetch(short, { method: 'DELETE', headers: tus });
    const large = await fetch(`${server.url}/api/uploads`, {
      method: 'POST',
      headers: { ...tus, 'upload-length': '400000001' },
    });
    expect(large.status).toBe(413);
    for (const length of ['', '-1', '1e3', 'NaN']) {
      const bad = await fetch(`${server.url}/api/uploads`, {
        method: 'POST',
        headers: { ...tus, 'upload-length': length },
      });
      expect(bad.status).toBe(400);
    }
  });

  it('a resuming request ends the hanging one', async () => {
    const url = await begin(volume.length);
    const hanging = httpRequest(url, {
      method: 'PATCH',
      headers: {
        ...tus,
        'upload-offset': '0',
        'content-type': 'application/offset+octet-stream',
        'content-length': volume.length,
      },
    });
    hanging.on('error', () => {});
    await new Promise((resolve) => hanging.write(volume.subarray(0, 64), resolve));
    await expect.poll(async () => offsetOf(url)).toBe(64);
    expect((await patch(url, 64, volume.subarray(64))).status).toBe(204);
    hanging.destroy();
  });

  it('HEAD /api/blobs reports only existing blobs', async () => {
    const url = await begin(volume.length);
    await patch(url, 0, volume);
    const digest = `sha256:${sha256(volume)}`;
    const there = await fetch(`${server.url}/api/blobs/${digest}`, { method: 'HEAD' });
    expect([there.status, there.headers.get('content-length')]).toEqual([200, String(volume.length)]);
    expect((await fetch(`${server.url}/api/blobs/sha256:${'0'.repeat(64)}`, { method: 'HEAD' })).status).toBe(
      404,
    );
    expect((await fetch(`${server.url}/api/blobs/..%2fserver.db`, { method: 'HEAD' })).status).toBe(404);
  });

  it.each([
    [{ inputs: { volume: { upload: 7 } } }, 'inputs.volume'],
    // What is no input of the service is not said back.
    [{ inputs: { mask: { upload: 'x' } } }, undefined],
    [{ inputs: {}, extra: 1 }, undefined],
    [{ inputs: {} }, 'volume'],
    [{ inputs: { volume: { blob: 'sha256:abc' } } }, 'inputs.volume.blob'],
    [{ inputs: { volume: { blob: `sha256:${'0'.repeat(64)}` } } }, 'volume'],
  ])('a prediction that names uploads is refused with the field: %j', async (body, field) => {
    const response = await predict(body);
    expect(response.status).toBeGreaterThanOrEqual(400);
    expect(response.status).toBeLessThan(500);
    expect(((await response.json()) as { field?: string }).field).toBe(field);
  });
});

describe('createClient().upload', () => {
  it('sends missing bytes once; an unreadable file is not a broken connection', async () => {
    const bytes = new Uint8Array(20_000_000);
    for (let i = 0; i < bytes.length; i += 1000) bytes[i] = i / 1000;
    let sentBytes = 0;
    let isReadable = false;
    const source: FileSource = {
      name: 'large.nii',
      sizeBytes: bytes.length,
      stream: async function* () {
        yield bytes;
      },
      slice: async function* (start, end) {
        for (let at = start; at < end; at += 65_536) {
          if (!isReadable && at > start) throw new Error('the disk is gone');
          const piece = bytes.subarray(at, Math.min(end, at + 65_536));
          sentBytes += piece.length;
          yield piece;
        }
      },
    };
    const client = createClient({ baseUrl: server.url });
    const options = { keepText: true };
    await expect(client.upload(source)).rejects.toMatchObject({ code: 'BAD_INPUT' });
    await expect(client.upload(source, options)).rejects.toMatchObject({ code: 'BAD_INPUT' });
    isReadable = true;
    sentBytes = 0;
    const ref = await client.upload(source, options);
    expect(ref).toHaveProperty('upload');
    expect(sentBytes).toBe(bytes.length);
    sentBytes = 0;
    expect(await client.upload(source, options)).toEqual({
      blob: `sha256:${sha256(bytes)}`,
      fileName: 'large.nii',
    });
    expect(sentBytes).toBe(0);
  });

  it('predict() sends large files so, and runs on what was uploaded before', async () => {
    const client = createClient({ baseUrl: server.url });
    const file = new File([volume as Uint8Array<ArrayBuffer>], 'case.nii.gz');
    const job = await client.predict('threshold', {
      volumes: { volume: file },
      values: { factor: 5 },
      resumableAboveBytes: 10,
    });
    const settled = requireSuccess(await client.wait(job.id));
    expect(settled.outputs[0].fileName).toBe('volume_segmentation.nii.gz');
    const ref = await client.upload(file);
    const second = await client.predict('threshold', { volumes: { volume: ref! } });
    expect((await client.wait(second.id)).state).toBe('succeeded');
  });

  it('upload() continues another process’s upload, and skips complete files', async () => {
    const bytes = new Uint8Array(700_000).map((_, i) => (i * 31) % 251);
    const file = new File([bytes], 'volume.nii');
    const url = await begin(bytes.length);
    const id = url.slice(url.lastIndexOf('/') + 1);
    await patch(url, 0, bytes.subarray(0, 300_000));
    const offsets: unknown[] = [];
    const client = createClient({
      baseUrl: server.url,
      fetch: async (input, init) => {
        if (init?.method === 'PATCH') offsets.push((init.headers as Record<string, string>)['upload-offset']);
        return fetch(input, init);
      },
    });
    const begun: string[] = [];
    const sent: number[] = [];
    const options = {
      upload: id,
      onBegin: (upload: string) => begun.push(upload),
      onUpload: ({ sentBytes }: { sentBytes: number }) => sent.push(sentBytes),
    };
    expect(await client.upload(file, options)).toEqual({ upload: id });
    expect(await client.upload(file, options)).toEqual({ upload: id });
    expect(offsets).toEqual(['300000']);
    expect(sent).toEqual([300_000, 700_000, 700_000]);
    await client.removeUpload(id);
    expect(await offsetOf(url)).toBe(404);
    await client.removeUpload(id);
    const ref = await client.upload(file, options);
    expect(ref).toEqual({ upload: begun[0] });
    // Of another length it cannot be the same file.
    const other = await client.upload(new File([bytes.subarray(1)], 'volume.nii'), { upload: begun[0] });
    expect(other).not.toEqual(ref);
    expect(offsets).toEqual(['300000', '0', '0']);
    for (const one of [ref, other]) await client.removeUpload((one as { upload: string }).upload);
  });

  it('leaves at most the partial upload of the unreadable file', async () => {
    const parts = await readdir(join(server.dataFolder, 'uploads'));
    const sizes = parts.length;
    expect(sizes).toBeLessThanOrEqual(1); // The one that the unreadable file began.
  });
});
