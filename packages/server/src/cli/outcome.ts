import type { Comparison } from './compare-result.ts';
import type { ConnectOptions } from './connect.ts';
import type { IdentityFlags } from './dicom-volume.ts';
import type { InputFlags } from './plan-inputs.ts';
import type { ResultFile, ResultFlags } from './result-files.ts';

/** The options of `tomaat predict`, and its output for each input. */
export interface PredictFlags extends ConnectOptions, InputFlags, ResultFlags, IdentityFlags {
  frame?: number;
  delete?: boolean;
  /** Sends files unchanged, with their names and the text in their headers. */
  keepText?: boolean;
  /** A file for the signed receipt. */
  receipt?: string;
  /** The flags of a batch. */
  recursive?: boolean;
  jobs?: number;
  csv?: string;
  report?: string;
  skipExisting?: boolean;
  /** Undefined: where the inputs are a BIDS dataset. */
  bids?: boolean;
  retryMinutes?: number;
  /** Gets the first file instead of stdout. */
  onFile?(file: string): void;
  /** What the list of jobs calls the input in place of its path. */
  noteAs?: string;
  quiet?: boolean;
  json?: boolean;
}

/** The outcome of one input; the line that --json prints. */
export interface Outcome {
  input: string;
  /** UID of the DICOM series. */
  series?: string;
  service: string;
  name: string;
  version?: string;
  job?: string;
  seconds: number;
  files: ResultFile[];
  labels?: unknown;
  report?: string;
  /** The result of `tomaat run` compared with the label map of --expected. */
  comparison?: Comparison;
  /** Of `tomaat run`: why the label map is empty, in lines. */
  empty?: readonly string[];
  /** What was sent to a TOMAAT v1 service, which keeps no record of it. */
  parameters?: Readonly<Record<string, string>>;
  /** File of the receipt. */
  receipt?: string;
}
