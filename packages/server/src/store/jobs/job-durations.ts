import { type Kysely, sql } from 'kysely';
import type { JobsSchema } from '../database/job-schema.ts';

/** How long the last predictions of each service took here, to estimate waiting times. */

const durationsKept = 25;

/** `voxels` are those of the largest input; estimates are in seconds, undefined without a history. */
export function createJobDurations(db: Kysely<JobsSchema>) {
  const durations = (service: string) =>
    db.selectFrom('duration').select(['seconds', 'voxels']).where('service', '=', service).execute();

  /** Median of the service's last predictions. */
  async function typicalSeconds(service: string): Promise<number | undefined> {
    return median((await durations(service)).map(({ seconds }) => seconds));
  }

  return {
    typicalSeconds,
    /** Until a job at this position of the queue may start, with `slots` concurrent predictions; undefined if it does not wait. */
    async waitSeconds(
      position: number | undefined,
      service: string,
      slots: number,
    ): Promise<number | undefined> {
      const each = position === undefined ? undefined : await typicalSeconds(service);
      return each === undefined ? undefined : ((position ?? 0) / Math.max(1, slots)) * each;
    },
    /** Estimated time of a prediction on so many voxels, from the service's last ones. */
    async expectedSeconds(service: string, voxels: number): Promise<number | undefined> {
      const known = await durations(service);
      const rates = known.flatMap((one) => (one.voxels ? [(one.seconds / one.voxels) * voxels] : []));
      return (voxels > 0 ? median(rates) : undefined) ?? median(known.map(({ seconds }) => seconds));
    },
  };
}

/** Keeps how long a prediction took, within the transaction that settles its job, and forgets the oldest ones. */
export async function addDuration(
  trx: Kysely<JobsSchema>,
  { service, seconds, voxels }: { service: string; seconds: number; voxels?: number },
): Promise<void> {
  await trx
    .insertInto('duration')
    .values({ service, seconds, voxels: voxels ?? null })
    .execute();
  await sql`DELETE FROM duration WHERE service = ${service} AND id <=
    (SELECT id FROM duration WHERE service = ${service} ORDER BY id DESC LIMIT 1 OFFSET ${durationsKept})`.execute(
    trx,
  );
}

/** The middle value, the upper of two; undefined for an empty list. */
function median(values: readonly number[]): number | undefined {
  return [...values].sort((a, b) => a - b)[values.length >> 1];
}
