import { TomaatError } from '@tomaat/core';
import { loadConfig } from '../config.ts';
import type { Migrated } from '../migrate/places.ts';
import { type MigrationPlan, planToFolder, planToShared } from '../migrate/plan.ts';
import { relocateFiles } from '../migrate/relocate.ts';
import type { CopyReport } from '../migrate/rows.ts';
import { migrateToFolder } from '../migrate/to-folder.ts';
import { leftBehind, migrateToShared } from '../migrate/to-shared.ts';
import { actAsOwner } from '../store/files/folder-owner.ts';
import { createProgress, formatBytes, percentOf, plain } from './console.ts';
import { openInterrupt } from './interrupt.ts';
import { databaseOf } from './shared-database.ts';

export interface MigrateFlags {
  to?: string;
  from?: string;
  relocate?: string;
  blobs?: string;
  data?: string;
  dryRun?: boolean;
  quiet?: boolean;
  json?: boolean;
}

/** `tomaat migrate`: exit code 0 if all was moved, 1 if files of jobs were already missing or damaged. */
export async function migrate(flags: MigrateFlags): Promise<number> {
  const mode = (['to', 'from', 'relocate'] as const).find((name) => flags[name] !== undefined);
  if (mode === undefined)
    throw new TomaatError(
      'BAD_REQUEST',
      'Say where to: --to ADDRESS for a database, --from ADDRESS for the data folder, or --relocate ADDRESS where only the files have moved.',
      {
        field: 'to',
      },
    );
  const loaded = loadConfig({ flags: { data: flags.data, database: flags[mode], blobs: flags.blobs } });
  const database = databaseOf(loaded, `--${mode}`)!;
  const { data: dataFolder, blobs } = loaded.config;
  using _owner = actAsOwner(dataFolder);
  if (mode === 'relocate') return relocate(flags, { dataFolder, database, blobs });
  const isThere = flags.to !== undefined;
  if (flags.dryRun) {
    printPlan(flags, await (isThere ? planToShared : planToFolder)(dataFolder, database));
    return 0;
  }
  const moved = await withProgress(flags, (report) =>
    (isThere ? migrateToShared : migrateToFolder)({ dataFolder, database, blobs, ...report }),
  );
  const isWhole = moved.lost.length === 0;
  const left = isThere ? leftBehind(dataFolder, blobs) : [];
  if (flags.json) {
    console.log(JSON.stringify({ ok: isWhole, data: dataFolder, ...moved, left }));
    return isWhole ? 0 : 1;
  }
  const lines = [
    moved.isFinished ? 'All had been moved before; now the folder says so.' : `Moved: ${wordsOf(moved)}.`,
  ];
  if (!isWhole)
    lines.push(
      `${moved.lost.length} files were already missing or damaged; their jobs were moved without them.`,
    );
  if (isThere) {
    lines.push('Start the servers with --database and the same --blobs, and their keys in each data folder.');
    if (left.length > 0)
      lines.push(
        'What was moved is still here too. Once all works, delete it:',
        ...left.map((path) => `  ${path}`),
      );
  } else
    lines.push(
      `Start the server with --data ${dataFolder}, without --database. What was moved is still in the database and its store of files: once all works, delete it (DROP SCHEMA tomaat, tomaat_registry CASCADE).`,
    );
  console.log(lines.map(plain).join('\n'));
  return isWhole ? 0 : 1;
}

async function relocate(
  flags: MigrateFlags,
  place: { dataFolder: string; database: string; blobs?: string },
): Promise<number> {
  if (flags.dryRun)
    throw new TomaatError(
      'BAD_REQUEST',
      '--relocate has no --dry-run: it changes nothing where files are missing. Leave one of them out.',
      { field: 'dry-run' },
    );
  const { files, bytes } = await withProgress(flags, (report) => relocateFiles({ ...place, ...report }));
  if (flags.json) console.log(JSON.stringify({ ok: true, blobs: place.blobs, files, bytes }));
  else
    console.log(
      plain(
        `All ${files} files (${formatBytes(bytes)}) are in ${place.blobs}. Start the servers with this --blobs. Once all works, delete the old copy: “tomaat erase” does not reach it.`,
      ),
    );
  return 0;
}

async function withProgress<T>(flags: MigrateFlags, work: (report: CopyReport) => Promise<T>): Promise<T> {
  const progress = await createProgress(Boolean(flags.quiet));
  using interrupt = openInterrupt();
  try {
    return await work({ signal: interrupt.signal, onProgress: percentOf(progress) });
  } finally {
    progress.clear();
  }
}

function printPlan(flags: MigrateFlags, plan: MigrationPlan): void {
  if (flags.json) {
    console.log(JSON.stringify(plan));
    return;
  }
  const rows = Object.entries(plan.tables).map(([table, count]) => `  ${table.padEnd(14)} ${count}`);
  const files =
    plan.files === undefined ? [] : [`  files          ${plan.files}, ${formatBytes(plan.bytes ?? 0)}`];
  console.log(['Would be moved:', ...rows, ...files].map(plain).join('\n'));
}

function wordsOf({ tables, files, bytes, uploads, auditLines }: Migrated): string {
  const of = (count: number, what: string) => `${count} ${what}${count === 1 ? '' : 's'}`;
  return [
    of(tables.job ?? 0, 'job'),
    `${of(files, 'file')} (${formatBytes(bytes)})`,
    of(uploads, 'incomplete upload'),
    of(tables.api_key ?? 0, 'key'),
    of(tables.session ?? 0, 'session'),
    `${of(auditLines, 'line')} of the audit log`,
  ].join(', ');
}
