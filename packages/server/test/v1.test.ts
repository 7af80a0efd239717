import { rm } from 'node:fs/promises';
import { readVolume, sourceFromBytes } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { nodePlatform } from '../src/node-platform.ts';
import { inferBright, writeApp } from './app-fixture.ts';
import { encode, obliqueAffine, phantom } from './phantom.ts';
import { rawRequest, sendRaw } from './real-server.ts';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

/** A client that does what the protocol's page says, and nothing that it does not. */
let server: TestServer;
beforeAll(async () => {
  server = await startTestServer(['threshold', 'ct-lung'], { v1DelayMs: 30_000 });
});
afterAll(() => server?.[Symbol.asyncDispose]());

interface Element {
  type: string;
  content: string;
  label: string;
  request_id?: string;
}

/** Base64 with a newline after every 76 characters, as Python's encodebytes writes it. */
const lines = (bytes: Uint8Array) => `${Buffer.from(bytes).toString('base64').replace(/.{76}/g, '$&\n')}\n`;

/** multipart/form-data whose parts have no file names, as Slicer sends it. */
function multipart(fields: Record<string, string | Uint8Array>): { body: Buffer; type: string } {
  const boundary = '----Slicer$Boundary7MA4YW';
  const parts = Object.entries(fields).flatMap(([name, value]) => [
    Buffer.from(`--${boundary}\r\nContent-Disposition: form-data; name="${name}"\r\n\r\n`),
    Buffer.from(value as string),
    Buffer.from('\r\n'),
  ]);
  return {
    body: Buffer.concat([...parts, Buffer.from(`--${boundary}--\r\n`)]),
    type: `multipart/form-data; boundary=${boundary}`,
  };
}

async function post(path: string, body: Buffer | string, type: string): Promise<Element[]> {
  const response = await fetch(`${server.url}${path}`, {
    method: 'POST',
    body: body as BodyInit,
    headers: { 'content-type': type },
  });
  expect(response.status).toBe(200);
  expect(response.headers.get('access-control-allow-origin')).toBe('*');
  const text = await response.text();
  expect(response.headers.get('content-length')).toBe(String(Buffer.byteLength(text)));
  return JSON.parse(text);
}

async function expectLabels(element: Element): Promise<void> {
  expect(element.type).toBe('LabelVolume');
  for (const line of element.content.split('\n')) expect(line.length).toBeLessThanOrEqual(76);
  const bytes = Buffer.from(element.content, 'base64');
  expect(bytes.toString('latin1', 0, 200)).toContain('CompressedData = True');
  const { volume, header } = await readVolume([sourceFromBytes('x.mha', bytes)], nodePlatform);
  expect(header.extension).toBe('mha');
  for (const [i, v] of volume.affine.entries()) expect(v).toBeCloseTo(obliqueAffine[i], 4);
  const expected = Array.from(phantom().voxels as Int16Array, (v) => (v > 100 ? 1 : 0));
  expect(Array.from(volume.voxels as Uint8Array)).toEqual(expected);
}

describe('TOMAAT v1', () => {
  it('GET /interface lists the inputs of the default service at the root', async () => {
    const response = await fetch(`${server.url}/interface`);
    expect(response.headers.get('content-length')).toBeTruthy();
    const elements = (await response.json()) as Record<string, unknown>[];
    expect(elements.map((e) => [e.type, e.destination])).toEqual([
      ['volume', 'volume'],
      ['slider', 'factor'],
    ]);
    expect(elements[1]).toMatchObject({ minimum: 0, maximum: 5 });
  });

  it('POST /predict takes base64 in 76-column lines as a field without file name', async () => {
    const { body, type } = multipart({
      volume: lines(await encode(phantom(), 'mha')),
      factor: '1',
      module_version: 'Slicer-v2',
    });
    const elements = await post('/predict', body, type);
    expect(elements.map((e) => e.type)).toEqual(['LabelVolume', 'PlainText']);
    for (const element of elements) expect(typeof element.label).toBe('string');
    await expectLabels(elements[0]);
  });

  it('POST /predict takes the raw bytes of the .mha', async () => {
    const { body, type } = multipart({ volume: await encode(phantom(), 'mha') });
    await expectLabels((await post('/predict', body, type))[0]);
  });

  it('POST /predict takes url-encoded forms', async () => {
    const form = new URLSearchParams({ volume: lines(await encode(phantom(), 'mha')), factor: '1' });
    await expectLabels(
      (await post('/services/threshold/predict', form.toString(), 'application/x-www-form-urlencoded'))[0],
    );
  });

  it('POST /predict reports errors in an element with the label Error!', async () => {
    const { body, type } = multipart({ volume: lines(await encode(phantom(), 'mha')), factor: '99' });
    const [element] = await post('/predict', body, type);
    expect(element).toMatchObject({ type: 'PlainText', label: 'Error!' });
    expect(element.content).toContain('from 0 to 5');
    const bad = multipart({ volume: lines(Buffer.from('no volume at all')) });
    const [second] = await post('/predict', bad.body, bad.type);
    expect(second.label).toBe('Error!');
  });
});

describe('a client that leaves', () => {
  let folder: string;
  let slowApp: string;
  beforeAll(async () => {
    folder = await temporaryFolder();
    slowApp = await writeApp(folder, 'slow', { infer: `await sleep(2000); ${inferBright}` });
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  const jobsOf = async (url: string) =>
    (await (await fetch(`${url}/metrics`)).text()).match(/^tomaat_jobs\S* [1-9]\d*$/gm) ?? [];

  it('before any answer takes its job with it', async () => {
    await using slow = await startTestServer([slowApp], { v1DelayMs: 20_000 });
    const { body, type } = multipart({ volume: await encode(phantom(), 'mha') });
    const leaves = new AbortController();
    const answer = fetch(`${slow.url}/predict`, {
      method: 'POST',
      body: body as BodyInit,
      headers: { 'content-type': type },
      signal: leaves.signal,
    });
    await expect.poll(() => jobsOf(slow.url), { timeout: 10_000 }).not.toEqual([]);
    leaves.abort();
    await expect(answer).rejects.toThrow();
    await expect.poll(() => jobsOf(slow.url), { timeout: 1500, interval: 20 }).toEqual([]);
  });

  it('after a DelayedResponse finds its job again', async () => {
    await using slow = await startTestServer([slowApp], { v1DelayMs: 50 });
    const { body, type } = multipart({ volume: await encode(phantom(), 'mha') });
    const port = Number(new URL(slow.url).port);
    const headers = { 'Content-Type': type, Connection: 'close' };
    // One connection a request, which is gone with its answer.
    const first = await sendRaw(port, rawRequest('POST', '/predict', headers, body));
    const [{ type: kind, request_id }] = JSON.parse(String(first?.body)) as Element[];
    expect(kind).toBe('DelayedResponse');
    const poll = async () =>
      (await (
        await fetch(`${slow.url}/responses`, {
          method: 'POST',
          body: new URLSearchParams({ request_id: request_id! }),
        })
      ).json()) as Element[];
    await expect
      .poll(async () => (await poll()).map((element) => element.type), { timeout: 15_000, interval: 100 })
      .toEqual(['PlainText', 'LabelVolume']);
  });
});

describe('delayed responses', () => {
  it('are polled for and delivered once', async () => {
    await using slow = await startTestServer(['threshold'], { v1DelayMs: 0 });
    const { body, type } = multipart({ volume: lines(await encode(phantom(), 'mha')) });
    const send = async (path: string, data: Buffer | string, contentType: string) =>
      (await (
        await fetch(`${slow.url}${path}`, {
          method: 'POST',
          body: data as BodyInit,
          headers: { 'content-type': contentType },
        })
      ).json()) as Element[];
    const [first] = await send('/predict', body, type);
    expect(first.type).toBe('DelayedResponse');
    const poll = () =>
      send('/responses', `request_id=${first.request_id}`, 'application/x-www-form-urlencoded');
    let elements = await poll();
    while (elements[0].type === 'DelayedResponse') {
      expect(elements[0].request_id).toBe(first.request_id);
      elements = await poll();
    }
    expect(elements[0]).toMatchObject({ type: 'PlainText' });
    await expectLabels(elements[1]);
    await expect.poll(async () => (await poll())[0].content).toContain('cannot be retrieved');
  });
});
