import { type Kysely, sql } from 'kysely';
import type { JobsSchema } from '../database/job-schema.ts';
import { risesEveryMs } from './job-queue.ts';

/** The order of `job-queue.ts`, in the words of SQL: the same rule, and the same tests. */

/** The urgency of a waiting job, which rises with its age. */
const classAt = (nowMs: number) =>
  sql`greatest(0, job.urgency - floor(greatest(0, ${nowMs}::bigint - job.created_ms) / ${sql.lit(risesEveryMs)}::numeric))`;

const running = sql`SELECT owner, count(*) AS number FROM job WHERE state = 'running' GROUP BY owner`;

/** The queued job of these services that is next, where the limits of the services allow one. */
export async function nextQueued(
  db: Kysely<JobsSchema>,
  services: readonly string[],
  nowMs: number,
): Promise<{ id: string; attempt: number } | undefined> {
  const { rows } = await sql<{ id: string; attempt: number }>`
    WITH busy AS (SELECT service, count(*) AS number FROM job WHERE state = 'running' GROUP BY service),
      mine AS (${running}),
      free AS (SELECT wanted.service FROM unnest(${[...services]}::text[]) AS wanted (service)
        LEFT JOIN offered ON offered.service = wanted.service
        LEFT JOIN busy ON busy.service = wanted.service
        WHERE offered.concurrency IS NULL OR coalesce(busy.number, 0) < offered.concurrency)
    SELECT job.id, job.attempt FROM job
      LEFT JOIN mine ON mine.owner = job.owner
      LEFT JOIN owner_turn ON owner_turn.owner = job.owner
    WHERE job.state = 'queued' AND job.service IN (SELECT service FROM free)
    ORDER BY ${classAt(nowMs)}, coalesce(mine.number, 0), coalesce(owner_turn.turn, 0), job.created_ms, job.arrival
    LIMIT 1`.execute(db);
  return rows[0];
}

/** How many jobs are likely to come before each queued one. Within an owner and an urgency, arrival decides; owners take turns. */
export async function queuePositions(db: Kysely<JobsSchema>, nowMs: number): Promise<Map<string, number>> {
  const { rows } = await sql<{ id: string }>`
    WITH mine AS (${running}),
      ranked AS (SELECT job.id, job.owner, job.created_ms, job.arrival, ${classAt(nowMs)} AS class,
        row_number() OVER (PARTITION BY job.owner, ${classAt(nowMs)} ORDER BY job.created_ms, job.arrival) - 1 AS before
        FROM job WHERE job.state = 'queued')
    SELECT ranked.id FROM ranked
      LEFT JOIN mine ON mine.owner = ranked.owner
      LEFT JOIN owner_turn ON owner_turn.owner = ranked.owner
    ORDER BY class, coalesce(mine.number, 0) + before, coalesce(owner_turn.turn, 0), created_ms, arrival`.execute(
    db,
  );
  return new Map(rows.map(({ id }, position) => [id, position]));
}
