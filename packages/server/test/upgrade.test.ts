import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { verifyReceipt } from '@tomaat/client';
import { numericVoxels } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { inferBright, writeApp } from './app-fixture.ts';
import { tomaat } from './cli-fixture.ts';
import { startTestGateway } from './gateway-fixture.ts';
import {
  brightIn,
  headers,
  jobs,
  resultFile,
  sent,
  text,
  thumbprint,
  uploads,
  writeOldFolder,
} from './old-data-folder.ts';
import { decode } from './run-files.ts';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

/* A data folder that TOMAAT 0.1.0 wrote is opened by this version. */

let work: string;
let dataFolder: string;
let files: Record<string, string>;
let server: TestServer;

beforeAll(async () => {
  work = await temporaryFolder();
  dataFolder = join(work, 'data');
  const apps = [
    await writeApp(work, 'good', { infer: inferBright }),
    await writeApp(work, 'bad', { infer: "throw new Error('it does not work');" }),
    await writeApp(work, 'slow', { infer: inferBright }),
  ];
  files = await writeOldFolder(dataFolder);
  server = await startTestServer(apps, { dataFolder, login: true });
}, 120_000);
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await rm(work, { recursive: true, force: true });
});

const get = (path: string, more: RequestInit = {}) =>
  fetch(server.url + path, { ...more, headers: { ...headers, ...more.headers } });
const jobOf = async (id: string) => (await get(`/api/jobs/${id}`)).json();

describe('a data folder of 0.1.0', () => {
  it('keeps its identity and its key, with scope and owner', async () => {
    expect(server.identity).toBe(thumbprint);
    expect((await get('/api/services')).status).toBe(200);
    expect((await get('/metrics')).status).toBe(403);
    expect((await fetch(`${server.url}/api/services`)).status).toBe(401);
  });

  it('lists its settled jobs with state, times and error', async () => {
    expect(await jobOf(jobs.succeeded)).toMatchObject({
      service: 'good',
      state: 'succeeded',
      attempt: 1,
      createdTime: '2026-11-26T13:29:38.436Z',
      settledTime: '2026-11-26T13:29:41.015Z',
      outputs: [{ name: 'segmentation', format: 'mha', primary: true, sizeBytes: 324 }],
    });
    expect(await jobOf(jobs.failed)).toMatchObject({
      state: 'failed',
      error: { code: 'APP_FAILED', detail: 'The app failed in its infer stage: it does not work' },
    });
    expect(await jobOf(jobs.canceled)).toMatchObject({ service: 'slow', state: 'canceled' });
  });

  it('gives a result bit by bit, and converted, at its place', async () => {
    const path = `/api/jobs/${jobs.succeeded}/outputs/segmentation`;
    const stored = Buffer.from(await (await get(path)).arrayBuffer());
    expect(stored.equals(Buffer.from(files[resultFile], 'base64'))).toBe(true);
    const converted = await get(`${path}?format=nii.gz`);
    expect(converted.status).toBe(200);
    const volume = await decode(Buffer.from(await converted.arrayBuffer()));
    expect([...volume.affine]).toEqual([-1, 0, 0, -5, 0, -2, 0, -6, 0, 0, 3, 7, 0, 0, 0, 1]);
    expect([...numericVoxels(volume.voxels)]).toEqual(brightIn(1));
  });

  it.each([
    ['queued', 'good', 1, 5],
    ['running', 'slow', 2, 4],
  ] as const)(
    'computes the job that was %s',
    async (state, service, attempt, n) => {
      const id = jobs[state];
      await expect.poll(() => jobOf(id), { timeout: 60_000 }).toMatchObject({ state: 'succeeded' });
      expect(await jobOf(id)).toMatchObject({ service, attempt });
      const output = await get(`/api/jobs/${id}/outputs/segmentation`);
      const volume = await decode(Buffer.from(await output.arrayBuffer()));
      expect([...numericVoxels(volume.voxels)]).toEqual(brightIn(n));
    },
    90_000,
  );

  it('gives the receipt that 0.1.0 gave', async () => {
    const receipt = (await (await get(`/api/jobs/${jobs.succeeded}/receipt`)).text()).trim();
    expect(receipt).toBe((await text('receipt.jws')).trim());
    expect((await verifyReceipt(receipt)).thumbprint).toBe(thumbprint);
  });

  it('answers a repeated request with the job of its Idempotency-Key', async () => {
    const again = await get('/api/services/good/predictions', {
      method: 'POST',
      headers: { 'content-type': 'application/octet-stream', 'idempotency-key': '"k-good-1"' },
      body: sent(1),
    });
    expect(await again.json()).toMatchObject({ id: jobs.succeeded });
  });

  it('accepts the rest of an upload, and predicts on a complete one', async () => {
    const tus = { 'tus-resumable': '1.0.0' };
    const path = `/api/uploads/${uploads.part}`;
    const head = await get(path, { method: 'HEAD', headers: tus });
    expect(head.headers.get('upload-offset')).toBe('12');
    const body = sent(6).subarray(12);
    const type = { 'content-type': 'application/offset+octet-stream', 'upload-offset': '12' };
    const rest = await get(path, { method: 'PATCH', headers: { ...tus, ...type }, body });
    expect(rest.status).toBe(204);
    expect(rest.headers.get('upload-offset')).toBe('179');
    for (const upload of [uploads.part, uploads.whole]) {
      const made = await get('/api/services/good/predictions', {
        method: 'POST',
        headers: { 'content-type': 'application/json', prefer: 'wait=60' },
        body: JSON.stringify({ inputs: { volume: { upload } } }),
      });
      expect(await made.json()).toMatchObject({ state: 'succeeded' });
    }
  }, 90_000);

  it('continues the audit log, which verifies with the old receipt', async () => {
    const receipt = join(work, 'receipt.jws');
    await writeFile(receipt, await text('receipt.jws'));
    await expect
      .poll(() => tomaat(['audit', 'verify', '--data', dataFolder, '--receipt', receipt]), {
        timeout: 30_000,
      })
      .toMatchObject({ code: 0, stdout: expect.stringContaining('The audit log is intact') });
    const lines = (await readFile(join(dataFolder, 'audit.jsonl'), 'utf8')).trim().split('\n');
    expect(lines.slice(0, 10).join('\n')).toBe((await text('audit.jsonl')).trim());
    expect(JSON.parse(lines[10])).toMatchObject({ seq: 11, event: 'server.started' });
  }, 60_000);

  it('lets a gateway start beside the server, which knows its key', async () => {
    await using gateway = await startTestGateway({ dataFolder, login: true });
    const summary = (more: Record<string, string>) =>
      gateway.app.inject({ url: '/api/gateway/summary', headers: more });
    // Its scope is not admin.
    expect((await summary(headers)).statusCode).toBe(403);
    expect((await summary({ authorization: `${headers.authorization}x` })).statusCode).toBe(401);
    expect((await gateway.app.inject('/health/ready')).statusCode).toBe(200);
  });

  it('no longer holds the subject of a token in clear', async () => {
    await server.close();
    const database = await readFile(join(dataFolder, 'server.db'), 'latin1');
    expect(await text('server.sql')).toContain('|anna');
    expect(database).not.toContain('|anna');
    expect(await readdir(dataFolder)).toContain('pseudonym.key');
  });
});
