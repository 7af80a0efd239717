import type { JobState } from '@tomaat/client';
import type { ErrorData, FileGeometry, OutputFormat } from '@tomaat/core';
import type { JobLimits } from './job-limits.ts';

/** What the rest of the server gives and gets of a job: requests, files, records. */

/** What the caller asked for beside the files: kept with the job, deleted with it. */
export interface JobRequest {
  parameters: Record<string, unknown>;
  frame?: number;
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
  /** SHA-256 as it came, where identifying text was taken out of it at intake. */
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
  /** What the owner may use at most. */
  limits?: JobLimits;
}

export interface JobRecord {
  id: string;
  service: string;
  owner: string;
  state: JobState;
  attempt: number;
  request: JobRequest;
  createdMs: number;
  startedMs?: number;
  settledMs?: number;
  expiresMs?: number;
  error?: ErrorData;
  outputs: OutputFile[];
  /** Known only while this server runs: where a running job is. */
  stage?: string;
  fraction?: number;
}

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
  state: 'succeeded' | 'failed' | 'canceled';
  error?: ErrorData;
  createdMs: number;
  startedMs?: number;
  settledMs: number;
  expiresMs: number;
  inputs: readonly InputFile[];
  outputs: readonly OutputFile[];
}

/** Who is told what becomes of jobs, after it was committed, and writes their receipts. */
export interface JobWitness {
  accepted?(job: { id: string } & Pick<NewJob, 'service' | 'owner' | 'inputs'>): void;
  /** What the receipt says; kept and deleted with the job. */
  receiptOf?(job: SettledJob): object | undefined;
  settled?(job: SettledJob): void;
  removed?(job: { id: string; service: string; owner: string }, why: 'deleted' | 'expired'): void;
}
