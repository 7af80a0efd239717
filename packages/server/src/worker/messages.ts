import type { ErrorData, FileGeometry, OutputFormat, StageTimes } from '@tomaat/core';
import type { ModelServers } from '../trust/model-servers.ts';

/** The messages between the supervisor and its children. They carry paths, never bulk data. */

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
  /** Whether an output in a format that cannot be read back is also written in one that can. */
  keepsValues?: boolean;
  /** Whether an empty label map is explained, by a second prediction that is observed. */
  explains?: boolean;
  /** Stages whose volumes are written to the folder too, as core's `traceStages()` names them. */
  traces?: readonly string[];
  /** A folder for the job, created if missing: for outputs, and for the files of a program. */
  folder: string;
  maxVoxels: number;
}

/** The first message to a child whose app uses model servers: what is permitted of them, with their keys. */
export interface PermitMessage {
  type: 'permit';
  modelServers: ModelServers;
}

/** `cancel`: what it runs and the programs that it keeps must end; it is then ended itself. */
export type ToChild = PredictMessage | PermitMessage | { type: 'cancel' };

export interface WrittenOutput extends WrittenFile {
  name: string;
  type: string;
  label: string;
  primary: boolean;
  /** For label maps: their grid as stated in the header of the input. */
  geometry?: FileGeometry;
  /** The same output in a format that can be read back, where `format` cannot. */
  kept?: WrittenFile;
}

export interface WrittenFile {
  format: OutputFormat;
  path: string;
  digest: string;
  sizeBytes: number;
}

/** A volume between two steps of a prediction, in a file. */
export interface WrittenTrace {
  stage: string;
  path: string;
}

export type FromChild =
  | { type: 'ready' }
  | { type: 'progress'; job: string; stage: string; fraction: number }
  | { type: 'log'; job: string; text: string }
  /** A program was started in a separate process group: to end the child, end this group too. */
  | { type: 'spawned'; pid: number }
  | { type: 'exited'; pid: number }
  | {
      type: 'done';
      job: string;
      outputs: WrittenOutput[];
      traces: WrittenTrace[];
      times: StageTimes;
      /** Names of the faster forms in which operators of networks were computed. */
      rewrites: string[];
      empty?: string[];
    }
  /** `bySignal`: its program was stopped by a signal that is not ours. */
  | { type: 'failed'; job?: string; error: ErrorData; bySignal?: boolean };
