import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFile, open, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Job } from '@tomaat/client';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { findCurl } from '../../../test/programs.ts';
import { inferBright, writeApp } from './app-fixture.ts';
import { encode, phantom } from './phantom.ts';
import { readAudit } from './support/tested-database.ts';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

/* What a GET of an output or a picture answers: ranges, conditions, and files that the disk has damaged. */

let server: TestServer;
let folder: string;
let scan: Uint8Array<ArrayBuffer>;
let job: Job;
let url: string;
let whole: Buffer;
const curl = findCurl();
const pictureFile = join(import.meta.dirname, '../../../apps/ct-lung/picture.webp');

beforeAll(async () => {
  folder = await temporaryFolder();
  const app = await writeApp(folder, 'app', {
    infer: inferBright,
    labels: [{ value: 1, name: 'bright' }],
    outputs: { segmentation: { type: 'LabelVolume' }, report: { type: 'PlainText', report: 'volumes' } },
    picture: 'picture.webp',
  });
  await copyFile(pictureFile, join(app, 'picture.webp'));
  server = await startTestServer([app]);
  scan = Uint8Array.from(await encode(phantom(), 'nii'));
});
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

async function predict(to = server): Promise<Job> {
  const response = await fetch(`${to.url}/api/services/app/predictions`, {
    method: 'POST',
    body: scan,
    headers: { 'content-type': 'application/octet-stream', prefer: 'wait=60' },
  });
  const made = (await response.json()) as Job;
  expect(made.state, JSON.stringify(made)).toBe('succeeded');
  return made;
}

beforeEach(async () => {
  job = await predict();
  url = `${server.url}${job.outputs[0].url}`;
  whole = Buffer.from(await (await fetch(url)).arrayBuffer());
  expect(whole.length).toBe(job.outputs[0].sizeBytes);
});

async function get(headers: Record<string, string> = {}, { method = 'GET', query = '' } = {}) {
  const response = await fetch(`${url}${query}`, { method, headers });
  return {
    status: response.status,
    headers: response.headers,
    body: Buffer.from(await response.arrayBuffer()),
  };
}

describe('GET /api/jobs/{id}/outputs/{name}', () => {
  it('has the digest as its ETag, and takes ranges', async () => {
    for (const method of ['GET', 'HEAD']) {
      const { status, headers } = await get({}, { method });
      expect(status).toBe(200);
      expect(headers.get('etag')).toBe(`"${job.outputs[0].digest}"`);
      expect(headers.get('accept-ranges')).toBe('bytes');
      expect(headers.get('content-length')).toBe(String(whole.length));
      expect(headers.get('cache-control')).toBe('no-store');
    }
  });

  it.each([
    ['bytes=0-9', 0, 10],
    ['bytes=100-', 100, undefined],
    ['bytes=-7', -7, undefined],
    ['bytes=5-999999999', 5, undefined],
  ])('answers %s with 206 and that part', async (range, from, to) => {
    const { status, headers, body } = await get({ range });
    const part = whole.subarray(from, to);
    expect(status).toBe(206);
    expect(body.equals(part)).toBe(true);
    const first = from < 0 ? whole.length + from : from;
    expect(headers.get('content-range')).toBe(`bytes ${first}-${first + part.length - 1}/${whole.length}`);
    expect(headers.get('content-length')).toBe(String(part.length));
    expect(headers.get('etag')).toBe(`"${job.outputs[0].digest}"`);
    expect(headers.get('content-disposition')).toContain('attachment');
  });

  it('answers a range past the end with 416 and the size', async () => {
    const { status, headers, body } = await get({ range: `bytes=${whole.length}-` });
    expect(status).toBe(416);
    expect(headers.get('content-range')).toBe(`bytes */${whole.length}`);
    expect(headers.get('content-disposition')).toBeNull();
    expect(JSON.parse(body.toString())).toMatchObject({ code: 'BAD_RANGE', field: 'Range' });
  });

  it('sends the whole for several ranges, and for an invalid one', async () => {
    for (const range of ['bytes=0-1,5-6', 'bytes=9-2', 'lines=1-2']) {
      const { status, body } = await get({ range });
      expect([status, body.equals(whole)]).toEqual([200, true]);
    }
  });

  it('goes by If-Range and If-None-Match', async () => {
    const etag = `"${job.outputs[0].digest}"`;
    expect(await get({ range: 'bytes=0-9', 'if-range': etag })).toMatchObject({ status: 206 });
    const other = await get({ range: 'bytes=0-9', 'if-range': '"sha256:other"' });
    expect([other.status, other.body.equals(whole)]).toEqual([200, true]);
    for (const method of ['GET', 'HEAD']) {
      const same = await get({ 'if-none-match': etag }, { method });
      expect([same.status, same.headers.get('etag'), same.body.length]).toEqual([304, etag, 0]);
    }
    expect((await get({ 'if-none-match': '"sha256:other"' })).status).toBe(200);
  });

  it('gives conversions no ETag, and always whole', async () => {
    const query = '?format=mha';
    const first = await get({}, { query });
    const second = await get({ range: 'bytes=0-9', 'if-none-match': '*' }, { query });
    for (const { status, headers } of [first, second]) {
      expect(status).toBe(200);
      expect(headers.get('etag')).toBeNull();
      expect(headers.get('accept-ranges')).toBe('none');
      expect(headers.get('vary')).toContain('Accept');
    }
    expect(second.body.equals(first.body)).toBe(true);
    const head = await get({}, { query, method: 'HEAD' });
    expect(head.headers.get('content-length')).toBe(String(first.body.length));
    await expect.poll(() => readdir(join(server.dataFolder, 'converted'))).toEqual([]);
  });

  it.skipIf(!curl)('is resumed by “curl -C -”', async () => {
    const file = join(folder, 'part.nii.gz');
    await writeFile(file, whole.subarray(0, 40));
    await promisify(execFile)(curl!, ['-sS', '--fail', '-C', '-', '-o', file, url]);
    expect((await readFile(file)).equals(whole)).toBe(true);
  });

  it('leaves audit lines for what was read, and for nothing else', async () => {
    const lines = async () =>
      (await readAudit(server.dataFolder))
        .split('\n')
        .filter((line) => line.includes(job.id) && line.includes('result.read'))
        .map((line) => (JSON.parse(line) as { outcome: string }).outcome);
    await expect.poll(lines).toEqual(['whole']);
    await get({}, { method: 'HEAD' });
    await get({ 'if-none-match': '*' });
    await get({ range: 'bytes=99999999-' });
    await get({ range: 'bytes=0-3' });
    await expect.poll(lines).toEqual(['whole', 'part']);
  });
});

describe('GET /api/services/{id}/picture', () => {
  it('has an ETag of its bytes, and is not sent again to who has them', async () => {
    const address = `${server.url}/api/services/app/picture`;
    const picture = await readFile(pictureFile);
    const first = await fetch(address);
    const etag = `"${createHash('sha256').update(picture).digest('hex')}"`;
    expect(first.status).toBe(200);
    expect(first.headers.get('content-type')).toBe('image/webp');
    expect(first.headers.get('etag')).toBe(etag);
    expect(picture.equals(Buffer.from(await first.arrayBuffer()))).toBe(true);
    const ask = async (tag: string) => {
      const answer = await fetch(address, { headers: { 'if-none-match': tag } });
      return [answer.status, (await answer.arrayBuffer()).byteLength];
    };
    expect(await ask(`"another", ${etag}`)).toEqual([304, 0]);
    expect(await ask('"another"')).toEqual([200, picture.length]);
  });
});

/** The file of the result. */
const stored = (to = server) =>
  join(to.dataFolder, 'blobs', 'sha256', job.outputs[0].digest.replace('sha256:', ''));

/** Inverts one byte of a file. */
async function damage(path: string, at: number): Promise<void> {
  await using file = await open(path, 'r+');
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, at);
  byte[0] ^= 255;
  await file.write(byte, 0, 1, at);
}

/** What is on the line for a GET, until the server ends the connection. */
function raw(path: string): Promise<Buffer> {
  const { port, host } = new URL(server.url);
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    const socket = connect(Number(port), '127.0.0.1', () =>
      socket.write(`GET ${path} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`),
    );
    socket.on('data', (chunk) => chunks.push(chunk));
    socket.on('close', () => resolve(Buffer.concat(chunks)));
    socket.setTimeout(20_000, () => reject(new Error('The connection hangs.')));
    socket.on('error', () => {});
  });
}

describe('a result that the disk has damaged', () => {
  const problemOf = ({ body }: { body: Buffer }) => JSON.parse(body.toString()) as { code: string };

  it.each(['truncated', 'gone'])('is answered with 500 where its file is %s', async (how) => {
    if (how === 'truncated') await truncate(stored(), 30);
    else await rm(stored());
    for (const query of ['', '?format=nii', '?format=stl']) {
      const answer = await get({}, { query });
      expect([answer.status, problemOf(answer).code, answer.headers.get('etag')]).toEqual([
        500,
        'DAMAGED',
        null,
      ]);
      expect(answer.headers.get('content-disposition')).toBeNull();
    }
    expect((await get({ range: 'bytes=0-9' })).status).toBe(500);
    expect((await get({}, { method: 'HEAD' })).status).toBe(500);
  });

  it('is replaced when the same result is computed again', async () => {
    await truncate(stored(), 30);
    const again = await predict();
    expect(again.outputs[0].digest).toBe(job.outputs[0].digest);
    expect((await get()).body.equals(whole)).toBe(true);
    await damage(stored(), 25);
    expect((await get()).status).toBe(500);
    await predict();
    expect((await get()).body.equals(whole)).toBe(true);
  });

  it('that is changed is refused where it is small, and by every conversion', async () => {
    await damage(stored(), 25);
    // Nothing has read it yet.
    expect(problemOf(await get({}, { query: '?format=nii' })).code).toBe('DAMAGED');
    expect(problemOf(await get()).code).toBe('DAMAGED');
    expect((await get({ range: 'bytes=0-9' })).status).toBe(500);
  });

  it('that is changed breaks off before its end where it is large', async () => {
    const noise = await startTestServer([
      await writeApp(folder, 'noise', {
        // Does not compress, so that the result is several chunks.
        infer: `let s = 1; return { segmentation: { ...volume, voxels: Uint8Array.from(volume.voxels, () => (s = (s * 48271) % 2147483647) % 251) } };`,
        labels: Array.from({ length: 250 }, (_, i) => ({ value: i + 1, name: `label ${i + 1}` })),
      }),
    ]);
    try {
      const big = phantom(undefined, [110, 100, 90]);
      const response = await fetch(`${noise.url}/api/services/noise/predictions`, {
        method: 'POST',
        body: Uint8Array.from(await encode(big, 'nii')),
        headers: { 'content-type': 'application/octet-stream', prefer: 'wait=60' },
      });
      const { outputs } = (await response.json()) as Job;
      expect(outputs[0].sizeBytes).toBeGreaterThan(500_000);
      const path = join(noise.dataFolder, 'blobs', 'sha256', outputs[0].digest.slice(7));
      await damage(path, 1000);
      const before = server;
      server = noise;
      const line = await raw(outputs[0].url).finally(() => {
        server = before;
      });
      expect(line.toString('latin1', 0, 15)).toBe('HTTP/1.1 200 OK');
      const received = line.length - line.indexOf('\r\n\r\n') - 4;
      expect(received).toBeLessThan(outputs[0].sizeBytes);
      // From now on it is known.
      expect((await fetch(`${noise.url}${outputs[0].url}`)).status).toBe(500);
    } finally {
      await noise[Symbol.asyncDispose]();
    }
  });

  it('fails its v1 answer with words', async () => {
    // A job of the API is not polled for by a v1 client, but by its id it can be.
    await truncate(stored(), 30);
    const answer = await fetch(`${server.url}/responses`, {
      method: 'POST',
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      body: `request_id=${job.id}`,
    });
    expect(await answer.json()).toEqual([
      expect.objectContaining({ label: 'Error!', content: expect.stringContaining('damaged') }),
    ]);
  });
});

describe('an input that the disk has damaged', () => {
  const digest = () => `sha256:${createHash('sha256').update(scan).digest('hex')}`;
  const tus = { 'tus-resumable': '1.0.0' };

  async function upload(): Promise<string> {
    const created = await fetch(`${server.url}/api/uploads`, {
      method: 'POST',
      headers: { ...tus, 'upload-length': String(scan.length) },
    });
    const at = created.headers.get('location')!;
    const sent = await fetch(server.url + at, {
      method: 'PATCH',
      body: scan,
      headers: { ...tus, 'upload-offset': '0', 'content-type': 'application/offset+octet-stream' },
    });
    expect(sent.headers.get('tomaat-digest')).toBe(digest());
    return at.split('/').at(-1)!;
  }

  it('fails the job that waits for it, with the reason', async () => {
    const dataFolder = join(folder, 'waiting');
    const app = join(folder, 'app');
    let id: string;
    {
      await using idle = await startTestServer([app], { dataFolder, workers: 0 });
      const created = await fetch(`${idle.url}/api/services/app/predictions`, {
        method: 'POST',
        body: scan,
        headers: { 'content-type': 'application/octet-stream' },
      });
      ({ id } = (await created.json()) as Job);
      await truncate(join(dataFolder, 'blobs', 'sha256', digest().slice(7)), 400);
    }
    await using working = await startTestServer([app], { dataFolder });
    const look = async () => (await (await fetch(`${working.url}/api/jobs/${id}`)).json()) as Job;
    await expect.poll(async () => (await look()).state, { timeout: 20_000 }).toBe('failed');
    expect((await look()).error).toMatchObject({ code: 'DAMAGED', status: 500 });
  });

  it('is refused by name, reported as missing, and repaired by an upload', async () => {
    const id = await upload();
    const file = join(server.dataFolder, 'blobs', 'sha256', digest().slice(7));
    await truncate(file, 400);
    const use = (ref: object) =>
      fetch(`${server.url}/api/services/app/predictions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', prefer: 'wait=60' },
        body: JSON.stringify({ inputs: { volume: ref } }),
      });
    for (const ref of [{ upload: id }, { blob: digest() }]) {
      const refused = await use(ref);
      expect(refused.status).toBe(500);
      expect(await refused.json()).toMatchObject({
        code: 'DAMAGED',
        field: 'volume',
        detail: expect.stringContaining('Upload it again'),
      });
    }
    const there = () => fetch(`${server.url}/api/blobs/${digest()}`, { method: 'HEAD' });
    expect((await there()).status).toBe(404);
    await upload();
    expect((await there()).status).toBe(200);
    expect(((await (await use({ upload: id })).json()) as Job).state).toBe('succeeded');
  });
});
