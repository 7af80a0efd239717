import type { FileGeometry, Label, OutputFormat, OutputType, StageTimes, VolumeFactsOf } from '@tomaat/core';

/** What the worker does that computes predictions in this browser: the input and output of each task. */

/** The files of each input, as they would be sent. */
export type GivenFiles = Readonly<Record<string, readonly { name: string; blob: Blob }[]>>;

/** A prediction before it runs. */
export interface Plan {
  readonly manifest: {
    /** SHA-256 of its text, 64 hexadecimal digits. */
    readonly sha256: string;
    readonly version: string;
  };
  /** SHA-256 of the networks that run with these parameters, each once. */
  readonly models: readonly string[];
  /** With the defaults of those that were not given. */
  readonly parameters: Record<string, unknown>;
}

/** An output as it was written. */
export interface ComputedOutput {
  readonly name: string;
  readonly type: OutputType;
  readonly label: string;
  readonly primary: boolean;
  readonly format: OutputFormat;
  readonly geometry?: FileGeometry;
  /** `sha256:…` */
  readonly digest: string;
  readonly blob: Blob;
}

export interface Computed {
  readonly outputs: readonly ComputedOutput[];
  readonly inputs: readonly { readonly name: string; readonly digest: string }[];
  /** Milliseconds of each stage. */
  readonly times: StageTimes;
  /** Names and colours of the values of its label maps. */
  readonly labels: readonly Label[];
  readonly engine: string;
}

export type Operations = {
  /**
   * What a prediction would need. TOO_MANY_VOXELS, with the numbers, if it needs more memory than `allowedBytes`. The size
   * of its networks counts once it is known.
   */
  plan: {
    given: {
      manifest: string;
      volumes: Readonly<Record<string, VolumeFactsOf>>;
      values: Readonly<Record<string, unknown>>;
      allowedBytes: number;
      modelBytes?: number;
      /** Of the service's card: bytes that runs of its networks take per voxel, by their SHA-256. */
      runBytes?: Readonly<Record<string, number>>;
    };
    result: Plan;
  };
  /** Computes it. Reports fractions of the whole with the name of the stage. */
  predict: {
    given: {
      manifest: string;
      files: GivenFiles;
      values: Readonly<Record<string, unknown>>;
      frame?: number;
      /** Whether the first volume is a DICOM series: its results become DICOM later, from the original files. */
      isSeries: boolean;
      /** The files of the networks by their SHA-256, which was checked. */
      models: Readonly<Record<string, Blob>>;
      /** Of one run of a network. */
      threads: number;
    };
    result: Computed;
  };
  /** An output in another format. */
  convert: {
    given: Pick<ComputedOutput, 'type' | 'format' | 'geometry' | 'blob'> & {
      to: OutputFormat;
      labels: readonly Label[];
    };
    result: Blob;
  };
};
