import { type Kysely, sql } from 'kysely';
import type { Blobs } from './blobs.ts';
import type { UploadsSchema } from './upload-schema.ts';

/**
 * Decides which uploads make room for another owner's when the disk is full: however much one owner has announced or left
 * here, the others get their share.
 */

export interface StoredUpload {
  readonly id: string;
  readonly owner: string;
  /** Bytes that it takes, or will take when it is whole. */
  readonly sizeBytes: number;
  readonly receivedBytes: number;
  /** When it was last written or used, ms. */
  readonly usedMs: number;
  /** Whether a request writes to it now. */
  readonly isWritten: boolean;
}

/** Within this time after its last use the upload that an owner is most busy with is left alone. */
const busyMs = 60_000;

/**
 * The upload to be deleted so that `owner` may have `sizeBytes` more; undefined where nobody has more than that owner
 * would have then. It is one of the owner with the most bytes: first those that nobody writes to, the one that was used
 * longest ago; then the one of which the fewest bytes have come. The one that its owner is most busy with stays.
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
 * Where the disk has no room for so many bytes of this owner, deletes uploads of owners who have more. DISK_FULL if that
 * is not enough. `besidePromised`: beside what uploads under way were promised.
 */
export async function makeRoom(
  { db, blobs, leaseMs, now, isWritten, evict }: UploadRoom,
  { owner, sizeBytes, besidePromised }: { owner: string; sizeBytes: number; besidePromised: boolean },
): Promise<void> {
  for (;;) {
    const neededBytes = sizeBytes + (besidePromised ? await promisedBytes(db) : 0);
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
      isWritten: isWritten(row.id),
    }));
    const victim = chooseToDelete(stored, { owner, sizeBytes, nowMs: now() });
    if (!victim) return blobs.requireSpace(neededBytes);
    await evict(victim);
  }
}

/** Bytes that uploads under way still may bring. */
async function promisedBytes(db: Kysely<UploadsSchema>): Promise<number> {
  const { promised } = await db
    .selectFrom('upload')
    .select((e) => e.fn.sum<number | null>(sql<number>`size_bytes - offset_bytes`).as('promised'))
    .where('digest', 'is', null)
    .executeTakeFirstOrThrow();
  return promised ?? 0;
}
