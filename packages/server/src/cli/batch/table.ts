import { findOutliers, type Outlier, type TomaatError, textCell } from '@tomaat/core';
import type { ResultFile } from '../result-files.ts';
import type { LabelRow } from './ledger.ts';

/** What became of one scan. `outdated`: an earlier result was kept, which is not one of this input and service. */
export interface BatchRow {
  readonly id: string;
  readonly path: string;
  /** UID of the DICOM series. */
  readonly series?: string;
  readonly state: 'done' | 'skipped' | 'outdated' | 'failed' | 'canceled';
  readonly error?: Pick<TomaatError, 'code' | 'message'>;
  readonly service: string;
  readonly version: string;
  readonly job?: string;
  readonly seconds?: number;
  readonly files: readonly ResultFile[];
  readonly labels: readonly LabelRow[];
}

/** The outlier score of each row with volumes, and the labels that make it. */
export function scoresOf(rows: readonly BatchRow[]): Map<BatchRow, Outlier> {
  const measured = rows.filter(({ labels }) => labels.length > 0);
  const outliers = findOutliers(measured.map(({ labels }) => labels));
  return new Map(outliers.map((outlier, i) => [measured[i], outlier]));
}

/**
 * The table of a batch (RFC 4180, UTF-8): a row for each scan and label. A scan without labels has one row, with empty cells for what
 * is not known.
 */
export function batchCsv(rows: readonly BatchRow[]): string {
  const scores = scoresOf(rows);
  const head =
    'id,path,state,error,message,service,version,job,seconds,result,outlier,label,name,ml,voxels'.split(',');
  const lines = rows.flatMap((row) => {
    const text = [
      row.id,
      row.path,
      row.state,
      row.error?.code,
      row.error?.message,
      row.service,
      row.version,
      row.job,
    ];
    const result = row.files.map(({ file }) => file).join(';');
    const cells = [
      ...text.map((cell) => textCell(cell ?? '')),
      String(row.seconds ?? ''),
      textCell(result),
      scores.get(row)?.score.toFixed(3) ?? '',
    ];
    if (row.labels.length === 0) return [[...cells, '', '', '', '']];
    return row.labels.map(({ value, name, volumeMl, voxels }) => [
      ...cells,
      String(value),
      textCell(name),
      String(volumeMl),
      String(voxels),
    ]);
  });
  return [head, ...lines].map((cells) => `${cells.join(',')}\r\n`).join('');
}
