import { createHash } from 'node:crypto';
import { open, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import { sql } from 'kysely';
import type { BlobWriter } from '../blobs/blob-writer.ts';
import type { Blobs } from '../blobs/blobs.ts';
import type { Database } from '../database/database.ts';
import type { SharedBlobHolds, UploadRow, UploadsSchema } from '../database/upload-schema.ts';
import { attempt, makeFolder, writeAll } from '../files/disk.ts';
import { tooManyBytes, type UploadParts, untilAborted } from './upload-parts.ts';

/**
 * The bytes of incomplete uploads where several servers share a database and a blob store: pieces in the blob store, each
 * a blob with a row, so that any server continues what another one began. The pieces are joined in a local file when
 * all bytes are there; the SHA-256 is that of the joined file.
 */

export interface UploadPieces extends UploadParts {
  /** Removes what is left of uploads that are complete or deleted. */
  sweep(): Promise<void>;
}

export interface UploadPiecesOptions {
  database: Database<UploadsSchema>;
  blobs: Blobs;
  /** When an upload used now expires, ms. */
  expiryMs(): number;
  holds: SharedBlobHolds;
}

const smallestPieceBytes = 2 ** 20;
const largestPieceBytes = 64 * 2 ** 20;
/** A sender that continues with a few bytes in each request makes a piece of each. */
const maxPieces = 10_000;

/**
 * Bytes of one piece: what must be sent again if a server is killed is less than one, at most a 64th of an upload of
 * 64 MiB or more.
 */
export const pieceBytesOf = (sizeBytes: number): number =>
  Math.min(largestPieceBytes, Math.max(smallestPieceBytes, Math.ceil(sizeBytes / 64)));

/** `folder`: where pieces are joined, of this process alone; what an earlier one left is removed. */
export async function openUploadPieces(
  folder: string,
  { database, blobs, expiryMs, holds }: UploadPiecesOptions,
): Promise<UploadPieces> {
  const { db } = database;
  await makeFolder(folder);
  for (const name of await readdir(folder)) await rm(join(folder, name), { recursive: true, force: true });
  const pathOf = (id: string) => join(folder, id);

  /** Counts a piece, if the upload is still where the piece begins: else another request has continued it. */
  async function addPiece(row: UploadRow, from: number, piece: { digest: string; sizeBytes: number }) {
    await database.transaction(async (trx) => {
      const { numUpdatedRows } = await trx
        .updateTable('upload')
        .set({ offset_bytes: from + piece.sizeBytes, expires_ms: expiryMs() })
        .where('id', '=', row.id)
        .where('offset_bytes', '=', from)
        .where('digest', 'is', null)
        .executeTakeFirst();
      if (numUpdatedRows === 0n)
        throw new TomaatError(
          'CONFLICT',
          'The upload was deleted, or another request has continued it. Ask for its offset, and continue from there.',
          { field: 'Upload-Offset' },
        );
      await trx
        .insertInto('upload_part')
        .values({
          upload: row.id,
          offset_bytes: from,
          size_bytes: piece.sizeBytes,
          digest: piece.digest,
        })
        .execute();
    });
  }

  async function requireFewPieces(id: string): Promise<void> {
    const { count } = await db
      .selectFrom('upload_part')
      .select((e) => e.fn.countAll<number>().as('count'))
      .where('upload', '=', id)
      .executeTakeFirstOrThrow();
    if (count >= maxPieces)
      throw new TomaatError(
        'BAD_REQUEST',
        `The upload has arrived in ${count} parts, the most allowed. Start a new one, and send more in each request.`,
      );
  }

  const piecesOf = (id: string) =>
    db.selectFrom('upload_part').selectAll().where('upload', '=', id).orderBy('offset_bytes').execute();

  async function removePieces(id: string): Promise<void> {
    const rows = await db.deleteFrom('upload_part').where('upload', '=', id).returning('digest').execute();
    await holds.drop(rows.map((row) => row.digest));
  }

  return {
    pathOf,
    async create() {},

    async remove(id) {
      await rm(pathOf(id), { force: true });
      await removePieces(id);
    },

    async sweep() {
      const { rows } = await sql<{ id: string }>`SELECT DISTINCT upload AS id FROM upload_part
        WHERE NOT EXISTS (SELECT 1 FROM upload WHERE upload.id = upload_part.upload AND upload.digest IS NULL)`.execute(
        db,
      );
      for (const { id } of rows) await removePieces(id);
    },

    async digestOf({ id, size_bytes: wholeBytes }) {
      const hash = createHash('sha256');
      const pieces = await piecesOf(id);
      await using file = await attempt(() => open(pathOf(id), 'w', 0o600));
      let at = 0;
      const requireAllBefore = (offsetBytes: number) => {
        if (at === offsetBytes) return;
        throw new TomaatError(
          'DAMAGED',
          `Bytes ${at} to ${offsetBytes} of the upload are missing. Send the file again`,
        );
      };
      for (const { digest, size_bytes: sizeBytes, offset_bytes: offsetBytes } of pieces) {
        requireAllBefore(offsetBytes);
        for await (const chunk of blobs.open({ digest, sizeBytes })) {
          const bytes = chunk as Uint8Array;
          hash.update(bytes);
          await attempt(() => writeAll(file, bytes, at));
          at += bytes.length;
        }
      }
      requireAllBefore(wholeBytes);
      return `sha256:${hash.digest('hex')}`;
    },

    async receive(row, body, writer) {
      const pieceBytes = pieceBytesOf(row.size_bytes);
      let at = row.offset_bytes;
      /** Where the piece that is being written begins. */
      let from = at;
      let piece: BlobWriter | undefined;
      if (at > 0) await requireFewPieces(row.id);
      const commit = async () => {
        const whole = piece;
        piece = undefined;
        if (!whole) return;
        await using _ended = whole;
        await whole.commit(async (ref) => {
          await holds.hold(ref.digest);
          await addPiece(row, from, ref).finally(() => holds.release([ref.digest]));
        });
        from = at;
      };
      try {
        for await (const chunk of untilAborted(body, writer.stop.signal)) {
          if (at + chunk.length > row.size_bytes) throw tooManyBytes(row);
          for (let taken = 0; taken < chunk.length; ) {
            const bytes = chunk.subarray(taken, taken + pieceBytes - (at - from));
            piece ??= await blobs.create({ maxBytes: pieceBytes });
            await piece.write(bytes);
            taken += bytes.length;
            at += bytes.length;
            writer.at = at;
            if (at - from === pieceBytes) await commit();
          }
        }
      } finally {
        await commit();
      }
      return { isWhole: at === row.size_bytes };
    },
  };
}
