import { createHash } from 'node:crypto';
import { open } from 'node:fs/promises';
import { totalmem } from 'node:os';
import {
  type DeidentifiedImage,
  type DeidentifyFilesOptions,
  deidentifyFiles,
  findIdentifyingText,
  inspectFiles,
  isZip,
  neutralNames,
  parseUidKey,
  readPrefix,
  type SourceFile,
  sortFiles,
  TomaatError,
  writeStoredZip,
  writeStripped,
  type ZipMember,
} from '@tomaat/core';
import { nodePlatform } from '../node-platform.ts';
import { diskError, writeAll } from '../store/files/disk.ts';
import type { CleanedFile, CleanOptions, FileToClean } from './header-reader.ts';

/*
 * Removes the identity from the files of one volume, for `--strip-inputs`, in the thread that reads headers: DICOM
 * files and zip archives, one file in memory at a time.
 */

/** A file is in the memory of the server's own process while it is cleaned, with those of another thread. */
const maxFileBytes = Math.min(
  2 ** 30,
  ...[totalmem(), process.constrainedMemory()].filter((bytes) => bytes > 0).map((bytes) => bytes / 4),
);

/** Node hashes and writes less than 2 GiB at a time. */
const pieceBytes = 2 ** 26;

/** Files that wait for the disk at a time, as where they are received. */
const filesAtATime = 16;

/**
 * Writes each file without the identity to its path `into`.
 *
 * @returns digest and size of each; undefined for a file that is no part of the volume, of which nothing is written
 * @throws TomaatError as deidentifyFiles(), sortFiles(), parseUidKey(); DISK_FULL and others of the disk
 */
export async function cleanFiles(
  files: readonly FileToClean[],
  sources: readonly SourceFile[],
  key: string,
  { keepPatientCharacteristics, maxBytes, spareBytes, ...limits }: CleanOptions,
): Promise<(CleanedFile | undefined)[]> {
  // Dates are shifted, as by clients, so that intervals stay correct.
  const options = {
    uidKey: parseUidKey(key),
    keepPatientCharacteristics,
    shiftDates: true,
    limits,
    maxFileBytes: Math.floor(maxFileBytes),
  };
  const spend = createBudget(maxBytes, spareBytes);
  const cleaned: (CleanedFile | undefined)[] = files.map(() => undefined);
  if (sources.length === 1 && isZip((await readPrefix(sources[0], 4)).prefix)) {
    const members = await cleanMembers(sources[0], options);
    const sync = await writeFile(files[0].into, writeStoredZip(members), spend);
    return [await sync()];
  }
  const images = await deidentifyFiles(sources, nodePlatform, options);
  const syncing = new Set<Promise<void>>();
  let failed: { error: unknown } | undefined;
  const finish = async (index: number, sync: () => Promise<CleanedFile>) => {
    try {
      cleaned[index] = await sync();
    } catch (error) {
      failed ??= { error };
    }
  };
  try {
    for (const { index, read } of images) {
      while (syncing.size >= filesAtATime) await Promise.race(syncing);
      if (failed) break;
      const one = finish(index, await writeFile(files[index].into, await read(), spend)).finally(() =>
        syncing.delete(one),
      );
      syncing.add(one);
    }
  } finally {
    await Promise.all(syncing);
  }
  if (failed) throw failed.error;
  return cleaned;
}

/** The members of an archive, each without the identity whenever it is read, under names that say nothing. */
async function cleanMembers(archive: SourceFile, options: DeidentifyFilesOptions): Promise<ZipMember[]> {
  const { limits } = options;
  const { files, prefixes } = await sortFiles([archive], nodePlatform, { limits });
  if (prefixes) {
    // Files that do not belong to the volume are refused, not stored.
    await inspectFiles([archive], nodePlatform, { limits });
    return strippedMembers(files);
  }
  const images = await deidentifyFiles(files, nodePlatform, options);
  if (images.length === 0) throw noImage('None of the files in the archive');
  const width = Math.max(4, String(images.length).length);
  // Each member is read twice in a row: for its checksum, then for its bytes.
  let last: { image: DeidentifiedImage; pieces: readonly Uint8Array[] } | undefined;
  return images.map((image, i) => ({
    name: `${String(i + 1).padStart(width, '0')}.dcm`,
    async *read(signal) {
      if (last?.image !== image) {
        last = undefined;
        last = { image, pieces: await image.read(signal) };
      }
      yield* last.pieces;
    },
  }));
}

/** The files of a volume of another format, without identifying text in their headers. */
async function strippedMembers(files: readonly SourceFile[]): Promise<ZipMember[]> {
  const names = neutralNames(
    'volume',
    files.map(({ name }) => name),
  );
  const dataFile = (named: string) =>
    names[files.findIndex(({ name }) => name.toLowerCase() === named.toLowerCase())] ?? named;
  const members: ZipMember[] = [];
  for (const [i, file] of files.entries()) {
    const source = { name: names[i], sizeBytes: file.sizeBytes ?? 0, read: readRange(file) };
    const { rewrite } = await findIdentifyingText(source, nodePlatform, { dataFile });
    members.push({
      name: names[i],
      read: () => (rewrite ? writeStripped(source, rewrite, nodePlatform) : file.open()),
    });
  }
  return members;
}

const readRange = ({ open }: SourceFile) =>
  async function* (start = 0, end = Number.POSITIVE_INFINITY): AsyncGenerator<Uint8Array> {
    let left = end - start;
    if (left <= 0) return;
    for await (const chunk of open(start)) {
      yield left < chunk.length ? chunk.subarray(0, left) : chunk;
      left -= chunk.length;
      if (left <= 0) return;
    }
  };

/** Called with the bytes of every piece before it is written. */
function createBudget(
  maxBytes = Number.POSITIVE_INFINITY,
  spareBytes = Number.POSITIVE_INFINITY,
): (bytes: number) => void {
  let spent = 0;
  return (bytes) => {
    spent += bytes;
    if (spent > maxBytes) {
      throw new TomaatError(
        'UPLOAD_TOO_LARGE',
        `Unpacked and without the identity, the files take more than the ${maxBytes} bytes that this server accepts. Crop the volume, or ask the operator for a higher limit`,
      );
    }
    if (spent > spareBytes)
      throw new TomaatError('DISK_FULL', 'The disk of the server has no room for this. Try again later');
  };
}

/** Writes a new file, and returns what makes it durable: it waits for the disk while the next file is made. */
async function writeFile(
  path: string,
  chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  spend: (bytes: number) => void,
): Promise<() => Promise<CleanedFile>> {
  const hash = createHash('sha256');
  let sizeBytes = 0;
  const handle = await open(path, 'wx', 0o600).catch(fault);
  try {
    for await (const chunk of chunks) {
      spend(chunk.length);
      for (let from = 0; from < chunk.length; from += pieceBytes) {
        const piece = chunk.subarray(from, from + pieceBytes);
        hash.update(piece);
        await writeAll(handle, piece, sizeBytes).catch(fault);
        sizeBytes += piece.length;
      }
    }
  } catch (error) {
    await handle.close();
    throw error;
  }
  return async () => {
    try {
      await handle.sync().catch(fault);
    } finally {
      await handle.close();
    }
    return { digest: `sha256:${hash.digest('hex')}`, sizeBytes };
  };
}

const fault = (error: unknown): never => {
  throw diskError(error);
};

/** The refusal of a file that is no part of any volume. */
export const noImage = (what: string): TomaatError =>
  new TomaatError(
    'BAD_INPUT',
    `${what} is a DICOM image of a volume, and this server stores nothing else. Send the images of a series`,
  );

/** Memory that could not be had is a refusal, not a fault of this program. */
export function withoutMemory(error: unknown): unknown {
  return error instanceof RangeError &&
    /allocation failed|Invalid (?:typed )?array (?:buffer )?length/i.test(error.message)
    ? new TomaatError(
        'UPLOAD_TOO_LARGE',
        'One of the files is larger than the memory in which it is de-identified. De-identify it before it is sent',
        { cause: error },
      )
    : error;
}
