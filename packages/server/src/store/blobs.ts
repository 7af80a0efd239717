import { createHash, randomUUID } from 'node:crypto';
import { type BigIntStats, closeSync, constants, createReadStream, openSync } from 'node:fs';
import {
  chmod,
  type FileHandle,
  link,
  lstat,
  mkdir,
  open,
  opendir,
  readdir,
  rename,
  rm,
  stat,
  statfs,
  unlink,
} from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import type { Readable } from 'node:stream';
import { TomaatError } from '@tomaat/core';
import { checkWhole, createDamageList, damagedError, statOf } from './damage.ts';

/** Content-addressed bytes on disk. */
export interface BlobRef {
  /** `sha256:` and 64 lower-case hex digits. */
  readonly digest: string;
  readonly sizeBytes: number;
}

/** Bytes of a blob to read: `lengthBytes` from `offsetBytes` on, or all the rest. */
export interface BlobRange {
  readonly offsetBytes: number;
  readonly lengthBytes?: number;
}

/** Durably records what keeps a blob alive; no delete() of the same blob can run in between. */
export type KeepBlob = (ref: BlobRef) => void | Promise<void>;

export interface AdoptOptions {
  readonly digest?: string;
  readonly isSynced?: boolean;
  readonly keep?: KeepBlob;
}

/** A blob that is being written. `await using` aborts it unless it was committed. */
export interface BlobWriter extends AsyncDisposable {
  /** The first bytes, up to 64 KiB: enough for the header of every format. */
  readonly prefix: Uint8Array;
  /** Bytes written so far. */
  readonly bytes: number;
  /** Takes the bytes (the chunk may be reused when this resolves); waits for a slow disk. */
  write(chunk: Uint8Array): Promise<void>;
  /** Makes the blob durable and visible under its digest; then runs `keep`. */
  commit(keep?: KeepBlob): Promise<BlobRef>;
  /** Removes everything written. After commit() it only waits for the commit. */
  abort(): Promise<void>;
}

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
  /** Path of the blob's file, whether or not it exists; for reading only. */
  path(digest: string): string;
  /**
   * The bytes as a stream, to be read to its end or destroyed. NOT_FOUND immediately if the blob does not exist. With a
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
   * true.
   */
  delete(digest: string, isKept?: () => boolean | Promise<boolean>): Promise<boolean>;
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

const prefixBytes = 64 * 1024;
/** Bytes per write to the disk; two such buffers per upload. */
const bufferBytes = 512 * 1024;
const maxSpareBuffers = 8;
const maxLargeBuffers = 24;
const smallBufferBytes = 32 * 1024;
const readBytes = 128 * 1024;

/**
 * Opens the blobs in a folder of the local disk: `sha256/<hex>` and, while they are written, `tmp/`. The folder
 * must belong to this process alone (lockDataFolder). `minFreeBytes` is the free space that uploads must leave.
 */
export async function openBlobs(dir: string, options: { minFreeBytes?: number } = {}): Promise<Blobs> {
  const folders = { named: join(dir, 'sha256'), temporary: join(dir, 'tmp') };
  const named = await attempt(async () => {
    await makeFolder(folders.named);
    await makeFolder(folders.temporary);
    return openFolder(folders.named);
  });
  return new FileBlobs(folders, options.minFreeBytes ?? 64 * 1024 * 1024, named);
}

class FileBlobs implements Blobs {
  readonly #named: string;
  readonly #temporary: string;
  readonly #minFreeBytes: number;
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
  ) {
    this.#named = folders.named;
    this.#temporary = folders.temporary;
    this.#minFreeBytes = minFreeBytes;
    this.#namedFolder = namedFolder;
  }

  async create(options: { maxBytes?: number; expectedBytes?: number } = {}): Promise<BlobWriter> {
    const { maxBytes = Number.POSITIVE_INFINITY, expectedBytes = 0 } = options;
    if (expectedBytes > maxBytes) throw tooLarge(maxBytes);
    const path = join(this.#temporary, randomUUID());
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

  path(digest: string): string {
    return join(this.#named, hexOf(digest));
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
      return { digest, sizeBytes: (await stat(path)).size };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw diskError(error);
    }
  }

  delete(digest: string, isKept: () => boolean | Promise<boolean> = () => false): Promise<boolean> {
    const path = this.path(digest);
    return this.#alone(digest, async () => {
      if (await isKept()) return false;
      try {
        await unlink(path);
        return true;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
        throw diskError(error);
      }
    });
  }

  async *digests(): AsyncIterable<string> {
    for await (const entry of await opendir(this.#named, { bufferSize: 1000 }))
      if (hexPattern.test(entry.name)) yield `sha256:${entry.name}`;
  }

  async sweepTemporary(): Promise<number> {
    const ours = new Set(Array.from(this.#writers, (writer) => writer.path));
    let removed = 0;
    for (const name of await readdir(this.#temporary)) {
      const path = join(this.#temporary, name);
      if (ours.has(path)) continue;
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
        if (isNew) await rm(target, { force: true });
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

/** Writes one file in large pieces, one being written while the next one fills. */
class FileWriter implements BlobWriter {
  readonly path: string;
  bytes = 0;
  readonly #handle: FileHandle;
  readonly #maxBytes: number;
  readonly #buffers: BufferPool;
  readonly #store: { publish(ref: BlobRef, keep?: KeepBlob): Promise<void>; ended(): void };
  readonly #hash = createHash('sha256');
  readonly #prefix: Uint8Array[] = [];
  #prefixBytes = 0;
  #buffer: Buffer | undefined;
  #filled = 0;
  /** Where in the file the next piece goes. */
  #at = 0;
  /** The write in progress; it settles with the error and never rejects. */
  #pending: Promise<unknown> = Promise.resolve();
  #committing: Promise<unknown> | undefined;
  #state: 'open' | 'committing' | 'ended' = 'open';

  constructor(
    handle: FileHandle,
    path: string,
    maxBytes: number,
    buffers: BufferPool,
    store: { publish(ref: BlobRef, keep?: KeepBlob): Promise<void>; ended(): void },
  ) {
    this.#handle = handle;
    this.path = path;
    this.#maxBytes = maxBytes;
    this.#buffers = buffers;
    this.#store = store;
  }

  get prefix(): Uint8Array {
    if (this.#prefix.length > 1) this.#prefix.splice(0, this.#prefix.length, Buffer.concat(this.#prefix));
    return this.#prefix[0] ?? new Uint8Array(0);
  }

  async write(chunk: Uint8Array): Promise<void> {
    if (this.#state !== 'open') throw new Error('the blob is not open for writing');
    if (this.bytes + chunk.length > this.#maxBytes) throw tooLarge(this.#maxBytes);
    this.#hash.update(chunk);
    this.bytes += chunk.length;
    if (this.#prefixBytes < prefixBytes) {
      const head = chunk.subarray(0, prefixBytes - this.#prefixBytes);
      this.#prefix.push(Uint8Array.from(head));
      this.#prefixBytes += head.length;
    }
    for (let from = 0; from < chunk.length; ) {
      this.#buffer ??= this.#buffers.take();
      const to = Math.min(from + this.#buffer.length - this.#filled, chunk.length);
      this.#buffer.set(from === 0 && to === chunk.length ? chunk : chunk.subarray(from, to), this.#filled);
      this.#filled += to - from;
      from = to;
      if (this.#filled < this.#buffer.length) continue;
      await this.#flush();
      if (this.#state !== 'open') throw new Error('the blob was aborted while it was written');
    }
  }

  async commit(keep?: KeepBlob): Promise<BlobRef> {
    if (this.#state !== 'open') throw new Error('the blob is not open for writing');
    this.#state = 'committing';
    const committing = this.#publish(keep);
    this.#committing = committing.catch(() => undefined);
    return committing;
  }

  async abort(): Promise<void> {
    // `await using writer; return writer.commit()` comes here before the commit is over.
    if (this.#state === 'committing') await this.#committing;
    else if (this.#state === 'open') await this.#remove();
  }

  async #publish(keep?: KeepBlob): Promise<BlobRef> {
    try {
      await this.#flush();
      await this.#settle();
      const ref = { digest: `sha256:${this.#hash.digest('hex')}`, sizeBytes: this.bytes };
      await attempt(async () => {
        await this.#handle.datasync();
        await this.#handle.close();
        await this.#store.publish(ref, keep);
      });
      this.#state = 'ended';
      this.#store.ended();
      return ref;
    } catch (error) {
      await this.#remove();
      throw error;
    }
  }

  async #remove(): Promise<void> {
    this.#state = 'ended';
    await this.#pending;
    if (this.#buffer) this.#buffers.give(this.#buffer);
    this.#buffer = undefined;
    await this.#handle.close().catch(() => undefined); // Already closed, or the disk fails: it is removed anyway.
    await rm(this.path, { force: true });
    this.#store.ended();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.abort();
  }

  /** Writes the filled buffer once the previous one is written. */
  async #flush(): Promise<void> {
    await this.#settle();
    const buffer = this.#buffer;
    if (!buffer) return;
    const length = this.#filled;
    this.#buffer = undefined;
    this.#filled = 0;
    this.#pending = this.#writeAll(buffer, length).then(
      () => this.#buffers.give(buffer),
      (error) => {
        this.#buffers.give(buffer);
        return { error: diskError(error) };
      },
    );
  }

  async #settle(): Promise<void> {
    const outcome = (await this.#pending) as { error?: unknown } | undefined;
    if (outcome?.error) throw outcome.error;
  }

  async #writeAll(buffer: Buffer, length: number): Promise<void> {
    await writeAll(this.#handle, buffer.subarray(0, length), this.#at);
    this.#at += length;
  }
}

/**
 * Reused buffers, so that an upload allocates no new memory. When many are in use, as with hundreds of slow clients,
 * the next ones are small.
 */
class BufferPool {
  readonly #spare: Buffer[] = [];
  #out = 0;

  take(): Buffer {
    this.#out++;
    if (this.#out > maxLargeBuffers) return Buffer.allocUnsafeSlow(smallBufferBytes);
    return this.#spare.pop() ?? Buffer.allocUnsafeSlow(bufferBytes);
  }

  give(buffer: Buffer): void {
    this.#out--;
    if (buffer.length === bufferBytes && this.#spare.length < maxSpareBuffers) this.#spare.push(buffer);
  }
}

const hexPattern = /^[0-9a-f]{64}$/;
/** The errors of link() on file systems without hard links (some SMB and FUSE mounts). */
export const noHardLinks: ReadonlySet<string> = new Set([
  'EPERM',
  'ENOTSUP',
  'EOPNOTSUPP',
  'ENOSYS',
  'EMLINK',
]);

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

function tooLarge(maxBytes: number): TomaatError {
  return new TomaatError(
    'UPLOAD_TOO_LARGE',
    `The file is larger than the ${maxBytes} bytes that are accepted here. Send a smaller one`,
  );
}

const noSuchBlob = () =>
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

/** Writes all of the bytes at this offset of a file: one write may take fewer, for example on a nearly full disk. */
export async function writeAll(handle: FileHandle, bytes: Uint8Array, at: number): Promise<void> {
  for (let from = 0; from < bytes.length; ) {
    const { bytesWritten } = await handle.write(bytes, from, bytes.length - from, at + from);
    from += bytesWritten;
  }
}

/** Creates a folder that only its owner can access, durably, with its parents; an existing one is not changed. */
export async function makeFolder(folder: string): Promise<void> {
  const path = resolve(folder);
  const first = await mkdir(path, { recursive: true, mode: 0o700 });
  for (let made = path; first !== undefined && made.length >= first.length; made = dirname(made))
    await syncFolder(dirname(made));
}

export async function syncFolder(folder: string): Promise<void> {
  await using handle = await openFolder(folder);
  await handle?.sync();
}

/** A handle on a folder, to sync its names; undefined on Windows, where this is neither possible nor needed. */
async function openFolder(folder: string): Promise<FileHandle | undefined> {
  return process.platform === 'win32' ? undefined : open(folder, 'r');
}

async function attempt<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw diskError(error);
  }
}

/** A system error about a file as a TomaatError; other errors unchanged. */
export function diskError(error: unknown): unknown {
  const { code, syscall } = error as NodeJS.ErrnoException;
  if (error instanceof TomaatError || !syscall) return error;
  switch (code) {
    case 'ENOSPC':
    case 'EDQUOT':
    case 'EFBIG':
    case 'EROFS':
      return new TomaatError(
        'DISK_FULL',
        code === 'EROFS'
          ? 'The disk of the server is read-only. Try again later, or ask the operator'
          : 'The disk of the server is full. Try again later',
        {
          cause: error,
        },
      );
    case 'EMFILE':
    case 'ENFILE':
      return new TomaatError('BUSY', 'The server has too many files open. Try again', { cause: error });
    default:
      return new TomaatError(
        'INTERNAL',
        `The disk of the server is failing (${code ?? 'unknown'} at ${syscall}). Ask the operator to check it`,
        { cause: error },
      );
  }
}
