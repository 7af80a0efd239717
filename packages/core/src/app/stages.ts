import { describeError, TomaatError } from '../errors.ts';
import type { Volume } from '../volume.ts';

/** What is done in a prediction, in this order; the name that progress and errors go by. */
export const stages = ['decode', 'preprocess', 'infer', 'postprocess', 'encode'] as const;
export type Stage = (typeof stages)[number];

/** Where each stage begins and ends in the progress of the whole; `modelStages` in a part of theirs, if there are several networks. */
const share: Record<Stage, readonly [number, number]> = {
  decode: [0, 0.05],
  preprocess: [0.05, 0.1],
  infer: [0.1, 0.9],
  postprocess: [0.9, 0.96],
  encode: [0.96, 1],
};

/** What is done for each network: in the progress between `modelsBegin` and `modelsEnd`. */
const modelStages: readonly Stage[] = ['preprocess', 'infer', 'postprocess'];
const [modelsBegin] = share.preprocess;
const [, modelsEnd] = share.postprocess;

/** One of the networks of a prediction: which part of the work is done before it, and which part its own is. */
export interface Part {
  readonly before: number;
  readonly share: number;
  /** Its name in errors. */
  readonly name?: string;
}
const wholeWork: Part = { before: 0, share: 1 };
/** What comes before the first network. */
export const nothingDone: Part = { before: 0, share: 0 };

function spanOf(stage: Stage, part: Part): readonly [from: number, to: number] {
  const [from, to] = share[stage];
  if (!modelStages.includes(stage)) return [from, to];
  const begin = modelsBegin + (modelsEnd - modelsBegin) * part.before;
  const within = (fraction: number) => begin + (fraction - modelsBegin) * part.share;
  return [within(from), within(to)];
}

/** Milliseconds. */
export type StageTimes = Record<Stage, number>;

/** Reports how much of a stage is done, 0…1. */
export type Report = (fraction: number) => void;

/** Runs a stage, of one of the networks if there are several. */
export type RunStage = <T>(name: Stage, work: (report: Report) => Promise<T>, part?: Part) => Promise<T>;

/** Runs the stages of one prediction: measures their times, reports progress, and adds the name of the stage to errors. */
export function createStages(context: {
  signal?: AbortSignal;
  onProgress?(stage: Stage, fraction: number): void;
}): { times: StageTimes; stage: RunStage } {
  const times: StageTimes = { decode: 0, preprocess: 0, infer: 0, postprocess: 0, encode: 0 };
  const stage: RunStage = async (name, work, part = wholeWork) => {
    context.signal?.throwIfAborted();
    const [from, to] = spanOf(name, part);
    const report = (fraction: number) =>
      context.onProgress?.(name, from + (to - from) * Math.min(1, Math.max(0, fraction)));
    report(0);
    const start = performance.now();
    try {
      return await work(report);
    } catch (error) {
      if (error instanceof TomaatError) throw withName(error, part.name);
      if (context.signal?.aborted) throw error;
      // For the author: the message of the engine or the app's own code, and the stage.
      const where = part.name === undefined ? `${name} stage` : `${name} stage (${part.name})`;
      throw new TomaatError('APP_FAILED', `The app failed in its ${where}: ${messageOf(error)}`, {
        cause: error,
      });
    } finally {
      times[name] += performance.now() - start;
      report(1);
    }
  };
  return { times, stage };
}

/** A fault of one of several networks says whose it is. */
function withName(error: TomaatError, name: string | undefined): TomaatError {
  const { code, message, field, detail, cause } = error;
  if (name === undefined || describeError(code).fault !== 'app') return error;
  return new TomaatError(code, `${name}: ${message}`, { field: field ?? 'model', detail, cause });
}

function messageOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split('\n')[0].slice(0, 500);
}

/**
 * Takes the volumes between the steps of a prediction, to compare them with those of another implementation. A volume is
 * valid until the promise settles: later steps may reuse its memory.
 */
export interface Trace {
  /** The names of the wanted ones, of `traceStages()`. */
  readonly stages: readonly string[];
  take(stage: string, volume: Volume): Promise<void>;
}

/** Passes a volume to the trace, if it is wanted. */
export async function traceVolume(trace: Trace | undefined, stage: string, volume: Volume): Promise<void> {
  if (trace?.stages.includes(stage)) await trace.take(stage, volume);
}
