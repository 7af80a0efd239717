import { createHash } from 'node:crypto';
import { rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { claimedJobSchema, type Job } from '@tomaat/client';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { makeKey } from './access-fixture.ts';
import { inferBright, writeApp } from './app-fixture.ts';
import { encode, phantom } from './phantom.ts';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

/* What a worker may not do: read what is not its job's, bring what the service does not promise. */

let folder: string;
let app: string;
let server: TestServer;
let headers: { authorization: string };
let scans: Uint8Array<ArrayBuffer>[];

const digestOf = (bytes: Uint8Array) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
const version = '1.0.0';

beforeAll(async () => {
  folder = await temporaryFolder();
  app = await writeApp(folder, 'app', {
    infer: inferBright,
    inputs: { volume: { type: 'volume' }, other: { type: 'volume', optional: true } },
    labels: [{ value: 1, name: 'bright' }],
    outputs: { segmentation: { type: 'LabelVolume' }, report: { type: 'PlainText', report: 'volumes' } },
  });
  server = await startTestServer([app], { workers: 0 });
  ({ headers } = await makeKey(server.dataFolder, ['worker']));
  scans = await Promise.all(
    [9, 10, 11].map(async (x) => Uint8Array.from(await encode(phantom(undefined, [x, 8, 7]), 'nii.gz'))),
  );
});
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});
afterEach(async () => {
  for (const id of submitted.splice(0)) {
    await fetch(`${server.url}/api/jobs/${id}`, { method: 'DELETE' });
    await fetch(`${server.url}/api/jobs/${id}`, { method: 'DELETE' });
  }
});

const submitted: string[] = [];
async function submit(...inputs: Uint8Array<ArrayBuffer>[]): Promise<string> {
  const form = new FormData();
  for (const [i, bytes] of inputs.entries()) form.set(['volume', 'other'][i], new Blob([bytes]), 'a.nii.gz');
  const response = await fetch(`${server.url}/api/services/app/predictions`, { method: 'POST', body: form });
  const { id } = (await response.json()) as Job;
  submitted.push(id);
  return id;
}

const ask = (path: string, init: RequestInit = {}) =>
  fetch(`${server.url}/api/worker${path}`, { ...init, headers: { ...headers, ...init.headers } });
const post = (path: string, data: object) =>
  ask(path, {
    method: 'POST',
    body: JSON.stringify(data),
    headers: { 'content-type': 'application/json' },
  });

async function claim(): Promise<{ id: string; attempt: number }> {
  const answer = await post('/claim', {
    worker: 'gpu-1',
    waitSeconds: 5,
    services: [{ id: 'app', version }],
  });
  expect(answer.status).toBe(200);
  return (await answer.json()) as { id: string; attempt: number };
}

const bodyOf = async (response: Response) => (await response.json()) as { code: string; detail: string };
const label = Buffer.from('the bytes of a label map');
const report = Buffer.from('the text of a report');

const keptFile = { format: 'nii.gz', digest: digestOf(label), sizeBytes: label.length };

const outputs = () => [
  {
    name: 'segmentation',
    type: 'LabelVolume',
    label: 'segmentation',
    primary: true,
    format: 'nii.gz',
    digest: digestOf(label),
    sizeBytes: label.length,
  },
  {
    name: 'report',
    type: 'PlainText',
    label: 'report',
    primary: false,
    format: 'txt',
    digest: digestOf(report),
    sizeBytes: report.length,
  },
];

async function bring({ id, attempt }: { id: string; attempt: number }): Promise<void> {
  for (const [name, bytes] of [
    ['segmentation', label],
    ['report', report],
  ] as const) {
    const query = `attempt=${attempt}&digest=${encodeURIComponent(digestOf(bytes))}`;
    const brought = await ask(`/jobs/${id}/outputs/${name}?${query}`, {
      method: 'PUT',
      body: Uint8Array.from(bytes),
      headers: { 'content-type': 'application/octet-stream' },
    });
    expect(brought.status).toBe(204);
  }
}

describe('POST /api/worker/claim', () => {
  it('says what an input was before text was taken out of it', async () => {
    const named = Uint8Array.from(await encode(phantom(), 'nii'));
    // descrip of NIfTI-1
    named.set(Buffer.from('Jane Doe'), 148);
    await using strips = await startTestServer([app], { workers: 0, stripInputs: true });
    const { headers } = await makeKey(strips.dataFolder, ['worker']);
    const sent = await fetch(`${strips.url}/api/services/app/predictions`, {
      method: 'POST',
      body: named,
      headers: { 'content-type': 'application/octet-stream' },
    });
    const answer = await fetch(`${strips.url}/api/worker/claim`, {
      method: 'POST',
      body: JSON.stringify({ worker: 'gpu-1', services: [{ id: 'app', version }] }),
      headers: { ...headers, 'content-type': 'application/json' },
    });
    const job = claimedJobSchema.parse(await answer.json());
    const { id } = (await sent.json()) as Job;
    expect(job).toMatchObject({ id, inputs: [{ name: 'volume', received: digestOf(named) }] });
    expect(job.inputs[0].digest).not.toBe(digestOf(named));
  });
});

describe('GET /api/worker/jobs/{id}/inputs/{digest}', () => {
  const input = (id: string, bytes: Uint8Array, attempt: number) =>
    ask(`/jobs/${id}/inputs/${digestOf(bytes)}?attempt=${attempt}`);

  it('gives each input of the job, and no other file', async () => {
    const other = await submit(scans[2]);
    const mine = await submit(scans[0], scans[1]);
    const jobs = [await claim(), await claim()];
    const { attempt } = jobs.find(({ id }) => id === mine)!;
    for (const scan of scans.slice(0, 2)) {
      const answer = await input(mine, scan, attempt);
      expect([answer.status, Buffer.from(await answer.arrayBuffer()).equals(scan)]).toEqual([200, true]);
    }
    // It is there, and even this worker's, but another job's.
    expect((await input(other, scans[2], 1)).status).toBe(200);
    const foreign = await input(mine, scans[2], attempt);
    expect([foreign.status, (await bodyOf(foreign)).code]).toEqual([404, 'NOT_FOUND']);
    const unknown = await input(mine, Buffer.from('nothing'), attempt);
    expect(unknown.status).toBe(404);
    const result = await input(mine, label, attempt);
    expect(result.status).toBe(404);
  });

  it.each(['cut', 'changed'])('gives no input whose file the disk has %s', async (how) => {
    const id = await submit(scans[0]);
    const { attempt } = await claim();
    const file = join(server.dataFolder, 'blobs', 'sha256', digestOf(scans[0]).slice(7));
    if (how === 'cut') await truncate(file, 20);
    else await writeFile(file, Buffer.alloc(scans[0].length));
    for (let i = 0; i < 2; i++) {
      const answer = await input(id, scans[0], attempt);
      expect([answer.status, (await bodyOf(answer)).code]).toEqual([500, 'DAMAGED']);
    }
  });

  it('gives nothing of a job that the attempt does not hold', async () => {
    const id = await submit(scans[0]);
    expect((await input(id, scans[0], 1)).status).toBe(409);
    const job = await claim();
    for (const attempt of [0, 2]) expect((await input(id, scans[0], attempt)).status).not.toBe(200);
    expect((await post(`/jobs/${id}/hand-back`, { attempt: job.attempt })).status).toBe(204);
    expect((await input(id, scans[0], job.attempt)).status).toBe(409);
  });
});

describe('POST /api/worker/jobs/{id}/complete', () => {
  const first = (more: object) => () => [{ ...outputs()[0], ...more }, outputs()[1]];

  it.each([
    ['another type', first({ type: 'PlainText', format: 'txt' })],
    ['a format that its type does not have', first({ format: 'stl', type: 'PlainText' })],
    ['another format of the wrong type', () => [outputs()[0], { ...outputs()[1], format: 'nii.gz' }]],
    ['a name that the service does not have', first({ name: 'segmentation2' })],
    ['a name of every object', first({ name: 'constructor' })],
    ['an output too few', () => [outputs()[0]]],
    ['no outputs', () => []],
    ['an output twice', () => [...outputs(), outputs()[1]]],
    ['no primary output', first({ primary: false })],
    ['two primary outputs', () => outputs().map((output) => ({ ...output, primary: true }))],
    ['another size', first({ sizeBytes: 3 })],
    ['a kept file of another size', first({ format: 'stl', kept: { ...keptFile, sizeBytes: 3 } })],
    ['a kept file that cannot be read back', first({ kept: { ...keptFile, format: 'vtk' } })],
    ['a kept file of a format that its type does not have', first({ kept: { ...keptFile, format: 'json' } })],
  ])('refuses %s', async (_what, made) => {
    const id = await submit(scans[0]);
    const job = await claim();
    await bring(job);
    const refused = await post(`/jobs/${id}/complete`, { attempt: job.attempt, seconds: 1, outputs: made() });
    expect(refused.status).toBe(400);
    expect(await bodyOf(refused)).toMatchObject({ code: 'BAD_REQUEST' });
    const state = async () => ((await (await fetch(`${server.url}/api/jobs/${id}`)).json()) as Job).state;
    expect(await state()).toBe('running');
    const taken = await post(`/jobs/${id}/complete`, {
      attempt: job.attempt,
      seconds: 1,
      outputs: outputs(),
    });
    expect([taken.status, await state()]).toEqual([200, 'succeeded']);
  });

  it('takes the file that is kept besides an output', async () => {
    const id = await submit(scans[0]);
    const job = await claim();
    const { attempt } = job;
    const made = [
      { ...outputs()[0], format: 'stl', digest: digestOf(report), sizeBytes: report.length, kept: keptFile },
      outputs()[1],
    ];
    const complete = () => post(`/jobs/${id}/complete`, { attempt, seconds: 1, outputs: made });
    const missing = await complete();
    expect(await bodyOf(missing)).toMatchObject({ code: 'NOT_READY' });
    await bring(job);
    expect((await complete()).status).toBe(200);
    const found = (await (await fetch(`${server.url}/api/jobs/${id}`)).json()) as Job;
    expect(found.outputs[0].formats).toEqual(['nii.gz', 'nii', 'mha', 'nrrd', 'vtk', 'stl']);
    const file = async (query: string) =>
      Buffer.from(await (await fetch(`${server.url}${found.outputs[0].url}${query}`)).arrayBuffer());
    expect(await file('')).toEqual(report);
    expect(await file('?format=nii.gz')).toEqual(label);
  });

  it('queues a job again that another version of the app has computed', async () => {
    const id = await submit(scans[0]);
    const job = await claim();
    await bring(job);
    const complete = (attempt: number, by: string) =>
      post(`/jobs/${id}/complete?version=${by}`, { attempt, seconds: 1, outputs: outputs() });
    const refused = await complete(job.attempt, '0.9.0');
    expect([refused.status, await bodyOf(refused)]).toEqual([
      409,
      expect.objectContaining({ detail: expect.stringMatching(/version 0\.9\.0 .* has 1\.0\.0\. .* again/) }),
    ]);
    const next = await claim();
    expect(next).toMatchObject({ id, attempt: job.attempt + 1 });
    await bring(next);
    expect((await complete(next.attempt, version)).status).toBe(200);
  });

  it('refuses outputs that were not brought', async () => {
    const id = await submit(scans[0]);
    const { attempt } = await claim();
    const refused = await post(`/jobs/${id}/complete`, { attempt, seconds: 1, outputs: outputs() });
    expect([refused.status, (await bodyOf(refused)).code]).toEqual([409, 'NOT_READY']);
  });

  it('refuses an earlier attempt, whatever it brings', async () => {
    const id = await submit(scans[0]);
    const early = await claim();
    await bring(early);
    await post(`/jobs/${id}/hand-back`, { attempt: early.attempt });
    const late = await claim();
    expect(late.attempt).toBe(early.attempt + 1);
    const told = { attempt: early.attempt, seconds: 1, outputs: outputs() };
    expect((await post(`/jobs/${id}/complete`, told)).status).toBe(409);
    const failed = { attempt: early.attempt, error: { code: 'APP_FAILED', message: 'Late.' } };
    expect(await (await post(`/jobs/${id}/fail`, failed)).json()).toEqual({ accepted: false });
    // Nor does its late word that it gives up throw the other one back.
    await post(`/jobs/${id}/hand-back`, { attempt: early.attempt });
    expect((await post(`/jobs/${id}/touch`, { attempt: late.attempt })).status).toBe(204);
    await bring(late);
    const done = { attempt: late.attempt, seconds: 1, outputs: outputs() };
    expect((await post(`/jobs/${id}/complete`, done)).status).toBe(200);
  });
});
