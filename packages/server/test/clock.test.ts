import { execFileSync } from 'node:child_process';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Job } from '@tomaat/client';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { findProgram } from '../../../test/programs.ts';
import { createKey } from '../src/access/keys.ts';
import { createSessions } from '../src/access/sessions.ts';
import { openServerDatabase } from '../src/store/database/server-database.ts';
import { makeKey } from './access-fixture.ts';
import { inferBright, writeApp } from './app-fixture.ts';
import { encode, phantom } from './phantom.ts';
import { type RealServer, startRealServer } from './real-server.ts';
import { postgresBin, startPostgres } from './support/postgres.ts';
import { onPostgres } from './support/tested-database.ts';
import { temporaryFolder } from './test-server.ts';

/* The wall clock of a server's machine is set while it runs. */

const faketime = findProgram('faketime', ['--version']);
const keepMs = 60_000;
/** On PostgreSQL longer than the time between two looks at the leases. */
const leaseMs = onPostgres ? 4000 : 2000;
const hourMs = 3_600_000;

describe.skipIf(!faketime)('a server whose clock is set', () => {
  let folder: string;
  let server: RealServer;
  let app: string;
  let scan: Uint8Array<ArrayBuffer>;
  const env: Record<string, string> = {};

  const setClock = (offset: string) => writeFile(env.FAKETIME_TIMESTAMP_FILE, offset);

  beforeAll(async () => {
    folder = await temporaryFolder();
    Object.assign(env, {
      LD_PRELOAD: execFileSync(faketime!, ['-f', '+0', 'printenv', 'LD_PRELOAD'], {
        encoding: 'utf8',
      }).trim(),
      FAKETIME_TIMESTAMP_FILE: join(folder, 'offset'),
      FAKETIME_NO_CACHE: '1',
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
      DONT_FAKE_MONOTONIC: '1',
    });
    // Not with the clock that is set.
    if (onPostgres) await startPostgres();
    await setClock('+0');
    scan = Uint8Array.from(await encode(phantom(), 'nii.gz'));
    app = await writeApp(folder, 'app', { infer: inferBright });
  });
  afterEach(() => server?.[Symbol.asyncDispose]());
  afterAll(() => rm(folder, { recursive: true, force: true }));

  async function start(options: Parameters<typeof startRealServer>[1] = {}): Promise<void> {
    await setClock('+0');
    Object.assign(process.env, env);
    try {
      server = await startRealServer([app], { resultTtlMs: keepMs, sweepMs: 100, leaseMs, ...options });
    } finally {
      for (const name of Object.keys(env)) delete process.env[name];
    }
  }

  async function predict(wait: number): Promise<Job> {
    const response = await fetch(`${server.url}/api/services/app/predictions`, {
      method: 'POST',
      body: scan,
      headers: { 'content-type': 'application/octet-stream', prefer: `wait=${wait}` },
    });
    return (await response.json()) as Job;
  }
  const look = async (id: string) => (await (await fetch(`${server.url}/api/jobs/${id}`)).json()) as Job;

  it('keeps a result and an upload for their time', async () => {
    await start();
    const job = await predict(60);
    expect(job.state).toBe('succeeded');
    const created = await fetch(`${server.url}/api/uploads`, {
      method: 'POST',
      headers: { 'tus-resumable': '1.0.0', 'upload-length': '1000' },
    });
    const upload = `${server.url}${created.headers.get('location')}`;
    const ahead = async () => Date.parse((await look(job.id)).expiresTime!) - Date.parse(job.expiresTime!);
    for (const [offset, aheadMs] of [
      ['+2h', 2 * hourMs],
      ['-24h', -24 * hourMs],
      ['+0', 0],
    ] as const) {
      await setClock(offset);
      // What is shown moves with the clock; the time that is left stays.
      await expect
        .poll(async () => Math.abs((await ahead()) - aheadMs), { timeout: 10_000 })
        .toBeLessThan(5000);
      const head = await fetch(upload, { method: 'HEAD', headers: { 'tus-resumable': '1.0.0' } });
      expect(head.status).toBe(200);
    }
    expect((await fetch(`${server.url}${job.outputs[0].url}`)).status).toBe(200);
  });

  it.skipIf(!postgresBin)(
    'goes by the clock of a database that others share, and leaves its times',
    async () => {
      const url = await (await startPostgres()).database();
      await start({ workers: 0, database: url, resultTtlMs: hourMs });
      const job = { service: 'app', attempt: 1, owner: 'a', request: '{}', created_ms: 1, error: '{}' };
      const settled = { ...job, state: 'failed', settled_ms: 5 } as const;
      await using database = await openServerDatabase(server.dataFolder, url);
      const add = (id: string, expires_ms: number) =>
        database.db
          .insertInto('job')
          .values({ ...settled, id, expires_ms })
          .execute();
      const ids = () => database.db.selectFrom('job').select(['id', 'expires_ms']).execute();
      const expiresMs = Date.now() + hourMs;
      await add('kept', expiresMs);
      const nowMs = Date.now();
      const key = await createKey(database.db as never, { label: 'x', scopes: ['predict'] });
      const cookie = await createSessions({ db: database.db }).open({
        label: 'x',
        owner: 'a',
        keyId: key.id,
      });
      const isLoggedIn = () => createSessions({ db: database.db, now: () => nowMs }).find(cookie);
      for (const offset of ['-24h', '+24h']) {
        await setClock(offset);
        // Two sweeps while the clock is set: each deletes what has expired by the database's clock.
        for (const old of ['first', 'second']) {
          await add(old, 1000);
          await expect.poll(ids).toEqual([{ id: 'kept', expires_ms: expiresMs }]);
        }
        expect(await isLoggedIn()).toBeDefined();
      }
    },
  );

  it.each(['-1h', '+2h'])('takes a job back from a silent worker after its lease: %s', async (offset) => {
    await start({ workers: 0 });
    const { headers } = await makeKey(server.dataFolder, ['worker']);
    const { id } = await predict(0);
    const claimed = await fetch(`${server.url}/api/worker/claim`, {
      method: 'POST',
      headers: { ...headers, 'content-type': 'application/json' },
      body: JSON.stringify({ worker: 'gpu-1', waitSeconds: 5, services: [{ id: 'app', version: '1.0.0' }] }),
    });
    expect(claimed.status).toBe(200);
    const touch = () =>
      fetch(`${server.url}/api/worker/jobs/${id}/touch`, {
        method: 'POST',
        headers: { ...headers, 'content-type': 'application/json' },
        body: JSON.stringify({ attempt: 1 }),
      });
    await setClock(offset);
    // While it is heard from it keeps its job.
    for (const endMs = performance.now() + 2 * leaseMs; performance.now() < endMs; await delay(leaseMs / 4))
      expect((await touch()).status).toBe(204);
    expect((await look(id)).state).toBe('running');
    await expect.poll(async () => (await look(id)).state, { timeout: 10_000 }).toBe('queued');
  });
});
