import { writeFile } from 'node:fs/promises';
import {
  type Client,
  type FileSource,
  type IdentityDecision,
  isSettled,
  type Job,
  type JobIn,
  type JobOutput,
  requireSuccess,
  type Service,
  verifyReceipt,
} from '@tomaat/client';
import { TomaatError } from '@tomaat/core';
import { anonymousInputs, removedLine } from './anonymous-input.ts';
import { dataFolderOf } from './connect.ts';
import {
  formatBytes,
  formatClock,
  formatSeconds,
  type Progress,
  plain,
  reportsOf,
  systemFault,
} from './console.ts';
import { formatMadeHere, makeDicomResult } from './dicom-result.ts';
import { kindOfFile, prepareSeries } from './dicom-volume.ts';
import { volumeFiles } from './input-files.ts';
import type { Outcome, PredictFlags } from './outcome.ts';
import { noteOwnJob } from './own-jobs.ts';
import type { InputPlan, PlannedVolume } from './plan-inputs.ts';
import { type ResultFile, type ResultPlan, saveResult } from './result-files.ts';

export interface PredictionPlan {
  service: Service;
  client: Client;
  flags: PredictFlags;
  inputs: InputPlan;
  results: ResultPlan;
  /** Whether DICOM files are de-identified. */
  identity: IdentityDecision;
}

export interface PredictionSteps {
  /** Begins every line of progress. */
  readonly prefix: string;
  readonly progress: Progress;
  readonly signal: AbortSignal;
  /** The same key gives the same job; a new one if missing. */
  readonly idempotencyKey?: string;
  /** The job as the server has it, at every change. */
  onJob?(job: Job): void;
  /** Gets what was written, before --delete deletes it on the server. */
  onSaved?(outcome: Outcome): Promise<void>;
  /** Gets the remarks instead of stderr. */
  note?(text: string): void;
}

/** Uploads of at least this size resume after an interruption. */
const resumableAboveBytes = 16 * 1024 * 1024;

/** Sends one volume, waits for its job and writes the results; an abort cancels the job. */
export async function predictVolume(
  plan: PredictionPlan,
  { path, resultPath, dicom }: PlannedVolume,
  {
    prefix,
    progress,
    signal,
    idempotencyKey,
    onJob = () => {},
    onSaved,
    note: noteElsewhere,
  }: PredictionSteps,
): Promise<Outcome> {
  const { client, service, flags, inputs, results } = plan;
  const startTime = performance.now();
  const show = (step: string, text: string) => progress.show(prefix + step, prefix + text);
  const volumes: Record<string, FileSource[]> = {};
  const unchanged: Record<string, FileSource[]> = {};
  const isMain = flags.volume !== undefined && inputs.mainInput !== undefined && !dicom;
  const files = { ...inputs.otherFiles, ...(isMain && { [inputs.mainInput!]: [path] }) };
  for (const [name, paths] of Object.entries(files)) {
    // Only with --keep-identity (checkIdentityFlags).
    const isObject = (await Promise.all(paths.map(kindOfFile))).includes('dicom');
    (isObject ? unchanged : volumes)[name] = (await Promise.all(paths.map(volumeFiles))).flat();
  }

  const reports = reportsOf(progress, flags, signal);
  const note = noteElsewhere ?? ((text: string) => reports.note(prefix + text));
  await using anonymous = flags.keepText ? undefined : await anonymousInputs(volumes);
  if (anonymous && anonymous.removed > 0) note(removedLine(anonymous.removed));
  const series: Record<string, FileSource[]> = {};
  const all = { ...inputs.otherSeries, ...(dicom && { [inputs.mainInput!]: dicom }) };
  for (const [name, one] of Object.entries(all))
    series[name] = [await prepareSeries(one, flags, plan.identity, { signal, show, note })];
  show('upload', 'Uploading');
  let job = await client.predict(service.id, {
    volumes: { ...(anonymous?.volumes ?? volumes), ...unchanged, ...series },
    keepText: true,
    values: inputs.values,
    frame: flags.frame,
    idempotencyKey,
    resumableAboveBytes,
    signal,
    onUpload({ sentBytes, totalBytes }) {
      const percent = Math.floor((100 * sentBytes) / totalBytes);
      show('upload', `Uploading ${formatBytes(sentBytes)} of ${formatBytes(totalBytes)} (${percent} %)`);
    },
  });
  onJob(job);
  await noteOwnJob(
    {
      job: job.id,
      server: client.baseUrl,
      service: service.id,
      input: flags.noteAs ?? path,
      time: new Date().toISOString(),
    },
    await dataFolderOf(flags),
  );
  const sentTime = performance.now();
  const showState = () => {
    if (!isSettled(job)) show(stepOf(job), stateLine(job, sentTime));
  };
  // The clock keeps running between two changes.
  const timer = setInterval(showState, 1000);
  try {
    showState();
    for await (job of client.watch(job.id, { signal })) {
      onJob(job);
      showState();
    }
    clearInterval(timer);
    // Untrusted text from an app or a server, inside one of our lines.
    requireSuccess(job.error ? { ...job, error: { ...job.error, detail: plain(job.error.detail) } } : job);
    // What the server did not keep is not in its DICOM results: they are made here, of the original files.
    const isStripped = dicom !== undefined && job.strippedInputs?.includes(inputs.mainInput!);
    if (isStripped && !plan.identity.deidentify)
      note('The server removed the patient’s identity, and replaced the UIDs, before it stored the files.');
    const isHere = plan.identity.deidentify || isStripped;
    show('fetch', 'Fetching the results');
    const files: ResultFile[] = [];
    for (const planned of results.outputs) {
      const output = job.outputs.find((candidate) => candidate.name === planned.name);
      if (!output) {
        const names = plain(job.outputs.map((candidate) => candidate.name).join(', ')) || 'none';
        throw new TomaatError('APP_OUTPUT', `The job has no output ${planned.name}. Available: ${names}.`);
      }
      const format = planned.format ?? output.format;
      const isStored = format === output.format;
      const made = formatMadeHere(planned, output, dicom, isHere);
      try {
        if (dicom && made) {
          const isAsked = planned.format !== undefined;
          const result = await makeDicomResult({ client, job, output, service }, dicom, made, {
            isAsked,
            frame: flags.frame,
            signal,
            note,
          });
          files.push(
            await saveResult(result.stream, results, resultPath, output.name, result.format, {
              force: flags.force,
              signal,
            }),
          );
          continue;
        }
        const file = await client.output(job.id, output.name, {
          format: isStored ? undefined : format,
          signal,
        });
        const digest = isStored ? output.digest : undefined;
        files.push(
          await saveResult(file.stream, results, resultPath, output.name, format, {
            force: flags.force,
            digest,
            signal,
          }),
        );
      } catch (error) {
        signal.throwIfAborted();
        throw stillThere(error, job, outputAddress(client, job, output, isStored ? undefined : format));
      }
    }
    const receipt = flags.receipt === undefined ? undefined : await saveReceipt(client, job, flags, signal);
    const reported = await readReport(client, job, signal);
    const seconds = Math.round(performance.now() - startTime) / 1000;
    const outcome: Outcome = {
      input: path,
      ...(dicom && { series: dicom.chosen.series.uid }),
      service: service.id,
      name: service.name,
      version: service.version,
      job: job.id,
      seconds,
      files,
      ...(receipt !== undefined && { receipt }),
      ...reported,
    };
    await onSaved?.(outcome);
    if (flags.delete) await client.remove(job.id, { signal });
    return outcome;
  } catch (error) {
    if (signal.aborted) await cancel(client, job, flags);
    throw error;
  } finally {
    clearInterval(timer);
  }
}

const outputAddress = (client: Client, job: Job, output: JobOutput, format: string | undefined): string =>
  `${client.baseUrl.replace(/\/$/, '')}/api/jobs/${job.id}/outputs/${output.name}${format ? `?format=${format}` : ''}`;

/** For a result that was computed but could not be fetched or written: the same error, with the address of the result. */
function stillThere(error: unknown, job: Job, address: string): unknown {
  const system = error as NodeJS.ErrnoException;
  const isSystem = !(error instanceof TomaatError) && typeof system.code === 'string' && system.path;
  if (!(error instanceof TomaatError) && !isSystem) return error;
  const until = job.expiresTime ? ` until ${new Date(job.expiresTime).toLocaleString('sv-SE')}` : '';
  const { code, message } = isSystem
    ? { code: 'BAD_INPUT' as const, message: systemFault(system) }
    : (error as TomaatError);
  return new TomaatError(code, `${message}\nThe result is still on the server${until}: ${address}`, {
    ...(error instanceof TomaatError && { detail: error.detail, field: error.field }),
    cause: error,
  });
}

async function saveReceipt(
  client: Client,
  job: Job,
  flags: PredictFlags,
  signal: AbortSignal,
): Promise<string> {
  const text = await client.receipt(job.id, { signal });
  await verifyReceipt(text);
  await writeFile(flags.receipt!, `${text.trim()}\n`, { flag: flags.force ? 'w' : 'wx' });
  return flags.receipt!;
}

async function cancel(client: Client, job: Job, flags: PredictFlags): Promise<void> {
  try {
    const ended = await client.cancel(job.id, { signal: AbortSignal.timeout(10_000) });
    if (flags.delete && isSettled(ended))
      await client.remove(job.id, { signal: AbortSignal.timeout(10_000) });
    if (flags.quiet) return;
    const isCanceled = ended.state === 'canceled';
    console.error(isCanceled ? 'The job is cancelled.' : `The job had already ${ended.state}.`);
  } catch (error) {
    console.error(`The job ${job.id} could not be cancelled: ${(error as Error).message}`);
  }
}

const stepOf = (job: Job) => `${job.state} ${job.stage ?? ''} ${job.queuePosition ?? ''}`;

function stateLine(job: JobIn<'queued' | 'running'>, sinceTime: number): string {
  const clock = formatClock((performance.now() - sinceTime) / 1000);
  if (job.state === 'queued') {
    const position = job.queuePosition ?? 0;
    return `Waiting${position > 0 ? `, ${position} ahead` : ' to start'} · ${clock}`;
  }
  const share = job.fraction === undefined ? '' : ` · ${Math.floor(100 * job.fraction)} %`;
  const usual = job.expectedSeconds === undefined ? '' : ` · usually ${formatSeconds(job.expectedSeconds)}`;
  return `Running: ${plain(job.stage ?? 'starting')}${share} · ${clock}${usual}`;
}

/** The labels with their volumes, where the service reports them. */
async function readReport(
  client: Client,
  job: Job,
  signal: AbortSignal,
): Promise<Pick<Outcome, 'labels' | 'report'>> {
  const textOf = async (output: JobOutput, wanted: string) => {
    // Without a requested format it is sent as stored, with an entity tag and no conversion.
    const format = output.format === wanted ? undefined : wanted;
    const file = await client.output(job.id, output.name, { format, signal });
    return (await file.blob()).text();
  };
  const measured = job.outputs.find((output) => output.type === 'Measurements');
  if (measured) return JSON.parse(await textOf(measured, 'json')) as { labels?: unknown };
  const text = job.outputs.find((output) => output.type === 'PlainText');
  return text ? { report: await textOf(text, 'txt') } : {};
}
