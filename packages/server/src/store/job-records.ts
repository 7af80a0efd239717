import type { settledStates } from '@tomaat/client';
import type { ErrorData, FileGeometry, OutputFormat } from '@tomaat/core';
import type { JobLimits } from './job-limits.ts';

/** What the rest of the server gives and gets of a job: requests, files, records. */

/** What the caller requested besides the files: kept with the job, deleted with it. */
export interface JobRequest {
  parameters: Record<string, unknown>;
  frame?: number;
  /** Which DICOM series, where the files of a volume hold several: its UID, or its number. */
  series?: string;
  formats?: Record<string, OutputFormat>;
  /** First part of the results' file names: the name of the input without its extension. */
  stem: string;
  /** Voxels of the largest input, as its header says. */
  voxels?: number;
}

export interface InputFile {
  /** The input that it belongs to. */
  name: string;
  /** Only its extension has a meaning, and only that is kept. */
  fileName: string;
  digest: string;
  sizeBytes: number;
  /** SHA-256 as received, if identifying text was removed at intake. */
  received?: string;
}

export interface OutputFile {
  name: string;
  type: string;
  label: string;
  primary: boolean;
  format: OutputFormat;
  digest: string;
  sizeBytes: number;
  /** Of a label map: what the header of the input stated of their grid. */
  geometry?: FileGeometry;
}

export interface NewJob {
  service: string;
  owner: string;
  request: JobRequest;
  inputs: readonly InputFile[];
  idempotencyKey?: string;
  /** What makes two requests the same: compared where an idempotency key is used again. */
  fingerprint?: string;
  /** 0 (first) to 7 (last); 3 if missing. */
  urgency?: number;
  /** The limits of the owner. */
  limits?: JobLimits;
}

export type JobRecord = JobAtState & {
  id: string;
  service: string;
  owner: string;
  attempt: number;
  request: JobRequest;
  createdMs: number;
  outputs: OutputFile[];
};

/** What a job has besides, by its state; what it has in other states alone is undefined. */
export type JobAtState =
  | AtState<{ state: 'queued' }>
  // Where it is, is known only while this server runs.
  | AtState<{ state: 'running'; startedMs: number; stage?: string; fraction?: number }>
  | AtState<{ state: 'succeeded'; startedMs: number } & JobEnd>
  | AtState<{ state: 'failed' | 'canceled'; startedMs?: number; error: ErrorData } & JobEnd>;
export interface JobEnd {
  settledMs: number;
  expiresMs: number;
}
type AtState<T> = T & { [name in Exclude<FieldOfState, keyof T>]?: undefined };
type FieldOfState = 'startedMs' | 'stage' | 'fraction' | 'error' | keyof JobEnd;

export interface ClaimedJob {
  id: string;
  service: string;
  attempt: number;
  request: JobRequest;
  inputs: InputFile[];
}

/** A job that has just been settled. */
export interface SettledJob {
  id: string;
  service: string;
  owner: string;
  request: JobRequest;
  state: (typeof settledStates)[number];
  error?: ErrorData;
  createdMs: number;
  startedMs?: number;
  settledMs: number;
  expiresMs: number;
  inputs: readonly InputFile[];
  outputs: readonly OutputFile[];
}

/** Receives the changes of jobs after they were committed, and writes their receipts. */
export interface JobWitness {
  accepted?(job: { id: string } & Pick<NewJob, 'service' | 'owner' | 'inputs'>): void;
  /** What the receipt says; kept and deleted with the job. */
  receiptOf?(job: SettledJob): object | undefined;
  settled?(job: SettledJob): void;
  removed?(job: { id: string; service: string; owner: string }, why: 'deleted' | 'expired'): void;
}
