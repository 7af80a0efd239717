import { describeError, TomaatError } from '@tomaat/core';
import type { Kysely } from 'kysely';
import type { Blobs } from './blobs.ts';
import type { UploadParts } from './upload-parts.ts';
import type { UploadRow, UploadsSchema } from './upload-schema.ts';

interface Recovery {
  db: Kysely<UploadsSchema>;
  blobs: Blobs;
  parts: UploadParts;
  /** Makes a blob of an upload whose bytes have all arrived. */
  finish(row: UploadRow): Promise<unknown>;
  drop(id: string): Promise<void>;
}

/** After a crash, before the blobs are swept: completes uploads whose bytes have all arrived, and removes unreferenced parts. */
export async function recoverUploads({ db, blobs, parts, finish, drop }: Recovery): Promise<void> {
  const rows = await db.selectFrom('upload').selectAll().where('digest', 'is', null).execute();
  await parts.removeOthers(new Set(rows.map((row) => row.id)));
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
      await finish(row).catch((error: unknown) => {
        // Such an upload is deleted: its sender is told at the next request.
        if (!(error instanceof TomaatError && describeError(error.code).fault === 'caller')) throw error;
      });
    } else if (size < row.offset_bytes) {
      // The disk lost bytes that it had confirmed: record how many are left, for the sender.
      await db.updateTable('upload').set({ offset_bytes: size }).where('id', '=', row.id).execute();
    }
  }
}
