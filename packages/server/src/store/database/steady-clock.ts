import { sql } from 'kysely';
import type { Database } from './database.ts';

/**
 * A clock for retention times. It runs evenly even if the wall clock is set: what should be kept for an hour is kept
 * for an hour. Time while the machine sleeps does not count.
 *
 * After a jump the stored times would be wrong for the next process and for users; `settle()` shifts them
 * with the wall clock. A jump while no process runs cannot be distinguished from elapsed time.
 */
export interface SteadyClock {
  /** Whole ms since 1970 by the wall clock, without the unsettled jumps. */
  nowMs(): number;
  /** If the wall clock has jumped, has `move` add that many ms to all stored times; the jump is then settled. */
  settle(move: (byMs: number) => Promise<void>): Promise<number>;
}

/** Smaller steps are corrections of the clock. */
const jumpMs = 60_000;

export function createSteadyClock({
  wallMs = Date.now,
  monotonicMs = () => Math.round(performance.now()),
} = {}): SteadyClock {
  let aheadMs = wallMs() - monotonicMs();
  let unsettledMs = 0;

  function nowMs(): number {
    const wall = wallMs();
    const before = aheadMs;
    aheadMs = wall - monotonicMs();
    if (Math.abs(aheadMs - before) > jumpMs) unsettledMs += aheadMs - before;
    return wall - unsettledMs;
  }

  return {
    nowMs,
    async settle(move) {
      nowMs();
      const byMs = unsettledMs;
      if (byMs === 0) return 0;
      // In this order nothing looks expired in between.
      if (byMs < 0) unsettledMs -= byMs;
      try {
        await move(byMs);
      } catch (error) {
        if (byMs < 0) unsettledMs += byMs;
        throw error;
      }
      if (byMs > 0) unsettledMs -= byMs;
      return byMs;
    },
  };
}

interface ExpirySchema {
  job: { expires_ms: number | null };
  upload: { expires_ms: number };
}

/** Adds so many ms to the time at which each job and upload expires. */
export async function moveExpiry(
  database: Pick<Database<ExpirySchema>, 'transaction'>,
  byMs: number,
): Promise<void> {
  await database.transaction(async (trx) => {
    await sql`UPDATE job SET expires_ms = expires_ms + ${byMs} WHERE expires_ms IS NOT NULL`.execute(trx);
    await sql`UPDATE upload SET expires_ms = expires_ms + ${byMs}`.execute(trx);
  });
}
