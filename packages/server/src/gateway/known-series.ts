import { createHmac } from 'node:crypto';
import type { Kysely } from 'kysely';
import type { SeriesSchema } from '../store/database/series-schema.ts';

/*
 * What was dealt with, beyond the life of its row. Rows hold UIDs, so they are deleted some days after the end; the source may find
 * the same series for longer than that, and it must not be computed again. So a hash remains, under the data folder's key, which
 * says nothing without the key and a guess of the UIDs:
 *
 * - of rule, source, study and series, with the number of instances: what a search finds again unchanged;
 * - of rule, study, series and the digest of the instances: what another source has too, or a PACS was sent again;
 * - of the series that the gateway itself has made.
 *
 * A search by study date finds a series for `sinceDays` after its study, so a hash that is kept for so long after it was last
 * needed outlives what the search can find. A folder has no such limit: its files are found until they are deleted, and
 * each time prolongs the hash. A series that is sent again after its hash has gone is computed again, with the same UIDs, and
 * replaces its results.
 */

type Db = Kysely<SeriesSchema>;

const dayMs = 86_400_000;
/** The life of a hash, beyond the days that a search looks back. */
const spareDays = 2;
/** Of sources that are not searched by date. */
const undatedDays = 30;

export interface Place {
  readonly rule: string;
  readonly source: string;
  readonly study: string;
  readonly series: string;
}

export type KnownSeries = ReturnType<typeof createKnownSeries>;

/**
 * @param key of the data folder (`openUidKey()`)
 * @param sinceDays how far the search of a source looks back; undefined for one that is not searched by date
 */
export function createKnownSeries(key: Uint8Array, sinceDays: (source: string) => number | undefined) {
  const hashOf = (...parts: string[]) =>
    createHmac('sha256', key)
      .update(`tomaat gateway known\n${JSON.stringify(parts)}`)
      .digest();
  const ofPlace = ({ rule, source, study, series }: Place) => hashOf('place', rule, source, study, series);
  const ofContent = ({ rule, study, series }: Omit<Place, 'source'>, digest: string) =>
    hashOf('content', rule, study, series, digest);
  const ofOwn = (series: string) => hashOf('own', series);
  const untilMs = (source: string, nowMs: number) =>
    nowMs + ((sinceDays(source) ?? undatedDays) + spareDays) * dayMs;

  async function addContent(db: Db, hash: Uint8Array, until_ms: number): Promise<void> {
    await db
      .insertInto('known_content')
      .values({ hash, until_ms })
      .onConflict((on) => on.column('hash').doUpdateSet({ until_ms }))
      .execute();
  }

  /** Whether a hash is there; its life is prolonged when a day of it has passed. */
  async function hasContent(db: Db, hash: Uint8Array, until_ms: number): Promise<boolean> {
    const found = await db
      .selectFrom('known_content')
      .select('until_ms')
      .where('hash', '=', hash)
      .executeTakeFirst();
    if (found && found.until_ms < until_ms - dayMs)
      await db.updateTable('known_content').set({ until_ms }).where('hash', '=', hash).execute();
    return found !== undefined;
  }

  return {
    /** Number of instances with which a series at a place was dealt with; undefined if it was not. */
    async instancesAt(db: Db, place: Place, nowMs: number): Promise<number | undefined> {
      const hash = ofPlace(place);
      const found = await db
        .selectFrom('known_series')
        .select(['instances', 'until_ms'])
        .where('hash', '=', hash)
        .executeTakeFirst();
      const until_ms = untilMs(place.source, nowMs);
      if (found && found.until_ms < until_ms - dayMs)
        await db.updateTable('known_series').set({ until_ms }).where('hash', '=', hash).execute();
      return found?.instances;
    },

    async addPlace(db: Db, place: Place, instances: number, nowMs: number): Promise<void> {
      const until_ms = untilMs(place.source, nowMs);
      await db
        .insertInto('known_series')
        .values({ hash: ofPlace(place), instances, until_ms })
        .onConflict((on) => on.column('hash').doUpdateSet({ instances, until_ms }))
        .execute();
    },

    addContent: (db: Db, place: Place, digest: string, nowMs: number) =>
      addContent(db, ofContent(place, digest), untilMs(place.source, nowMs)),
    hasContent: (db: Db, place: Place, digest: string, nowMs: number) =>
      hasContent(db, ofContent(place, digest), untilMs(place.source, nowMs)),

    /** Notes a series that holds the gateway's own results. */
    addOwn: (db: Db, source: string, series: string, nowMs: number) =>
      addContent(db, ofOwn(series), untilMs(source, nowMs)),
    isOwn: (db: Db, source: string, series: string, nowMs: number) =>
      hasContent(db, ofOwn(series), untilMs(source, nowMs)),

    /** Commits a hash of nothing. */
    probe: (db: Db, nowMs: number) => addContent(db, hashOf('probe'), nowMs),

    async deleteExpired(db: Db, nowMs: number): Promise<void> {
      await db.deleteFrom('known_series').where('until_ms', '<=', nowMs).execute();
      await db.deleteFrom('known_content').where('until_ms', '<=', nowMs).execute();
    },
  };
}
