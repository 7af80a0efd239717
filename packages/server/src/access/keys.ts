import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { TomaatError } from '@tomaat/core';
import type { Kysely } from 'kysely';
import type { KeySchema, KeyTable } from '../store/database/key-schema.ts';
import { workAlone } from '../store/database/locks.ts';
import type { JobLimits } from '../store/jobs/job-limits.ts';
import { type KeyScope, keyScopes } from './scopes.ts';

/**
 * API keys. A key is shown once, when it is created: `tmt_<id>_<secret>`, where the secret is 256 random bits and the
 * id is random too. The table keeps the SHA-256 of the whole; that many random bits need no slow hash.
 */

export interface ApiKey {
  /** Public; it may be shown and logged. */
  id: string;
  label: string;
  scopes: KeyScope[];
  createdTime: string;
  expiresTime?: string;
  revokedTime?: string;
  limits?: KeyLimits;
}

/** The limits of a key. */
export type KeyLimits = JobLimits;

/** The databases that contain a key: one, or several of one data folder. */
export type KeyDatabases = Kysely<KeySchema> | readonly Kysely<KeySchema>[];
const listOf = (databases: KeyDatabases) => [databases].flat() as Kysely<KeySchema>[];

const form = /^tmt_([a-z2-7]{10})_([A-Za-z0-9_-]{43})$/;
const maxKeyLength = 200;

/**
 * Does something with a key before it is in a database, such as writing it into the audit log; if it throws, nothing is
 * created.
 */
export type BeforeKey = (key: ApiKey) => Promise<void>;

/**
 * Creates a key, in all of the databases or in none. The plain text of the key appears only in `key`.
 * @throws TomaatError BAD_INPUT for no scope or an unknown one, an empty label or an expiry time in the past.
 */
export async function createKey(
  databases: KeyDatabases,
  options: { label: string; scopes: readonly KeyScope[]; expiresTime?: Date; limits?: KeyLimits },
  now: number = Date.now(),
  before?: BeforeKey,
): Promise<ApiKey & { key: string }> {
  const label = options.label.trim();
  if (label === '' || label.length > 100) {
    throw new TomaatError(
      'BAD_INPUT',
      'The label of a key must have 1 to 100 characters. Give one that says what the key is for.',
      {
        field: 'label',
      },
    );
  }
  const unknown = options.scopes.filter((scope) => !keyScopes.includes(scope));
  if (options.scopes.length === 0 || unknown.length > 0) {
    throw new TomaatError(
      'BAD_INPUT',
      `${unknown.length > 0 ? `Unknown scope ${unknown.join(', ')}` : 'A key needs a scope'}. Available: ${keyScopes.join(', ')}.`,
      { field: 'scopes' },
    );
  }
  const expires = options.expiresTime?.getTime() ?? null;
  if (expires !== null && !(expires > now)) {
    throw new TomaatError('BAD_INPUT', 'The expiry time of the key is in the past. Give a later one.', {
      field: 'expires',
    });
  }
  const { maxJobs, perDay } = options.limits ?? {};
  for (const [field, limit] of [
    ['max-jobs', maxJobs],
    ['per-day', perDay],
  ] as const) {
    if (limit === undefined || (Number.isSafeInteger(limit) && limit > 0)) continue;
    throw new TomaatError('BAD_INPUT', `--${field} must be a whole number, 1 or more.`, { field });
  }
  const make = { label, scopes: options.scopes, expires, madeBy: 'operator', maxJobs, perDay } as const;
  return insertKey(databases, make, now, before);
}

/**
 * The key of a program on this machine that cannot keep it, such as the server next to the registry: the first call
 * creates it, and every later call gives the same id a new secret, so that the data of the id remains accessible.
 */
export async function renewProgramKey(
  databases: KeyDatabases,
  label: string,
  scopes: readonly KeyScope[],
  now: number = Date.now(),
  before?: BeforeKey,
): Promise<string> {
  const [first, ...others] = listOf(databases);
  // Two calls at once would make two keys.
  return workAlone(first, 'programKey', async (at) => {
    let id: string | undefined;
    for (const db of [at, ...others]) {
      const known = await db
        .selectFrom('api_key')
        .select('id')
        .where('label', '=', label)
        .where('made_by', '=', 'program')
        .where('revoked_ms', 'is', null)
        .executeTakeFirst();
      id ??= known?.id;
    }
    const make = { id, label, scopes, expires: null, madeBy: 'program' } as const;
    // That of the lock is the last: after a failure nothing more can be done in its transaction.
    return (await insertKey([...others, at], make, now, before)).key;
  });
}

/** Whether a valid key with every permission exists. */
export const hasAdminKey = (db: Kysely<KeySchema>, now?: number): Promise<boolean> =>
  hasKeyWith('admin', db, now);

/** Whether a valid key with this very scope exists. */
export async function hasKeyWith(
  scope: KeyScope,
  db: Kysely<KeySchema>,
  now: number = Date.now(),
): Promise<boolean> {
  return (await listKeys(db)).some(
    ({ scopes, revokedTime, expiresTime }) =>
      scopes.includes(scope) &&
      revokedTime === undefined &&
      (expiresTime === undefined || Date.parse(expiresTime) > now),
  );
}

/** All keys, including revoked and expired ones, oldest first. */
export async function listKeys(db: Kysely<KeySchema>): Promise<ApiKey[]> {
  const rows = await db.selectFrom('api_key').selectAll().orderBy('created_ms').orderBy('id').execute();
  return rows.map(toApiKey);
}

/**
 * Revokes a key immediately. Revoking it again changes nothing.
 * @throws TomaatError NOT_FOUND if no key has this id.
 */
export async function revokeKey(
  db: Kysely<KeySchema>,
  id: string,
  now: number = Date.now(),
): Promise<ApiKey> {
  await db
    .updateTable('api_key')
    .set({ revoked_ms: now })
    .where('id', '=', id)
    .where('revoked_ms', 'is', null)
    .execute();
  const row = await db.selectFrom('api_key').selectAll().where('id', '=', id).executeTakeFirst();
  if (!row) throw new TomaatError('NOT_FOUND', `There is no key '${id}'. 'tomaat keys list' shows them.`);
  return toApiKey(row);
}

/** The key for this text if it is valid: neither revoked nor expired. */
export async function findKey(
  db: Kysely<KeySchema>,
  key: string,
  now: number = Date.now(),
): Promise<ApiKey | undefined> {
  if (key.length > maxKeyLength) return undefined;
  const id = form.exec(key)?.[1];
  if (id === undefined) return undefined;
  const row = await db.selectFrom('api_key').selectAll().where('id', '=', id).executeTakeFirst();
  return row && timingSafeEqual(row.hash, hashOf(key)) && isValid(row, now) ? toApiKey(row) : undefined;
}

/** The valid key of an id, for sessions that were opened with it. */
export async function findKeyById(
  db: Kysely<KeySchema>,
  id: string,
  now: number = Date.now(),
): Promise<ApiKey | undefined> {
  const row = await db.selectFrom('api_key').selectAll().where('id', '=', id).executeTakeFirst();
  return row && isValid(row, now) ? toApiKey(row) : undefined;
}

const isValid = ({ revoked_ms, expires_ms }: KeyTable, now: number) =>
  revoked_ms === null && (expires_ms === null || expires_ms > now);

export function hasScope(key: { readonly scopes: readonly KeyScope[] }, scope: KeyScope): boolean {
  return key.scopes.includes(scope) || key.scopes.includes('admin');
}

/** The text after `Bearer` in an Authorization header. */
export function bearerOf(authorization: string | undefined): string | undefined {
  return /^bearer +(\S+) *$/i.exec(authorization?.slice(0, maxKeyLength + 20) ?? '')?.[1];
}

async function insertKey(
  databases: KeyDatabases,
  make: {
    /** A key of this id is replaced. */
    id?: string;
    label: string;
    scopes: readonly KeyScope[];
    expires: number | null;
    madeBy: 'operator' | 'program';
    maxJobs?: number;
    perDay?: number;
  },
  now: number,
  before: BeforeKey = async () => {},
): Promise<ApiKey & { key: string }> {
  const id = make.id ?? randomName(10);
  const key = `tmt_${id}_${randomBytes(32).toString('base64url')}`;
  const row: KeyTable = {
    id,
    hash: hashOf(key),
    label: make.label,
    scopes: [...new Set(make.scopes)].join(','),
    made_by: make.madeBy,
    created_ms: now,
    expires_ms: make.expires,
    revoked_ms: null,
    max_jobs: make.maxJobs ?? null,
    per_day: make.perDay ?? null,
  };
  await before(toApiKey(row));
  const { id: _id, ...rest } = row;
  const done: Kysely<KeySchema>[] = [];
  try {
    for (const db of listOf(databases)) {
      await db
        .insertInto('api_key')
        .values(row)
        .onConflict((conflict) => conflict.column('id').doUpdateSet(rest))
        .execute();
      done.push(db);
    }
  } catch (error) {
    // Its secret was never shown: a partly stored key would be useless.
    for (const db of done) await db.deleteFrom('api_key').where('id', '=', id).execute();
    throw error;
  }
  return { ...toApiKey(row), key };
}

const alphabet = 'abcdefghijklmnopqrstuvwxyz234567';

/** Random lower-case letters and digits, 5 bits each. */
export function randomName(length: number): string {
  return Array.from(randomBytes(length), (byte) => alphabet[byte % 32]).join('');
}

/** The stored form of a secret of 256 random bits, which needs no slow hash. */
export function hashOf(key: string): Uint8Array {
  return createHash('sha256').update(key).digest();
}

function toApiKey(row: KeyTable): ApiKey {
  return {
    id: row.id,
    label: row.label,
    scopes: row.scopes.split(',') as KeyScope[],
    createdTime: new Date(row.created_ms).toISOString(),
    expiresTime: row.expires_ms === null ? undefined : new Date(row.expires_ms).toISOString(),
    revokedTime: row.revoked_ms === null ? undefined : new Date(row.revoked_ms).toISOString(),
    limits:
      row.max_jobs === null && row.per_day === null
        ? undefined
        : { maxJobs: row.max_jobs ?? undefined, perDay: row.per_day ?? undefined },
  };
}
