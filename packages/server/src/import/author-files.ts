import { constants, createReadStream, createWriteStream } from 'node:fs';
import { copyFile, mkdir, readdir, realpath, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { TomaatError } from '@tomaat/core';
import { hashFile } from '../store/files/hash-file.ts';
import type { AuthorFolder } from './recognise.ts';

/*
 * The author's files that a program needs: those that its pipeline read, and its configs and code. They are copied, never
 * hard-linked: training writes new weights into the same file.
 */

/** A file of the author, with its path below the app's folder `model`. */
export interface AuthorFile {
  readonly path: string;
  readonly from: string;
  readonly sizeBytes: number;
}

/** A file as import.json lists it. */
export interface CopiedFile {
  readonly path: string;
  readonly sizeBytes: number;
  readonly sha256: string;
}

/** More files are not those of a bundle. */
const mostFiles = 5000;
const isHidden = (name: string) => name.startsWith('.') || name === '__pycache__';

/**
 * The files that the app needs, in the order of their paths. `read` are those that the author's pipeline read, below the folder
 * (of nnU-Net, below the one that holds it). BAD_INPUT if one has gone.
 */
export async function filesOf(author: AuthorFolder, read: readonly string[]): Promise<AuthorFile[]> {
  const base = author.kind === 'monai' ? author.folder : dirname(author.folder);
  const paths = new Set(read);
  if (author.kind === 'monai')
    for (const path of await codeIn(author.folder))
      if (path.startsWith('configs/') || path.endsWith('.py')) paths.add(path);
  const files: AuthorFile[] = [];
  for (const path of [...paths].sort()) {
    const from = join(base, path);
    const found = await stat(from).catch(() => undefined);
    if (!found?.isFile())
      throw new TomaatError(
        'BAD_INPUT',
        `${from}, which the author’s pipeline read, is no longer there. Import again.`,
      );
    files.push({ path, from, sizeBytes: found.size });
  }
  return files;
}

/**
 * The files of a folder, with / between the parts of their paths. Links are followed, as a download may consist of them; each folder
 * is read once.
 */
async function codeIn(folder: string, inner = '', seen = new Set<string>()): Promise<string[]> {
  const real = await realpath(join(folder, inner));
  if (seen.has(real)) return [];
  seen.add(real);
  const found: string[] = [];
  for (const name of (await readdir(join(folder, inner))).sort()) {
    if (isHidden(name)) continue;
    const path = inner === '' ? name : `${inner}/${name}`;
    const entry = await stat(join(folder, path)).catch(() => undefined); // A link to nothing.
    if (entry?.isFile()) found.push(path);
    else if (entry?.isDirectory()) found.push(...(await codeIn(folder, path, seen)));
    if (found.length > mostFiles)
      throw new TomaatError(
        'BAD_INPUT',
        `${join(folder, inner)} holds more than ${mostFiles} files. Import a folder that holds the bundle alone.`,
      );
  }
  return found;
}

/**
 * Copies files into a folder. `onBytes` learns how many bytes are copied so far; an abort ends it in the middle of a file.
 */
export async function copyFiles(
  files: readonly AuthorFile[],
  folder: string,
  signal: AbortSignal,
  onBytes: (done: number) => void,
): Promise<CopiedFile[]> {
  const copied: CopiedFile[] = [];
  let done = 0;
  for (const { path, from, sizeBytes } of files) {
    signal.throwIfAborted();
    const to = join(folder, path);
    await mkdir(dirname(to), { recursive: true });
    if (!(await cloneFile(from, to))) {
      const before = done;
      let bytes = 0;
      const count = new Transform({
        transform(chunk: Buffer, _encoding, next) {
          bytes += chunk.length;
          onBytes(before + bytes);
          next(null, chunk);
        },
      });
      const source = createReadStream(from, { highWaterMark: 1 << 20 });
      await pipeline(source, count, createWriteStream(to), { signal });
    }
    done += sizeBytes;
    onBytes(done);
    copied.push({ path, sizeBytes, sha256: await hashFile(to) });
  }
  return copied;
}

/** A copy that shares its blocks until one of the two is written, where the file system has such. */
async function cloneFile(from: string, to: string): Promise<boolean> {
  try {
    await copyFile(from, to, constants.COPYFILE_FICLONE_FORCE);
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (['ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EXDEV', 'EINVAL', 'ENOTTY'].includes(code ?? '')) return false;
    throw error;
  }
}
