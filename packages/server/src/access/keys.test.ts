import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Kysely, sql } from 'kysely';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { onEachDatabase } from '../../test/support/each-database.ts';
import type { Database } from '../store/database/database.ts';
import type { KeySchema } from '../store/database/key-schema.ts';
import { openServerDatabase, type ServerSchema } from '../store/database/server-database.ts';
import { makeFirstAdminKey, makeKey } from './key-folder.ts';
import {
  bearerOf,
  createKey,
  findKey,
  findKeyById,
  hasAdminKey,
  listKeys,
  renewProgramKey,
  revokeKey,
} from './keys.ts';

const hour = 3_600_000;
const start = Date.parse('2026-03-04T05:06:07Z');
onEachDatabase(({ dialect, newDatabase }) => {
  let folder: string;
  let shared: string | undefined;
  let database: Database<ServerSchema>;
  let db: Kysely<KeySchema>;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tomaat-keys-'));
    shared = await newDatabase();
    database = await openServerDatabase(folder, shared);
    db = database.db as unknown as Kysely<KeySchema>;
  });
  afterAll(async () => {
    await database.close();
    await rm(folder, { recursive: true, force: true });
  });
  beforeEach(async () => {
    await db.deleteFrom('api_key').execute();
  });

  /** What the database has of keys: the bytes of its file, or each value. */
  async function storedText(): Promise<string> {
    if (dialect === 'postgres')
      return (await db.selectFrom('api_key').selectAll().execute())
        .flatMap((row) => Object.values(row))
        .map((value) => (value instanceof Uint8Array ? Buffer.from(value).toString('latin1') : String(value)))
        .join('\n');
    await database.truncateWal();
    return readFile(join(folder, 'server.db'), 'latin1');
  }

  describe('createKey()', () => {
    it('makes a key of 256 random bits and stores its hash alone', async () => {
      const made = await createKey(db, { label: ' ward 3 ', scopes: ['predict', 'predict'] }, start);
      expect(made).toEqual({
        id: expect.stringMatching(/^[a-z2-7]{10}$/),
        key: expect.stringMatching(new RegExp(`^tmt_${made.id}_[A-Za-z0-9_-]{43}$`)),
        label: 'ward 3',
        scopes: ['predict'],
        createdTime: '2026-03-04T05:06:07.000Z',
      });
      const bytes = await storedText();
      expect(bytes).toContain(made.id);
      expect(bytes).not.toContain(made.key.slice(15));
      const other = await createKey(db, { label: 'ward 3', scopes: ['predict'] }, start);
      expect(other.id).not.toBe(made.id);
      expect(other.key.slice(15)).not.toBe(made.key.slice(15));
    });

    it.each([
      [{ label: '', scopes: ['predict'] }, 'label'],
      [{ label: 'x'.repeat(101), scopes: ['predict'] }, 'label'],
      [{ label: 'a', scopes: [] }, 'scope'],
      [{ label: 'a', scopes: ['predict', 'root'] }, 'root'],
      [{ label: 'a', scopes: ['predict'], expiresTime: new Date(start) }, 'past'],
      [{ label: 'a', scopes: ['predict'], limits: { maxJobs: 0 } }, '--max-jobs'],
      [{ label: 'a', scopes: ['predict'], limits: { perDay: 1.5 } }, '--per-day'],
    ])('refuses %j before anything is made', async (options, words) => {
      const before = async () => {
        throw new Error('it was about to be made');
      };
      const making = createKey(db, options as never, start, before);
      await expect(making).rejects.toMatchObject({
        code: 'BAD_INPUT',
        message: expect.stringContaining(words),
      });
      expect(await listKeys(db)).toEqual([]);
    });

    it('makes nothing when the preceding step fails', async () => {
      const before = () => Promise.reject(new Error('no line could be written'));
      const making = createKey(db, { label: 'a', scopes: ['admin'] }, start, before);
      await expect(making).rejects.toThrow('no line could be written');
      expect(await listKeys(db)).toEqual([]);
    });
  });

  describe('findKey()', () => {
    it('finds a whole key, unchanged, until it expires or is revoked', async () => {
      const expiresTime = new Date(start + hour);
      const { key, id } = await createKey(db, { label: 'a', scopes: ['predict'], expiresTime }, start);
      expect(await findKey(db, key, start + hour - 1)).toMatchObject({ id, scopes: ['predict'] });
      expect(await findKeyById(db, id, start + hour - 1)).toMatchObject({ id });
      expect(await findKey(db, key, start + hour)).toBeUndefined();
      expect(await findKeyById(db, id, start + hour)).toBeUndefined();
      const secret = key.slice(15);
      const other = await createKey(db, { label: 'b', scopes: ['admin'] }, start);
      for (const text of [
        key.slice(0, -1),
        `${key}A`,
        ` ${key}`,
        key.toUpperCase(),
        `tmt_${id}_${'A'.repeat(43)}`,
        `tmt_${other.id}_${secret}`,
        `tmt_${id}_${other.key.slice(15)}`,
        '',
        'tmt_',
        'x'.repeat(10_000),
      ])
        expect(await findKey(db, text, start), text.slice(0, 60)).toBeUndefined();
      await revokeKey(db, id, start + 1);
      expect(await findKey(db, key, start + 2)).toBeUndefined();
      expect(await findKeyById(db, id, start + 2)).toBeUndefined();
    });
  });

  describe('limits of a key', () => {
    it.each([[{ maxJobs: 3 }], [{ perDay: 20 }], [{ maxJobs: 3, perDay: 20 }]])(
      'are found with it: %j',
      async (limits) => {
        const { key, id } = await createKey(db, { label: 'a', scopes: ['predict'], limits }, start);
        for (const found of [await findKey(db, key, start), await findKeyById(db, id, start)])
          expect(JSON.parse(JSON.stringify(found?.limits))).toEqual(limits);
        expect((await listKeys(db))[0].limits).toMatchObject(limits);
      },
    );

    it('are missing where none were given', async () => {
      const { key } = await createKey(db, { label: 'a', scopes: ['predict'] }, start);
      expect((await findKey(db, key, start))?.limits).toBeUndefined();
    });

    it.each([
      [{ maxJobs: 0 }, 'max-jobs'],
      [{ perDay: 1.5 }, 'per-day'],
      [{ perDay: -1 }, 'per-day'],
    ])('are whole numbers from 1: %j', async (limits, field) => {
      const making = createKey(db, { label: 'a', scopes: ['predict'], limits }, start);
      await expect(making).rejects.toMatchObject({ code: 'BAD_INPUT', field });
      expect(await listKeys(db)).toEqual([]);
    });
  });

  describe('hasAdminKey()', () => {
    it('counts neither other scopes, nor what has expired or was revoked', async () => {
      expect(await hasAdminKey(db, start)).toBe(false);
      await createKey(db, { label: 'a', scopes: ['predict', 'announce', 'worker'] }, start);
      expect(await hasAdminKey(db, start)).toBe(false);
      const expiresTime = new Date(start + hour);
      await createKey(db, { label: 'b', scopes: ['admin'], expiresTime }, start);
      expect(await hasAdminKey(db, start + hour - 1)).toBe(true);
      expect(await hasAdminKey(db, start + hour)).toBe(false);
      const { id } = await createKey(db, { label: 'c', scopes: ['predict', 'admin'] }, start);
      expect(await hasAdminKey(db, start + hour)).toBe(true);
      await revokeKey(db, id, start + hour);
      expect(await hasAdminKey(db, start + hour)).toBe(false);
    });

    it('decides whether the first administrator gets a key', async () => {
      const first = await makeFirstAdminKey(folder, ['server'], { shared });
      expect(first).toMatch(/^tmt_/);
      expect(await makeFirstAdminKey(folder, ['server', 'registry'], { shared })).toBeUndefined();
      const [{ id }] = await listKeys(db);
      await revokeKey(db, id);
      expect(await makeFirstAdminKey(folder, ['server'], { shared })).toMatch(/^tmt_/);
      // A key that has just ended is as good as none.
      for (const key of await listKeys(db)) await revokeKey(db, key.id);
      const soon = new Date(Date.now() + 3_600_000);
      await makeKey(folder, { label: 'short', scopes: ['admin'], expiresTime: soon }, { shared });
      await db.updateTable('api_key').set({ expires_ms: 1 }).where('label', '=', 'short').execute();
      expect(await makeFirstAdminKey(folder, ['server'], { shared })).toMatch(/^tmt_/);
    });
  });

  describe('revokeKey()', () => {
    it('keeps the time of the first, and refuses an unknown id with the remedy', async () => {
      const { id } = await createKey(db, { label: 'a', scopes: ['predict'] }, start);
      const other = await createKey(db, { label: 'b', scopes: ['predict'] }, start);
      const revokedTime = new Date(start + 5).toISOString();
      expect(await revokeKey(db, id, start + 5)).toMatchObject({ id, revokedTime });
      expect(await revokeKey(db, id, start + 9)).toMatchObject({ id, revokedTime });
      expect(await findKeyById(db, other.id, start + 9)).toMatchObject({ id: other.id });
      await expect(revokeKey(db, 'unknown')).rejects.toMatchObject({
        code: 'NOT_FOUND',
        message: expect.stringContaining('tomaat keys list'),
      });
    });
  });

  describe('renewProgramKey()', () => {
    it('keeps the id, replaces the secret, and makes another key after revocation', async () => {
      const first = await renewProgramKey(db, 'tomaat up', ['announce'], start);
      const second = await renewProgramKey(db, 'tomaat up', ['announce'], start + 1);
      expect(second.slice(0, 15)).toBe(first.slice(0, 15));
      expect(second).not.toBe(first);
      expect(await findKey(db, first, start + 2)).toBeUndefined();
      expect(await findKey(db, second, start + 2)).toMatchObject({ scopes: ['announce'] });
      // An operator's key of the same label is another one.
      const own = await createKey(db, { label: 'tomaat up', scopes: ['predict'] }, start);
      await revokeKey(db, first.slice(4, 14), start + 3);
      const third = await renewProgramKey(db, 'tomaat up', ['announce'], start + 4);
      expect(third.slice(0, 15)).not.toBe(first.slice(0, 15));
      expect(await findKey(db, own.key, start + 5)).toMatchObject({ id: own.id });
    });

    if (dialect === 'postgres')
      it('makes one key of a label when it is called at once', async () => {
        // With a connection for each, so that all of them look at the same time.
        await Promise.all(Array.from({ length: 6 }, () => sql`SELECT pg_sleep(0.05)`.execute(db)));
        const made = await Promise.all(
          Array.from({ length: 6 }, () => renewProgramKey(db, 'tomaat up', ['announce'], start)),
        );
        expect(await listKeys(db)).toHaveLength(1);
        const valid = await Promise.all(made.map((key) => findKey(db, key, start)));
        expect(valid.filter(Boolean)).toHaveLength(1);
      });
  });
});

describe('bearerOf()', () => {
  it('takes the token after Bearer in any case, and nothing else', () => {
    expect(bearerOf('Bearer abc')).toBe('abc');
    expect(bearerOf('bEARER   abc  ')).toBe('abc');
    const token = 'a.b-'.repeat(50);
    expect(bearerOf(`Bearer ${token}`)).toBe(token);
    for (const header of [undefined, '', 'abc', 'Bearer', 'Bearer ', 'Basic abc', 'Bearer a b', 'xBearer a'])
      expect(bearerOf(header), header).toBeUndefined();
  });
});
