import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import { sql } from 'kysely';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { isUniqueViolation, lockDataFolder, type Migration, openDatabase } from './database.ts';

interface Schema {
  note: { id: string; text: string | null; size: number; done: number };
}

const first: Migration = {
  name: 'notes',
  async up(db) {
    await sql`CREATE TABLE note (id TEXT PRIMARY KEY, text TEXT, size INTEGER NOT NULL, done INTEGER NOT NULL) STRICT`.execute(
      db,
    );
  },
};

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'tomaat-database-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));
const file = () => join(dir, 'data', 'tomaat.db');

const note = (id: string, text: string | null = null) => ({ id, text, size: 2 ** 40, done: 0 });

it('openDatabase() stores rows that the next opening finds, in files of the owner alone', async () => {
  {
    await using database = await openDatabase<Schema>(file(), [first]);
    await database.db.insertInto('note').values(note('a', 'x')).execute();
    const updated = await database.db
      .updateTable('note')
      .set({ text: 'y' })
      .where('id', '=', 'a')
      .executeTakeFirst();
    expect(updated.numUpdatedRows).toBe(1n);
    expect(statSync(`${file()}-wal`).mode & 0o077).toBe(0);
  }
  expect(statSync(file()).mode & 0o077).toBe(0);
  await using database = await openDatabase<Schema>(file(), [first]);
  expect(await database.db.selectFrom('note').selectAll().execute()).toEqual([note('a', 'y')]);
});

it('openDatabase() returns the rows of RETURNING and of a streamed query, and takes booleans', async () => {
  await using database = await openDatabase<Schema>(file(), [first]);
  const { db } = database;
  for (const id of ['a', 'b', 'c']) {
    const row = await db
      .insertInto('note')
      .values(note(id))
      .returning(['id', 'size'])
      .executeTakeFirstOrThrow();
    expect(row).toEqual({ id, size: 2 ** 40 });
  }
  await sql`UPDATE note SET done = ${true} WHERE id = 'b'`.execute(db);
  const seen: string[] = [];
  for await (const row of db.selectFrom('note').select(['id', 'done']).orderBy('id').stream()) {
    seen.push(`${row.id}${row.done}`);
  }
  expect(seen).toEqual(['a0', 'b1', 'c0']);
  await expect(sql`SELECT ${undefined}`.execute(db)).rejects.toThrow('undefined');
});

it('openDatabase() runs with a synced write-ahead log, secure delete and foreign keys', async () => {
  await using database = await openDatabase<Schema>(file(), [first]);
  const pragma = async (name: string) =>
    Object.values(
      (await sql<Record<string, unknown>>`PRAGMA ${sql.raw(name)}`.execute(database.db)).rows[0],
    )[0];
  expect(await pragma('journal_mode')).toBe('wal');
  expect(await pragma('synchronous')).toBe(2);
  expect(await pragma('secure_delete')).toBe(1);
  expect(await pragma('foreign_keys')).toBe(1);
});

it('isUniqueViolation() tells a key that is taken from other faults', async () => {
  await using database = await openDatabase<Schema>(file(), [first]);
  await database.db.insertInto('note').values(note('a')).execute();
  const twice = await database.db
    .insertInto('note')
    .values(note('a'))
    .execute()
    .catch((error) => error);
  expect(isUniqueViolation(twice)).toBe(true);
  const wrong = await sql`SELECT nothing FROM nowhere`.execute(database.db).catch((error) => error);
  expect(isUniqueViolation(wrong)).toBe(false);
});

it('transaction() commits whole or not at all, and keeps others out until then', async () => {
  await using database = await openDatabase<Schema>(file(), [first]);
  const { db } = database;
  const failed = database.transaction(async (trx) => {
    await trx.insertInto('note').values(note('a')).execute();
    await new Promise((resolve) => setTimeout(resolve, 20));
    throw new Error('changed my mind');
  });
  const counted = db.selectFrom('note').select('id').execute();
  await expect(failed).rejects.toThrow('changed my mind');
  expect(await counted).toEqual([]);
  expect(
    await database.transaction(async (trx) => {
      await trx.insertInto('note').values(note('b')).execute();
      return 'done';
    }),
  ).toBe('done');
  expect(await db.selectFrom('note').select('id').execute()).toEqual([{ id: 'b' }]);
});

it('transaction() runs many at once one after the other', async () => {
  await using database = await openDatabase<Schema>(file(), [first]);
  await database.db
    .insertInto('note')
    .values({ ...note('n'), size: 0 })
    .execute();
  const increment = () =>
    database.transaction(async (trx) => {
      const { size } = await trx.selectFrom('note').select('size').executeTakeFirstOrThrow();
      await new Promise(setImmediate);
      await trx
        .updateTable('note')
        .set({ size: size + 1 })
        .execute();
    });
  await Promise.all(Array.from({ length: 50 }, increment));
  const row = await database.db.selectFrom('note').select('size').executeTakeFirstOrThrow();
  expect(row.size).toBe(50);
});

it('transaction() refuses the database inside of itself instead of waiting for ever', async () => {
  await using database = await openDatabase<Schema>(file(), [first]);
  const { db } = database;
  await expect(database.transaction(() => db.selectFrom('note').selectAll().execute())).rejects.toThrow(
    'trx',
  );
  await expect(database.transaction(() => database.transaction(async () => 1))).rejects.toThrow('trx');
  // What was begun inside and runs on after its end may use it.
  let later: Promise<unknown> | undefined;
  await database.transaction(async () => {
    later = new Promise((resolve) => setTimeout(resolve, 30)).then(() =>
      db.selectFrom('note').selectAll().execute(),
    );
  });
  expect(await later).toEqual([]);
});

it('openDatabase() runs each migration once, and a failed one leaves nothing', async () => {
  let runs = 0;
  const second: Migration = {
    name: 'second',
    async up(db) {
      runs++;
      await sql`ALTER TABLE note ADD COLUMN extra TEXT`.execute(db);
    },
  };
  const broken: Migration = {
    name: 'second',
    async up(db) {
      await sql`ALTER TABLE note ADD COLUMN extra TEXT`.execute(db);
      throw new Error('no');
    },
  };
  await (await openDatabase<Schema>(file(), [first])).close();
  await expect(openDatabase<Schema>(file(), [first, broken])).rejects.toThrow('no');
  await (await openDatabase<Schema>(file(), [first, second])).close();
  await (await openDatabase<Schema>(file(), [first, second])).close();
  expect(runs).toBe(1);
});

it('openDatabase() refuses a newer, a foreign and a damaged database, and changes none of them', async () => {
  await (await openDatabase<Schema>(file(), [first, { name: 'future', up: async () => undefined }])).close();
  const before = readFileSync(file());
  const newer = await openDatabase<Schema>(file(), [first]).catch((error) => error);
  expect(newer).toBeInstanceOf(TomaatError);
  expect(newer.message).toMatch(/newer version.*'future'.*another data folder/);
  expect(readFileSync(file())).toEqual(before);

  const { DatabaseSync } = await import('node:sqlite');
  const foreign = join(dir, 'foreign.db');
  new DatabaseSync(foreign).exec('CREATE TABLE theirs (x)');
  await expect(openDatabase<Schema>(foreign, [first])).rejects.toThrow('another program');

  const { writeFileSync } = await import('node:fs');
  const damaged = join(dir, 'damaged.db');
  writeFileSync(damaged, 'not a database '.repeat(1000));
  await expect(openDatabase<Schema>(damaged, [first])).rejects.toMatchObject({ code: 'INTERNAL' });
});

it('truncateWal() leaves deleted text in no file', async () => {
  await using database = await openDatabase<Schema>(file(), [first]);
  const canary = 'PATIENT-4711-canary';
  await database.db.insertInto('note').values(note('a', canary)).execute();
  expect(readFileSync(`${file()}-wal`).includes(canary)).toBe(true);
  await database.db.deleteFrom('note').execute();
  await database.truncateWal();
  expect(statSync(`${file()}-wal`).size).toBe(0);
  expect(readFileSync(file()).includes(canary)).toBe(false);
});

it('lockDataFolder() lets one process in, names the other, and is free again after kill -9', async () => {
  const data = join(dir, 'data');
  const program = `
    import { lockDataFolder } from ${JSON.stringify(new URL('./database.ts', import.meta.url).href)};
    lockDataFolder(${JSON.stringify(data)});
    console.log('locked');
    setInterval(() => undefined, 1000);`;
  const child = spawn(
    process.execPath,
    ['--conditions=tomaat-source', '--input-type=module', '--eval', program],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  await new Promise((resolve) => child.stdout.once('data', resolve));
  const refused = (() => {
    try {
      lockDataFolder(data);
    } catch (error) {
      return error as TomaatError;
    }
  })();
  expect(refused?.code).toBe('CONFLICT');
  expect(refused?.message).toContain(data);
  expect(refused?.message).toContain(`pid ${child.pid}`);
  child.kill('SIGKILL');
  await new Promise((resolve) => child.once('exit', resolve));
  const lock = lockDataFolder(data);
  // The same process is no exception, and a refused try does not loosen the lock.
  expect(() => lockDataFolder(data)).toThrow(/in use/);
  expect(() => lockDataFolder(data)).toThrow(/in use/);
  lock.release();
  lockDataFolder(data).release();
});
