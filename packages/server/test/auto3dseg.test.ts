import { execFile } from 'node:child_process';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { readVolume, sourceFromBytes, type Volume } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findForeignClient, findPython } from '../../../test/programs.ts';
import { nodePlatform } from '../src/node-platform.ts';
import { inferBright, writeApp } from './app-fixture.ts';
import { encode, obliqueAffine, phantom } from './phantom.ts';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

/* Auto3DSeg's server, by the protocol, and with the remote logic of its module for 3D Slicer. */

const run = promisify(execFile);
const liver = { scheme: 'SCT', value: '10200004', meaning: 'Liver' };
const volume = { type: 'volume' };
const labels = [
  {
    value: 1,
    name: 'Liver, "right" lobe',
    code: liver,
    modifier: { ...liver, value: '24028007', meaning: 'Right' },
  },
  { value: 7, name: 'plain' },
  { value: 9, name: 'only fine', when: { mode: 'fine' } },
];

let server: TestServer;
let folder: string;
beforeAll(async () => {
  folder = await temporaryFolder();
  const app = (id: string, more: Record<string, unknown> = {}) =>
    writeApp(folder, id, { infer: inferBright, labels: [{ value: 1, name: 'bright' }], ...more });
  server = await startTestServer(
    [
      await app('bright', {
        name: 'Bright <b>things</b>',
        labels,
        inputs: {
          scan: { ...volume, label: 'Any scan' },
          mode: { type: 'radiobutton', options: ['fast', 'fine'] },
        },
        infer:
          'return { segmentation: { ...inputs.scan, voxels: Uint8Array.from(inputs.scan.voxels, (v) => (v > 500 ? 7 : v > 100 ? 1 : 0)) } };',
      }),
      await app('four', {
        inputs: { a: volume, b: volume, c: volume, d: volume, e: { ...volume, optional: true } },
        infer: `const sum = inputs.a.voxels.map((v, i) =>
          (v > 100 ? 1 : 0) + (inputs.b.voxels[i] > 100 ? 2 : 0) + (inputs.c.voxels[i] > 100 ? 4 : 0) + (inputs.d.voxels[i] > 100 ? 8 : 0) + (inputs.e ? 16 : 0));
          return { segmentation: { ...inputs.a, voxels: Uint8Array.from(sum) } };`,
        labels: Array.from({ length: 15 }, (_, i) => ({ value: i + 1, name: `sum ${i + 1}` })),
      }),
      await app('five', { inputs: { a: volume, b: volume, c: volume, d: volume, e: volume } }),
      await app('without-labels', { labels: [] }),
      await app('points', { inputs: { volume, points: { type: 'fiducials' } } }),
      await app('text', { outputs: { text: { type: 'PlainText' } } }),
      await app('failing', { infer: "throw new Error('no');" }),
      await app('slow', { infer: 'await sleep(120_000);' }),
    ],
    { faces: ['auto3dseg'] },
  );
});
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

const get = (path: string) => fetch(`${server.url}/auto3dseg${path}`);

function infer(
  model: string,
  files: Record<string, Uint8Array>,
  signal?: AbortSignal,
  of: TestServer = server,
) {
  const form = new FormData();
  Object.entries(files).forEach(([name, bytes], i) => {
    form.append(name, new Blob([bytes as Uint8Array<ArrayBuffer>]), `input-volume${i}.nrrd`);
  });
  return fetch(`${of.url}/auto3dseg/infer?model_name=${model}`, { method: 'POST', body: form, signal });
}

/** With one block brighter than 100: from `x` on, two voxels wide. */
function block(x: number): Volume {
  const size = [23, 17, 11] as const;
  const voxels = new Int16Array(size[0] * size[1] * size[2]);
  for (let i = 0; i < voxels.length; i++) {
    const column = i % size[0];
    if (column >= x && column < x + 2) voxels[i] = 300;
  }
  return { ...phantom(), voxels };
}

const read = async (bytes: Uint8Array) => readVolume([sourceFromBytes('result.nrrd', bytes)], nodePlatform);

/** What the promise gives for the same volume. */
async function promised(task: string, bytes: Uint8Array) {
  const answer = await fetch(`${server.url}/${task}/any?format=nrrd`, {
    method: 'POST',
    body: bytes as BodyInit,
    headers: { 'content-type': 'application/octet-stream' },
  });
  expect(answer.status).toBe(200);
  return read(new Uint8Array(await answer.arrayBuffer()));
}

const jobs = async (of = server) =>
  (await (await fetch(`${of.url}/metrics`)).text()).match(/^tomaat_jobs\S* [1-9]\d*$/gm) ?? [];

describe('GET /auto3dseg', () => {
  it('lists the apps that make a label map of one to four volumes alone', async () => {
    const answer = await get('/models');
    const models = (await answer.json()) as Record<string, unknown>[];
    expect(answer.headers.get('content-type')).toMatch(/^application\/json/);
    expect(models.map(({ id }) => id)).toEqual(['bright', 'four', 'failing', 'slow']);
    expect(models[0]).toEqual({
      id: 'bright',
      title: 'Bright <b>things</b>',
      version: '1.0.0',
      inputs: [{ title: 'Any scan' }],
      imagingModality: 'any',
      description: 'Made for a test.',
      sampleData: null,
      segmentNames: ['Liver, "right" lobe', 'plain'],
      details: expect.stringContaining('Bright &lt;b&gt;things&lt;/b&gt; (v1.0.0)'),
      url: '',
      deprecated: false,
    });
    expect(models[1].inputs).toEqual(['a', 'b', 'c', 'd'].map((title) => ({ title })));
    expect(await (await get('/modelinfo?id=bright')).json()).toEqual(models[0]);
  });

  it('says what it is', async () => {
    expect(await (await get('/monaiinfo')).json()).toMatch(/^Name: tomaat\nVersion: \d/);
  });

  it('describes the labels of the default in 17 columns', async () => {
    const answer = await get('/labelDescriptions?id=bright');
    const text = await answer.text();
    expect(answer.headers.get('content-length')).toBe(String(Buffer.byteLength(text)));
    const [header, ...rows] = text.trimEnd().split('\n');
    expect(header.split(',')).toHaveLength(17);
    expect(header).toMatch(
      /^LabelValue,Name,SegmentedPropertyCategoryCodeSequence\.CodingSchemeDesignator,SegmentedPropertyCategoryCodeSequence\.CodeValue,/,
    );
    expect(rows).toEqual([
      '1,"Liver, ""right"" lobe",SCT,123037004,Anatomical Structure,SCT,10200004,Liver,SCT,24028007,Right,,,,,,',
      '7,plain,SCT,123037004,Anatomical Structure,,,,,,,,,,,,',
    ]);
  });

  it.each(['/modelinfo?id=five', '/labelDescriptions?id=nothing', '/labelDescriptions'])(
    '%s is 404 in the form of the protocol',
    async (path) => {
      const answer = await get(path);
      expect(answer.status).toBe(404);
      expect(await answer.json()).toEqual({
        error: 'Not found',
        message: 'There is no such model here. Send id, one of: bright, four, failing, slow.',
      });
    },
  );
});

describe('POST /auto3dseg/infer', () => {
  it('answers with the label map of the promise, as NRRD in LPS and mm, of known length', async () => {
    const bytes = await encode(phantom(), 'nrrd');
    const answer = await infer('bright', { image_file: bytes });
    const result = new Uint8Array(await answer.arrayBuffer());
    expect(answer.status).toBe(200);
    expect(answer.headers.get('content-length')).toBe(String(result.length));
    expect(answer.headers.get('content-type')).toBe('application/octet-stream');
    const header = Buffer.from(result).toString('latin1').split('\n\n', 1)[0];
    expect(header).toContain('space: left-posterior-superior');
    const { volume: labelMap } = await read(result);
    const { volume: expected } = await promised('bright', bytes);
    expect(labelMap.voxels).toEqual(expected.voxels);
    expect(new Set(labelMap.voxels as Uint8Array)).toEqual(new Set([0, 1, 7]));
    expect(labelMap.size).toEqual(phantom().size);
    for (const [i, v] of labelMap.affine.entries()) expect(v).toBeCloseTo(obliqueAffine[i], 6);
    await expect.poll(() => jobs()).toEqual([]);
  });

  it('takes up to four volumes by their names, in any order', async () => {
    const [a, b, c, d] = await Promise.all([2, 6, 10, 14].map((x) => encode(block(x), 'nrrd')));
    const answer = await infer('four', { image_file_4: d, image_file_2: b, image_file: a, image_file_3: c });
    expect(answer.status).toBe(200);
    const { volume: labelMap } = await read(new Uint8Array(await answer.arrayBuffer()));
    const row = Array.from(labelMap.voxels as Uint8Array).slice(0, 23);
    expect(row).toEqual([0, 0, 1, 1, 0, 0, 2, 2, 0, 0, 4, 4, 0, 0, 8, 8, 0, 0, 0, 0, 0, 0, 0]);
  });

  it.each<[string, string, () => Promise<Record<string, Uint8Array>>, number, RegExp]>([
    ['an unknown model', 'nothing', async () => ({}), 404, /Send model_name, one of: bright/],
    ['a model that is not offered', 'five', async () => ({}), 404, /no such model/],
    ['no volume', 'bright', async () => ({}), 409, /needs scan/],
    [
      'one volume of four',
      'four',
      async () => ({ image_file: await encode(phantom(), 'nrrd') }),
      409,
      /needs b and c and d/,
    ],
    [
      'a volume too many',
      'bright',
      async () => ({ image_file: await encode(phantom(), 'nrrd'), image_file_2: new Uint8Array(9) }),
      422,
      /are: image_file\. Leave other files out/,
    ],
    ['garbage', 'bright', async () => ({ image_file: new Uint8Array(5000).fill(65) }), 415, /format/],
    [
      'an app that fails',
      'failing',
      async () => ({ image_file: await encode(phantom(), 'nrrd') }),
      422,
      /no/,
    ],
  ])('refuses %s', async (_what, model, files, status, message) => {
    const answer = await infer(model, await files());
    expect(answer.status).toBe(status);
    expect(await answer.json()).toEqual({
      error: expect.any(String),
      message: expect.stringMatching(message),
    });
    await expect.poll(() => jobs()).toEqual([]);
  });

  it('says that the queue is full, and takes the next request when it is not', async () => {
    const apps = ['slow', 'bright'].map((id) => join(folder, id));
    await using full = await startTestServer(apps, { faces: ['auto3dseg'], maxQueued: 1, workers: 1 });
    const files = { image_file: await encode(phantom(), 'nrrd') };
    const gone = new AbortController();
    const begin = () => infer('slow', files, gone.signal, full).catch(() => undefined);
    const waiting = [begin()];
    // Until it runs, it is the one that may wait.
    await expect.poll(() => jobs(full), { timeout: 30_000 }).toEqual([expect.stringContaining('running')]);
    waiting.push(begin());
    await expect
      .poll(() => jobs(full), { timeout: 30_000 })
      .toEqual(
        expect.arrayContaining([expect.stringContaining('queued'), expect.stringContaining('running')]),
      );
    const refused = await infer('bright', files, undefined, full);
    expect(refused.status).toBe(503);
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0);
    expect(await refused.json()).toEqual({
      error: expect.any(String),
      message: expect.stringMatching(/again/),
    });
    gone.abort();
    await Promise.all(waiting);
    await expect.poll(() => jobs(full), { timeout: 30_000 }).toEqual([]);
    expect((await infer('bright', files, undefined, full)).status).toBe(200);
  });

  it('cancels the job of a client that leaves', async () => {
    const gone = new AbortController();
    const answer = infer('slow', { image_file: await encode(phantom(), 'nrrd') }, gone.signal);
    await expect.poll(() => jobs(), { timeout: 30_000 }).toEqual([expect.stringContaining('running')]);
    gone.abort();
    await expect(answer).rejects.toThrow();
    await expect.poll(() => jobs(), { timeout: 30_000 }).toEqual([]);
  });
});

it('is not there unless the operator asks for it', async () => {
  await using plain = await startTestServer(['threshold']);
  const answers = await Promise.all(
    ['/models', '/monaiinfo', '/modelinfo?id=threshold', '/labelDescriptions?id=threshold'].map((path) =>
      fetch(`${plain.url}/auto3dseg${path}`),
    ),
  );
  expect(answers.map(({ status }) => status)).toEqual([404, 404, 404, 404]);
  const body = new FormData();
  body.append('image_file', new Blob(['x']), 'x.nrrd');
  const infer = await fetch(`${plain.url}/auto3dseg/infer?model_name=threshold`, { method: 'POST', body });
  expect(infer.status).toBe(404);
});

const client = findForeignClient('SlicerMONAIAuto3DSeg');
const python = client && findPython('requests');

describe.skipIf(!python)('the module for 3D Slicer', () => {
  const script = join(import.meta.dirname, 'auto3dseg-client.py');
  interface Told {
    models: { id: string }[];
    default: string;
    monai: string;
    labels: Record<string, { name: string; terminology: string }>;
    colors: number;
    names: Record<string, string>;
    error?: string;
  }

  async function drive(model: string, volumes: readonly Uint8Array[]): Promise<{ told: Told; file: string }> {
    const own = join(folder, `client-${model}`);
    await mkdir(own, { recursive: true });
    const inputs = volumes.map((_, i) => join(own, `${i}.nrrd`));
    await Promise.all(inputs.map((path, i) => writeFile(path, volumes[i])));
    const file = join(own, 'label.nrrd');
    const module = join(client!, 'MONAIAuto3DSeg');
    const { stdout } = await run(python!, [
      script,
      module,
      `${server.url}/auto3dseg`,
      model,
      file,
      ...inputs,
    ]);
    return { told: JSON.parse(stdout) as Told, file };
  }

  it('lists, segments and names as it does with its own server', async () => {
    const bytes = await encode(phantom(), 'nrrd');
    const { told, file } = await drive('bright', [bytes]);
    expect(told.error).toBeUndefined();
    expect(told.models.map(({ id }) => id)).toEqual(['bright', 'four', 'failing', 'slow']);
    expect(told).toMatchObject({
      default: 'bright',
      monai: expect.stringMatching(/^Name: tomaat/),
      colors: 8,
    });
    expect(told.names).toEqual({ 1: 'Liver, "right" lobe', 7: 'plain' });
    expect(told.labels['1'].terminology.split('~').slice(1, 4)).toEqual([
      'SCT^123037004^Anatomical Structure',
      'SCT^10200004^Liver',
      'SCT^24028007^Right',
    ]);
    const { volume: labelMap } = await read(new Uint8Array(await readFile(file)));
    const { volume: expected } = await promised('bright', bytes);
    expect(labelMap.voxels).toEqual(expected.voxels);
    for (const [i, v] of labelMap.affine.entries()) expect(v).toBeCloseTo(obliqueAffine[i], 6);
  });

  it('sends four volumes', async () => {
    const { told, file } = await drive(
      'four',
      await Promise.all([2, 6, 10, 14].map((x) => encode(block(x), 'nrrd'))),
    );
    expect(told.error).toBeUndefined();
    const { volume: labelMap } = await read(new Uint8Array(await readFile(file)));
    expect(new Set(labelMap.voxels as Uint8Array)).toEqual(new Set([0, 1, 2, 4, 8]));
  });

  it('shows an error by its status', async () => {
    const { told } = await drive('failing', [await encode(phantom(), 'nrrd')]);
    expect(told.error).toMatch(/^RuntimeError/);
  });
});
