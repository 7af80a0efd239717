import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Client, decideIdentity, isSettled, type Job, type Service } from '@tomaat/client';
import { describeError, measureLabels, readVolume, sourceFromBytes, TomaatError } from '@tomaat/core';
import { nodePlatform } from '../../node-platform.ts';
import { machineId } from '../../trust/machine-id.ts';
import { readVolumeFiles } from '../../worker/read-volume-files.ts';
import {
  exitCodeOf,
  formatSeconds,
  type Progress,
  plain,
  plainLines,
  reportsOf,
  systemFault,
} from '../console.ts';
import { checkSeriesFormats } from '../dicom-result.ts';
import { checkIdentityFlags, hopeless, wantedOf } from '../identity-flags.ts';
import { volumePaths } from '../input-files.ts';
import type { Outcome, PredictFlags } from '../outcome.ts';
import { planOthers } from '../plan-inputs.ts';
import { type PredictionPlan, predictVolume } from '../predict-volume.ts';
import { checkTargets, planResults } from '../result-files.ts';
import { bidsNamesOf, writeBidsDataset, writeBidsSidecar } from './bids.ts';
import { digestOf } from './digest.ts';
import { type Basis, changeOf, type LabelRow, type Ledger, ledgerName, openLedger } from './ledger.ts';
import { type BatchScan, isDataset, planBatch } from './plan-batch.ts';
import { isPassing, pauseMs } from './retry.ts';
import { checkSummaries, printRow, printSummary, writeSummaries } from './summary.ts';
import type { BatchRow } from './table.ts';

const defaultJobs = 2;
const defaultRetryMinutes = 30;
/** So often a job that failed by a fault of the server is asked for again. */
const mostJobs = 3;

interface Batch {
  readonly plan: Omit<PredictionPlan, 'results'>;
  readonly ledger: Ledger;
  readonly models: readonly string[];
  readonly request: string;
  readonly signal: AbortSignal;
  readonly isBids: boolean;
  note(text: string): void;
}

/** A failure of the moment that has lasted for as long as --retry-minutes says: the next scan would meet it too. */
class StillAway extends Error {}

/** `tomaat predict` with many scans: returns the exit code. */
export async function predictBatch(
  found: { client: Client; service: Service },
  given: readonly string[],
  flags: PredictFlags,
  progress: Progress,
  signal: AbortSignal,
): Promise<number> {
  const { client, service } = found;
  // A line for each folder would be as many as the scans.
  const reports = {
    ...reportsOf(progress, flags, signal),
    show: process.stderr.isTTY ? progress.show : () => {},
  };
  if (flags.receipt !== undefined)
    throw new TomaatError('BAD_INPUT', '--receipt is for one volume. Give one file with --volume.');
  const { outputs, folder: out } = await planResults(service, flags, true);
  await checkSummaries(flags);
  const others = await planOthers(service, { ...flags, volume: given[0], series: undefined }, reports);
  const isBids = flags.bids ?? (given.length === 1 && (await isDataset(given[0])));
  const bids = isBids ? bidsNamesOf(service) : undefined;
  const scans = await planBatch(given, out, { elements: service, outputs, flags, bids, reports });
  const volumes = scans.filter(({ fault }) => !fault).map(({ volume }) => volume);
  const inputs = { ...others, volumes, many: true };
  await checkIdentityFlags({ ...flags, volume: given[0] }, inputs);
  checkSeriesFormats(outputs, volumes);
  if (!flags.skipExisting) await refuseExisting(scans, flags);
  const identity = decideIdentity({
    processing: service.processing,
    address: client.baseUrl,
    machine: await machineId(),
    wanted: wantedOf(flags),
  });
  await using ledger = await openLedger(out && join(out, ledgerName));
  if (bids && out !== undefined) await writeBidsDataset(out, scans[0].root, service, bids, client.baseUrl);
  const batch: Batch = {
    plan: { service, client, flags: { ...flags, volume: given[0] }, inputs, identity },
    ledger,
    models: service.modelSha256s ?? (service.modelSha256 === undefined ? [] : [service.modelSha256]),
    request: await requestOf(inputs, outputs, flags),
    signal,
    isBids,
    note: newRemarks(reports.note),
  };
  const { rows, exitCode } = await runAll(scans, batch, flags, progress);
  progress.clear();
  try {
    await writeSummaries(service, rows, scans, flags, progress);
  } finally {
    printSummary(rows, flags);
  }
  signal.throwIfAborted();
  return exitCode;
}

/** Remarks that many scans give rise to, such as how much was removed from their headers, are shown once. */
function newRemarks(note: (text: string) => void): (text: string) => void {
  const shown = new Set<string>();
  return (text) => {
    const words = text.replaceAll(/[\d.]+( [kMG]?B)?/g, '0');
    if (shown.has(words)) return;
    shown.add(words);
    note(text);
  };
}

async function refuseExisting(scans: readonly BatchScan[], flags: PredictFlags): Promise<void> {
  for (const { results, volume } of scans) {
    try {
      const options = { force: flags.force, isDicom: volume.dicom !== undefined };
      await checkTargets(results, volume.resultPath, options);
    } catch (cause) {
      if (!(cause instanceof TomaatError)) throw cause;
      if (flags.out === undefined) throw cause;
      const message = `${cause.message} To go on where an earlier batch stopped, use --skip-existing.`;
      throw new TomaatError(cause.code, message, { cause });
    }
  }
}

/** What a result depends on, apart from the scan and the service. */
async function requestOf(
  { values, otherFiles, otherSeries }: PredictionPlan['inputs'],
  outputs: readonly { name: string; format?: string }[],
  flags: PredictFlags,
): Promise<string> {
  const paths = [
    ...Object.values(otherFiles).flat(),
    ...Object.values(otherSeries).flatMap((one) => one.paths),
  ];
  const others = paths.length > 0 ? await digestOf(paths) : '';
  const sorted = Object.entries(values).sort(([a], [b]) => Number(a > b) - Number(a < b));
  return JSON.stringify([
    sorted,
    flags.frame ?? null,
    outputs.map(({ name, format }) => [name, format ?? '']),
    others,
  ]);
}

/** So many scans at a time: while one computes, the next is sent. */
async function runAll(
  scans: readonly BatchScan[],
  batch: Batch,
  flags: PredictFlags,
  progress: Progress,
): Promise<{ rows: BatchRow[]; exitCode: number }> {
  const rows: BatchRow[] = [];
  const startMs = performance.now();
  let [next, ended, computed, failed, exitCode] = [0, 0, 0, 0, 0];
  let isHopeless: unknown;
  const timeLeft = () => {
    if (computed === 0 || ended === scans.length) return '';
    const seconds = ((performance.now() - startMs) / 1000 / computed) * (scans.length - ended);
    return ` · about ${formatSeconds(seconds)} left, until ${clockIn(seconds)}`;
  };
  // Where lines are not overwritten, the line of each scan says it.
  const show = () => {
    if (process.stderr.isTTY)
      progress.show('batch', `${ended} of ${scans.length} scans, ${failed} failed${timeLeft()}`);
  };
  const worker = async () => {
    while (next < scans.length) {
      const index = next++;
      const scan = scans[index];
      const blank = blankRow(scan, batch);
      if (batch.signal.aborted || isHopeless !== undefined) {
        rows[index] = {
          ...blank,
          state: 'canceled',
          error: batch.signal.aborted ? undefined : faultOf(isHopeless),
        };
        continue;
      }
      let row: BatchRow;
      try {
        row = await predictScan(scan, batch, progress);
      } catch (caught) {
        const error = caught instanceof StillAway ? caught.cause : caught;
        row = { ...blank, state: batch.signal.aborted ? 'canceled' : 'failed', error: faultOf(error) };
        if (caught instanceof StillAway || isLasting(error)) isHopeless ??= error;
        exitCode = exitCode === 1 ? 1 : exitCodeOf(error);
      }
      rows[index] = row;
      ended++;
      if (row.state === 'done') computed++;
      if (row.state === 'failed' || row.state === 'outdated') failed++;
      if (row.state === 'outdated') exitCode = 1;
      progress.clear();
      printRow(row, `[${ended}/${scans.length}${process.stderr.isTTY ? '' : timeLeft()}]`, flags);
      show();
    }
  };
  show();
  await Promise.all(Array.from({ length: Math.min(flags.jobs ?? defaultJobs, scans.length) }, worker));
  return { rows, exitCode };
}

/** Whether the next scan would fail in the same way, other than by a server that is away. */
const isLasting = (error: unknown): boolean =>
  error instanceof TomaatError
    ? hopeless.includes(error.code) && !isPassing(error)
    : ['ENOSPC', 'EDQUOT', 'EROFS'].includes((error as NodeJS.ErrnoException).code ?? '');

const clockIn = (seconds: number) =>
  new Date(Date.now() + seconds * 1000).toLocaleTimeString('sv-SE').slice(0, 5);

const blankRow = ({ id, volume }: BatchScan, { plan }: Batch): Omit<BatchRow, 'state'> => ({
  id,
  path: volume.path,
  ...(volume.dicom && { series: volume.dicom.chosen.series.uid }),
  service: plan.service.id,
  version: plan.service.version,
  files: [],
  labels: [],
});

function faultOf(error: unknown): BatchRow['error'] {
  if (error instanceof TomaatError) return { code: error.code, message: plainLines(error.message) };
  const system = error as NodeJS.ErrnoException;
  const message =
    typeof system?.code === 'string' && system.path ? systemFault(system) : String(system?.message);
  return { code: 'BAD_INPUT', message: plainLines(message) };
}

/** One scan to its end: what the record has is kept, what fails by the moment is tried again. */
async function predictScan(scan: BatchScan, batch: Batch, progress: Progress): Promise<BatchRow> {
  if (scan.fault) throw scan.fault;
  const { ledger, signal, plan, note } = batch;
  const { volume, id } = scan;
  const { flags, service } = plan;
  const paths = volume.dicom?.paths ?? (await volumePaths(volume.path));
  const basis: Basis = {
    digest: await digestOf(paths, signal),
    service: service.id,
    version: service.version,
    models: [...batch.models],
    request: batch.request,
  };
  const blank = blankRow(scan, batch);
  const kept = await keptRow(scan, basis, batch);
  if (kept) return { ...blank, ...kept };
  const before = ledger.last(id);
  // What an earlier start wrote before it was killed.
  const isOurs =
    before !== undefined && before.state !== 'done' && changeOf(before.basis, basis) === undefined;
  let force = flags.force || isOurs;
  const endMs = performance.now() + (flags.retryMinutes ?? defaultRetryMinutes) * 60_000;
  const own = { ...plan, results: scan.results, inputs: { ...plan.inputs, volumes: [volume] } };
  let saved: Pick<BatchRow, 'job' | 'seconds' | 'files' | 'labels'> | undefined;
  const onSaved = async (outcome: Outcome) => {
    const { job, seconds, files } = outcome;
    const labels = await labelsOf(outcome, { ...plan, signal });
    const { models, isBids } = batch;
    if (isBids) await writeBidsSidecar(files[0].file, scan.root, volume.path, { service, job, models });
    await ledger.add({ id, state: 'done', basis, job, seconds, files, labels });
    saved = { job, seconds, files, labels };
  };
  for (let failures = 0, jobs = 0; ; failures++) {
    if (!saved) await ledger.add({ id, state: 'started', basis });
    let job: Job | undefined;
    const onJob = (now: Job) => {
      job = now;
    };
    try {
      const idempotencyKey = ledger.keyOf(id, basis);
      const steps = { prefix: '', progress: silent, signal, note, idempotencyKey, onJob, onSaved };
      // All that is left of a saved one is --delete.
      if (saved?.job !== undefined) await removeJob(plan.client, saved.job, signal);
      else await predictVolume({ ...own, flags: { ...flags, force } }, volume, steps);
      return { ...blank, state: 'done', ...(saved as Required<typeof saved>) };
    } catch (error) {
      const known = job as Job | undefined;
      const isEnded = known !== undefined && isSettled(known) && known.state !== 'succeeded';
      const isTaken = error instanceof TomaatError && error.field === 'Idempotency-Key';
      // The next job needs another key.
      if (!saved && (isEnded || isTaken || signal.aborted))
        await ledger.add({ id, state: 'failed', basis, job: known?.id });
      signal.throwIfAborted();
      if (isEnded || isTaken) jobs++;
      const mayHelp =
        isEnded || isTaken ? jobs < mostJobs && isWorthAnother(error, isTaken) : isPassing(error);
      if (!mayHelp || !(error instanceof TomaatError)) throw error;
      if (performance.now() >= endMs) throw isPassing(error) ? new StillAway('', { cause: error }) : error;
      force = true;
      const ms = Math.min(pauseMs(failures, error), Math.max(0, endMs - performance.now()));
      progress.show(
        `retry ${error.code}`,
        `${plain(error.message)} Trying again in ${formatSeconds(ms / 1000)}.`,
      );
      await sleep(ms, undefined, { signal }).catch(() => signal.throwIfAborted());
    }
  }
}

/** A job of an earlier start that was cancelled, or that failed by a fault of the server. */
const isWorthAnother = (error: unknown, isTaken: boolean) =>
  isTaken ||
  (error instanceof TomaatError &&
    (error.code === 'CANCELED' || describeError(error.code).retryable === true));

/** The row of a scan whose result is there already; undefined if it is to be computed. */
async function keptRow(
  { id, results, volume }: BatchScan,
  basis: Basis,
  { ledger, plan, signal }: Batch,
): Promise<Pick<BatchRow, 'state' | 'files' | 'labels' | 'error' | 'job' | 'seconds'> | undefined> {
  const { flags } = plan;
  if (!flags.skipExisting) return undefined;
  const before = ledger.last(id);
  const outdated = (why: string) => ({
    state: 'outdated' as const,
    files: [],
    labels: [],
    error: { code: 'CONFLICT' as const, message: `${why}. The file is kept; --force computes it again.` },
  });
  if (before?.state === 'done') {
    const { files = [], labels = [], job, seconds } = before;
    const areThere = await Promise.all(
      files.map(({ file, sizeBytes }) =>
        stat(file).then(
          ({ size }) => size === sizeBytes,
          () => false,
        ),
      ),
    );
    const change = changeOf(before.basis, basis);
    if (areThere.every(Boolean) && change === undefined) {
      if (flags.delete && job !== undefined) await removeJob(plan.client, job, signal);
      return { state: 'skipped', files, labels, job, seconds };
    }
    if (flags.force || areThere.every((one) => !one)) return undefined;
    return outdated(
      `${files[0]?.file ?? id} is not current: ${change ?? 'one of its files is missing or was changed'}`,
    );
  }
  if (before && changeOf(before.basis, basis) === undefined) return undefined;
  try {
    await checkTargets(results, volume.resultPath, {
      force: flags.force,
      isDicom: volume.dicom !== undefined,
    });
    return undefined;
  } catch (error) {
    if (!(error instanceof TomaatError)) throw error;
    return outdated(`A result of ${volume.path} exists that the record (${ledgerName}) does not know`);
  }
}

/** What an earlier start was killed before: mostly the job is gone already. */
async function removeJob(client: Client, job: string, signal: AbortSignal): Promise<void> {
  try {
    await client.remove(job, { signal });
  } catch (error) {
    if (!(error instanceof TomaatError) || error.code !== 'NOT_FOUND') throw error;
  }
}

/** The labels as the service reports them, or measured in the label map that was written, or in that of the server. */
async function labelsOf(
  { labels, files, job }: Outcome,
  { service, client, signal }: Pick<PredictionPlan, 'service' | 'client'> & { signal?: AbortSignal },
): Promise<LabelRow[]> {
  const isRow = (item: Partial<LabelRow> | null): item is LabelRow =>
    typeof item?.name === 'string' &&
    [item.value, item.voxels, item.volumeMl].every((number) => typeof number === 'number');
  const reported = Array.isArray(labels) ? labels : [];
  const pick = ({ value, name, voxels, volumeMl }: LabelRow) => ({ value, name, voxels, volumeMl });
  if (reported.length > 0 && reported.every(isRow)) return reported.map(pick);
  const types = new Map(service.outputs.map(({ name, type }) => [name, type]));
  const maps = files.filter(({ output }) => types.get(output) === 'LabelVolume');
  const written = maps.find(({ format }) => ['nii', 'nii.gz', 'mha', 'nrrd'].includes(format));
  if (written) return measureLabels(await readVolumeFiles([written.file]), service.labels).map(pick);
  if (maps.length === 0 || job === undefined) return [];
  // A DICOM object has numbers of its own for the labels, and a mesh has no voxels.
  const file = await client.output(job, maps[0].output, { format: 'nii', signal });
  const bytes = new Uint8Array(await (await file.blob()).arrayBuffer());
  const { volume } = await readVolume([sourceFromBytes('labels.nii', bytes)], nodePlatform, { signal });
  return measureLabels(volume, service.labels).map(pick);
}

const silent: Progress = { show() {}, clear() {} };
