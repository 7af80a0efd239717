import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { createClient, type Job } from '@tomaat/client';
import type { Kysely } from 'kysely';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openPseudonyms } from '../src/access/pseudonyms.ts';
import { openServerDatabase } from '../src/store/database/server-database.ts';
import { makeKey } from './access-fixture.ts';
import { inferBright, writeApp } from './app-fixture.ts';
import { createBrowserLike } from './browser-like.ts';
import { tomaat } from './cli-fixture.ts';
import { settingsOf } from './login-app.ts';
import { openOidcProvider } from './oidc-provider.ts';
import { encode, phantom } from './phantom.ts';
import { type RealServer, startRealServer } from './real-server.ts';
import { databaseOf } from './support/tested-database.ts';
import { startTestServer } from './test-server.ts';

/* `tomaat erase`: what belongs to somebody is gone, and what belongs to others is not. */

let folder: string;
let apps: string[];
let volume: Uint8Array<ArrayBuffer>;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-erase-'));
  volume = Uint8Array.from(await encode(phantom(), 'nii.gz'));
  apps = [
    await writeApp(folder, 'good', { infer: inferBright }),
    await writeApp(folder, 'bad', { infer: "throw new Error('it does not work');" }),
    await writeApp(folder, 'slow', { infer: `await sleep(600_000); ${inferBright}` }),
  ];
});
afterAll(() => rm(folder, { recursive: true, force: true }));

interface Tenant {
  id: string;
  key: string;
  headers: { authorization: string };
}
const sha256s = (dataFolder: string) => readdirSync(join(dataFolder, 'blobs', 'sha256')).sort();

/** The files of a job that has ended: its results alone, once its inputs are gone. */
async function resultsOf(dataFolder: string, job: Job): Promise<string[]> {
  const digests = [...new Set(job.outputs.map(({ digest }) => digest.replace('sha256:', '')))].sort();
  await expect.poll(() => sha256s(dataFolder)).toEqual(digests);
  return digests;
}

/** A volume that nobody else sends. */
async function ownVolume(mark: number): Promise<Uint8Array<ArrayBuffer>> {
  const own = phantom();
  (own.voxels as Int16Array)[0] = mark;
  return Uint8Array.from(await encode(own, 'nii'));
}

/** Jobs in every state, uploads whole and not, and a session of one key. */
async function fill(server: RealServer, { headers, key }: Tenant, mark: number) {
  const client = createClient({ baseUrl: server.url, apiKey: key });
  const own = await ownVolume(mark);
  const send = async (service: string, bytes = own): Promise<Job> =>
    client.predict(service, { volumes: { volume: new Blob([bytes]) }, keepText: true });
  const jobs = [await send('good', volume), await send('good'), await send('bad')];
  for (const job of jobs) await client.wait(job.id);
  const canceled = await send('slow');
  await client.cancel(canceled.id);
  const running = await send('slow');
  await expect.poll(async () => (await client.job(running.id)).state, { timeout: 20_000 }).toBe('running');
  const queued = await send('slow');
  jobs.push(canceled, running, queued);
  const begin = (bytes: Uint8Array) =>
    fetch(`${server.url}/api/uploads`, {
      method: 'POST',
      headers: { ...headers, 'tus-resumable': '1.0.0', 'upload-length': String(bytes.length) },
    });
  const uploads: string[] = [];
  for (const part of [own.length, 100]) {
    const url = server.url + (await begin(own)).headers.get('location')!;
    const patched = await fetch(url, {
      method: 'PATCH',
      headers: {
        ...headers,
        'tus-resumable': '1.0.0',
        'upload-offset': '0',
        'content-type': 'application/offset+octet-stream',
      },
      body: own.subarray(0, part),
    });
    expect(patched.status).toBe(204);
    uploads.push(url);
  }
  const browser = createBrowserLike();
  const page = server.url.replace('127.0.0.1', 'localhost');
  const login = {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ key }),
  };
  expect((await browser.fetch(`${page}/auth/session`, page, login)).status).toBe(204);
  const session = async () => (await browser.fetch(`${page}/api/services`, page)).status;
  expect(await session()).toBe(200);
  return { jobs, uploads, session };
}

/** All bytes of a folder that a text is in. */
function filesWith(dataFolder: string, text: string): string[] {
  const entries = readdirSync(dataFolder, { recursive: true, withFileTypes: true });
  return (
    entries
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name))
      // A file may go while it is looked for.
      .filter((path) => existsSync(path) && readFileSync(path, 'latin1').includes(text))
      .map((path) => path.slice(dataFolder.length + 1))
      .sort()
  );
}

const linesOf = (dataFolder: string): Record<string, unknown>[] =>
  readFileSync(join(dataFolder, 'audit.jsonl'), 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));

async function makeTenants(dataFolder: string): Promise<[Tenant, Tenant]> {
  const more = { limits: { perDay: 100 } };
  return [
    await makeKey(dataFolder, ['predict'], { label: 'Dr. Rossi', ...more }),
    await makeKey(dataFolder, ['predict'], { label: 'Dr. Bianchi', ...more }),
  ];
}

/** The rows of an owner, by table. */
async function rowsOf(dataFolder: string, owner: string): Promise<Record<string, number>> {
  await using database = await openServerDatabase(dataFolder, await databaseOf(dataFolder));
  const counts: Record<string, number> = {};
  for (const table of ['job', 'upload', 'created_on', 'session'] as const)
    counts[table] = (
      await database.db.selectFrom(table).select('owner').where('owner', '=', owner).execute()
    ).length;
  return counts;
}
const none = { job: 0, upload: 0, created_on: 0, session: 0 };

describe('tomaat erase', () => {
  it('erases only that key’s jobs, uploads and sessions, while the server runs', async () => {
    await using server = await startRealServer(apps, { login: true });
    const { dataFolder } = server;
    const [rossi, bianchi] = await makeTenants(dataFolder);
    const other = createClient({ baseUrl: server.url, apiKey: bianchi.key });
    const shared = await other.predict('good', { volumes: { volume: new Blob([volume]) } });
    const kept = await other.wait(shared.id);
    const before = await resultsOf(dataFolder, kept);
    const { jobs, uploads, session } = await fill(server, rossi, 1234);
    expect(sha256s(dataFolder).length).toBeGreaterThan(before.length);
    expect(await rowsOf(dataFolder, `key:${rossi.id}`)).toEqual({
      job: 6,
      upload: 2,
      created_on: 1,
      session: 1,
    });

    const dry = await tomaat(['erase', '--key', rossi.id, '--data', dataFolder, '--dry-run', '--json']);
    expect(JSON.parse(dry.stdout)).toMatchObject({ erased: false, jobs: 6, uploads: 2, sessions: 1 });
    expect((await rowsOf(dataFolder, `key:${rossi.id}`)).job).toBe(6);

    // A child that takes its time to end: its folder is waited for.
    const slow = join(dataFolder, 'work', `${jobs[5].id}-1`);
    mkdirSync(slow);
    let ended = false;
    const endSlowly = (async () => {
      await expect
        .poll(() => linesOf(dataFolder).some(({ event }) => event === 'erasure.begun'), { timeout: 20_000 })
        .toBe(true);
      await delay(1500);
      ended = true;
      rmdirSync(slow);
    })();
    const erased = await tomaat(['erase', '--key', rossi.id, '--data', dataFolder, '--json']);
    expect(erased.code, erased.stderr).toBe(0);
    expect(ended).toBe(true);
    await endSlowly;
    const owner = `key:${rossi.id}`;
    expect(JSON.parse(erased.stdout)).toEqual({
      owners: [owner],
      erased: true,
      jobs: 6,
      uploads: 2,
      sessions: 1,
    });
    // At once, and without anybody asking for it.
    expect(sha256s(dataFolder)).toEqual(before);
    expect(readdirSync(join(dataFolder, 'uploads'))).toEqual([]);
    expect(readdirSync(join(dataFolder, 'work'))).toEqual([]);
    expect(filesWith(dataFolder, owner)).toEqual(['audit.jsonl']);
    for (const { id } of jobs) expect(filesWith(dataFolder, id), id).toEqual(['audit.jsonl']);
    expect(await rowsOf(dataFolder, owner)).toEqual(none);
    for (const { id } of jobs) expect((await fetch(`${server.url}/api/jobs/${id}`, rossi)).status).toBe(404);
    for (const url of uploads)
      expect(
        (await fetch(url, { method: 'HEAD', headers: { ...rossi.headers, 'tus-resumable': '1.0.0' } }))
          .status,
      ).toBe(404);
    expect(await session()).toBe(401);
    // The other one has what he had, a file with the same bytes included.
    const again = await other.output(kept.id, kept.outputs[0].name);
    expect((await again.blob()).size).toBe(kept.outputs[0].sizeBytes);
    const lines = linesOf(dataFolder).filter(({ event }) => String(event).startsWith('erasure.'));
    expect(lines).toEqual([
      expect.objectContaining({ event: 'erasure.begun', who: owner, keyId: rossi.id }),
      expect.objectContaining({ event: 'erasure.done', who: owner, count: 8 }),
    ]);
    expect(filesWith(dataFolder, 'Dr. Bianchi')).toEqual(['registry.db', 'server.db']);
    expect((await tomaat(['audit', 'verify', '--data', dataFolder])).code).toBe(0);
    // The key works on, and so does the child that the prediction was taken from.
    const next = createClient({ baseUrl: server.url, apiKey: rossi.key });
    const job = await next.predict('good', { volumes: { volume: new Blob([volume]) } });
    expect((await next.wait(job.id)).state).toBe('succeeded');
  }, 120_000);

  it('does the same without a server, after one that was killed', async () => {
    const dataFolder = join(folder, 'killed');
    let rossi: Tenant;
    let bianchi: Tenant;
    let before: string[];
    let kept: Job;
    let running: string;
    {
      await using server = await startRealServer(apps, { login: true, dataFolder });
      [rossi, bianchi] = await makeTenants(dataFolder);
      const other = createClient({ baseUrl: server.url, apiKey: bianchi.key });
      kept = await other.wait((await other.predict('good', { volumes: { volume: new Blob([volume]) } })).id);
      before = await resultsOf(dataFolder, kept);
      running = (await fill(server, rossi, 4321)).jobs[4].id;
      await server.kill('SIGKILL');
    }
    // What a child had written when the server was killed.
    mkdirSync(join(dataFolder, 'work', `${running}-1`), { recursive: true });
    writeFileSync(join(dataFolder, 'work', `${running}-1`, 'segmentation.nii'), 'voxels');
    const erased = await tomaat(['erase', '--key', rossi.key, '--data', dataFolder, '--json']);
    expect(erased.code, erased.stderr).toBe(0);
    expect(JSON.parse(erased.stdout)).toMatchObject({ jobs: 6, uploads: 2, sessions: 1 });
    expect(sha256s(dataFolder)).toEqual(before);
    expect(readdirSync(join(dataFolder, 'blobs', 'tmp'))).toEqual([]);
    expect(existsSync(join(dataFolder, 'work', `${running}-1`))).toBe(false);
    expect(readdirSync(join(dataFolder, 'uploads'))).toEqual([]);
    expect(await rowsOf(dataFolder, `key:${rossi.id}`)).toEqual(none);
    expect(filesWith(dataFolder, `key:${rossi.id}`)).toEqual(['audit.jsonl']);
    expect(linesOf(dataFolder).at(-1)).toMatchObject({ event: 'erasure.done', count: 8 });
    expect((await tomaat(['audit', 'verify', '--data', dataFolder])).code).toBe(0);
    await using server = await startRealServer(apps, { login: true, dataFolder });
    const other = createClient({ baseUrl: server.url, apiKey: bianchi.key });
    expect(await other.job(kept.id)).toMatchObject({ state: 'succeeded' });
  }, 120_000);

  it('ends the key with --revoke, and takes its label away', async () => {
    await using server = await startTestServer(['threshold'], { login: true, workers: 0 });
    const [rossi] = await makeTenants(server.dataFolder);
    const args = ['erase', '--key', rossi.id, '--data', server.dataFolder];
    expect((await tomaat(args)).stdout).toContain('The key itself still works');
    expect(filesWith(server.dataFolder, 'Dr. Rossi')).not.toEqual([]);
    const { code, stdout, stderr } = await tomaat([...args, '--revoke']);
    expect(code, stderr).toBe(0);
    expect(stdout).toBe('0 jobs, 0 uploads and 0 sessions were erased.\n');
    expect((await fetch(`${server.url}/api/services`, rossi)).status).toBe(401);
    expect(filesWith(server.dataFolder, 'Dr. Rossi')).toEqual([]);
    const list = JSON.parse((await tomaat(['keys', 'list', '--json', '--data', server.dataFolder])).stdout);
    const found = list.find((key: { id: string }) => key.id === rossi.id);
    expect(found).toMatchObject({ label: 'erased', revokedTime: expect.any(String) });
  }, 60_000);

  it('refuses missing, ambiguous and unknown selections, with the correct syntax', async () => {
    await using server = await startTestServer(['threshold'], { login: true, workers: 0 });
    const run = (...args: string[]) => tomaat(['erase', ...args, '--data', server.dataFolder]);
    for (const [args, words] of [
      [[], 'Give one of: --key ID'],
      [['--key', 'a', '--owner', 'b'], 'Give one of'],
      [['--subject', 'anna'], 'Give --issuer URL'],
      [['--key', 'abcdefghij'], 'There is no key abcdefghij'],
      [['--owner', 'anonymous', '--revoke'], 'Name it with --key ID'],
    ] as const) {
      const { code, stdout, stderr } = await run(...args);
      expect({ args, code, stdout }).toEqual({ args, code: 2, stdout: '' });
      expect(stderr).toContain(words);
    }
    const missing = await tomaat(['erase', '--key', 'abcdefghij', '--data', join(folder, 'missing')]);
    expect(missing).toMatchObject({ code: 2, stderr: expect.stringContaining('There is no data folder') });
    const nobody = await tomaat(['audit', 'who', '--address', '10.0.0.1', '--data', folder]);
    expect(nobody).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('No data of a server, registry or gateway'),
    });
    expect(readdirSync(folder)).not.toContain('missing');
    expect(readdirSync(folder)).not.toContain('pseudonym.key');
  }, 60_000);
});

describe('people of an issuer', () => {
  it('are stored and logged under a pseudonym, and erased by their subject', async () => {
    await using provider = await openOidcProvider();
    const subject = 'anna.bauer';
    // Without any other name the page shows the subject.
    provider.claims = { sub: subject };
    const oidc = settingsOf(provider);
    await using server = await startTestServer(['threshold'], { login: true, oidc });
    const { dataFolder } = server;
    const browser = createBrowserLike();
    const page = server.url.replace('127.0.0.1', 'localhost');
    await browser.open(`${page}/auth/oidc/login?return=/`, page);
    const me = await (await browser.fetch(`${page}/auth/me`, page)).json();
    expect(me).toMatchObject({ who: { kind: 'oidc', label: subject } });
    const sent = await browser.fetch(`${page}/api/services/threshold/predictions`, page, {
      method: 'POST',
      headers: { 'content-type': 'application/octet-stream', prefer: 'wait=20' },
      body: volume as BodyInit,
    });
    expect(sent.status).toBe(200);
    const { id } = (await sent.json()) as Job;
    expect(filesWith(dataFolder, subject)).toEqual([]);
    expect(filesWith(dataFolder, Buffer.from(subject).toString('base64').slice(0, 12))).toEqual([]);
    const person = ['--subject', subject, '--issuer', provider.issuer, '--data', dataFolder];
    const who = (await tomaat(['audit', 'who', ...person])).stdout.trim().split('\n');
    expect(who).toContain(me.who.owner);
    expect(linesOf(dataFolder).find(({ job }) => job === id)).toMatchObject({ who: me.who.owner });
    const erased = await tomaat(['erase', ...person, '--json']);
    expect(erased.code, erased.stderr).toBe(0);
    expect(JSON.parse(erased.stdout)).toMatchObject({ jobs: 1, uploads: 0, sessions: 1 });
    expect((await browser.fetch(`${page}/api/services`, page)).status).toBe(401);
    expect(filesWith(dataFolder, me.who.owner)).toEqual(['audit.jsonl']);
    expect(sha256s(dataFolder)).toEqual([]);
    // He may come again, and is the same.
    await browser.open(`${page}/auth/oidc/login?return=/`, page);
    const again = await (await browser.fetch(`${page}/auth/me`, page)).json();
    expect(again.who.owner).toBe(me.who.owner);
  }, 60_000);

  it('keep their jobs after an upgrade from a version that stores names', async () => {
    await using provider = await openOidcProvider();
    const oidc = settingsOf(provider);
    const dataFolder = join(folder, 'earlier');
    const clear = `oidc:${provider.issuer}|${provider.claims.sub}`;
    {
      await using server = await startTestServer(['threshold'], {
        login: true,
        oidc,
        dataFolder,
        workers: 0,
      });
      void server;
    }
    const database = await openServerDatabase(dataFolder, await databaseOf(dataFolder));
    const job = {
      service: 'threshold',
      state: 'failed',
      attempt: 1,
      request: '{"parameters":{},"stem":"a"}',
    } as const;
    const error = JSON.stringify({ code: 'APP_FAILED', message: 'No.' });
    const times = { created_ms: Date.now(), settled_ms: Date.now(), expires_ms: Date.now() + 3_600_000 };
    await (database.db as unknown as Kysely<{ job: Record<string, unknown> }>)
      .insertInto('job')
      .values({ id: 'AAAAAAAAAAAAAAAAAAAAAA', owner: clear, error, ...job, ...times })
      .execute();
    await database.close();
    await using server = await startTestServer(['threshold'], { login: true, oidc, dataFolder, workers: 0 });
    expect(filesWith(dataFolder, String(provider.claims.sub))).toEqual([]);
    const browser = createBrowserLike();
    const page = server.url.replace('127.0.0.1', 'localhost');
    await browser.open(`${page}/auth/oidc/login?return=/`, page);
    const found = await browser.fetch(`${page}/api/jobs/AAAAAAAAAAAAAAAAAAAAAA`, page);
    expect(found.status).toBe(200);
    const { of } = await openPseudonyms(dataFolder);
    expect(await rowsOf(dataFolder, of(clear))).toMatchObject({ job: 1, session: 1 });
  }, 60_000);
});

describe('addresses at the legacy port', () => {
  it('are not in the data folder, and what they sent is erased by --address', async () => {
    await using server = await startTestServer(['threshold'], { login: true, legacyPort: 0, v1DelayMs: 0 });
    const { dataFolder } = server;
    const form = new FormData();
    form.set('volume', Buffer.from(await encode(phantom(), 'mha')).toString('base64'));
    const { port } = new URL(server.legacyUrl!);
    const { request } = await import('node:https');
    const encoded = new Response(form);
    const body = Buffer.from(await encoded.arrayBuffer());
    const answer = await new Promise<string>((resolve, reject) => {
      const options = {
        method: 'POST',
        rejectUnauthorized: false,
        headers: { 'content-type': encoded.headers.get('content-type')!, 'content-length': body.length },
      };
      const sent = request(`https://127.0.0.1:${port}/predict`, options, (response) => {
        let text = '';
        response.on('data', (chunk) => {
          text += chunk;
        });
        response.on('end', () => resolve(text));
      });
      sent.on('error', reject);
      sent.end(body);
    });
    expect(answer).toContain('DelayedResponse');
    await expect
      .poll(() => linesOf(dataFolder).some(({ event }) => event === 'prediction.succeeded'), {
        timeout: 20_000,
      })
      .toBe(true);
    const { who } = linesOf(dataFolder).find(({ event }) => event === 'prediction.accepted')!;
    expect(who).toMatch(/^legacy:[\w-]{22}$/);
    expect(filesWith(dataFolder, 'legacy:127')).toEqual([]);
    const erased = await tomaat(['erase', '--address', '127.0.0.1', '--data', dataFolder, '--json']);
    expect(JSON.parse(erased.stdout)).toMatchObject({ owners: [who], jobs: 1 });
    expect(sha256s(dataFolder)).toEqual([]);
  }, 60_000);
});
