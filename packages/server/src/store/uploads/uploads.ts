import { randomBytes } from 'node:crypto';
import { describeError, TomaatError } from '@tomaat/core';
import type { Kysely } from 'kysely';
import type { Blobs } from '../blobs/blobs.ts';
import type { Database } from '../database/database.ts';
import { lockAlone } from '../database/locks.ts';
import {
  type NewUpload,
  nextArrivalUs,
  type SharedBlobHolds,
  toUpload,
  type Upload,
  type UploadCleaning,
  type UploadRow,
  type UploadsSchema,
  type UploadWitness,
} from '../database/upload-schema.ts';
import { findOwnBlob, isUploaded } from './own-blobs.ts';
import { recoverUploads } from './recover-uploads.ts';
import { createUploadGroups } from './upload-groups.ts';
import { createUploadLeases } from './upload-leases.ts';
import { openUploadFiles, type UploadParts } from './upload-parts.ts';
import { openUploadPieces } from './upload-pieces.ts';
import { makeRoom } from './upload-room.ts';
import { createUploadWriters, type UploadWriter } from './upload-writers.ts';

/**
 * Resumable uploads. A row says how many bytes of an upload are durable; they are in a file (`upload-parts.ts`) or, where
 * several servers take the same uploads, in the blob store (`upload-pieces.ts`). A complete upload is a blob, and its row a
 * lease on it: it is kept for an hour after its last use.
 */

export interface UploadsOptions extends UploadCleaning {
  database: Database<UploadsSchema>;
  blobs: Blobs;
  /** Folder of the parts; best on the same file system as the blobs. */
  folder: string;
  /** Given if other servers take the same uploads. */
  shared?: SharedBlobHolds;
  /** How long a request of a killed server counts as writing; 5 s if missing. */
  writerLeaseMs?: number;
  maxBytes: number;
  /** The most uploads, complete or not, that one owner may have. */
  maxPerOwner?: number;
  /** How long an upload is kept after its last use. */
  leaseMs?: number;
  /** Other keepers of a blob. */
  isHeld(digest: string): Promise<boolean>;
  /** Called with the outcome of an upload, after it was recorded. */
  witness?: UploadWitness;
  now?(): number;
}

export type Uploads = Awaited<ReturnType<typeof openUploads>>;

export async function openUploads(options: UploadsOptions) {
  const {
    database,
    blobs,
    folder,
    shared,
    writerLeaseMs,
    maxBytes,
    maxPerOwner = 200,
    leaseMs = 3_600_000,
    isHeld,
    strip = async () => false,
    hideName,
    witness,
    now = Date.now,
  } = options;
  const db = database.db;
  const lease = () => now() + leaseMs;
  const pieces = shared
    ? await openUploadPieces(folder, { database, blobs, holds: shared, expiryMs: lease })
    : undefined;
  const files = pieces ? undefined : await openUploadFiles(folder, { db, expiryMs: lease });
  const parts: UploadParts = pieces ?? files!;
  const writers = createUploadWriters();
  const leases = shared
    ? createUploadLeases({ database, leaseMs: writerLeaseMs, end: (id) => writers.takeOver(id) })
    : undefined;
  const evict = async ({ id }: { id: string }) => {
    await writers.takeOver(
      id,
      0,
      'The disk is full, and the upload was deleted to make room for other users. Try again later.',
    );
    await drop(id, 'expired');
  };
  const room = { db, blobs, leaseMs, now, isWritten: writers.isWritten, evict };

  async function rowOf(owner: string, id: string): Promise<UploadRow> {
    const row = await db.selectFrom('upload').selectAll().where('id', '=', id).executeTakeFirst();
    if (row && row.owner === owner && row.expires_ms > now()) return row;
    if (row && row.owner !== owner) witness?.refused?.({ id }, owner);
    throw gone();
  }

  /** Throws BUSY if the owner has the most uploads that are allowed. */
  async function requireFewer(at: Kysely<UploadsSchema>, owner: string): Promise<void> {
    const { own } = await at
      .selectFrom('upload')
      .select((e) => e.fn.countAll<number>().as('own'))
      .where('owner', '=', owner)
      .where('name', 'is', null)
      .executeTakeFirstOrThrow();
    if (own >= maxPerOwner)
      throw new TomaatError(
        'BUSY',
        `You already have ${own} uploads, the most allowed. Delete some, or wait until they expire.`,
      );
  }

  /** Begins an upload. UPLOAD_TOO_LARGE, DISK_FULL if it could not finish, BUSY if the owner has too many. */
  async function create(upload: NewUpload): Promise<Upload> {
    if (upload.sizeBytes > maxBytes) {
      throw new TomaatError(
        'UPLOAD_TOO_LARGE',
        `The upload is larger than the ${maxBytes} bytes that this server accepts. Crop or compress the volume, or ask the operator for a higher limit`,
        { detail: { maxUploadBytes: maxBytes } },
      );
    }
    await requireFewer(db, upload.owner);
    // Space promised to others must fit too.
    await makeRoom(room, { owner: upload.owner, sizeBytes: upload.sizeBytes, besidePromised: true });
    const row: UploadRow = {
      id: randomBytes(16).toString('base64url'),
      owner: upload.owner,
      size_bytes: upload.sizeBytes,
      offset_bytes: 0,
      expected: upload.expected ?? null,
      digest: null,
      // Hidden before it is stored: what is overwritten later stays in the log of the database for a while.
      file_name: (hideName && upload.fileName ? hideName(upload.fileName) : upload.fileName) ?? null,
      metadata: hideName ? '' : upload.metadata,
      expires_ms: lease(),
      holder: null,
      name: null,
      arrived_us: nextArrivalUs(now()),
    };
    await parts.create(row.id);
    try {
      await database.transaction(async (trx) => {
        await lockAlone(trx, ['uploadsOf', upload.owner]);
        // Checked again, because other uploads of this owner may have begun meanwhile.
        await requireFewer(trx, upload.owner);
        await trx.insertInto('upload').values(row).execute();
      });
    } catch (error) {
      await parts.remove(row.id);
      throw error;
    }
    return toUpload(row);
  }

  /** The progress of the upload. Ends a request that still writes to it: the asking client wants to resume. */
  async function find(owner: string, id: string): Promise<Upload> {
    await rowOf(owner, id);
    await writers.takeOver(id);
    await leases?.takeOver(id);
    const row = await rowOf(owner, id);
    // The server that took the last bytes ended before it was done with them.
    if (leases && isWhole(row))
      return writers.run(id, row.size_bytes, (writer) => complete(owner, id, writer));
    return toUpload(row);
  }

  /** Whether all bytes have arrived, and are not a blob yet. */
  const isWhole = (row: UploadRow) => row.digest === null && row.offset_bytes === row.size_bytes;

  async function complete(owner: string, id: string, writer: UploadWriter): Promise<Upload> {
    return alone(id, writer, async () => {
      const row = await rowOf(owner, id);
      return isWhole(row) ? finish(row) : toUpload(row);
    });
  }

  /** Runs `write` while no request at another server writes to the upload. */
  const alone = <T>(id: string, writer: UploadWriter, write: () => Promise<T>): Promise<T> =>
    leases ? leases.hold(id, writer, write) : write();

  /**
   * Takes bytes from an offset on. However the body ends, the received bytes are durable when this settles, and count.
   * CONFLICT (detail.offsetBytes) if the offset is not that of the upload; BAD_INPUT, and the upload is deleted, if
   * the file does not have the announced SHA-256.
   */
  async function append(
    owner: string,
    id: string,
    offsetBytes: number,
    body: AsyncIterable<Uint8Array>,
  ): Promise<Upload> {
    await rowOf(owner, id);
    return writers.run(id, offsetBytes, (writer) =>
      alone(id, writer, () => write(owner, id, offsetBytes, body, writer)),
    );
  }

  async function write(
    owner: string,
    id: string,
    offsetBytes: number,
    body: AsyncIterable<Uint8Array>,
    writer: UploadWriter,
  ): Promise<Upload> {
    const row = await rowOf(owner, id);
    if (row.offset_bytes !== offsetBytes) {
      throw new TomaatError(
        'CONFLICT',
        `The upload is at byte ${row.offset_bytes}, not ${offsetBytes}. Continue from there.`,
        {
          field: 'Upload-Offset',
          detail: { offsetBytes: row.offset_bytes },
        },
      );
    }
    if (row.digest !== null) return toUpload(row);
    const { isWhole, digest } = await parts.receive(row, body, writer);
    return isWhole ? finish(row, digest) : toUpload(await rowOf(owner, id));
  }

  /** All bytes have arrived: checks them and makes a blob of them, unless another server has done so while this one was paused. */
  async function finish(row: UploadRow, found?: string): Promise<Upload> {
    try {
      await makeBlob(row, found);
    } catch (error) {
      const now = await db.selectFrom('upload').select('digest').where('id', '=', row.id).executeTakeFirst();
      if (!now?.digest) throw error;
    }
    await parts.remove(row.id);
    return toUpload(await rowOf(row.owner, row.id));
  }

  async function makeBlob(row: UploadRow, found?: string): Promise<void> {
    const { id } = row;
    const digest = found ?? (await parts.digestOf(row));
    if (row.expected !== null && row.expected !== digest) {
      await drop(id);
      throw new TomaatError(
        'BAD_INPUT',
        `The received bytes have the SHA-256 ${digest.slice(7)}, not the announced one. The upload was deleted; send the file again.`,
        { field: 'sha256' },
      );
    }
    // Recorded first: after a crash between the two steps the next start finds the blob through it.
    await db
      .updateTable('upload')
      .set({ expected: digest })
      .where('id', '=', id)
      .where('digest', 'is', null)
      .execute();
    const keep = async (stored: { digest: string }) => {
      await shared?.hold(stored.digest);
      await database.transaction(async (trx) => {
        const { numUpdatedRows } = await trx
          .updateTable('upload')
          .set({ digest: stored.digest, offset_bytes: row.size_bytes, expires_ms: lease() })
          .where('id', '=', id)
          .where('digest', 'is', null)
          .executeTakeFirst();
        if (numUpdatedRows === 0n) throw gone();
        await witness?.received({ id, owner: row.owner, digest }, trx);
      });
      await shared?.release([stored.digest]);
    };
    const path = parts.pathOf(id);
    const isStripped = await strip(
      { path, name: row.file_name ?? '', sizeBytes: row.size_bytes },
      keep,
    ).catch(async (error: unknown) => {
      if (error instanceof TomaatError && describeError(error.code).fault === 'caller') await drop(id);
      throw error;
    });
    if (!isStripped) await blobs.adopt(path, { digest, keep: () => keep({ digest }) });
  }

  /** Deletes an upload, complete or not; a job that uses its blob keeps the blob. */
  async function remove(owner: string, id: string): Promise<void> {
    await rowOf(owner, id);
    await writers.takeOver(id);
    await drop(id, 'deleted');
  }

  /** Deletes all uploads of an owner, complete or not, and ends requests that write to them; returns how many. */
  async function removeAll(owner: string): Promise<number> {
    const rows = await db.selectFrom('upload').select('id').where('owner', '=', owner).execute();
    for (const { id } of rows) {
      await writers.takeOver(id, 0);
      await drop(id, 'deleted');
    }
    return rows.length;
  }

  /**
   * Deletes an upload; false if it did not exist, or has not expired at `expiredMs`. Without `why` it was never complete, and nothing is
   * recorded.
   */
  async function drop(id: string, why?: 'deleted' | 'expired', expiredMs?: number): Promise<boolean> {
    const row = await database.transaction(async (trx) => {
      let deletion = trx.deleteFrom('upload').where('id', '=', id);
      if (expiredMs !== undefined) deletion = deletion.where('expires_ms', '<=', expiredMs);
      const found = await deletion.returning(['digest', 'owner']).executeTakeFirst();
      if (found && why) await witness?.removed({ id, owner: found.owner }, why, trx);
      return found;
    });
    if (!row && expiredMs !== undefined) return false;
    await parts.remove(id);
    const digest = row?.digest;
    if (digest && shared) await shared.drop([digest]);
    else if (digest) await blobs.delete(digest, () => isHeld(digest));
    return row !== undefined;
  }

  /** Uses a complete upload and renews its lease. NOT_READY while bytes are missing. */
  async function use(owner: string, id: string): Promise<Upload & { digest: string }> {
    const upload = toUpload(await rowOf(owner, id));
    if (upload.digest === undefined) {
      throw new TomaatError(
        'NOT_READY',
        `The upload ${id} is incomplete: ${upload.offsetBytes} of its ${upload.sizeBytes} bytes have arrived. Send the rest first.`,
        { field: 'upload' },
      );
    }
    // Not at every use: a recent lease is good enough.
    const expiresMs = lease();
    if (expiresMs - upload.expiresMs > leaseMs / 60) {
      await db.updateTable('upload').set({ expires_ms: expiresMs }).where('id', '=', id).execute();
    }
    return { ...upload, digest: upload.digest };
  }

  /** Deletes expired uploads; returns how many. */
  async function sweep(): Promise<number> {
    const expired = await db.selectFrom('upload').select('id').where('expires_ms', '<=', now()).execute();
    let count = 0;
    for (const { id } of expired) {
      if (writers.isWritten(id)) continue;
      if (await drop(id, 'expired', now())) count++;
    }
    await leases?.sweep();
    await pieces?.sweep();
    return count;
  }

  const groups = createUploadGroups({ database, now, lease, maxBytes, strip, hideName, drop, witness });

  return {
    create,
    groups,
    /** As `makeRoom()` of upload-room.ts. */
    makeRoom: (owner: string, sizeBytes: number, { besidePromised = false } = {}): Promise<void> =>
      makeRoom(room, { owner, sizeBytes, besidePromised }),
    find,
    append,
    remove,
    removeAll,
    use,
    findBlob: (owner: string, digest: string) => findOwnBlob({ db, blobs, now }, owner, digest),
    keeps: (digest: string) => isUploaded(db, digest),
    sweep,
    /** `lost` is called for each upload that could not be completed, and was deleted. */
    recover: async (lost?: (id: string, error: unknown) => void) => {
      // Where other servers take the same uploads, one that nobody completed is completed when its sender asks for it.
      if (files) await recoverUploads({ db, blobs, parts: files, finish, drop, lost });
    },
    close: writers.endAll,
    leaseMs,
    [Symbol.asyncDispose]: writers.endAll,
  };
}

const gone = () =>
  new TomaatError(
    'NOT_FOUND',
    'This upload does not exist: it was deleted, or has expired. Start a new one.',
    { field: 'upload' },
  );
