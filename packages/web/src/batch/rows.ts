import type { InputParameter } from '@tomaat/client';
import { findOutliers, type LabelVolume, type Outlier } from '@tomaat/core';
import { keptAt } from '../base.ts';

/**
 * The scans of a batch, as the browser keeps them: names, job ids, states and volumes; no voxels and no files. Those
 * that are not on the server yet need their files again after a reload.
 */
export const rowStates = [
  'checking',
  'unfit',
  'waiting',
  'sending',
  'computing',
  'measuring',
  'done',
  'failed',
] as const;
export type RowState = (typeof rowStates)[number];

export interface BatchRow {
  readonly id: string;
  /** Path of the scan in the selected folder. */
  readonly name: string;
  /** With name and time of change, recognises the same scan when it is dropped again. */
  readonly sizeBytes: number;
  readonly modifiedMs: number;
  readonly state: RowState;
  /** Why it does not fit, or failed. */
  readonly reason?: string;
  /** Of its latest request (store.ts). */
  readonly key?: string;
  readonly jobId?: string;
  /** How much of the upload, or of the computation, is done. */
  readonly fraction?: number;
  readonly volumes?: readonly LabelVolume[];
  /** The result that is measured and saved. */
  readonly output?: { readonly name: string; readonly fileName: string };
}

export interface KeptBatch {
  readonly rows: readonly BatchRow[];
  readonly values: Readonly<Record<string, InputParameter>>;
  readonly running: boolean;
}

export const isOver = ({ state }: Pick<BatchRow, 'state'>): boolean =>
  state === 'done' || state === 'failed' || state === 'unfit';

export const batchKey = (service: string, owner: string | undefined): string =>
  keptAt(`tomaat.batch:${service}:${owner ?? ''}`);

export function readBatch(key: string): KeptBatch | undefined {
  try {
    const kept = JSON.parse(localStorage.getItem(key) ?? 'null') as KeptBatch | null;
    return kept && Array.isArray(kept.rows) ? { ...kept, rows: kept.rows.filter(isRow) } : undefined;
  } catch {
    return undefined;
  }
}

/** If the browser stores nothing, the batch lasts as long as the page. */
export function writeBatch(key: string, batch: KeptBatch): void {
  try {
    if (batch.rows.length === 0) localStorage.removeItem(key);
    else localStorage.setItem(key, JSON.stringify(batch));
  } catch {
    // Full, or forbidden.
  }
}

function isRow(value: unknown): value is BatchRow {
  const row = value as BatchRow;
  return (
    typeof row?.id === 'string' &&
    typeof row.name === 'string' &&
    typeof row.sizeBytes === 'number' &&
    rowStates.includes(row.state)
  );
}

/** The outlier of each row that is over, by id; scans that do not fit count as failed. */
export function outliersOf(rows: readonly BatchRow[]): ReadonlyMap<string, Outlier> {
  const over = rows.filter(isOver);
  const found = findOutliers(
    over.map(({ state, volumes }) => (state === 'done' ? (volumes ?? []) : undefined)),
  );
  return new Map(over.map(({ id }, i) => [id, found[i]]));
}

/** Why a row stands out, in words. */
export function describeOutlier({ reasons }: Outlier): string {
  const words = {
    small: 'unusually small',
    large: 'unusually large',
    missing: 'missing',
    unexpected: 'unexpected',
  };
  return reasons.map(({ name, kind }) => `${name} ${words[kind]}`).join(', ');
}
