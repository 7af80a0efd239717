import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sql } from 'kysely';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { postgresBin, startPostgres } from '../../test/support/postgres.ts';
import { pendingFolder } from '../audit/pending.ts';
import {
  adoptKeys,
  allKeys,
  hasKeys,
  keyPlaces,
  makeFirstAdminKey,
  makeKey,
  openKeyFolder,
  programKey,
  revokeFolderKey,
} from './key-folder.ts';
import { createKey, findKey, listKeys, revokeKey } from './keys.ts';

let root: string;
let folder: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'tomaat-key-folder-'));
  folder = join(root, 'a', 'data');
});
afterEach(() => rm(root, { recursive: true, force: true }));

const predict = { label: 'ward 3', scopes: ['predict' as const] };

/** What was left for the audit log, oldest first. */
function pending(of = folder): { event: string; facts: Record<string, unknown> }[] {
  const left = join(of, pendingFolder);
  if (!existsSync(left)) return [];
  const files = readdirSync(left).map((name) => ({
    ms: Number(name.split('-')[0]),
    ...JSON.parse(readFileSync(join(left, name), 'utf8')),
  }));
  // Within a millisecond: made before taken back.
  files.sort((a, b) => a.ms - b.ms || a.event.localeCompare(b.event));
  return files.map(({ event, facts }) => ({ event, facts }));
}

/** Does something with each database of the folder. */
async function inEach<T>(
  work: (db: Awaited<ReturnType<typeof openKeyFolder>>['databases'][number]) => Promise<T>,
) {
  await using keys = await openKeyFolder(folder);
  const results: T[] = [];
  for (const db of keys.databases) results.push(await work(db));
  return results;
}

describe('openKeyFolder()', () => {
  it('without places opens existing databases, and creates none', async () => {
    {
      await using none = await openKeyFolder(folder);
      expect(none).toMatchObject({ places: [], databases: [], logs: [] });
    }
    expect(existsSync(folder)).toBe(false);
    expect(hasKeys(folder)).toBe(false);
    await (await openKeyFolder(folder, ['server']))[Symbol.asyncDispose]();
    await using some = await openKeyFolder(folder);
    expect(some.places).toEqual(['server']);
    expect(some.databases).toHaveLength(1);
    expect(hasKeys(folder)).toBe(true);
    expect(existsSync(join(folder, 'registry.db'))).toBe(false);
  });

  it.each([
    ['registry', 'registry.db'],
    ['server', 'server.db'],
  ] as const)('makes the place %s as %s, for the owner alone', async (place, file) => {
    const before = process.umask(0);
    try {
      await using keys = await openKeyFolder(folder, [place]);
      expect(keys.places).toEqual([place]);
      await createKey(keys.databases[0], predict);
    } finally {
      process.umask(before);
    }
    expect(statSync(folder).mode & 0o777).toBe(0o700);
    expect(readdirSync(folder)).toEqual([file]);
    expect(hasKeys(folder)).toBe(true);
  });

  it('syncs each write to disk, and has a log for each place', async () => {
    await using keys = await openKeyFolder(folder, keyPlaces);
    expect(keys.places).toEqual(['registry', 'server']);
    expect(keys.logs).toHaveLength(2);
    for (const [index, db] of keys.databases.entries()) {
      const { rows } = await sql<{ synchronous: number }>`PRAGMA synchronous`.execute(db);
      // 2: FULL (SQLite documentation, PRAGMA synchronous).
      expect(rows).toEqual([{ synchronous: 2 }]);
      await createKey(db, predict);
      await keys.logs[index].truncateWal();
      expect(statSync(join(folder, `${keys.places[index]}.db-wal`)).size).toBe(0);
    }
  });

  it('closes all databases at the end, or when one fails to open', async () => {
    const keys = await openKeyFolder(folder, keyPlaces);
    await keys[Symbol.asyncDispose]();
    for (const db of keys.databases) await expect(listKeys(db)).rejects.toThrow();
    expect(readdirSync(folder).sort()).toEqual(['registry.db', 'server.db']);
    writeFileSync(join(folder, 'server.db'), 'not a database, though long enough to be looked at'.repeat(50));
    await expect(openKeyFolder(folder)).rejects.toThrow();
    expect(existsSync(join(folder, 'registry.db-wal'))).toBe(false);
  });
});

describe('allKeys()', () => {
  it('gives each key once, oldest first, revoked where it is so anywhere', async () => {
    await using keys = await openKeyFolder(folder, keyPlaces);
    const [one, two] = keys.databases;
    const at = (minute: number) => Date.parse('2026-01-02T03:00:00Z') + minute * 60_000;
    const second = await createKey([one, two], { ...predict, label: 'second' }, at(2));
    const third = await createKey([one, two], { ...predict, label: 'third' }, at(3));
    const first = await createKey(two, { ...predict, label: 'first' }, at(1));
    const fourth = await createKey(one, { ...predict, label: 'fourth' }, at(4));
    await revokeKey(one, second.id, at(5));
    await revokeKey(two, third.id, at(6));
    for (const databases of [
      [one, two],
      [two, one],
    ]) {
      const all = await allKeys(databases);
      expect(all.map(({ id }) => id)).toEqual([first.id, second.id, third.id, fourth.id]);
      expect(all.map(({ revokedTime }) => revokedTime)).toEqual([
        undefined,
        '2026-01-02T03:05:00.000Z',
        '2026-01-02T03:06:00.000Z',
        undefined,
      ]);
    }
    expect(await allKeys([])).toEqual([]);
  });
});

describe('the database of a gateway', () => {
  it('takes the existing keys, the revoked ones as such, and every later one', async () => {
    const early = await makeKey(folder, predict);
    const ended = await makeKey(folder, predict);
    await revokeFolderKey(folder, ended.id);
    expect(existsSync(join(folder, 'gateway.db'))).toBe(false);
    await adoptKeys(folder, 'gateway');
    await using gateway = await openKeyFolder(folder, ['gateway']);
    const [db] = gateway.databases;
    expect((await findKey(db, early.key))?.id).toBe(early.id);
    expect(await findKey(db, ended.key)).toBeUndefined();
    expect((await listKeys(db)).map(({ id }) => id).sort()).toEqual([early.id, ended.id].sort());

    expect(pending(join(folder, 'gateway'))).toEqual([]);
    const late = await makeKey(folder, { label: 'ward 4', scopes: ['admin'] });
    expect((await inEach((each) => findKey(each, late.key))).map((one) => one?.id)).toEqual(
      Array(3).fill(late.id),
    );
    // Each log says it.
    const line = { event: 'key.created', facts: { keyId: late.id, scopes: ['admin'] } };
    expect(pending()).toContainEqual(line);
    expect(pending(join(folder, 'gateway'))).toEqual([line]);
    await revokeFolderKey(folder, late.id);
    expect(await inEach((each) => findKey(each, late.key))).toEqual([undefined, undefined, undefined]);

    // Revoked while this database did not follow: the next start learns of it.
    await using others = await openKeyFolder(folder, keyPlaces);
    for (const other of others.databases) await revokeKey(other, early.id);
    expect((await findKey(db, early.key))?.id).toBe(early.id);
    await adoptKeys(folder, 'gateway');
    expect(await findKey(db, early.key)).toBeUndefined();
    // It gives nothing back: the others stay as they are.
    await createKey(db, predict);
    expect(
      (await Promise.all(others.databases.map((other) => listKeys(other)))).map((all) => all.length),
    ).toEqual([3, 3]);
  });

  it('is of no use where there are no keys yet', async () => {
    await adoptKeys(folder, 'gateway');
    expect(hasKeys(folder)).toBe(false);
  });
});

describe('makeKey()', () => {
  it('makes one key in both places, its line for the audit log first', async () => {
    const { id, key } = await makeKey(folder, { label: 'ward 3', scopes: ['predict', 'worker'] });
    const found = await inEach((db) => findKey(db, key));
    expect(found.map((one) => one?.id)).toEqual([id, id]);
    expect(pending()).toEqual([
      { event: 'key.created', facts: { keyId: id, scopes: ['predict', 'worker'] } },
    ]);
  });

  it('leaves no line for requests refused earlier', async () => {
    await expect(makeKey(folder, { label: '', scopes: ['predict'] })).rejects.toMatchObject({
      code: 'BAD_INPUT',
    });
    expect(pending()).toEqual([]);
    expect(await inEach(listKeys)).toEqual([[], []]);
  });

  it('takes the line back, and the key, when a place fails', async () => {
    await using keys = await openKeyFolder(folder, keyPlaces);
    await sql`CREATE TRIGGER full BEFORE INSERT ON api_key BEGIN SELECT RAISE(ABORT, 'it is full'); END`.execute(
      keys.databases[1],
    );
    await expect(makeKey(folder, predict)).rejects.toThrow('it is full');
    expect(await inEach(listKeys)).toEqual([[], []]);
    const [made, taken, ...more] = pending();
    expect(more).toEqual([]);
    const { keyId } = made.facts;
    expect(made).toEqual({ event: 'key.created', facts: { keyId, scopes: ['predict'] } });
    expect(taken).toEqual({ event: 'key.revoked', facts: { keyId, outcome: 'not made' } });
    await expect(programKey(folder, 'tomaat up')).rejects.toThrow('it is full');
    expect(pending().map(({ event }) => event)).toEqual([
      'key.created',
      'key.revoked',
      'key.renewed',
      'key.revoked',
    ]);
  });
});

describe('revokeFolderKey()', () => {
  it('ends a key wherever it is, with one line', async () => {
    const { id, key } = await makeKey(folder, predict);
    const revoked = await revokeFolderKey(folder, id);
    expect(revoked).toMatchObject({ id, revokedTime: expect.any(String) });
    expect(await inEach((db) => findKey(db, key))).toEqual([undefined, undefined]);
    expect(pending().slice(1)).toEqual([{ event: 'key.revoked', facts: { keyId: id } }]);
  });

  it('ends one that is in a single place, and leaves others alone', async () => {
    const other = await makeKey(folder, predict);
    let id = '';
    {
      await using keys = await openKeyFolder(folder, ['server']);
      ({ id } = await createKey(keys.databases, predict));
    }
    expect(await revokeFolderKey(folder, id)).toMatchObject({ id });
    expect((await inEach((db) => findKey(db, other.key))).map((one) => one?.id)).toEqual([
      other.id,
      other.id,
    ]);
  });

  it('gives nothing for an unknown key, and leaves no line', async () => {
    expect(await revokeFolderKey(folder, 'unknown')).toBeUndefined();
    expect(existsSync(folder)).toBe(false);
    await makeKey(folder, predict);
    expect(await revokeFolderKey(folder, 'unknown')).toBeUndefined();
    expect(pending().map(({ event }) => event)).toEqual(['key.created']);
  });
});

describe('makeFirstAdminKey()', () => {
  it('gives a key for everything once, in both places', async () => {
    const key = await makeFirstAdminKey(folder, ['server']);
    const found = await inEach((db) => findKey(db, key!));
    expect(found).toMatchObject([
      { label: 'first administrator', scopes: ['admin'] },
      { label: 'first administrator', scopes: ['admin'] },
    ]);
    expect(await makeFirstAdminKey(folder, ['server'])).toBeUndefined();
    expect(await makeFirstAdminKey(folder, keyPlaces)).toBeUndefined();
  });

  it('gives one when any of its places has none', async () => {
    {
      await using keys = await openKeyFolder(folder, ['server']);
      await createKey(keys.databases, { label: 'mine', scopes: ['admin'] });
    }
    expect(await makeFirstAdminKey(folder, ['server'])).toBeUndefined();
    expect(await makeFirstAdminKey(folder, keyPlaces)).toMatch(/^tmt_/);
    expect(await makeFirstAdminKey(folder, keyPlaces)).toBeUndefined();
  });
});

describe('programKey()', () => {
  it('keeps one predict-only id in both places, under a new secret', async () => {
    const first = await programKey(folder, 'tomaat up');
    const second = await programKey(folder, 'tomaat up');
    expect(second.slice(0, 15)).toBe(first.slice(0, 15));
    expect(await inEach((db) => findKey(db, first))).toEqual([undefined, undefined]);
    expect(await inEach((db) => findKey(db, second))).toMatchObject([
      { label: 'tomaat up', scopes: ['predict'] },
      { label: 'tomaat up', scopes: ['predict'] },
    ]);
    const facts = { keyId: first.slice(4, 14), scopes: ['predict'] };
    expect(pending()).toEqual([
      { event: 'key.renewed', facts },
      { event: 'key.renewed', facts },
    ]);
  });
});

describe.skipIf(!postgresBin)('makeFirstAdminKey() in a shared database', () => {
  it('makes one key for servers that start at once', async () => {
    await using postgres = await startPostgres();
    for (let round = 0; round < 4; round++) {
      const shared = await postgres.database();
      const made = await Promise.all(
        ['a', 'b', 'c'].map((name) =>
          makeFirstAdminKey(join(root, name), ['server', 'registry'], { shared }),
        ),
      );
      expect(made.filter((key) => key !== undefined)).toHaveLength(1);
      await using keys = await openKeyFolder(join(root, 'a'), ['server', 'registry'], { shared });
      for (const db of keys.databases) expect(await listKeys(db)).toHaveLength(1);
    }
  });
});
