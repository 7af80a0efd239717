import { type BigIntStats, constants } from 'node:fs';
import { lstat, open, opendir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { listSeries, readDicomHeader, TomaatError } from '@tomaat/core';
import { nodePlatform } from '../../node-platform.ts';
import { filePieces } from '../../store/files/file-pieces.ts';
import { isUid } from '../uids.ts';

/* The files of a folder: which are there, which are complete, and to which series each belongs. */

/** What tells a file from a changed one. */
export interface Stamp {
  readonly text: string;
  readonly sizeBytes: number;
  /** Last change of its bytes or its entry, ms since 1970: a copy may keep the older time of its original. */
  readonly changedMs: number;
}

/** What the header of a file says. */
export interface FileFacts {
  readonly study: string;
  readonly series: string;
  readonly instance: string;
  readonly modality?: string;
  readonly bodyPart?: string;
  readonly description?: string;
  readonly studyDescription?: string;
}

const mostFiles = 200_000;
const mostLevels = 16;
const sopInstanceUid = 0x00080018;

export const stampOf = ({ ino, size, mtimeNs, ctimeNs }: BigIntStats): Stamp => ({
  text: `${ino} ${size} ${mtimeNs} ${ctimeNs}`,
  sizeBytes: Number(size),
  changedMs: Number((mtimeNs > ctimeNs ? mtimeNs : ctimeNs) / 1_000_000n),
});

/**
 * The regular files of a folder and of those in it. Hidden ones are passed over, and links are not followed: a file that is
 * linked to lies in the folder anyway, or outside of it.
 *
 * @throws TomaatError UPSTREAM if the folder cannot be read, has more than 200,000 files, or is more than 16 levels deep
 */
export async function* filesBelow(
  root: string,
  signal: AbortSignal,
): AsyncGenerator<{ path: string; folder: string; stamp: Stamp }> {
  let count = 0;
  const folders: { path: string; level: number }[] = [{ path: root, level: 0 }];
  for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
    const { path: at, level } = folder;
    for (const entry of await entriesOf(at, at === root)) {
      signal.throwIfAborted();
      const path = join(at, entry.name);
      if (entry.isDirectory()) {
        if (level === mostLevels) throw tooMuch(root, `folders more than ${mostLevels} levels deep`);
        folders.push({ path, level: level + 1 });
      } else if (entry.isFile()) {
        if (++count > mostFiles) throw tooMuch(root, `more than ${mostFiles} files`);
        const stats = await lstat(path, { bigint: true }).catch(goneOrThrow);
        if (stats?.isFile()) yield { path, folder: at, stamp: stampOf(stats) };
      }
    }
  }
}

async function entriesOf(folder: string, isRoot: boolean) {
  try {
    const found = [];
    for await (const entry of await opendir(folder)) {
      if (entry.name.startsWith('.')) continue;
      if (found.push(entry) > mostFiles) throw tooMuch(folder, `more than ${mostFiles} files`);
    }
    return found;
  } catch (error) {
    const { code, syscall } = error as NodeJS.ErrnoException;
    // Removed since its parent was listed.
    if (code === 'ENOENT' && !isRoot) return [];
    if (syscall === undefined) throw error;
    throw new TomaatError(
      'UPSTREAM',
      `${isRoot ? folder : 'A folder in the source'} cannot be read (${code}). Check that it exists, and that the user of the gateway may read it.`,
      { cause: error },
    );
  }
}

const tooMuch = (folder: string, what: string) =>
  new TomaatError(
    'UPSTREAM',
    `${folder} has ${what}. Move those that were processed elsewhere, or give a folder closer to the files.`,
  );

function goneOrThrow(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error;
}

/**
 * What a file is: `undefined` for one that is no image of a series, such as a text, a report or a segmentation.
 *
 * @throws TomaatError for a damaged DICOM file, which may be an image of any series; an error of the system
 */
export async function readFacts(
  path: string,
  { sizeBytes }: Stamp,
  signal: AbortSignal,
): Promise<FileFacts | undefined> {
  const file = {
    name: basename(path),
    sizeBytes,
    open: (start?: number) => filePieces(path, sizeBytes, { start, pieceBytes: 256 * 1024 }),
  };
  const header = await readDicomHeader(file, nodePlatform, signal);
  if (header.kind === 'unread') {
    if (header.fault.code === 'UNKNOWN_FORMAT') return undefined;
    throw header.fault;
  }
  const { series, leftOut } = listSeries([header]);
  const fault = leftOut.find((left) => left.fault)?.fault;
  if (fault) throw fault;
  if (series.length === 0) return undefined;
  const [{ uid, studyUid, modality, bodyPart, description, studyDescription }] = series;
  const element = header.dicom.dataset.get(sopInstanceUid);
  const instance =
    element?.kind === 'value'
      ? Buffer.from(element.bytes.subarray(0, 66))
          .toString('latin1')
          .replace(/[\0 ]$/, '')
      : '';
  if (![uid, studyUid, instance].every(isUid))
    throw new TomaatError('BAD_HEADER', 'The file has an invalid UID of its study, series or instance.');
  return { study: studyUid, series: uid, instance, modality, bodyPart, description, studyDescription };
}

/**
 * The bytes of a file that still is what it was.
 *
 * @throws TomaatError BUSY if it has changed, UPLOAD_TOO_LARGE
 */
export async function readUnchanged(path: string, stamp: Stamp, maxBytes: number): Promise<Uint8Array> {
  if (stamp.sizeBytes > maxBytes) {
    throw new TomaatError(
      'UPLOAD_TOO_LARGE',
      `A file of the series has ${stamp.sizeBytes} bytes, more than limits.maxSeriesBytes (${maxBytes}). Raise that in the file of rules.`,
    );
  }
  try {
    await using handle = await open(path, constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0));
    const isSame = async () => stampOf(await handle.stat({ bigint: true })).text === stamp.text;
    if (!(await isSame())) throw changed();
    const bytes = new Uint8Array(stamp.sizeBytes);
    for (let at = 0; at < bytes.length; ) {
      const { bytesRead } = await handle.read(bytes, at, bytes.length - at, at);
      if (bytesRead === 0) throw changed();
      at += bytesRead;
    }
    if (!(await isSame())) throw changed();
    return bytes;
  } catch (error) {
    const { code, syscall } = error as NodeJS.ErrnoException;
    if (syscall === undefined) throw error;
    if (code === 'ENOENT' || code === 'ELOOP') throw changed(error);
    throw new TomaatError(
      'UPSTREAM',
      `A file of the series cannot be read (${code}). Check the disk, and that the user of the gateway may read its files.`,
      { cause: error },
    );
  }
}

const changed = (cause?: unknown) =>
  new TomaatError('BUSY', 'A file of the series is changing, or was moved. The series is tried again.', {
    cause,
  });
