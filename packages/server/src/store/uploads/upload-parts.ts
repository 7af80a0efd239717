import { createHash, type Hash } from 'node:crypto';
import { open, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import type { Kysely } from 'kysely';
import type { UploadRow, UploadsSchema } from '../database/upload-schema.ts';
import { diskError, makeFolder, syncFolder, writeAll } from '../files/disk.ts';
import { hashFile } from '../files/hash-file.ts';
import type { UploadWriter } from './upload-writers.ts';

/**
 * The files of incomplete uploads: one for each, named by its id. Bytes that its row does not confirm are truncated
 * before more is written.
 */

/** The most bytes that must be sent again if the server is killed. */
const checkpointBytes = 2 * 1024 * 1024;

/** Where the bytes of incomplete uploads are. */
export interface UploadParts {
  /** The file of an upload whose bytes have all arrived; of parts in the blob store, once digestOf() has resolved. */
  pathOf(id: string): string;
  create(id: string): Promise<void>;
  remove(id: string): Promise<void>;
  /** `sha256:…` of all bytes. DAMAGED if some are missing. */
  digestOf(row: Pick<UploadRow, 'id' | 'size_bytes'>): Promise<string>;
  /**
   * Takes bytes from the row's offset on. However the body ends, the received bytes are durable when this settles, and counted in the
   * row. `digest` (`sha256:…`) is known if this process has received all of it.
   */
  receive(
    row: UploadRow,
    body: AsyncIterable<Uint8Array>,
    writer: UploadWriter,
  ): Promise<{ isWhole: boolean; digest?: string }>;
}

export interface UploadFiles extends UploadParts {
  /** Removes the files of all uploads but these. */
  removeOthers(ids: ReadonlySet<string>): Promise<void>;
  /** Undefined if the file does not exist. */
  sizeOf(id: string): Promise<number | undefined>;
}

/** `expiryMs`: when an upload used now expires. */
export async function openUploadFiles(
  folder: string,
  { db, expiryMs }: { db: Kysely<UploadsSchema>; expiryMs(): number },
): Promise<UploadFiles> {
  await makeFolder(folder);
  /** The running hash of parts that this process has received from the first byte. */
  const hashes = new Map<string, { hash: Hash; bytes: number }>();
  const pathOf = (id: string) => join(folder, id);
  const openPart = (id: string, flags: string) => guarded(() => open(pathOf(id), flags, 0o600));

  return {
    pathOf,

    async create(id: string): Promise<void> {
      const handle = await openPart(id, 'wx');
      await guarded(async () => {
        await handle.close();
        await syncFolder(folder);
      });
    },

    async remove(id: string): Promise<void> {
      hashes.delete(id);
      await rm(pathOf(id), { force: true });
    },

    async removeOthers(ids: ReadonlySet<string>): Promise<void> {
      for (const name of await readdir(folder))
        if (!ids.has(name)) await rm(join(folder, name), { force: true });
    },

    sizeOf: (id: string): Promise<number | undefined> =>
      stat(pathOf(id)).then(
        (found) => found.size,
        () => undefined,
      ),

    digestOf: ({ id }): Promise<string> => guarded(async () => `sha256:${await hashFile(pathOf(id))}`),

    async receive(row, body, writer) {
      const { id, offset_bytes: offsetBytes } = row;
      let at = offsetBytes;
      let safe = offsetBytes;
      let known = hashes.get(id);
      hashes.delete(id);
      if (offsetBytes === 0) known = { hash: createHash('sha256'), bytes: 0 };
      else if (known?.bytes !== offsetBytes) known = undefined;
      const handle = await openPart(id, 'r+');
      const checkpoint = async () => {
        if (at === safe) return;
        await guarded(() => handle.datasync());
        await db
          .updateTable('upload')
          .set({ offset_bytes: at, expires_ms: expiryMs() })
          .where('id', '=', id)
          .execute();
        safe = at;
      };
      try {
        // Bytes that an earlier process wrote without a sync.
        await guarded(() => handle.truncate(offsetBytes));
        try {
          for await (const chunk of untilAborted(body, writer.stop.signal)) {
            if (at + chunk.length > row.size_bytes) throw tooManyBytes(row);
            await guarded(() => writeAll(handle, chunk, at));
            known?.hash.update(chunk);
            at += chunk.length;
            writer.at = at;
            if (known) known.bytes = at;
            if (at - safe >= checkpointBytes) await checkpoint();
          }
        } finally {
          await checkpoint();
        }
      } finally {
        await handle.close();
      }
      if (at < row.size_bytes) {
        if (known) hashes.set(id, known);
        return { isWhole: false };
      }
      return { isWhole: true, digest: known && `sha256:${known.hash.digest('hex')}` };
    },
  };
}

export const tooManyBytes = ({ size_bytes }: UploadRow) =>
  new TomaatError(
    'BAD_REQUEST',
    `The upload was announced with ${size_bytes} bytes, but more arrived. Start a new one.`,
  );

/** The same chunks; ends with the signal's reason when it aborts, even while the sender is silent. */
export async function* untilAborted(
  body: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const iterator = body[Symbol.asyncIterator]();
  const aborted = new Promise<never>((_, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
  aborted.catch(() => {});
  try {
    signal.throwIfAborted();
    for (;;) {
      const { done, value } = await Promise.race([iterator.next(), aborted]);
      if (done) return;
      yield value;
    }
  } finally {
    // Not awaited: it settles only when the sender sends again or its connection ends.
    iterator.return?.()?.catch(() => undefined);
  }
}

async function guarded<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw diskError(error);
  }
}
