import { TomaatError } from '@tomaat/core';
import type { AuditFacts } from '../audit/events.ts';
import { digestOfUid } from '../audit/uid-digest.ts';
import { buildResults, earlierResults } from './build-results.ts';
import type { GatewayConfig } from './config.ts';
import type { Connect, SeriesDependencies } from './dependencies.ts';
import { fewAttempts, mayPass, toFault } from './faults.ts';
import { type FetchedSeries, fetchSeries } from './fetch-series.ts';
import { startJob, waitForJob } from './predict-series.ts';
import { seedOf } from './seed.ts';
import type { ProcessSeries, SeriesContext, SeriesRow } from './series.ts';
import { type OpenService, openClient, openService } from './service.ts';
import { askDestinations, openDestinations, storeResults } from './store-results.ts';

/*
 * One series for one rule, from the source to the destinations. Each step can be repeated: a restart finds the same job by
 * its key, makes the same objects of it, and stores them where they are not yet.
 */

/** The steps of a series, to be called by the runner for each row that is due. */
export const createProcessSeries =
  (deps: SeriesDependencies): ProcessSeries =>
  async (row, context) => {
    // What was saved counts for the faults, too.
    const state = { row };
    const following: SeriesContext = {
      ...context,
      async save(change) {
        await context.save(change);
        state.row = { ...state.row, ...change };
      },
    };
    try {
      await processSeries(state, following, deps);
    } catch (error) {
      context.signal.throwIfAborted();
      const fault = toFault(error);
      if (!mayPass(fault)) await refuse(fault, state.row, context, deps);
      throw fault;
    }
  };

interface State {
  row: SeriesRow;
}

async function processSeries(state: State, context: SeriesContext, deps: SeriesDependencies): Promise<void> {
  const { rule, config, signal } = context;
  if (hasAll(state.row, context)) return finish(state, context, deps);
  if (state.row.step === 'store') await askDestinations(state.row, context);
  // Asked first: without it the originals need not be fetched.
  const opened = await openService(rule, config.services[rule.service], deps.connect, signal);
  // A job that was started before is waited for without them, too.
  const earlier = state.row.job && (await waitForJob(opened.client, state.row.job, state.row, context));
  await context.save({ step: 'fetch' });
  const fetched = await fetchSeries(state.row, context);
  const facts = factsOf(state.row, opened);
  await deps.audit('series.fetched', {
    ...facts,
    digest: `sha256:${fetched.digest}`,
    count: fetched.instances.size,
    outcome: 'whole',
  });
  checkVolume(fetched, context, deps);
  const seed = seedOf({ rule, config: opened.config, service: opened.service, digest: fetched.digest });
  const job =
    earlier && state.row.seed === seed
      ? earlier
      : await predict(fetched, seed, opened, state, context, deps, facts);
  const built = await buildResults(fetched, job, opened, {
    row: state.row,
    seed,
    earlier: earlierResults(state.row, seed, context.predecessor),
    signal,
  });
  await storeResults(built, seed, state.row, context, deps, { ...facts, job: job.id });
  await finish(state, context, deps);
}

const hasAll = ({ step, seed, results }: SeriesRow, { destinations }: SeriesContext): boolean =>
  step === 'store' &&
  results.every((result) => result.seed === seed) &&
  openDestinations(results, destinations).length === 0;

/** Its size and spacing are known for certain only now. */
function checkVolume({ chosen }: FetchedSeries, { rule }: SeriesContext, deps: SeriesDependencies): void {
  const { slices = 1, spacing } = chosen.series;
  const reason = deps.matchVolume(rule, { slices, sliceSpacingMm: spacing?.[2] });
  if (reason !== undefined) throw new TomaatError('NOT_ACCEPTED', reason);
}

/** The job of a series as it is now, from its start to its end. */
async function predict(
  fetched: FetchedSeries,
  seed: string,
  opened: OpenService,
  state: State,
  context: SeriesContext,
  deps: SeriesDependencies,
  facts: AuditFacts,
) {
  const { client } = opened;
  const before = state.row.job;
  // It computed what the series was before.
  if (before !== undefined) await client.remove(before, { signal: context.signal });
  await context.save({ step: 'predict', digest: fetched.digest, seed, job: undefined });
  const { id } = await startJob(state.row, fetched, seed, opened, context, deps, facts);
  await context.save({ job: id });
  const job = await waitForJob(client, id, state.row, context);
  if (!job) {
    throw new TomaatError('UPSTREAM', `The service has lost the job ${id}. The series is sent to it again.`);
  }
  await deps.audit('series.computed', { ...facts, job: id });
  return job;
}

/** Everything is stored: the service need not keep anything of the series. */
async function finish(state: State, context: SeriesContext, deps: SeriesDependencies): Promise<void> {
  const { job, attempts } = state.row;
  if (job === undefined) return;
  const { config, rule, signal } = context;
  try {
    const client = await openClient(config.services[rule.service], deps.connect, signal);
    await client.remove(job, { signal });
  } catch (error) {
    signal.throwIfAborted();
    // The results are where they belong; the service deletes its jobs by itself after a time.
    if (!mayPass(error) || attempts >= fewAttempts) return;
    throw error;
  }
  await context.save({ job: undefined });
}

async function refuse(
  fault: unknown,
  row: SeriesRow,
  { config, signal }: SeriesContext,
  deps: SeriesDependencies,
): Promise<void> {
  const outcome = fault instanceof TomaatError ? fault.code : 'INTERNAL';
  await deps.audit('series.refused', { ...factsOf(row), outcome });
  await forgetSeries(row, config, deps, signal);
}

/** How long a service may take to delete a job that nobody waits for, ms. */
const forgetMs = 20_000;

/**
 * Deletes at the service what it has of a series that has ended without results: refused, dropped, or given up. A
 * service that is away, or was taken out of the file of rules, deletes it by itself after a time.
 */
export async function forgetSeries(
  { job, rule: ruleId }: Pick<SeriesRow, 'job' | 'rule'>,
  config: GatewayConfig,
  { connect }: { connect: Connect },
  signal?: AbortSignal,
): Promise<void> {
  const rule = config.rules.find(({ id }) => id === ruleId);
  const service = rule && config.services[rule.service];
  if (job === undefined || !service) return;
  const limit = AbortSignal.any([AbortSignal.timeout(forgetMs), ...(signal ? [signal] : [])]);
  try {
    await (await openClient(service, connect, limit)).remove(job, { signal: limit });
  } catch (error) {
    if (!(error instanceof TomaatError) && !limit.aborted) throw error;
  }
}

/** What the audit log says of a series: UIDs as hashes. */
const factsOf = (
  { rule, study, series, job }: SeriesRow,
  opened?: Pick<OpenService, 'service'>,
): AuditFacts => ({
  rule,
  study: digestOfUid(study),
  series: digestOfUid(series),
  ...(opened && { service: opened.service.id, version: opened.service.version }),
  ...(job !== undefined && { job }),
});
