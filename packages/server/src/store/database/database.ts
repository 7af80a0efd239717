import { AsyncLocalStorage } from 'node:async_hooks';
import {
  chmodSync,
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { DatabaseSync, type SQLInputValue, type StatementSync } from 'node:sqlite';
import { TomaatError } from '@tomaat/core';
import {
  CompiledQuery,
  type DatabaseConnection,
  type Dialect,
  type Driver,
  Kysely,
  type QueryResult,
  type RawBuilder,
  SqliteAdapter,
  SqliteIntrospector,
  SqliteQueryCompiler,
  sql,
  type Transaction,
  type TransactionSettings,
} from 'kysely';
import { withAfterCommit } from './after-commit.ts';
import type { Channel, ChannelListener } from './job-events.ts';

/**
 * One numbered step of the schema; its number is its place in the list, so a step is never moved or removed. It only adds to what earlier
 * ones made: during an update servers of the version before it write to the same tables. A new column of a table that exists may be
 * null or has a default; nothing there is removed, renamed or of another type, and no constraint or unique index is added to it.
 * `additive-steps.test.ts` refuses others.
 */
export interface Migration {
  readonly name: string;
  up(db: Kysely<unknown>): Promise<void>;
}

/**
 * An open database: SQLite's of this process, or PostgreSQL's that several servers share. Every commit except an unsynced one is durable
 * (fsync) when its promise resolves.
 */
export interface Database<Schema> extends AsyncDisposable {
  readonly db: Kysely<Schema>;
  readonly dialect: 'sqlite' | 'postgres';
  /** The time of the database, ms since 1970: the one clock of all who share it. */
  readonly nowMs: RawBuilder<number>;
  /**
   * Runs `work` in one transaction (SQLite: BEGIN IMMEDIATE; PostgreSQL: read committed) and commits when it resolves, else rolls back.
   * Inside `work` only `trx` may be used: SQLite has one connection, so that `db` there would wait forever, and throws instead.
   */
  transaction<T>(work: (trx: Transaction<Schema>) => Promise<T>): Promise<T>;
  /**
   * Runs a query whose commit is not synced: readers see it, even after a crash of this process, and the next synced commit
   * makes it durable; only a power failure before that undoes it.
   */
  unsynced<T>(query: (db: Kysely<Schema>) => Promise<T>): Promise<T>;
  /** Merges the write-ahead log into the database and empties it, so that no file contains deleted rows. */
  truncateWal(): Promise<void>;
  /** A channel to the other processes that have this database open; undefined if there are none. */
  openChannel?(name: string, listener: ChannelListener): Channel;
  close(): Promise<void>;
}

/**
 * Opens (or creates, readable only by its owner) an SQLite database and brings its schema up to date. Each
 * migration runs once, in a separate transaction. For PostgreSQL see `database-at.ts`.
 * @throws TomaatError INTERNAL when the file was written by a newer version, belongs to another program or is damaged;
 *   DISK_FULL if the disk is full. Nothing is changed then.
 */
export async function openDatabase<Schema>(
  file: string,
  migrations: readonly Migration[],
): Promise<Database<Schema>> {
  createPrivateFile(file);
  // SQLite treats an empty file as a new database, and deletes the log next to it.
  if (sizeOf(file) === 0 && sizeOf(`${file}-wal`) > 0) throw emptied(file, `${file}-wal is not`);
  const sqlite = translated(file, () => {
    const opened = new DatabaseSync(file, { timeout: 5000, enableForeignKeyConstraints: true });
    opened.exec(
      'PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON; PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF',
    );
    return opened;
  });
  const lane = new Lane(file, sqlite);
  const db = new Kysely<Schema>({ dialect: createDialect(lane) });

  const database: Database<Schema> = {
    db,
    dialect: 'sqlite',
    nowMs: sql<number>`CAST(unixepoch('subsec') * 1000 AS INTEGER)`,
    transaction: (work) =>
      withAfterCommit(
        (run) => lane.guard((enter) => db.transaction().execute((trx) => enter(() => run(trx)))),
        work,
      ),
    unsynced: (query) =>
      db.connection().execute(async (connection) => {
        // https://sqlite.org/pragma.html#pragma_synchronous: in WAL mode NORMAL syncs only at checkpoints.
        await sql`PRAGMA synchronous = NORMAL`.execute(connection);
        try {
          return await query(connection);
        } finally {
          await sql`PRAGMA synchronous = FULL`.execute(connection);
        }
      }),
    async truncateWal() {
      const [row] = (await sql<{ busy: number }>`PRAGMA wal_checkpoint(TRUNCATE)`.execute(db)).rows;
      if (row.busy) {
        throw new TomaatError(
          'BUSY',
          'Another program is reading the database; its log will be emptied at the next attempt',
        );
      }
    },
    close: () => db.destroy(),
    [Symbol.asyncDispose]: () => db.destroy(),
  };
  try {
    await migrate(db as Kysely<unknown>, file, migrations);
  } catch (error) {
    await db.destroy();
    throw error;
  }
  return database;
}

/**
 * The error for a database file that was emptied, for example by a failing disk or an interrupted copy; `evidence` shows
 * that it was not always empty.
 */
export function emptied(file: string, evidence: string): TomaatError {
  return new TomaatError(
    'INTERNAL',
    `${file} is empty, but ${evidence}: its jobs and keys are lost. Restore it from a backup. To start over without them, delete the data folder`,
  );
}

/** Size of a file in bytes; 0 if it does not exist. */
export const sizeOf = (file: string): number => statSync(file, { throwIfNoEntry: false })?.size ?? 0;

interface MigrationTable {
  tomaat_migration: { number: number; name: string; applied_at: string };
}

/**
 * Migrates the schema to its last step. Another process may open the same file at the same time: the first one applies the
 * step.
 */
async function migrate(db: Kysely<unknown>, file: string, migrations: readonly Migration[]): Promise<void> {
  while ((await stepsTaken(db, file, migrations)) < migrations.length) {
    await db.transaction().execute(async (trx) => {
      const taken = await stepsTaken(trx, file, migrations);
      if (taken === migrations.length) return;
      if (taken === 0)
        await sql`CREATE TABLE IF NOT EXISTS tomaat_migration (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, applied_at TEXT NOT NULL) STRICT`.execute(
          trx,
        );
      const migration = migrations[taken];
      await migration.up(trx);
      await (trx as Transaction<unknown> as unknown as Transaction<MigrationTable>)
        .insertInto('tomaat_migration')
        .values({ number: taken + 1, name: migration.name, applied_at: new Date().toISOString() })
        .execute();
    });
  }
}

/** How many of these migrations a database has applied. */
async function stepsTaken(
  db: Kysely<unknown>,
  file: string,
  migrations: readonly Migration[],
): Promise<number> {
  const tables = await sql<{ name: string }>`SELECT name FROM sqlite_schema WHERE type = 'table'`.execute(db);
  if (tables.rows.length === 0) return 0;
  if (!tables.rows.some((row) => row.name === 'tomaat_migration')) {
    throw new TomaatError(
      'INTERNAL',
      `${file} is the database of another program. Choose another data folder`,
    );
  }
  const applied = await (db as Kysely<MigrationTable>)
    .selectFrom('tomaat_migration')
    .select('name')
    .orderBy('number')
    .execute();
  const unknown = applied.find((row, index) => migrations[index]?.name !== row.name);
  if (unknown) {
    throw new TomaatError(
      'INTERNAL',
      `${file} was written by a newer version of TOMAAT (its step '${unknown.name}' is not known here). Start that version, or choose another data folder`,
    );
  }
  return applied.length;
}

// ── Kysely over node:sqlite ──────────────────────────────────────────────────────────────────────────────────

/** Kysely's driver: one connection, given to one transaction or one query at a time, in the order of asking. */
class Lane implements Driver {
  readonly #connection: Connection;
  readonly #sqlite: DatabaseSync;
  readonly #inTransaction = new AsyncLocalStorage<{ open: boolean }>();
  readonly #waiting: (() => void)[] = [];
  #taken = false;

  constructor(file: string, sqlite: DatabaseSync) {
    this.#sqlite = sqlite;
    this.#connection = new Connection(file, sqlite);
  }

  /** Runs a transaction such that `db` used inside of it is noticed, instead of waiting for itself forever. */
  guard<T>(run: (enter: (work: () => Promise<T>) => Promise<T>) => Promise<T>): Promise<T> {
    return run((work) => {
      const scope = { open: true };
      return this.#inTransaction.run(scope, work).finally(() => {
        scope.open = false;
      });
    });
  }

  #refuseInside(): void {
    if (this.#inTransaction.getStore()?.open) {
      throw new Error('inside a transaction its own query builder (trx) must be used, not the database');
    }
  }

  async init(): Promise<void> {}

  async acquireConnection(): Promise<DatabaseConnection> {
    this.#refuseInside();
    if (this.#taken) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    this.#taken = true;
    return this.#connection;
  }

  async releaseConnection(): Promise<void> {
    const next = this.#waiting.shift();
    if (next) next();
    else this.#taken = false;
  }

  async beginTransaction(connection: DatabaseConnection, settings: TransactionSettings): Promise<void> {
    const command = settings.accessMode === 'read only' ? 'BEGIN' : 'BEGIN IMMEDIATE';
    await connection.executeQuery(CompiledQuery.raw(command));
  }

  async commitTransaction(connection: DatabaseConnection): Promise<void> {
    await connection.executeQuery(CompiledQuery.raw('COMMIT'));
  }

  async rollbackTransaction(connection: DatabaseConnection): Promise<void> {
    // A full disk or an I/O error has already rolled it back.
    if (this.#sqlite.isTransaction) await connection.executeQuery(CompiledQuery.raw('ROLLBACK'));
  }

  async destroy(): Promise<void> {
    this.#connection.forget();
    if (this.#sqlite.isOpen) this.#sqlite.close();
  }
}

const maxStatements = 200;

class Connection implements DatabaseConnection {
  readonly #file: string;
  readonly #sqlite: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();

  constructor(file: string, sqlite: DatabaseSync) {
    this.#file = file;
    this.#sqlite = sqlite;
  }

  async executeQuery<Row>(query: CompiledQuery): Promise<QueryResult<Row>> {
    const values = query.parameters.map(toSqlite);
    return translated(this.#file, () => {
      const statement = this.#prepare(query.sql);
      // node:sqlite does not report whether a statement returns rows; one that does has columns.
      if (statement.columns().length > 0) return { rows: statement.all(...values) as Row[] };
      const { changes, lastInsertRowid } = statement.run(...values);
      return { rows: [], numAffectedRows: BigInt(changes), insertId: BigInt(lastInsertRowid) };
    });
  }

  async *streamQuery<Row>(query: CompiledQuery): AsyncIterableIterator<QueryResult<Row>> {
    const values = query.parameters.map(toSqlite);
    // Not from the cache: another use of the same statement would reset this one.
    const statement = translated(this.#file, () => this.#sqlite.prepare(query.sql));
    for (const row of statement.iterate(...values)) yield { rows: [row as Row] };
  }

  forget(): void {
    this.#statements.clear();
  }

  /** The statement of a text, prepared once; the least recently used one is dropped when there are too many. */
  #prepare(text: string): StatementSync {
    const cached = this.#statements.get(text);
    if (cached) this.#statements.delete(text);
    const statement = cached ?? this.#sqlite.prepare(text);
    this.#statements.set(text, statement);
    if (this.#statements.size > maxStatements) {
      this.#statements.delete(this.#statements.keys().next().value as string);
    }
    return statement;
  }
}

function createDialect(driver: Driver): Dialect {
  return {
    createDriver: () => driver,
    createQueryCompiler: () => new SqliteQueryCompiler(),
    createAdapter: () => new LaneAdapter(),
    createIntrospector: (db) => new SqliteIntrospector(db),
  };
}

/** Kysely need not queue for the connection: Lane does, and notices a transaction that would wait for itself. */
class LaneAdapter extends SqliteAdapter {
  override get supportsMultipleConnections(): boolean {
    return true;
  }
}

function toSqlite(value: unknown): SQLInputValue {
  if (typeof value === 'boolean') return value ? 1 : 0;
  if (value === undefined) throw new TypeError('a parameter of the query is undefined: give null');
  return value as SQLInputValue;
}

function sqliteCode(error: unknown): number | undefined {
  return (error as { errcode?: number } | undefined)?.errcode;
}

/** Runs `work`; SQLite's errors about the disk become a TomaatError; violated constraints and wrong SQL are rethrown unchanged. */
function translated<T>(file: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    const problem = describe(file, (sqliteCode(error) ?? 0) & 0xff);
    throw problem ? new TomaatError(problem[0], problem[1], { cause: error }) : error;
  }
}

/** Primary result codes, https://sqlite.org/rescode.html */
function describe(file: string, code: number): ['DISK_FULL' | 'INTERNAL' | 'BUSY', string] | undefined {
  switch (code) {
    case 5: // SQLITE_BUSY
      return ['BUSY', `The database ${file} is in use by another program. Try again`];
    case 10: // SQLITE_IOERR
      return ['INTERNAL', `The disk with ${file} is failing. See the system log`];
    case 11: // SQLITE_CORRUPT
    case 26: // SQLITE_NOTADB
      return [
        'INTERNAL',
        `${file} is damaged or not a database. Restore it from a backup, or choose another data folder`,
      ];
    case 13: // SQLITE_FULL
      return ['DISK_FULL', `The disk with ${file} is full. Free some space and try again`];
    case 8: // SQLITE_READONLY
      return [
        'DISK_FULL',
        `The disk with ${file} is read-only. Check who owns the file and how its disk is mounted, and try again`,
      ];
    case 14: // SQLITE_CANTOPEN
      return ['INTERNAL', `${file} cannot be opened for writing. Check who owns it and its folder`];
  }
}

// ── The data folder ──────────────────────────────────────────────────────────────────────────────────────────

/** A data folder held by this process alone, until it is released or the process ends in any way. */
export interface FolderLock extends Disposable {
  release(): void;
}

/**
 * Locks the data folder for this process, so that two servers never share one. The lock is SQLite's lock on the file
 * `lock.db`, which the system drops when the process dies, even by `kill -9`.
 * @throws TomaatError CONFLICT when another process has it; the message names the folder and, if known, the process.
 *   DISK_FULL when its disk is full or read-only, INTERNAL when it cannot be written for another reason.
 */
export function lockDataFolder(dir: string): FolderLock {
  const holderFile = join(dir, 'lock.pid');
  const lock = lockFile(join(dir, 'lock.db'));
  if (!lock) {
    const pid = readHolder(holderFile);
    const holder = pid === undefined ? 'another TOMAAT process' : `another TOMAAT process (pid ${pid})`;
    throw new TomaatError(
      'CONFLICT',
      `The data folder ${resolve(dir)} is in use by ${holder}. Stop that process, or choose another folder with --data`,
    );
  }
  try {
    writeFileSync(holderFile, `${process.pid}\n`, { mode: 0o600 });
  } catch (error) {
    lock[Symbol.dispose]();
    throw cannotWrite(holderFile, error);
  }
  let isHeld = true;
  const release = () => {
    if (!isHeld) return;
    isHeld = false;
    rmSync(holderFile, { force: true });
    lock[Symbol.dispose]();
  };
  return { release, [Symbol.dispose]: release };
}

/**
 * SQLite's lock on a file that holds nothing else, which the system drops when the process dies; undefined while another process has it.
 * @throws TomaatError DISK_FULL when its disk is full or read-only, INTERNAL when it cannot be written or locked for another reason
 */
export function lockFile(file: string): Disposable | undefined {
  createPrivateFile(file);
  const sqlite = translated(file, () => new DatabaseSync(file, { timeout: 0 }));
  try {
    sqlite.exec('BEGIN EXCLUSIVE');
  } catch (error) {
    sqlite.close();
    if (((sqliteCode(error) ?? 0) & 0xff) === 5) return undefined;
    return translated(file, () => {
      throw error;
    });
  }
  return {
    [Symbol.dispose]() {
      if (sqlite.isOpen) sqlite.close();
    },
  };
}

function readHolder(file: string): number | undefined {
  try {
    return Number.parseInt(readFileSync(file, 'utf8'), 10) || undefined;
  } catch {
    return undefined; // It only improves the message.
  }
}

/**
 * Creates an empty file that only its owner can read, durably, with its folder; an existing one is not changed.
 * An existing one must not even be opened: closing it would drop the locks that this process holds on it (POSIX).
 */
function createPrivateFile(file: string): void {
  const folder = dirname(resolve(file));
  try {
    const first = mkdirSync(folder, { recursive: true, mode: 0o700 });
    for (let made = folder; first !== undefined && made.length >= first.length; made = dirname(made))
      syncFolderNow(dirname(made));
    closeSync(openSync(file, 'ax', 0o600));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST' && existsSync(file)) return;
    throw cannotWrite(file, error);
  }
  chmodSync(file, 0o600);
  syncFolderNow(folder);
}

function cannotWrite(file: string, cause: unknown): TomaatError {
  const { code } = cause as NodeJS.ErrnoException;
  const why: Record<string, string> = {
    EROFS: 'its disk is read-only. Check how it is mounted',
    ENOSPC: 'its disk is full. Free some space',
    EDQUOT: 'its disk is full. Free some space',
  };
  const known = code === undefined ? undefined : why[code];
  return new TomaatError(
    known === undefined ? 'INTERNAL' : 'DISK_FULL',
    `${file} cannot be written: ${known ?? `${code}. Check who owns its folder`}, or choose another folder with --data`,
    { cause },
  );
}

/** Makes the names in a folder durable; on Windows this is neither possible nor needed. */
function syncFolderNow(folder: string): void {
  if (process.platform === 'win32') return;
  const handle = openSync(folder, 'r');
  try {
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
}
