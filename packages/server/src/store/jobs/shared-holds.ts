import { TomaatError } from '@tomaat/core';
import { type Kysely, sql } from 'kysely';
import type { Blobs, DeleteWithin } from '../blobs/blobs.ts';
import type { Database } from '../database/database.ts';
import type { JobsSchema } from '../database/job-schema.ts';
import { lockAlone } from '../database/locks.ts';

/**
 * Holds of blobs that several servers share, as rows. A blob that nothing refers to is marked, and deleted after a grace if that is
 * still so: another server may be storing the same bytes. Holds of a killed server end by themselves.
 */
export interface SharedHolds {
  hold(digest: string, holder: string): Promise<void>;
  release(digests: readonly string[], holder: string): Promise<void>;
  isHeld(digest: string): Promise<boolean>;
  heldFor(holder: string): Promise<string[]>;
  mark(digests: Iterable<string>): Promise<void>;
  /** Deletes a blob without a grace by `remove`, within the lock that it is given. */
  removeNow(digest: string, remove: (within: DeleteWithin) => Promise<boolean>): Promise<boolean>;
  /**
   * Renews the holds of this server's requests, which are of these blobs; one that ended while the server was paused is made again.
   * @returns what it has besides: the database did not answer when that was released
   */
  renew(digests: readonly string[]): Promise<string[]>;
  /** Calls `remove` with each marked blob whose grace is over, which deletes it within the lock that it is given. */
  sweep(remove: (digest: string, within: DeleteWithin) => Promise<boolean>): Promise<void>;
}

export interface SharedHoldsOptions {
  database: Database<JobsSchema>;
  blobs: Pick<Blobs, 'stat'>;
  /** The name of this server among those that share the database. */
  server: string;
  graceMs?: number;
  monotonicMs?(): number;
}

/** Requests of this server renew theirs; an attempt whose outputs arrive ends long before. */
const holdMs = 120_000;
const attemptHoldMs = 24 * 3_600_000;
const renewEveryMs = 20_000;
/** Deletions of a sweep at once: a series has thousands of files, and each takes several answers of the database and the store. */
const sweepLanes = 4;

/** What was deleted meanwhile is found missing by the request itself. */
function lostAlready(error: unknown): void {
  if (!(error instanceof TomaatError && error.code === 'BUSY')) throw error;
}

export function createSharedHolds({
  database,
  blobs,
  server,
  graceMs = 60_000,
  monotonicMs = () => performance.now(),
}: SharedHoldsOptions): SharedHolds {
  const { db, nowMs } = database;
  let renewedMs = monotonicMs();
  const isOfRequest = (holder: string) => holder === '';
  const named = (holder: string) => (isOfRequest(holder) ? `server ${server}` : holder);
  /** A hold and a deletion of a blob are one after the other. */
  const alone = <T>(digest: string, work: (trx: Kysely<JobsSchema>) => Promise<T>): Promise<T> =>
    database.transaction(async (trx) => {
      await lockAlone(trx, ['blob', digest]);
      return work(trx);
    });

  return {
    async hold(digest, holder) {
      const until = sql<number>`${nowMs} + ${isOfRequest(holder) ? holdMs : attemptHoldMs}::bigint`;
      await alone(digest, async (trx) => {
        await sql`INSERT INTO blob_hold (holder, digest, until_ms) VALUES (${named(holder)}, ${digest}, ${until})
          ON CONFLICT (holder, digest) DO UPDATE SET until_ms = excluded.until_ms`.execute(trx);
        await sql`DELETE FROM blob_mark WHERE digest = ${digest}`.execute(trx);
      });
      if (await blobs.stat(digest)) return;
      throw new TomaatError('BUSY', 'The file was deleted while it was being stored again. Send it again.');
    },
    async release(digests, holder) {
      if (digests.length === 0) return;
      await db
        .deleteFrom('blob_hold')
        .where('holder', '=', named(holder))
        .where('digest', 'in', digests)
        .execute();
    },
    async isHeld(digest) {
      const { rows } =
        await sql`SELECT 1 FROM blob_hold WHERE digest = ${digest} AND until_ms > ${nowMs}`.execute(db);
      return rows.length > 0;
    },
    async heldFor(holder) {
      const { rows } = await sql<{ digest: string }>`SELECT digest FROM blob_hold
        WHERE holder = ${named(holder)} AND until_ms > ${nowMs}`.execute(db);
      return rows.map(({ digest }) => digest);
    },
    async mark(digests) {
      // In one order, so that two servers that mark the same wait for each other in turn.
      const rows = [...new Set(digests)].sort().map((digest) => ({ digest, marked_ms: nowMs }));
      if (rows.length === 0) return;
      await db
        .insertInto('blob_mark')
        .values(rows)
        .onConflict((on) => on.column('digest').doNothing())
        .execute();
    },
    removeNow: (digest, remove) => remove((unlink) => alone(digest, unlink)),
    async renew(digests) {
      if (monotonicMs() - renewedMs < renewEveryMs) return [];
      const renewed = await sql<{
        digest: string;
      }>`UPDATE blob_hold SET until_ms = ${nowMs} + ${holdMs}::bigint
        WHERE holder = ${named('')} RETURNING digest`.execute(db);
      renewedMs = monotonicMs();
      const known = new Set(renewed.rows.map(({ digest }) => digest));
      for (const digest of digests) if (!known.delete(digest)) await this.hold(digest, '').catch(lostAlready);
      return [...known];
    },
    async sweep(remove) {
      const lapsed = await sql<{ digest: string }>`DELETE FROM blob_hold WHERE until_ms <= ${nowMs}
        RETURNING digest`.execute(db);
      await this.mark(lapsed.rows.map(({ digest }) => digest));
      const marked = await sql<{ digest: string }>`SELECT digest FROM blob_mark
        WHERE marked_ms <= ${nowMs} - ${graceMs}::bigint`.execute(db);
      // The lock is taken where no commit() of this process intervenes, for that holds the blob, and waits for the lock, too.
      const removeMarked = (digest: string) =>
        remove(digest, (unlink) =>
          alone(digest, async (trx) => {
            const { rows } = await sql`DELETE FROM blob_mark WHERE digest = ${digest}
              AND marked_ms <= ${nowMs} - ${graceMs}::bigint RETURNING digest`.execute(trx);
            // Otherwise it has been stored again, and may have a new mark, or another server was quicker.
            return rows.length > 0 && (await unlink());
          }),
        );
      const left = marked.rows.values();
      const lane = async () => {
        for (const { digest } of left) await removeMarked(digest);
      };
      await Promise.all(Array.from({ length: sweepLanes }, lane));
    },
  };
}
