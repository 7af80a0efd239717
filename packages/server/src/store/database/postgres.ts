import { TomaatError } from '@tomaat/core';
import {
  type CompiledQuery,
  type DatabaseConnection,
  type Driver,
  Kysely,
  type KyselyPlugin,
  OperationNodeTransformer,
  PostgresAdapter,
  PostgresDialect,
  PostgresIntrospector,
  type PostgresPool,
  type PostgresPoolClient,
  PostgresQueryCompiler,
  type QueryResult,
  type RawNode,
  sql,
} from 'kysely';
import pg from 'pg';
import { withAfterCommit } from './after-commit.ts';
import type { Database, Migration } from './database.ts';
import { lockAlone, locks } from './locks.ts';
import { parsePostgresAddress } from './postgres-address.ts';
import { openPostgresChannel } from './postgres-channel.ts';
import { isUnanswered, openFault, queryFault } from './postgres-faults.ts';

/** A PostgreSQL database that several servers share. */
export interface PostgresLocation {
  /** `postgres://user:password@host:port/database?sslmode=…` */
  readonly url: string;
  /** Where its tables are; it is created if it does not exist. */
  readonly schema: string;
  /** How long a query may take before its connection is given up; 30 s by default. */
  readonly answerMs?: number;
}

/** The oldest version that is tried. */
const oldestVersion = 130_000;
const maxConnections = 20;
const connectMs = 5000;
/**
 * A server that stops in the middle of a transaction (a paused machine, a cut network) keeps others from what it has locked: PostgreSQL
 * ends its transaction.
 */
const longestIdleMs = 10_000;
const longestLockMs = 20_000;
/** A connection whose host does not even confirm that it is there has ended after this and ten seconds more. */
const keepAliveMs = 10_000;

/**
 * Opens a PostgreSQL database: each commit except an unsynced one is as durable as the server's
 * `synchronous_commit` says. A schema that a newer version has added to is accepted: during an update both versions run.
 * @throws TomaatError UNREACHABLE if the server does not answer, UNAUTHORIZED if it refuses the user, BAD_REQUEST if the address is malformed,
 *   the database does not exist or the server is too old; INTERNAL if the tables are of another program.
 */
export async function openPostgres<Schema>(
  { url: address, schema, answerMs = 30_000 }: PostgresLocation,
  migrations: readonly Migration[],
): Promise<Database<Schema>> {
  const { url, where } = parsePostgresAddress(address);
  const config: pg.PoolConfig = {
    connectionString: url,
    max: maxConnections,
    connectionTimeoutMillis: connectMs,
    keepAlive: true,
    keepAliveInitialDelayMillis: keepAliveMs,
    application_name: 'tomaat',
    options: `-c search_path=${schema} -c idle_in_transaction_session_timeout=${longestIdleMs} -c lock_timeout=${longestLockMs}`,
    types: { getTypeParser },
  };
  try {
    // A change of tables takes as long as it takes.
    const alone = createPool({ ...config, max: 1 });
    await using migrating = new Kysely<unknown>({ dialect: createDialect(alone) });
    await checkServer(alone, where, schema);
    await migrate(migrating, where, migrations);
  } catch (error) {
    throw openFault(error, where);
  }
  const pool = createPool({ ...config, query_timeout: answerMs });
  const db = new Kysely<Schema>({ dialect: createDialect(pool) });
  return {
    db,
    dialect: 'postgres',
    nowMs: sql<number>`(extract(epoch FROM clock_timestamp()) * 1000)::bigint`,
    transaction: (work) => withAfterCommit((run) => db.transaction().execute(run), work),
    unsynced: (query) =>
      db.transaction().execute(async (trx) => {
        await sql`SET LOCAL synchronous_commit = off`.execute(trx);
        return query(trx);
      }),
    // Vacuum is the operator's.
    async truncateWal() {},
    openChannel: (name, listener) =>
      openPostgresChannel({ ...config, application_name: 'tomaat server' }, pool, name, listener),
    close: () => db.destroy(),
    [Symbol.asyncDispose]: () => db.destroy(),
  };
}

function createPool(config: pg.PoolConfig): pg.Pool {
  const pool = new pg.Pool(config);
  // A connection that ends is replaced by the next query; without a listener it would end the process, in use or not.
  pool.on('error', () => {});
  pool.on('connect', (client) => client.on('error', () => {}));
  return pool;
}

/** The number of rows of each table of a schema, without changing anything; empty if there is none. Throws as openPostgres() does. */
export async function countPostgresRows({
  url: address,
  schema,
}: PostgresLocation): Promise<Map<string, number>> {
  const { url, where } = parsePostgresAddress(address);
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: connectMs });
  client.on('error', () => {});
  try {
    await client.connect();
    const { rows: tables } = await client.query<{ name: string }>(
      'SELECT table_name AS name FROM information_schema.tables WHERE table_schema = $1 ORDER BY 1',
      [schema],
    );
    const counts = new Map<string, number>();
    for (const { name } of tables) {
      const table = `${pg.escapeIdentifier(schema)}.${pg.escapeIdentifier(name)}`;
      const { rows } = await client.query<{ rows: string }>(`SELECT count(*) AS rows FROM ${table}`);
      counts.set(name, Number(rows[0].rows));
    }
    return counts;
  } catch (error) {
    throw openFault(error, where);
  } finally {
    await client.end().catch(() => {});
  }
}

/** Whole numbers are far below 2^53; a truth value is 0 or 1, as in SQLite. */
function getTypeParser(oid: number, format?: 'text' | 'binary') {
  if (format !== 'binary') {
    if (oid === pg.types.builtins.INT8 || oid === pg.types.builtins.NUMERIC) return Number;
    if (oid === pg.types.builtins.BOOL) return (text: string) => (text === 't' ? 1 : 0);
  }
  return pg.types.getTypeParser(oid, format as 'text');
}

async function checkServer(pool: pg.Pool, where: string, schema: string): Promise<void> {
  const { rows } = await pool.query<{ version: string }>(
    "SELECT current_setting('server_version_num') AS version",
  );
  if (Number(rows[0].version) < oldestVersion)
    throw new TomaatError(
      'BAD_REQUEST',
      `${where} is PostgreSQL ${Math.floor(Number(rows[0].version) / 10_000)}. Use version 13 or newer.`,
    );
  const { rows: found } = await pool.query('SELECT 1 FROM pg_namespace WHERE nspname = $1', [schema]);
  // Asked first: a role may lack the right to create one.
  if (found.length === 0)
    await pool.query(
      // One transaction: of servers that start at once, one creates it.
      `SELECT pg_advisory_xact_lock(${locks.migration}); CREATE SCHEMA IF NOT EXISTS ${pg.escapeIdentifier(schema)}`,
    );
}

// ── Migrations ───────────────────────────────────────────────────────────────────────────────────────────────

interface MigrationTable {
  tomaat_migration: { number: number; name: string; applied_at: string };
}

async function migrate(db: Kysely<unknown>, where: string, migrations: readonly Migration[]): Promise<void> {
  await db.transaction().execute(async (trx) => {
    await lockAlone(trx, 'migration');
    await sql`CREATE TABLE IF NOT EXISTS tomaat_migration (
      number BIGINT PRIMARY KEY, name TEXT NOT NULL UNIQUE, applied_at TEXT NOT NULL)`.execute(trx);
    const table = trx as Kysely<unknown> as Kysely<MigrationTable>;
    const applied = await table.selectFrom('tomaat_migration').select('name').orderBy('number').execute();
    const wrong = applied.find(
      (row, index) => index < migrations.length && migrations[index].name !== row.name,
    );
    if (wrong)
      throw new TomaatError(
        'INTERNAL',
        `${where} was written by another version of TOMAAT (its step '${wrong.name}' is not known here). Start that version, or choose another database`,
      );
    for (const [index, migration] of migrations.entries()) {
      if (index < applied.length) continue;
      await migration.up(trx.withPlugin(new PostgresWords()));
      await table
        .insertInto('tomaat_migration')
        .values({ number: index + 1, name: migration.name, applied_at: new Date().toISOString() })
        .execute();
    }
  });
}

/** What the words of SQLite in our definitions of tables are in PostgreSQL. */
const words: ReadonlyMap<string, string> = new Map([
  ['INTEGER PRIMARY KEY', 'BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY'],
  ['INTEGER', 'BIGINT'],
  ['REAL', 'DOUBLE PRECISION'],
  ['BLOB', 'BYTEA'],
  ['STRICT', ''],
]);

class WordTransformer extends OperationNodeTransformer {
  protected override transformRaw(node: RawNode): RawNode {
    const fragments = node.sqlFragments.map((text) =>
      text.replace(/\b(?:INTEGER PRIMARY KEY|INTEGER|REAL|BLOB|STRICT)\b/g, (word) => words.get(word)!),
    );
    return super.transformRaw({ ...node, sqlFragments: fragments });
  }
}

/** Puts the definitions of tables, which are written for SQLite, into PostgreSQL's words. For migrations alone. */
class PostgresWords implements KyselyPlugin {
  readonly #transformer = new WordTransformer();

  transformQuery: KyselyPlugin['transformQuery'] = ({ node }) => this.#transformer.transformNode(node);

  transformResult: KyselyPlugin['transformResult'] = async ({ result }) => result;
}

// ── Kysely over pg ───────────────────────────────────────────────────────────────────────────────────────────

function createDialect(pool: pg.Pool) {
  const inner = new PostgresDialect({ pool: givingUp(pool) });
  return {
    createDriver: () => translating(inner.createDriver()),
    createQueryCompiler: () => new PostgresQueryCompiler(),
    createAdapter: () => new PostgresAdapter(),
    createIntrospector: (db: Kysely<never>) => new PostgresIntrospector(db),
  };
}

/**
 * The same pool, which ends a connection at once when a query is not answered in time: if its host has vanished, TCP would try for a
 * quarter of an hour, and the rollback would wait behind the query.
 */
function givingUp(pool: pg.Pool): PostgresPool {
  const own = new WeakMap<pg.PoolClient, PostgresPoolClient>();
  const watch = (client: pg.PoolClient) => {
    const query = async (text: string, values: readonly unknown[]) => {
      try {
        return await client.query(text, [...values]);
      } catch (error) {
        if (isUnanswered(error)) await client.end();
        throw error;
      }
    };
    // Without its form for cursors, which nothing here asks for.
    return {
      query: query as unknown as PostgresPoolClient['query'],
      release: (end?: boolean) => client.release(end),
    };
  };
  return {
    async connect() {
      const client = await pool.connect();
      const known = own.get(client) ?? watch(client);
      own.set(client, known);
      return known;
    },
    end: () => pool.end(),
    options: pool.options,
  };
}

/** The same driver, whose errors about the connection are TomaatErrors. */
function translating(driver: Driver): Driver {
  const own = new WeakMap<DatabaseConnection, TranslatingConnection>();
  const within = (connection: DatabaseConnection) => (connection as TranslatingConnection).inner;
  const attempt = <T>(work: Promise<T>): Promise<T> =>
    work.catch((error: unknown) => {
      throw queryFault(error);
    });
  return {
    init: () => driver.init(),
    async acquireConnection() {
      const inner = await attempt(driver.acquireConnection());
      const known = own.get(inner) ?? new TranslatingConnection(inner);
      own.set(inner, known);
      return known;
    },
    beginTransaction: (connection, settings) =>
      attempt(driver.beginTransaction(within(connection), settings)),
    commitTransaction: (connection) => attempt(driver.commitTransaction(within(connection))),
    rollbackTransaction: (connection) => attempt(driver.rollbackTransaction(within(connection))),
    releaseConnection: (connection) => driver.releaseConnection(within(connection)),
    destroy: () => driver.destroy(),
  };
}

class TranslatingConnection implements DatabaseConnection {
  readonly inner: DatabaseConnection;

  constructor(inner: DatabaseConnection) {
    this.inner = inner;
  }

  async executeQuery<Row>(query: CompiledQuery): Promise<QueryResult<Row>> {
    try {
      return await this.inner.executeQuery<Row>(query);
    } catch (error) {
      throw queryFault(error);
    }
  }

  streamQuery<Row>(query: CompiledQuery, chunkSize: number): AsyncIterableIterator<QueryResult<Row>> {
    return this.inner.streamQuery<Row>(query, chunkSize);
  }
}
