import { createHash, randomUUID } from 'node:crypto';
import { type BigIntStats, closeSync, constants, createReadStream, openSync } from 'node:fs';
import {
  chmod,
  type FileHandle,
  link,
  lstat,
  open,
  opendir,
  readdir,
  rename,
  rm,
  stat,
  statfs,
  unlink,
} from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { TomaatError } from '@tomaat/core';
import { checkWhole, createDamageList, damagedError, statOf } from '../files/damage.ts';
import { attempt, diskError, makeFolder, noHardLinks, openFolder } from '../files/disk.ts';
import {
  type BlobRef,
  type BlobWriter,
  BufferPool,
  FileWriter,
  type KeepBlob,
  tooLarge,
} from './blob-writer.ts';

/** Bytes of a blob to read: `lengthBytes` from `offsetBytes` on, or all the rest. */
export interface BlobRange {
  readonly offsetBytes: number;
  readonly lengthBytes?: number;
}

export interface AdoptOptions {
  readonly digest?: string;
  readonly isSynced?: boolean;
  readonly keep?: KeepBlob;
}

/** Calls what deletes a blob, or does not; whether it was deleted. */
export type DeleteWithin = (remove: () => Promise<boolean>) => Promise<boolean>;

/**
 * Where volumes live: whole, immutable, named by their SHA-256. A visible blob is complete and, once
 * commit() or adopt() has resolved, durable. Equal bytes are stored once.
 * All methods throw DISK_FULL, BUSY (no file handles left) or INTERNAL (the disk fails) as TomaatError, and
 * BAD_REQUEST for a malformed digest.
 */
export interface Blobs extends AsyncDisposable {
  /**
   * Begins a blob. More than `maxBytes` is UPLOAD_TOO_LARGE; DISK_FULL at once when `expectedBytes` would leave
   * less than the floor of free space.
   */
  create(options?: { maxBytes?: number; expectedBytes?: number }): Promise<BlobWriter>;
  /**
   * Takes over a file: afterwards it is a blob, and no longer at `path`. A trusted digest saves reading the file;
   * `isSynced` saves syncing it. APP_OUTPUT if it is not a regular file (a symbolic link is not).
   */
  adopt(path: string, options?: AdoptOptions): Promise<BlobRef>;
  /** A path for a file that another thread writes and adopt() then takes over; it is deleted at the next start if left. */
  temporaryPath(): string;
  /** Path of the blob's file on this machine, whether or not it exists; for reading only. Who needs the file calls fetch(). */
  path(digest: string): string;
  /**
   * Path of the blob's file, which is on this machine afterwards and is to be opened soon. NOT_FOUND or DAMAGED where the file comes
   * from elsewhere; a file that is here anyway is not looked at.
   */
  fetch(blob: BlobRef): Promise<string>;
  /**
   * The bytes as a stream, to be read to its end or destroyed. NOT_FOUND immediately if the blob does not exist (of a bucket: before the
   * first byte, as an error of the stream, so check() comes first where it matters). With a
   * BlobRef, DAMAGED immediately if its size differs; if all of it is read and its SHA-256 does not match, the stream errs
   * with DAMAGED before its last bytes.
   */
  open(blob: string | BlobRef, range?: BlobRange): Readable;
  /** Throws what `open()` would; nothing is read. */
  check(blob: BlobRef): Promise<void>;
  /** Called by a reader that found a different SHA-256: the file is no longer served, and the next equal one replaces it. */
  markDamaged(digest: string): Promise<void>;
  stat(digest: string): Promise<BlobRef | undefined>;
  /**
   * Unlinks a blob; false if it does not exist, or if `isKept` (called where no commit() can intervene) returns
   * true. Both happen `within` what is given, such as a lock of other processes: it is taken there, after this process's own.
   */
  delete(digest: string, isKept?: () => boolean | Promise<boolean>, within?: DeleteWithin): Promise<boolean>;
  /** Of every blob. */
  digests(): AsyncIterable<string>;
  /** Throws DISK_FULL if so many bytes would leave less than the floor of free space. */
  requireSpace(expectedBytes: number): Promise<void>;
  /** Bytes that may still be written above that floor. */
  spareBytes(): Promise<number>;
  /** Removes the files that earlier processes started and did not commit; returns how many. */
  sweepTemporary(): Promise<number>;
  /** Aborts all writes in progress. */
  close(): Promise<void>;
}

const readBytes = 128 * 1024;

/**
 * Opens the blobs in a folder of the local disk: `sha256/<hex>` and, while they are written, `tmp/`. The folder
 * must belong to this process alone (lockDataFolder), unless it is `isShared` with others: then files of another process are not taken
 * for leftovers. `minFreeBytes` is the free space that uploads must leave.
 */
export async function openBlobs(
  dir: string,
  options: { minFreeBytes?: number; isShared?: boolean } = {},
): Promise<Blobs> {
  const folders = { named: join(dir, 'sha256'), temporary: join(dir, 'tmp') };
  const named = await attempt(async () => {
    await makeFolder(folders.named);
    await makeFolder(folders.temporary);
    return openFolder(folders.named);
  });
  return new FileBlobs(folders, options.minFreeBytes ?? 64 * 1024 * 1024, named, options.isShared ?? false);
}

/** A file that nobody has written to for so long is a leftover. */
const abandonedAfterMs = 24 * 3_600_000;

class FileBlobs implements Blobs {
  readonly #named: string;
  readonly #temporary: string;
  readonly #minFreeBytes: number;
  readonly #isShared: boolean;
  /** The folder of the named ones, to be synced; undefined where a folder cannot be opened and need not be synced. */
  readonly #namedFolder: FileHandle | undefined;
  readonly #writers = new Set<FileWriter>();
  readonly #buffers = new BufferPool();
  readonly #damaged = createDamageList();
  /** Per digest, the end of the queue of those who link or unlink it. */
  readonly #queues = new Map<string, Promise<unknown>>();

  constructor(
    folders: { named: string; temporary: string },
    minFreeBytes: number,
    namedFolder: FileHandle | undefined,
    isShared: boolean,
  ) {
    this.#isShared = isShared;
    this.#named = folders.named;
    this.#temporary = folders.temporary;
    this.#minFreeBytes = minFreeBytes;
    this.#namedFolder = namedFolder;
  }

  async create(options: { maxBytes?: number; expectedBytes?: number } = {}): Promise<BlobWriter> {
    const { maxBytes = Number.POSITIVE_INFINITY, expectedBytes = 0 } = options;
    if (expectedBytes > maxBytes) throw tooLarge(maxBytes);
    const path = this.temporaryPath();
    return attempt(async () => {
      await this.requireSpace(expectedBytes);
      const handle = await open(path, 'wx', 0o600);
      const writer = new FileWriter(handle, path, maxBytes, this.#buffers, {
        publish: (ref, keep) => this.#publish(path, ref, keep),
        ended: () => this.#writers.delete(writer),
      });
      this.#writers.add(writer);
      return writer;
    });
  }

  async adopt(path: string, options: AdoptOptions = {}): Promise<BlobRef> {
    if (options.digest !== undefined) hexOf(options.digest);
    return attempt(async () => {
      const status = await lstat(path).catch((error: NodeJS.ErrnoException) => error);
      if (status instanceof Error) {
        if (status.code === 'ENOENT')
          throw new TomaatError('NOT_FOUND', `There is no file ${path} to take over`);
        throw status;
      }
      if (!status.isFile()) throw notPlain(path);
      // Through another hard link the blob could be changed later, so such a file is copied.
      if (status.nlink > 1) return this.#copyIn(path, options.keep);
      const ref =
        options.digest !== undefined && options.isSynced
          ? { digest: options.digest, sizeBytes: status.size }
          : await this.#hashAndSync(path, options.digest);
      if ((status.mode & 0o777) !== 0o600) await chmod(path, 0o600);
      try {
        await this.#publish(path, ref, options.keep);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EXDEV') throw error;
        return this.#copyIn(path, options.keep);
      }
      return ref;
    });
  }

  temporaryPath(): string {
    return join(this.#temporary, randomUUID());
  }

  path(digest: string): string {
    return join(this.#named, hexOf(digest));
  }

  async fetch({ digest }: BlobRef): Promise<string> {
    return this.path(digest);
  }

  open(blob: string | BlobRef, range?: BlobRange): Readable {
    const ref = typeof blob === 'string' ? undefined : blob;
    const digest = typeof blob === 'string' ? blob : blob.digest;
    const path = this.path(digest);
    let fd: number | undefined;
    try {
      fd = openSync(path, 'r');
      const file = statOf(fd);
      if (ref) this.#requireWhole(ref, file);
      const size = Number(file.size);
      const start = Math.min(range?.offsetBytes ?? 0, size);
      const end = Math.min(start + (range?.lengthBytes ?? size), size);
      // createReadStream includes the last byte; an empty range starts at the end of the file.
      const bounds = end > start ? { start, end: end - 1 } : { start: size };
      const bytes = createReadStream(path, { fd, ...bounds, highWaterMark: readBytes });
      if (!ref || range) return bytes;
      return checkWhole(bytes, ref, () => {
        this.#damaged.add(digest, file);
        return damagedError(path, 'its SHA-256 does not match');
      });
    } catch (error) {
      if (fd !== undefined) closeSync(fd);
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') throw noSuchBlob();
      throw diskError(error);
    }
  }

  async check(ref: BlobRef): Promise<void> {
    const file = await attempt(() => stat(this.path(ref.digest), { bigint: true }).catch(absent));
    if (!file) throw noSuchBlob();
    this.#requireWhole(ref, file);
  }

  async markDamaged(digest: string): Promise<void> {
    const file = await attempt(() => stat(this.path(digest), { bigint: true }).catch(absent));
    if (file) this.#damaged.add(digest, file);
  }

  #requireWhole({ digest, sizeBytes }: BlobRef, file: BigIntStats): void {
    const path = this.path(digest);
    if (file.size !== BigInt(sizeBytes)) {
      throw damagedError(path, `it has ${file.size} of ${sizeBytes} bytes`);
    }
    if (this.#damaged.has(digest, file)) throw damagedError(path, 'its SHA-256 does not match');
  }

  async stat(digest: string): Promise<BlobRef | undefined> {
    const path = this.path(digest);
    try {
      if (!this.#isShared) return { digest, sizeBytes: (await stat(path)).size };
      // Another server may have deleted it: NFS asks for a file that is opened, and answers a mere stat from what it remembers.
      await using file = await open(path);
      return { digest, sizeBytes: (await file.stat()).size };
    } catch (error) {
      if (/^(?:ENOENT|ESTALE)$/.test(String((error as NodeJS.ErrnoException).code))) return undefined;
      throw diskError(error);
    }
  }

  delete(
    digest: string,
    isKept: () => boolean | Promise<boolean> = () => false,
    within: DeleteWithin = (remove) => remove(),
  ): Promise<boolean> {
    const path = this.path(digest);
    const remove = async () => {
      if (await isKept()) return false;
      try {
        await unlink(path);
        return true;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
        throw diskError(error);
      }
    };
    return this.#alone(digest, () => within(remove));
  }

  async *digests(): AsyncIterable<string> {
    for await (const entry of await opendir(this.#named, { bufferSize: 1000 }))
      if (hexPattern.test(entry.name)) yield `sha256:${entry.name}`;
  }

  /** Whether another process that shares the folder may be writing this file. */
  async #isOfOther(path: string): Promise<boolean> {
    if (!this.#isShared) return false;
    const status = await stat(path).catch(() => undefined);
    return status === undefined || Date.now() - status.mtimeMs < abandonedAfterMs;
  }

  async sweepTemporary(): Promise<number> {
    const ours = new Set(Array.from(this.#writers, (writer) => writer.path));
    let removed = 0;
    for (const name of await readdir(this.#temporary)) {
      const path = join(this.#temporary, name);
      if (ours.has(path) || (await this.#isOfOther(path))) continue;
      await rm(path, { recursive: true, force: true });
      removed++;
    }
    return removed;
  }

  async close(): Promise<void> {
    await Promise.all(Array.from(this.#writers, (writer) => writer.abort()));
    await Promise.all(this.#queues.values());
    await this.#namedFolder?.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Gives a complete, synced file its name, durably; `path` is gone afterwards. */
  #publish(path: string, ref: BlobRef, keep?: KeepBlob): Promise<void> {
    const target = this.path(ref.digest);
    return this.#alone(ref.digest, async () => {
      let isNew = true;
      try {
        // link, not rename: it makes "create if absent" one step.
        await link(path, target);
        await unlink(path);
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        if (code === 'EEXIST') {
          isNew = false;
          const isWhole = await this.check(ref).then(
            () => true,
            () => false,
          );
          if (isWhole) await unlink(path);
          else await rename(path, target);
        } else if (code && noHardLinks.has(code)) await rename(path, target);
        else throw error;
      }
      try {
        // Also if it existed: the process that linked it may not have reached this point.
        await this.#namedFolder?.sync();
        await keep?.(ref);
      } catch (error) {
        // Another process that shares the folder may have stored the same bytes meanwhile: then it is left to what looks for orphans.
        if (isNew && !this.#isShared) await rm(target, { force: true });
        throw error;
      }
    });
  }

  async #hashAndSync(path: string, trusted?: string): Promise<BlobRef> {
    const handle = await open(path, constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0));
    const buffer = this.#buffers.take();
    try {
      const status = await handle.stat();
      if (!status.isFile()) throw notPlain(path);
      let digest = trusted;
      if (digest === undefined) {
        const hash = createHash('sha256');
        for (let read: number; (read = (await handle.read(buffer, 0, buffer.length)).bytesRead) > 0; ) {
          hash.update(buffer.subarray(0, read));
        }
        digest = `sha256:${hash.digest('hex')}`;
      }
      await handle.datasync();
      return { digest, sizeBytes: status.size };
    } finally {
      this.#buffers.give(buffer);
      await handle.close();
    }
  }

  async #copyIn(path: string, keep?: KeepBlob): Promise<BlobRef> {
    await using writer = await this.create({ expectedBytes: (await stat(path)).size });
    for await (const chunk of createReadStream(path, { highWaterMark: readBytes })) await writer.write(chunk);
    const ref = await writer.commit(keep);
    await unlink(path);
    return ref;
  }

  async requireSpace(expectedBytes: number): Promise<void> {
    if ((await this.spareBytes()) >= expectedBytes) return;
    throw new TomaatError('DISK_FULL', 'The disk of the server has no room for this. Try again later');
  }

  async spareBytes(): Promise<number> {
    const { bavail, bsize } = await attempt(() => statfs(this.#temporary));
    return bavail * bsize - this.#minFreeBytes;
  }

  /** Runs `work` while nothing else links or unlinks this blob. */
  async #alone<T>(digest: string, work: () => Promise<T>): Promise<T> {
    const before = this.#queues.get(digest);
    const running = (before ?? Promise.resolve()).then(work);
    const settled = running.then(
      () => undefined,
      () => undefined,
    );
    this.#queues.set(digest, settled);
    try {
      return await running;
    } finally {
      if (this.#queues.get(digest) === settled) this.#queues.delete(digest);
    }
  }
}

const hexPattern = /^[0-9a-f]{64}$/;
function hexOf(digest: string): string {
  const hex = digest.startsWith('sha256:') ? digest.slice(7) : '';
  if (!hexPattern.test(hex)) {
    throw new TomaatError(
      'BAD_REQUEST',
      "The digest is malformed. Send 'sha256:' followed by 64 lower-case hexadecimal digits",
    );
  }
  return hex;
}

export const noSuchBlob = () =>
  new TomaatError(
    'NOT_FOUND',
    'This blob does not exist: it was deleted or never stored. Upload the file again',
  );

/** Undefined for a file that does not exist; throws any other error. */
function absent(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error;
}

function notPlain(path: string): TomaatError {
  return new TomaatError(
    'APP_OUTPUT',
    `${path} is not a regular file. Write the output itself, not a link to it`,
  );
}
