import { hasDicomWord, isDicom, parseDicom } from '../dicom/parse.ts';
import { inspectDicom } from '../dicom/read-dicom.ts';
import { TomaatError } from '../errors.ts';
import type { Platform } from '../platform.ts';
import { defaultLimits, type ReadLimits } from './header.ts';
import type { SourceFile } from './source-file.ts';
import type { VolumeHeader } from './table.ts';
import { type FilePrefix, isOneOfMany, planRead, prefixBytes } from './volume-plan.ts';
import { joinBytes } from './voxel-pieces.ts';
import { isZip, openZip } from './zip.ts';

/*
 * What the files of one volume are, by their first bytes: a zip archive of them, the images of a DICOM series, or a header with its
 * voxels.
 */

export interface InspectOptions {
  limits?: ReadLimits;
  /** Which DICOM series, where the files hold several: its UID, or its number. */
  series?: string;
  signal?: AbortSignal;
}

/** Bytes that tell what kind of file it is: the word of a DICOM file stands behind 128 others. */
const kindBytes = 256;

/**
 * What the headers of a volume's files say, as inspectVolume(): of a zip archive those of the files in it, of a DICOM series those
 * of all its images.
 *
 * @throws TomaatError as inspectVolume(), openZip(), inspectDicom(); or the files' own faults
 */
export async function inspectFiles(
  files: readonly SourceFile[],
  platform: Platform,
  { limits = defaultLimits, series, signal }: InspectOptions = {},
): Promise<VolumeHeader> {
  const { files: unpacked, prefixes } = await sortFiles(files, platform, { limits, signal });
  if (prefixes) return planRead(prefixes, limits).header;
  return (await inspectDicom(unpacked, platform, { limits, series, signal })).header;
}

/** A header, its voxels, and what should not be among them, which is named. */
const mostFilesOfOneHeader = 64;
/** So many files that are not DICOM may come before the first one that is. */
const mostStrangers = 1000;

/**
 * What the first bytes of one file can tell, before the others are there. Of a zip archive that is nothing, since its directory is at
 * its end.
 *
 * @throws TomaatError as inspectVolume(); BAD_HEADER for a DICOM header that is damaged in these bytes
 */
export function inspectStart(file: FilePrefix, limits: ReadLimits = defaultLimits): void {
  const { prefix } = file;
  if (isZip(prefix)) return;
  if (!hasDicomWord(prefix)) {
    // Voxels of a pair, which come first, may be like a DICOM file without the word.
    if (!isDicom(prefix)) planRead([file], limits);
    return;
  }
  const isWhole = prefix.length < prefixBytes;
  try {
    parseDicom(prefix, { fileBytes: isWhole ? prefix.length : Number.POSITIVE_INFINITY });
  } catch (error) {
    // A deflated data set is read when all of it is there.
    if (!(error instanceof TomaatError && error.code === 'UNSUPPORTED_FORMAT')) throw error;
  }
}

/** The files of a volume as they are read. */
export interface SortedFiles {
  /** Those given, or those in the zip archive that came in their place. */
  files: readonly SourceFile[];
  /** The first bytes of each, where one header says all of the volume; undefined for a DICOM series. */
  prefixes?: FilePrefix[];
}

/**
 * Finds out what files are by their first bytes, which are read once. Others, such as a text, may lie among the files of a series,
 * even before them.
 *
 * @throws TomaatError as openZip(); BAD_INPUT for an archive that does not come alone, or for many files that are no series
 */
export async function sortFiles(
  given: readonly SourceFile[],
  platform: Platform,
  { limits = defaultLimits, signal }: InspectOptions,
): Promise<SortedFiles> {
  if (given.length === 0) return { files: given, prefixes: [] };
  let first = await readPrefix(given[0], prefixBytes, signal);
  let files = given;
  if (isZip(first.prefix)) {
    if (given.length > 1) {
      throw new TomaatError(
        'BAD_INPUT',
        'A zip archive comes with other files. Send the archive alone, with all files of the volume in it',
      );
    }
    files = await openZip(given[0], platform, limits);
    first = await readPrefix(files[0], prefixBytes, signal);
  }
  const isFew = files.length <= mostFilesOfOneHeader;
  const prefixes: FilePrefix[] = [];
  for (const [i, file] of files.slice(0, mostStrangers).entries()) {
    const prefix = i === 0 ? first : await readPrefix(file, isFew ? prefixBytes : kindBytes, signal);
    if (isOneOfMany(prefix, files)) return { files };
    if (isFew) prefixes.push(prefix);
  }
  if (isFew) return { files, prefixes };
  throw new TomaatError(
    'BAD_INPUT',
    `The ${files.length} files of the volume are not a DICOM series. Send one volume, or the files of one series`,
  );
}

/** The first bytes of a file, `length` at most. */
export async function readPrefix(
  file: SourceFile,
  length: number,
  signal?: AbortSignal,
): Promise<FilePrefix> {
  const parts: Uint8Array[] = [];
  let total = 0;
  let whole = true;
  for await (const chunk of file.open()) {
    signal?.throwIfAborted();
    parts.push(chunk);
    total += chunk.length;
    if (total >= length) {
      whole = false;
      break;
    }
  }
  const prefix = joinBytes(parts).subarray(0, length);
  return {
    name: file.name,
    renamed: file.renamed,
    prefix,
    sizeBytes: file.sizeBytes ?? (whole ? total : undefined),
  };
}
