import { sql } from 'kysely';
import type { Database } from './database.ts';
import type { SteadyClock } from './steady-clock.ts';

/**
 * The clock of a database that several servers share, for the times at which what they have stored expires: one whose machine has the
 * wrong time deletes nothing early. The database is asked here and at each `settle()`, which never moves stored times; in between the
 * monotonic clock of this process counts. It is behind by the time that the question took, at most.
 */
export async function openDatabaseClock<Schema>(
  { db, nowMs }: Pick<Database<Schema>, 'db' | 'nowMs'>,
  monotonicMs: () => number = () => Math.round(performance.now()),
): Promise<SteadyClock> {
  let aheadMs = 0;
  async function ask(): Promise<void> {
    const { rows } = await sql<{ now: number }>`SELECT ${nowMs} AS now`.execute(db);
    aheadMs = rows[0].now - monotonicMs();
  }
  await ask();
  return {
    nowMs: () => monotonicMs() + aheadMs,
    async settle() {
      await ask();
      return 0;
    },
  };
}
