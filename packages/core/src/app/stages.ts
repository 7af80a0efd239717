import type { Volume } from '../volume.ts';

/** What is done in a prediction, in this order; the name that progress and errors go by. */
export const stages = ['decode', 'preprocess', 'infer', 'postprocess', 'encode'] as const;
export type Stage = (typeof stages)[number];

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
