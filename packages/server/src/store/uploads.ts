import { createHash, type Hash, randomBytes } from 'node:crypto';
import { type FileHandle, open, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { TomaatError } from '@tomaat/core';
import { type Kysely, sql } from 'kysely';
import { type BlobRef, type Blobs, diskError, makeFolder, syncFolder, writeAll } from './blobs.ts';
import type { Database, Migration } from './database.ts';
import { hashFile } from './hash-file.ts';
import { chooseToDelete } from './upload-room.ts';

/**
 * Resumable uploads. A part is a file `<id>` in a folder of its own and a row that says how many of its
 * bytes are on the disk for sure; anything after them is truncated before more is written. A whole upload is a blob, and
 * its row a lease on it: it lives for an hour after its last use.
 */

export interface UploadsSchema {
  upload: {
    id: string;
    owner: string;
    size_bytes: number;
    /** Bytes that are on the disk. */
    offset_bytes: number;
    /** SHA-256 that the bytes should have, or that they were found to have. */
    expected: string | null;
    /** The blob, once the upload is whole. */
    digest: string | null;
    file_name: string | null;
    metadata: string;
    expires_ms: number;
  };
}

export const uploadMigrations: readonly Migration[] = [
  {
    name: 'uploads',
    async up(db: Kysely<unknown>) {
      await sql`CREATE TABLE upload (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, size_bytes INTEGER NOT NULL, offset_bytes INTEGER NOT NULL,
        expected TEXT, digest TEXT, file_name TEXT, metadata TEXT NOT NULL, expires_ms INTEGER NOT NULL) STRICT`.execute(
        db,
      );
      await sql`CREATE INDEX upload_digest ON upload (digest) WHERE digest IS NOT NULL`.execute(db);
      await sql`CREATE INDEX upload_expiry ON upload (expires_ms)`.execute(db);
    },
  },
];

export interface Upload {
  id: string;
  sizeBytes: number;
  offsetBytes: number;
  /** `sha256:…`, once it is whole. */
  digest?: string;
  /** `sha256:…` as received, if text was removed. */
  received?: string;
  fileName?: string;
  /** The Upload-Metadata header as it was sent. */
  metadata: string;
  expiresMs: number;
}

export interface NewUpload {
  owner: string;
  sizeBytes: number;
  /** `sha256:…`, checked when all bytes are there. */
  expected?: string;
  fileName?: string;
  metadata: string;
}

export interface UploadsOptions {
  database: Database<UploadsSchema>;
  blobs: Blobs;
  /** Folder of the parts; it must be on the same file system as the blobs. */
  folder: string;
  maxBytes: number;
  /** Uploads, whole or not, that one owner may have at a time. */
  maxPerOwner?: number;
  /** How long an upload lives after its last use. */
  leaseMs?: number;
  /** What else keeps a blob. */
  isHeld(digest: string): Promise<boolean>;
  /**
   * Removes identifying text from a complete file: a stream of the stripped file, undefined if the file is kept as received.
   */
  strip?(path: string, fileName: string, sizeBytes: number): Promise<AsyncIterable<Uint8Array> | undefined>;
  /** Called with the outcome of an upload, after it was recorded. */
  witness?: UploadWitness;
  now?(): number;
}

export interface UploadWitness {
  received(upload: { id: string; owner: string; digest: string }): void;
  removed(upload: { id: string; owner: string }, why: 'deleted' | 'expired'): void;
  /** Another owner asked for this upload, and was answered that it does not exist. */
  refused?(upload: { id: string }, caller: string): void;
}

export type Uploads = Awaited<ReturnType<typeof openUploads>>;

/** The writer of an upload: its progress, how to end it, and when it has ended. */
interface Writer {
  at: number;
  readonly stop: AbortController;
  ended: Promise<unknown>;
}

/** A sender that is silent this long is considered dead when another one wants to continue. */
const silenceMs = 150;
/** A sender that is not silent may continue this long. */
const longestGraceMs = 10_000;
/** At most this many bytes are sent again after the server was killed. */
const checkpointBytes = 2 * 1024 * 1024;

export async function openUploads(options: UploadsOptions) {
  const {
    database,
    blobs,
    folder,
    maxBytes,
    maxPerOwner = 200,
    leaseMs = 3_600_000,
    isHeld,
    strip = async () => undefined,
    witness,
    now = Date.now,
  } = options;
  const db = database.db;
  await makeFolder(folder);
  /** The current writer of an upload: at most one, and the next one ends it. */
  const writers = new Map<string, Writer>();
  /** The hash so far of parts that this process has received from their first byte on. */
  const hashes = new Map<string, { hash: Hash; bytes: number }>();
  const pathOf = (id: string) => join(folder, id);
  const lease = () => now() + leaseMs;

  function toUpload(row: UploadsSchema['upload']): Upload {
    return {
      id: row.id,
      sizeBytes: row.size_bytes,
      offsetBytes: row.offset_bytes,
      digest: row.digest ?? undefined,
      received: row.digest !== null && row.digest !== row.expected ? (row.expected ?? undefined) : undefined,
      fileName: row.file_name ?? undefined,
      metadata: row.metadata,
      expiresMs: row.expires_ms,
    };
  }

  async function rowOf(owner: string, id: string): Promise<UploadsSchema['upload']> {
    const row = await db.selectFrom('upload').selectAll().where('id', '=', id).executeTakeFirst();
    if (row && row.owner === owner && row.expires_ms > now()) return row;
    if (row && row.owner !== owner) witness?.refused?.({ id }, owner);
    throw new TomaatError(
      'NOT_FOUND',
      'This upload does not exist: it was deleted, or has expired. Start a new one.',
      {
        field: 'upload',
      },
    );
  }

  /** Begins an upload. UPLOAD_TOO_LARGE, DISK_FULL if it could not finish, BUSY when the owner has too many. */
  async function create(upload: NewUpload): Promise<Upload> {
    if (upload.sizeBytes > maxBytes) {
      throw new TomaatError(
        'UPLOAD_TOO_LARGE',
        `The upload is larger than the ${maxBytes} bytes that this server accepts. Crop or compress the volume, or ask the operator for a higher limit`,
        { detail: { maxUploadBytes: maxBytes } },
      );
    }
    const { own } = await db
      .selectFrom('upload')
      .select((e) => e.fn.countAll<number>().as('own'))
      .where('owner', '=', upload.owner)
      .executeTakeFirstOrThrow();
    if (own >= maxPerOwner) {
      throw new TomaatError(
        'BUSY',
        `You already have ${own} uploads. Delete some, or wait until they expire.`,
      );
    }
    // Space promised to others must fit, too.
    await makeRoom(upload.owner, upload.sizeBytes, { besidePromised: true });
    const row: UploadsSchema['upload'] = {
      id: randomBytes(16).toString('base64url'),
      owner: upload.owner,
      size_bytes: upload.sizeBytes,
      offset_bytes: 0,
      expected: upload.expected ?? null,
      digest: null,
      file_name: upload.fileName ?? null,
      metadata: upload.metadata,
      expires_ms: lease(),
    };
    await guarded(async () => {
      const handle = await openPart(row.id, 'wx');
      await handle.close();
      await syncFolder(folder);
    });
    try {
      await db.insertInto('upload').values(row).execute();
    } catch (error) {
      await rm(pathOf(row.id), { force: true });
      throw error;
    }
    return toUpload(row);
  }

  /**
   * Where the disk has no room for so many bytes of this owner, deletes uploads of owners who have more. DISK_FULL if that
   * is not enough. `besidePromised`: beside what uploads under way were promised.
   */
  async function makeRoom(owner: string, sizeBytes: number, { besidePromised = false } = {}): Promise<void> {
    for (;;) {
      const neededBytes = sizeBytes + (besidePromised ? await promisedBytes() : 0);
      if ((await blobs.spareBytes()) >= neededBytes) return;
      // Deleting what a job reads would free nothing.
      const rows = await db
        .selectFrom('upload')
        .selectAll()
        .where(sql<boolean>`NOT EXISTS (SELECT 1 FROM job_input WHERE job_input.digest = upload.digest)`)
        .execute();
      const stored = rows.map((row) => ({
        id: row.id,
        owner: row.owner,
        sizeBytes: row.size_bytes,
        receivedBytes: row.offset_bytes,
        usedMs: row.expires_ms - leaseMs,
        isWritten: writers.has(row.id),
      }));
      const victim = chooseToDelete(stored, { owner, sizeBytes, nowMs: now() });
      if (!victim) return blobs.requireSpace(neededBytes);
      await takeOver(
        victim.id,
        0,
        'The disk is full, and the upload was deleted to make room for those of others.',
      );
      await drop(victim.id);
      witness?.removed({ id: victim.id, owner: victim.owner }, 'expired');
    }
  }

  /** Bytes that uploads under way still may bring. */
  async function promisedBytes(): Promise<number> {
    const { promised } = await db
      .selectFrom('upload')
      .select((e) => e.fn.sum<number | null>(sql<number>`size_bytes - offset_bytes`).as('promised'))
      .where('digest', 'is', null)
      .executeTakeFirstOrThrow();
    return promised ?? 0;
  }

  const openPart = (id: string, flags: string): Promise<FileHandle> => open(pathOf(id), flags, 0o600);

  /**
   * Ends the current writer of the upload, and waits until the received bytes are on the disk. A broken connection may
   * still hold bytes to be read: only a writer that receives none is stopped.
   */
  async function takeOver(
    id: string,
    graceMs = silenceMs,
    why = 'Another request is already continuing this upload.',
  ): Promise<void> {
    const endMs = performance.now() + longestGraceMs;
    for (let writer = writers.get(id); writer; writer = writers.get(id)) {
      const before = writer.at;
      const settled = writer.ended.then(
        () => true,
        () => true,
      );
      const isOver = graceMs > 0 && (await Promise.race([settled, delay(graceMs, false, { ref: false })]));
      if (isOver || (graceMs > 0 && writer.at > before && performance.now() < endMs)) continue;
      writer.stop.abort(new TomaatError('CONFLICT', why));
      await settled;
    }
  }

  /** The progress of the upload. Ends a request that still writes to it: the client that asks wants to resume. */
  async function find(owner: string, id: string): Promise<Upload> {
    await rowOf(owner, id);
    await takeOver(id);
    return toUpload(await rowOf(owner, id));
  }

  /**
   * Takes bytes from an offset on. However the body ends, the received bytes are on the disk when this settles, and count.
   * CONFLICT (detail.offsetBytes) where the offset is not where the upload is; BAD_INPUT, and the upload is gone, when
   * the whole does not have the SHA-256 that was announced.
   */
  async function append(
    owner: string,
    id: string,
    offsetBytes: number,
    body: AsyncIterable<Uint8Array>,
  ): Promise<Upload> {
    await rowOf(owner, id);
    // Of several that waited for the same writer, the first one is the next writer.
    do await takeOver(id);
    while (writers.has(id));
    const writer: Writer = { at: offsetBytes, stop: new AbortController(), ended: Promise.resolve() };
    const ended = write(owner, id, offsetBytes, body, writer).finally(() => writers.delete(id));
    writer.ended = ended;
    writers.set(id, writer);
    return ended;
  }

  async function write(
    owner: string,
    id: string,
    offsetBytes: number,
    body: AsyncIterable<Uint8Array>,
    writer: Writer,
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
    let at = offsetBytes;
    let safe = offsetBytes;
    let known = hashes.get(id);
    hashes.delete(id);
    if (offsetBytes === 0) known = { hash: createHash('sha256'), bytes: 0 };
    else if (known?.bytes !== offsetBytes) known = undefined;
    const handle = await guarded(() => openPart(id, 'r+'));
    const checkpoint = async () => {
      if (at === safe) return;
      await guarded(() => handle.datasync());
      await db
        .updateTable('upload')
        .set({ offset_bytes: at, expires_ms: lease() })
        .where('id', '=', id)
        .execute();
      safe = at;
    };
    try {
      // What an earlier process wrote and did not sync.
      await guarded(() => handle.truncate(offsetBytes));
      try {
        for await (const chunk of untilAborted(body, writer.stop.signal)) {
          if (at + chunk.length > row.size_bytes) {
            throw new TomaatError(
              'BAD_REQUEST',
              `The upload was announced with ${row.size_bytes} bytes, but more arrived. Start a new one.`,
            );
          }
          await guarded(() => writeAll(handle, chunk, at));
          known?.hash.update(chunk);
          at += chunk.length;
          writer.at = at;
          if (known) known.bytes = at;
          if (at - safe >= checkpointBytes) await checkpoint();
        }
      } finally {
        await checkpoint();
      }
    } finally {
      await handle.close();
    }
    if (at < row.size_bytes) {
      if (known) hashes.set(id, known);
      return toUpload(await rowOf(owner, id));
    }
    return finish(row, known ? `sha256:${known.hash.digest('hex')}` : undefined);
  }

  /** All bytes are there: checks them and makes a blob of them. */
  async function finish(row: UploadsSchema['upload'], found?: string): Promise<Upload> {
    const { id } = row;
    const digest = found ?? (await guarded(async () => `sha256:${await hashFile(pathOf(id))}`));
    if (row.expected !== null && row.expected !== digest) {
      await drop(id);
      throw new TomaatError(
        'BAD_INPUT',
        `The received bytes have the SHA-256 ${digest.slice(7)}, not the announced one. The upload was deleted; send the file again.`,
        { field: 'sha256' },
      );
    }
    // Recorded first: after a crash between the two steps the next start finds the blob by it.
    await db.updateTable('upload').set({ expected: digest }).where('id', '=', id).execute();
    const keep = async (stored: { digest: string }) => {
      await db
        .updateTable('upload')
        .set({ digest: stored.digest, offset_bytes: row.size_bytes, expires_ms: lease() })
        .where('id', '=', id)
        .execute();
    };
    const stripped = await strip(pathOf(id), row.file_name ?? '', row.size_bytes);
    if (stripped) {
      await using writer = await blobs.create();
      for await (const chunk of stripped) await writer.write(chunk);
      await writer.commit(keep);
      await rm(pathOf(id), { force: true });
    } else {
      await blobs.adopt(pathOf(id), { digest, keep: () => keep({ digest }) });
    }
    witness?.received({ id, owner: row.owner, digest });
    return toUpload(await rowOf(row.owner, id));
  }

  /** Deletes an upload, whole or not; a job that uses its blob keeps that. */
  async function remove(owner: string, id: string): Promise<void> {
    await rowOf(owner, id);
    await takeOver(id);
    await drop(id);
    witness?.removed({ id, owner }, 'deleted');
  }

  /** Deletes all uploads of an owner, whole or not, and ends requests that write to them; how many there were. */
  async function removeAll(owner: string): Promise<number> {
    const rows = await db.selectFrom('upload').select('id').where('owner', '=', owner).execute();
    for (const { id } of rows) {
      await takeOver(id, 0);
      await drop(id);
      witness?.removed({ id, owner }, 'deleted');
    }
    return rows.length;
  }

  async function drop(id: string): Promise<void> {
    hashes.delete(id);
    const row = await db.deleteFrom('upload').where('id', '=', id).returning('digest').executeTakeFirst();
    await rm(pathOf(id), { force: true });
    if (row?.digest) await blobs.delete(row.digest, () => isHeld(row.digest!));
  }

  /** A complete upload that is used now: its lease starts again. NOT_READY while bytes are missing. */
  async function use(owner: string, id: string): Promise<Upload & { digest: string }> {
    const upload = toUpload(await rowOf(owner, id));
    if (upload.digest === undefined) {
      throw new TomaatError(
        'NOT_READY',
        `The upload ${id} is incomplete: ${upload.offsetBytes} of its ${upload.sizeBytes} bytes have arrived. Send the rest first.`,
        { field: 'upload' },
      );
    }
    // Not at every use: a lease that is nearly new is good enough.
    const expiresMs = lease();
    if (expiresMs - upload.expiresMs > leaseMs / 60) {
      await db.updateTable('upload').set({ expires_ms: expiresMs }).where('id', '=', id).execute();
    }
    return { ...upload, digest: upload.digest };
  }

  /**
   * A blob that this owner may read: a whole upload, an input or an output of theirs. Its size is not known where text was
   * taken out of an upload. Throws DAMAGED where the file has another size.
   */
  async function findBlob(owner: string, digest: string): Promise<BlobRef | undefined> {
    const { rows } = await sql<{ bytes: number | null }>`
      SELECT CASE WHEN expected = digest THEN size_bytes END AS bytes FROM upload
        WHERE digest = ${digest} AND owner = ${owner} AND expires_ms > ${now()}
      UNION ALL SELECT size_bytes FROM job_input JOIN job ON job.id = job_input.job
        WHERE digest = ${digest} AND owner = ${owner}
      UNION ALL SELECT size_bytes FROM job_output JOIN job ON job.id = job_output.job
        WHERE digest = ${digest} AND owner = ${owner}`.execute(db);
    if (rows.length === 0) return undefined;
    const sizeBytes = rows.find(({ bytes }) => bytes !== null)?.bytes;
    const found = await blobs.stat(digest);
    if (found) await blobs.check({ digest, sizeBytes: sizeBytes ?? found.sizeBytes });
    return found;
  }

  async function keeps(digest: string): Promise<boolean> {
    const { rows } = await sql<{
      kept: number;
    }>`SELECT EXISTS (SELECT 1 FROM upload WHERE digest = ${digest}) AS kept`.execute(db);
    return rows[0].kept !== 0;
  }

  /** Deletes what has expired; how many there were. */
  async function sweep(): Promise<number> {
    const expired = await db
      .selectFrom('upload')
      .select(['id', 'owner'])
      .where('expires_ms', '<=', now())
      .execute();
    let count = 0;
    for (const { id, owner } of expired) {
      if (writers.has(id)) continue;
      await drop(id);
      witness?.removed({ id, owner }, 'expired');
      count++;
    }
    return count;
  }

  /** After a crash, before the blobs are swept: ends what was nearly whole, and removes what belongs to nothing. */
  async function recover(): Promise<void> {
    const rows = await db.selectFrom('upload').selectAll().where('digest', 'is', null).execute();
    const parts = new Set(rows.map((row) => row.id));
    for (const name of await readdir(folder))
      if (!parts.has(name)) await rm(join(folder, name), { force: true });
    for (const row of rows) {
      const size = await stat(pathOf(row.id)).then(
        (found) => found.size,
        () => undefined,
      );
      if (size === undefined) {
        // It is already a blob, or it does not exist.
        const digest = row.expected;
        if (digest !== null && (await blobs.stat(digest))?.sizeBytes === row.size_bytes) {
          await db
            .updateTable('upload')
            .set({ digest, offset_bytes: row.size_bytes })
            .where('id', '=', row.id)
            .execute();
        } else await drop(row.id);
      } else if (row.offset_bytes === row.size_bytes && size === row.size_bytes) {
        await finish(row).catch((error: unknown) => {
          if (!(error instanceof TomaatError && error.code === 'BAD_INPUT')) throw error;
        });
      } else if (size < row.offset_bytes) {
        // The disk lost bytes that it had promised: the sender learns how many there are.
        await db.updateTable('upload').set({ offset_bytes: size }).where('id', '=', row.id).execute();
      }
    }
  }

  async function close(): Promise<void> {
    await Promise.all([...writers.keys()].map((id) => takeOver(id, 0)));
  }

  return {
    create,
    makeRoom,
    find,
    append,
    remove,
    removeAll,
    use,
    findBlob,
    keeps,
    sweep,
    recover,
    close,
    leaseMs,
    [Symbol.asyncDispose]: close,
  };
}

/** The same chunks; ends with the signal's reason when it aborts, even while the sender is silent. */
async function* untilAborted(
  body: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const iterator = body[Symbol.asyncIterator]();
  const aborted = new Promise<never>((_, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
  aborted.catch(() => {});
  try {
    signal.throwIfAborted();
    for (;;) {
      const { done, value } = await Promise.race([iterator.next(), aborted]);
      if (done) return;
      yield value;
    }
  } finally {
    // Not awaited: it settles only when the sender sends again or its connection ends.
    iterator.return?.()?.catch(() => undefined);
  }
}

async function guarded<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw diskError(error);
  }
}
