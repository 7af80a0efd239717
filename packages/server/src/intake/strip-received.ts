import { createReadStream } from 'node:fs';
import { rm } from 'node:fs/promises';
import {
  createUidMapper,
  endingOf,
  fileEndingOf,
  hasDicomWord,
  holdsVoxelsAlone,
  isDicom,
  isZip,
  parseUidKey,
  type TextSource,
  TomaatError,
  withField,
  writeStripped,
} from '@tomaat/core';
import { nodePlatform } from '../node-platform.ts';
import type { KeepBlob } from '../store/blobs/blob-writer.ts';
import type { Blobs } from '../store/blobs/blobs.ts';
import type { CleanedFile, CleanOptions, HeaderReader, InspectedFile } from './header-reader.ts';
import { type ReceivedInput, startBytes } from './receive-input.ts';

/* Removes what may identify a person from files that were received, for `--strip-inputs`. */

export interface Stripping {
  readonly blobs: Blobs;
  readonly headers: HeaderReader;
  readonly limits: CleanOptions;
  /** The key of UIDs and pseudonyms, as in its file. */
  readonly uidKey: string;
}

/** How a request holds its blobs. */
export interface Holding {
  readonly keep: KeepBlob;
  release(digest: string): Promise<void>;
}

/**
 * Removes identifying text from received files: the stripped file is a new blob, and the received one is released. `names`
 * are the new names of the files; the header of a pair refers to its voxels by them. `dicomInputs` are the inputs whose
 * volume is a DICOM series.
 *
 * @returns the files that remain: those of a DICOM series that are no images of it are released, too
 */
export async function stripReceived(
  received: readonly ReceivedInput[],
  names: readonly string[],
  dicomInputs: ReadonlySet<string>,
  stripping: Stripping,
  holding: Holding,
): Promise<{ file: ReceivedInput; name: string }[]> {
  const kept: { file: ReceivedInput; name: string }[] = [];
  for (const input of new Set(received.map(({ name }) => name))) {
    const files = received.flatMap((file, i) => (file.name === input ? [{ file, name: names[i] }] : []));
    const isCleaned = dicomInputs.has(input) || files.some(({ file }) => isZip(file.start));
    const strip = isCleaned ? cleanSeries : stripHeaders;
    try {
      const stored = await strip(files, stripping, holding);
      if (stored.length === 0) throw nothingLeft();
      kept.push(...stored);
    } catch (error) {
      throw withField(error, input);
    }
  }
  return kept;
}

/** Such a file alone can be read as a volume. */
const nothingLeft = () =>
  new TomaatError(
    'BAD_INPUT',
    'This server stores no DICOM segmentations and no screen captures without a position, because it cannot remove the identity from them. Send a segmentation as NIfTI',
  );

/**
 * The `series` of a request as it is chosen among its cleaned files: the UID that replaces one. A number stays, and the
 * UID of files that were cleaned as uploads.
 */
export function seriesAmongCleaned(
  series: string | undefined,
  received: readonly ReceivedInput[],
  dicomInputs: ReadonlySet<string>,
  { uidKey }: Stripping,
): string | undefined {
  const isReplaced = received.some((file) => dicomInputs.has(file.name) && file.received === undefined);
  return series?.includes('.') && isReplaced ? createUidMapper(parseUidKey(uidKey))(series) : series;
}

interface NamedInput {
  readonly file: ReceivedInput;
  readonly name: string;
}

async function stripHeaders(
  files: readonly NamedInput[],
  { blobs, headers }: Stripping,
  { keep, release }: Holding,
): Promise<NamedInput[]> {
  const dataFiles: Record<string, string> = Object.create(null);
  for (const { file, name } of files)
    if (file.fileName !== undefined) dataFiles[file.fileName.toLowerCase()] ??= name;
  const stripped: NamedInput[] = [];
  for (const { file, name } of files) {
    const path = await blobs.fetch(file);
    const { sizeBytes } = file;
    const rewrite = await headers.identify({ path, name, sizeBytes, dataFiles });
    if (!rewrite) {
      stripped.push({ file, name });
      continue;
    }
    await using writer = await blobs.create();
    const source = sourceOf(path, name, sizeBytes);
    for await (const chunk of writeStripped(source, rewrite, nodePlatform)) await writer.write(chunk);
    const stored = await writer.commit(keep);
    await release(file.digest);
    stripped.push({ file: { ...file, ...stored, received: file.received ?? file.digest }, name });
  }
  return stripped;
}

/** Uploads were cleaned when they were complete: a second time would give them other UIDs than the files beside them. */
async function cleanSeries(
  files: readonly NamedInput[],
  stripping: Stripping,
  { keep, release }: Holding,
): Promise<NamedInput[]> {
  const { blobs } = stripping;
  const unclean = files.filter(({ file }) => file.received === undefined);
  const outcomes = await clean(
    await Promise.all(
      unclean.map(async ({ file, name }) => ({
        path: await blobs.fetch(file),
        name,
        sizeBytes: file.sizeBytes,
      })),
    ),
    stripping,
    keep,
  );
  const cleaned: NamedInput[] = [];
  for (const one of files) {
    const at = unclean.indexOf(one);
    const stored = outcomes[at];
    if (at < 0) cleaned.push(one);
    else if (stored) cleaned.push({ ...one, file: { ...one.file, ...stored, received: one.file.digest } });
    if (at >= 0) await release(one.file.digest);
  }
  return cleaned;
}

/** What cleaning may add to a file: longer UIDs, and statements of what was done. */
const addedBytes = 2 ** 16;

/** Cleans files into blobs. Of a file that is no part of the volume there is none. */
async function clean(
  files: readonly InspectedFile[],
  { blobs, headers, limits, uidKey }: Stripping,
  keep: KeepBlob,
): Promise<(CleanedFile | undefined)[]> {
  if (files.length === 0) return [];
  const given = files.map((file) => ({ ...file, into: blobs.temporaryPath() }));
  try {
    const receivedBytes = files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    await blobs.requireSpace(receivedBytes);
    const outcomes = await headers.clean(given, uidKey, {
      ...limits,
      maxBytes: limits.maxBytes && Math.max(limits.maxBytes, receivedBytes) + addedBytes * files.length,
      spareBytes: await blobs.spareBytes(),
    });
    for (const [i, stored] of outcomes.entries()) {
      const { into } = given[i];
      if (stored)
        await blobs.adopt(into, { digest: stored.digest, isSynced: true, keep: () => keep(stored) });
    }
    return [...outcomes];
  } finally {
    for (const { into } of given) await rm(into, { force: true });
  }
}

/**
 * Stores a complete file without what may identify a person, before anybody asks for a prediction of it.
 *
 * @returns whether it was stored: otherwise it needs no change
 * @throws TomaatError as cleanFiles(); BAD_INPUT for a DICOM file that is no image
 */
export async function stripUpload(
  { path, name, sizeBytes }: InspectedFile,
  stripping: Stripping,
  keep: KeepBlob,
): Promise<boolean> {
  const { blobs, headers } = stripping;
  const start: Uint8Array[] = [];
  for await (const chunk of readPath(path, 0, Math.min(sizeBytes, startBytes))) start.push(chunk);
  const bytes = new Uint8Array(Buffer.concat(start));
  // Voxels of a pair may be like a DICOM file without the word.
  if (isZip(bytes) || hasDicomWord(bytes) || (isDicom(bytes) && !holdsVoxelsAlone(name))) {
    const [stored] = await clean([{ path, name, sizeBytes }], stripping, keep);
    if (stored) return true;
    throw new TomaatError(
      'BAD_INPUT',
      'The file is a DICOM object, but no image of a volume, and this server stores nothing else. Leave it out',
    );
  }
  const rewrite = await headers.identify({ path, name, sizeBytes, dataFiles: {} });
  if (!rewrite) return false;
  await using writer = await blobs.create();
  const source = sourceOf(path, name, sizeBytes);
  for await (const chunk of writeStripped(source, rewrite, nodePlatform)) await writer.write(chunk);
  await writer.commit(keep);
  return true;
}

/**
 * What is stored of the name of an upload: its ending, under a name that says nothing. The two files of a pair find each
 * other by their names, which therefore stay.
 */
export function hideName(name: string): string {
  const holds = endingOf(name)?.holds ?? 'volume';
  if (holds !== 'volume' || holdsVoxelsAlone(name)) return name;
  return `volume${fileEndingOf(name) || (/\.(?:dcm|dicom|ima|zip)$/i.exec(name)?.[0] ?? '')}`;
}

const sourceOf = (path: string, name: string, sizeBytes: number): TextSource => ({
  name,
  sizeBytes,
  read: (start = 0, end = sizeBytes) => readPath(path, start, end),
});

/** The bytes of a file from `start` to before `end`. */
export async function* readPath(path: string, start: number, end: number): AsyncGenerator<Uint8Array> {
  if (start < end) yield* createReadStream(path, { start, end: end - 1, highWaterMark: 1 << 20 });
}
