import { TomaatError } from '@tomaat/core';
import type { Insertable, Updateable } from 'kysely';
import type { Database } from '../store/database/database.ts';
import type { SeriesSchema, SeriesTable } from '../store/database/series-schema.ts';
import type { KnownSeries } from './known-series.ts';
import { textOf } from './match-rules.ts';
import type { SeenSeries, SeriesRow } from './series.ts';
import * as rows from './series-rows.ts';
import { isStored, mayBeStored, type Row, toSeriesRow } from './series-rows.ts';

/*
 * The one owner of the state of series: each change of state is one transaction here, and holds only from the state that it expects,
 * so that the runner and commands in other processes may change the same row.
 *
 *   waiting ──quiet──▶ queued ──claim──▶ running ──▶ done
 *      ▲                 │ ▲                │ └────▶ failed   (with the reason)
 *      └──series grew────┴─┼────────────────┤
 *                          └─passing fault──┘        dropped  (from any of them, and from failed)
 *
 * A series has one row in progress for each rule, whichever sources have it: the source that was first is asked. Where another
 * source has other instances of it, these follow in a row of their own once the first has ended.
 *
 * A series that grows while it waits, is queued, is fetched or computed begins again: nothing was stored of it. One that grows
 * while its results are being stored is finished, and a row for the grown series follows, with this one as its predecessor.
 */

/** An attempt at a row: a later claim, a drop or a grown series ends its right to change the row. */
export interface Claim {
  readonly number: number;
  readonly claim: number;
}

export interface Reason {
  readonly code: string;
  readonly message: string;
}

export type Progress = Partial<Pick<SeriesRow, 'step' | 'digest' | 'job' | 'seed' | 'results'>>;

/** After so many ends of the process during the attempts at one row, the row fails. */
const mostLosses = 10;
/** Rows deleted in one transaction. */
const batch = 200;

export type SeriesStore = ReturnType<typeof createSeriesStore>;

interface FinishOptions {
  readonly nowMs: number;
  readonly quietMs: number;
  /** The series has changed: a row for what it is now follows. */
  readonly followed?: boolean;
  /** The source no longer has it: whatever it has of it later is new. */
  readonly isGone?: boolean;
}

/** What the gateway itself does with rows. Times are given by its steady clock, ms. */
export function createSeriesStore(database: Database<SeriesSchema>, known: KnownSeries) {
  const { db } = database;

  /**
   * Notes what a source has of a series that a rule matches: commits a row for a new or changed one. `grown`: of the row's running attempt, which
   * may have to be stopped.
   */
  async function see(
    seen: SeenSeries,
    rule: { readonly id: string; readonly urgency: number },
    { nowMs, quietMs }: { nowMs: number; quietMs: number },
  ): Promise<{ matched: SeriesRow } | { grown: Claim } | undefined> {
    const place = { rule: rule.id, source: seen.source, study: seen.study, series: seen.series };
    // Most of what a search finds is known: no transaction for that.
    if (!(await isNews(rows.rowsOf(db, place)))) return undefined;
    return database.transaction(async (trx) => {
      const all = await rows.rowsOf(trx, place);
      if (!(await isNews(Promise.resolve(all), trx))) return undefined;
      const open = all.find(({ ended_ms }) => ended_ms === null);
      if (open) return update(trx, open);
      const row = await insert(trx, place, {
        modality: textOf(seen.modality) ?? null,
        description: textOf(seen.description) ?? null,
        instances: seen.instances,
        urgency: rule.urgency,
        state: seen.isStable ? 'queued' : 'waiting',
        due_ms: seen.isStable ? nowMs : nowMs + quietMs,
        nowMs,
      });
      return { matched: toSeriesRow(row) };
    });

    async function isNews(found: Promise<Row[]>, at: rows.Db = db): Promise<boolean> {
      const all = await found;
      const open = all.find(({ ended_ms }) => ended_ms === null);
      if (open) {
        if (open.source !== seen.source) return false;
        const isReady = seen.isStable === true && open.state === 'waiting';
        // A hook may not say how many.
        const isOther = seen.instances > 0 && seen.instances !== (open.instances_now ?? open.instances);
        return isReady || isOther;
      }
      // A source that says that a series is complete may have other instances, and as many.
      if (seen.isStable) return true;
      if (all.find(({ source }) => source === seen.source)?.instances === seen.instances) return false;
      return (await known.instancesAt(at, place, nowMs)) !== seen.instances;
    }

    async function update(trx: rows.Db, open: Row): Promise<{ grown: Claim } | undefined> {
      const at = trx.updateTable('series').where('number', '=', open.number);
      const instances = seen.instances > 0 ? seen.instances : open.instances;
      if (open.state === 'running') {
        const isBack = instances === open.instances;
        await at.set({ instances_now: isBack ? null : instances }).execute();
        return isBack ? undefined : { grown: open };
      }
      // Not known until now: that is not a change.
      if (open.state === 'queued' && (open.instances === 0 || mayBeStored(open))) {
        await at.set({ instances }).execute();
        return undefined;
      }
      const again = open.instances === instances ? {} : { ...rows.unbegun, changed_ms: nowMs };
      await at
        .set({
          ...again,
          instances,
          state: seen.isStable ? 'queued' : 'waiting',
          due_ms: seen.isStable ? nowMs : nowMs + quietMs,
        })
        .execute();
      return undefined;
    }
  }

  interface NewRow
    extends Pick<Row, 'modality' | 'description' | 'instances' | 'urgency' | 'state' | 'due_ms'> {
    readonly nowMs: number;
  }

  async function insert(
    trx: rows.Db,
    place: Pick<Row, 'rule' | 'source' | 'study' | 'series'>,
    { nowMs, ...facts }: NewRow,
  ): Promise<Row> {
    const before = (await rows.rowsOf(trx, place)).find((row) => row.ended_ms !== null && isStored(row));
    const values: Insertable<SeriesTable> = {
      ...rows.unbegun,
      job: null,
      rule: place.rule,
      source: place.source,
      study: place.study,
      series: place.series,
      ...facts,
      predecessor: before?.number ?? null,
      claim: 0,
      losses: 0,
      seen_ms: nowMs,
      changed_ms: nowMs,
    };
    return trx.insertInto('series').values(values).returningAll().executeTakeFirstOrThrow();
  }

  const mine = (trx: rows.Db, { number, claim }: Claim) =>
    trx
      .updateTable('series')
      .where('number', '=', number)
      .where('claim', '=', claim)
      .where('state', '=', 'running');

  /** Begins an attempt at a queued row; undefined if it is no longer queued. */
  async function claim(number: number, nowMs: number): Promise<Row | undefined> {
    return db
      .updateTable('series')
      .set((of) => ({ state: 'running', changed_ms: nowMs, claim: of('claim', '+', 1), instances_now: null }))
      .where('number', '=', number)
      .where('state', '=', 'queued')
      .returningAll()
      .executeTakeFirst();
  }

  /**
   * Notes the instances that a claimed row is about. `duplicate`: a row of the same series has dealt with them; this one, which had
   * not begun, is deleted. `changed`: they are others than those that the row began with, and of these something is stored.
   */
  function identify(
    claimed: Claim,
    { digest, instances, nowMs }: { digest: string; instances: number; nowMs: number },
  ): Promise<'begun' | 'duplicate' | 'changed' | 'lost'> {
    return database.transaction(async (trx) => {
      const row = await rows.readRow(trx, claimed.number);
      if (!row || row.claim !== claimed.claim || row.state !== 'running') return 'lost';
      const counted = row.instances === 0 ? instances : row.instances;
      if (row.digest === digest) {
        await mine(trx, claimed).set({ instances: counted }).execute();
        return 'begun';
      }
      if (row.digest !== null && mayBeStored(row)) return 'changed';
      const other = (await rows.rowsOf(trx, row)).some((each) => each.digest === digest);
      if (other || (await known.hasContent(trx, row, digest, nowMs))) {
        await known.addPlace(trx, row, row.instances_now ?? counted, nowMs);
        await trx.deleteFrom('series').where('number', '=', row.number).execute();
        return 'duplicate';
      }
      const again = row.digest === null ? {} : { step: 'fetch' as const, seed: null };
      await mine(trx, claimed)
        .set({ ...again, digest, instances: counted })
        .execute();
      return 'begun';
    });
  }

  /** Commits progress. @throws TomaatError CANCELED if the attempt has ended meanwhile */
  async function save(claimed: Claim, change: Progress, nowMs: number): Promise<Row> {
    return database.transaction(async (trx) => {
      const { step, job, seed, results } = change;
      const row = await mine(trx, claimed)
        .set({
          changed_ms: nowMs,
          ...('step' in change && { step }),
          ...('job' in change && { job: job ?? null }),
          ...('seed' in change && { seed: seed ?? null }),
          ...(results && { results: JSON.stringify(results) }),
        })
        .returningAll()
        .executeTakeFirst();
      if (!row) throw stopped();
      for (const { series } of results ?? []) await known.addOwn(trx, row.source, series, nowMs);
      return row;
    });
  }

  /** Ends an attempt and its row; undefined if the attempt has ended meanwhile. A series that has grown follows. */
  function finish(
    claimed: Claim,
    end: { state: 'done' } | { state: 'failed'; reason: Reason },
    { nowMs, quietMs, followed, isGone }: FinishOptions,
  ): Promise<Row | undefined> {
    return database.transaction(async (trx) => {
      const reason = end.state === 'failed' ? end.reason : undefined;
      const row = await mine(trx, claimed)
        .set({
          state: end.state,
          reason_code: reason?.code ?? null,
          reason_message: reason?.message ?? null,
          ...(end.state === 'done' && { attempts: 0 }),
          ...(isGone && { instances: 0 }),
          changed_ms: nowMs,
          ended_ms: nowMs,
        })
        .returningAll()
        .executeTakeFirst();
      if (!row) return undefined;
      if (row.instances_now !== null || followed) {
        const { modality, description, urgency } = row;
        const instances = row.instances_now ?? row.instances;
        const due_ms = nowMs + quietMs;
        await insert(trx, row, {
          modality,
          description,
          urgency,
          instances,
          state: 'waiting',
          due_ms,
          nowMs,
        });
      }
      return row;
    });
  }

  /** Begins a row again whose series has changed during the attempt; false if something of it is being stored. */
  function beginAgain(
    claimed: Claim,
    { nowMs, quietMs }: { nowMs: number; quietMs: number },
  ): Promise<boolean> {
    return database.transaction(async (trx) => {
      const row = await rows.readRow(trx, claimed.number);
      if (!row || row.claim !== claimed.claim || row.state !== 'running') return true;
      if (mayBeStored(row)) return false;
      await mine(trx, claimed)
        .set({
          ...rows.unbegun,
          state: 'waiting',
          instances: row.instances_now ?? row.instances,
          changed_ms: nowMs,
          due_ms: nowMs + quietMs,
        })
        .execute();
      return true;
    });
  }

  /** Returns a claimed row to the queue after a passing fault; or, without one, because the gateway stops. */
  async function putBack(
    claimed: Claim,
    { nowMs, dueMs, fault }: { nowMs: number; dueMs: number; fault?: Reason },
  ): Promise<void> {
    const faulty = fault && { reason_code: fault.code, reason_message: fault.message };
    await mine(db, claimed)
      .set((of) => ({
        state: 'queued',
        instances: of.fn.coalesce('instances_now', 'instances'),
        instances_now: null,
        due_ms: dueMs,
        changed_ms: nowMs,
        ...faulty,
        ...(fault && {
          attempts: of('attempts', '+', 1),
          passing_ms: of.fn.coalesce('passing_ms', of.val(nowMs)),
        }),
      }))
      .execute();
  }

  /** Ends the pauses of rows that could not reach one of their peers, now that it is known to answer. */
  async function hasten(of: { source: string } | { rule: string }, nowMs: number): Promise<void> {
    const [column, name] = 'source' in of ? (['source', of.source] as const) : (['rule', of.rule] as const);
    await db
      .updateTable('series')
      .set({ due_ms: nowMs })
      .where('state', 'in', ['waiting', 'queued'])
      .where(column, '=', name)
      .where('reason_code', '=', 'UNREACHABLE')
      .where('due_ms', '>', nowMs)
      .execute();
  }

  /** What a look at a waiting row's series has shown; false if the row has changed meanwhile. */
  async function looked(
    row: Row,
    change: { state: 'waiting' | 'queued' | 'failed' } & Updateable<SeriesTable>,
  ): Promise<boolean> {
    const { numUpdatedRows } = await db
      .updateTable('series')
      .set(change)
      .where('number', '=', row.number)
      .where('state', '=', 'waiting')
      .where('due_ms', '=', row.due_ms)
      .executeTakeFirst();
    return numUpdatedRows > 0n;
  }

  /** Those of these attempts that have lost their right to the row: dropped by a command, or claimed again. */
  async function ended(claims: readonly Claim[]): Promise<Claim[]> {
    if (claims.length === 0) return [];
    const numbers = claims.map(({ number }) => number);
    const found = await db
      .selectFrom('series')
      .select(['number', 'claim'])
      .where('number', 'in', numbers)
      .where('state', '=', 'running')
      .execute();
    return claims.filter((one) => !found.some((row) => row.number === one.number && row.claim === one.claim));
  }

  /**
   * After the end of an earlier process: what it left running is queued. A row during whose attempts the process has ended several
   * times may be the cause: it waits longer each time, and finally fails.
   */
  function recover(nowMs: number, pauseMs: (losses: number) => number): Promise<number> {
    return database.transaction(async (trx) => {
      const left = await trx.selectFrom('series').selectAll().where('state', '=', 'running').execute();
      for (const row of left) {
        const losses = row.losses + 1;
        const at = trx.updateTable('series').where('number', '=', row.number);
        const instances = row.instances_now ?? row.instances;
        const change = { losses, instances, instances_now: null, changed_ms: nowMs };
        if (losses < mostLosses)
          await at.set({ ...change, state: 'queued', due_ms: nowMs + pauseMs(losses) }).execute();
        else {
          await at
            .set({
              ...change,
              state: 'failed',
              ended_ms: nowMs,
              reason_code: 'WORKER_DIED',
              reason_message: `The gateway has ended ${losses} times while it worked on this series. See its log; if the memory did not suffice, lower limits.maxSeriesBytes or limits.concurrency in the file of rules, then try again.`,
            })
            .execute();
        }
      }
      return left.length;
    });
  }

  /** Deletes rows that ended before a time, and what of the deletion is still in the log of the database. */
  async function retire(beforeMs: number, nowMs: number): Promise<number> {
    let count = 0;
    for (;;) {
      const deleted = await database.transaction(async (trx) => {
        const old = await rows.endedBefore(trx, beforeMs, batch);
        for (const row of old) {
          await known.addPlace(trx, row, row.instances, nowMs);
          if (row.digest !== null) await known.addContent(trx, row, row.digest, nowMs);
          await trx.deleteFrom('series').where('number', '=', row.number).execute();
        }
        return old.length;
      });
      count += deleted;
      if (deleted < batch) break;
    }
    await database.transaction((trx) => known.deleteExpired(trx, nowMs));
    await database.truncateWal().catch((error: unknown) => {
      if (!(error instanceof TomaatError && error.code === 'BUSY')) throw error;
    });
    return count;
  }

  return {
    see,
    /** Whether a series holds the gateway's own results. */
    isOwn: (source: string, series: string, nowMs: number) => known.isOwn(db, source, series, nowMs),
    due: (state: 'waiting' | 'queued', nowMs: number, limit: number) =>
      rows.dueNumbers(db, state, nowMs, limit),
    read: (number: number) => rows.readRow(db, number),
    claim,
    identify,
    save,
    finish,
    beginAgain,
    putBack,
    hasten,
    looked,
    ended,
    recover,
    retire,
    endedWithJob: (limit: number) => rows.endedWithJob(db, limit),
    /** Notes that the job of an ended row is no longer at its service. */
    async clearJob({ number, job }: Pick<Row, 'number' | 'job'>): Promise<void> {
      await db
        .updateTable('series')
        .set({ job: null })
        .where('number', '=', number)
        .where('job', '=', job)
        .where('ended_ms', 'is not', null)
        .execute();
    },
    /** Deletes a claimed row of which nothing will be stored. */
    async forget({ number, claim }: Claim): Promise<void> {
      await db.deleteFrom('series').where('number', '=', number).where('claim', '=', claim).execute();
    },
    /** Writes to the disk. @throws TomaatError DISK_FULL and others if that does not work */
    probe: (nowMs: number) => database.transaction((trx) => known.probe(trx, nowMs)),
    move: (byMs: number) => database.transaction((trx) => rows.moveTimes(trx, byMs)),
  };
}

/** For steps of an attempt that has lost its row. */
export const stopped = (): TomaatError =>
  new TomaatError(
    'CANCELED',
    'The series was dropped, or has changed, while it was processed. Nothing more of it is stored.',
  );
