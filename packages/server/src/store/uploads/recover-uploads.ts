import { TomaatError } from '@tomaat/core';
import type { Kysely } from 'kysely';
import type { Blobs } from '../blobs/blobs.ts';
import type { UploadRow, UploadsSchema } from '../database/upload-schema.ts';
import type { UploadFiles } from './upload-parts.ts';

interface Recovery {
  db: Kysely<UploadsSchema>;
  blobs: Blobs;
  parts: UploadFiles;
  /** Makes a blob of an upload whose bytes have all arrived. */
  finish(row: UploadRow): Promise<unknown>;
  drop(id: string): Promise<unknown>;
  /** Called for an upload that could not be completed, and was deleted: its sender is told at the next request. */
  lost?(id: string, error: unknown): void;
}

/** The file that says that the upload of this id is being completed: it is left only if the process ends meanwhile. */
const markOf = (id: string) => `${id}.recovering`;

/**
 * After a crash, before the blobs are swept: completes uploads whose bytes have all arrived, and removes unreferenced parts.
 * A file that cannot be completed never keeps the server from starting, not even one that ends the process.
 */
export async function recoverUploads(recovery: Recovery): Promise<void> {
  const { db, blobs, parts, drop } = recovery;
  const rows = await db.selectFrom('upload').selectAll().where('digest', 'is', null).execute();
  await parts.removeOthers(new Set(rows.flatMap(({ id }) => [id, markOf(id)])));
  for (const row of rows) {
    const size = await parts.sizeOf(row.id);
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
      await complete(row, recovery);
    } else if (size < row.offset_bytes) {
      // The disk lost bytes that it had confirmed: record how many are left, for the sender.
      await db.updateTable('upload').set({ offset_bytes: size }).where('id', '=', row.id).execute();
    }
  }
}

async function complete(row: UploadRow, { parts, finish, drop, lost }: Recovery): Promise<void> {
  const { id } = row;
  const mark = markOf(id);
  try {
    if ((await parts.sizeOf(mark)) !== undefined)
      throw new Error('the process ended the last time that this upload was completed');
    await parts.create(mark);
    await finish(row);
  } catch (error) {
    // It is completed when its sender asks for it again.
    const isLater = error instanceof TomaatError && (error.code === 'DISK_FULL' || error.code === 'BUSY');
    if (!isLater) {
      lost?.(id, error);
      await drop(id);
    }
  }
  await parts.remove(mark);
}
