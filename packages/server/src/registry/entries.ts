import { announcedParitySchema, type Entry, type SignedAnnouncement, toSlug } from '@tomaat/client';
import { TomaatError } from '@tomaat/core';
import { type Kysely, type Selectable, sql, type Transaction } from 'kysely';
import { type ApiKey, randomName } from '../access/keys.ts';
import type { Database } from '../store/database/database.ts';
import { lockAlone } from '../store/database/locks.ts';
import type { EntryTable, RegistrySchema } from '../store/database/registry-database.ts';

/**
 * What the registry knows: one entry for each pair of API key and prediction address. An entry is live as long as its
 * announcement and its key are valid; it is kept for another day, shown as not live, and then dropped.
 */

/** How long an announcement through our API is valid. Servers renew it every 30 s. */
export const apiLifeMs = 90_000;
/** How long a v1 announcement is valid; v1 servers renew it every 1600 s. */
export const v1LifeMs = 3_600_000;
/** How long an entry is kept after it has expired. */
export const keptMs = 86_400_000;
const maxEntriesPerKey = 1000;
const maxEntries = 20_000;

/** The API key of the entries. */
type KeyId = Pick<ApiKey, 'id'>;

/** The keys of a v1 announcement besides `api_key`. */
export interface V1Announcement {
  prediction_url: string;
  interface_url: string;
  name: string;
  modality: string;
  anatomy: string;
  task: string;
  description: string;
}

type Row = Selectable<EntryTable>;

export interface EntryFilters {
  modality?: string;
  anatomy?: string;
  task?: string;
  /** Words that must all occur in name or description. */
  q?: string;
  /** true: only live entries; false: only the others. */
  live?: boolean;
}

export interface Entries extends AsyncDisposable {
  /** The database, which also holds the keys. */
  readonly db: Kysely<RegistrySchema>;
  /**
   * Announces or renews a verified signed announcement through our API. The key's entry of this id or of this prediction
   * address is replaced and keeps its SID.
   * @throws TomaatError BAD_SIGNATURE when another key signed this id before, or if it is not newer than the known one,
   *   FORBIDDEN when the id belongs to another valid API key, CONFLICT when the key has too many entries, BUSY when
   *   the registry is full.
   */
  announce(key: KeyId, announcement: SignedAnnouncement, signed: string): Promise<Entry>;
  /**
   * Announces or renews as v1 does. The key's entry of this prediction address is replaced; so is the key's only
   * entry if it is a v1 entry of the same name, modality, anatomy and task at another address (the service moved).
   * A live entry of our API keeps its other fields and its time of expiry.
   * @throws TomaatError CONFLICT when the key has too many entries, BUSY when the registry is full.
   */
  announceV1(key: KeyId, announcement: V1Announcement): Promise<Entry>;
  /**
   * Removes an entry of our API.
   * @throws TomaatError NOT_FOUND for an unknown id, FORBIDDEN when it belongs to another key.
   */
  withdraw(key: KeyId, id: string): Promise<void>;
  /** The matching entries, by name; at the same name the oldest first. */
  search(filters: EntryFilters): Promise<Entry[]>;
  /** The live entries of our API with this task and anatomy (slugs): the defaults first, then the oldest. */
  candidates(task: string, anatomy: string): Promise<Entry[]>;
  /** The addresses `task/anatomy` that have a live entry of our API, in the order of their characters. */
  addresses(): Promise<string[]>;
  /** The number of entries, by interface and by whether they are live. */
  count(): Promise<{ face: 'api' | 'v1'; live: boolean; entries: number }[]>;
  /** Drops entries that expired more than a day ago; returns the number of dropped entries. */
  sweep(): Promise<number>;
  close(): Promise<void>;
}

/** The entries of a registry’s database, which is closed with them. `now` is the clock, in ms since 1970. */
export async function openEntries(
  database: Database<RegistrySchema>,
  now: () => number = Date.now,
): Promise<Entries> {
  const { db, dialect } = database;
  // A commit survives the process, not a power failure: what is lost is announced again within 30 s, and an fsync for
  // every renewal would cost 4 ms of a thread that also relays. Keys made by 'tomaat keys' are synced there.
  if (dialect === 'sqlite') await sql`PRAGMA synchronous = NORMAL`.execute(db);

  /** One change at a time, also of several registries: each reads what the one before it wrote. */
  const change = <T>(work: (trx: Transaction<RegistrySchema>) => Promise<T>): Promise<T> =>
    database.transaction(async (trx) => {
      if (dialect === 'postgres') await sql`SET LOCAL synchronous_commit = off`.execute(trx);
      await lockAlone(trx, 'entries');
      return work(trx);
    });
  /** Text is compared by its bytes. */
  const byName = dialect === 'postgres' ? sql`name COLLATE "C"` : sql`name`;
  const contains = (word: string) =>
    dialect === 'postgres'
      ? sql<boolean>`strpos(words, ${word}) > 0`
      : sql<boolean>`instr(words, ${word}) > 0`;

  /** Whether the row's key is still valid. */
  const validKey = (at: number) =>
    sql<boolean>`EXISTS (SELECT 1 FROM api_key WHERE api_key.id = entry.key_id AND revoked_ms IS NULL
      AND (api_key.expires_ms IS NULL OR api_key.expires_ms > ${at}))`;
  const isLive = (at: number) => sql<boolean>`(entry.expires_ms > ${at} AND ${validKey(at)})`;
  const rows = (at: number) => db.selectFrom('entry').selectAll().select(isLive(at).as('live'));

  async function checkRoom(trx: Kysely<RegistrySchema>, key: KeyId): Promise<void> {
    const { own, all } = await trx
      .selectFrom('entry')
      .select([
        sql<number>`count(*) FILTER (WHERE key_id = ${key.id})`.as('own'),
        sql<number>`count(*)`.as('all'),
      ])
      .executeTakeFirstOrThrow();
    if (own >= maxEntriesPerKey) {
      throw new TomaatError(
        'CONFLICT',
        `The key ${key.id} has ${own} entries, which is its limit. Withdraw some, or use another key.`,
      );
    }
    if (all >= maxEntries) {
      throw new TomaatError(
        'BUSY',
        `The registry holds ${all} entries, which is its limit. Try again later.`,
      );
    }
  }

  async function write(
    trx: Kysely<RegistrySchema>,
    existing: Row | undefined,
    key: KeyId,
    row: Omit<EntryTable, 'sid' | 'first_ms'>,
  ) {
    if (existing) {
      const updated = trx.updateTable('entry').set(row).where('sid', '=', existing.sid).returningAll();
      return toEntry({ ...(await updated.executeTakeFirstOrThrow()), live: true });
    }
    await checkRoom(trx, key);
    const inserted = trx
      .insertInto('entry')
      .values({ ...row, sid: randomName(8), first_ms: row.announced_ms })
      .returningAll();
    return toEntry({ ...(await inserted.executeTakeFirstOrThrow()), live: true });
  }

  const ownPair = (trx: Kysely<RegistrySchema>, key: KeyId, predictionUrl: string) =>
    trx
      .selectFrom('entry')
      .selectAll()
      .where('key_id', '=', key.id)
      .where('prediction_url', '=', predictionUrl)
      .executeTakeFirst();

  return {
    db,

    announce: (key, announcement, signed) =>
      change(async (trx) => {
        const at = now();
        const { id } = announcement;
        let byId: (Row & { keyValid?: unknown }) | undefined = await trx
          .selectFrom('entry')
          .selectAll()
          .select(validKey(at).as('keyValid'))
          .where('id', '=', id)
          .executeTakeFirst();
        if (byId && byId.key_id !== key.id) {
          if (byId.keyValid) throw foreign(id);
          await trx.deleteFrom('entry').where('sid', '=', byId.sid).execute();
          byId = undefined;
        }
        await rememberAnnounced(trx, announcement, at);
        const byPair = await ownPair(trx, key, announcement.predictionUrl);
        if (byId && byPair && byId.sid !== byPair.sid) {
          await trx.deleteFrom('entry').where('sid', '=', byPair.sid).execute();
        }
        return write(trx, byId ?? byPair, key, {
          key_id: key.id,
          id,
          signed,
          face: 'api',
          ...names(announcement),
          prediction_url: announcement.predictionUrl,
          interface_url: announcement.interfaceUrl,
          server_url: announcement.serverUrl,
          service_id: announcement.serviceId,
          version: announcement.version ?? null,
          is_default: announcement.default ? 1 : 0,
          volumes: announcement.volumes ?? null,
          announced_ms: at,
          expires_ms: at + apiLifeMs,
        });
      }),

    announceV1: (key, announcement) =>
      change(async (trx) => {
        const at = now();
        const existing =
          (await ownPair(trx, key, announcement.prediction_url)) ?? (await movedFrom(trx, key, announcement));
        const byApi = existing?.face === 'api' && existing.expires_ms > at ? existing : undefined;
        return write(trx, existing, key, {
          key_id: key.id,
          id: byApi?.id ?? null,
          signed: byApi?.signed ?? null,
          face: byApi ? 'api' : 'v1',
          // The signed text must not change.
          ...names(byApi ?? announcement),
          prediction_url: announcement.prediction_url,
          interface_url: byApi?.interface_url ?? announcement.interface_url,
          server_url: byApi?.server_url ?? null,
          service_id: byApi?.service_id ?? null,
          version: byApi?.version ?? null,
          is_default: byApi?.is_default ?? 0,
          volumes: byApi?.volumes ?? null,
          announced_ms: at,
          expires_ms: byApi?.expires_ms ?? at + v1LifeMs,
        });
      }),

    withdraw: (key, id) =>
      change(async (trx) => {
        const row = await trx
          .selectFrom('entry')
          .select(['sid', 'key_id'])
          .where('id', '=', id)
          .executeTakeFirst();
        if (!row)
          throw new TomaatError(
            'NOT_FOUND',
            `There is no announcement '${id}': it was withdrawn, or dropped after a day. Announce the service again.`,
          );
        if (row.key_id !== key.id) throw foreign(id);
        await trx.deleteFrom('entry').where('sid', '=', row.sid).execute();
      }),

    async search(filters) {
      const at = now();
      let query = rows(at);
      if (filters.modality) query = query.where('modality_slug', '=', toSlug(filters.modality));
      if (filters.anatomy) query = query.where('anatomy_slug', '=', toSlug(filters.anatomy));
      if (filters.task) query = query.where('task_slug', '=', toSlug(filters.task));
      for (const word of (filters.q ?? '').toLowerCase().split(/\s+/).filter(Boolean).slice(0, 16)) {
        query = query.where(contains(word));
      }
      if (filters.live !== undefined) query = query.where(isLive(at), '=', filters.live);
      const found = await query
        .where('expires_ms', '>', at - keptMs)
        .orderBy(byName)
        .orderBy('first_ms')
        .orderBy('sid')
        .execute();
      return found.map(toEntry);
    },

    async candidates(task, anatomy) {
      const at = now();
      const found = await rows(at)
        .where('task_slug', '=', task)
        .where('anatomy_slug', '=', anatomy)
        .where('face', '=', 'api')
        .where(isLive(at), '=', true)
        .orderBy('is_default', 'desc')
        .orderBy('first_ms')
        .orderBy('sid')
        .execute();
      return found.map(toEntry);
    },

    async addresses() {
      const found = await db
        .selectFrom('entry')
        .select(['task_slug', 'anatomy_slug'])
        .distinct()
        .where('face', '=', 'api')
        .where(isLive(now()), '=', true)
        .execute();
      // Not by the database: the order of PostgreSQL depends on its locale.
      return found.map((row) => `${row.task_slug}/${row.anatomy_slug}`).sort();
    },

    async count() {
      const found = await db
        .selectFrom('entry')
        .select(['face', isLive(now()).as('live'), sql<number>`count(*)`.as('entries')])
        .groupBy(['face', 'live'])
        .execute();
      return found.map((row) => ({ ...row, live: Boolean(row.live) }));
    },

    async sweep() {
      await forgetAnnounced(db, now());
      const { numDeletedRows } = await db
        .deleteFrom('entry')
        .where('expires_ms', '<=', now() - keptMs)
        .executeTakeFirst();
      return Number(numDeletedRows);
    },

    close: () => database.close(),
    [Symbol.asyncDispose]: () => database.close(),
  };
}

/** The key's only entry, if it is a v1 entry of the same service at another address. */
async function movedFrom(
  trx: Kysely<RegistrySchema>,
  key: KeyId,
  announcement: V1Announcement,
): Promise<Row | undefined> {
  const own = await trx.selectFrom('entry').selectAll().where('key_id', '=', key.id).limit(2).execute();
  const [only] = own;
  if (own.length !== 1 || only.face !== 'v1') return undefined;
  const same = (['name', 'modality', 'anatomy', 'task'] as const).every(
    (field) => only[field] === announcement[field],
  );
  return same ? only : undefined;
}

/** How long a signed text is valid, with tolerance for clocks: an older one cannot be replayed. */
const replayMs = 600_000;

/** Rejects a copy, an older announcement and another key for the same id. */
async function rememberAnnounced(
  trx: Kysely<RegistrySchema>,
  { id, sub, epoch }: SignedAnnouncement,
  at: number,
): Promise<void> {
  const known = await trx.selectFrom('announced').selectAll().where('id', '=', id).executeTakeFirst();
  if (known && known.thumbprint !== sub) {
    throw new TomaatError(
      'BAD_SIGNATURE',
      `The service ${id} was first announced by the key ${known.thumbprint}, but this announcement is signed by ${sub}. Announce it under another id.`,
    );
  }
  if (known && epoch <= known.epoch) {
    throw new TomaatError(
      'BAD_SIGNATURE',
      `The announcement has the epoch ${epoch}, but ${known.epoch} was already announced: this is a copy or an older one. Sign a new one with a higher epoch.`,
    );
  }
  if (known) {
    await trx.updateTable('announced').set({ epoch, announced_ms: at }).where('id', '=', id).execute();
    return;
  }
  await forgetAnnounced(trx, at);
  await trx.insertInto('announced').values({ id, thumbprint: sub, epoch, announced_ms: at }).execute();
}

async function forgetAnnounced(db: Kysely<RegistrySchema>, at: number): Promise<void> {
  await db
    .deleteFrom('announced')
    .where('announced_ms', '<=', at - replayMs)
    .where(sql<boolean>`NOT EXISTS (SELECT 1 FROM entry WHERE entry.id = announced.id)`)
    .execute();
}

function names(from: { name: string; modality: string; anatomy: string; task: string; description: string }) {
  return {
    name: from.name,
    modality: from.modality,
    anatomy: from.anatomy,
    task: from.task,
    description: from.description,
    modality_slug: toSlug(from.modality),
    anatomy_slug: toSlug(from.anatomy),
    task_slug: toSlug(from.task),
    words: `${from.name}\n${from.description}`.toLowerCase(),
  };
}

/** Fingerprint of the certificate that the server of an entry announced; its signature was checked on receipt. */
export function certificateOf({ signed }: Entry): string | undefined {
  return signed ? (partOf(signed, 1) as SignedAnnouncement).certificate : undefined;
}

const parityOf = (signed: string): Entry['parity'] =>
  announcedParitySchema.optional().parse((partOf(signed, 0) as { parity?: unknown }).parity);

/** Header (0) or payload (1) of a signed text, which was verified on receipt. */
const partOf = (signed: string, part: 0 | 1): unknown =>
  JSON.parse(Buffer.from(signed.split('.')[part] ?? '', 'base64url').toString('utf8'));

function foreign(id: string): TomaatError {
  return new TomaatError(
    'FORBIDDEN',
    `The announcement '${id}' belongs to another API key. Choose another id, or use that key.`,
  );
}

function toEntry(row: Row & { live: unknown }): Entry {
  return {
    sid: row.sid,
    name: row.name,
    modality: row.modality,
    anatomy: row.anatomy,
    task: row.task,
    description: row.description,
    predictionUrl: row.prediction_url,
    interfaceUrl: row.interface_url,
    serverUrl: row.server_url ?? undefined,
    serviceId: row.service_id ?? undefined,
    version: row.version ?? undefined,
    default: row.face === 'api' ? row.is_default === 1 : undefined,
    volumes: row.volumes ?? undefined,
    parity: row.signed ? parityOf(row.signed) : undefined,
    face: row.face,
    live: Boolean(row.live),
    announcedTime: new Date(row.announced_ms).toISOString(),
    expiresTime: new Date(row.expires_ms).toISOString(),
    id: row.id ?? undefined,
    signed: row.signed ?? false,
  };
}
