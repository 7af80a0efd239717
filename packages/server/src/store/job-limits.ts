import { TomaatError } from '@tomaat/core';
import type { Kysely } from 'kysely';
import { addTo, mayHaveMore } from '../fair-share.ts';
import type { JobsSchema } from './job-schema.ts';

/** How many jobs there may be: of one owner, by the limits of its key, and waiting, by the room in the queue. */

export interface JobLimits {
  /** Jobs that are not settled. */
  maxJobs?: number;
  /** Jobs created in a day, which begins at 00:00 UTC. */
  perDay?: number;
}

const dayMs = 86_400_000;
const dayOf = (nowMs: number): number => Math.floor(nowMs / dayMs);

/** @throws TomaatError LIMIT_REACHED when another job of this owner would be more than the limits allow. */
export async function requireLimits(
  db: Kysely<JobsSchema>,
  owner: string,
  { maxJobs, perDay }: JobLimits,
  nowMs: number,
): Promise<void> {
  if (maxJobs !== undefined) {
    const { unsettled } = await db
      .selectFrom('job')
      .select((e) => e.fn.countAll<number>().as('unsettled'))
      .where('owner', '=', owner)
      .where('state', 'in', ['queued', 'running'])
      .executeTakeFirstOrThrow();
    if (unsettled >= maxJobs) {
      throw new TomaatError(
        'LIMIT_REACHED',
        `This key has ${unsettled} predictions in progress, and its limit is ${maxJobs}. Wait until one is done, or cancel one.`,
        { detail: { maxJobs, retryAfterSeconds: 10 } },
      );
    }
  }
  if (perDay !== undefined) {
    const day = dayOf(nowMs);
    const today = await db
      .selectFrom('created_on')
      .select('jobs')
      .where('owner', '=', owner)
      .where('day', '=', day)
      .executeTakeFirst();
    if ((today?.jobs ?? 0) >= perDay) {
      throw new TomaatError(
        'LIMIT_REACHED',
        `This key has reached its limit of ${perDay} predictions a day. The next day begins at 00:00 UTC.`,
        { detail: { perDay, retryAfterSeconds: Math.ceil(((day + 1) * dayMs - nowMs) / 1000) } },
      );
    }
  }
}

/** Counts a job of this owner, within the transaction that creates it; days that are over are forgotten. */
export async function countToday(trx: Kysely<JobsSchema>, owner: string, nowMs: number): Promise<void> {
  const day = dayOf(nowMs);
  await trx.deleteFrom('created_on').where('day', '<', day).execute();
  await trx
    .insertInto('created_on')
    .values({ owner, day, jobs: 1 })
    .onConflict((conflict) =>
      conflict.columns(['owner', 'day']).doUpdateSet((e) => ({ jobs: e('created_on.jobs', '+', 1) })),
    )
    .execute();
}

/** The room in the queue. `ownersWaiting`: the owner of each job in it. */
export function createQueueRoom(maxQueued: number, ownersWaiting: () => readonly string[]) {
  /** Owners of jobs that are about to be queued, by job. */
  const creating = new Map<string, string>();

  /**
   * Throws BUSY when the queue is full. What others have queued does not keep out an owner who has less than a fair
   * share of it.
   */
  function requireRoom(owner: string): void {
    const owners = [...ownersWaiting(), ...creating.values()];
    if (owners.length < maxQueued) return;
    const counts = new Map<string, number>();
    for (const one of owners) addTo(counts, one, 1);
    if (mayHaveMore(counts, owner, maxQueued)) return;
    throw new TomaatError('BUSY', `${owners.length} jobs are waiting already. Try again in a few minutes.`);
  }

  return {
    requireRoom,
    /** Takes a place for a job that is being created, until `leave()`. Throws BUSY. */
    enter(id: string, owner: string): void {
      requireRoom(owner);
      creating.set(id, owner);
    },
    leave: (id: string): void => void creating.delete(id),
  };
}
