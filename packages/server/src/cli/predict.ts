import { stat, writeFile } from 'node:fs/promises';
import {
  type Client,
  decideIdentity,
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
import { machineId } from '../trust/machine-id.ts';
import { anonymousInputs, removedLine } from './anonymous-input.ts';
import { askOnTerminal, dataFolderOf } from './connect.ts';
import {
  createProgress,
  exitCodeOf,
  formatBytes,
  formatClock,
  formatSeconds,
  type Progress,
  plain,
  printError,
  reportsOf,
  systemFault,
} from './console.ts';
import { checkSeriesFormats, formatMadeHere, makeDicomResult } from './dicom-result.ts';
import { kindOfFile, prepareSeries } from './dicom-volume.ts';
import { findService } from './find-service.ts';
import { stemOf, volumeFiles } from './input-files.ts';
import { openInterrupt } from './interrupt.ts';
import type { Outcome, PredictFlags } from './outcome.ts';
import { noteOwnJob } from './own-jobs.ts';
import { type InputPlan, type PlannedVolume, planInputs } from './plan-inputs.ts';
import { printOutcome } from './print-outcome.ts';
import { checkTargets, planResults, type ResultFile, type ResultPlan, saveResult } from './result-files.ts';

interface Plan {
  service: Service;
  client: Client;
  flags: PredictFlags;
  inputs: InputPlan;
  results: ResultPlan;
  /** Whether DICOM files are de-identified. */
  identity: IdentityDecision;
}

/** `tomaat predict`: returns the exit code. */
export async function predict(wanted: string, flags: PredictFlags): Promise<number> {
  const progress = await createProgress(Boolean(flags.quiet || flags.json));
  let running = false;
  using interrupt = openInterrupt(() => {
    progress.clear();
    if (running && !flags.quiet) console.error('Cancelling the job … (press Ctrl-C again to exit at once)');
  });
  const { signal } = interrupt;
  try {
    progress.show('find', `Looking for ${plain(wanted)}`);
    const { note } = reportsOf(progress, flags, signal);
    const ask = (question: string) => {
      progress.clear();
      return askOnTerminal(question);
    };
    const found = await findService(wanted, { ...flags, signal, note, ask });
    if (found.kind === 'v1') {
      const { predictV1 } = await import('./predict-v1.ts');
      const outcome = await predictV1(found, { ...flags, ask }, progress, signal);
      progress.clear();
      printOutcome(outcome, flags);
      return 0;
    }
    const inputs = await planInputs(found.service, flags, reportsOf(progress, flags, signal));
    const results = await planResults(found.service, flags, inputs.many);
    const { volumes } = inputs;
    if (flags.receipt !== undefined && volumes.length > 1) {
      throw new TomaatError('BAD_INPUT', '--receipt is for one volume. Give one file, or one series.');
    }
    await checkIdentityFlags(flags, inputs);
    checkSeriesFormats(results.outputs, volumes);
    const identity = decideIdentity({
      processing: found.service.processing,
      address: found.client.baseUrl,
      machine: await machineId(),
      wanted: wantedOf(flags),
    });
    const plan: Plan = { service: found.service, client: found.client, flags, inputs, results, identity };
    if (flags.receipt !== undefined && !flags.force && (await stat(flags.receipt).catch(() => undefined))) {
      throw new TomaatError('CONFLICT', `${flags.receipt} already exists. Use --force to overwrite it.`);
    }
    for (const { resultPath, dicom } of volumes)
      await checkTargets(results, resultPath, { force: flags.force, isDicom: dicom !== undefined });
    let exitCode = 0;
    let done = 0;
    for (const [index, volume] of volumes.entries()) {
      const prefix =
        volumes.length > 1 ? `[${index + 1}/${volumes.length}] ${stemOf(volume.resultPath)}: ` : '';
      try {
        const outcome = await predictOne(plan, volume, prefix, progress, signal, (state) => {
          running = state;
        });
        progress.clear();
        printOutcome(outcome, flags);
        done++;
      } catch (error) {
        progress.clear();
        signal.throwIfAborted();
        if (volumes.length === 1) throw error;
        exitCode = exitCode === 1 ? 1 : exitCodeOf(error);
        report(volume, error, flags);
        if (error instanceof TomaatError && hopeless.includes(error.code)) break;
      } finally {
        running = false;
      }
    }
    if (volumes.length > 1 && !flags.quiet && !flags.json) {
      console.log(
        `\n${done} of ${volumes.length} volumes done${done < volumes.length ? '; the errors of the others are shown above' : ''}.`,
      );
    }
    return exitCode;
  } finally {
    progress.clear();
  }
}

/** Errors that the next volume would meet too. */
const hopeless: readonly string[] = ['UNREACHABLE', 'UNAUTHORIZED', 'FORBIDDEN', 'DISK_FULL'];

/**
 * Each kind of file has a flag of its own, which would have no effect on the others. A DICOM object that is no series of images, such
 * as a segmentation, is not de-identified.
 */
async function checkIdentityFlags(flags: PredictFlags, inputs: InputPlan): Promise<void> {
  const { volumes, otherFiles, otherSeries } = inputs;
  const isSeries = volumes.some(({ dicom }) => dicom !== undefined) || Object.keys(otherSeries).length > 0;
  const plain = volumes.flatMap(({ path, dicom }) => (dicom || flags.volume === undefined ? [] : path));
  const kinds = await Promise.all(
    [...plain, ...Object.values(otherFiles).flat()].map(async (path) => ({
      path,
      kind: await kindOfFile(path),
    })),
  );
  const object = kinds.find(({ kind }) => kind === 'dicom');
  if (object && !flags.keepIdentity) {
    throw new TomaatError(
      'BAD_INPUT',
      `${object.path} is a DICOM object without images, such as a segmentation, and names the patient. Use --keep-identity to send it unchanged, or convert it to a label map first, for instance with 3D Slicer.`,
    );
  }
  const isDicom = isSeries || object !== undefined;
  if (flags.keepText && isDicom) {
    throw new TomaatError(
      'BAD_INPUT',
      '--keep-text is for the headers of volume files. DICOM files are sent unchanged with --keep-identity.',
    );
  }
  const [flag] = (
    [
      ['--keep-identity', flags.keepIdentity],
      ['--deidentify', flags.deidentify],
      ['--keep-patient-characteristics', flags.keepPatientCharacteristics],
    ] as const
  ).flatMap(([name, isGiven]) => (isGiven ? [name] : []));
  if (flag !== undefined && !isDicom) {
    throw new TomaatError(
      'BAD_INPUT',
      `${flag} is for DICOM files. The text in the headers of volume files is kept with --keep-text.`,
    );
  }
  if (flags.keepIdentity && (flags.deidentify || flags.keepPatientCharacteristics)) {
    throw new TomaatError(
      'BAD_INPUT',
      `--keep-identity sends the files unchanged, and ${flags.deidentify ? '--deidentify' : '--keep-patient-characteristics'} de-identifies them. Give one of the two.`,
    );
  }
}

function wantedOf(flags: PredictFlags): 'keep' | 'remove' | undefined {
  if (flags.keepIdentity) return 'keep';
  return flags.deidentify || flags.keepPatientCharacteristics ? 'remove' : undefined;
}

function report({ path, dicom }: PlannedVolume, error: unknown, flags: PredictFlags): void {
  const series = dicom?.chosen.series.uid;
  if (flags.json && error instanceof TomaatError) {
    console.log(JSON.stringify({ input: path, ...(series && { series }), error: error.toJSON() }));
    return;
  }
  console.error(`${path}${series ? `, series ${series}` : ''}:`);
  printError(error);
}

/** Uploads of at least this size resume after an interruption. */
const resumableAboveBytes = 16 * 1024 * 1024;

async function predictOne(
  plan: Plan,
  { path, resultPath, dicom }: PlannedVolume,
  prefix: string,
  progress: Progress,
  signal: AbortSignal,
  onRunning: (state: boolean) => void,
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
  const note = (text: string) => reports.note(prefix + text);
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
    resumableAboveBytes,
    signal,
    onUpload({ sentBytes, totalBytes }) {
      const percent = Math.floor((100 * sentBytes) / totalBytes);
      show('upload', `Uploading ${formatBytes(sentBytes)} of ${formatBytes(totalBytes)} (${percent} %)`);
    },
  });
  onRunning(true);
  await noteOwnJob(
    { job: job.id, server: client.baseUrl, service: service.id, input: path, time: new Date().toISOString() },
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
    for await (job of client.watch(job.id, { signal })) showState();
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
    if (flags.delete) await client.remove(job.id, { signal });
    return {
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
