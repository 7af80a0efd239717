import type { TomaatError } from '@tomaat/core';
import type { Device } from '../runtimes/devices.ts';
import type { ClaimedJob, InputFile, OutputFile } from '../store/jobs/job-records.ts';
import type { WrittenFile, WrittenOutput } from './messages.ts';

/** How the networks of a job were computed; stated in its receipt. */
export interface ComputedBy {
  readonly device: Device;
  /** Names of the rewrites that were used. */
  readonly rewrites: readonly string[];
}

/**
 * Where the jobs of a supervisor come from: the store of its own process (local-source.ts), or a server elsewhere
 * (remote-source.ts). It is the supervisor's one dependency on that, so that the same supervisor works in both places.
 */
export interface JobSource {
  /** The next job for these services; waits for one. Undefined when `signal` aborts, or when it waited long enough in vain. */
  claim(services: readonly string[], signal: AbortSignal): Promise<ClaimedJob | undefined>;
  /** Path of an input on this machine; an input that must be fetched is put into `folder`, which is created if missing. */
  inputPath(job: ClaimedJob, input: InputFile, folder: string, signal: AbortSignal): Promise<string>;
  /** Whether this attempt is still wanted: it may be cancelled before a listener is registered. */
  isRunning(job: ClaimedJob): boolean | Promise<boolean>;
  touch(job: ClaimedJob, stage: string, fraction: number): void;
  /**
   * Takes the outputs over and settles the job, whose networks were computed `by`, also if that has to wait until what it needs is back,
   * or `signal` aborts; false if the job no longer runs this attempt.
   */
  complete(
    job: ClaimedJob,
    outputs: readonly WrittenOutput[],
    seconds: number,
    by: ComputedBy,
    signal: AbortSignal,
  ): Promise<boolean>;
  fail(job: ClaimedJob, error: TomaatError): Promise<boolean>;
  /** Returns an unfinished job, for others to compute. */
  handBack(job: ClaimedJob): Promise<void>;
  /** Calls back with the id of each job that was cancelled or is no longer ours. */
  onCancel(listener: (id: string) => void): () => void;
}

/** The outputs of a child in the form that a job stores. */
export function toOutputFile({ path: _, kept, ...output }: WrittenOutput): OutputFile {
  if (!kept) return output;
  const { path: _kept, ...file } = kept;
  return { ...output, kept: file };
}

/** All files that a child wrote: those of its outputs, and those that are kept besides. */
export const filesOf = (outputs: readonly WrittenOutput[]): WrittenFile[] =>
  outputs.flatMap((output) => [output, ...(output.kept ? [output.kept] : [])]);
