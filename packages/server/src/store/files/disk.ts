import { type FileHandle, mkdir, open } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { TomaatError } from '@tomaat/core';

/* What all who write files need: durable folders, whole writes, and errors of the disk in words for callers. */

/** The errors of link() on file systems without hard links (some SMB and FUSE mounts). */
export const noHardLinks: ReadonlySet<string> = new Set([
  'EPERM',
  'ENOTSUP',
  'EOPNOTSUPP',
  'ENOSYS',
  'EMLINK',
]);

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

/** Makes the names in a folder durable. */
export async function syncFolder(folder: string): Promise<void> {
  await using handle = await openFolder(folder);
  await handle?.sync();
}

/** A handle on a folder, to sync its names; undefined on Windows, where this is neither possible nor needed. */
export async function openFolder(folder: string): Promise<FileHandle | undefined> {
  return process.platform === 'win32' ? undefined : open(folder, 'r');
}

/** Does `work`, and throws a system error about a file as `diskError()` puts it. */
export async function attempt<T>(work: () => Promise<T>): Promise<T> {
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
