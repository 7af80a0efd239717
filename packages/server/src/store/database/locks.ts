import { type Kysely, PostgresAdapter, type QueryExecutorProvider, sql } from 'kysely';

/**
 * The advisory locks of PostgreSQL, https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS, under which servers
 * that share a database do what has to be one step. The numbers are fixed: servers of two versions wait for each other.
 */
export const locks = {
  migration: 7_466_001,
  /** Never asked for under that of claims. */
  admission: 7_466_010,
  claim: 7_466_011,
  entries: 7_466_020,
  firstKey: 7_466_030,
  programKey: 7_466_031,
  begunLogins: 7_466_032,
} as const;

/** Of locks of which there is one for each name; two names may have the same one, and then wait for each other. */
const namedLocks = { blob: 7466, sessionsOf: 7467, uploadsOf: 7468, uploadGroup: 7469 } as const;

const isShared = (db: QueryExecutorProvider): boolean => db.getExecutor().adapter instanceof PostgresAdapter;

/**
 * Waits until no other transaction has this lock, and keeps it until this one ends. Statements that follow see what the others have
 * committed. In SQLite a transaction is alone as it is.
 */
export async function lockAlone<Schema>(
  trx: Kysely<Schema>,
  lock: keyof typeof locks | readonly [lock: keyof typeof namedLocks, name: string],
): Promise<void> {
  if (!trx.isTransaction) throw new Error('a lock ends with its transaction, and there is none');
  if (!isShared(trx)) return;
  if (typeof lock === 'string') await sql`SELECT pg_advisory_xact_lock(${sql.lit(locks[lock])})`.execute(trx);
  else
    await sql`SELECT pg_advisory_xact_lock(${sql.lit(namedLocks[lock[0]])}, hashtext(${lock[1]}))`.execute(
      trx,
    );
}

/**
 * Does `work` while no other server of the database does, in a transaction that has the lock. SQLite's is not begun: it belongs to one
 * process, whose other connections would wait for what `work` does elsewhere.
 */
export async function workAlone<Schema, T>(
  db: Kysely<Schema>,
  lock: keyof typeof locks,
  work: (at: Kysely<Schema>) => Promise<T>,
): Promise<T> {
  if (!isShared(db)) return work(db);
  return db.transaction().execute(async (trx) => {
    await lockAlone(trx, lock);
    return work(trx);
  });
}
