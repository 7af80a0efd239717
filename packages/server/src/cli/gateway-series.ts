import { existsSync } from 'node:fs';
import { TomaatError } from '@tomaat/core';
import Table from 'cli-table3';
import { leaveForAudit } from '../audit/pending.ts';
import { digestOfUid } from '../audit/uid-digest.ts';
import { dataFolderFor } from '../config.ts';
import type { SeriesRow, SeriesState } from '../gateway/series.ts';
import { createSeriesAdmin, type SeriesAdmin } from '../gateway/series-admin.ts';
import {
  gatewayDatabaseFile,
  gatewayFolder,
  openGatewayDatabase,
} from '../store/database/gateway-database.ts';
import { actAsOwner } from '../store/files/folder-owner.ts';
import { openTable, plain } from './console.ts';

/* `tomaat gateway list`, `retry` and `drop`: directly in the database, whether or not the gateway runs. */

export interface SeriesFlags {
  data?: string;
  json?: boolean;
}

/** Runs `work` with the series of the data folder, as its owner. */
async function withSeries<T>(
  flags: SeriesFlags,
  work: (series: SeriesAdmin, folder: string) => Promise<T>,
): Promise<T> {
  const folder = dataFolderFor(flags);
  using _owner = actAsOwner(folder);
  if (!existsSync(gatewayDatabaseFile(folder)))
    throw new TomaatError('NOT_FOUND', `No gateway has run with the data folder ${folder}. Check --data.`);
  await using database = await openGatewayDatabase(folder);
  return await work(createSeriesAdmin(database), folder);
}

export interface ListFlags extends SeriesFlags {
  state?: SeriesState;
  rule?: string;
  limit: number;
}

/** `tomaat gateway list` */
export function gatewayList({ state, rule, limit, ...flags }: ListFlags): Promise<number> {
  return withSeries(flags, async (series) => {
    // One more than is shown tells whether there are more.
    const rows = await series.list({ state, rule, limit: limit + 1 });
    const shown = rows.slice(0, limit);
    if (flags.json) for (const row of shown) console.log(JSON.stringify(row));
    else if (shown.length > 0) console.log(openTable(Table, head, shown.map(cellsOf)));
    else
      console.log(
        state === undefined && rule === undefined
          ? 'No series has matched a rule yet.'
          : 'No series is like that. Leave out --state or --rule to see more.',
      );
    if (rows.length > limit)
      console.error(`These are the newest ${limit}. Give a larger --limit, or --state, to see others.`);
    return 0;
  });
}

const head = ['ID', 'STATE', 'RULE', 'SOURCE', 'MODALITY', 'IMAGES', 'SEEN', 'WHY'];

function cellsOf(row: SeriesRow): string[] {
  const seen = new Date(row.seenAt).toISOString().slice(0, 16).replace('T', ' ');
  const { id, state, rule, source, modality = '', instances, reason } = row;
  return [id, state, rule, source, modality, String(instances), seen, plain(whyOf(row, reason?.message))];
}

/** A line about a row: why it failed, when it is tried again, or what was stored. */
function whyOf({ state, dueAt, results, attempts }: SeriesRow, message: string | undefined): string {
  if (state === 'done') return results.map(({ format }) => format).join(', ');
  const reason = message?.replaceAll(/\s+/g, ' ');
  if (state !== 'queued' || !reason) return reason ?? '';
  const seconds = Math.max(0, Math.round((dueAt - Date.now()) / 1000));
  return `${reason} (attempt ${attempts + 1} in ${seconds} s)`;
}

/** `tomaat gateway retry ID` or `--failed` */
export function gatewayRetry(
  id: string | undefined,
  { failed, ...flags }: SeriesFlags & { failed?: boolean },
): Promise<number> {
  if ((id === undefined) === !failed)
    throw new TomaatError(
      'BAD_REQUEST',
      'It is not clear what to try again. Give either the id of a series, as shown by “list”, or --failed.',
    );
  return withSeries(flags, async (series, folder) => {
    if (id !== undefined) {
      tell(await change(series, folder, 'retry', id), flags, 'is queued again');
      return 0;
    }
    const rows = await series.list({ state: 'failed', limit: maxRetried });
    let count = 0;
    for (const row of rows) {
      try {
        const queued = await change(series, folder, 'retry', row.id);
        if (flags.json) console.log(JSON.stringify(queued));
        count++;
      } catch (error) {
        // It has a successor, or was changed meanwhile.
        if (!(error instanceof TomaatError && ['CONFLICT', 'NOT_FOUND'].includes(error.code))) throw error;
        console.error(plain(error.message));
      }
    }
    if (!flags.json)
      console.log(`${count} of ${rows.length} failed series ${count === 1 ? 'is' : 'are'} queued again.`);
    return 0;
  });
}

const maxRetried = 100_000;

/** `tomaat gateway drop ID` */
export function gatewayDrop(id: string, flags: SeriesFlags): Promise<number> {
  return withSeries(flags, async (series, folder) => {
    tell(await change(series, folder, 'drop', id), flags, 'is dropped');
    return 0;
  });
}

/** Changes a row. Its line in the audit log is on the disk first. */
async function change(
  series: SeriesAdmin,
  folder: string,
  what: 'retry' | 'drop',
  id: string,
): Promise<SeriesRow> {
  const known = await series.find(id);
  const note = async (outcome?: string) => {
    if (!known) return;
    const { rule, source, study, series: uid } = known;
    const facts = { rule, source, study: digestOfUid(study), series: digestOfUid(uid), outcome };
    await leaveForAudit(gatewayFolder(folder), what === 'retry' ? 'series.retried' : 'series.dropped', facts);
  };
  await note();
  try {
    return await series[what](id);
  } catch (error) {
    await note('not made');
    throw error;
  }
}

const tell = (row: SeriesRow, { json }: SeriesFlags, what: string): void =>
  console.log(json ? JSON.stringify(row) : `Series ${row.id} ${what}.`);
