import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { verifyReceipt } from '@tomaat/client';
import { numericVoxels } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { inferBright, writeApp } from './app-fixture.ts';
import { tomaat } from './cli-fixture.ts';
import { startTestGateway } from './gateway-fixture.ts';
import { decode } from './run-files.ts';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

/*
 * A data folder that TOMAAT 0.1.0 wrote (data-folder-0.1/: its schema and rows as SQL, its files) is opened by this version.
 * The server of 0.1.0 was killed while one job ran and another one waited.
 */

const fixture = new URL('data-folder-0.1/', import.meta.url);
const text = (name: string) => readFile(new URL(name, fixture), 'utf8');

/** The key of the fixture: made here, as no file of the repository should look like a secret. */
const apiKey = `tmt_abcdefghij_${'A'.repeat(43)}`;
const headers = { authorization: `Bearer ${apiKey}` };
/** The Ed25519 key in the fixture's identity.key: PKCS #8 (RFC 8410) around 32 bytes. */
const identityKey = Buffer.concat([
  Buffer.from('302e020100300506032b657004220420', 'hex'),
  Buffer.alloc(32, 'upgrade test '),
]).toString('base64');
/** RFC 7638, of the public key that 0.1.0 put beside its signatures. */
const thumbprint = createHash('sha256')
  .update('{"crv":"Ed25519","kty":"OKP","x":"Ong_eNnfldlIfJHGcj7PWhmm5OtqDX_MO1SrOikE-hI"}')
  .digest('base64url');

const jobs = {
  succeeded: 'dsbD0OXvAvWaBMovbpLo3w',
  failed: 'qTJOGGJoY5Qu97mFkka8YQ',
  canceled: 'wwtSk82IVMQVTbZjw6hBdA',
  running: 'wNzgdDOiIPS0f8oG_gZwiA',
  queued: 'scUeWcjKKs-1-8TqiX0TBg',
};
const uploads = { part: 'S9OwKUcv3-iFUAqeAtXEPA', whole: 'dVgu3TC0HVaXSS5a9lyjsw' };
const resultFile = 'blobs/sha256/c94bbb9fcb2f8b349ed6e134bfec06d64d1519f08b9836940304e20b17c4cbc3';

/** What the clients of the fixture sent: 3 × 2 × 2 voxels, (37 i + n) mod 256. */
const sent = (n: number) =>
  Buffer.concat([
    Buffer.from(
      'ObjectType = Image\nNDims = 3\nDimSize = 3 2 2\nElementSpacing = 1 2 3\nOffset = 5 6 7\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n',
    ),
    Buffer.from(Array.from({ length: 12 }, (_, i) => (i * 37 + n) % 256)),
  ]);
const brightIn = (n: number) => Array.from({ length: 12 }, (_, i) => Number((i * 37 + n) % 256 > 100));

let work: string;
let dataFolder: string;
let files: Record<string, string>;
let server: TestServer;

async function writeOldFolder(): Promise<void> {
  files = JSON.parse(await text('files.json'));
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(dataFolder, name)), { recursive: true, mode: 0o700 });
    await writeFile(join(dataFolder, name), Buffer.from(content, 'base64'), { mode: 0o600 });
  }
  const pem = `-----BEGIN PRIVATE KEY-----\n${identityKey}\n-----END PRIVATE KEY-----\n`;
  await writeFile(join(dataFolder, 'identity.key'), pem, { mode: 0o600 });
  for (const name of ['audit.jsonl', 'audit.head'])
    await writeFile(join(dataFolder, name), await text(name), { mode: 0o600 });
  const database = new DatabaseSync(join(dataFolder, 'server.db'));
  database.exec('PRAGMA journal_mode = WAL');
  database.exec(await text('server.sql'));
  database.close();
}

beforeAll(async () => {
  work = await temporaryFolder();
  dataFolder = join(work, 'data');
  const apps = [
    await writeApp(work, 'good', { infer: inferBright }),
    await writeApp(work, 'bad', { infer: "throw new Error('it does not work');" }),
    await writeApp(work, 'slow', { infer: inferBright }),
  ];
  await writeOldFolder();
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
