import { type Kysely, sql } from 'kysely';
import type { Blobs } from '../blobs/blobs.ts';
import type { UploadsSchema } from '../database/upload-schema.ts';

/**
 * Decides which uploads make room for another owner's when the disk is full: however much one owner has announced or
 * stored, the others get their share.
 */

export interface StoredUpload {
  readonly id: string;
  readonly owner: string;
  /** Bytes that it takes, or will take when complete. */
  readonly sizeBytes: number;
  readonly receivedBytes: number;
  /** When it was last written or used, ms. */
  readonly usedMs: number;
  /** Whether a request writes to it now. */
  readonly isWritten: boolean;
}

/** For this time after its last use, an owner's most recently used upload is not deleted. */
const busyMs = 60_000;

/**
 * The upload to be deleted so that `owner` may have `sizeBytes` more; undefined if no other owner has more than that owner
 * would then have. It belongs to the owner with the most bytes: first the least recently used of those without a writer,
 * then the one with the fewest bytes received. The owner's most recently used upload stays.
 */
export function chooseToDelete(
  uploads: readonly StoredUpload[],
  { owner, sizeBytes, nowMs }: { owner: string; sizeBytes: number; nowMs: number },
): StoredUpload | undefined {
  const bytesOf = new Map<string, number>();
  for (const one of uploads) bytesOf.set(one.owner, (bytesOf.get(one.owner) ?? 0) + one.sizeBytes);
  const wanted = (bytesOf.get(owner) ?? 0) + sizeBytes;
  const richer = [...bytesOf].filter(([, bytes]) => bytes > wanted).sort((a, b) => b[1] - a[1]);
  for (const [rich] of richer) {
    if (rich === owner) continue;
    const own = uploads.filter((one) => one.owner === rich);
    const busiest = own
      .filter(
        ({ isWritten, receivedBytes, usedMs }) => isWritten || (receivedBytes > 0 && usedMs > nowMs - busyMs),
      )
      .reduce<StoredUpload | undefined>(
        (a, b) => (a === undefined || b.receivedBytes > a.receivedBytes ? b : a),
        undefined,
      );
    const [first] = own
      .filter((one) => one !== busiest)
      .sort(
        (a, b) =>
          Number(a.isWritten) - Number(b.isWritten) ||
          (a.isWritten ? a.receivedBytes - b.receivedBytes : a.usedMs - b.usedMs),
      );
    if (first) return first;
  }
  return undefined;
}

export interface UploadRoom {
  db: Kysely<UploadsSchema>;
  blobs: Blobs;
  leaseMs: number;
  now(): number;
  isWritten(id: string): boolean;
  /** Deletes an upload to make room. */
  evict(upload: { id: string; owner: string }): Promise<void>;
}

/**
 * If the disk has no room for so many bytes of this owner, deletes uploads of owners who have more. DISK_FULL if that
 * is not enough. `besidePromised`: in addition to the space promised to unfinished uploads.
 */
export async function makeRoom(
  { db, blobs, leaseMs, now, isWritten, evict }: UploadRoom,
  { owner, sizeBytes, besidePromised }: { owner: string; sizeBytes: number; besidePromised: boolean },
): Promise<void> {
  for (;;) {
    const neededBytes = sizeBytes + (besidePromised ? await promisedBytes(db) : 0);
    if ((await blobs.spareBytes()) >= neededBytes) return;
    // Deleting an upload that a job reads would free nothing.
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
      isWritten: isWritten(row.id),
    }));
    const victim = chooseToDelete(stored, { owner, sizeBytes, nowMs: now() });
    if (!victim) return blobs.requireSpace(neededBytes);
    await evict(victim);
  }
}

/** Bytes that unfinished uploads may still deliver. */
async function promisedBytes(db: Kysely<UploadsSchema>): Promise<number> {
  const { promised } = await db
    .selectFrom('upload')
    .select((e) => e.fn.sum<number | null>(sql<number>`size_bytes - offset_bytes`).as('promised'))
    .where('digest', 'is', null)
    .executeTakeFirstOrThrow();
  return promised ?? 0;
}
