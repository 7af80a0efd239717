import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sql } from 'kysely';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { keyRow, sessionRow } from '../../../test/database-rows.ts';
import { openServerDatabase, serverDatabaseFile, serverMigrations } from './server-database.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-server-database-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

describe('openServerDatabase()', () => {
  it('keeps the names and the order of the steps that folders were made with', async () => {
    await using database = await openServerDatabase(folder);
    expect(serverDatabaseFile(folder)).toBe(join(folder, 'server.db'));
    const { rows } = await sql<{
      name: string;
    }>`SELECT name FROM tomaat_migration ORDER BY number`.execute(database.db);
    expect(rows.map(({ name }) => name)).toEqual([
      'jobs',
      'job queue',
      'uploads',
      'keys',
      'key limits',
      'jobs a day',
      'sessions',
      'receipts',
      'id token of sessions',
      'geometry of outputs',
      'kept outputs',
      'names of uploads',
      'audit table',
      'begun logins',
      'parts of uploads',
      'shared queue',
      'deployment',
    ]);
    expect(serverMigrations).toHaveLength(rows.length);
  });

  it('starts over beside empty folders, and opens again beside files', async () => {
    for (const name of [join('blobs', 'sha256'), 'uploads'])
      await mkdir(join(folder, name), { recursive: true });
    await (await openServerDatabase(folder)).close();
    await writeFile(join(folder, 'uploads', 'part'), 'x');
    await (await openServerDatabase(folder)).close();
  });

  it.each([join('blobs', 'sha256'), 'uploads'])('refuses to start over beside files in %s', async (name) => {
    await mkdir(join(folder, name), { recursive: true });
    await writeFile(join(folder, name, 'file'), 'x');
    for (const text of [undefined, '']) {
      if (text !== undefined) await writeFile(serverDatabaseFile(folder), text);
      await expect(openServerDatabase(folder)).rejects.toMatchObject({
        code: 'INTERNAL',
        message: expect.stringContaining(join(folder, name)),
      });
    }
  });

  it('passes on why it cannot look', async () => {
    await writeFile(join(folder, 'uploads'), 'a file');
    await expect(openServerDatabase(folder)).rejects.toMatchObject({ code: 'ENOTDIR' });
  });

  it('keeps every column of keys, sessions and uploads', async () => {
    const upload = {
      ...{
        id: 'u1',
        owner: 'key:k1',
        size_bytes: 9,
        offset_bytes: 8,
        expected: 'sha256:a',
        digest: 'sha256:b',
      },
      ...{
        file_name: 'x.nii',
        metadata: 'filename eA==',
        expires_ms: 2000,
        holder: 'h',
        name: 'n',
        arrived_us: 5,
      },
    };
    {
      await using database = await openServerDatabase(folder);
      await database.db.insertInto('api_key').values(keyRow).execute();
      await database.db.insertInto('session').values(sessionRow).execute();
      await database.db.insertInto('upload').values(upload).execute();
    }
    await using database = await openServerDatabase(folder);
    const { db } = database;
    expect(await db.selectFrom('api_key').selectAll().execute()).toEqual([keyRow]);
    expect(await db.selectFrom('session').selectAll().execute()).toEqual([sessionRow]);
    expect(await db.selectFrom('upload').selectAll().execute()).toEqual([upload]);
  });

  it('refuses sessions of a key and issuer, of neither, and unknown makers', async () => {
    await using database = await openServerDatabase(folder);
    const { db } = database;
    for (const wrong of [{ basis: 'digest' }, { key_id: null }])
      await expect(
        db
          .insertInto('session')
          .values({ ...sessionRow, ...wrong })
          .execute(),
      ).rejects.toThrow('CHECK');
    const made_by = 'stranger' as never;
    await expect(
      db
        .insertInto('api_key')
        .values({ ...keyRow, made_by })
        .execute(),
    ).rejects.toThrow('CHECK');
  });

  it('has results and inputs that go with their job', async () => {
    await using database = await openServerDatabase(folder);
    const { db } = database;
    await db
      .insertInto('job')
      .values({
        ...{ id: 'j', service: 's', state: 'queued', attempt: 0, owner: 'a', request: '{}', created_ms: 1 },
      })
      .execute();
    expect(await db.selectFrom('job').selectAll().executeTakeFirstOrThrow()).toMatchObject({
      urgency: 3,
      lost: 0,
      worker: null,
      receipt: null,
    });
    const row = { job: 'j', position: 0, name: 'x', digest: 'd', size_bytes: 1 };
    await db
      .insertInto('job_input')
      .values({ ...row, file_name: 'x.nii' })
      .execute();
    await expect(
      db
        .insertInto('job_input')
        .values({ ...row, job: 'none', file_name: 'x.nii' })
        .execute(),
    ).rejects.toThrow('FOREIGN KEY');
    await db.deleteFrom('job').execute();
    expect(await db.selectFrom('job_input').selectAll().execute()).toEqual([]);
  });
});
