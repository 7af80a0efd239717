import { existsSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createClient } from '@tomaat/client';
import { sql } from 'kysely';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { adoptKeys, openKeyFolder } from '../src/access/key-folder.ts';
import { listKeys } from '../src/access/keys.ts';
import type { Database } from '../src/store/database/database.ts';
import { movedFile } from '../src/store/database/moved.ts';
import { openServerDatabase, type ServerSchema } from '../src/store/database/server-database.ts';
import { inferBright, writeApp } from './app-fixture.ts';
import { type CliOptions, tomaat } from './cli-fixture.ts';
import { encode, phantom } from './phantom.ts';
import { type Serving, startServing } from './serving.ts';
import { postgresBin, startPostgres } from './support/postgres.ts';

/* Commands that work on the data folder of a server, where two servers share a PostgreSQL database and a folder of files. */

interface ListedKey {
  id: string;
  label: string;
  revokedTime?: string;
}

describe.skipIf(!postgresBin)('with a shared database', () => {
  let folder: string;
  /** The file with the address. */
  let address: string;
  let url: string;
  let database: Database<ServerSchema>;
  let servers: Serving[];
  let admin: string;
  const data = (name: string) => join(folder, name);

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tomaat-shared-'));
    url = await (await startPostgres()).database();
    address = join(folder, 'address');
    await writeFile(address, `${url}\n`);
    const app = await writeApp(folder, 'good', { infer: inferBright });
    const start = (name: string) =>
      startServing([
        ...['serve', app, '--login', '--data', data(name)],
        ...['--database', address, '--blobs', join(folder, 'volumes')],
      ]);
    const first = await start('first');
    await copyKeys('second');
    servers = [first, await start('second')];
    admin = first.addresses.adminKey!;
    database = await openServerDatabase(folder, url);
  });
  /** Makes a folder with the keys that servers of one database share. */
  async function copyKeys(name: string): Promise<void> {
    await mkdir(data(name), { mode: 0o700 });
    for (const file of ['identity.key', 'pseudonym.key'])
      await copyFile(join(data('first'), file), join(data(name), file));
  }
  afterAll(async () => {
    await database?.close();
    await Promise.all((servers ?? []).map((server) => server[Symbol.asyncDispose]()));
    await rm(folder, { recursive: true, force: true });
  });

  /** A command on a data folder: with --database, or with the address as `by` says. */
  const run = (args: readonly string[], name = 'first', by: CliOptions | undefined = undefined) =>
    tomaat([...args, '--data', data(name), ...(by ? [] : ['--database', address])], by);
  const statusAt = async (server: Serving, key: string): Promise<number> =>
    (await fetch(`${server.addresses.server}/api/services`, { headers: { authorization: `Bearer ${key}` } }))
      .status;
  const makeKey = async (label: string): Promise<{ id: string; key: string }> =>
    JSON.parse((await run(['keys', 'create', '--label', label, '--scope', 'predict', '--json'])).stdout);

  it('the first administrator’s key is made once, for both servers', async () => {
    expect(admin).toMatch(/^tmt_/);
    expect(servers[1].addresses.adminKey).toBeUndefined();
    for (const server of servers) expect(await statusAt(server, admin)).toBe(200);
  });

  it('a job whose id has a NUL does not exist, though PostgreSQL has no text for it', async () => {
    const headers = { authorization: `Bearer ${admin}` };
    const answer = await fetch(`${servers[0].addresses.server}/api/jobs/%00`, { headers });
    expect(answer.status).toBe(404);
    expect(await answer.json()).toMatchObject({ code: 'NOT_FOUND' });
  });

  it('keys made and revoked at one folder count at both servers', async () => {
    const { id, key } = await makeKey('ward 3');
    for (const server of servers) expect(await statusAt(server, key)).toBe(200);
    const withVariable = { env: { TOMAAT_DATABASE: url.replace('postgres@', 'postgres:never-shown@') } };
    const listed = await run(['keys', 'list', '--json'], 'second', withVariable);
    expect(listed).toMatchObject({ code: 0, stderr: '' });
    expect((JSON.parse(listed.stdout) as ListedKey[]).map(({ label }) => label)).toContain('ward 3');
    expect(await run(['keys', 'revoke', id], 'second', withVariable)).toMatchObject({ code: 0, stderr: '' });
    for (const server of servers) expect(await statusAt(server, key)).toBe(401);
  });

  it('no command without the address works on the folder, or makes a database in it', async () => {
    const without = { env: {} };
    for (const args of [
      ['keys', 'create', '--label', 'lost'],
      ['keys', 'list'],
      ['keys', 'revoke', 'aaaaaaaaaa'],
      ['erase', '--owner', 'anonymous'],
      ['backup', join(folder, 'copy')],
      ['registry', '--login', '--port', '0'],
    ]) {
      const refused = await run(args, 'first', without);
      expect(refused.stderr, args.join(' ')).toMatch(/in postgres:\/\/127\.0\.0\.1.* --database/);
      expect(refused).toMatchObject({ code: 2, stdout: '' });
    }
    for (const name of ['first', 'second']) {
      expect(existsSync(join(data(name), movedFile))).toBe(true);
      expect(existsSync(join(data(name), 'server.db'))).toBe(false);
    }
  });

  it('a gateway in the folder takes the keys of the database', async () => {
    const { id } = await makeKey('PACS');
    await adoptKeys(data('second'), 'gateway', { shared: url });
    await using keys = await openKeyFolder(data('second'), ['gateway'], { shared: url });
    expect((await listKeys(keys.databases[0])).map((key) => key.id)).toContain(id);
  });

  it('erase deletes an owner’s rows of both servers, and marks the files', async () => {
    const [rossi, bianchi] = [await makeKey('Dr. Rossi'), await makeKey('Dr. Bianchi')];
    const at = (index: number, apiKey: string) =>
      createClient({ baseUrl: servers[index].addresses.server, apiKey });
    const predict = async (index: number, key: string, mark: number) => {
      const own = phantom();
      (own.voxels as Int16Array)[0] = mark;
      const volume = new Blob([Uint8Array.from(await encode(own, 'nii'))]);
      const { id } = await at(index, key).predict('good', { volumes: { volume } });
      return at(index, key).wait(id);
    };
    const jobs = [await predict(0, rossi.key, 3), await predict(1, rossi.key, 4)];
    const kept = await predict(1, bianchi.key, 5);
    const begun = await fetch(`${servers[1].addresses.server}/api/uploads`, {
      method: 'POST',
      headers: { authorization: `Bearer ${rossi.key}`, 'tus-resumable': '1.0.0', 'upload-length': '9' },
    });
    expect(begun.status).toBe(201);

    const dry = await run(['erase', '--key', rossi.id, '--dry-run', '--json'], 'second');
    expect(JSON.parse(dry.stdout)).toMatchObject({ erased: false, jobs: 2, uploads: 1 });
    const erased = await run(['erase', '--key', rossi.id, '--revoke'], 'second');
    expect(erased.stdout).toMatch(/^2 jobs, 1 upload and 0 sessions were erased\..* within two minutes/);
    expect(erased).toMatchObject({ code: 0, stderr: '' });

    const owner = `key:${rossi.id}`;
    for (const table of ['job', 'upload', 'created_on', 'session'] as const) {
      const rows = await database.db.selectFrom(table).select('owner').where('owner', '=', owner).execute();
      expect(rows, table).toEqual([]);
    }
    const marks = (await sql<{ digest: string }>`SELECT digest FROM blob_mark`.execute(database.db)).rows;
    const marked = marks.map(({ digest }) => digest);
    for (const job of jobs)
      for (const { digest } of job.outputs)
        if (!kept.outputs.some((one) => one.digest === digest)) expect(marked).toContain(digest);
    for (const server of servers) expect(await statusAt(server, rossi.key)).toBe(401);
    const key = await database.db.selectFrom('api_key').select('label').where('id', '=', rossi.id).execute();
    expect(key).toEqual([{ label: 'erased' }]);
    const result = await at(0, bianchi.key).output(kept.id, kept.outputs[0].name);
    expect((await result.blob()).size).toBe(kept.outputs[0].sizeBytes);
    const lines = await sql<{ line: string }>`SELECT line FROM audit_line ORDER BY sequence`.execute(
      database.db,
    );
    const about = lines.rows.map(({ line }) => JSON.parse(line)).filter(({ who }) => who === owner);
    expect(about.map(({ event }) => event)).toContain('erasure.begun');
    expect(about.at(-1)).toMatchObject({ event: 'erasure.done', count: 3 });
  });

  it('audit verify reads the log of both servers, and finds a changed line', async () => {
    const verified = await run(['audit', 'verify', '--json'], 'second');
    expect(JSON.parse(verified.stdout)).toMatchObject({
      ok: true,
      files: 0,
      events: { 'server.started': 2, 'erasure.done': 1 },
    });
    expect(verified.code).toBe(0);
    const { rows } = await sql<{
      sequence: number;
      line: string;
    }>`SELECT sequence, line FROM audit_line ORDER BY sequence LIMIT 1 OFFSET 1`.execute(database.db);
    const change = (line: string) =>
      sql`UPDATE audit_line SET line = ${line} WHERE sequence = ${rows[0].sequence}`.execute(database.db);
    await change(rows[0].line.replace('"event":"', '"event":"x'));
    const broken = await run(['audit', 'verify']);
    await change(rows[0].line);
    expect(broken.code).toBe(1);
    expect(broken.stderr).toContain(`row ${rows[0].sequence} of the database was changed`);
    expect(await run(['audit', 'rotate'], 'first', { env: { TOMAAT_DATABASE: url } })).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('no files to rotate'),
    });
  });

  it('audit verify says that no server has run on a database, which is no broken log', async () => {
    const unused = { env: { TOMAAT_DATABASE: await (await startPostgres()).database() } };
    const verify = () => run(['audit', 'verify'], 'unused', unused);
    expect(await verify()).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('no server has run on it yet'),
    });
    await run(['keys', 'create', '--label', 'early'], 'unused', unused);
    expect(await verify()).toMatchObject({ code: 1, stderr: expect.stringContaining('Start a server') });
  });

  it('erase needs a server that runs on the folder; serve needs the address', async () => {
    const rossi = await makeKey('Dr. Rossi');
    await mkdir(data('third'), { mode: 0o700 });
    const { code, stderr } = await run(['erase', '--key', rossi.id], 'third');
    expect([code, stderr]).toEqual([2, expect.stringMatching(/No server runs on .*third.*--data/)]);
    await servers[1].stop();
    const served = await run(['serve', join(folder, 'good')], 'second', { env: {} });
    expect(served).toMatchObject({ code: 2, stdout: '' });
    expect(served.stderr).toMatch(/in postgres:\/\/127\.0\.0\.1.* --database/);
  });

  it('“up” at two folders has a key for each registry: the second does not end the first one’s', async () => {
    const shared = ['--database', address, '--blobs', join(folder, 'volumes')];
    const startUp = async (name: string) => {
      await copyKeys(name);
      return startServing(['up', '--data', data(name), ...shared]);
    };
    await using one = await startUp('one');
    await using two = await startUp('two');
    const { rows } = await sql<{ label: string }>`SELECT label FROM tomaat_registry.api_key
      WHERE made_by = 'program' AND revoked_ms IS NULL`.execute(database.db);
    const ports = [one, two].map((up) => new URL(up.addresses.registry!).port);
    expect(rows.map(({ label }) => label.split(':').at(-1)).sort()).toEqual(ports.sort());
  });
});
