import type { Parity } from '@tomaat/core';

/** One case of the author: what it is computed from, and what the author's own pipeline gives for it. */
export interface AuthorCase {
  /** A name for reports: "oblique". */
  readonly name: string;
  /** The file of each file input. */
  readonly inputs: Readonly<Record<string, string>>;
  /** Values of the other inputs. */
  readonly parameters?: Readonly<Record<string, unknown>>;
  /** The author's label map. */
  readonly expected: string;
  /** Volumes between the steps of the author's pipeline, to find the first one that differs. */
  readonly dumps?: readonly AuthorDump[];
}

/** A volume of the author's pipeline between two steps. */
export interface AuthorDump {
  /** Its name in `traceStages()` of the manifest: `preprocess[1]`, `input`, `window`, `scores`, `activation`, `labels` … */
  readonly stage: string;
  /** A volume file; channels and classes are the fourth dimension. */
  readonly file: string;
  /** Whether the file's affine counts; if false, only its size and voxels are compared. Default true, except for `window`. */
  readonly placed?: boolean;
}

export interface ProveOptions {
  readonly appFolder: string;
  readonly cases: readonly AuthorCase[];
  /**
   * By the name of a case: the label map of another run of the author's pipeline (nnU-Net with sums in float32). The voxels in
   * which the author's two label maps differ are the author's own noise.
   */
  readonly noise?: Readonly<Record<string, string>>;
  /** Versions of the author's software, for the report. */
  readonly versions?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
}

/** What the proof found: `parity` is what the manifest states, the rest goes into parity.json and parity.md. */
export interface Proof {
  readonly parity: Parity;
  readonly cases: readonly unknown[];
}
