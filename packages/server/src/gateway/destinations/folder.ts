import { chmod, link, mkdir, open, readFile, realpath, rename, rm, stat } from 'node:fs/promises';
import { join, relative, sep } from 'node:path';
import type { DicomFile } from '@tomaat/client';
import { belongingOf, isSameResult, parseDicom, TomaatError } from '@tomaat/core';
import { noHardLinks, syncFolder } from '../../store/files/disk.ts';
import { partOf } from '../../store/files/whole-file.ts';
import type { Destination } from '../series.ts';
import { isUid } from '../uids.ts';

/**
 * A folder: STUDY/SERIES/INSTANCE.dcm below it, for those who may read the folder. A file has its name only when it is
 * whole and on the disk, and one that is there is never written again.
 */
export const openFolderDestination = (name: string, { path }: { path: string }): Destination => ({
  name,
  async ask() {
    await rootOf(name, path);
  },
  async store(objects, signal) {
    const root = await rootOf(name, path);
    for (const object of objects) {
      signal.throwIfAborted();
      await storeFile(name, root, await bytesOf(object));
    }
  },
});

/** It is not created: an empty mount point would take what is meant for a disk that is not there. */
async function rootOf(name: string, path: string): Promise<string> {
  const isFolder = await stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
  if (isFolder) return realpath(path);
  throw new TomaatError(
    'UNREACHABLE',
    `${path}, the folder of the destination ${name}, is not there. Create it, or mount it; the results are stored when it is there.`,
  );
}

async function bytesOf(file: DicomFile): Promise<Uint8Array> {
  if (file instanceof Uint8Array) return file;
  if (file instanceof ArrayBuffer) return new Uint8Array(file);
  if (file instanceof Blob) return new Uint8Array(await file.arrayBuffer());
  if ('bytes' in file) return bytesOf(file.bytes);
  const parts: Uint8Array[] = [];
  for await (const part of file.stream()) parts.push(part);
  return Buffer.concat(parts);
}

async function storeFile(name: string, root: string, bytes: Uint8Array): Promise<void> {
  const { studyUid, seriesUid, sopInstanceUid } = belongingOf(parseDicom(bytes)!);
  const uids = [studyUid, seriesUid, sopInstanceUid];
  if (!uids.every(isUid)) {
    throw new TomaatError(
      'BAD_INPUT',
      'An object has an invalid UID, which cannot be the name of a file. It was not stored.',
    );
  }
  const { mode } = await stat(root);
  let folder = root;
  for (const uid of [studyUid, seriesUid]) {
    folder = join(folder, uid);
    if ((await mkdir(folder, { recursive: true })) !== undefined) {
      await chmod(folder, mode & 0o777);
      await syncFolder(join(folder, '..'));
    }
    await checkInside(name, root, folder);
  }
  const path = join(folder, `${sopInstanceUid}.dcm`);
  if (await isThere(name, root, path, bytes)) return;
  const part = partOf(path);
  try {
    await using file = await open(part, 'wx', 0o600);
    await file.chmod(mode & 0o666);
    await file.writeFile(bytes);
    await file.sync();
    if (!(await nameOnce(part, path))) await isThere(name, root, path, bytes);
  } finally {
    await rm(part, { force: true });
  }
  await syncFolder(folder);
}

/** A link among the folders may lead elsewhere. */
async function checkInside(name: string, root: string, folder: string): Promise<void> {
  const way = relative(root, await realpath(folder));
  if (way !== '..' && !way.startsWith(`..${sep}`)) return;
  throw new TomaatError(
    'CONFLICT',
    `A folder in the destination ${name} is a link to a place outside of it. Nothing was stored there. Remove the link.`,
  );
}

/** Whether the object is there already. @throws TomaatError CONFLICT if something else has its name */
async function isThere(name: string, root: string, path: string, bytes: Uint8Array): Promise<boolean> {
  let found: Buffer;
  try {
    found = await readFile(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
  if (isSame(found, bytes)) return true;
  throw new TomaatError(
    'CONFLICT',
    `The destination ${name} has another file of the name ${relative(root, path)}. It was left as it is. Move it away, then try again.`,
  );
}

function isSame(found: Buffer, bytes: Uint8Array): boolean {
  if (found.equals(bytes)) return true;
  try {
    return isSameResult(new Uint8Array(found), bytes);
  } catch (error) {
    // What is there is no DICOM file.
    if (error instanceof TomaatError) return false;
    throw error;
  }
}

/** Gives a whole file its name, unless another has it: a link fails then, and a name does not. */
async function nameOnce(part: string, path: string): Promise<boolean> {
  try {
    await link(part, path);
    return true;
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') return false;
    if (!noHardLinks.has(code)) throw error;
    await rename(part, path);
    return true;
  }
}
