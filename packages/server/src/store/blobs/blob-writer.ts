import { createHash } from 'node:crypto';
import { type FileHandle, rm } from 'node:fs/promises';
import { TomaatError } from '@tomaat/core';
import { attempt, diskError, writeAll } from '../files/disk.ts';

/** Content-addressed bytes on disk. */
export interface BlobRef {
  /** `sha256:` and 64 lower-case hex digits. */
  readonly digest: string;
  readonly sizeBytes: number;
}

/** Durably records what keeps a blob alive; no delete() of the same blob can run in between. */
export type KeepBlob = (ref: BlobRef) => void | Promise<void>;

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

const prefixBytes = 64 * 1024;
/** Bytes per write to the disk; two such buffers per upload. */
const bufferBytes = 512 * 1024;
const maxSpareBuffers = 8;
const maxLargeBuffers = 24;
const smallBufferBytes = 32 * 1024;

/** Writes one file in large pieces, one being written while the next one fills. */
export class FileWriter implements BlobWriter {
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
export class BufferPool {
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

export function tooLarge(maxBytes: number): TomaatError {
  return new TomaatError(
    'UPLOAD_TOO_LARGE',
    `The file is larger than the ${maxBytes} bytes that are accepted here. Send a smaller one`,
  );
}
