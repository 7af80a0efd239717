import type { Entry, FileEntry } from '@zip.js/zip.js/lib/zip-core-reader.js';
import { type ErrorCode, TomaatError } from '../errors.ts';
import type { Platform } from '../platform.ts';
import { badHeader, baseName, defaultLimits, type ReadLimits } from './header.ts';
import { crc32 } from './inflate-members.ts';
import type { SourceFile } from './source-file.ts';
import { dataFileEndings, kindOf, readableEndings } from './table.ts';
import { hasEnding } from './volume-format.ts';
import { createZipSource, type ZipSource } from './zip-source.ts';

/*
 * A zip archive as the files in it (PKWARE APPNOTE 6.3.10). The directory at its end is read by a library; what is decided here
 * is what an archive of strangers may ask for. Nothing is unpacked before a file in it is read, and names are never paths.
 */

/** More entries than any series of images has. */
export const maxZipEntries = 20_000;
/** Bytes of the directory: 20,000 entries with names and extra fields of 800 bytes each. */
const maxDirectoryBytes = 16 * 2 ** 20;
/** No byte of deflate unpacks to more: a repeated copy of 258 bytes takes two bits. */
const largestRatio = 1032;
/** Images compress 2:1 to 10:1, masks up to 200:1. An archive below `smallTotalBytes` may be as empty as it likes. */
const largestTotalRatio = 250;
const smallTotalBytes = 2 ** 30;
/** Of a voxel's largest type. */
const bytesPerValue = 8;
/** For headers, and for small files that lie beside the images. */
const headroomBytes = 64 * 2 ** 20;
/** Signature, versions, lengths: a local header without its name. */
const localHeaderBytes = 30;

/** Whether the first bytes of a file are those of a zip archive, an empty one included. */
export function isZip(bytes: Uint8Array): boolean {
  const [p, k, a, b] = bytes;
  return p === 0x50 && k === 0x4b && ((a === 3 && b === 4) || (a === 5 && b === 6) || (a === 7 && b === 8));
}

/**
 * The files of a zip archive, in the order of its directory. Each is unpacked while it is read, from its beginning, and its CRC-32
 * and its length are checked at the end; to read less costs no more than what is read. What systems add by themselves (__MACOSX,
 * .DS_Store, Thumbs.db, desktop.ini) is left out, as are folders. The files of an archive that was renamed are renamed, too.
 *
 * All files together may have as many bytes as the largest volume that `limits` allows takes in memory, and 64 MiB of headers.
 *
 * @throws TomaatError BAD_HEADER (damaged, entries that overlap, sizes that cannot be), UNSUPPORTED_FORMAT (encrypted, split, an
 *   archive or a link in it, compressed in another way than by deflate), BAD_INPUT (too many files, or none), UPLOAD_TOO_LARGE
 *   (unpacks to too much); of a file while it is read, BAD_VOXELS
 */
export async function openZip(
  file: SourceFile,
  platform: Platform,
  limits: ReadLimits = defaultLimits,
): Promise<SourceFile[]> {
  const { ZipReader } = await import('@zip.js/zip.js/lib/zip-core-reader.js');
  const source = await createZipSource(file, maxDirectoryBytes);
  // Names are not used as paths, so that none is unsafe; whatever else is ambiguous is refused.
  const reader = new ZipReader(source, { useWebWorkers: false, filenameValidation: 'tolerant' });
  const entries: FileEntry[] = [];
  const directory = await readDirectory(reader.getEntriesGenerator(), source);
  for (const entry of directory) {
    if (entry.directory || isAddedBySystem(entry.filename)) continue;
    checkEntry(entry, entries.length);
    entries.push(entry);
  }
  if (entries.length === 0) {
    throw new TomaatError(
      'BAD_INPUT',
      `The ${kindOf(file)} holds no files. Send one with the files of a volume`,
    );
  }
  checkOverlap(entries, source.size);
  checkTotal(entries, source.size, limits);
  return entries.map((entry, index) => {
    const given = lastPart(entry.filename);
    return {
      name: file.renamed ? `file-${index + 1}${fileEnding(given)}` : given,
      renamed: file.renamed,
      sizeBytes: entry.uncompressedSize,
      open: (start, room) => readEntry({ entry, index, source, platform }, start, room),
    };
  });
}

async function readDirectory(found: AsyncIterable<Entry>, source: ZipSource): Promise<Entry[]> {
  const entries: Entry[] = [];
  try {
    for await (const entry of found) {
      entries.push(entry);
      if (entries.length <= maxZipEntries) continue;
      throw new TomaatError(
        'BAD_INPUT',
        `The zip archive has more than ${maxZipEntries} entries. Send the files of one series`,
      );
    }
    return entries;
  } catch (error) {
    throw translate(error, source, 'BAD_HEADER', 'The directory of the zip archive');
  }
}

/** The part of an entry's name behind its folders, of either system. */
const lastPart = (filename: string): string => baseName(filename).trim() || 'file';

/** The ending by which a file of a volume is known; empty for other names. */
const fileEnding = (name: string): string =>
  [...readableEndings, ...dataFileEndings].find((ending) => hasEnding(name, ending)) ?? '';

function isAddedBySystem(filename: string): boolean {
  const parts = filename.split(/[/\\]/);
  const name = parts[parts.length - 1];
  return (
    parts.includes('__MACOSX') ||
    name.startsWith('._') ||
    /^(?:\.DS_Store|Thumbs\.db|desktop\.ini)$/i.test(name)
  );
}

/** Type bits of a Unix mode: 0 where the archive does not say, 0x8 for a plain file. */
const fileType = (entry: Entry) => ((entry.unixMode ?? entry.externalFileAttributes >>> 16) >> 12) & 0xf;
const isOfUnix = (entry: Entry) => entry.versionMadeBy >> 8 === 3;

const deflate = 8;
const stored = 0;

function checkEntry(entry: FileEntry, index: number): void {
  const refuse = (what: string) => {
    throw new TomaatError('UNSUPPORTED_FORMAT', `${nameOf(index)} ${what}`);
  };
  if (entry.encrypted) refuse('is encrypted. Pack the files again without a password');
  const type = isOfUnix(entry) ? fileType(entry) : 0;
  if (type !== 0 && type !== 8) refuse('is a link or a device, not a file. Pack the files themselves');
  if (/\.zip$/i.test(lastPart(entry.filename)))
    refuse('is an archive itself. Pack the files in it, not the archive');
  const { compressionMethod, compressedSize, uncompressedSize } = entry;
  if (compressionMethod !== stored && compressionMethod !== deflate) {
    refuse(
      `is compressed by method ${compressionMethod}. Pack the files again with the usual method, deflate, or without compression`,
    );
  }
  const most = compressionMethod === stored ? compressedSize : compressedSize * largestRatio;
  if (uncompressedSize > most || (compressionMethod === stored && uncompressedSize !== compressedSize)) {
    throw badHeader(
      `${nameOf(index)} cannot have ${uncompressedSize} bytes in ${compressedSize} compressed ones: the archive is damaged. Pack the files again`,
    );
  }
}

function checkTotal(entries: readonly FileEntry[], zipBytes: number, { maxVoxels }: ReadLimits): void {
  const total = entries.reduce((sum, { uncompressedSize }) => sum + uncompressedSize, 0);
  const mostBytes = maxVoxels * bytesPerValue + headroomBytes;
  if (total > mostBytes) {
    throw new TomaatError(
      'UPLOAD_TOO_LARGE',
      `The zip archive unpacks to ${total} bytes, more than the ${mostBytes} that are accepted. Send the files of one series`,
      { detail: { maxUnpackedBytes: mostBytes } },
    );
  }
  if (total > smallTotalBytes && total > zipBytes * largestTotalRatio) {
    throw new TomaatError(
      'UPLOAD_TOO_LARGE',
      `The zip archive unpacks to ${Math.round(total / zipBytes)} times its length, which files of images do not. Send the files without packing them`,
    );
  }
}

/** Refuses entries that share bytes, or reach beyond the archive: a small one made so unpacks to terabytes. */
function checkOverlap(entries: readonly FileEntry[], zipBytes: number): void {
  const sorted = entries
    .map((entry, index) => ({ entry, index }))
    .sort((a, b) => a.entry.offset - b.entry.offset);
  for (const [i, { entry, index }] of sorted.entries()) {
    const { offset, compressedSize, rawFilename } = entry;
    const end = offset + localHeaderBytes + rawFilename.length + compressedSize;
    const next = sorted[i + 1];
    if (next && end > next.entry.offset) {
      throw badHeader(
        `${nameOf(next.index)} lies within another of its files: the archive is damaged. Pack the files again`,
      );
    }
    if (end > zipBytes) {
      throw badHeader(
        `${nameOf(index)} ends behind the archive: it is cut off or damaged. Send it again, or pack the files again`,
      );
    }
  }
}

/** What a file is called in messages: by its place among the files, for its name may tell whose scan it is. */
const nameOf = (index: number) => `File ${index + 1} of the zip archive`;

interface Place {
  readonly entry: FileEntry;
  readonly index: number;
  readonly source: ZipSource;
  readonly platform: Platform;
}

/** First byte of an entry's data. Its own header is compared with the directory, and its place with those of others. */
async function findData({ entry, index, source }: Place): Promise<number> {
  try {
    await entry.getData(new WritableStream(), { checkOverlappingEntryOnly: true });
    return entry.localDirectory!.dataOffset;
  } catch (error) {
    throw translate(error, source, 'BAD_HEADER', nameOf(index));
  }
}

async function* readEntry(
  place: Place,
  start = 0,
  room?: Uint8Array<ArrayBuffer>,
): AsyncGenerator<Uint8Array> {
  const { entry, index, source } = place;
  try {
    const from = await findData(place);
    if (entry.compressionMethod === stored) yield* readStored(place, from, start, room);
    else yield* readDeflated(place, from, start);
  } catch (error) {
    throw translate(error, source, 'BAD_VOXELS', nameOf(index));
  }
}

/** Only what is read from its first byte on is compared with its checksum. */
async function* readStored(
  { entry, source }: Place,
  from: number,
  start: number,
  room?: Uint8Array<ArrayBuffer>,
): AsyncGenerator<Uint8Array> {
  let sum = 0;
  for await (const chunk of source.read(from + start, entry.compressedSize - start, room)) {
    if (start === 0) sum = crc32(chunk, sum);
    yield chunk;
  }
  if (start === 0 && sum !== crcOf(entry)) throw new Error('incorrect data check');
}

/**
 * The deflate stream of an entry is given to the platform as a gzip member (RFC 1952): so checksum and length are checked where
 * it is unpacked.
 */
async function* readDeflated(
  { entry, source, platform }: Place,
  from: number,
  start: number,
): AsyncGenerator<Uint8Array> {
  const { compressedSize, uncompressedSize } = entry;
  const trailer = new DataView(new ArrayBuffer(8));
  trailer.setUint32(0, crcOf(entry), true);
  trailer.setUint32(4, uncompressedSize % 2 ** 32, true);
  const member: AsyncIterable<Uint8Array> = {
    async *[Symbol.asyncIterator]() {
      yield gzipHeader;
      yield* source.read(from, compressedSize);
      yield new Uint8Array(trailer.buffer);
    },
  };
  let seen = 0;
  for await (const chunk of platform.inflate(member, 'gzip')) {
    const skip = Math.max(0, start - seen);
    seen += chunk.length;
    if (seen > uncompressedSize) throw new Error(`more than the ${uncompressedSize} bytes that it states`);
    if (skip < chunk.length) yield skip > 0 ? chunk.subarray(skip) : chunk;
  }
}

const crcOf = (entry: FileEntry) => (entry.crc32 ?? 0) >>> 0;
/** Deflate, no flags, no time, unknown system. */
const gzipHeader = Uint8Array.of(0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255);

/** What the library says of a fault in words of ours; what the file itself failed with stays as it is. */
function translate(error: unknown, source: ZipSource, code: ErrorCode, what: string): unknown {
  if (source.fault) return source.fault.error;
  if (error instanceof TomaatError) return error;
  const reason = error instanceof Error ? error.message : String(error);
  if (/split/i.test(reason)) {
    return new TomaatError(
      'UNSUPPORTED_FORMAT',
      'The file is one part of a zip archive that was split. Join the parts, or pack the files again as one archive',
      { cause: error },
    );
  }
  if (/encrypted/i.test(reason)) {
    return new TomaatError(
      'UNSUPPORTED_FORMAT',
      'The zip archive is encrypted. Pack the files again without a password',
      { cause: error },
    );
  }
  return new TomaatError(
    code,
    `${what} is damaged or cut off (${reason}). Pack the files again, and send the new archive`,
    { cause: error },
  );
}
