import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { TomaatError } from '@tomaat/core';
import { checkWhole, damagedError } from '../files/damage.ts';
import type { BlobRef, BlobWriter, KeepBlob } from './blob-writer.ts';
import { type BlobRange, type Blobs, type DeleteWithin, noSuchBlob, openBlobs } from './blobs.ts';
import { type Bucket, badBucketAddress, openBucket, parseBucketAddress } from './bucket.ts';

/** What this machine keeps of the bucket: files that were written or read here lately. */
export interface CacheOptions {
  /** Folder of the cache, of this process alone. */
  readonly folder: string;
  readonly minFreeBytes?: number;
  /** Beyond these the files that were used least recently are removed; 20 GiB if missing. */
  readonly maxBytes?: number;
  readonly nowMs?: () => number;
}

/** Where a data folder has the cache: never among files of its own, which a cache would remove. */
export const cacheFolder = (dataFolder: string): string => join(dataFolder, 'cache');

/** A file that was not used for so long is removed, so that what another server deletes does not stay here. */
const unusedMs = 3_600_000;
/** A caller that got a path has opened it after so long. */
const inUseMs = 600_000;
const sweepEveryMs = 60_000;
const abortEveryMs = 3_600_000;
/** A file of which a server sent parts that long ago, and not all, is a leftover. */
const abandonedAfterMs = 24 * 3_600_000;
const folder = 'sha256/';

/**
 * Opens blobs in an S3 bucket (`s3://BUCKET/PREFIX?endpoint=URL`). A blob is written to this machine, hashed, sent, and only then
 * kept; what needs a file gets it from a cache by digest.
 * @throws {TomaatError} if the address is malformed, or the bucket does not let this process write, read and delete
 */
export async function openBucketBlobs(location: string, cache: CacheOptions): Promise<Blobs> {
  const address = parseBucketAddress(location);
  if (!address) {
    throw new TomaatError('BAD_REQUEST', `${location} ${badBucketAddress}`, { field: '--blobs' });
  }
  const bucket = await openBucket(address);
  try {
    await bucket.probe().catch((error) => {
      throw atStart(error, location);
    });
    const local = await openBlobs(cache.folder, { minFreeBytes: cache.minFreeBytes });
    const blobs = new BucketBlobs(bucket, local, cache);
    await blobs.begin();
    return blobs;
  } catch (error) {
    bucket.close();
    throw error;
  }
}

/** A store that is away may be back when a request is repeated; at start the address may be wrong. */
function atStart(error: unknown, location: string): unknown {
  if (!(error instanceof TomaatError) || error.code !== 'BUSY') return error;
  return new TomaatError(
    'UNREACHABLE',
    `${location} does not answer. Check that the store runs there, and its endpoint in --blobs.`,
    { cause: error },
  );
}

class BucketBlobs implements Blobs {
  readonly #bucket: Bucket;
  readonly #local: Blobs;
  readonly #maxBytes: number;
  readonly #nowMs: () => number;
  /** Of the cached files: when each was used last, in that order. */
  readonly #used = new Map<string, { atMs: number; sizeBytes: number }>();
  readonly #fetching = new Map<string, Promise<string>>();
  /** Cached files that are being removed. */
  readonly #leaving = new Map<string, Promise<unknown>>();
  readonly #damaged = new Set<string>();
  #timers: NodeJS.Timeout[] = [];

  constructor(bucket: Bucket, local: Blobs, { maxBytes = 20 * 2 ** 30, nowMs = Date.now }: CacheOptions) {
    this.#bucket = bucket;
    this.#local = local;
    this.#maxBytes = maxBytes;
    this.#nowMs = nowMs;
  }

  /** Finds what the last process left in the cache. */
  async begin(): Promise<void> {
    const left: [digest: string, atMs: number, sizeBytes: number][] = [];
    for await (const digest of this.#local.digests()) {
      const { mtimeMs, size } = await stat(this.#local.path(digest));
      left.push([digest, Math.min(mtimeMs, this.#nowMs()), size]);
    }
    for (const [digest, atMs, sizeBytes] of left.sort((a, b) => a[1] - b[1]))
      this.#used.set(digest, { atMs, sizeBytes });
    await this.sweepCache();
    // What fails is done by the next one.
    this.#timers = [
      setInterval(() => void this.sweepCache().catch(() => {}), sweepEveryMs),
      setInterval(() => void this.#sweepParts().catch(() => {}), abortEveryMs),
    ];
    for (const timer of this.#timers) timer.unref();
  }

  async create(options?: { maxBytes?: number; expectedBytes?: number }): Promise<BlobWriter> {
    await this.sweepCache(options?.expectedBytes);
    const writer = await this.#local.create(options);
    return {
      get prefix() {
        return writer.prefix;
      },
      get bytes() {
        return writer.bytes;
      },
      write: (chunk) => writer.write(chunk),
      commit: (keep) => writer.commit((ref) => this.#send(ref, keep)),
      abort: () => writer.abort(),
      [Symbol.asyncDispose]: () => writer.abort(),
    };
  }

  adopt(path: string, options: Parameters<Blobs['adopt']>[1] = {}): Promise<BlobRef> {
    return this.#local.adopt(path, { ...options, keep: (ref) => this.#send(ref, options.keep) });
  }

  /** Called where nothing else links or unlinks the blob here. */
  async #send(ref: BlobRef, keep?: KeepBlob): Promise<void> {
    const { digest, sizeBytes } = ref;
    const name = nameOf(digest);
    if (this.#damaged.has(digest) || (await this.#bucket.size(name)) !== sizeBytes)
      await this.#bucket.put(name, this.#local.path(digest), sizeBytes);
    this.#damaged.delete(digest);
    await keep?.(ref);
    this.#touch(digest, sizeBytes);
  }

  temporaryPath(): string {
    return this.#local.temporaryPath();
  }

  path(digest: string): string {
    return this.#local.path(digest);
  }

  async fetch(ref: BlobRef): Promise<string> {
    const { digest } = ref;
    while (this.#leaving.has(digest)) await this.#leaving.get(digest);
    // Before the look at the file: what was used just now is not swept.
    const known = this.#used.get(digest);
    if (known) this.#touch(digest, known.sizeBytes);
    this.#requireUndamaged(digest);
    if (await this.#isHere(ref)) {
      this.#touch(digest, ref.sizeBytes);
      return this.path(digest);
    }
    let fetching = this.#fetching.get(digest);
    if (!fetching) {
      fetching = this.#download(ref).finally(() => this.#fetching.delete(digest));
      this.#fetching.set(digest, fetching);
    }
    return fetching;
  }

  async #isHere(ref: BlobRef): Promise<boolean> {
    const here = await this.#local.stat(ref.digest);
    if (here && here.sizeBytes !== ref.sizeBytes) await this.#forget(ref.digest);
    return here?.sizeBytes === ref.sizeBytes;
  }

  async #download(ref: BlobRef): Promise<string> {
    const { digest, sizeBytes } = ref;
    await this.check(ref);
    await this.sweepCache(sizeBytes);
    await using writer = await this.#local.create({ expectedBytes: sizeBytes, maxBytes: sizeBytes });
    for await (const chunk of this.#bucket.read(nameOf(digest), 0, sizeBytes)) await writer.write(chunk);
    await writer.commit((read) => {
      if (read.digest === digest) return this.#touch(digest, sizeBytes);
      this.#damaged.add(digest);
      throw damagedError(nameOf(digest), 'its SHA-256 does not match');
    });
    return this.path(digest);
  }

  open(blob: string | BlobRef, range?: BlobRange): Readable {
    const digest = typeof blob === 'string' ? blob : blob.digest;
    this.path(digest);
    this.#requireUndamaged(digest);
    const bytes = Readable.from(this.#read(blob, range), { objectMode: false });
    if (typeof blob === 'string' || range) return bytes;
    return checkWhole(bytes, blob, () => {
      this.#damaged.add(digest);
      return damagedError(nameOf(digest), 'its SHA-256 does not match');
    });
  }

  async *#read(blob: string | BlobRef, range?: BlobRange): AsyncGenerator<Uint8Array> {
    const ref = typeof blob === 'string' ? await this.stat(blob) : blob;
    if (!ref) throw noSuchBlob();
    await this.check(ref);
    const start = Math.min(range?.offsetBytes ?? 0, ref.sizeBytes);
    const end = Math.min(start + (range?.lengthBytes ?? ref.sizeBytes), ref.sizeBytes);
    yield* this.#bucket.read(nameOf(ref.digest), start, end);
  }

  async check({ digest, sizeBytes }: BlobRef): Promise<void> {
    const found = await this.stat(digest);
    if (!found) throw noSuchBlob();
    this.#requireUndamaged(digest);
    if (found.sizeBytes !== sizeBytes)
      throw damagedError(nameOf(digest), `it has ${found.sizeBytes} of ${sizeBytes} bytes`);
  }

  #requireUndamaged(digest: string): void {
    if (this.#damaged.has(digest)) throw damagedError(nameOf(digest), 'its SHA-256 does not match');
  }

  /** The copy here may be what is wrong: the next reader gets the bucket's, which is hashed. */
  async markDamaged(digest: string): Promise<void> {
    await this.#forget(digest);
  }

  async stat(digest: string): Promise<BlobRef | undefined> {
    this.path(digest);
    const sizeBytes = await this.#bucket.size(nameOf(digest));
    return sizeBytes === undefined ? undefined : { digest, sizeBytes };
  }

  async delete(
    digest: string,
    isKept: () => boolean | Promise<boolean> = () => false,
    within: DeleteWithin = (remove) => remove(),
  ): Promise<boolean> {
    let existed = false;
    const remove = async () => {
      if (await isKept()) return false;
      await this.#bucket.remove(nameOf(digest));
      existed = isThere;
      this.#used.delete(digest);
      this.#damaged.delete(digest);
      return true;
    };
    // Not within the lock, which a store that is slow would outlast.
    const isThere = (await this.#bucket.size(nameOf(digest))) !== undefined;
    await this.#local.delete(digest, async () => !(await within(remove)));
    return existed;
  }

  async *digests(): AsyncIterable<string> {
    for await (const hex of this.#bucket.names(folder)) if (/^[0-9a-f]{64}$/.test(hex)) yield `sha256:${hex}`;
  }

  /**
   * Removes cached files that were not used for an hour, and those that were used least recently until a file of `wantedBytes` fits
   * into the cache and on the disk. One that was used just now stays in any case.
   */
  async sweepCache(wantedBytes = 0): Promise<void> {
    let bytes = wantedBytes - this.#maxBytes;
    for (const { sizeBytes } of this.#used.values()) bytes += sizeBytes;
    if (wantedBytes > 0) bytes = Math.max(bytes, wantedBytes - (await this.#local.spareBytes()));
    for (const [digest, { atMs, sizeBytes }] of this.#used) {
      const idleMs = this.#nowMs() - atMs;
      if (idleMs < unusedMs && (bytes <= 0 || idleMs < inUseMs)) break;
      await this.#forget(digest);
      bytes -= sizeBytes;
    }
  }

  #touch(digest: string, sizeBytes: number): void {
    this.#used.delete(digest);
    this.#used.set(digest, { atMs: this.#nowMs(), sizeBytes });
  }

  /** Who fetches it meanwhile waits for the end. */
  async #forget(digest: string): Promise<void> {
    this.#used.delete(digest);
    const leaving = this.#local.delete(digest).finally(() => {
      if (this.#leaving.get(digest) === leaving) this.#leaving.delete(digest);
    });
    this.#leaving.set(digest, leaving);
    await leaving;
  }

  requireSpace(expectedBytes: number): Promise<void> {
    return this.#local.requireSpace(expectedBytes);
  }

  spareBytes(): Promise<number> {
    return this.#local.spareBytes();
  }

  async sweepTemporary(): Promise<number> {
    return (await this.#local.sweepTemporary()) + (await this.#sweepParts());
  }

  /** Parts of files that a killed server had begun to send, or that an outage kept it from deleting. */
  #sweepParts(): Promise<number> {
    return this.#bucket.abortBefore(this.#nowMs() - abandonedAfterMs);
  }

  async close(): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer);
    await this.#local.close();
    this.#bucket.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

const nameOf = (digest: string): string => folder + digest.slice('sha256:'.length);
