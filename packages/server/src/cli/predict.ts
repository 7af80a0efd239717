import { stat } from 'node:fs/promises';
import { type Client, type FileSource, isSettled, type Job, type JobOutput, requireSuccess, type Service } from '@tomaat/client';
import { outputFormats, parseParameter, TomaatError } from '@tomaat/core';
import { type ConnectOptions } from './connect.ts';
import { createProgress, dim, exitCodeOf, formatBytes, formatSeconds, type Progress, plain, printError } from './console.ts';
import { findService } from './find-service.ts';
import { mustBeFile, stemOf, volumeFiles, volumesIn } from './input-files.ts';
import { openInterrupt } from './interrupt.ts';
import { planOutputs, type PlannedOutput, type ResultFiles, saveOutput, targetOf } from './result-files.ts';

export interface PredictFlags extends ConnectOptions {
  volume?: string;
  input: readonly string[];
  param: readonly string[];
  frame?: number;
  out?: string;
  output: readonly string[];
  all?: boolean;
  format?: string;
  force?: boolean;
  delete?: boolean;
  quiet?: boolean;
  json?: boolean;
}

/** What became of one input; the line that --json prints. */
interface Outcome {
  input: string;
  service: string;
  version: string;
  job: string;
  seconds: number;
  files: { output: string; file: string; format: string; sizeBytes: number }[];
  labels?: unknown;
  report?: string;
}

type InputValue = number | boolean | string | readonly (readonly [number, number, number])[];

interface Plan {
  service: Service;
  client: Client;
  flags: PredictFlags;
  /** The input that --volume fills. */
  mainInput?: string;
  /** Files of the other inputs, the same for every volume. */
  otherFiles: Record<string, readonly FileSource[]>;
  values: Record<string, InputValue>;
  outputs: readonly PlannedOutput[];
  results: ResultFiles;
}

/** `tomaat predict`: gives the exit code. */
export async function predict(wanted: string, flags: PredictFlags): Promise<number> {
  const progress = await createProgress(Boolean(flags.quiet || flags.json));
  let jobId: string | undefined;
  using interrupt = openInterrupt(() => {
    progress.clear();
    if (!flags.quiet) console.error(jobId ? 'Cancelling the job … (Ctrl-C again leaves at once)' : 'Stopping …');
  });
  const { signal } = interrupt;
  try {
    progress.show('find', `Looking for ${plain(wanted)}`);
    const found = await findService(wanted, { ...flags, signal });
    if (found.kind === 'v1') {
      const { predictV1 } = await import('./predict-v1.ts');
      return await predictV1(found, flags, progress, signal);
    }
    const plan = await makePlan(found.client, found.service, flags);
    const paths = await inputPaths(plan);
    for (const path of paths) await checkTargets(plan, path);
    let worst = 0;
    let done = 0;
    for (const [index, path] of paths.entries()) {
      const prefix = paths.length > 1 ? `[${index + 1}/${paths.length}] ${stemOf(path)}: ` : '';
      try {
        const outcome = await predictOne(plan, path, prefix, progress, signal, (id) => {
          jobId = id;
        });
        progress.clear();
        printOutcome(outcome, plan);
        done++;
      } catch (error) {
        progress.clear();
        signal.throwIfAborted();
        if (paths.length === 1) throw error;
        worst = worst === 1 ? 1 : exitCodeOf(error);
        report(path, error, flags);
        if (error instanceof TomaatError && ['UNREACHABLE', 'UNAUTHORIZED', 'FORBIDDEN'].includes(error.code)) break;
      } finally {
        jobId = undefined;
      }
    }
    if (paths.length > 1 && !flags.quiet && !flags.json) {
      const left = paths.length - done;
      console.log(`\n${done} of ${paths.length} volumes done${left > 0 ? `, ${left} not: see above` : ''}.`);
    }
    return worst;
  } finally {
    progress.clear();
  }
}

function report(path: string, error: unknown, flags: PredictFlags): void {
  if (flags.json && error instanceof TomaatError) console.log(JSON.stringify({ input: path, error: error.toJSON() }));
  else {
    console.error(`${path}:`);
    printError(error);
  }
}

async function makePlan(client: Client, service: Service, flags: PredictFlags): Promise<Plan> {
  const inputs = new Map(service.inputs.map((input) => [input.name, input]));
  const fileInputs = service.inputs.filter((input) => input.type === 'volume' || input.type === 'transform');
  const named = flags.input.map((text) => splitPair('--input', text));
  const otherFiles: Record<string, FileSource[]> = {};
  for (const [name, path] of named) {
    const input = inputs.get(name);
    if (!input || !fileInputs.includes(input)) {
      const known = fileInputs.map((candidate) => candidate.name).join(', ') || 'none';
      throw usage(
        input ? `${name} is no file: give it with --param ${name}=VALUE.` : `${service.id} has no input ${name}. Its files are: ${known}.`,
      );
    }
    otherFiles[name] = [...(otherFiles[name] ?? []), ...(input.type === 'volume' ? await volumeFiles(path) : await oneFile(path))];
  }
  const mainInput = fileInputs.find((input) => input.type === 'volume' && !(input.name in otherFiles));
  if (flags.volume && !mainInput) {
    throw usage(
      named.length > 0
        ? `--volume is one too many: every volume of ${service.id} is given by --input.`
        : `${service.id} takes no volume. Its inputs are: ${service.inputs.map((input) => input.name).join(', ') || 'none'}.`,
    );
  }
  const given = new Set([...Object.keys(otherFiles), ...(flags.volume && mainInput ? [mainInput.name] : [])]);
  const missing = fileInputs.filter((input) => !input.optional && !given.has(input.name));
  if (missing.length > 0) {
    const how = missing.map((input) => (input === mainInput ? '--volume FILE' : `--input ${input.name}=FILE`)).join(' ');
    throw usage(`${service.id} needs ${missing.map((input) => input.label ?? input.name).join(' and ')}. Give: ${how}`);
  }

  const values: Plan['values'] = {};
  for (const [name, text] of flags.param.map((item) => splitPair('--param', item))) {
    const input = inputs.get(name);
    if (!input || fileInputs.includes(input)) {
      const known = service.inputs.filter((candidate) => !fileInputs.includes(candidate)).map((candidate) => candidate.name);
      throw usage(
        input
          ? `${name} is a file: give it with --input ${name}=FILE.`
          : `${service.id} has no parameter ${name}. Its parameters are: ${known.join(', ') || 'none'}.`,
      );
    }
    values[name] = parseParameter(name, input, text) as InputValue;
  }
  const points = service.inputs.filter((input) => input.type === 'fiducials' && !input.optional && !(input.name in values));
  if (points.length > 0) {
    throw usage(`${service.id} needs points. Give: ${points.map((input) => `--param ${input.name}="x,y,z;x,y,z"`).join(' ')} (mm, RAS)`);
  }
  const outputs = planOutputs(service, flags);
  const isFolder = flags.volume !== undefined && (await stat(flags.volume)).isDirectory();
  const results: ResultFiles = await planResults(flags, isFolder, outputs);
  return { service, client, flags, mainInput: mainInput?.name, otherFiles, values, outputs: results.outputs, results };
}

async function planResults(flags: PredictFlags, many: boolean, outputs: readonly PlannedOutput[]): Promise<ResultFiles> {
  const { planResultFiles } = await import('./result-files.ts');
  return planResultFiles(flags, many, outputs);
}

async function oneFile(path: string): Promise<FileSource[]> {
  await mustBeFile(path);
  return volumeFiles(path);
}

function splitPair(flag: string, text: string): [string, string] {
  const at = text.indexOf('=');
  if (at < 1) throw usage(`${flag} ${text} lacks a =. Write ${flag} NAME=${flag === '--param' ? 'VALUE' : 'FILE'}.`);
  return [text.slice(0, at), text.slice(at + 1)];
}

function usage(message: string): TomaatError {
  return new TomaatError('BAD_INPUT', message);
}

async function inputPaths({ flags, service, otherFiles }: Plan): Promise<string[]> {
  if (flags.volume === undefined) return [Object.values(otherFiles)[0]?.[0].name ?? service.id];
  if (!(await stat(flags.volume)).isDirectory()) return [flags.volume];
  return volumesIn(
    flags.volume,
    service.outputs.map((output) => output.name),
  );
}

/** Refuses before the upload what could not be written after it. */
async function checkTargets(plan: Plan, path: string): Promise<void> {
  if (plan.flags.force) return;
  for (const output of plan.outputs) {
    const target = targetOf(plan.results, path, output.name, plan.flags.format ?? output.format ?? likelyFormat(path, output));
    await stat(target).then(
      () => {
        throw new TomaatError('CONFLICT', `${target} exists already. Use --force to overwrite it, or -o to write elsewhere.`);
      },
      () => {},
    );
  }
}

/** A result comes in the format of its input where that is possible. */
function likelyFormat(path: string, output: PlannedOutput): string {
  const formats: readonly string[] = outputFormats[output.type];
  const name = path.toLowerCase();
  const same = name.endsWith('.mhd') ? 'mha' : formats.find((format) => name.endsWith(`.${format}`));
  return same !== undefined && formats.includes(same) ? same : formats[0];
}

async function predictOne(
  plan: Plan,
  path: string,
  prefix: string,
  progress: Progress,
  signal: AbortSignal,
  onJob: (id: string) => void,
): Promise<Outcome> {
  const { client, service, flags, mainInput, otherFiles, values } = plan;
  const startTime = performance.now();
  const volumes: Record<string, readonly FileSource[]> = { ...otherFiles };
  if (flags.volume !== undefined && mainInput) volumes[mainInput] = await volumeFiles(path);
  const show = (step: string, text: string) => progress.show(`${prefix}${step}`, prefix + text);

  show('upload', 'Uploading');
  let job = await client.predict(service.id, {
    volumes,
    values,
    frame: flags.frame,
    signal,
    onUpload: ({ sentBytes, totalBytes }) =>
      show(
        'upload',
        `Uploading ${formatBytes(sentBytes)} of ${formatBytes(totalBytes)} (${Math.floor((100 * sentBytes) / totalBytes)} %)`,
      ),
  });
  onJob(job.id);
  const sentTime = performance.now();
  let timer: NodeJS.Timeout | undefined;
  try {
    // The clock goes on between two changes.
    timer = setInterval(() => show(stepOf(job), stateLine(job, sentTime)), 1000);
    show(stepOf(job), stateLine(job, sentTime));
    for await (job of client.watch(job.id, { signal })) show(stepOf(job), stateLine(job, sentTime));
    clearInterval(timer);
    requireSuccess(job);
    show('fetch', 'Fetching results');
    const files: Outcome['files'] = [];
    for (const planned of plan.outputs) {
      const output = job.outputs.find((candidate) => candidate.name === planned.name);
      if (!output) throw new TomaatError('APP_OUTPUT', `The job gave no output ${planned.name}. It gave: ${outputNames(job)}.`);
      files.push(await saveOutput(client, job, output, plan.results, path, { format: flags.format ?? planned.format, force: flags.force, signal }));
    }
    const seconds = Math.round(performance.now() - startTime) / 1000;
    const outcome: Outcome = {
      input: path,
      service: service.id,
      version: service.version,
      job: job.id,
      seconds,
      files,
      ...(await readReport(client, job, signal)),
    };
    if (flags.delete) await client.remove(job.id, { signal });
    return outcome;
  } catch (error) {
    clearInterval(timer);
    if (signal.aborted) await cancel(client, job, flags);
    throw error;
  }
}

const outputNames = (job: Job) => job.outputs.map((output) => output.name).join(', ') || 'none';

async function cancel(client: Client, job: Job, flags: PredictFlags): Promise<void> {
  try {
    const ended = await client.cancel(job.id, { signal: AbortSignal.timeout(10_000) });
    if (flags.delete && isSettled(ended)) await client.remove(job.id, { signal: AbortSignal.timeout(10_000) });
    if (!flags.quiet) console.error(ended.state === 'succeeded' ? 'The job was done already.' : 'The job is cancelled.');
  } catch (error) {
    console.error(`The job ${job.id} could not be cancelled: ${(error as Error).message}`);
  }
}

const stepOf = (job: Job) => `${job.state} ${job.stage ?? ''} ${job.queuePosition ?? ''}`;

function stateLine(job: Job, sinceTime: number): string {
  const elapsed = (performance.now() - sinceTime) / 1000;
  const clock = formatSeconds(Math.round(elapsed));
  if (job.state === 'queued') {
    const position = job.queuePosition ?? 0;
    return `Waiting${position > 0 ? `, ${position} before this one` : ' to start'} · ${clock}`;
  }
  if (job.state !== 'running') return `${job.state} · ${clock}`;
  const share = job.fraction === undefined ? '' : ` ${Math.floor(100 * job.fraction)} %`;
  const usual = job.expectedSeconds === undefined ? '' : ` · usually ${formatSeconds(job.expectedSeconds)}`;
  return `Running: ${plain(job.stage ?? 'starting')}${share} · ${clock}${usual}`;
}

/** The labels with their volumes, where the service reports them. */
async function readReport(client: Client, job: Job, signal: AbortSignal): Promise<Pick<Outcome, 'labels' | 'report'>> {
  const measured = job.outputs.find((output) => output.type === 'Measurements');
  if (measured) return { labels: JSON.parse(await textOf(client, job, measured, signal)) };
  const text = job.outputs.find((output) => output.type === 'PlainText');
  return text ? { report: await textOf(client, job, text, signal) } : {};
}

async function textOf(client: Client, job: Job, output: JobOutput, signal: AbortSignal): Promise<string> {
  const file = await client.output(job.id, output.name, { signal });
  return (await file.blob()).text();
}

function printOutcome(outcome: Outcome, plan: Plan): void {
  const { flags, service } = plan;
  if (flags.json) {
    console.log(JSON.stringify(outcome));
    return;
  }
  for (const { file } of outcome.files) console.log(file);
  if (flags.quiet) return;
  const lines = labelLines(outcome.labels);
  if (lines.length > 0) console.log(lines.join('\n'));
  else if (outcome.report) console.log(indent(plain(outcome.report).trimEnd()));
  console.log(dim(`  ${plain(service.name)} ${plain(service.version)} · ${formatSeconds(outcome.seconds)}`, process.stdout));
}

const indent = (text: string) => text.replace(/^(?=.)/gm, '  ');

/** A line for each label that is there, with its volume. */
function labelLines(labels: unknown): string[] {
  const list = Array.isArray(labels) ? labels : (labels as { labels?: unknown } | undefined)?.labels;
  if (!Array.isArray(list)) return [];
  const rows = list
    .filter((item): item is { name: string; volumeMl: number } => typeof item?.name === 'string' && typeof item?.volumeMl === 'number')
    .filter((item) => item.volumeMl > 0)
    .map((item) => [plain(item.name), item.volumeMl < 10 ? item.volumeMl.toFixed(2) : item.volumeMl.toFixed(1)]);
  const widths = [0, 1].map((column) => Math.max(0, ...rows.map((row) => row[column].length)));
  return rows.map(([name, volume]) => `  ${name.padEnd(widths[0])}  ${volume.padStart(widths[1])} ml`);
}
