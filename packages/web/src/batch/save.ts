import { formatMl, type LabelVolume, textCell, writeStoredZip, type ZipMember } from '@tomaat/core';
import { stemOf } from '../format.ts';
import { type BatchRow, describeOutlier, outliersOf } from './rows.ts';

/**
 * All rows as comma-separated values (RFC 4180), one line a scan in the order of the list. The columns are those of the
 * service's labels in its order, then of other labels by value, so that tables of several batches have the same ones.
 * Cells of scans without a result are empty.
 */
export function batchToCsv(
  rows: readonly BatchRow[],
  labels: readonly { readonly value: number; readonly name: string }[],
): string {
  const outliers = outliersOf(rows);
  const columns = labelColumns(rows, labels);
  const lines = [
    [
      'scan',
      'state',
      'reason',
      'job',
      'outlier_score',
      'outlier',
      ...columns.map(({ name, value }) => textCell(`${name} (${value}) ml`)),
    ],
    ...rows.map((row) => {
      const outlier = outliers.get(row.id);
      const score = outlier && Number.isFinite(outlier.score) ? String(outlier.score) : '';
      return [
        textCell(row.name),
        row.state,
        textCell(row.state === 'done' ? '' : (row.reason ?? '')),
        row.jobId ?? '',
        score,
        textCell(outlier ? describeOutlier(outlier) : ''),
        ...columns.map(({ value }) =>
          row.state === 'done' && row.volumes ? String(volumeOf(row.volumes, value)) : '',
        ),
      ];
    }),
  ];
  return lines.map((cells) => `${cells.join(',')}\r\n`).join('');
}

/** The labels of a table. */
export function labelColumns(
  rows: readonly BatchRow[],
  labels: readonly { readonly value: number; readonly name: string }[],
): { value: number; name: string }[] {
  const found = new Map(labels.filter(({ value }) => value !== 0).map(({ value, name }) => [value, name]));
  const known = new Set(found.keys());
  for (const { volumes = [] } of rows)
    for (const { value, name } of volumes) if (!found.has(value)) found.set(value, name);
  const all = [...found].map(([value, name]) => ({ value, name }));
  return [
    ...all.filter(({ value }) => known.has(value)),
    ...all.filter(({ value }) => !known.has(value)).sort((a, b) => a.value - b.value),
  ];
}

export const volumeOf = (volumes: readonly LabelVolume[], value: number): number =>
  volumes.find((label) => label.value === value)?.volumeMl ?? 0;

export const shownVolume = (row: BatchRow, value: number): string =>
  row.volumes ? formatMl(volumeOf(row.volumes, value)) : '';

/** All results in one archive, each fetched when it is its turn, under the path of its scan. */
export async function batchToZip(
  rows: readonly BatchRow[],
  csv: string,
  fetchResult: (jobId: string, output: string) => Promise<Blob>,
  onProgress: (done: number, total: number) => void,
): Promise<Blob> {
  const done = rows.filter(({ state, output }) => state === 'done' && output);
  const names = memberNames(done);
  const parts: BlobPart[] = [];
  async function* members(): AsyncGenerator<ZipMember> {
    for (const [i, { jobId, output }] of done.entries()) {
      onProgress(i, done.length);
      const blob = await fetchResult(jobId!, output!.name);
      yield { name: names[i], read: () => blob.stream() as unknown as AsyncIterable<Uint8Array> };
    }
    yield {
      name: 'results.csv',
      read: async function* () {
        yield new TextEncoder().encode(csv);
      },
    };
  }
  // Chunks become Blobs at once: the browser moves large ones to disk.
  for await (const chunk of writeStoredZip(members())) parts.push(new Blob([chunk]));
  return new Blob(parts, { type: 'application/zip' });
}

/** Paths in the archive: printable ASCII, each once, and within the folder it is unpacked in. */
export function memberNames(rows: readonly Pick<BatchRow, 'name' | 'output'>[]): string[] {
  const used = new Set(['results.csv']);
  return rows.map(({ name, output }) => {
    const folders = name.split(/[\\/]/).slice(0, -1);
    const sent = output!.fileName;
    const ending = /(\.[a-z0-9]{1,8}){1,2}$/i.exec(sent)?.[0] ?? '';
    const stem = `${stemOf(name)}_${output!.name}`;
    const path = [...folders, stem]
      .map(plain)
      .filter((part) => part !== '')
      .join('/');
    let chosen = path + ending;
    for (let n = 2; used.has(chosen.toLowerCase()); n++) chosen = `${path}_${n}${ending}`;
    used.add(chosen.toLowerCase());
    return chosen;
  });
}

const plain = (part: string): string => part.replace(/[^\w .()+=,@-]/g, '_').replace(/^\.+/, '');
