import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sql } from 'kysely';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { keyRow, sessionRow } from '../../../test/database-rows.ts';
import { type EntryTable, openRegistryDatabase } from './registry-database.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-registry-database-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const open = () => openRegistryDatabase(folder);

/** An entry in which no two columns hold the same. */
const entry: EntryTable = {
  sid: 's1',
  key_id: 'k1',
  id: 'id1',
  signed: 'a.signed.text',
  face: 'api',
  name: 'Lungs',
  modality: 'CT scan',
  anatomy: 'Lung',
  task: 'Segmentation',
  description: 'Both lungs',
  modality_slug: 'ct-scan',
  anatomy_slug: 'lung',
  task_slug: 'segmentation',
  words: 'lungs both lungs',
  prediction_url: 'https://host/predict',
  interface_url: 'https://host/interface',
  server_url: 'https://host',
  service_id: 'ct-lung',
  version: '1.2.3',
  is_default: 1,
  volumes: 2,
  first_ms: 1000,
  announced_ms: 2000,
  expires_ms: 3000,
};

describe('openRegistryDatabase()', () => {
  it('keeps the names and the order of the steps that folders were made with', async () => {
    await using database = await open();
    const { rows } = await sql<{
      name: string;
    }>`SELECT name FROM tomaat_migration ORDER BY number`.execute(database.db);
    expect(rows.map(({ name }) => name)).toEqual([
      'keys',
      'entries',
      'key limits',
      'sessions',
      'signed announcements',
      'id token of sessions',
      'begun logins',
      'deployment',
    ]);
  });

  it('keeps every column of its tables', async () => {
    const announced = { id: 'id1', thumbprint: 'print', epoch: 7, announced_ms: 2000 };
    {
      await using database = await open();
      await database.db.insertInto('entry').values(entry).execute();
      await database.db.insertInto('announced').values(announced).execute();
      await database.db.insertInto('api_key').values(keyRow).execute();
      await database.db.insertInto('session').values(sessionRow).execute();
    }
    await using database = await open();
    const { db } = database;
    expect(await db.selectFrom('entry').selectAll().execute()).toEqual([entry]);
    expect(await db.selectFrom('announced').selectAll().execute()).toEqual([announced]);
    expect(await db.selectFrom('api_key').selectAll().execute()).toEqual([keyRow]);
    expect(await db.selectFrom('session').selectAll().execute()).toEqual([sessionRow]);
  });

  it('takes one entry for an id, and one of a key for an address', async () => {
    await using database = await open();
    const add = (changed: Partial<EntryTable>) =>
      database.db
        .insertInto('entry')
        .values({ ...entry, ...changed })
        .execute();
    await add({});
    await expect(add({ id: 'id2', key_id: 'k2' })).rejects.toThrow('entry.sid');
    await expect(add({ sid: 's2', key_id: 'k2' })).rejects.toThrow('entry.id');
    await expect(add({ sid: 's2', id: 'id2' })).rejects.toThrow('entry.prediction_url');
    await expect(add({ sid: 's2', id: 'id2', key_id: 'k2', face: 'v2' as never })).rejects.toThrow('CHECK');
    // Another key may announce the same address: a registry cannot know whose it is.
    await add({ sid: 's2', id: 'id2', key_id: 'k2' });
    await add({ sid: 's3', id: null, prediction_url: 'https://host/other', face: 'v1' });
    await add({ sid: 's4', id: null, prediction_url: 'https://host/another', face: 'v1' });
  });

  it('forgets what was announced without a signature, and keeps entries of v1', async () => {
    {
      await using database = await open();
      const { db } = database;
      await db.insertInto('entry').values(entry).execute();
      await db
        .insertInto('entry')
        .values({ ...entry, sid: 'old', key_id: 'k2', id: null, signed: null, face: 'v1' })
        .execute();
      // As the version before the signatures left it.
      await sql`ALTER TABLE entry DROP COLUMN signed`.execute(db);
      await sql`DROP TABLE announced`.execute(db);
      await sql`ALTER TABLE session DROP COLUMN id_token`.execute(db);
      await sql`DROP TABLE begun_login`.execute(db);
      await sql`DROP TABLE deployment`.execute(db);
      await sql`DELETE FROM tomaat_migration WHERE number > 4`.execute(db);
    }
    await using database = await open();
    const left = await database.db.selectFrom('entry').select(['sid', 'signed']).execute();
    expect(left).toEqual([{ sid: 'old', signed: null }]);
    expect(await database.db.selectFrom('announced').selectAll().execute()).toEqual([]);
  });
});
