import { type Kysely, sql } from 'kysely';
import type { Blobs, DeleteWithin } from '../blobs/blobs.ts';
import type { JobsSchema } from '../database/job-schema.ts';
import type { SharedHolds } from './shared-holds.ts';

/**
 * What keeps a blob: a row of a job, a request that is still being received, and registered keepers such as uploads. A
 * blob is deleted when the last of them releases it.
 */

export type BlobHolds = ReturnType<typeof createBlobHolds>;

/** Whom a blob is held for where nothing else is said: a request to this process. */
const here = '';

/** How often what nothing refers to is looked for where several servers share the blobs: a list of all. */
const orphansEveryMs = 24 * 3_600_000;

/** `shared`: where several servers share the blobs, what the others have to know of holds, and the deletion a little later. */
export function createBlobHolds(
  db: Kysely<JobsSchema>,
  blobs: Blobs,
  shared?: SharedHolds,
  monotonicMs = () => performance.now(),
) {
  /** The number of holds, by digest, of each holder. */
  const holders = new Map<string, Map<string, number>>();
  let lookedMs = monotonicMs();
  const keepers: ((digest: string) => Promise<boolean>)[] = [];
  const inTurn = createTurns();

  async function isHeld(digest: string): Promise<boolean> {
    for (const held of holders.values()) if (held.has(digest)) return true;
    if (await shared?.isHeld(digest)) return true;
    for (const keeps of keepers) if (await keeps(digest)) return true;
    const { rows } = await sql<{
      held: number;
    }>`SELECT EXISTS (SELECT 1 FROM job_input WHERE digest = ${digest})
      OR EXISTS (SELECT 1 FROM job_output WHERE digest = ${digest}) AS held`.execute(db);
    return rows[0].held !== 0;
  }

  /** Deletes those blobs that nothing refers to any longer; where others may refer to them, they are marked for that. */
  async function drop(digests: Iterable<string>): Promise<void> {
    if (shared) await shared.mark(digests);
    else for (const digest of new Set(digests)) await blobs.delete(digest, () => isHeld(digest));
  }

  /** Those of the digests that no job has; in one query, because a series has thousands. */
  async function withoutJobs(digests: Iterable<string>): Promise<Set<string>> {
    const left = new Set(digests);
    if (left.size === 0) return left;
    const of = (table: 'job_input' | 'job_output') =>
      db
        .selectFrom(table)
        .select('digest')
        .where('digest', 'in', [...left]);
    const ofJobs = await of('job_input').union(of('job_output')).execute();
    for (const { digest } of ofJobs) left.delete(digest);
    return left;
  }

  /**
   * Does so at once, also where others may be storing the same bytes: they are told to send them again. Not for what commit() or
   * adopt() calls, which the deletion waits for.
   */
  async function dropNow(digests: Iterable<string>): Promise<void> {
    for (const digest of await withoutJobs(digests)) {
      const remove = (within?: DeleteWithin) => blobs.delete(digest, () => isHeld(digest), within);
      if (!shared) await remove();
      else if (!(await isHeld(digest))) await shared.removeNow(digest, remove);
    }
  }

  /** Another request may hold it by now: then its row is this one's, too. */
  async function releaseShared(digests: readonly string[], holder: string): Promise<void> {
    await inTurn(digests, async () =>
      shared?.release(
        digests.filter((digest) => !holders.get(holder)?.has(digest)),
        holder,
      ),
    );
  }

  async function release(digests: Iterable<string>, holder = here, dropped = drop): Promise<void> {
    const held = holders.get(holder);
    const released: string[] = [];
    for (const digest of digests) {
      const count = (held?.get(digest) ?? 0) - 1;
      if (count > 0) held?.set(digest, count);
      else {
        held?.delete(digest);
        released.push(digest);
      }
    }
    if (held?.size === 0) holders.delete(holder);
    if (shared) await releaseShared(released, holder);
    await dropped(digests);
  }

  /** Drops every blob that nothing refers to; returns how many were deleted at once. */
  async function dropUnheld(): Promise<number> {
    // In one query, because startup waits for it; the few that belong to no job are queried one by one.
    const ofJobs = await sql<{
      digest: string;
    }>`SELECT digest FROM job_input UNION SELECT digest FROM job_output`.execute(db);
    const held = new Set(ofJobs.rows.map(({ digest }) => digest));
    let deleted = 0;
    for await (const digest of blobs.digests()) {
      if (held.has(digest)) continue;
      if (!shared) deleted += (await blobs.delete(digest, () => isHeld(digest))) ? 1 : 0;
      // Another server may have stored it this moment, and not yet have written for whom.
      else if (!(await isHeld(digest))) await shared.mark([digest]);
    }
    return deleted;
  }

  return {
    isHeld,
    drop,
    dropNow,
    /**
     * Keeps a blob, regardless of rows, until it is released as many times for this holder: a request to this process, unless
     * another one is named.
     * @throws TomaatError BUSY if another server has deleted it meanwhile: then it has to be stored again
     */
    async hold(digest: string, holder = here): Promise<void> {
      const held = holders.get(holder) ?? new Map<string, number>();
      holders.set(holder, held);
      const count = (held.get(digest) ?? 0) + 1;
      held.set(digest, count);
      if (!shared) return;
      try {
        await inTurn([digest], () => shared.hold(digest, holder));
      } catch (error) {
        await release([digest], holder).catch(() => {});
        throw error;
      }
    },
    release,
    /** Releases what a request to this process has held, and deletes at once what is then not held: it may name a patient. */
    discard: (digests: Iterable<string>): Promise<void> => release(digests, here, dropNow),
    /** The blobs that are held for a holder, at any server. */
    heldFor: async (holder: string): Promise<string[]> =>
      (await shared?.heldFor(holder)) ?? [...(holders.get(holder)?.keys() ?? [])],
    /** Releases all that is held for a holder. */
    async releaseAll(holder: string): Promise<void> {
      const digests = (await shared?.heldFor(holder)) ?? [...(holders.get(holder)?.keys() ?? [])];
      holders.delete(holder);
      if (shared) await releaseShared(digests, holder);
      await drop(digests);
    },
    /** Renews what the requests to this process hold, where other servers have to know. */
    async renew(): Promise<void> {
      const left = (await shared?.renew([...(holders.get(here)?.keys() ?? [])])) ?? [];
      await releaseShared(left, here);
      await drop(left);
    },
    /** Also asks `keeps` before a blob is deleted. */
    keepAlso: (keeps: (digest: string) => Promise<boolean>): void => void keepers.push(keeps),
    /**
     * Deletes what was marked a while ago and is still not held; once a day it also marks what was stored for a request that then failed.
     * (Of a server alone nothing of that stays.)
     */
    async sweep(): Promise<void> {
      if (!shared) return;
      if (monotonicMs() - lookedMs >= orphansEveryMs) {
        lookedMs = monotonicMs();
        await dropUnheld();
      }
      await shared.sweep((digest, within) => blobs.delete(digest, () => isHeld(digest), within));
    },
    /** After a crash: deletes temporary files and unreferenced blobs; returns how many. */
    async dropOrphans(): Promise<number> {
      return (await blobs.sweepTemporary()) + (await dropUnheld());
    },
  };
}

/** Runs what concerns the same blobs one after the other, as it was asked for. */
function createTurns() {
  const last = new Map<string, Promise<void>>();
  return async (digests: readonly string[], work: () => Promise<void>): Promise<void> => {
    const turn = Promise.allSettled(digests.map((digest) => last.get(digest))).then(work);
    for (const digest of digests) last.set(digest, turn);
    try {
      await turn;
    } finally {
      for (const digest of digests) if (last.get(digest) === turn) last.delete(digest);
    }
  };
}
