import type { settledStates } from '@tomaat/client';
import type { ErrorData, FileGeometry, OutputFormat } from '@tomaat/core';
import type { QueryExecutorProvider } from 'kysely';
import type { JobLimits } from './job-limits.ts';

/** The types through which the rest of the server sees a job: requests, files, records. */

/** What the caller requested besides the files: kept with the job, deleted with it. */
export interface JobRequest {
  parameters: Record<string, unknown>;
  frame?: number;
  /** Which DICOM series, where the files of a volume hold several: its UID, or its number. */
  series?: string;
  formats?: Record<string, OutputFormat>;
  /** Inputs from which something was removed at intake; of DICOM files the UIDs are replaced. */
  stripped?: string[];
  /** First part of the results' file names: the name of the input without its extension. */
  stem: string;
  /** Voxels of the largest input, from its header. */
  voxels?: number;
}

export interface InputFile {
  /** The input to which it belongs. */
  name: string;
  /** Only its extension is used and kept. */
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
  /** For a label map: the grid as stated in the header of the input. */
  geometry?: FileGeometry;
  /** The same output in a format that can be read back, where `format` cannot: other formats are made of it. */
  kept?: Pick<OutputFile, 'format' | 'digest' | 'sizeBytes'>;
}

export interface NewJob {
  service: string;
  owner: string;
  request: JobRequest;
  inputs: readonly InputFile[];
  idempotencyKey?: string;
  /** Equal for equal requests: compared when an idempotency key is reused. */
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

/** The fields of a job that depend on its state; those of other states are undefined. */
export type JobAtState =
  | AtState<{ state: 'queued' }>
  // Its progress is known only while this server runs.
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
  /** Names of the faster forms in which operators of its networks were computed. */
  rewrites: readonly string[];
  /** What computed its networks, as --device names it. Known of a job that has succeeded. */
  device?: string;
}

/**
 * Records changes of jobs, and writes their receipts. Each is called as the last statement of the transaction of the change,
 * with its query builder: what it writes there is committed together with the change, and what it does elsewhere is for
 * `afterCommit()`.
 */
export interface JobWitness {
  accepted?(
    job: { id: string } & Pick<NewJob, 'service' | 'owner' | 'inputs'>,
    trx: QueryExecutorProvider,
  ): Promise<void> | undefined;
  /** The content of the receipt; kept and deleted with the job. */
  receiptOf?(job: SettledJob, trx: QueryExecutorProvider): Promise<object | undefined> | object | undefined;
  settled?(job: SettledJob, trx: QueryExecutorProvider): Promise<void> | undefined;
  /** Its owner keeps it longer. */
  kept?(
    job: { id: string; service: string; owner: string },
    trx: QueryExecutorProvider,
  ): Promise<void> | undefined;
  removed?(
    job: { id: string; service: string; owner: string },
    why: 'deleted' | 'expired',
    trx: QueryExecutorProvider,
  ): Promise<void> | undefined;
}
