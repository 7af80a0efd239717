import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { type Kysely, sql } from 'kysely';
import { openEntries } from '../registry/entries.ts';
import { openServerDatabase } from '../store/server-database.ts';
import { type ApiKey, createKey, hasAdminKey, type KeySchema, listKeys, renewProgramKey } from './keys.ts';

/**
 * The keys of a data folder. Server and registry have a database each, so that either runs without the other. A key
 * is in both, under the same id and hash, so that either can tell a key that may not from one that is none.
 */

export const keyPlaces = ['registry', 'server'] as const;
export type KeyPlace = (typeof keyPlaces)[number];

const openers = {
  registry: { file: 'registry.db', open: openEntries },
  server: { file: 'server.db', open: (file: string) => openServerDatabase(dirname(file)) },
} as const;

export interface KeyFolder extends AsyncDisposable {
  readonly databases: readonly Kysely<KeySchema>[];
}

/** Opens the databases of these places, which are made if need be; without places, those that are there. */
export async function openKeyFolder(folder: string, places?: readonly KeyPlace[]): Promise<KeyFolder> {
  const wanted = places ?? keyPlaces.filter((place) => existsSync(join(folder, openers[place].file)));
  if (wanted.length > 0) await mkdir(folder, { recursive: true, mode: 0o700 });
  await using opened = new AsyncDisposableStack();
  const databases: Kysely<KeySchema>[] = [];
  for (const place of wanted) {
    const database = await openers[place].open(join(folder, openers[place].file));
    opened.defer(() => database.close());
    const db = database.db as unknown as Kysely<KeySchema>;
    // A key that was shown has to survive a power cut.
    await sql`PRAGMA synchronous = FULL`.execute(db);
    databases.push(db);
  }
  const stack = opened.move();
  return { databases, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

/** Each key once, oldest first; one that is revoked anywhere is shown so. */
export async function allKeys(databases: readonly Kysely<KeySchema>[]): Promise<ApiKey[]> {
  const byId = new Map<string, ApiKey>();
  for (const db of databases) {
    for (const key of await listKeys(db)) {
      if (!byId.get(key.id)?.revokedTime) byId.set(key.id, key);
    }
  }
  return [...byId.values()].sort((a, b) => a.createdTime.localeCompare(b.createdTime));
}

/**
 * The first administrator's key of a data folder where login is on: made when none of these places has a valid one,
 * and given this once. Undefined when there is one.
 */
export async function makeFirstAdminKey(
  folder: string,
  places: readonly KeyPlace[],
): Promise<string | undefined> {
  {
    await using here = await openKeyFolder(folder, places);
    const known = await Promise.all(here.databases.map((db) => hasAdminKey(db)));
    if (known.every(Boolean)) return undefined;
  }
  await using all = await openKeyFolder(folder, keyPlaces);
  return (await createKey(all.databases, { label: 'first administrator', scopes: ['admin'] })).key;
}

/** A key for what `tomaat up` does at its own server and registry; it ends when the next one is made. */
export async function programKey(folder: string, label: string): Promise<string> {
  await using all = await openKeyFolder(folder, keyPlaces);
  return await renewProgramKey(all.databases, label, ['predict']);
}
