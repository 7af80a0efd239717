import { createReadStream } from 'node:fs';
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import {
  type Agreement,
  compareLabels,
  describeWhere,
  identity,
  judge,
  type LabelAgreement,
  leastJudgedVoxels,
  type Manifest,
  type Parity,
  primaryOutput,
  readVolume,
  roundLabels,
  TomaatError,
  traceStages,
  type Verdict,
  type Volume,
  worstVerdict,
} from '@tomaat/core';
import { openApp } from '../apps.ts';
import { nodePlatform } from '../node-platform.ts';
import { version } from '../version.ts';
import { type Child, startChild } from '../worker/child-process.ts';
import { createMemoryPolicy } from '../worker/memory-limit.ts';
import { computeIn, ofThisMachine } from '../worker/run-app.ts';
import { type AuthorStage, type Bisection, bisect } from './bisect.ts';

/*
 * The proof that an app gives what its author's own pipeline gives: predictions of the app, in a child as the server computes
 * them, against the author's label maps, voxel by voxel. The author's side comes as files; nothing of the author's software runs here.
 */

/** One case of the author: what it is computed from, and what the author's own pipeline gives for it. */
export interface AuthorCase {
  /** A name for reports: "oblique". */
  readonly name: string;
  /** The file of each file input. */
  readonly inputs: Readonly<Record<string, string>>;
  /** Values of the other inputs. */
  readonly parameters?: Readonly<Record<string, unknown>>;
  /** The author's label map. */
  readonly expected: string;
  /** How many of its voxels were not whole numbers before they were written, if it is rounded already. */
  readonly fractional?: number;
  /** Whether it was probabilities before it was rounded: then fractions are what they should be. */
  readonly isProbabilities?: boolean;
  /** Volumes between the steps of the author's pipeline; asked for only if the labels are neither equal nor within the noise. */
  readonly dumps?: readonly AuthorDump[] | (() => Promise<readonly AuthorDump[]>);
}

/** A volume of the author's pipeline between two steps, as its exporter writes it: float32, little-endian, x fastest, channels last. */
export interface AuthorDump {
  /** Its name in `traceStages()` of the manifest: `preprocess[1]`, `input`, `window`, `scores`, `activation`, `labels` … */
  readonly stage: string;
  /** The author's step that gives it, as in the author's config: `preprocessing#transforms#3`. */
  readonly source?: string;
  /** The numbers alone, without a header. */
  readonly file: string;
  /** [channels, z, y, x]. */
  readonly dims: readonly number[];
  /** Voxel index to mm in RAS+, row by row; where it is missing, only sizes and values are compared. */
  readonly affine?: readonly number[];
}

export interface ProveOptions {
  readonly appFolder: string;
  readonly cases: readonly AuthorCase[];
  /**
   * By the name of a case: the label map of another run of the author's pipeline (nnU-Net with sums in float32). The voxels in
   * which the author's two label maps differ are the author's own noise.
   */
  readonly noise?: Readonly<Record<string, string>>;
  /** Versions of the author's software, for the report. */
  readonly versions?: Readonly<Record<string, string>>;
  /** How both sides are computed, if not as the author's software does by default: a sentence. */
  readonly conditions?: string;
  readonly signal?: AbortSignal;
  /** Called after each case. */
  onCase?(result: ProvenCase): void;
}

export interface ProvenCase {
  readonly name: string;
  readonly verdict: Verdict;
  readonly voxels: number;
  readonly differ: number;
  readonly agree: number;
  /** Voxels in which two runs of the author's pipeline differ, if there were two. */
  readonly noise?: number;
  readonly labels: readonly (LabelAgreement & { readonly judged: boolean })[];
  /** Where the labels differ, in words. */
  readonly where: readonly string[];
  /** Stage by stage, if the labels differ and the author's volumes are there. */
  readonly bisection?: Bisection;
  /** What weakens the proof. */
  readonly warnings: readonly string[];
  readonly seconds: number;
}

/** What the proof found: `parity` is what the manifest states; all of it is parity.json. */
export interface Proof {
  readonly app: { readonly id: string; readonly name: string; readonly version: string };
  readonly parity: Parity;
  readonly cases: readonly ProvenCase[];
  readonly warnings: readonly string[];
}

/**
 * Runs an app on the author's cases and judges how its label maps agree with the author's.
 * Cases in which neither found a label are listed, not judged.
 * @throws {TomaatError} BAD_INPUT without cases, or if the author found a label in none; BAD_MANIFEST; the errors of a prediction, with the name of its case
 */
export async function proveApp(options: ProveOptions): Promise<Proof> {
  const { appFolder, cases, versions, conditions, signal = new AbortController().signal } = options;
  if (cases.length === 0) throw new TomaatError('BAD_INPUT', 'There is no case to prove. Give one or more.');
  const app = await openApp(appFolder);
  const { manifest } = app;
  if (manifest.outputs[primaryOutput(manifest)]?.type !== 'LabelVolume') {
    throw new TomaatError(
      'BAD_MANIFEST',
      'Only an app whose primary output is a LabelVolume can be compared.',
      {
        field: 'outputs',
      },
    );
  }
  await mustShowLabels(cases);
  const work = await mkdtemp(join(tmpdir(), 'tomaat-prove-'));
  let child: Child | undefined;
  try {
    child = await startChild(app, createMemoryPolicy({ slots: 1 }), () => {});
    const proven: ProvenCase[] = [];
    for (const [index, given] of cases.entries()) {
      const folder = join(work, String(index));
      const result = await namingCase(given, () => proveCase(child!, given, options, folder, signal));
      await rm(folder, { recursive: true, force: true });
      proven.push(result);
      options.onCase?.(result);
    }
    const { id, name, version: appVersion } = manifest;
    // Two empty label maps agree, whatever the app does.
    const compared = proven.filter(({ labels }) => labels.length > 0);
    return {
      app: { id, name, version: appVersion },
      parity: {
        verdict: worstVerdict(compared.map(({ verdict }) => verdict)),
        // Rounded down: 1 says that no voxel differs.
        agree: Math.floor(Math.min(...compared.map(({ agree }) => agree)) * 1e7 + 1e-3) / 1e7,
        cases: compared.length,
        ...(conditions && { conditions }),
        tool: `tomaat ${version}`,
        ...(versions && Object.keys(versions).length > 0 && { versions: { ...versions } }),
      },
      cases: proven,
      warnings: unseenLabels(manifest, proven),
    };
  } finally {
    await child?.stop();
    await rm(work, { recursive: true, force: true });
  }
}

async function mustShowLabels(cases: readonly AuthorCase[]): Promise<void> {
  for (const given of cases) {
    const { labels } = await namingCase(given, async () => roundLabels(await readFrames(given.expected)));
    if (labels.voxels.some((value) => value > 0)) return;
  }
  throw new TomaatError(
    'BAD_INPUT',
    'In no case did the author’s pipeline find a label. Give a case that shows one.',
    { field: 'case' },
  );
}

async function namingCase<T>({ name }: AuthorCase, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    const ours = ofThisMachine(error);
    if (!(ours instanceof TomaatError)) throw ours;
    const { code, message, field } = ours;
    throw new TomaatError(code, `In the case ${name}: ${message}`, { cause: error, field });
  }
}

async function proveCase(
  child: Child,
  given: AuthorCase,
  options: ProveOptions,
  folder: string,
  signal: AbortSignal,
): Promise<ProvenCase> {
  const { manifest } = child.app;
  const { labels, seconds } = await predictLabels(child, given, join(folder, 'labels'), signal);
  const { labels: expected, fractional } = roundLabels(await readFrames(given.expected));
  const agreement = compareLabels(labels, expected);
  const again = options.noise?.[given.name];
  const noise =
    again === undefined
      ? undefined
      : compareLabels(roundLabels(await readFrames(again)).labels, expected).differ;
  const verdict = judge(agreement, noise);
  const isGood = verdict === 'exact' || verdict === 'within noise';
  const dumps = isGood ? [] : typeof given.dumps === 'function' ? await given.dumps() : (given.dumps ?? []);
  const bisection =
    dumps.length > 0
      ? await bisectCase(child, manifest, given, dumps, expected, join(folder, 'traces'), signal)
      : undefined;
  return {
    name: given.name,
    verdict,
    voxels: agreement.voxels,
    differ: agreement.differ,
    agree: agreement.agree,
    ...(noise !== undefined && { noise }),
    labels: agreement.labels.map((label) => ({
      ...label,
      judged: Math.max(label.expected, label.found) >= leastJudgedVoxels,
    })),
    where: describeWhere(agreement),
    ...(bisection && { bisection }),
    warnings: warningsOf(agreement, given.fractional ?? fractional, given.isProbabilities),
    seconds,
  };
}

/** What makes equal voxels say less than they seem to. */
function warningsOf(
  { voxels, labels, sameGrid }: Agreement,
  fractional: number,
  isProbabilities = false,
): string[] {
  const warnings: string[] = [];
  if (isProbabilities)
    warnings.push('the author’s result is probabilities: where they are above 0.5 was compared');
  else if (fractional > 0)
    warnings.push(
      `in ${fractional} of ${voxels} voxels the author’s result is not a whole label number, such as 0.75 between 0 and 1: label numbers were interpolated. They were rounded to compare them`,
    );
  if (!sameGrid)
    warnings.push('the author’s label map lies on another grid than the input; ours was resampled onto it');
  if (labels.length === 0) warnings.push('neither result has a label, so this case is not counted');
  else if (labels.every(({ expected }) => expected === 0))
    warnings.push('the author’s result has no label, so this case proves little');
  return warnings;
}

/** Labels of the manifest that no case has: nothing is known of them. */
function unseenLabels(manifest: Manifest, cases: readonly ProvenCase[]): string[] {
  const seen = new Set(
    cases.flatMap(({ labels }) => labels.filter(({ expected }) => expected > 0).map(({ value }) => value)),
  );
  const unseen = manifest.labels.filter(({ value }) => !seen.has(value));
  if (unseen.length === 0) return [];
  const names = unseen.slice(0, 20).map(({ value, name }) => `${value} (${name})`);
  if (unseen.length > names.length) names.push(`${unseen.length - names.length} more`);
  return [`labels that occur in no case: ${names.join(', ')}`];
}

/** One prediction of the app: its primary label map. */
async function predictLabels(
  child: Child,
  { inputs, parameters = {} }: AuthorCase,
  folder: string,
  signal: AbortSignal,
): Promise<{ labels: Volume; seconds: number }> {
  const files = await filesOf(inputs);
  const formats = { [primaryOutput(child.app.manifest)]: 'nrrd' as const };
  const { outputs, seconds } = await computeIn(child, { files, parameters, formats, folder, signal });
  return { labels: await readFrames(outputs.find(({ primary }) => primary)!.path), seconds };
}

async function filesOf(inputs: Readonly<Record<string, string>>) {
  const files: Record<string, { path: string; sizeBytes: number }[]> = {};
  for (const [name, path] of Object.entries(inputs)) {
    try {
      files[name] = [{ path, sizeBytes: (await stat(path)).size }];
    } catch (error) {
      throw unreadable(path, error);
    }
  }
  return files;
}

/** The same prediction once more, its volumes between the steps compared with the author's. */
async function bisectCase(
  child: Child,
  manifest: Manifest,
  { inputs, parameters = {} }: AuthorCase,
  dumps: readonly AuthorDump[],
  expected: Volume,
  folder: string,
  signal: AbortSignal,
): Promise<Bisection> {
  const order = traceStages(manifest);
  const unknown = dumps.find(({ stage }) => !order.includes(stage));
  if (unknown) {
    throw new TomaatError(
      'BAD_INPUT',
      `${unknown.stage} is not a stage of the app. Available: ${order.join(', ')}.`,
      { field: unknown.stage },
    );
  }
  const author: AuthorStage[] = [];
  for (const dump of dumps) {
    const { stage, source, affine } = dump;
    author.push({ stage, source, placed: affine !== undefined, volume: await readDump(dump) });
  }
  if (!author.some(({ stage }) => stage === 'labels'))
    author.push({ stage: 'labels', placed: true, volume: expected });
  const { traces } = await computeIn(child, {
    files: await filesOf(inputs),
    parameters,
    traces: author.map(({ stage }) => stage),
    folder,
    signal,
  });
  const ours = new Map<string, Volume>();
  for (const { stage, path } of traces) ours.set(stage, await readFrames(path));
  return bisect(order, author, ours);
}

/** A volume with all its frames as components: channels and classes are the fourth dimension of files of other programs. */
async function readFrames(path: string): Promise<Volume> {
  const source = { name: basename(path), open: (start = 0) => createReadStream(path, { start }) };
  try {
    return (await readVolume([source], nodePlatform, { frame: 'all' })).volume;
  } catch (error) {
    throw unreadable(path, error);
  }
}

async function readDump({ stage, file, dims, affine = identity }: AuthorDump): Promise<Volume> {
  const bytes = await readFile(file).catch((error) => {
    throw unreadable(file, error);
  });
  const [components, z, y, x] = dims;
  const count = dims.reduce((a, b) => a * b, 1);
  const isShape =
    dims.length === 4 && affine.length === 16 && dims.every((n) => Number.isInteger(n) && n > 0);
  if (!isShape || bytes.length !== count * 4) {
    throw new TomaatError(
      'BAD_INPUT',
      `The dump ${file} has ${bytes.length} bytes, which are not float32 numbers of [channels, z, y, x] = [${dims.join(', ')}] with an affine of 16 numbers. Write it again.`,
      { field: stage },
    );
  }
  // A copy, because a small file may lie anywhere in a shared buffer.
  return { voxels: new Float32Array(new Uint8Array(bytes).buffer), size: [x, y, z], components, affine };
}

function unreadable(path: string, error: unknown): unknown {
  const { code } = error as NodeJS.ErrnoException;
  if (code !== 'ENOENT' && code !== 'EACCES' && code !== 'EISDIR') return error;
  return new TomaatError('BAD_INPUT', `${path} cannot be read (${code}). Give a file that exists.`, {
    cause: error,
  });
}
