import { formatMl } from '@tomaat/core';
import { dim, formatSeconds, plain, plainLines } from './console.ts';
import type { Outcome } from './outcome.ts';

/** The outcome of a prediction: the files, the labels with their volumes, the service and the duration. */
export function printOutcome(outcome: Outcome, flags: { json?: boolean; quiet?: boolean }): void {
  if (flags.json) {
    console.log(JSON.stringify(outcome));
    return;
  }
  for (const { file } of outcome.files) console.log(file);
  if (flags.quiet) return;
  const lines = labelLines(outcome.labels);
  if (lines.length > 0) console.log(lines.join('\n'));
  else if (outcome.report)
    console.log(
      plainLines(outcome.report)
        .trimEnd()
        .replace(/^(?=.)/gm, '  '),
    );
  const by = [outcome.name, outcome.version].filter((word) => word !== undefined).join(' ');
  console.log(dim(`  ${plain(by)} · ${formatSeconds(outcome.seconds)}`, process.stdout));
}

/** A line with the volume of each label found; one line for the labels not found. */
export function labelLines(labels: unknown): string[] {
  if (!Array.isArray(labels)) return [];
  const known = labels.filter(
    (item): item is { name: string; volumeMl: number } =>
      typeof item?.name === 'string' && typeof item?.volumeMl === 'number',
  );
  const rows = known
    .filter((item) => item.volumeMl > 0)
    .map((item) => [
      plain(item.name),
      item.volumeMl < 0.1 ? formatMl(item.volumeMl) : item.volumeMl.toFixed(item.volumeMl < 10 ? 2 : 1),
    ]);
  const widths = [0, 1].map((column) => Math.max(0, ...rows.map((row) => row[column].length)));
  const lines = rows.map(([name, volume]) => `  ${name.padEnd(widths[0])}  ${volume.padStart(widths[1])} ml`);
  const absent = known.filter((item) => item.volumeMl === 0).map((item) => plain(item.name));
  if (absent.length > 0) lines.push(`  not found: ${absent.join(', ')}`);
  return lines;
}
