import { TomaatError } from '@tomaat/core';
import type { Kysely } from 'kysely';
import { addTo, mayHaveMore } from '../../fair-share.ts';
import type { JobsSchema } from '../database/job-schema.ts';

/** Limits on the number of jobs: of one owner, by its key, and waiting, by the room in the queue. */

export interface JobLimits {
  /** Unsettled jobs. */
  maxJobs?: number;
  /** Jobs created in a day, which begins at 00:00 UTC. */
  perDay?: number;
}

const dayMs = 86_400_000;
const dayOf = (nowMs: number): number => Math.floor(nowMs / dayMs);

/** @throws TomaatError LIMIT_REACHED when another job would exceed this owner's limits. */
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
        `This key has reached its limit of ${perDay} predictions per day. Try again after 00:00 UTC.`,
        { detail: { perDay, retryAfterSeconds: Math.ceil(((day + 1) * dayMs - nowMs) / 1000) } },
      );
    }
  }
}

/** Counts a job of this owner, within the transaction that creates it; past days are deleted. */
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

/**
 * @param waiting how many jobs of each owner wait
 * @throws TomaatError BUSY when the queue is full; an owner with less than a fair share of it is admitted nevertheless
 */
export function requireRoomAmong(
  waiting: ReadonlyMap<string, number>,
  owner: string,
  maxQueued: number,
): void {
  if (mayHaveMore(waiting, owner, maxQueued)) return;
  let all = 0;
  for (const count of waiting.values()) all += count;
  throw new TomaatError('BUSY', `${all} jobs are already waiting. Try again in a few minutes.`);
}

/** The room in the queue. `ownersWaiting`: the owner of each job in it. */
export function createQueueRoom(maxQueued: number, ownersWaiting: () => readonly string[]) {
  /** Owners of jobs that are about to be queued, by job. */
  const creating = new Map<string, string>();

  function requireRoom(owner: string): void {
    const owners = [...ownersWaiting(), ...creating.values()];
    if (owners.length < maxQueued) return;
    const counts = new Map<string, number>();
    for (const one of owners) addTo(counts, one, 1);
    requireRoomAmong(counts, owner, maxQueued);
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
