import { canaryTensor, type LabelTensor, type NetworkSession, type Tensor, TomaatError } from '@tomaat/core';
import { differenceOf } from './canary.ts';
import type { FreeMemory } from './onnx-options.ts';
import { type RewrittenGraph, rewriteGraph } from './rewrite-graph.ts';
import { rewrites } from './rewrites/table.ts';

/*
 * Which form of a network computes: the faster one with all rewrites; the one without those that have to be timed, where they do not gain or
 * do not fit into the memory; or the original.
 */

/** What was done with a graph when it was loaded. */
export interface GraphChoice {
  /** How often each rewrite was applied, by its name; empty if the original graph computes. */
  readonly applied: Readonly<Record<string, number>>;
  /** Why the original graph computes. */
  readonly left?: string;
}

/** What a network takes with the timed rewrites, and without them. */
export interface FormTrial {
  /** CPU time of a run of the same volume, milliseconds. */
  readonly plainMs: number;
  readonly timedMs: number;
  /** Memory of the process for each voxel of the input, with the timed rewrites. */
  readonly bytesPerVoxel: number;
}

/** Where the trial of a network is kept; see measured.ts. */
export interface TrialRecord {
  /** Undefined if there is none that holds for this machine. */
  recall(): Promise<FormTrial | undefined>;
  keep(trial: FormTrial): Promise<void>;
}

export interface FormSession extends NetworkSession {
  /** A first run on zeros. */
  warmUp(dims: readonly number[]): Promise<void>;
  close(): Promise<void>;
}

export interface FasterOptions {
  /** Dimensions for the comparison, the first that the network takes. */
  readonly tries: readonly (readonly number[])[];
  /** Dimensions of the first run of the session, if there is to be one. */
  readonly warmDims?: readonly number[];
  readonly record?: TrialRecord;
  /** Whether a trial is made if none is kept; true if missing. Without one the timed rewrites are not used. */
  readonly makesTrial?: boolean;
  /** What this process may still take; the timed rewrites are then used up to a half of it. */
  readonly freeMemory?: () => FreeMemory | undefined;
  /** Is told of a trial. */
  readonly log?: (text: string) => void;
}

export interface Faster<S> {
  readonly session: S;
  readonly choice: GraphChoice;
  readonly isWarm?: boolean;
  /** Of a form with timed rewrites: whether a run of these dimensions fits into the memory; see `withLighter`. */
  readonly fits?: (dims: readonly number[]) => boolean;
}

/** A form of the network; without bytes the original. */
interface Form {
  readonly bytes?: Uint8Array;
  readonly applied: Readonly<Record<string, number>>;
}

/** The timed rewrites have to save this part of the time, or more: less is noise. */
const leastGain = 0.05;
/** Largest volume of a trial of a network that takes any: 32 × 64 × 128. */
const trialVoxelsMax = 2 ** 18;
/** No further run of a trial begins after this time. */
const trialMs = 1000;
const trialRuns = 4;

/**
 * Opens a rewritten form of a model instead of `original`, if a rewrite applies and both give the same result. Returns the session to use,
 * which is `original` where nothing is rewritten; otherwise that is closed. A form that cannot run on a window, such as
 * for lack of memory, is not used either.
 * @param open loads a model into the engine; without one, the original again
 */
export async function openFaster<S extends FormSession>(
  model: Uint8Array,
  original: S,
  options: FasterOptions,
  open: (model?: Uint8Array) => Promise<S>,
): Promise<Faster<S>> {
  const keep = (left: string) => ({ session: original, choice: { applied: {}, left } });
  const rewritten = rewriteGraph(model);
  if ('left' in rewritten) return keep(rewritten.left);
  const expected = await firstResult(original, options.tries);
  if (!expected) return keep('it takes no volume that is small enough to compare both forms');
  // Two at once would need twice the memory.
  await original.close();

  const reasons = new Set<string>();
  const attempt = attemptWith(expected, open, reasons);
  const warm = async (session: S) => {
    if (options.warmDims && options.warmDims.join() !== expected.dims.join())
      await session.warmUp(options.warmDims);
  };
  const timed = isTimed(rewritten.applied);
  const lighter = async (): Promise<Faster<S>> => {
    const plain: Form = timed ? withoutTimed(model) : rewritten;
    const session = plain.bytes && (await attempt(plain, warm));
    if (session) return { session, choice: { applied: plain.applied }, isWarm: true };
    const left = reasons.size > 0 ? `rewritten, ${[...reasons].join('; ')}` : 'no rewrite gains anything';
    return { session: await open(), choice: { applied: {}, left } };
  };

  if (!timed) return lighter();
  const { dims } = expected;
  const { trial, session: tried } = await trialOf(model, rewritten, { ...options, dims }, attempt);
  const gains = trial && trial.timedMs <= (1 - leastGain) * trial.plainMs;
  const fits = fitsMemory(trial?.bytesPerVoxel ?? 0, options.freeMemory);
  if (!gains || (options.warmDims && !fits(options.warmDims))) {
    await tried?.close();
    return lighter();
  }
  const session = await attempt(rewritten, warm, tried);
  if (!session) return lighter();
  return { session, choice: { applied: rewritten.applied }, isWarm: true, fits };
}

const isTimed = (applied: GraphChoice['applied']): boolean =>
  rewrites.some(({ name, isTimed }) => isTimed && name in applied);

/** The form without the timed rewrites. */
function withoutTimed(model: Uint8Array): Form {
  const plain: RewrittenGraph = rewriteGraph(
    model,
    rewrites.filter(({ isTimed }) => !isTimed),
  );
  return 'left' in plain ? { applied: {} } : plain;
}

async function firstResult(session: NetworkSession, tries: readonly (readonly number[])[]) {
  for (const dims of tries) {
    // Networks refuse sizes that they cannot halve.
    const result = await session.run(canaryTensor(dims)).catch(() => undefined);
    if (result) return { dims, result };
  }
  return undefined;
}

/** Opens a form, unless it is open, compares it, and uses it; undefined if it cannot be used. */
type Attempt<S> = (form: Form, use: (session: S) => Promise<void>, isOpen?: S) => Promise<S | undefined>;

/** @param reasons gets why a form cannot be used */
function attemptWith<S extends FormSession>(
  expected: { dims: readonly number[]; result: Tensor | LabelTensor },
  open: (model?: Uint8Array) => Promise<S>,
  reasons: Set<string>,
): Attempt<S> {
  return async (form, use, isOpen) => {
    let session = isOpen;
    try {
      session ??= await open(form.bytes);
      const isCompared = form.bytes === undefined || isOpen !== undefined;
      const difference = isCompared
        ? undefined
        : differenceOf(expected.result, await session.run(canaryTensor(expected.dims)));
      if (difference === undefined) {
        await use(session);
        return session;
      }
      reasons.add(difference);
    } catch (error) {
      reasons.add(error instanceof Error ? error.message : String(error));
    }
    await session?.close();
    return undefined;
  };
}

/** The trial that is kept, or a new one, with the session of the timed form; nothing if a form cannot be used. */
async function trialOf<S extends FormSession>(
  model: Uint8Array,
  rewritten: Form,
  { tries, dims, record, makesTrial = true, log }: FasterOptions & { readonly dims: readonly number[] },
  attempt: Attempt<S>,
): Promise<{ trial?: FormTrial; session?: S }> {
  const kept = await record?.recall();
  if (kept) return { trial: kept };
  if (!makesTrial) return {};
  let used = tries.findLast((each) => voxelsOf(each) <= trialVoxelsMax) ?? dims;
  const time = async (form: Form) => {
    const before = process.memoryUsage.rss();
    let ms = 0;
    const session = await attempt(form, async (opened) => {
      const first = await opened.run(canaryTensor(used)).catch(() => undefined);
      if (!first) used = dims;
      ms = await cpuMsOf(opened, used);
    });
    return session && { session, ms, bytes: process.memoryUsage.rss() - before };
  };
  const plain = await time(withoutTimed(model));
  await plain?.session.close();
  const faster = plain && (await time(rewritten));
  if (!faster) return {};
  const bytesPerVoxel = Math.max(0, Math.round(faster.bytes / voxelsOf(used)));
  const trial = { plainMs: plain.ms, timedMs: faster.ms, bytesPerVoxel };
  const names = rewrites.flatMap(({ name, isTimed }) => (isTimed && name in rewritten.applied ? [name] : []));
  log?.(
    `${names.join(', ')}: ${(faster.ms / plain.ms).toFixed(2)} of the time without it, in a trial on this machine`,
  );
  await record?.keep(trial);
  return { trial, session: faster.session };
}

/** CPU time of a run, the least of several: other processes of a busy machine do not count. */
async function cpuMsOf(session: NetworkSession, dims: readonly number[]): Promise<number> {
  const input = canaryTensor(dims);
  const startMs = performance.now();
  let least = Number.POSITIVE_INFINITY;
  for (let run = 0; run < trialRuns && (run === 0 || performance.now() - startMs < trialMs); run++) {
    const before = process.cpuUsage();
    await session.run(input);
    const { user, system } = process.cpuUsage(before);
    least = Math.min(least, (user + system) / 1000);
  }
  return least;
}

const voxelsOf = (dims: readonly number[]): number => dims.reduce((a, b) => a * b, 1);

/** Whether a run takes at most half of the free memory. A size that has run once has its memory. */
function fitsMemory(bytesPerVoxel: number, freeMemory: FasterOptions['freeMemory']) {
  let largest = 0;
  return (dims: readonly number[]): boolean => {
    const voxels = voxelsOf(dims);
    if (voxels <= largest) return true;
    const free = freeMemory?.();
    if (free && voxels * bytesPerVoxel > Math.min(free.resident, free.data) / 2) return false;
    largest = voxels;
    return true;
  };
}

/**
 * The session, which is replaced by one of the original graph for a volume that needs too much memory in the timed form: its size is known only
 * when it runs.
 */
export function withLighter<S extends FormSession & { readonly graph: GraphChoice }>(
  first: S,
  fits: (dims: readonly number[]) => boolean,
  openOriginal: () => Promise<S>,
): S {
  let current = first;
  let graph = first.graph;
  const stepDown = async () => {
    await current.close();
    current = await openOriginal();
    graph = { applied: {}, left: 'its faster form needs more memory than is free' };
  };
  const runBy =
    <Input extends { dims: readonly number[] }, Result>(run: (session: S, input: Input) => Promise<Result>) =>
    async (input: Input): Promise<Result> => {
      if (current === first && !fits(input.dims)) await stepDown();
      try {
        return await run(current, input);
      } catch (error) {
        const isFull = error instanceof TomaatError && error.code === 'OUT_OF_MEMORY';
        if (!isFull || current !== first) throw error;
      }
      await stepDown();
      return run(current, input);
    };
  return Object.defineProperties(
    {
      ...first,
      run: runBy((session, input: Tensor) => session.run(input)),
      ...(first.runLabels && {
        runLabels: runBy((session, input: Tensor) => session.runLabels!(input)),
      }),
      close: () => current.close(),
    },
    {
      graph: { get: () => graph, enumerable: true },
      rewrites: { get: () => (current === first ? first.rewrites : undefined), enumerable: true },
    },
  );
}
