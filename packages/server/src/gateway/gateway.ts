import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import type { Database } from '../store/database/database.ts';
import type { GatewaySchema } from '../store/database/gateway-database.ts';
import type { SeriesSchema } from '../store/database/series-schema.ts';
import { createSteadyClock, type SteadyClock } from '../store/database/steady-clock.ts';
import { openUidKey } from '../store/files/uid-key.ts';
import type { GatewayConfig, Rule } from './config.ts';
import type { Gateway, GatewayMeter } from './gateway-type.ts';
import { createKnownSeries } from './known-series.ts';
import { createHealthBoard, watchedDestination, watchedSource } from './peer-health.ts';
import { quietMsOf } from './quiet-time.ts';
import { type SeriesWitness, startRunner } from './runner.ts';
import { searchAgainAndAgain } from './search-source.ts';
import type { Destination, ProcessSeries, SeenSeries, SeriesRow, Source } from './series.ts';
import { createSeriesAdmin } from './series-admin.ts';
import { createSeriesStore } from './series-store.ts';

export interface GatewayOptions {
  readonly config: GatewayConfig;
  readonly database: Database<GatewaySchema>;
  /** Its key makes the hashes of what was dealt with. */
  readonly dataFolder: string;
  /** The gateway's own part of it, which this process holds alone. */
  readonly folder: string;
  /** Those of the rules that take a series, by what a source tells of it (match-rules.ts). */
  readonly matchSeen: (rules: readonly Rule[], seen: SeenSeries) => readonly Rule[];
  readonly processSeries: ProcessSeries;
  /** Deletes the job of a row that has ended without results at its service. */
  readonly forgetJob?: (row: SeriesRow) => Promise<void>;
  readonly destinations: readonly Destination[];
  /** By name. */
  readonly sources: ReadonlyMap<string, Source>;
  /** Something that is not the fault of a series; for the log. */
  readonly onFault: (error: unknown, what: string) => void;
  readonly meter?: GatewayMeter;
  readonly witness?: SeriesWitness;
  readonly clock?: SteadyClock;
  /** Time between two looks at the database, ms; 1000 if missing. */
  readonly tickMs?: number;
}

/**
 * Starts what works on series: searches the sources, and processes what rules match. Rows that an earlier process left running
 * are queued again.
 *
 * @throws errors of the database and the disk
 */
export async function startGateway(options: GatewayOptions): Promise<Gateway> {
  const { config, database, dataFolder, folder, onFault, clock = createSteadyClock() } = options;
  // The tables of series are part of the gateway's.
  const tables = database as unknown as Database<SeriesSchema>;
  // A destination may have the name of a source.
  const sourceIsBack = (source: string) =>
    void store.hasten({ source }, clock.nowMs()).then(() => runner.wake(), runner.databaseFailed);
  const boards = {
    sources: createHealthBoard(Date.now, sourceIsBack),
    destinations: createHealthBoard(),
  };
  const known = createKnownSeries(await openUidKey(dataFolder), (name) => sinceDaysOf(config, name));
  const store = createSeriesStore(tables, known);
  const admin = createSeriesAdmin(tables, () => clock.nowMs());
  const sources = new Map(
    [...options.sources].map(([name, source]) => [name, watchedSource(source, boards.sources)]),
  );
  const destinations = new Map(
    options.destinations.map((one) => [one.name, watchedDestination(one, boards.destinations)]),
  );
  const runner = await startRunner({
    ...options,
    store,
    sources,
    destinations,
    clock,
    workFolder: join(folder, 'work'),
    findRow: admin.find,
  });

  async function see(seen: SeenSeries): Promise<void> {
    const source = config.sources[seen.source];
    if (!Object.hasOwn(config.sources, seen.source) || !source) {
      throw new TomaatError(
        'NOT_FOUND',
        `There is no source ${seen.source} in the file of rules. Available: ${Object.keys(config.sources).join(', ')}.`,
      );
    }
    const matching = options.matchSeen(config.rules, seen);
    if (matching.length === 0) return;
    try {
      // Results come back by the search; a rule for segmentations must not take those of its own.
      if (await store.isOwn(seen.source, seen.series, clock.nowMs())) return;
      for (const rule of matching) {
        const change = await store.see(seen, rule, { nowMs: clock.nowMs(), quietMs: quietMsOf(source) });
        if (change === undefined) continue;
        if ('grown' in change) await runner.grown(change.grown);
        else options.witness?.matched?.(change.matched);
      }
    } catch (error) {
      runner.databaseFailed(error);
      throw error;
    }
    if (seen.isStable) runner.wake();
  }

  const closing = new AbortController();
  const searches = [...sources].map(([name, source]) =>
    searchAgainAndAgain(source, {
      pollMs: config.sources[name].pollMs,
      see,
      signal: closing.signal,
      onFault: (error) => onFault(error, `the search of the source ${name} failed`),
    }),
  );
  let closed: Promise<void> | undefined;

  async function shutDown(): Promise<void> {
    closing.abort(new TomaatError('CANCELED', 'The gateway is stopping.'));
    await runner.close();
    await Promise.all(searches);
  }

  return {
    see,
    list: admin.list,
    find: admin.find,
    async retry(id) {
      const row = await admin.retry(id);
      runner.wake();
      return row;
    },
    async drop(id) {
      const row = await admin.drop(id);
      // Stops what runs of it.
      runner.wake();
      return row;
    },
    async summary() {
      return {
        counts: await admin.counts(),
        sources: boards.sources.of(Object.keys(config.sources)),
        destinations: boards.destinations.of(destinations.keys()),
        oldestWaitingAt: await admin.oldestOpenMs(),
        databaseFault: runner.databaseFault(),
      };
    },
    close() {
      closed ??= shutDown();
      return closed;
    },
  };
}

function sinceDaysOf({ sources }: GatewayConfig, name: string): number | undefined {
  const source = sources[name];
  return source && source.type !== 'folder' ? source.sinceDays : undefined;
}
