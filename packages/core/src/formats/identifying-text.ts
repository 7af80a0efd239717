import { TomaatError } from '../errors.ts';
import type { Platform } from '../platform.ts';
import { type Found, type IdentifyingField, printable } from './identifying-found.ts';
import { longestHeader } from './identifying-lines.ts';
import { dataFileEndings, endingOf, formatOf, holdsVoxelsAlone, readableEndings } from './table.ts';
import { transformEndings } from './transform-file.ts';
import { hasEnding, type VolumeFormatRow } from './volume-format.ts';
import { isZip } from './zip.ts';

export type { IdentifyingField } from './identifying-found.ts';

/** A file to search. Only the extension of its name is used: it distinguishes a file of voxels from a header. */
export interface TextSource {
  readonly name: string;
  readonly sizeBytes: number;
  /** The bytes from `start` to before `end`, the whole file without them. */
  read(start?: number, end?: number): AsyncIterable<Uint8Array>;
}

export interface IdentifyingText {
  readonly fields: readonly IdentifyingField[];
  /** How to write the file without them; undefined if nothing changes. */
  readonly rewrite?: Rewrite;
}

/** `head`, then the file's bytes from `from` on; with `repack` both refer to the decompressed file, which is compressed with gzip again. */
export interface Rewrite {
  readonly head: Uint8Array<ArrayBuffer>;
  readonly from: number;
  readonly repack: boolean;
}

/**
 * Looks for identifying text in the file of a volume, and in the gzip headers around it. `dataFile` gives the
 * name that the header of a pair shall have for the file of its voxels.
 * @throws TomaatError BAD_HEADER when a header of text does not end within 4 MiB; UNSUPPORTED_FORMAT for DICOM and zip archives.
 */
export async function findIdentifyingText(
  file: TextSource,
  platform: Platform,
  { dataFile = (name: string) => name }: { dataFile?(name: string): string } = {},
): Promise<IdentifyingText> {
  const start = await collect(file.read(0, 70_000), 70_000);
  if (isZip(start)) {
    throw new TomaatError(
      'UNSUPPORTED_FORMAT',
      'What identifies a person cannot be taken out of a zip archive here: send the file of the volume itself, or de-identify the series before it is sent',
    );
  }
  if (!(start[0] === 0x1f && start[1] === 0x8b)) {
    if (holdsVoxelsAlone(file.name)) return { fields: [] };
    const header = await collect(file.read(0, longestHeader), longestHeader);
    const { fields, head, from } = await findInHeader(
      header,
      file,
      header.length >= file.sizeBytes,
      dataFile,
    );
    return { fields, rewrite: head && { head, from, repack: false } };
  }
  const packing = readGzipHeader(start);
  const { bytes, whole } = holdsVoxelsAlone(file.name)
    ? { bytes: new Uint8Array(0), whole: true }
    : await inflateStart(file, platform);
  const found = await findInHeader(bytes, file, whole, dataFile);
  const fields = [...packing.fields, ...found.fields];
  if (found.head) return { fields, rewrite: { head: found.head, from: found.from, repack: true } };
  if (await hasSpeakingMember(file, packing.length)) {
    return {
      fields: [...fields, { name: 'gzip header', value: 'of a later part of the file' }],
      rewrite: { head: new Uint8Array(0), from: 0, repack: true },
    };
  }
  if (packing.fields.length === 0) return { fields };
  // RFC 1952: the ten bytes without flags and time; the compressed data is copied unchanged.
  const head = Uint8Array.of(0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255);
  return { fields, rewrite: { head, from: packing.length, repack: false } };
}

/** The file rewritten as `rewrite` says, as a stream. Its length is known in advance only if it is not recompressed. */
export function writeStripped(
  file: TextSource,
  rewrite: Rewrite,
  platform: Platform,
): AsyncIterable<Uint8Array> {
  if (!rewrite.repack) return joined(rewrite.head, file.read(Math.min(rewrite.from, file.sizeBytes)));
  const unpacked = platform.inflate(wholeOf(file), 'gzip');
  return platform.deflate(joined(rewrite.head, withoutFirst(unpacked, rewrite.from)), 'gzip', 1);
}

/** The bytes of a file, which can be iterated more than once. */
const wholeOf = (file: TextSource): AsyncIterable<Uint8Array> => ({
  [Symbol.asyncIterator]: () => file.read()[Symbol.asyncIterator](),
});

async function* joined(head: Uint8Array, rest: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  if (head.length > 0) yield head;
  yield* rest;
}

async function* withoutFirst(chunks: AsyncIterable<Uint8Array>, count: number): AsyncGenerator<Uint8Array> {
  let left = count;
  for await (const chunk of chunks) {
    if (left < chunk.length) yield left > 0 ? chunk.subarray(left) : chunk;
    left = Math.max(0, left - chunk.length);
  }
}

async function collect(
  chunks: AsyncIterable<Uint8Array>,
  wanted: number,
  more: (bytes: Uint8Array, wanted: number) => number = (_, same) => same,
): Promise<Uint8Array<ArrayBuffer>> {
  let bytes = new Uint8Array(Math.min(wanted, 2 ** 16));
  let length = 0;
  let limit = wanted;
  for await (const chunk of chunks) {
    if (length + chunk.length > bytes.length) {
      const grown = new Uint8Array(Math.max(2 * bytes.length, length + chunk.length));
      grown.set(bytes.subarray(0, length));
      bytes = grown;
    }
    bytes.set(chunk, length);
    length += chunk.length;
    limit = more(bytes.subarray(0, length), limit);
    if (length >= limit) break;
  }
  return bytes.slice(0, Math.min(length, limit));
}

async function findInHeader(
  header: Uint8Array<ArrayBuffer>,
  file: TextSource,
  whole: boolean,
  dataFile: (name: string) => string,
): Promise<Found> {
  const format = formatOf(header);
  if (!format) return { fields: [], from: 0 };
  const { text, name }: VolumeFormatRow = format;
  if (text) return text.find(header, { name: file.name, whole, dataFile });
  throw new TomaatError(
    'UNSUPPORTED_FORMAT',
    `What identifies a person cannot be taken out of a ${name} file here: de-identify the series before it is sent`,
  );
}

// ---- gzip (RFC 1952) ----

/** The member's header: its length and its fields. */
function readGzipHeader(bytes: Uint8Array): { length: number; fields: IdentifyingField[] } {
  const flags = bytes[3];
  const fields: IdentifyingField[] = [];
  const seconds = (bytes[4] | (bytes[5] << 8) | (bytes[6] << 16) | (bytes[7] << 24)) >>> 0;
  let at = 10;
  if (flags & 4) {
    const length = bytes[at] | (bytes[at + 1] << 8);
    fields.push({ name: 'gzip extra field', value: `${length} bytes` });
    at += 2 + length;
  }
  for (const [flag, name] of [
    [8, 'gzip file name'],
    [16, 'gzip comment'],
  ] as const) {
    if (!(flags & flag)) continue;
    const end = bytes.indexOf(0, at);
    if (end < 0) return { length: at, fields };
    fields.push({ name, value: printable(bytes.subarray(at, end)) });
    at = end + 1;
  }
  if (flags & 2) at += 2;
  if (seconds !== 0) fields.push({ name: 'gzip time', value: new Date(seconds * 1000).toISOString() });
  return { length: at, fields };
}

/**
 * Whether a later member of the file has a header with optional fields. Found by its bytes, without decompression: a false
 * match only costs a recompression.
 */
async function hasSpeakingMember(file: TextSource, from: number): Promise<boolean> {
  let carried = new Uint8Array(0);
  for await (const chunk of file.read(from)) {
    const bytes = new Uint8Array(carried.length + chunk.length);
    bytes.set(carried);
    bytes.set(chunk, carried.length);
    for (let at = bytes.indexOf(0x1f); at >= 0 && at + 10 <= bytes.length; at = bytes.indexOf(0x1f, at + 1)) {
      if (bytes[at + 1] !== 0x8b || bytes[at + 2] !== 8 || bytes[at + 3] > 31) continue;
      const isHeader = [0, 2, 4].includes(bytes[at + 8]) && (bytes[at + 9] <= 13 || bytes[at + 9] === 255);
      const speaks = (bytes[at + 3] & 28) !== 0 || bytes.subarray(at + 4, at + 8).some((byte) => byte !== 0);
      if (isHeader && speaks) return true;
    }
    carried = bytes.slice(Math.max(0, bytes.length - 9));
  }
  return false;
}

/** How many bytes of an unpacked file hold its text; undefined where its format is unknown or has no such. */
function textLength(start: Uint8Array): number | undefined {
  const format: VolumeFormatRow | undefined = formatOf(start);
  return format?.text?.length(start);
}

/** The first unpacked bytes, as far as a header goes; what is broken is left for the reader of volumes to explain. */
async function inflateStart(
  file: TextSource,
  platform: Platform,
): Promise<{ bytes: Uint8Array<ArrayBuffer>; whole: boolean }> {
  try {
    let limit = 4096;
    const bytes = await collect(platform.inflate(wholeOf(file), 'gzip'), limit, (start, wanted) => {
      if (start.length >= 4096 && wanted === 4096) limit = textLength(start) ?? limit;
      return limit;
    });
    return { bytes, whole: bytes.length < limit };
  } catch {
    return { bytes: new Uint8Array(0), whole: true };
  }
}

// ---- Names ----

const knownEndings = [...readableEndings, ...dataFileEndings, ...transformEndings];

/** The extension of a file that a service accepts, a part of a volume or a transform; empty for other names. */
export const fileEndingOf = (name: string): string =>
  knownEndings.find((ending) => hasEnding(name, ending)) ?? '';

/** Whether the header of such a file names another file for its voxels. */
const namesItsVoxels = (ending: string): boolean => {
  const found = endingOf(ending);
  return found?.holds === 'header' && typeof found.format.detached === 'object';
};

/**
 * Neutral names for the files of one input: the input's name with each file's extension. A
 * header that names the file of its voxels must be rewritten with the name from here.
 */
export function neutralNames(input: string, names: readonly string[]): string[] {
  const endings = names.map(fileEndingOf);
  const isPair = endings.some(namesItsVoxels);
  const counts = new Map<string, number>();
  return endings.map((ending) => {
    // The header of a pair says how its voxels are compressed; their file's name does not.
    const end = isPair && ending === '' ? '.raw' : ending;
    const count = (counts.get(end) ?? 0) + 1;
    counts.set(end, count);
    return count === 1 ? `${input}${end}` : `${input}-${count}${end}`;
  });
}

/** The name to put into the header of a pair for the file of its voxels if that file is unavailable. */
export const neutralDataName = (input: string, name: string): string =>
  neutralNames(input, [someDetachedHeader, name])[1];

const someDetachedHeader = readableEndings.find(namesItsVoxels)!;
