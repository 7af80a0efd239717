import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import Table from 'cli-table3';
import { type Kysely, sql } from 'kysely';
import {
  type ApiKey,
  createKey,
  type KeySchema,
  type KeyScope,
  listKeys,
  revokeKey,
} from '../access/keys.ts';
import { leaveForAudit } from '../audit/audit-log.ts';
import { defaultDataFolder } from '../config.ts';
import { openEntries } from '../registry/entries.ts';
import { openServerDatabase } from '../store/server-database.ts';
import { openTable, plain } from './console.ts';

export interface KeyFlags {
  data?: string;
  json?: boolean;
}

export interface CreateKeyFlags extends KeyFlags {
  label: string;
  scope: readonly string[];
  expires?: string;
}

/** `tomaat keys create`: the key is shown this once. */
export async function keysCreate(flags: CreateKeyFlags): Promise<number> {
  const expiresTime = flags.expires === undefined ? undefined : parseExpiry(flags.expires);
  await using keys = await openKeys(flags.data, placeOf(flags.scope), true);
  const made = await createKey(keys.db, {
    label: flags.label,
    scopes: flags.scope as KeyScope[],
    expiresTime,
  });
  await leaveForAudit(folderOf(flags.data), 'key.created', { keyId: made.id, scopes: made.scopes });
  if (flags.json) {
    console.log(JSON.stringify(made));
    return 0;
  }
  console.log(made.key);
  const until = made.expiresTime ? `, until ${made.expiresTime.slice(0, 10)}` : '';
  console.error(
    `Key ${made.id} (${plain(made.label)}; may ${made.scopes.join(', ')}${until}). Keep it: it is not shown again.`,
  );
  return 0;
}

/** `tomaat keys list` */
export async function keysList(flags: KeyFlags): Promise<number> {
  const all: ApiKey[] = [];
  for (const place of ['registry', 'server'] as const) {
    await using keys = await openKeys(flags.data, place, false);
    if (keys) all.push(...(await listKeys(keys.db)));
  }
  if (flags.json) console.log(JSON.stringify(all, null, 2));
  else if (all.length === 0) console.log('There are no keys. “tomaat keys create --label NAME” makes one.');
  else console.log(openTable(Table, ['ID', 'LABEL', 'MAY', 'MADE', 'STATE'], all.map(rowOf)));
  return 0;
}

/** `tomaat keys revoke ID` */
export async function keysRevoke(id: string, flags: KeyFlags): Promise<number> {
  // Whoever gives the whole key means the key of its id.
  const keyId = /^tmt_([a-z2-7]{10})_/.exec(id)?.[1] ?? id;
  let revoked: ApiKey | undefined;
  let isAnyThere = false;
  for (const place of ['registry', 'server'] as const) {
    await using keys = await openKeys(flags.data, place, false);
    if (!keys) continue;
    isAnyThere = true;
    if ((await listKeys(keys.db)).some((key) => key.id === keyId)) revoked = await revokeKey(keys.db, keyId);
  }
  if (!revoked) {
    const why = isAnyThere
      ? '“tomaat keys list” shows them.'
      : 'No key was ever made in this data folder. Check --data.';
    throw new TomaatError('NOT_FOUND', `There is no key ${keyId}. ${why}`);
  }
  await leaveForAudit(folderOf(flags.data), 'key.revoked', { keyId: revoked.id });
  console.log(
    flags.json ? JSON.stringify(revoked) : `Key ${revoked.id} (${plain(revoked.label)}) is revoked.`,
  );
  return 0;
}

const folderOf = (data: string | undefined): string => data ?? process.env.TOMAAT_DATA ?? defaultDataFolder();

/** Where keys are: those of workers and callers with the server, those of announcers (and all-powerful ones) with the registry. */
const places = {
  registry: { file: 'registry.db', open: openEntries },
  server: { file: 'server.db', open: (file: string) => openServerDatabase(dirname(file)) },
} as const;
type Place = keyof typeof places;

interface OpenKeys extends AsyncDisposable {
  readonly db: Kysely<KeySchema>;
}

function placeOf(scopes: readonly string[]): Place {
  const ofServer: readonly string[] = scopes.filter((scope) => scope === 'worker' || scope === 'predict');
  if (ofServer.length === 0) return 'registry';
  if (ofServer.length === scopes.length) return 'server';
  throw new TomaatError(
    'BAD_INPUT',
    `${ofServer.join(' and ')} is for the server, ${scopes.filter((scope) => !ofServer.includes(scope)).join(' and ')} for the registry. Make a key for each.`,
    { field: 'scope' },
  );
}

/** The keys of one place. Without `make`, undefined where there are none. */
function openKeys(data: string | undefined, place: Place, make: true): Promise<OpenKeys>;
function openKeys(data: string | undefined, place: Place, make: boolean): Promise<OpenKeys | undefined>;
async function openKeys(
  data: string | undefined,
  place: Place,
  make: boolean,
): Promise<OpenKeys | undefined> {
  const folder = folderOf(data);
  const file = join(folder, places[place].file);
  if (!make && !existsSync(file)) return undefined;
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const opened = await places[place].open(file);
  const db = opened.db as unknown as Kysely<KeySchema>;
  // A key that was shown has to survive a power cut.
  await sql`PRAGMA synchronous = FULL`.execute(db);
  return { db, [Symbol.asyncDispose]: () => opened.close() };
}

function rowOf(key: ApiKey): string[] {
  const isExpired = key.expiresTime !== undefined && Date.parse(key.expiresTime) <= Date.now();
  const state = key.revokedTime
    ? `revoked ${key.revokedTime.slice(0, 10)}`
    : isExpired
      ? `expired ${key.expiresTime?.slice(0, 10)}`
      : key.expiresTime
        ? `until ${key.expiresTime.slice(0, 10)}`
        : 'valid';
  return [key.id, key.label, key.scopes.join(', '), key.createdTime.slice(0, 10), state];
}

/** A date (2027-01-31, to the end of that day in UTC), or a span from now: 12h, 90d. */
function parseExpiry(text: string): Date {
  const span = /^(\d{1,5})([hd])$/.exec(text);
  if (span) return new Date(Date.now() + Number(span[1]) * (span[2] === 'h' ? 3_600_000 : 86_400_000));
  const time = /^\d{4}-\d{2}-\d{2}$/.test(text) ? Date.parse(`${text}T23:59:59Z`) : Number.NaN;
  if (!Number.isNaN(time)) return new Date(time);
  throw new TomaatError(
    'BAD_INPUT',
    `--expires ${text} is no time. Write a date such as 2027-01-31, or a span such as 90d or 12h.`,
  );
}
