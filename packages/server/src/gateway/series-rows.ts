import { type Kysely, type Selectable, sql, type Updateable } from 'kysely';
import type { SeriesSchema, SeriesTable } from '../store/database/series-schema.ts';
import type { SeriesRow, SeriesState, StoredResult } from './series.ts';

/* The statements on the rows of series; `series-store.ts` decides which of them form one transaction. */

export type Db = Kysely<SeriesSchema>;
export type Row = Selectable<SeriesTable>;

/**
 * What a row starts from, and starts from again when its series has changed. It keeps the job of the attempt before, so that the
 * steps can delete it at the service.
 */
export const unbegun = {
  step: 'fetch',
  instances_now: null,
  digest: null,
  seed: null,
  results: '[]',
  reason_code: null,
  reason_message: null,
  attempts: 0,
  passing_ms: null,
  ended_ms: null,
} as const satisfies Updateable<SeriesTable>;

/** A row as the other parts know it. */
export const toSeriesRow = (row: Row): SeriesRow => ({
  id: String(row.number),
  rule: row.rule,
  source: row.source,
  study: row.study,
  series: row.series,
  modality: row.modality ?? undefined,
  description: row.description ?? undefined,
  state: row.state,
  step: row.step,
  instances: row.instances,
  digest: row.digest ?? undefined,
  predecessor: row.predecessor === null ? undefined : String(row.predecessor),
  job: row.job ?? undefined,
  seed: row.seed ?? undefined,
  results: resultsOf(row),
  reason: row.reason_code === null ? undefined : { code: row.reason_code, message: row.reason_message ?? '' },
  attempts: row.attempts,
  seenAt: row.seen_ms,
  changedAt: row.changed_ms,
  dueAt: row.due_ms,
  endedAt: row.ended_ms ?? undefined,
});

export const resultsOf = ({ results }: Pick<Row, 'results'>): StoredResult[] => JSON.parse(results);

/** Whether a destination may have any of its results: steps save them before the first is stored. */
export const mayBeStored = (row: Pick<Row, 'results' | 'step'>): boolean =>
  row.step === 'store' || resultsOf(row).length > 0;

/** Whether a destination has confirmed any of its results. */
export const isStored = (row: Pick<Row, 'results'>): boolean =>
  resultsOf(row).some(({ storedAt }) => storedAt.length > 0);

/** The number of a row from its id; undefined for anything that cannot be one. */
export const numberOf = (id: string): number | undefined => (/^\d{1,15}$/.test(id) ? Number(id) : undefined);

export const readRow = (db: Db, number: number): Promise<Row | undefined> =>
  db.selectFrom('series').selectAll().where('number', '=', number).executeTakeFirst();

/** All rows of a series for a rule, newest first. */
export const rowsOf = (
  db: Db,
  { rule, study, series }: Pick<Row, 'rule' | 'study' | 'series'>,
): Promise<Row[]> =>
  db
    .selectFrom('series')
    .selectAll()
    .where('rule', '=', rule)
    .where('study', '=', study)
    .where('series', '=', series)
    .orderBy('number', 'desc')
    .execute();

/** The rows that are due, by urgency and then by time; each urgency is one range of the index `series_due`. */
export async function dueNumbers(
  db: Db,
  state: 'waiting' | 'queued',
  nowMs: number,
  limit: number,
): Promise<number[]> {
  const found: number[] = [];
  for (let urgency = 0; urgency <= 7 && found.length < limit; urgency++) {
    const rows = await db
      .selectFrom('series')
      .select('number')
      .where('state', '=', state)
      .where('urgency', '=', urgency)
      .where('due_ms', '<=', nowMs)
      .orderBy('due_ms')
      .limit(limit - found.length)
      .execute();
    found.push(...rows.map(({ number }) => number));
  }
  return found;
}

export interface ListFilter {
  readonly state?: SeriesState;
  readonly rule?: string;
  /** Id of the last row of the list before. */
  readonly before?: string;
  readonly limit: number;
}

/** Newest first. */
export function listRows(db: Db, { state, rule, before, limit }: ListFilter): Promise<Row[]> {
  let query = db.selectFrom('series').selectAll();
  if (state !== undefined) query = query.where('state', '=', state);
  if (rule !== undefined) query = query.where('rule', '=', rule);
  if (before !== undefined) query = query.where('number', '<', numberOf(before) ?? 0);
  return query.orderBy('number', 'desc').limit(limit).execute();
}

export const countRows = (db: Db): Promise<{ rule: string; state: SeriesState; count: number }[]> =>
  db
    .selectFrom('series')
    .select(['rule', 'state', (of) => of.fn.countAll<number>().as('count')])
    .groupBy(['rule', 'state'])
    .orderBy('rule')
    .orderBy('state')
    .execute();

/** When the oldest row that has not ended was seen. */
export async function oldestOpenMs(db: Db): Promise<number | undefined> {
  const row = await db
    .selectFrom('series')
    .select('seen_ms')
    .where('ended_ms', 'is', null)
    .orderBy('seen_ms')
    .limit(1)
    .executeTakeFirst();
  return row?.seen_ms;
}

/** Rows that ended before a time and that no row in progress names as its predecessor. */
export const endedBefore = (db: Db, ms: number, limit: number): Promise<Row[]> =>
  db
    .selectFrom('series')
    .selectAll()
    .where('ended_ms', '<=', ms)
    .where('number', 'not in', (of) =>
      of
        .selectFrom('series as open')
        .select('open.predecessor')
        .where('open.ended_ms', 'is', null)
        .where('open.predecessor', 'is not', null)
        .$narrowType<{ predecessor: number }>(),
    )
    .orderBy('ended_ms')
    .limit(limit)
    .execute();

/** Rows that have ended, and whose jobs may still be at their services. */
export const endedWithJob = (db: Db, limit: number): Promise<Row[]> =>
  db
    .selectFrom('series')
    .selectAll()
    .where('job', 'is not', null)
    .where('ended_ms', 'is not', null)
    .limit(limit)
    .execute();

/** Adds so many ms to all stored times. */
export async function moveTimes(db: Db, byMs: number): Promise<void> {
  await sql`UPDATE series SET seen_ms = seen_ms + ${byMs}, changed_ms = changed_ms + ${byMs}, due_ms = due_ms + ${byMs},
    ended_ms = ended_ms + ${byMs}, passing_ms = passing_ms + ${byMs}`.execute(db);
  await sql`UPDATE known_series SET until_ms = until_ms + ${byMs}`.execute(db);
  await sql`UPDATE known_content SET until_ms = until_ms + ${byMs}`.execute(db);
}
