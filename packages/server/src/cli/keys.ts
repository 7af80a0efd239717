import { TomaatError } from '@tomaat/core';
import Table from 'cli-table3';
import { allKeys, hasKeys, makeKey, openKeyFolder, revokeFolderKey } from '../access/key-folder.ts';
import type { ApiKey } from '../access/keys.ts';
import type { KeyScope } from '../access/scopes.ts';
import { dataFolderFor } from '../config.ts';
import { parseDuration } from '../durations.ts';
import { actAsOwner } from '../store/files/folder-owner.ts';
import { openTable, plain } from './console.ts';
import { databaseFor } from './shared-database.ts';

export interface KeyFlags {
  data?: string;
  database?: string;
  json?: boolean;
}

export interface CreateKeyFlags extends KeyFlags {
  label: string;
  scope: readonly string[];
  expires?: string;
  maxJobs?: number;
  perDay?: number;
}

/** `tomaat keys create`: the key is shown only once. */
export async function keysCreate(flags: CreateKeyFlags): Promise<number> {
  const expiresTime = flags.expires === undefined ? undefined : parseExpiry(flags.expires);
  const folder = dataFolderFor(flags);
  using _owner = actAsOwner(folder);
  const made = await makeKey(
    folder,
    {
      label: flags.label,
      scopes: flags.scope as KeyScope[],
      expiresTime,
      limits: { maxJobs: flags.maxJobs, perDay: flags.perDay },
    },
    { shared: databaseFor(flags) },
  );
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
  const folder = dataFolderFor(flags);
  using _owner = actAsOwner(folder);
  await using keys = await openKeyFolder(folder, undefined, { shared: databaseFor(flags) });
  const all = await allKeys(keys.databases);
  if (flags.json) console.log(JSON.stringify(all));
  else if (all.length === 0) console.log('There are no keys. “tomaat keys create --label NAME” creates one.');
  else console.log(openTable(Table, ['ID', 'LABEL', 'MAY', 'MADE', 'STATE', 'LIMITS'], all.map(rowOf)));
  return 0;
}

/** `tomaat keys revoke ID` */
export async function keysRevoke(id: string, flags: KeyFlags): Promise<number> {
  // A whole key is accepted as its id.
  const keyId = /^tmt_([a-z2-7]{10})_/.exec(id)?.[1] ?? id;
  const folder = dataFolderFor(flags);
  using _owner = actAsOwner(folder);
  const at = { shared: databaseFor(flags) };
  const revoked = await revokeFolderKey(folder, keyId, at);
  if (!revoked) {
    const why = hasKeys(folder, at)
      ? '“tomaat keys list” shows them.'
      : `No key was ever created in ${folder}. Check --data.`;
    throw new TomaatError('NOT_FOUND', `There is no key ${keyId}. ${why}`);
  }
  console.log(
    flags.json ? JSON.stringify(revoked) : `Key ${revoked.id} (${plain(revoked.label)}) is revoked.`,
  );
  return 0;
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
  const { maxJobs, perDay } = key.limits ?? {};
  const limits = [maxJobs && `${maxJobs} at a time`, perDay && `${perDay} a day`].filter(Boolean).join(', ');
  return [key.id, key.label, key.scopes.join(', '), key.createdTime.slice(0, 10), state, limits];
}

/** A date (2027-01-31, to the end of that day in UTC), or a span from now: 30m, 12h, 90d. */
function parseExpiry(text: string): Date {
  const spanMs = parseDuration(text);
  if (spanMs !== undefined) return new Date(Date.now() + spanMs);
  const time = /^\d{4}-\d{2}-\d{2}$/.test(text) ? Date.parse(`${text}T23:59:59Z`) : Number.NaN;
  if (!Number.isNaN(time)) return new Date(time);
  throw new TomaatError(
    'BAD_INPUT',
    `--expires ${text} is not a time. Give a date such as 2027-01-31, or a span such as 90d or 12h.`,
  );
}
