import { open, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import { type Kysely, sql } from 'kysely';
import type { BlobRef } from '../store/blobs/blob-writer.ts';
import type { Blobs } from '../store/blobs/blobs.ts';
import type { UploadRow, UploadsSchema } from '../store/database/upload-schema.ts';
import { makeFolder, writeAll } from '../store/files/disk.ts';
import { filePieces } from '../store/files/file-pieces.ts';
import { pieceBytesOf } from '../store/uploads/upload-pieces.ts';
import type { AnyTables } from './rows.ts';

/** Copies files of jobs and uploads between the places where a server alone and servers together keep them. */

/** The files that rows refer to. */
export async function referencedBlobs(db: Kysely<AnyTables>): Promise<BlobRef[]> {
  const { rows } = await sql<{ digest: string; size_bytes: number }>`
    SELECT digest, size_bytes FROM job_input UNION SELECT digest, size_bytes FROM job_output
    UNION SELECT digest, size_bytes FROM upload WHERE digest IS NOT NULL ORDER BY digest`.execute(db);
  return rows.map(({ digest, size_bytes: sizeBytes }) => ({ digest, sizeBytes }));
}

export interface FilesCopied {
  files: number;
  bytes: number;
  /** Missing or damaged where they were: their jobs are moved without them. */
  lost: string[];
}

/** Copies files that are not there yet; the SHA-256 of each is that of what was read and of what was written. */
export async function copyBlobs(
  from: Blobs,
  to: Blobs,
  refs: readonly BlobRef[],
  { signal, onFile }: { signal: AbortSignal; onFile(done: number): void },
): Promise<FilesCopied> {
  const copied: FilesCopied = { files: 0, bytes: 0, lost: [] };
  for (const [done, ref] of refs.entries()) {
    signal.throwIfAborted();
    onFile(done);
    try {
      if ((await to.stat(ref.digest))?.sizeBytes !== ref.sizeBytes) await copyBlob(from, to, ref);
      copied.files++;
      copied.bytes += ref.sizeBytes;
    } catch (error) {
      if (!isLost(error)) throw error;
      copied.lost.push(ref.digest);
    }
  }
  return copied;
}

const isLost = (error: unknown) =>
  error instanceof TomaatError && (error.code === 'NOT_FOUND' || error.code === 'DAMAGED');

async function copyBlob(from: Blobs, to: Blobs, ref: BlobRef): Promise<void> {
  await from.check(ref);
  await using writer = await to.create({ expectedBytes: ref.sizeBytes });
  for await (const chunk of from.open(ref)) await writer.write(chunk as Uint8Array);
  const written = await writer.commit();
  if (written.digest !== ref.digest)
    throw new TomaatError('DAMAGED', `${ref.digest} was read with another content.`);
}

const incomplete = (db: Kysely<UploadsSchema>): Promise<UploadRow[]> =>
  db.selectFrom('upload').selectAll().where('digest', 'is', null).orderBy('id').execute();

type Part = UploadsSchema['upload_part'];

/** What has arrived of an upload: pieces in the store of files. */
export interface Split {
  readonly upload: string;
  readonly offsetBytes: number;
  readonly parts: readonly Part[];
}

/** Stores the files of incomplete uploads of a data folder as pieces, which any of several servers can continue. */
export async function splitUploads(
  db: Kysely<UploadsSchema>,
  folder: string,
  to: Blobs,
  signal: AbortSignal,
): Promise<Split[]> {
  const split: Split[] = [];
  for (const { id, size_bytes: sizeBytes, offset_bytes: confirmed } of await incomplete(db)) {
    const path = join(folder, id);
    const there = await stat(path).then(
      (found) => found.size,
      () => 0,
    );
    const offsetBytes = Math.min(confirmed, there);
    const pieceBytes = pieceBytesOf(sizeBytes);
    const parts: Part[] = [];
    for (let at = 0; at < offsetBytes; at += pieceBytes) {
      signal.throwIfAborted();
      const end = Math.min(at + pieceBytes, offsetBytes);
      await using writer = await to.create({ maxBytes: pieceBytes });
      for await (const piece of filePieces(path, end, { start: at })) await writer.write(piece);
      const { digest, sizeBytes: size_bytes } = await writer.commit();
      parts.push({ upload: id, offset_bytes: at, size_bytes, digest });
    }
    split.push({ upload: id, offsetBytes, parts });
  }
  return split;
}

/** Joins the pieces of incomplete uploads to files of a data folder. */
export async function joinUploads(
  db: Kysely<UploadsSchema>,
  from: Blobs,
  folder: string,
  signal: AbortSignal,
): Promise<number> {
  await makeFolder(folder);
  const uploads = await incomplete(db);
  for (const { id } of uploads) {
    signal.throwIfAborted();
    const path = join(folder, id);
    await rm(path, { force: true });
    await using file = await open(path, 'wx', 0o600);
    const parts = await db
      .selectFrom('upload_part')
      .selectAll()
      .where('upload', '=', id)
      .orderBy('offset_bytes')
      .execute();
    for (const { digest, size_bytes: sizeBytes, offset_bytes: offsetBytes } of parts) {
      let at = offsetBytes;
      for await (const chunk of from.open({ digest, sizeBytes })) {
        await writeAll(file, chunk as Uint8Array, at);
        at += (chunk as Uint8Array).length;
      }
    }
    await file.sync();
  }
  return uploads.length;
}
