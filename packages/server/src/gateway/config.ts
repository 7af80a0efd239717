import type { SeriesFormat } from '@tomaat/core';

/*
 * What a gateway's file of rules says, after it was checked (parse-config.ts). The file is YAML; every name in it that
 * refers to another part exists, every duration is in ms here, and paths are absolute.
 */

export interface GatewayConfig {
  readonly sources: Readonly<Record<string, SourceConfig>>;
  readonly services: Readonly<Record<string, ServiceConfig>>;
  readonly destinations: Readonly<Record<string, DestinationConfig>>;
  /** In the order of the file. A series is processed once for each rule that matches it. */
  readonly rules: readonly Rule[];
  readonly limits: GatewayLimits;
}

/** How a DICOMweb service is reached. Secrets are read from files, never from the file of rules. */
export interface DicomWebAddress {
  readonly url: string;
  /** Value of the Authorization header: "Basic …" or "Bearer …". */
  readonly authorization?: string;
  /** PEM file of authorities to trust besides the system's. */
  readonly caFile?: string;
}

export type SourceConfig =
  | (DicomWebAddress & {
      readonly type: 'dicomweb';
      /** Time between two searches, ms. */
      readonly pollMs: number;
      /** How far back a search looks, by StudyDate, days. */
      readonly sinceDays: number;
      /** After the last change of its number of instances, a series counts as complete, ms. */
      readonly quietMs: number;
    })
  | (DicomWebAddress & {
      /** Orthanc: told by its hook for stable series (deploy/orthanc), and searched like any other for what the hook missed. */
      readonly type: 'orthanc';
      /** Secret that the hook sends. */
      readonly hookSecret: string;
      readonly pollMs: number;
      readonly sinceDays: number;
      readonly quietMs: number;
    })
  | {
      /** A folder, with those in it, into which files are put. They stay there. */
      readonly type: 'folder';
      readonly path: string;
      readonly pollMs: number;
      readonly quietMs: number;
    };

export interface ServiceConfig {
  /** Address of a server; not of a registry. */
  readonly url: string;
  /** Id of the service there. */
  readonly service: string;
  readonly apiKey?: string;
  readonly caFile?: string;
  /** SHA-256 fingerprint of the server's certificate, where no authority vouches for it. */
  readonly fingerprint?: string;
}

export type DestinationConfig =
  | (DicomWebAddress & { readonly type: 'dicomweb' })
  | {
      /** A folder: STUDY/SERIES/INSTANCE.dcm below it. */
      readonly type: 'folder';
      readonly path: string;
    };

export interface Rule {
  readonly id: string;
  readonly when: RuleConditions;
  /** Names in `services` and `destinations`. */
  readonly service: string;
  readonly destinations: readonly string[];
  /** Values of the service's inputs that are not volumes, by name. */
  readonly parameters: Readonly<Record<string, unknown>>;
  /** Objects that are stored: `seg.dcm`, `sr.dcm` … */
  readonly results: readonly SeriesFormat[];
  /** Whether the files are sent with the patient's identity. Default: removed. */
  readonly keepIdentity: boolean;
  /** Keeps the patient's sex, age, size and weight where the rest is removed (SUV needs the weight). */
  readonly keepPatientCharacteristics: boolean;
  /** 0 (first) to 7, as a job's urgency; 3 if the rule has none. */
  readonly urgency: number;
}

/** All that are given must hold. A list means: one of these. */
export interface RuleConditions {
  /** Names in `sources`. */
  readonly sources?: readonly string[];
  /** Codes as in (0008,0060), upper case. */
  readonly modality?: readonly string[];
  readonly bodyPart?: readonly Pattern[];
  /** Of SeriesDescription. */
  readonly description?: readonly Pattern[];
  readonly studyDescription?: readonly Pattern[];
  /** Application entity that sent it, where the source knows it. */
  readonly callingAet?: readonly Pattern[];
  /** Number of images (slices of a volume) and distance of slices, mm: known for certain only from the files. */
  readonly slices?: Range;
  readonly sliceSpacingMm?: Range;
  /** The same conditions, none of which may hold. */
  readonly not?: Omit<RuleConditions, 'not' | 'slices' | 'sliceSpacingMm'>;
}

/** Text with `*` (any characters) and `?` (one character), upper and lower case alike; matched in linear time (patterns.ts). */
export type Pattern = string;

/** Both ends are included. */
export interface Range {
  readonly min?: number;
  readonly max?: number;
}

export interface GatewayLimits {
  /** Series that are processed at the same time. */
  readonly concurrency: number;
  /** First pause after a passing fault, and the longest one, ms; each is twice the one before. */
  readonly firstPauseMs: number;
  readonly longestPauseMs: number;
  /** A series that meets only passing faults for so long fails, ms. */
  readonly giveUpMs: number;
  /** Rows of ended series are deleted after so long, ms. */
  readonly keepMs: number;
  /** Largest series, bytes. */
  readonly maxSeriesBytes: number;
}
