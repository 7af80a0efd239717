import { createHash } from 'node:crypto';
import { TomaatError } from '@tomaat/core';
import { type Kysely, sql } from 'kysely';

/** Copies the rows of tables from one database of a server to another: SQLite and PostgreSQL have the same tables and columns. */

export type Row = Record<string, unknown>;
export type AnyTables = Record<string, Row>;

export interface Table {
  readonly name: string;
  /** The columns of its primary key. */
  readonly key: readonly string[];
}

/** Of the database itself. */
const ofDatabase = ['tomaat_migration', 'deployment'];
/** What servers tell each other while they run: worthless once they have ended. */
const ofRunningServers = ['owner_turn', 'offered', 'blob_hold', 'blob_mark', 'upload_writer'];
/** Rows where servers share a database, files where one has it to itself. */
export const inFiles = ['audit_line', 'audit_head', 'upload_part'] as const;
export const notCopied: readonly string[] = [...ofDatabase, ...ofRunningServers, ...inFiles];

/** Rows that are read and written at once. */
const rowsAtOnce = 500;

/** The tables of an SQLite database whose rows are copied, each behind those that it refers to. */
export async function tablesToCopy(sqlite: Kysely<AnyTables>): Promise<Table[]> {
  return (await tablesOf(sqlite)).filter(({ name }) => !notCopied.includes(name));
}

/** All tables of an SQLite database, in the order in which they were created. */
export async function tablesOf(sqlite: Kysely<AnyTables>): Promise<Table[]> {
  const { rows } = await sql<{ name: string; key: string }>`
    SELECT t.name, (SELECT json_group_array(c.name ORDER BY c.pk) FROM pragma_table_info(t.name) c WHERE c.pk > 0) AS key
    FROM sqlite_schema t WHERE t.type = 'table' AND t.name NOT GLOB 'sqlite_*' ORDER BY t.rowid`.execute(
    sqlite,
  );
  return rows.map(({ name, key }) => ({ name, key: JSON.parse(key) as string[] }));
}

export interface Copied {
  readonly rows: number;
  /** Of the rows as they were written, in any order. */
  readonly digest: string;
}

export interface CopyOptions {
  /** The columns by which rows are read; the primary key by default. */
  readonly orderBy?: readonly string[];
  /** What is written instead of a row. */
  change?(row: Row): Row;
}

/** Copies the rows of a table; the other table is empty before. */
export async function copyTable(
  from: Kysely<AnyTables>,
  to: Kysely<AnyTables>,
  table: Table,
  { orderBy = table.key, change = (row) => row }: CopyOptions = {},
): Promise<Copied> {
  const digest = createRowsDigest();
  for await (const read of pagesOf(from, table.name, orderBy)) {
    const rows = read.map(change);
    rows.forEach(digest.add);
    await to.insertInto(table.name).values(rows).execute();
  }
  return { rows: digest.rows, digest: digest.hex() };
}

/** @throws TomaatError INTERNAL if a table does not have the rows that were written to it */
export async function requireCopied(
  db: Kysely<AnyTables>,
  { name, key }: Table,
  written: Copied,
): Promise<void> {
  const digest = createRowsDigest();
  for await (const rows of pagesOf(db, name, key)) rows.forEach(digest.add);
  if (digest.rows !== written.rows || digest.hex() !== written.digest)
    throw new TomaatError(
      'INTERNAL',
      `The table ${name} has ${digest.rows} rows that are not the ${written.rows} that were written. Nothing was moved`,
    );
}

async function* pagesOf(
  db: Kysely<AnyTables>,
  table: string,
  orderBy: readonly string[],
): AsyncGenerator<Row[]> {
  for (let offset = 0; ; offset += rowsAtOnce) {
    let query = db.selectFrom(table).selectAll().limit(rowsAtOnce).offset(offset);
    for (const column of orderBy) query = query.orderBy(sql.ref(column));
    const rows = await query.execute();
    if (rows.length > 0) yield rows;
    if (rows.length < rowsAtOnce) return;
  }
}

/** A digest of rows whose order does not count: the databases sort text differently. */
function createRowsDigest() {
  const sum = Buffer.alloc(32);
  let rows = 0;
  return {
    get rows() {
      return rows;
    },
    add(row: Row): void {
      rows++;
      const values = Object.keys(row)
        .sort()
        .map((column) => [column, row[column] instanceof Uint8Array ? hexOf(row[column]) : row[column]]);
      const hash = createHash('sha256').update(JSON.stringify(values)).digest();
      for (const [at, byte] of hash.entries()) sum[at] ^= byte;
    },
    hex: () => sum.toString('hex'),
  };
}

const hexOf = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

/** The tables of a PostgreSQL database that have rows, of those that are empty before a server has used it. */
export async function usedTables(db: Kysely<AnyTables>, tables: readonly Table[]): Promise<string[]> {
  const used: string[] = [];
  for (const { name } of tables) {
    if (name === 'tomaat_migration') continue;
    let rows = db.selectFrom(name).selectAll().limit(1);
    // Its one row is there from the beginning.
    if (name === 'audit_head') rows = rows.where('sequence', '>', 0);
    if ((await rows.execute()).length > 0) used.push(name);
  }
  return used;
}

/** Lets PostgreSQL number the next rows of a table after those that were copied with their numbers. */
export async function continueNumbers(db: Kysely<AnyTables>): Promise<void> {
  const { rows } = await sql<{ table: string; column: string }>`
    SELECT table_name AS table, column_name AS column FROM information_schema.columns
    WHERE table_schema = current_schema() AND is_identity = 'YES'`.execute(db);
  for (const { table, column } of rows)
    await sql`SELECT setval(pg_get_serial_sequence(${table}, ${column}),
      (SELECT coalesce(max(${sql.ref(column)}), 0) + 1 FROM ${sql.table(table)}), false)`.execute(db);
}

/** Who is told how far it is, and may end it. */
export interface CopyReport {
  readonly signal: AbortSignal;
  /** The current step and its progress. */
  onProgress(step: string, done: number, of: number): void;
}

/** How the rows of a table are moved. */
export type CopyOf = (table: Table) => CopyOptions;

/** Copies all tables that are copied, and compares each with what was written; the rows by table, without empty ones. */
export async function copyTables(
  from: Kysely<AnyTables>,
  to: Kysely<AnyTables>,
  tables: readonly Table[],
  { copyOf, signal, onProgress }: { copyOf: CopyOf } & CopyReport,
): Promise<Record<string, number>> {
  const rows: Record<string, number> = {};
  for (const [done, table] of tables.entries()) {
    onProgress('rows', done, tables.length);
    signal.throwIfAborted();
    const written = await copyTable(from, to, table, copyOf(table));
    await requireCopied(to, table, written);
    if (written.rows > 0) rows[table.name] = written.rows;
  }
  return rows;
}

/** What becomes of a job that a server or a worker had begun: it is computed again, and that is not held against it. */
export function queuedAgain(row: Row): Row {
  const idle = { stage: null, fraction: null, lease_until_ms: null };
  if (row.state !== 'running') return { ...row, ...idle };
  return { ...row, ...idle, state: 'queued', worker: null, started_ms: null };
}
