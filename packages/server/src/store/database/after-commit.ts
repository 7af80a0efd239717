import type { QueryExecutorProvider } from 'kysely';

/** What is to be done once a transaction has been committed, by its query builder. */
const waiting = new WeakMap<object, (() => void)[]>();

/**
 * Calls `work` when the transaction of this query builder has been committed, before those who wait for the transaction go on; never
 * if it is rolled back.
 * @throws Error if `trx` does not belong to a transaction of `Database.transaction()`
 */
export function afterCommit(trx: QueryExecutorProvider, work: () => void): void {
  const works = waiting.get(trx);
  if (!works) throw new Error('afterCommit() needs the query builder of an open transaction');
  works.push(work);
}

/** Runs a transaction by `execute`, and after its commit what afterCommit() was given in it. */
export async function withAfterCommit<Trx extends QueryExecutorProvider, T>(
  execute: (run: (trx: Trx) => Promise<T>) => Promise<T>,
  work: (trx: Trx) => Promise<T>,
): Promise<T> {
  const works: (() => void)[] = [];
  const result = await execute(async (trx) => {
    waiting.set(trx, works);
    try {
      return await work(trx);
    } finally {
      waiting.delete(trx);
    }
  });
  for (const left of works) left();
  return result;
}
