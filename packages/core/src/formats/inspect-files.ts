import { isDicom, parseDicom } from '../dicom/parse.ts';
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
  const unpacked = await unpackFiles(files, platform, limits);
  if (await isDicomSeries(unpacked, signal)) {
    return (await inspectDicom(unpacked, platform, { limits, series, signal })).header;
  }
  requireFew(unpacked);
  const prefixes: FilePrefix[] = [];
  for (const file of unpacked) prefixes.push(await readPrefix(file, prefixBytes, signal));
  return planRead(prefixes, limits).header;
}

/** A header, its voxels, and what should not be among them, which is named. */
const mostFilesOfOneHeader = 64;
/** So many files that are not DICOM may come before the first one that is. */
const mostStrangers = 1000;

/** Throws BAD_INPUT for more files than a volume has whose header says all of it. */
export function requireFew(files: readonly SourceFile[]): void {
  if (files.length <= mostFilesOfOneHeader) return;
  throw new TomaatError(
    'BAD_INPUT',
    `The ${files.length} files of the volume are not a DICOM series: send one volume, or the files of one series`,
  );
}

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

/** The files themselves, or those in the zip archive that comes in their place. */
export async function unpackFiles(
  files: readonly SourceFile[],
  platform: Platform,
  limits: ReadLimits,
): Promise<readonly SourceFile[]> {
  const [first] = files;
  if (first === undefined || !isZip((await readPrefix(first, 4)).prefix)) return files;
  if (files.length === 1) return openZip(first, platform, limits);
  throw new TomaatError(
    'BAD_INPUT',
    'A zip archive comes with other files: send the archive alone, with all files of the volume in it',
  );
}

/** Whether files are those of a DICOM series. Others, such as a text, may lie among them, even before them. */
export async function isDicomSeries(files: readonly SourceFile[], signal?: AbortSignal): Promise<boolean> {
  for (const file of files.slice(0, mostStrangers))
    if (isOneOfMany(await readPrefix(file, kindBytes, signal), files)) return true;
  return false;
}

/** PS3.10, 7.1: behind a preamble of 128 bytes. */
const hasDicomWord = (bytes: Uint8Array) =>
  bytes[128] === 68 && bytes[129] === 73 && bytes[130] === 67 && bytes[131] === 77;

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
