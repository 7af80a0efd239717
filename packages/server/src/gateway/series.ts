import type { DicomFile, GatewaySeriesState, GatewayStep } from '@tomaat/client';
import type { SeriesFormat } from '@tomaat/core';
import type { GatewayConfig, Rule } from './config.ts';

/*
 * What the parts of the gateway tell each other about a series. Rows and these facts hold UIDs and descriptions of
 * images, never a patient's name, id, birth date or accession number.
 */

/** What a source knows about a series without its pixels. */
export interface SeenSeries {
  /** Name of the source in the file of rules. */
  readonly source: string;
  readonly study: string;
  readonly series: string;
  readonly modality?: string;
  readonly bodyPart?: string;
  readonly description?: string;
  readonly studyDescription?: string;
  readonly callingAet?: string;
  /** Instances that the source has now. */
  readonly instances: number;
  /** Whether the source says that the series is complete (Orthanc's stable series); otherwise the quiet time counts. */
  readonly isStable?: boolean;
}

/** `waiting` for its quiet time → `queued` → `running` → an end. `queued` again after a passing fault. */
export type SeriesState = GatewaySeriesState;

/** How far it came: each step can be repeated, and leads to the same result. */
export type Step = GatewayStep;

export interface StoredResult {
  readonly format: SeriesFormat;
  /** Name of the service's output that it is made of: a service may have several label maps. */
  readonly output?: string;
  /** Seed of its UIDs; another than the row's where the series has changed since it was stored. */
  readonly seed?: string;
  readonly sopClass: string;
  readonly sopInstance: string;
  readonly series: string;
  /** Names of the destinations that have confirmed it. */
  readonly storedAt: readonly string[];
  /** The earlier result that it names as its predecessor; it is in the same study. */
  readonly replaces?: ResultReference;
}

export interface ResultReference {
  readonly sopClass: string;
  readonly sopInstance: string;
  readonly series: string;
}

/** One series for one rule. */
export interface SeriesRow {
  readonly id: string;
  readonly rule: string;
  readonly source: string;
  readonly study: string;
  readonly series: string;
  readonly modality?: string;
  readonly description?: string;
  readonly state: SeriesState;
  readonly step: Step;
  readonly instances: number;
  /** SHA-256 of the sorted SOP Instance UIDs, once they are known. */
  readonly digest?: string;
  /** Of a series that has grown since: the row of what was stored before. */
  readonly predecessor?: string;
  /** Job on the service, while it is there. */
  readonly job?: string;
  /** Seed of the UIDs of the results (seed.ts). */
  readonly seed?: string;
  readonly results: readonly StoredResult[];
  /** Why it failed, or what the last passing fault was: an error's code and message without a patient's data. */
  readonly reason?: { readonly code: string; readonly message: string };
  /** Passing faults in a row. */
  readonly attempts: number;
  /** Times, ms since 1970. */
  readonly seenAt: number;
  readonly changedAt: number;
  /** When it is looked at next. */
  readonly dueAt: number;
  readonly endedAt?: number;
}

/** Where series come from. */
export interface Source {
  readonly name: string;
  /** All series that it has now and that are young enough, in any order; those seen before, too. */
  search(signal: AbortSignal): AsyncIterable<SeenSeries>;
  /** One series as it is now; undefined if it is gone. */
  look(study: string, series: string, signal: AbortSignal): Promise<SeenSeries | undefined>;
  /** SOP Instance UIDs that it has now. */
  instances(study: string, series: string, signal: AbortSignal): Promise<string[]>;
  /** The files, one after the other, as they are stored. */
  fetch(
    study: string,
    series: string,
    signal: AbortSignal,
  ): AsyncIterable<{ name: string; bytes: Uint8Array }>;
}

/** Where results go. */
export interface Destination {
  readonly name: string;
  /** Stores all; storing the same again changes nothing. @throws TomaatError if one is not stored for certain */
  store(objects: readonly DicomFile[], signal: AbortSignal): Promise<void>;
  /** Asks whether it is there; nothing is stored. @throws TomaatError that passes while it is away */
  ask?(signal: AbortSignal): Promise<void>;
}

/** What the steps of one series work with. */
export interface SeriesContext {
  readonly config: GatewayConfig;
  readonly rule: Rule;
  readonly source: Source;
  readonly destinations: readonly Destination[];
  /** An empty folder for the originals of this row alone; deleted when the steps end, whatever the outcome. */
  readonly folder: string;
  /** The row of `row.predecessor`, with its results. */
  readonly predecessor?: SeriesRow;
  /** Commits progress before the next thing that cannot be repeated at no cost. */
  save(change: Partial<Pick<SeriesRow, 'step' | 'digest' | 'job' | 'seed' | 'results'>>): Promise<void>;
  readonly signal: AbortSignal;
}

/**
 * Takes a row from its step to the end, `done`. @throws TomaatError passing (isPassing of the SDK): the runner tries again;
 * any other: the row fails with this reason
 */
export type ProcessSeries = (row: SeriesRow, context: SeriesContext) => Promise<void>;
