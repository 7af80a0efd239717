import { stat } from 'node:fs/promises';
import type { Service } from '@tomaat/client';
import { TomaatError } from '@tomaat/core';
import { writeWhole } from '../../store/files/whole-file.ts';
import { formatSeconds, type Progress, plain } from '../console.ts';
import type { PredictFlags } from '../outcome.ts';
import { writeFault } from '../result-files.ts';
import type { BatchScan } from './plan-batch.ts';
import { type BatchRow, batchCsv } from './table.ts';

/** Refuses a table or page that would overwrite another file: with --skip-existing they are those of the same batch. */
export async function checkSummaries(flags: PredictFlags): Promise<void> {
  if (flags.force || flags.skipExisting) return;
  for (const [flag, file] of [
    ['--csv', flags.csv],
    ['--report', flags.report],
  ] as const) {
    if (file !== undefined && (await stat(file).catch(() => undefined)))
      throw new TomaatError('CONFLICT', `${flag} ${file} already exists. Use --force to overwrite it.`);
  }
}

/** Writes --csv and --report, each complete or not at all. */
export async function writeSummaries(
  service: Service,
  rows: readonly BatchRow[],
  scans: readonly BatchScan[],
  flags: PredictFlags,
  progress: Progress,
): Promise<void> {
  if (flags.csv !== undefined) await write(flags.csv, batchCsv(rows));
  if (flags.report === undefined) return;
  const { pictureOf, reportHtml } = await import('./report.ts');
  const pictures = new Map<BatchRow, string>();
  for (const [i, row] of rows.entries()) {
    progress.show('report', `Drawing scan ${i + 1} of ${rows.length} for ${flags.report}`);
    const picture = await pictureOf(row, scans[i].volume, service.labels, flags.frame);
    if (picture !== undefined) pictures.set(row, picture);
  }
  progress.clear();
  const title = `${service.name} ${service.version}`;
  await write(flags.report, reportHtml(title, rows, pictures));
}

async function write(file: string, text: string): Promise<void> {
  try {
    await writeWhole(file, text, { mode: 0o644 });
  } catch (error) {
    throw writeFault(error, file);
  }
}

/** The line of a scan that has ended. */
export function printRow(row: BatchRow, count: string, flags: PredictFlags): void {
  if (flags.json) {
    console.log(JSON.stringify(row));
    return;
  }
  if (flags.quiet) {
    for (const { file } of row.files) console.log(file);
    return;
  }
  const what =
    row.state === 'done'
      ? `${row.files.map(({ file }) => file).join(' ')} · ${formatSeconds(row.seconds ?? 0)}`
      : row.state === 'skipped'
        ? 'is current, skipped'
        : `${row.state}${row.error ? `: ${firstLine(row.error.message)}` : ''}`;
  console.log(plain(`${count} ${row.id} → ${what}`));
}

/** How many of what, and each failure with its reason, on stderr. */
export function printSummary(rows: readonly BatchRow[], flags: PredictFlags): void {
  const of = (...states: BatchRow['state'][]) => rows.filter(({ state }) => states.includes(state));
  const bad = of('failed', 'outdated');
  if (!flags.json && !flags.quiet) {
    const parts = (['done', 'skipped', 'outdated', 'failed', 'canceled'] as const)
      .map((state) => [state, of(state).length] as const)
      .filter(([, count]) => count > 0)
      .map(([state, count]) => `${count} ${state === 'canceled' ? 'not done' : state}`);
    console.error(`\n${rows.length} scans: ${parts.join(', ')}.`);
  }
  if (flags.json) return;
  for (const { path, error } of bad) console.error(plain(`  ${path}: ${firstLine(error?.message ?? '')}`));
}

const firstLine = (text: string) => text.split('\n')[0];
