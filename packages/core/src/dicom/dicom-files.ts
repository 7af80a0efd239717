import { TomaatError } from '../errors.ts';
import { badHeader, baseName } from '../formats/header.ts';
import type { SourceFile } from '../formats/source-file.ts';
import { joinBytes } from '../formats/voxel-pieces.ts';
import type { Platform } from '../platform.ts';
import type { Dataset, DicomElement, DicomFile } from './dataset.ts';
import { deflatedFrom, dicomPrefixBytes, isDicom, parseDicom } from './parse.ts';
import { isPixelData, type Tag } from './tags.ts';

/** The header of a DICOM file: everything before its pixel data. */
export interface DicomHeader {
  readonly kind: 'dicom';
  readonly file: SourceFile;
  /** The last part of the file's name. */
  readonly name: string;
  /** Its data set ends before the pixel data. */
  readonly dicom: DicomFile;
  /** The element that contains the pixels; undefined if the object has none. */
  readonly pixels?: PixelElement;
  /** The bytes that `dicom` is a view of. */
  readonly bytes: Uint8Array;
}

export interface PixelElement {
  readonly tag: Tag;
  /** Length of the value in bytes; undefined if the pixels are encapsulated. */
  readonly statedBytes: number | undefined;
}

/** A file that is not DICOM, or is damaged. */
export interface UnreadFile {
  readonly kind: 'unread';
  readonly name: string;
  readonly fault: TomaatError;
}

const undefinedLength = 0xffffffff;

/**
 * A header is searched for in the first of these numbers of bytes, then in the next. The longest header of an
 * enhanced object seen so far takes 1 MiB.
 */
const headerSteps = [dicomPrefixBytes, 2 ** 20, 2 ** 24] as const;
const longestHeader = headerSteps[2];

/**
 * The header of a file. No more of the file is read than necessary, at most 16 MiB. A file that is not DICOM, or is
 * damaged, is reported.
 *
 * @throws the source's own error, or the signal's reason
 */
export async function readDicomHeader(
  file: SourceFile,
  platform: Pick<Platform, 'inflate'>,
  signal?: AbortSignal,
): Promise<DicomHeader | UnreadFile> {
  const name = baseName(file.name);
  try {
    for await (const { bytes, fileBytes } of beginnings(file, signal)) {
      if (!isDicom(bytes)) {
        throw new TomaatError('UNKNOWN_FORMAT', 'The file is not a DICOM file: leave it out');
      }
      const header = await parseBeginning(bytes, fileBytes, file, platform);
      if (header) return { kind: 'dicom', file, name, ...header };
    }
    throw badHeader(
      `The header does not end within ${longestHeader} bytes: export the series again without private data`,
    );
  } catch (fault) {
    if (!(fault instanceof TomaatError)) throw fault;
    return { kind: 'unread', name, fault };
  }
}

interface Beginning {
  readonly bytes: Uint8Array;
  /** Length of the whole file; larger than the number of bytes if only its beginning is given. */
  readonly fileBytes: number;
}

/** The first bytes of a file, more of them each time, from a single pass over it. */
async function* beginnings(file: SourceFile, signal: AbortSignal | undefined): AsyncGenerator<Beginning> {
  const parts: Uint8Array[] = [];
  let total = 0;
  let step = 0;
  const beginning = (isEnd: boolean) => {
    const bytes = parts.length === 1 ? plain(parts[0]) : joinBytes(parts);
    parts.splice(0, parts.length, bytes);
    return { bytes, fileBytes: Math.max(total + (isEnd ? 0 : 1), file.sizeBytes ?? 0) };
  };
  for await (const chunk of file.open()) {
    signal?.throwIfAborted();
    parts.push(chunk);
    total += chunk.length;
    if (total === file.sizeBytes) return void (yield beginning(true));
    if (total < headerSteps[step]) continue;
    while (total >= headerSteps[step]) step++;
    yield beginning(false);
    if (step === headerSteps.length) return;
  }
  yield beginning(true);
}

/** As a plain Uint8Array: slice() of Node's Buffer is a view, while that of every other array is a copy. */
const plain = (bytes: Uint8Array) => new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);

type ParsedHeader = Pick<DicomHeader, 'dicom' | 'pixels' | 'bytes'>;

async function parseBeginning(
  bytes: Uint8Array,
  fileBytes: number,
  file: SourceFile,
  platform: Pick<Platform, 'inflate'>,
): Promise<ParsedHeader | undefined> {
  const from = deflatedFrom(bytes);
  if (from === undefined) {
    const dicom = parseDicom(bytes, { fileBytes });
    return dicom && withoutPixels(dicom, bytes);
  }
  const inflated = await inflateTail(file, from, longestHeader, platform);
  const dicom = parseDicom(bytes, { inflated: inflated.bytes, fileBytes: inflated.fileBytes });
  if (!dicom) {
    throw badHeader(
      `The header does not end within ${longestHeader} bytes: export the series again without private data`,
    );
  }
  return withoutPixels(dicom, inflated.bytes);
}

/** The deflated data set of a file, inflated up to a number of bytes. */
async function inflateTail(
  file: SourceFile,
  from: number,
  maxBytes: number,
  platform: Pick<Platform, 'inflate'>,
): Promise<Beginning> {
  const parts: Uint8Array[] = [];
  let total = 0;
  let isEnd = true;
  try {
    for await (const chunk of platform.inflate(
      { [Symbol.asyncIterator]: () => file.open(from)[Symbol.asyncIterator]() },
      'deflate-raw',
    )) {
      parts.push(chunk);
      total += chunk.length;
      if (total > maxBytes) {
        isEnd = false;
        break;
      }
    }
  } catch (cause) {
    throw new TomaatError('BAD_VOXELS', 'The deflated data set is damaged or cut off: send the file again', {
      cause,
    });
  }
  return { bytes: joinBytes(parts), fileBytes: total + (isEnd ? 0 : 1) };
}

/** The header alone, copied if the pixels would keep much more memory alive. */
function withoutPixels(dicom: DicomFile, bytes: Uint8Array): ParsedHeader {
  const element = [...dicom.dataset.values()].find(({ tag }) => isPixelData(tag));
  if (!element) return { dicom, bytes };
  const pixels: PixelElement = {
    tag: element.tag,
    // If only the beginning of a file is given, fragments are a value of undefined length.
    statedBytes:
      element.kind === 'value' && element.statedBytes !== undefinedLength ? element.statedBytes : undefined,
  };
  const first =
    element.kind === 'value' ? element.bytes : element.kind === 'fragments' && element.fragments[0];
  const end = first ? first.byteOffset - bytes.byteOffset : bytes.length;
  const own = bytes.slice(0, end);
  const dataset = moved(dicom.dataset, bytes, own, element.tag);
  const meta = moved(dicom.meta, bytes, own, element.tag);
  return { dicom: { ...dicom, dataset, meta }, pixels, bytes: own };
}

/**
 * The elements before `end` as views of a copy of the bytes. Those whose bytes are not in the copy are left
 * unchanged.
 */
function moved(dataset: Dataset, from: Uint8Array, to: Uint8Array, end: Tag): Dataset {
  const view = (bytes: Uint8Array) => {
    if (bytes.buffer !== from.buffer) return bytes;
    const at = bytes.byteOffset - from.byteOffset;
    return to.subarray(at, at + bytes.length);
  };
  const move = (element: DicomElement): DicomElement => {
    switch (element.kind) {
      case 'value':
        return { ...element, bytes: view(element.bytes) };
      case 'sequence':
        return {
          ...element,
          items: element.items.map((item) => moved(item, from, to, Number.POSITIVE_INFINITY)),
        };
      case 'fragments':
        return { ...element, fragments: element.fragments.map(view) };
    }
  };
  return new Map(
    [...dataset].flatMap(([tag, element]) => (tag < end ? [[tag, move(element)] as const] : [])),
  );
}

/** Memory that is used again: what is in it is lost with the next use. It grows to the largest one. */
export interface Space {
  bytes: Uint8Array<ArrayBuffer>;
}

export const createSpace = (): Space => ({ bytes: new Uint8Array(0) });

/** The first `length` bytes of the space. */
export function roomIn(space: Space, length: number): Uint8Array<ArrayBuffer> {
  if (length > space.bytes.length) space.bytes = new Uint8Array(length);
  return space.bytes.subarray(0, length);
}

/** Allowance in bytes for everything around the pixels of a file: private data, icons, padding. */
const slackBytes = 2 ** 24;

/**
 * Maximum size in bytes of a file with these pixels, after inflating. No lossless code doubles the size of an image,
 * unless it is tiny.
 */
export const maxBytesWith = ({ bytes }: DicomHeader, pixelBytes: number): number =>
  bytes.length + Math.ceil(2 * pixelBytes) + slackBytes;

/**
 * A whole file with its pixels.
 *
 * @param maxBytes maximum size of the file in bytes, after inflating
 * @param space where the file is read to: the result is valid until the next file is read to it
 * @throws TomaatError BAD_VOXELS if the file is longer, or its pixels are truncated; BAD_HEADER as parseDicom()
 */
export async function readDicomFile(
  { file }: DicomHeader,
  platform: Pick<Platform, 'inflate'>,
  maxBytes: number,
  signal?: AbortSignal,
  space = createSpace(),
): Promise<DicomFile> {
  const bytes = await readWhole(file, maxBytes, signal, space);
  const from = deflatedFrom(bytes);
  if (from === undefined) return parseDicom(bytes)!;
  const inflated = await inflateTail(file, from, maxBytes, platform);
  if (inflated.fileBytes > inflated.bytes.length) throw tooLong(maxBytes);
  return parseDicom(bytes, { inflated: inflated.bytes })!;
}

async function readWhole(
  file: SourceFile,
  maxBytes: number,
  signal: AbortSignal | undefined,
  space: Space,
): Promise<Uint8Array> {
  const room = roomIn(space, Math.min(file.sizeBytes ?? 0, maxBytes));
  let total = 0;
  // A file that comes as one chunk is not copied. It is read to its end all the same, where a checksum may be compared.
  let first: Uint8Array | undefined;
  for await (const chunk of file.open(0, room)) {
    signal?.throwIfAborted();
    if (total + chunk.length > maxBytes) throw tooLong(maxBytes);
    if (total === 0) first = chunk;
    else {
      if (first) append(space, 0, first);
      first = undefined;
      append(space, total, chunk);
    }
    total += chunk.length;
  }
  return first ? plain(first) : space.bytes.subarray(0, total);
}

/** Copies a chunk behind the `used` bytes before it, unless it is there already. */
function append(space: Space, used: number, chunk: Uint8Array): void {
  const { bytes } = space;
  if (chunk.buffer === bytes.buffer && chunk.byteOffset === used) return;
  if (used + chunk.length > bytes.length) {
    space.bytes = new Uint8Array(Math.max(used + chunk.length, 2 * used));
    space.bytes.set(bytes.subarray(0, used));
  }
  space.bytes.set(chunk, used);
}

const tooLong = (maxBytes: number) =>
  new TomaatError(
    'BAD_VOXELS',
    `The file is longer than ${maxBytes} bytes, more than its images can take: export it again from the system that made it`,
  );
