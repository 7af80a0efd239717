import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type Kysely, sql } from 'kysely';
import { appendLines } from '../audit/audit-table.ts';
import type { AuditEvent, AuditFacts } from '../audit/events.ts';
import { leaveForAudit } from '../audit/pending.ts';
import type { Database } from '../store/database/database.ts';
import { gatewayFolder, openGatewayDatabase } from '../store/database/gateway-database.ts';
import type { KeySchema } from '../store/database/key-schema.ts';
import { workAlone } from '../store/database/locks.ts';
import { requireNotMoved } from '../store/database/moved.ts';
import { openRegistryDatabase } from '../store/database/registry-database.ts';
import { openServerDatabase, type ServerSchema } from '../store/database/server-database.ts';
import {
  type ApiKey,
  type BeforeKey,
  createKey,
  hasAdminKey,
  listKeys,
  renewProgramKey,
  revokeKey,
} from './keys.ts';

/**
 * The keys of a data folder. Server, registry and gateway each have a database, so that each runs without the others. A key is in
 * all of them, under the same id and hash, so that each can distinguish a key without permission from an invalid one.
 */

const openers = {
  registry: {
    file: 'registry.db',
    open: (file: string, shared?: string) => openRegistryDatabase(dirname(file), shared),
  },
  server: {
    file: 'server.db',
    open: (file: string, shared?: string) => openServerDatabase(dirname(file), shared),
  },
  gateway: { file: 'gateway.db', open: (file: string) => openGatewayDatabase(dirname(file)) },
} as const;
export type KeyPlace = keyof typeof openers;

/** `shared`: the address of the PostgreSQL database that takes the place of `server.db` and `registry.db`. */
export interface SharedPlace {
  readonly shared?: string;
}

const allPlaces = Object.keys(openers) as KeyPlace[];
/** The databases that are created with the first key. A gateway takes the existing keys when it creates its own (adoptKeys()). */
export const keyPlaces = ['registry', 'server'] as const satisfies readonly KeyPlace[];

const exists = (folder: string, place: KeyPlace, shared?: string) =>
  (place !== 'gateway' && shared !== undefined) || existsSync(join(folder, openers[place].file));

/** Where a new key of a data folder belongs. */
export const placesFor = (folder: string): readonly KeyPlace[] =>
  exists(folder, 'gateway') ? [...keyPlaces, 'gateway'] : keyPlaces;

export interface KeyFolder extends AsyncDisposable {
  readonly places: readonly KeyPlace[];
  /** Of each place. */
  readonly databases: readonly Kysely<KeySchema>[];
  readonly logs: readonly Pick<Database<unknown>, 'truncateWal'>[];
  /** Adds a line to each audit log of the folder, or leaves it for who holds the log. It is durable when this resolves. */
  record(event: AuditEvent, facts: AuditFacts): Promise<void>;
}

/** Whether a database with keys exists. */
export const hasKeys = (folder: string, { shared }: SharedPlace = {}): boolean =>
  allPlaces.some((place) => exists(folder, place, shared));

/**
 * Opens the databases of these places and creates missing ones; without places, opens the existing ones.
 * @throws TomaatError CONFLICT if the server's is a shared one that was not named: a key would be in the wrong database.
 */
export async function openKeyFolder(
  folder: string,
  places?: readonly KeyPlace[],
  { shared }: SharedPlace = {},
): Promise<KeyFolder> {
  if (shared === undefined) requireNotMoved(folder);
  const wanted = places ?? allPlaces.filter((place) => exists(folder, place, shared));
  await using opened = new AsyncDisposableStack();
  const databases: Kysely<KeySchema>[] = [];
  const logs: Pick<Database<unknown>, 'truncateWal'>[] = [];
  let server: Database<ServerSchema> | undefined;
  for (const place of wanted) {
    const database = await openers[place].open(join(folder, openers[place].file), shared);
    if (place === 'server') server = database as Database<ServerSchema>;
    opened.defer(() => database.close());
    const db = database.db as unknown as Kysely<KeySchema>;
    // A key that was shown must survive a power failure.
    if (database.dialect === 'sqlite') await sql`PRAGMA synchronous = FULL`.execute(db);
    databases.push(db);
    logs.push(database);
  }
  const stack = opened.move();
  return {
    places: wanted,
    databases,
    logs,
    async record(event, facts) {
      if (server?.dialect === 'postgres')
        await server.transaction((trx) => appendLines(trx, [[new Date(), event, facts]]));
      else await leaveForAudit(folder, event, facts);
      if (exists(folder, 'gateway')) await leaveForAudit(gatewayFolder(folder), event, facts);
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

/** Each key once, oldest first; a key that is revoked in any database is shown as revoked. */
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
 * Gives a database the keys that the others of its data folder have, and ends those that were revoked there: for one that was
 * created after them.
 */
export async function adoptKeys(folder: string, place: KeyPlace, at: SharedPlace = {}): Promise<void> {
  const others = allPlaces.filter((other) => other !== place && exists(folder, other, at.shared));
  if (others.length === 0) return;
  await using keys = await openKeyFolder(folder, [place, ...others], at);
  const [own, ...rest] = keys.databases;
  for (const db of rest) {
    for (const row of await db.selectFrom('api_key').selectAll().execute()) {
      await own
        .insertInto('api_key')
        .values(row)
        .onConflict((conflict) => conflict.column('id').doNothing())
        .execute();
      if (row.revoked_ms !== null) await revokeKey(own, row.id, row.revoked_ms);
    }
  }
}

/** What creates a key of a data folder. */
export type NewKey = Parameters<typeof createKey>[1];

/**
 * Creates a key in all databases of a data folder. The audit line is written first, so that no key exists without one.
 * @throws TomaatError BAD_INPUT as `createKey()` does.
 */
export async function makeKey(
  folder: string,
  make: NewKey,
  at: SharedPlace = {},
): Promise<ApiKey & { key: string }> {
  await using keys = await openKeyFolder(folder, placesFor(folder), at);
  const audited = auditKeys(keys, 'key.created');
  return await audited.guard(() => createKey(keys.databases, make, undefined, audited.before));
}

/** Revokes a key everywhere in a data folder, after writing the audit line; undefined if the key does not exist. */
export async function revokeFolderKey(
  folder: string,
  id: string,
  at: SharedPlace = {},
): Promise<ApiKey | undefined> {
  await using keys = await openKeyFolder(folder, undefined, at);
  const known: Kysely<KeySchema>[] = [];
  for (const db of keys.databases) if ((await listKeys(db)).some((key) => key.id === id)) known.push(db);
  if (known.length === 0) return undefined;
  await keys.record('key.revoked', { keyId: id });
  let revoked: ApiKey | undefined;
  for (const db of known) revoked = await revokeKey(db, id);
  return revoked;
}

/**
 * The first administrator's key of a data folder where login is on: created if none of these places has a valid one,
 * and returned only then. Undefined if one exists.
 */
export async function makeFirstAdminKey(
  folder: string,
  places: readonly KeyPlace[],
  at: SharedPlace = {},
): Promise<string | undefined> {
  return alone(folder, at, async () => {
    {
      await using here = await openKeyFolder(folder, places, at);
      const known = await Promise.all(here.databases.map((db) => hasAdminKey(db)));
      if (known.every(Boolean)) return undefined;
    }
    return (await makeKey(folder, { label: 'first administrator', scopes: ['admin'] }, at)).key;
  });
}

/** Does `work` while no other server of a shared database does. */
async function alone<T>(folder: string, { shared }: SharedPlace, work: () => Promise<T>): Promise<T> {
  if (shared === undefined) return work();
  await using server = await openServerDatabase(folder, shared);
  return await workAlone(server.db, 'firstKey', work);
}

/** A key with which `tomaat up` uses its own server and registry; creating the next one ends it. */
export async function programKey(folder: string, label: string, at: SharedPlace = {}): Promise<string> {
  await using all = await openKeyFolder(folder, placesFor(folder), at);
  const audited = auditKeys(all, 'key.renewed');
  return await audited.guard(() =>
    renewProgramKey(all.databases, label, ['predict'], undefined, audited.before),
  );
}

/** Records each key before it is created, and retracts that if the key could not be created. */
function auditKeys(keys: Pick<KeyFolder, 'record'>, event: 'key.created' | 'key.renewed') {
  let left: ApiKey | undefined;
  const before: BeforeKey = async (key) => {
    await keys.record(event, { keyId: key.id, scopes: key.scopes });
    left = key;
  };
  async function guard<T>(make: () => Promise<T>): Promise<T> {
    try {
      return await make();
    } catch (error) {
      if (left) await keys.record('key.revoked', { keyId: left.id, outcome: 'not made' });
      throw error;
    }
  }
  return { before, guard };
}
