import type { TomaatError } from '@tomaat/core';
import type { ClaimedJob, InputFile, OutputFile } from '../store/job-records.ts';
import type { WrittenOutput } from './messages.ts';

/**
 * Where the jobs of a supervisor come from: the store of its own process (local-source.ts), or a server elsewhere
 * (remote-source.ts). It is the supervisor's one dependency on that, so that the same supervisor works in both places.
 */
export interface JobSource {
  /** The next job for these services; waits for one. Undefined when `signal` aborts. */
  claim(services: readonly string[], signal: AbortSignal): Promise<ClaimedJob | undefined>;
  /** Where an input lies on this machine; what has to be fetched is put into `folder`, which may have to be made. */
  inputPath(job: ClaimedJob, input: InputFile, folder: string, signal: AbortSignal): Promise<string>;
  /** Whether this attempt is still to be done: it may be cancelled before anyone listens for that. */
  isRunning(job: ClaimedJob): boolean;
  touch(job: ClaimedJob, stage: string, fraction: number): void;
  /** Takes the outputs over and settles the job; false if it is not this attempt's any more. */
  complete(job: ClaimedJob, outputs: readonly WrittenOutput[], seconds: number): Promise<boolean>;
  fail(job: ClaimedJob, error: TomaatError): Promise<boolean>;
  /** Gives a job up that was not done, for others to do. */
  handBack(job: ClaimedJob): Promise<void>;
  /** Calls back with the id of each job that was cancelled, or is not ours any more. */
  onCancel(listener: (id: string) => void): () => void;
}

/** The outputs of a child as a job keeps them. */
export function toOutputFile({ path: _, ...output }: WrittenOutput): OutputFile {
  return output;
}
