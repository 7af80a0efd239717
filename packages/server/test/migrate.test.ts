import { copyFile, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { numericVoxels } from '@tomaat/core';
import { type Kysely, sql } from 'kysely';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type AnyTables, inFiles, notCopied, type Row, tablesOf, tablesToCopy } from '../src/migrate/rows.ts';
import { migrateToFolder } from '../src/migrate/to-folder.ts';
import { migrateToShared } from '../src/migrate/to-shared.ts';
import { openDatabase } from '../src/store/database/database.ts';
import { movedFile } from '../src/store/database/moved.ts';
import { openRegistryDatabase } from '../src/store/database/registry-database.ts';
import {
  openServerDatabase,
  serverDatabaseFile,
  serverMigrations,
} from '../src/store/database/server-database.ts';
import { inferBright, writeApp } from './app-fixture.ts';
import { tomaat } from './cli-fixture.ts';
import { keyRow } from './database-rows.ts';
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
import { postgresBin, startPostgres, type TestPostgres } from './support/postgres.ts';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

/* The data folder of 0.1.0, with a job in every state, into PostgreSQL and a shared folder of files, and back. */

let work: string;
let postgres: TestPostgres;
let apps: string[];

/** A data folder of its own for each part, and an empty database. */
async function prepare(name: string) {
  const dataFolder = join(work, name);
  const files = await writeOldFolder(dataFolder);
  const url = await postgres.database();
  const address = join(work, `${name}.address`);
  await writeFile(address, url);
  return { dataFolder, files, url, address, blobs: join(work, `${name}-volumes`) };
}

describe.skipIf(!postgresBin)('tomaat migrate', () => {
  beforeAll(async () => {
    work = await temporaryFolder();
    apps = [
      await writeApp(work, 'good', { infer: inferBright }),
      await writeApp(work, 'bad', { infer: "throw new Error('it does not work');" }),
      await writeApp(work, 'slow', { infer: inferBright }),
    ];
    postgres = await startPostgres();
  }, 120_000);
  afterAll(async () => {
    await postgres?.[Symbol.asyncDispose]();
    await rm(work, { recursive: true, force: true });
  });

  describe('there and back, with servers', () => {
    let at: Awaited<ReturnType<typeof prepare>>;
    let back: string;
    const tus = { 'tus-resumable': '1.0.0', 'content-type': 'application/offset+octet-stream' };
    const asking =
      (server: TestServer) =>
      (path: string, more: RequestInit = {}) =>
        fetch(server.url + path, { ...more, headers: { ...headers, ...more.headers } });
    async function send(server: TestServer, from: number, to: number): Promise<string | null> {
      const path = `/api/uploads/${uploads.part}`;
      const head = await asking(server)(path, { method: 'HEAD', headers: tus });
      expect(head.headers.get('upload-offset')).toBe(String(from));
      const body = sent(6).subarray(from, to);
      const rest = await asking(server)(path, {
        method: 'PATCH',
        headers: { ...tus, 'upload-offset': String(from) },
        body,
      });
      return rest.headers.get('upload-offset');
    }
    async function expectJobs(server: TestServer): Promise<void> {
      const get = asking(server);
      const jobOf = async (id: string) => (await get(`/api/jobs/${id}`)).json();
      expect(server.identity).toBe(thumbprint);
      const stored = await get(`/api/jobs/${jobs.succeeded}/outputs/segmentation`);
      expect(Buffer.from(await stored.arrayBuffer()).toString('base64')).toBe(at.files[resultFile]);
      expect(await jobOf(jobs.failed)).toMatchObject({ state: 'failed', error: { code: 'APP_FAILED' } });
      expect(await jobOf(jobs.canceled)).toMatchObject({ state: 'canceled' });
      for (const [id, n] of [
        [jobs.queued, 5],
        [jobs.running, 4],
      ] as const) {
        await expect.poll(() => jobOf(id), { timeout: 60_000 }).toMatchObject({ state: 'succeeded' });
        const output = await get(`/api/jobs/${id}/outputs/segmentation`);
        const volume = await decode(Buffer.from(await output.arrayBuffer()));
        expect([...numericVoxels(volume.voxels)]).toEqual(brightIn(n));
      }
      const receipt = (await (await get(`/api/jobs/${jobs.succeeded}/receipt`)).text()).trim();
      expect(receipt).toBe((await text('receipt.jws')).trim());
    }

    beforeAll(async () => {
      at = await prepare('whole');
      back = join(work, 'back');
    });

    it('shows what would be moved, and moves nothing', async () => {
      const { address, blobs, dataFolder } = at;
      const flags = ['migrate', '--to', address, '--blobs', blobs, '--data', dataFolder, '--dry-run'];
      const { code, stdout } = await tomaat(flags);
      expect(stdout).toMatch(/job +5\n/);
      expect(stdout).toMatch(/files +4, /);
      expect(code).toBe(0);
      expect((await tomaat(flags)).code).toBe(0);
    });

    it('moves all into the database, and the files into the shared folder', async () => {
      const { address, blobs, dataFolder } = at;
      const flags = ['--blobs', blobs, '--data', dataFolder];
      const moved = await tomaat(['migrate', '-q', '--to', address, ...flags]);
      expect(moved).toMatchObject({ code: 0, stderr: '' });
      expect(moved.stdout).toContain(
        'Moved: 5 jobs, 4 files (861 B), 1 incomplete upload, 1 key, 1 session, 10 lines of the audit log.',
      );
      const again = await tomaat(['migrate', '--to', address, ...flags]);
      expect(again).toMatchObject({ code: 2, stderr: expect.stringContaining(movedFile) });
    });

    it('lets no server begin on what was left behind', async () => {
      await expect(startTestServer(apps, { dataFolder: at.dataFolder })).rejects.toThrow(
        /are in postgres:.*--database/,
      );
      await expect(openRegistryDatabase(at.dataFolder)).rejects.toThrow('--database');
      const keys = await tomaat(['keys', 'list', '--data', at.dataFolder]);
      expect(keys).toMatchObject({ code: 2, stderr: expect.stringContaining('--database') });
      const copy = await tomaat(['backup', join(work, 'copy'), '--data', at.dataFolder]);
      expect(copy).toMatchObject({ code: 2, stderr: expect.stringContaining('--database') });
    });

    it('gives the servers of the database jobs, results, keys and uploads', async () => {
      const { dataFolder, url: database, blobs } = at;
      await using server = await startTestServer(apps, { dataFolder, database, blobs, login: true });
      await expectJobs(server);
      expect(await send(server, 12, 100)).toBe('100');
      const used = await tomaat(['migrate', '--from', at.address, '--blobs', blobs, '--data', back]);
      expect(used).toMatchObject({ code: 2, stderr: expect.stringContaining('Copy identity.key') });
      await mkdir(back, { mode: 0o700 });
      for (const key of ['identity.key', 'pseudonym.key'])
        await copyFile(join(dataFolder, key), join(back, key));
      const busy = await tomaat(['migrate', '--from', at.address, '--blobs', blobs, '--data', back]);
      expect(busy).toMatchObject({ code: 2, stderr: expect.stringContaining('Stop them first') });
    });

    it('moves all back into a folder with the keys, and marks the database', async () => {
      const { address, blobs, dataFolder, url: database } = at;
      const moved = await tomaat(['migrate', '-q', '--from', address, '--blobs', blobs, '--data', back]);
      expect(moved).toMatchObject({ code: 0, stderr: '' });
      expect(moved.stdout).toContain('Moved: 5 jobs, ');
      await expect(startTestServer(apps, { dataFolder, database, blobs })).rejects.toThrow(
        /were moved to the data folder .*back/,
      );
      await using server = await startTestServer(apps, { dataFolder: back, login: true });
      await expectJobs(server);
      expect(await send(server, 100, 179)).toBe('179');
      const made = await asking(server)('/api/services/good/predictions', {
        method: 'POST',
        headers: { 'content-type': 'application/json', prefer: 'wait=60' },
        body: JSON.stringify({ inputs: { volume: { upload: uploads.part } } }),
      });
      expect(await made.json()).toMatchObject({ state: 'succeeded' });
    });

    it('keeps one chain of the audit log, which the old receipt still fits', async () => {
      const receipt = join(work, 'receipt.jws');
      await writeFile(receipt, await text('receipt.jws'));
      const verified = await tomaat(['audit', 'verify', '--data', back, '--receipt', receipt, '--json']);
      expect(verified.code, verified.stderr).toBe(0);
      expect(JSON.parse(verified.stdout)).toMatchObject({ ok: true, events: { 'data.moved': 2 } });
      const lines = (await readFile(join(back, 'audit.jsonl'), 'utf8')).trim().split('\n');
      expect(lines.slice(0, 10).join('\n')).toBe((await text('audit.jsonl')).trim());
      expect(JSON.parse(lines[10])).toMatchObject({ seq: 11, event: 'data.moved' });
    });
  });

  describe('rows', () => {
    const quiet = { signal: new AbortController().signal, onProgress: () => {} };
    async function rowsOf(file: string): Promise<Record<string, Row[]>> {
      await using database = await openDatabase(file, serverMigrations);
      const db = database.db as unknown as Kysely<AnyTables>;
      const rows: Record<string, Row[]> = {};
      for (const { name, key } of await tablesToCopy(db))
        rows[name] = await db.selectFrom(name).selectAll().orderBy(sql.ref(key[0])).execute();
      return rows;
    }

    it('come back as they were, but for the job that ran', async () => {
      const { dataFolder, url, blobs } = await prepare('rows');
      await migrateToShared({ dataFolder, database: url, blobs, ...quiet });
      const before = await rowsOf(serverDatabaseFile(dataFolder));
      const folder = join(work, 'rows-back');
      await mkdir(folder, { mode: 0o700 });
      for (const key of ['identity.key', 'pseudonym.key'])
        await copyFile(join(dataFolder, key), join(folder, key));
      await migrateToFolder({ dataFolder: folder, database: url, blobs, ...quiet });
      const ran = before.job.find(({ id }) => id === jobs.running);
      Object.assign(ran!, { state: 'queued', started_ms: null, worker: null });
      expect(await rowsOf(serverDatabaseFile(folder))).toEqual(before);
      expect(before.job).toHaveLength(5);
      expect(before.session).toHaveLength(1);
    });

    it('of a registry in the same folder are moved, too, there and back', async () => {
      const { dataFolder, url, blobs } = await prepare('registry');
      const keyOf = async (folder: string, shared?: string) => {
        await using registry = await openRegistryDatabase(folder, shared);
        return await registry.db.selectFrom('api_key').selectAll().execute();
      };
      {
        await using registry = await openRegistryDatabase(dataFolder);
        await registry.db.insertInto('api_key').values(keyRow).execute();
      }
      const keys = await keyOf(dataFolder);
      await migrateToShared({ dataFolder, database: url, blobs, ...quiet });
      expect(await keyOf(dataFolder, url)).toEqual([{ ...keyRow, hash: Buffer.from(keyRow.hash) }]);
      await migrateToFolder({ dataFolder, database: url, blobs, ...quiet });
      expect(await keyOf(dataFolder)).toEqual(keys);
      // The folder is its own again.
      await using server = await startTestServer(apps, { dataFolder });
      expect((await server.app.inject('/health/ready')).statusCode).toBe(200);
    });

    it('are not written by a migration that is interrupted, which can be repeated', async () => {
      const { dataFolder, url, blobs } = await prepare('interrupted');
      for (const [step, at] of [
        ['files', 2],
        ['rows', 1],
        ['rows', 6],
      ] as const) {
        const stop = new AbortController();
        const onProgress = (now: string, done: number) => {
          if (now === step && done === at) stop.abort(new Error('stopped'));
        };
        const migrating = migrateToShared({
          dataFolder,
          database: url,
          blobs,
          signal: stop.signal,
          onProgress,
        });
        await expect(migrating).rejects.toThrow('stopped');
        await using database = await openServerDatabase(dataFolder, url);
        expect((await sql`SELECT 1 FROM tomaat.job`.execute(database.db)).rows).toEqual([]);
      }
      const moved = await migrateToShared({ dataFolder, database: url, blobs, ...quiet });
      expect(moved).toMatchObject({ tables: { job: 5 }, files: 4, lost: [] });
      // Killed after the commit, before the folder was marked.
      await rm(join(dataFolder, movedFile));
      const again = await migrateToShared({ dataFolder, database: url, blobs, ...quiet });
      expect(again).toMatchObject({ isFinished: true });
      await expect(startTestServer(apps, { dataFolder })).rejects.toThrow('--database');
    });

    it('are numbered on after those that were moved', async () => {
      const { dataFolder, url, blobs } = await prepare('numbered');
      await migrateToShared({ dataFolder, database: url, blobs, ...quiet });
      await using database = await openServerDatabase(dataFolder, url);
      await database.db.insertInto('duration').values({ service: 's', seconds: 1, voxels: null }).execute();
      const ids = await database.db.selectFrom('duration').select('id').orderBy('id').execute();
      expect(ids).toEqual([{ id: 1 }, { id: 2 }]);
    });

    it('of every table are copied, or kept in another form, or worthless', async () => {
      await using database = await openServerDatabase(join(work, 'schema'));
      const db = database.db as unknown as Kysely<AnyTables>;
      const all = (await tablesOf(db)).map(({ name }) => name);
      const copied = (await tablesToCopy(db)).map(({ name }) => name);
      expect([...copied, ...notCopied].sort()).toEqual(all.sort());
      expect(copied).toEqual(
        expect.arrayContaining([
          'job',
          'job_input',
          'job_output',
          'upload',
          'api_key',
          'session',
          'created_on',
        ]),
      );
      expect(notCopied).toEqual(expect.arrayContaining([...inFiles]));
    });
  });

  it('moves jobs without files that were lost, and says how many', async () => {
    const { dataFolder, address, blobs } = await prepare('lost');
    await rm(join(dataFolder, resultFile));
    const moved = await tomaat([
      ...['migrate', '--to', address, '--blobs', blobs, '--data', dataFolder, '--json'],
    ]);
    expect(moved.code).toBe(1);
    expect(JSON.parse(moved.stdout)).toMatchObject({ ok: false, files: 3, lost: [expect.any(String)] });
  });

  it('refuses what is not empty, not there, in use or named wrongly', async () => {
    const { dataFolder, address, url, blobs } = await prepare('refused');
    const to = (...more: string[]) => tomaat(['migrate', '--to', address, '--data', dataFolder, ...more]);
    expect(await tomaat(['migrate', '--data', dataFolder])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('--to ADDRESS'),
    });
    expect(await tomaat(['migrate', '--to', address, '--from', address])).toMatchObject({ code: 2 });
    const secret = await tomaat(['migrate', '--to', url.replace('postgres@', 'postgres:secret@')]);
    expect(secret).toMatchObject({ code: 2, stderr: expect.stringContaining('The password in --to') });
    expect(secret.stderr).not.toContain('secret@');
    const nowhere = await tomaat(['migrate', '--to', address, '--data', join(work, 'nowhere')]);
    expect(nowhere).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('no data of a server or registry'),
    });
    await using server = await startTestServer(apps, { dataFolder });
    expect(await to()).toMatchObject({ code: 2, stderr: expect.stringContaining('in use') });
    await server.close();
    await using database = await openServerDatabase(dataFolder, url);
    await database.db
      .insertInto('offered')
      .values({ service: 's', concurrency: null, heard_ms: 1 })
      .execute();
    for (const more of [[], ['--dry-run']])
      expect(await to('--blobs', blobs, ...more)).toMatchObject({
        code: 2,
        stderr: expect.stringContaining('already has data of TOMAAT'),
      });
  });
});
