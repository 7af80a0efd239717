import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import { sql } from 'kysely';
import { afterEach, beforeEach, expect, it, onTestFinished } from 'vitest';
import { canLimitFileSize, limitFileSize } from '../../../test/file-size-limit.ts';
import { lockDataFolder, type Migration, openDatabase, sizeOf } from './database.ts';

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
  // After a commit that need not be synced, whatever became of it, the next one is.
  await database.unsynced((db) => db.insertInto('note').values(note('a')).execute());
  expect(await pragma('synchronous')).toBe(2);
  await expect(
    database.unsynced((db) => db.insertInto('note').values(note('a')).execute()),
  ).rejects.toThrow();
  expect(await pragma('synchronous')).toBe(2);
});

it('openDatabase() and lockDataFolder() make their folder for its owner alone', async () => {
  const before = process.umask(0);
  try {
    const folders = ['data', 'deep'].map((name) => join(dir, name, 'inner'));
    await using _database = await openDatabase<Schema>(join(folders[0], 'tomaat.db'), [first]);
    using _lock = lockDataFolder(folders[1]);
    for (const folder of folders) {
      expect(statSync(folder).mode & 0o777).toBe(0o700);
      expect(statSync(join(folder, '..')).mode & 0o777).toBe(0o700);
    }
    for (const name of ['lock.db', 'lock.pid'])
      expect(statSync(join(folders[1], name)).mode & 0o777, name).toBe(0o600);
  } finally {
    process.umask(before);
  }
});

it('transaction() commits entirely or not at all, and excludes others until then', async () => {
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

it('transaction() refuses the database inside itself instead of waiting forever', async () => {
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

it('openDatabase() refuses newer, foreign and damaged databases, and changes none', async () => {
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

it('lockDataFolder() admits one process, names the holder, and is released by kill -9', async () => {
  const data = join(dir, 'data');
  const program = `
    import { lockDataFolder } from ${JSON.stringify(new URL('./database.ts', import.meta.url).href)};
    // Held: a lock that nothing refers to is released when it is collected.
    globalThis.lock = lockDataFolder(${JSON.stringify(data)});
    console.log('locked');
    setInterval(() => undefined, 1000);`;
  const child = spawn(
    process.execPath,
    ['--conditions=tomaat-source', '--input-type=module', '--eval', program],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  // A child that outlives a failed test keeps the test process's stderr open, and vitest waits for that.
  onTestFinished(() => void child.kill('SIGKILL'));
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

it('openDatabase() refuses an empty file beside a log with data, keeping both', async () => {
  const path = join(dir, 'emptied.db');
  writeFileSync(path, '');
  writeFileSync(`${path}-wal`, 'x');
  await expect(openDatabase<Schema>(path, [first])).rejects.toMatchObject({
    code: 'INTERNAL',
    message: expect.stringContaining(`${path} is empty, but ${path}-wal is not`),
  });
  expect(readFileSync(`${path}-wal`, 'utf8')).toBe('x');
  writeFileSync(`${path}-wal`, '');
  await (await openDatabase<Schema>(path, [first])).close();
});

it('sizeOf() is 0 for a missing file', () => {
  writeFileSync(join(dir, 'x'), 'abc');
  expect([sizeOf(join(dir, 'x')), sizeOf(join(dir, 'none'))]).toEqual([3, 0]);
});

it('openDatabase() and lockDataFolder() say why they cannot write', async () => {
  writeFileSync(join(dir, 'file'), '');
  const deep = join(dir, 'file', 'data');
  for (const refused of [openDatabase(join(deep, 'x.db'), []), (async () => lockDataFolder(deep))()])
    await expect(refused).rejects.toMatchObject({
      code: 'INTERNAL',
      message: expect.stringMatching(/cannot be written: ENOTDIR\. .*--data/),
    });
  mkdirSync(join(dir, 'folder.db'));
  await expect(openDatabase(join(dir, 'folder.db'), [])).rejects.toMatchObject({
    code: 'INTERNAL',
    message: expect.stringContaining('cannot be opened for writing'),
  });
  mkdirSync(join(dir, 'lock.db'));
  expect(() => lockDataFolder(dir)).toThrow(expect.objectContaining({ code: 'INTERNAL' }));
  const data = join(dir, 'data');
  mkdirSync(join(data, 'lock.pid'), { recursive: true });
  expect(() => lockDataFolder(data)).toThrow(
    expect.objectContaining({
      code: 'INTERNAL',
      message: expect.stringContaining('lock.pid cannot be written'),
    }),
  );
  rmSync(join(data, 'lock.pid'), { recursive: true });
  lockDataFolder(data).release();
});

it('lockDataFolder() omits a holder’s unreadable number, and is released once', () => {
  const lock = lockDataFolder(dir);
  expect(readFileSync(join(dir, 'lock.pid'), 'utf8')).toBe(`${process.pid}\n`);
  for (const text of ['', 'nonsense', '0']) {
    writeFileSync(join(dir, 'lock.pid'), text);
    expect(() => lockDataFolder(dir)).toThrow(/in use by another TOMAAT process\./);
  }
  rmSync(join(dir, 'lock.pid'));
  expect(() => lockDataFolder(dir)).toThrow(/in use by another TOMAAT process\./);
  lock.release();
  {
    using _next = lockDataFolder(dir);
    lock.release();
    expect(existsSync(join(dir, 'lock.pid'))).toBe(true);
    expect(() => lockDataFolder(dir)).toThrow('in use');
  }
  expect(existsSync(join(dir, 'lock.pid'))).toBe(false);
});

it('openDatabase() makes a file for its owner alone, whatever the umask', async () => {
  const before = process.umask(0);
  try {
    await using _database = await openDatabase<Schema>(file(), [first]);
    expect(statSync(file()).mode & 0o777).toBe(0o600);
  } finally {
    process.umask(before);
  }
});

it('openDatabase() names the unknown step, and numbers the known ones', async () => {
  const steps = ['a', 'b', 'c'].map((name) => ({ name, up: async () => undefined }));
  {
    await using database = await openDatabase<Schema>(file(), steps);
    const { rows } = await sql<{ number: number; name: string; applied_at: string }>`
      SELECT number, name, applied_at FROM tomaat_migration ORDER BY number`.execute(database.db);
    expect(rows.map(({ number, name }) => [number, name])).toEqual([
      [1, 'a'],
      [2, 'b'],
      [3, 'c'],
    ]);
    expect(Date.parse(rows[0].applied_at)).toBeGreaterThan(Date.now() - 60_000);
  }
  await expect(openDatabase<Schema>(file(), steps.slice(0, 2))).rejects.toThrow("'c'");
  await expect(openDatabase<Schema>(file(), steps.toSpliced(1, 1))).rejects.toThrow("'b'");
});

it('openDatabase() returns the number of changed rows and a new row’s number', async () => {
  await using database = await openDatabase<Schema>(file(), [first]);
  const { db } = database;
  for (const id of ['a', 'b', 'c']) {
    const inserted = await db.insertInto('note').values(note(id)).executeTakeFirstOrThrow();
    expect(inserted.insertId).toBe(BigInt('abc'.indexOf(id) + 1));
  }
  const { numDeletedRows } = await db.deleteFrom('note').where('id', '!=', 'b').executeTakeFirstOrThrow();
  expect(numDeletedRows).toBe(2n);
  await sql`UPDATE note SET done = ${false}`.execute(db);
  expect((await db.selectFrom('note').select('done').executeTakeFirst())?.done).toBe(0);
});

it('openDatabase() runs more different queries than it keeps prepared', async () => {
  await using database = await openDatabase<Schema>(file(), [first]);
  for (let round = 0; round < 2; round++) {
    for (let i = 0; i < 250; i++) {
      const { rows } = await sql<{ n: number }>`SELECT ${sql.raw(String(i))} AS n`.execute(database.db);
      expect(rows).toEqual([{ n: i }]);
    }
  }
});

it('openDatabase() says BUSY while another program writes or reads', async () => {
  await using database = await openDatabase<Schema>(file(), [first]);
  await database.db.insertInto('note').values(note('a')).execute();
  await sql`PRAGMA busy_timeout = 1`.execute(database.db);
  const { DatabaseSync } = await import('node:sqlite');
  const other = new DatabaseSync(file());
  try {
    other.exec('BEGIN IMMEDIATE');
    await expect(database.db.insertInto('note').values(note('b')).execute()).rejects.toMatchObject({
      code: 'BUSY',
      message: expect.stringContaining(file()),
    });
    await expect(database.transaction(async () => 1)).rejects.toMatchObject({ code: 'BUSY' });
    // One that reads alone need not wait.
    const read = await database.db
      .transaction()
      .setAccessMode('read only')
      .execute((trx) => trx.selectFrom('note').select('id').execute());
    expect(read).toEqual([{ id: 'a' }]);
    other.exec('ROLLBACK');
    other.exec('BEGIN');
    other.prepare('SELECT * FROM note').all();
    await database.db.insertInto('note').values(note('c')).execute();
    await expect(database.truncateWal()).rejects.toMatchObject({ code: 'BUSY' });
    other.exec('COMMIT');
    await database.truncateWal();
  } finally {
    other.close();
  }
});

it('openDatabase() throws DISK_FULL when full or read-only, and recovers afterwards', async () => {
  await using database = await openDatabase<Schema>(file(), [first]);
  const { db } = database;
  await db.insertInto('note').values(note('a')).execute();
  const setting = (text: string) => sql.raw<Record<string, number>>(`PRAGMA ${text}`).execute(db);
  const large = 'x'.repeat(100_000);
  const pages = (await setting('page_count')).rows[0].page_count;
  await setting(`max_page_count = ${pages}`);
  const full = {
    code: 'DISK_FULL',
    message: `The disk with ${file()} is full. Free some space and try again`,
  };
  await expect(db.insertInto('note').values(note('b', large)).execute()).rejects.toMatchObject(full);
  const both = database.transaction(async (trx) => {
    await trx.insertInto('note').values(note('c')).execute();
    await trx.insertInto('note').values(note('d', large)).execute();
  });
  await expect(both).rejects.toMatchObject(full);
  await setting('max_page_count = 1000000');
  await setting('query_only = ON');
  await expect(db.insertInto('note').values(note('e')).execute()).rejects.toMatchObject({
    code: 'DISK_FULL',
    message: expect.stringMatching(/tomaat\.db is read-only\. Check who owns the file/),
  });
  await setting('query_only = OFF');
  await db.insertInto('note').values(note('f', large)).execute();
  expect(await db.selectFrom('note').select('id').execute()).toEqual([{ id: 'a' }, { id: 'f' }]);
});

it.skipIf(!canLimitFileSize)('transaction() reports a disk failure, and keeps nothing it wrote', async () => {
  await using database = await openDatabase<Schema>(file(), [first]);
  const { db } = database;
  await db.insertInto('note').values(note('a')).execute();
  {
    using _full = limitFileSize(sizeOf(`${file()}-wal`) + 100);
    await expect(
      database.transaction((trx) => trx.insertInto('note').values(note('b')).execute()),
    ).rejects.toMatchObject({ code: 'INTERNAL', message: expect.stringContaining('is failing') });
  }
  await db.insertInto('note').values(note('c')).execute();
  expect(await db.selectFrom('note').select('id').execute()).toEqual([{ id: 'a' }, { id: 'c' }]);
});
