import { randomBytes } from 'node:crypto';
import type { BlobRef } from '../blobs/blob-writer.ts';
import type { Database } from '../database/database.ts';
import { lockAlone } from '../database/locks.ts';
import {
  nextArrivalUs,
  type UploadCleaning,
  type UploadRow,
  type UploadsSchema,
  type UploadWitness,
} from '../database/upload-schema.ts';

/**
 * Uploads that a protocol names: the files of one volume together, under a name that the sender chose. They are uploads
 * like any other: kept for a while after their last use, and across restarts. Names and holders are hashes (of whatever distinguishes
 * callers and images), so that no name of a patient is stored.
 */

export interface GroupKey {
  readonly owner: string;
  readonly name: string;
}

/** A file in the blob store, held by the caller until put() has resolved. */
export interface GroupFile extends BlobRef {
  readonly path: string;
  readonly fileName?: string;
}

export interface GroupBounds {
  readonly groups: number;
  readonly bytes: number;
}

/** The most of one holder and of all together; where there are more, the least recently used ones are deleted. */
export function groupBounds(maxBytes: number): { holder: GroupBounds; all: GroupBounds } {
  return { holder: { groups: 32, bytes: 4 * maxBytes }, all: { groups: 512, bytes: 16 * maxBytes } };
}

export interface GroupsOptions extends UploadCleaning {
  database: Database<UploadsSchema>;
  maxBytes: number;
  now(): number;
  /** When an upload that is used now expires. */
  lease(): number;
  drop(id: string, why: 'deleted' | 'expired'): Promise<unknown>;
  witness?: UploadWitness;
}

export type UploadGroups = ReturnType<typeof createUploadGroups>;

export function createUploadGroups(options: GroupsOptions) {
  const { database, maxBytes, now, lease, strip = async () => false, hideName, drop, witness } = options;
  const { db } = database;

  /**
   * Stores files under a name, instead of what was there. `hold` keeps the blob of a file from which identifying text was removed
   * until this has resolved. Throws what checking such a file throws; then nothing is stored.
   */
  async function put(
    { owner, name, holder }: GroupKey & { holder: string },
    files: readonly GroupFile[],
    hold: (file: BlobRef) => void | Promise<void>,
  ): Promise<void> {
    const rows: UploadRow[] = [];
    for (const { path, digest, sizeBytes, fileName } of files) {
      let stored = digest;
      await strip({ path, name: fileName ?? '', sizeBytes }, async (clean) => {
        await hold(clean);
        stored = clean.digest;
      });
      rows.push({
        id: randomBytes(16).toString('base64url'),
        owner,
        size_bytes: sizeBytes,
        offset_bytes: sizeBytes,
        expected: digest,
        digest: stored,
        file_name: (hideName && fileName ? hideName(fileName) : fileName) ?? null,
        metadata: '',
        expires_ms: lease(),
        holder,
        name,
        arrived_us: nextArrivalUs(now()),
      });
    }
    const before = await database.transaction(async (trx) => {
      await lockAlone(trx, ['uploadGroup', `${owner} ${name}`]);
      const old = await trx
        .selectFrom('upload')
        .select('id')
        .where('owner', '=', owner)
        .where('name', '=', name)
        .execute();
      // At no time does the name mean the old files and the new ones together.
      await trx
        .updateTable('upload')
        .set({ name: null })
        .where('owner', '=', owner)
        .where('name', '=', name)
        .execute();
      for (const row of rows) await trx.insertInto('upload').values(row).execute();
      for (const { id, digest } of rows) await witness?.received({ id, owner, digest: digest! }, trx);
      return old;
    });
    for (const { id } of before) await drop(id, 'deleted');
    await keepBounds({ owner, holder });
  }

  /** Deletes the least recently used groups until no bound is exceeded. */
  async function keepBounds({ owner, holder }: { owner: string; holder: string }): Promise<void> {
    const bounds = groupBounds(maxBytes);
    // A group has up to thousands of files: their sum is made by the database.
    const all = await db
      .selectFrom('upload')
      .select(({ fn }) => [
        'owner',
        'holder',
        'name',
        fn.sum<number>('size_bytes').as('bytes'),
        fn.max('expires_ms').as('expiresMs'),
      ])
      .where('name', 'is not', null)
      .groupBy(['owner', 'holder', 'name'])
      .orderBy('expiresMs', 'desc')
      .execute();
    const own = all.filter((group) => group.owner === owner && group.holder === holder);
    for (const group of new Set([...beyond(own, bounds.holder), ...beyond(all, bounds.all)])) {
      const rows = await db
        .selectFrom('upload')
        .select('id')
        .where('owner', '=', group.owner)
        .where('name', '=', group.name)
        .execute();
      for (const { id } of rows) await drop(id, 'expired');
    }
  }

  /** The ids of the uploads of that name, in the order in which they came, and when they expire; undefined if there are none. */
  async function find({ owner, name }: GroupKey): Promise<{ ids: string[]; expiresMs: number } | undefined> {
    const rows = await db
      .selectFrom('upload')
      .select(['id', 'expires_ms'])
      .where('owner', '=', owner)
      .where('name', '=', name)
      .where('expires_ms', '>', now())
      .orderBy('arrived_us')
      .execute();
    if (rows.length === 0) return undefined;
    return { ids: rows.map(({ id }) => id), expiresMs: Math.min(...rows.map((row) => row.expires_ms)) };
  }

  /** The same, and renews their lease. */
  async function use(key: GroupKey) {
    const found = await find(key);
    if (!found) return undefined;
    const expiresMs = lease();
    await db.updateTable('upload').set({ expires_ms: expiresMs }).where('id', 'in', found.ids).execute();
    return { ...found, expiresMs };
  }

  return {
    put,
    find,
    use,
    /** Deletes them; a job that uses a blob of theirs keeps it. */
    async remove(key: GroupKey): Promise<void> {
      for (const id of (await find(key))?.ids ?? []) await drop(id, 'deleted');
    },
  };
}

/** The groups beyond a bound, of a list whose most recently used one is the first, and stays. */
function beyond<T extends { bytes: number }>(groups: readonly T[], bound: GroupBounds): T[] {
  let bytes = 0;
  return groups.filter((group, i) => {
    bytes += group.bytes;
    return i > 0 && (i >= bound.groups || bytes > bound.bytes);
  });
}
