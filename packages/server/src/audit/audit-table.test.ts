import { spawnSync } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Kysely, sql } from 'kysely';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type OwnPostgres, postgresBin, startOwnPostgres } from '../../test/support/postgres.ts';
import { type Identity, openIdentity } from '../identity.ts';
import type { AuditSchema } from '../store/database/audit-schema.ts';
import type { Database } from '../store/database/database.ts';
import { openServerDatabase, type ServerSchema } from '../store/database/server-database.ts';
import type { Audit } from './audit-log.ts';
import { type AuditTableOptions, openAuditTable } from './audit-table.ts';
import { leaveForAudit, pendingNames } from './pending.ts';
import { verifyAudit, verifyAuditTable } from './verify-audit.ts';

/* The log of two servers with one database. Their folders are one here, which holds nothing of the log. */

let postgres: OwnPostgres | undefined;
let folder: string;
let url: string;
let identity: Identity;
let databases: Database<ServerSchema>[];
let logs: Audit[];
let faults: unknown[];

const open = (database: Database<ServerSchema>, more: Partial<AuditTableOptions> = {}) =>
  openAuditTable(database, {
    identity,
    dataFolder: folder,
    onFault: (error) => faults.push(error),
    ...more,
  });
const verify = (more = {}) => verifyAuditTable(databases[0].db, { signers: [identity.thumbprint], ...more });
/** The fields of the lines. */
const linesOf = async () =>
  (await databases[0].db.selectFrom('audit_line').select('line').orderBy('sequence').execute()).map(
    ({ line }) => JSON.parse(line) as { seq: number; event: string; job?: string; count?: number },
  );
const addKey = (trx: Database<ServerSchema>['db'], id: string) =>
  trx.insertInto('created_on').values({ owner: id, day: 1, jobs: 1 }).execute();

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-audit-table-'));
  if (postgresBin) postgres = await startOwnPostgres();
  identity = await openIdentity(folder);
});
afterAll(async () => {
  await postgres?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

describe.skipIf(!postgresBin)('openAuditTable()', () => {
  beforeEach(async () => {
    url = await postgres!.database();
    faults = [];
    databases = [await openServerDatabase(folder, url), await openServerDatabase(folder, url)];
    logs = [await open(databases[0]), await open(databases[1])];
  });
  afterEach(async () => {
    for (const log of logs) await log.close();
    for (const database of databases) await database.close();
  });

  it('makes one chain of the lines of two servers, in transactions and outside', async () => {
    const work = async (at: number, name: string) => {
      for (let i = 0; i < 20; i++) {
        const job = `${name}${i}é`;
        logs[at].record('result.read', { job });
        await databases[at].transaction((trx) => logs[at].recordIn(trx, 'job.kept', { job }));
      }
    };
    await Promise.all([work(0, 'a'), work(1, 'b'), work(0, 'c'), work(1, 'd')]);
    for (const log of logs) await log.flushed();
    expect(await verify()).toMatchObject({
      lines: 160,
      events: { 'job.kept': 80, 'result.read': 80 },
      beyondAnchor: 160,
    });
    const lines = await linesOf();
    expect(lines.map(({ seq }) => seq)).toEqual(Array.from({ length: 160 }, (_, i) => i + 1));
    expect(new Set(lines.map(({ event, job }) => `${event} ${job}`)).size).toBe(160);
    await logs[1].close();
    expect(await verify()).toMatchObject({ anchored: { sequence: 160 }, beyondAnchor: 0 });
    expect(faults).toEqual([]);
  });

  it('has a line exactly if the change was committed', async () => {
    const failing = databases[0].transaction(async (trx) => {
      await addKey(trx, 'gone');
      await logs[0].recordIn(trx, 'job.kept', { job: 'gone' });
      throw new Error('no commit');
    });
    await expect(failing).rejects.toThrow('no commit');
    await databases[1].transaction(async (trx) => {
      await addKey(trx, 'stays');
      await logs[1].recordIn(trx, 'job.kept', { job: 'stays' });
    });
    expect((await linesOf()).map(({ job }) => job)).toEqual(['stays']);
    const rows = await databases[0].db.selectFrom('created_on').select('owner').execute();
    expect(rows).toEqual([{ owner: 'stays' }]);
    await sql`ALTER TABLE audit_line ADD CONSTRAINT none CHECK (sequence < 2)`.execute(databases[0].db);
    const unrecorded = databases[0].transaction(async (trx) => {
      await addKey(trx, 'unrecorded');
      await logs[0].recordIn(trx, 'job.kept', { job: 'unrecorded' });
    });
    await expect(unrecorded).rejects.toThrow('none');
    expect(await databases[0].db.selectFrom('created_on').select('owner').execute()).toEqual(rows);
    expect(await verify()).toMatchObject({ lines: 1 });
  });

  it('keeps lines while the database is away, and writes them in their order', async () => {
    logs[0].record('result.read', { job: '0' });
    await logs[0].flushed();
    await postgres!.kill();
    for (let i = 1; i < 5; i++) logs[0].record('result.read', { job: String(i) });
    await expect.poll(() => faults.length, { timeout: 20_000 }).toBeGreaterThan(0);
    await postgres!.start();
    await logs[0].flushed();
    expect((await linesOf()).map(({ job }) => job)).toEqual(['0', '1', '2', '3', '4']);
    expect(await verify()).toMatchObject({ lines: 5 });
  }, 60_000);

  it('takes in the lines that commands left, and says whose key signs', async () => {
    const other = await mkdtemp(join(tmpdir(), 'tomaat-audit-other-'));
    await leaveForAudit(other, 'backup.made', { outcome: 'x' });
    const next = await openIdentity(other);
    await using log = await open(databases[0], { identity: next, dataFolder: other });
    expect(await pendingNames(other)).toEqual([]);
    await log.flushed();
    const events = (await linesOf()).map(({ event }) => event);
    expect(events.sort()).toEqual(['backup.made', 'identity.changed']);
    await log.close();
    await expect(verify()).rejects.toMatchObject({ code: 'BAD_SIGNATURE' });
    expect(await verify({ signers: [next.thumbprint] })).toMatchObject({ lines: 2 });
    await rm(other, { recursive: true, force: true });
  });

  it('has no file to rotate, and names the newest line to a receipt', async () => {
    await expect(logs[0].rotate()).rejects.toMatchObject({ code: 'BAD_REQUEST' });
    await databases[0].transaction((trx) => logs[0].recordIn(trx, 'job.kept', { job: 'a' }));
    const head = await databases[1].transaction((trx) => logs[1].headIn(trx));
    expect(head.sequence).toBe(1);
    expect(await verify({ anchors: [head] })).toMatchObject({ lines: 1 });
    await expect(verify({ anchors: [{ ...head, sha256: 'a'.repeat(64) }] })).rejects.toThrow('rewritten');
  });

  it('goes on under a role that may only add lines, and is exported by psql as the guide says', async () => {
    const name = new URL(url).pathname.slice(1);
    const owned = new URL(url);
    owned.username = `servers_${name}`;
    const psql = (as: string, ...args: string[]) =>
      spawnSync(join(postgresBin!, 'psql'), [as, '-qv', 'ON_ERROR_STOP=1', ...args], { encoding: 'utf8' });
    const database = await postgres!.database();
    owned.pathname = new URL(database).pathname;
    const own = `ALTER DATABASE ${owned.pathname.slice(1)} OWNER TO ${owned.username}`;
    expect(psql(database, '-c', `CREATE ROLE ${owned.username} LOGIN`, '-c', own).stderr).toBe('');
    await using opened = await openServerDatabase(folder, owned.href);
    const revoke = `REVOKE UPDATE, DELETE, TRUNCATE ON tomaat.audit_line FROM ${owned.username}`;
    expect(psql(owned.href, '-c', revoke).stderr).toBe('');

    const log = await open(opened);
    log.record('result.read', { job: 'a\\b"é' });
    await opened.transaction((trx) => log.recordIn(trx, 'job.kept', { job: 'c' }));
    await log.close();
    expect(psql(owned.href, '-c', "UPDATE tomaat.audit_line SET line = ''").stderr).toContain('denied');

    const print = (query: string) => psql(owned.href, '-AtXc', query).stdout;
    const [lines, head] = [join(folder, 'exported.jsonl'), join(folder, 'exported.head')];
    await writeFile(head, print('SELECT signed FROM tomaat.audit_head'));
    await opened.transaction((trx) => log.recordIn(trx, 'job.kept', { job: 'd' }));
    await writeFile(lines, print('SELECT line FROM tomaat.audit_line ORDER BY sequence'));
    const files = { files: [lines], headFile: head, signers: [identity.thumbprint] };
    expect(await verifyAudit(folder, files)).toMatchObject({ lines: 3, signerChecked: true });
    await writeFile(lines, (await readFile(lines, 'utf8')).replace('job.kept', 'job.lost'));
    await expect(verifyAudit(folder, files)).rejects.toMatchObject({ code: 'BAD_SIGNATURE' });
  });
});

describe.skipIf(!postgresBin)('verifyAuditTable()', () => {
  beforeAll(async () => {
    databases = [await openServerDatabase(folder, await postgres!.database())];
    const log = await open(databases[0]);
    for (let i = 0; i < 6; i++) log.record('result.read', { job: String(i) });
    await log.close();
    for (let i = 6; i < 8; i++)
      await databases[0].transaction((trx) => log.recordIn(trx, 'job.kept', { job: String(i) }));
  });
  afterAll(async () => {
    await databases[0].close();
  });

  it.each([
    [
      'a changed line',
      sql`UPDATE audit_line SET line = replace(line, '"job":"2"', '"job":"9"')`,
      'was changed',
    ],
    ['a removed line', sql`DELETE FROM audit_line WHERE sequence = 3`, 'comes next'],
    ['a cut end before the signature', sql`DELETE FROM audit_line WHERE sequence > 4`, 'was cut off'],
    ['a cut end after the signature', sql`DELETE FROM audit_line WHERE sequence = 8`, 'was cut off'],
    ['a moved number', sql`UPDATE audit_line SET sequence = 99 WHERE sequence = 8`, 'holds another line'],
    [
      'lines whose row has another number',
      sql`UPDATE audit_line SET sequence = -sequence WHERE sequence IN (3, 4)`,
      'comes next',
    ],
    ['a missing signature', sql`UPDATE audit_head SET signed = NULL`, 'none of its lines is signed'],
    ['a changed signature', sql`UPDATE audit_head SET signed = replace(signed, '.', '.A')`, ''],
  ])('finds %s', async (_what, change, message) => {
    expect(await verify()).toMatchObject({ lines: 8, beyondAnchor: 2 });
    await databases[0].db
      .transaction()
      .execute(async (trx) => {
        await change.execute(trx);
        const broken = verifyAuditTable(trx as unknown as Kysely<AuditSchema>, {
          signers: [identity.thumbprint],
        });
        await expect(broken).rejects.toMatchObject({ code: 'BAD_SIGNATURE' });
        await expect(broken).rejects.toThrow(new RegExp(message));
        throw new Error('undone');
      })
      .catch((error: Error) => expect(error.message).toBe('undone'));
  });
});
