import { type Kysely, sql } from 'kysely';
import type { Blobs } from './blobs.ts';
import type { JobsSchema } from './job-schema.ts';

/**
 * What keeps a blob: a row of a job, a request that is still being received, and registered keepers such as uploads. A
 * blob is deleted when the last of them releases it.
 */

export type BlobHolds = ReturnType<typeof createBlobHolds>;

export function createBlobHolds(db: Kysely<JobsSchema>, blobs: Blobs) {
  /** Blobs of requests that are still being received: the number of holders by digest. */
  const holds = new Map<string, number>();
  const keepers: ((digest: string) => Promise<boolean>)[] = [];

  async function isHeld(digest: string): Promise<boolean> {
    if (holds.has(digest)) return true;
    for (const keeps of keepers) if (await keeps(digest)) return true;
    const { rows } = await sql<{
      held: number;
    }>`SELECT EXISTS (SELECT 1 FROM job_input WHERE digest = ${digest})
      OR EXISTS (SELECT 1 FROM job_output WHERE digest = ${digest}) AS held`.execute(db);
    return rows[0].held !== 0;
  }

  /** Deletes those blobs that nothing refers to any longer. */
  async function drop(digests: Iterable<string>): Promise<void> {
    for (const digest of new Set(digests)) await blobs.delete(digest, () => isHeld(digest));
  }

  return {
    isHeld,
    drop,
    /** Keeps a blob, regardless of rows, until it is released as many times. */
    hold(digest: string): void {
      holds.set(digest, (holds.get(digest) ?? 0) + 1);
    },
    async release(digests: Iterable<string>): Promise<void> {
      for (const digest of digests) {
        const count = (holds.get(digest) ?? 0) - 1;
        if (count > 0) holds.set(digest, count);
        else holds.delete(digest);
      }
      await drop(digests);
    },
    /** Also asks `keeps` before a blob is deleted. */
    keepAlso: (keeps: (digest: string) => Promise<boolean>): void => void keepers.push(keeps),
    /** After a crash: deletes temporary files and unreferenced blobs; returns how many. */
    async dropOrphans(): Promise<number> {
      let orphans = await blobs.sweepTemporary();
      // In one query, because startup waits for it; the few that belong to no job are queried one by one.
      const ofJobs = await sql<{
        digest: string;
      }>`SELECT digest FROM job_input UNION SELECT digest FROM job_output`.execute(db);
      const held = new Set(ofJobs.rows.map(({ digest }) => digest));
      for await (const digest of blobs.digests())
        if (!held.has(digest) && (await blobs.delete(digest, () => isHeld(digest)))) orphans++;
      return orphans;
    },
  };
}
