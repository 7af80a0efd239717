import { TomaatError } from '@tomaat/core';
import type { Updateable } from 'kysely';
import type { Database } from '../store/database/database.ts';
import type { SeriesSchema, SeriesTable } from '../store/database/series-schema.ts';
import type { SeriesRow, SeriesState } from './series.ts';
import * as rows from './series-rows.ts';
import { numberOf, type Row, toSeriesRow } from './series-rows.ts';

/** Lists rows and changes them as operators do; safe beside a running gateway. */
export type SeriesAdmin = ReturnType<typeof createSeriesAdmin>;

/** @param now wall clock, ms */
export function createSeriesAdmin(
  database: Pick<Database<SeriesSchema>, 'db' | 'transaction'>,
  now: () => number = Date.now,
) {
  const { db } = database;

  /** Changes a row that is in one of these states. @throws TomaatError NOT_FOUND, CONFLICT */
  function change(
    id: string,
    from: readonly SeriesState[],
    what: string,
    set: (row: Row) => Updateable<SeriesTable>,
  ): Promise<SeriesRow> {
    return database.transaction(async (trx) => {
      const number = numberOf(id);
      const row = number === undefined ? undefined : await rows.readRow(trx, number);
      if (!row)
        throw new TomaatError('NOT_FOUND', `There is no series with the id ${id}. See: tomaat gateway list`);
      if (!from.includes(row.state)) {
        throw new TomaatError(
          'CONFLICT',
          `Series ${id} is ${row.state} and cannot be ${what}. This is possible for: ${from.join(', ')}.`,
        );
      }
      const open = (await rows.rowsOf(trx, row)).find(({ ended_ms }) => ended_ms === null);
      if (row.ended_ms !== null && open && what === 'tried again') {
        throw new TomaatError(
          'CONFLICT',
          `Series ${id} has changed since, and is processed as ${open.number}. Wait for that one, or drop it first.`,
        );
      }
      await trx.updateTable('series').set(set(row)).where('number', '=', row.number).execute();
      return toSeriesRow((await rows.readRow(trx, row.number))!);
    });
  }

  return {
    /** Newest first. */
    list: async (filter: rows.ListFilter): Promise<SeriesRow[]> =>
      (await rows.listRows(db, filter)).map(toSeriesRow),

    async find(id: string): Promise<SeriesRow | undefined> {
      const number = numberOf(id);
      const row = number === undefined ? undefined : await rows.readRow(db, number);
      return row && toSeriesRow(row);
    },

    /** Queues a row that has failed or was dropped, or ends the pause of a queued one. @throws TomaatError NOT_FOUND, CONFLICT */
    retry: (id: string) =>
      change(id, ['queued', 'failed', 'dropped'], 'tried again', () => ({
        state: 'queued',
        reason_code: null,
        reason_message: null,
        attempts: 0,
        passing_ms: null,
        losses: 0,
        changed_ms: now(),
        due_ms: now(),
        ended_ms: null,
      })),

    /**
     * Ends a row. One that is running is stopped within seconds; what it has not stored by then is not stored.
     * @throws TomaatError NOT_FOUND, CONFLICT
     */
    drop: (id: string) =>
      change(id, ['waiting', 'queued', 'running', 'failed', 'dropped'], 'dropped', (row) => ({
        state: 'dropped',
        // What the source has by now is what was dropped.
        instances: row.instances_now ?? row.instances,
        instances_now: null,
        changed_ms: now(),
        ended_ms: row.ended_ms ?? now(),
      })),

    counts: () => rows.countRows(db),
    oldestOpenMs: () => rows.oldestOpenMs(db),
  };
}
