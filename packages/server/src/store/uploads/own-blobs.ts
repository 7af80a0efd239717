import { type Kysely, sql } from 'kysely';
import type { BlobRef } from '../blobs/blob-writer.ts';
import type { Blobs } from '../blobs/blobs.ts';
import type { UploadsSchema } from '../database/upload-schema.ts';

export interface OwnBlob extends BlobRef {
  /** SHA-256 as received, if something was removed from it. */
  readonly received?: string;
}

/**
 * A blob that this owner may read: one of their complete uploads, inputs or outputs. Its size is unknown if text was
 * removed from an upload. Throws DAMAGED if the file has another size.
 */
export async function findOwnBlob(
  { db, blobs, now }: { db: Kysely<UploadsSchema>; blobs: Blobs; now(): number },
  owner: string,
  digest: string,
): Promise<OwnBlob | undefined> {
  const { rows } = await sql<{ bytes: number | null; received: string | null }>`
    SELECT CASE WHEN expected = digest THEN size_bytes END AS bytes,
        CASE WHEN expected <> digest THEN expected END AS received FROM upload
      WHERE digest = ${digest} AND owner = ${owner} AND expires_ms > ${now()}
    UNION ALL SELECT size_bytes, received FROM job_input JOIN job ON job.id = job_input.job
      WHERE digest = ${digest} AND owner = ${owner}
    UNION ALL SELECT size_bytes, NULL FROM job_output JOIN job ON job.id = job_output.job
      WHERE digest = ${digest} AND owner = ${owner}`.execute(db);
  if (rows.length === 0) return undefined;
  const sizeBytes = rows.find(({ bytes }) => bytes !== null)?.bytes;
  const found = await blobs.stat(digest);
  if (!found) return undefined;
  await blobs.check({ digest, sizeBytes: sizeBytes ?? found.sizeBytes });
  return { ...found, received: rows.find(({ received }) => received !== null)?.received ?? undefined };
}

/** Whether it is the blob of a complete upload, or a part of an incomplete one. */
export async function isUploaded(db: Kysely<UploadsSchema>, digest: string): Promise<boolean> {
  const { rows } = await sql<{
    kept: number;
  }>`SELECT EXISTS (SELECT 1 FROM upload WHERE digest = ${digest})
    OR EXISTS (SELECT 1 FROM upload_part WHERE digest = ${digest}) AS kept`.execute(db);
  return rows[0].kept !== 0;
}
