import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { TomaatError } from '@tomaat/core';
import type { SteadyClock } from '../store/database/steady-clock.ts';
import { diskError, makeFolder } from '../store/files/disk.ts';
import type { GatewayConfig, Rule } from './config.ts';
import type { GatewayMeter } from './gateway-type.ts';
import { pauseMs } from './pauses.ts';
import { goneFromSource, lookAgain, quietMsOf, reasonFor } from './quiet-time.ts';
import { digestOfInstances } from './seed.ts';
import type { Destination, ProcessSeries, SeriesContext, SeriesRow, Source } from './series.ts';
import { type Row, toSeriesRow } from './series-rows.ts';
import { type Claim, type Reason, type SeriesStore, stopped } from './series-store.ts';

/** What happens to rows, for the audit log. Called after the commit. */
export interface SeriesWitness {
  matched?(row: SeriesRow): void;
  failed?(row: SeriesRow, reason: Reason): void;
}

export interface RunnerOptions {
  readonly store: SeriesStore;
  readonly config: GatewayConfig;
  readonly sources: ReadonlyMap<string, Source>;
  readonly destinations: ReadonlyMap<string, Destination>;
  readonly processSeries: ProcessSeries;
  /** Deletes the job of a row that has ended without results at its service. Errors are for the log: it is not repeated. */
  readonly forgetJob?: (row: SeriesRow) => Promise<void>;
  /** Holds a folder for each running row; emptied at the start. */
  readonly workFolder: string;
  readonly clock: SteadyClock;
  readonly findRow: (id: string) => Promise<SeriesRow | undefined>;
  /** Something that is not the fault of a series. */
  readonly onFault: (error: unknown, what: string) => void;
  readonly meter?: GatewayMeter;
  readonly witness?: SeriesWitness;
  /** Time between two looks at the database, ms; 1000 if missing. */
  readonly tickMs?: number;
  /** Time between two deletions of old rows, ms; an hour if missing. */
  readonly retireMs?: number;
}

export interface Runner {
  /** Looks at the database soon, rather than at the next tick. */
  wake(): void;
  /** Stops an attempt whose series has grown, if nothing of it is being stored. */
  grown(claim: Claim): Promise<void>;
  /** Why the database does not take changes, while that is so. */
  databaseFault(): Reason | undefined;
  /** Notes that a change of the database failed elsewhere. */
  databaseFailed(error: unknown): void;
  /** Stops what runs, which then is queued, and waits for its end. */
  close(): Promise<void>;
}

/** Series that are looked at at the same time, whether they are complete. */
const looksAtATime = 4;
/** Rows are given to steps that ignore their signal no longer than this, ms. */
const closeMs = 10_000;
const longestDatabasePauseMs = 30_000;

interface Attempt extends Claim {
  readonly stop: AbortController;
  readonly ended: Promise<void>;
}

/**
 * Processes rows that are due: by urgency, then by time, `limits.concurrency` at a time. The database is the queue: each tick
 * asks it for what is due, and whether what runs here was dropped by a command.
 *
 * The first change of a row wins: a drop or a grown series takes the row from its attempt by a transaction, then stops the
 * attempt, whose `save()` fails from then on. So nothing is stored afterwards by steps that save before they store.
 */
export async function startRunner(options: RunnerOptions): Promise<Runner> {
  const { store, config, clock, workFolder, onFault, tickMs = 1000, retireMs = 3_600_000 } = options;
  const { limits } = config;
  const closing = new AbortController();
  const attempts = new Map<number, Attempt>();
  const looks = new Map<number, Promise<void>>();
  let fault: Reason | undefined;
  let wakeUp = () => {};
  let forgetting: Promise<void> | undefined;
  let retiredMs = Number.NEGATIVE_INFINITY;

  await rm(workFolder, { recursive: true, force: true });
  await makeFolder(workFolder);
  await store.recover(clock.nowMs(), (losses) => (losses < 2 ? 0 : pauseMs(losses - 1, limits)));
  const loop = run();

  /** What is noted of a database that refuses: a full disk, mostly. */
  function noteFault(error: unknown): void {
    const isFirst = fault === undefined;
    const { code, message } =
      error instanceof TomaatError
        ? error
        : { code: 'INTERNAL', message: 'The database of the gateway failed. See its log.' };
    fault = { code, message };
    if (isFirst) onFault(error, 'the database of the gateway does not take changes');
  }

  async function run(): Promise<void> {
    for (let failures = 0; !closing.signal.aborted; ) {
      const woken = new Promise<void>((resolve) => {
        wakeUp = resolve;
      });
      try {
        // Reading works on a full disk, too.
        if (fault) await store.probe(clock.nowMs());
        await tick();
        fault = undefined;
        failures = 0;
      } catch (error) {
        noteFault(error);
        failures++;
      }
      const waitMs = Math.min(longestDatabasePauseMs, tickMs * 2 ** Math.min(failures, 5));
      const timer = new AbortController();
      const stop = AbortSignal.any([timer.signal, closing.signal]);
      const waits = [sleep(waitMs, undefined, { signal: stop }).catch(() => {})];
      await Promise.race(failures === 0 ? [...waits, woken] : waits);
      timer.abort();
    }
  }

  async function tick(): Promise<void> {
    await clock.settle((byMs) => store.move(byMs));
    for (const { number } of await store.ended([...attempts.values()]))
      attempts.get(number)?.stop.abort(stopped());
    const nowMs = clock.nowMs();
    await startForgetting();
    await startLooks(nowMs);
    await startAttempts(nowMs);
    if (nowMs - retiredMs < retireMs) return;
    await store.retire(nowMs - limits.keepMs, nowMs);
    retiredMs = nowMs;
  }

  /** Has the services delete the jobs of rows that were dropped or have failed. */
  async function startForgetting(): Promise<void> {
    if (forgetting || !options.forgetJob) return;
    const rows = await store.endedWithJob(looksAtATime);
    // Attempts that still run may yet start one.
    const ended = rows.filter(({ number }) => !attempts.has(number));
    if (ended.length === 0) return;
    forgetting = Promise.all(ended.map(forgetJobOf))
      .then(() => {})
      .catch(noteFault)
      .finally(() => {
        forgetting = undefined;
      });
  }

  async function forgetJobOf(row: Row): Promise<void> {
    await options.forgetJob!(toSeriesRow(row)).catch((error: unknown) =>
      onFault(error, 'a job could not be deleted at its service'),
    );
    await store.clearJob(row);
  }

  async function startLooks(nowMs: number): Promise<void> {
    if (looks.size >= looksAtATime) return;
    for (const number of await store.due('waiting', nowMs, looksAtATime)) {
      if (looks.has(number) || looks.size >= looksAtATime) continue;
      const look = lookAt(number)
        .catch((error: unknown) => {
          if (!closing.signal.aborted) noteFault(error);
        })
        .finally(() => {
          looks.delete(number);
          if (!fault) wakeUp();
        });
      looks.set(number, look);
    }
  }

  async function lookAt(number: number): Promise<void> {
    const row = await store.read(number);
    if (row?.state !== 'waiting') return;
    const parts = partsOf(row);
    const source = options.sources.get(row.source);
    const now = () => clock.nowMs();
    const quietMs = quietMsOf(config.sources[row.source]);
    const change =
      parts.missing === undefined && source
        ? await lookAgain(row, { source, quietMs, limits, signal: closing.signal, now })
        : failure(parts.missing!, now());
    if ((await store.looked(row, change)) && change.state === 'failed') tellFailed({ ...row, ...change });
  }

  function tellFailed(row: Row | undefined): void {
    const failed = row && toSeriesRow(row);
    if (failed?.reason) options.witness?.failed?.(failed, failed.reason);
  }

  async function startAttempts(nowMs: number): Promise<void> {
    const free = limits.concurrency - attempts.size;
    if (free <= 0) return;
    // An attempt that was stopped may still run, while its row is queued again.
    for (const number of await store.due('queued', nowMs, free + attempts.size)) {
      if (attempts.size >= limits.concurrency || closing.signal.aborted) return;
      if (attempts.has(number)) continue;
      const row = await store.claim(number, clock.nowMs());
      if (!row) continue;
      const stop = new AbortController();
      const ended = attempt(row, stop)
        .catch((error: unknown) => onFault(error, 'an attempt at a series failed unexpectedly'))
        .finally(() => {
          attempts.delete(number);
          wakeUp();
        });
      attempts.set(number, { number, claim: row.claim, stop, ended });
    }
  }

  /** The rule of a row; or which part is no longer in the file of rules. */
  function partsOf(row: Row): { rule?: Rule; missing?: string } {
    const rule = config.rules.find(({ id }) => id === row.rule);
    if (!rule) return { missing: `rule ${row.rule}` };
    if (!options.sources.has(row.source)) return { missing: `source ${row.source}` };
    const lost = rule.destinations.find((name) => !options.destinations.has(name));
    return lost === undefined ? { rule } : { missing: `destination ${lost}` };
  }

  /** Takes a claimed row to its end, or back to the queue. */
  async function attempt(row: Row, stop: AbortController): Promise<void> {
    const quietMs = quietMsOf(config.sources[row.source]);
    const times = () => ({ nowMs: clock.nowMs(), quietMs });
    const outcome = await outcomeOf(row, stop);
    switch (outcome.kind) {
      case 'done':
        await written(() => store.finish(row, { state: 'done' }, times()));
        // The service and the destinations answer: series of the rule that could not reach them need not wait longer.
        await written(() => store.hasten({ rule: row.rule }, clock.nowMs()));
        return;
      case 'failed': {
        const { reason, followed, isGone } = outcome;
        const end = { state: 'failed', reason } as const;
        tellFailed(await written(() => store.finish(row, end, { ...times(), followed, isGone })));
        return;
      }
      case 'passing': {
        const { fault, waitMs } = outcome;
        const { nowMs } = times();
        await written(() => store.putBack(row, { nowMs, dueMs: nowMs + waitMs, fault }));
        return;
      }
      case 'changed': {
        if (await written(() => store.beginAgain(row, times()))) return;
        const end = { state: 'failed', reason: changedWhileStored } as const;
        tellFailed(await written(() => store.finish(row, end, { ...times(), followed: true })));
        return;
      }
      case 'forget':
        await written(() => store.forget(row));
        return;
      case 'stopped':
        if (closing.signal.aborted) {
          const { nowMs } = times();
          await written(() => store.putBack(row, { nowMs, dueMs: nowMs }));
        }
    }
  }

  type Outcome =
    | { kind: 'done' | 'changed' | 'forget' | 'stopped' }
    | { kind: 'failed'; reason: Reason; followed?: boolean; isGone?: boolean }
    | { kind: 'passing'; fault: Reason; waitMs: number };

  async function outcomeOf(row: Row, stop: AbortController): Promise<Outcome> {
    const folder = join(workFolder, String(row.number));
    const signal = AbortSignal.any([stop.signal, closing.signal]);
    const state = { hasChanged: false, step: row.step, sinceMs: performance.now() };
    const timed = () => (performance.now() - state.sinceMs) / 1000;
    try {
      const { rule, missing } = partsOf(row);
      if (!rule) return { kind: 'failed', reason: goneFromFile(missing!) };
      const source = options.sources.get(row.source)!;
      if (await store.isOwn(row.source, row.series, clock.nowMs())) return { kind: 'forget' };
      const begun = await identify(row, source, signal);
      if (begun !== 'begun') return begun;
      const known = await store.read(row.number);
      if (!known) return { kind: 'stopped' };
      await makeFolder(folder).catch((error: unknown) => {
        throw diskError(error);
      });
      await options.processSeries(toSeriesRow(known), await contextOf(known, rule, source));
      options.meter?.stepEnded(row.rule, state.step, timed());
      return { kind: 'done' };
    } catch (error) {
      if (state.hasChanged) return { kind: 'changed' };
      if (signal.aborted) return { kind: 'stopped' };
      const { isFinal, ...reason } = reasonFor(row, error, limits, clock.nowMs());
      options.meter?.stepFailed(row.rule, state.step, reason.code);
      if (!(error instanceof TomaatError)) onFault(error, `series ${row.number} failed unexpectedly`);
      if (isFinal) return { kind: 'failed', reason };
      return { kind: 'passing', fault: reason, waitMs: pauseMs(row.attempts + 1, limits, { error }) };
    } finally {
      await rm(folder, { recursive: true, force: true }).catch((error: unknown) =>
        onFault(error, 'the files of a series could not be deleted'),
      );
    }

    async function contextOf(known: Row, rule: Rule, source: Source): Promise<SeriesContext> {
      const { predecessor, digest } = known;
      return {
        config,
        rule,
        source,
        destinations: rule.destinations.map((name) => options.destinations.get(name)!),
        folder,
        predecessor: predecessor === null ? undefined : await options.findRow(String(predecessor)),
        signal,
        async save(change) {
          signal.throwIfAborted();
          if (change.digest !== undefined && change.digest !== digest) {
            state.hasChanged = true;
            throw new TomaatError('CONFLICT', 'The series has changed since it was listed. It begins again.');
          }
          try {
            await store.save(known, change, clock.nowMs());
          } catch (error) {
            if (error instanceof TomaatError && error.code === 'CANCELED') stop.abort(error);
            throw error;
          }
          if (change.step === undefined || change.step === state.step) return;
          options.meter?.stepEnded(row.rule, state.step, timed());
          Object.assign(state, { step: change.step, sinceMs: performance.now() });
        },
      };
    }
  }

  /** Asks the source which instances a series has: whether they were dealt with is known before anything is fetched. */
  async function identify(row: Row, source: Source, signal: AbortSignal): Promise<'begun' | Outcome> {
    const uids = await source.instances(row.study, row.series, signal);
    if (uids.length === 0) {
      if (!(await source.look(row.study, row.series, signal)))
        return { kind: 'failed', reason: goneFromSource(row.source), isGone: true };
      throw new TomaatError(
        'UPSTREAM',
        `The source ${row.source} names this series and lists no images of it. Check its index; the series is tried again.`,
      );
    }
    const digest = digestOfInstances(uids);
    const found = { digest, instances: new Set(uids).size, nowMs: clock.nowMs() };
    switch (await store.identify(row, found)) {
      case 'begun':
        return 'begun';
      case 'changed':
        return { kind: 'failed', reason: changedWhileStored, followed: true };
      default:
        return { kind: 'stopped' };
    }
  }

  /** Repeats a change of the database until it is committed: what was done must not be forgotten because a disk is full. */
  async function written<T>(change: () => Promise<T>): Promise<T | undefined> {
    for (let failures = 0; ; failures++) {
      try {
        return await change();
      } catch (error) {
        noteFault(error);
        // The next start finds the row running, and repeats it: the same results are stored again.
        if (closing.signal.aborted) return undefined;
        const waitMs = Math.min(longestDatabasePauseMs, tickMs * 2 ** Math.min(failures, 5));
        await sleep(waitMs, undefined, { signal: closing.signal }).catch(() => {});
      }
    }
  }

  return {
    wake: () => wakeUp(),
    async grown(claim) {
      const { source } = (await store.read(claim.number)) ?? {};
      const quietMs = quietMsOf(source === undefined ? undefined : config.sources[source]);
      if (await store.beginAgain(claim, { nowMs: clock.nowMs(), quietMs })) {
        const running = attempts.get(claim.number);
        if (running?.claim === claim.claim) running.stop.abort(stopped());
      }
    },
    databaseFault: () => fault,
    databaseFailed: noteFault,
    async close() {
      closing.abort(new TomaatError('CANCELED', 'The gateway is stopping.'));
      wakeUp();
      await loop;
      const rest = Promise.all([
        ...[...attempts.values()].map(({ ended }) => ended),
        ...looks.values(),
        forgetting,
      ]);
      const patience = new AbortController();
      await Promise.race([rest, sleep(closeMs, undefined, { signal: patience.signal }).catch(() => {})]);
      patience.abort();
    },
  };
}

const goneFromFile = (part: string): Reason => ({
  code: 'NOT_FOUND',
  message: `The ${part} is no longer in the file of rules. Add it and try the series again, or drop the series.`,
});

const failure = (missing: string, nowMs: number) => {
  const { code, message } = goneFromFile(missing);
  return { state: 'failed', reason_code: code, reason_message: message, ended_ms: nowMs } as const;
};

const changedWhileStored: Reason = {
  code: 'CONFLICT',
  message:
    'The series changed before its results were stored everywhere. The row of the changed series follows it and replaces its results.',
};
