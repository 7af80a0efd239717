import type { ErrorData, FileGeometry, OutputFormat, StageTimes } from '@tomaat/core';

/** What the supervisor and its children say to each other. Bytes never travel here: only paths do. */

export interface PredictMessage {
  type: 'predict';
  job: string;
  files: { input: string; path: string; name: string; sizeBytes: number }[];
  parameters: Record<string, unknown>;
  frame?: number;
  series?: string;
  formats?: Record<string, OutputFormat>;
  /** Of which the UIDs of DICOM results are made; random if missing. */
  seed?: string;
  /** A folder for the job, made if it is not there: outputs are written here, and what a program needs. */
  folder: string;
  maxVoxels: number;
}

export type ToChild = PredictMessage | { type: 'cancel' };

export interface WrittenOutput {
  name: string;
  type: string;
  label: string;
  primary: boolean;
  format: OutputFormat;
  path: string;
  digest: string;
  sizeBytes: number;
  /** Of a label map: what the header of the input stated of their grid. */
  geometry?: FileGeometry;
}

export type FromChild =
  | { type: 'ready' }
  | { type: 'progress'; job: string; stage: string; fraction: number }
  | { type: 'log'; job: string; text: string }
  /** A program was started in a process group of its own: whoever ends the child ends this too. */
  | { type: 'spawned'; pid: number }
  | { type: 'exited'; pid: number }
  | { type: 'done'; job: string; outputs: WrittenOutput[]; times: StageTimes }
  /** `bySignal`: its program was asked to stop by somebody else. */
  | { type: 'failed'; job?: string; error: ErrorData; bySignal?: boolean };
