import { type Generated, sql } from 'kysely';
import type { Migration } from './database.ts';

/** The tables of a gateway's series; `gateway/series-store.ts` reads and writes them. Times are in ms since 1970. */

/** One series for one rule. */
export interface SeriesTable {
  number: Generated<number>;
  rule: string;
  source: string;
  study: string;
  series: string;
  modality: string | null;
  description: string | null;
  state: 'waiting' | 'queued' | 'running' | 'done' | 'failed' | 'dropped';
  step: 'fetch' | 'predict' | 'store';
  /** What the source says, which may differ from the number of files that it gives. */
  instances: number;
  /** That the source says now, if it has changed since the running attempt began. */
  instances_now: number | null;
  digest: string | null;
  predecessor: number | null;
  job: string | null;
  seed: string | null;
  /** JSON: a list of StoredResult. */
  results: string;
  reason_code: string | null;
  reason_message: string | null;
  urgency: number;
  /** Passing faults in a row, and when the first of them occurred. */
  attempts: number;
  passing_ms: number | null;
  /** How often it was claimed, which tells an attempt from a later one; and how often the process ended meanwhile. */
  claim: number;
  losses: number;
  seen_ms: number;
  changed_ms: number;
  due_ms: number;
  ended_ms: number | null;
}

/** A series at a place that was dealt with, as a hash: kept longer than its row, so that a search does not begin it again. */
interface KnownSeriesTable {
  hash: Uint8Array;
  instances: number;
  until_ms: number;
}

/** The instances of a series that were dealt with, or a series that the gateway itself made, as a hash. */
interface KnownContentTable {
  hash: Uint8Array;
  until_ms: number;
}

export interface SeriesSchema {
  series: SeriesTable;
  known_series: KnownSeriesTable;
  known_content: KnownContentTable;
}

export const seriesMigrations: readonly Migration[] = [
  {
    name: 'series',
    async up(db) {
      // AUTOINCREMENT: the number of a deleted row is never given again.
      await sql`CREATE TABLE series (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        rule TEXT NOT NULL,
        source TEXT NOT NULL,
        study TEXT NOT NULL,
        series TEXT NOT NULL,
        modality TEXT,
        description TEXT,
        state TEXT NOT NULL CHECK (state IN ('waiting', 'queued', 'running', 'done', 'failed', 'dropped')),
        step TEXT NOT NULL CHECK (step IN ('fetch', 'predict', 'store')),
        instances INTEGER NOT NULL,
        instances_now INTEGER,
        digest TEXT,
        predecessor INTEGER,
        job TEXT,
        seed TEXT,
        results TEXT NOT NULL,
        reason_code TEXT,
        reason_message TEXT,
        urgency INTEGER NOT NULL,
        attempts INTEGER NOT NULL,
        passing_ms INTEGER,
        claim INTEGER NOT NULL,
        losses INTEGER NOT NULL,
        seen_ms INTEGER NOT NULL,
        changed_ms INTEGER NOT NULL,
        due_ms INTEGER NOT NULL,
        ended_ms INTEGER,
        CHECK ((ended_ms IS NULL) = (state IN ('waiting', 'queued', 'running')))
      ) STRICT`.execute(db);
      // One attempt at a series and rule at a time, and one row for the same instances, whichever source has them.
      await sql`CREATE UNIQUE INDEX series_open ON series (rule, study, series) WHERE ended_ms IS NULL`.execute(
        db,
      );
      await sql`CREATE UNIQUE INDEX series_content ON series (rule, study, series, digest) WHERE digest IS NOT NULL`.execute(
        db,
      );
      await sql`CREATE INDEX series_place ON series (rule, study, series, number)`.execute(db);
      await sql`CREATE INDEX series_due ON series (state, urgency, due_ms)`.execute(db);
      await sql`CREATE INDEX series_state ON series (state, number)`.execute(db);
      await sql`CREATE INDEX series_rule ON series (rule, state, number)`.execute(db);
      await sql`CREATE INDEX series_seen ON series (seen_ms) WHERE ended_ms IS NULL`.execute(db);
      await sql`CREATE INDEX series_ended ON series (ended_ms) WHERE ended_ms IS NOT NULL`.execute(db);
      await sql`CREATE INDEX series_job ON series (number) WHERE job IS NOT NULL AND ended_ms IS NOT NULL`.execute(
        db,
      );
      await sql`CREATE TABLE known_series (
        hash BLOB PRIMARY KEY,
        instances INTEGER NOT NULL,
        until_ms INTEGER NOT NULL
      ) STRICT, WITHOUT ROWID`.execute(db);
      await sql`CREATE INDEX known_series_until ON known_series (until_ms)`.execute(db);
      await sql`CREATE TABLE known_content (
        hash BLOB PRIMARY KEY,
        until_ms INTEGER NOT NULL
      ) STRICT, WITHOUT ROWID`.execute(db);
      await sql`CREATE INDEX known_content_until ON known_content (until_ms)`.execute(db);
    },
  },
];
