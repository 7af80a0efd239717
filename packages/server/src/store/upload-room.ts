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
