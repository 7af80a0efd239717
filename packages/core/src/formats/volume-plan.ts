import { TomaatError } from '../errors.ts';
import { bytesPerVoxel } from '../volume.ts';
import {
  baseName,
  type HeaderBytes,
  type ParsedHeader,
  type ReadLimits,
  type StoredLayout,
} from './header.ts';
import { maxPaddingBytes } from './inflate-members.ts';
import { inflatePrefix, isGzip } from './inflate-prefix.ts';
import { strangerAdvice } from './strangers.ts';
import {
  endingOf,
  formatList,
  formatOf,
  isPackable,
  kindOf,
  resultExtension,
  rowOf,
  type VolumeExtension,
  type VolumeFormat,
  withoutVolumeEnding,
} from './table.ts';
import type { VolumeFormatRow } from './volume-format.ts';

/** The first bytes of a file: the whole file, or at least 64 KiB. */
export interface FilePrefix {
  name: string;
  renamed?: boolean;
  prefix: Uint8Array;
  sizeBytes?: number;
}

/** So many first bytes of a file contain its header, unless it has many fields of text. */
export const prefixBytes = 65536;
/** No byte of deflate decompresses to more than this: a repeated copy of 258 bytes takes two bits. */
const largestRatio = 1032;

/** The plan for reading files: the header, and the file and offset of the voxels. */
export interface Plan extends ParsedHeader<VolumeFormat, VolumeExtension> {
  file: number;
  compression: 'none' | 'gzip' | 'zlib';
  /** First byte of the encoded voxels; undefined if the header is longer than the given bytes. */
  start: number | undefined;
}

/** Determines from the first bytes of its files how to read a volume, and checks everything in them. */
export function planRead(files: readonly FilePrefix[], limits: ReadLimits): Plan {
  if (files.length === 0)
    throw new TomaatError('BAD_INPUT', 'No file was given. Send the file or files of one volume');
  const heads = files.map(headOf);
  // In a pair the header comes first: raw voxels may begin with any bytes.
  const order = files
    .map((_, i) => i)
    .sort((a, b) => Number(isHeaderName(files[b].name)) - Number(isHeaderName(files[a].name)));
  for (const i of order) {
    const format = formatOf(heads[i].bytes);
    if (!format) continue;
    if (heads[i].gzip && !isPackable(format)) {
      throw new TomaatError(
        'UNSUPPORTED_FORMAT',
        `The ${kindOf(files[i])} is compressed with gzip as a whole. Decompress it first`,
      );
    }
    if (format.reads.from === 'many headers') {
      throw new TomaatError(
        'BAD_INPUT',
        `The ${kindOf(files[i])} is a ${format.name} image, and others of the files are not: send one volume`,
      );
    }
    return placeVoxels(format, format.reads.parse(heads[i], limits), i, files);
  }
  throw unknownFormat(files[order[0]], heads[order[0]]);
}

/** Whether a file begins like one of those that make up a volume together. Not so where another of them is the header of a pair. */
export const isOneOfMany = (file: FilePrefix, all: readonly { name: string }[]): boolean =>
  formatOf(headOf(file).bytes)?.reads.from === 'many headers' &&
  !isGzip(file.prefix) &&
  !all.some(({ name }) => isHeaderName(name));

const isHeaderName = (name: string) => endingOf(name)?.holds === 'header';

function headOf({ name, prefix, sizeBytes }: FilePrefix): HeaderBytes {
  const whole = sizeBytes === undefined ? prefix.length < prefixBytes : prefix.length >= sizeBytes;
  const gzip = isGzip(prefix);
  // A NIfTI header takes 540 bytes, and no other format may be inside a gzip member.
  return { name, bytes: gzip ? inflatePrefix(prefix, 4096) : prefix, gzip, whole };
}

function unknownFormat(file: FilePrefix, head: HeaderBytes): TomaatError {
  if (file.prefix.length === 0)
    return new TomaatError('UNKNOWN_FORMAT', `The ${kindOf(file)} is empty. Send it again`);
  const advice = strangerAdvice(head.bytes, head.gzip);
  if (advice) return new TomaatError('UNSUPPORTED_FORMAT', `The ${kindOf(file)} is ${advice}`);
  if (head.gzip && head.bytes.length < 540) {
    return new TomaatError(
      'UNKNOWN_FORMAT',
      `The ${kindOf(file)} is compressed with gzip, but damaged or too short for a volume. Send it again`,
    );
  }
  return new TomaatError(
    'UNKNOWN_FORMAT',
    `The ${kindOf(file)} does not begin like a ${formatList} file. Send a volume in one of these formats`,
  );
}

/** Finds the file with the voxels among the given ones, and checks the lengths. */
function placeVoxels(
  format: VolumeFormatRow,
  parsed: ParsedHeader<VolumeFormat, VolumeExtension>,
  headerFile: number,
  files: readonly FilePrefix[],
): Plan {
  const { layout } = parsed;
  const index = layout.file ? findDataFile(layout.file, headerFile, files) : headerFile;
  const used = new Set([headerFile, index]);
  const unused = files.find((_, i) => !used.has(i));
  if (unused) {
    throw new TomaatError(
      'BAD_INPUT',
      `A ${kindOf(unused)} does not belong to the volume of the ${kindOf(files[headerFile])}. Send it as another input, or not at all`,
    );
  }
  const file = files[index];
  const start = startOfVoxels(layout, file);
  const compression = compressionOf(layout.encoding, file.prefix.subarray(start));
  const header = parsed.header;
  if (layout.encoding === 'sniff') {
    header.compressed = compression !== 'none';
    header.extension = resultExtension(format, header.compressed);
  }
  if (start !== undefined) checkLength(parsed, compression, start, file);
  return { ...parsed, file: index, compression, start };
}

function findDataFile(
  wanted: NonNullable<StoredLayout['file']>,
  headerFile: number,
  files: readonly FilePrefix[],
): number {
  const others = files
    .map((file, i) => ({ i, name: baseName(file.name) }))
    .filter(({ i }) => i !== headerFile);
  if (wanted === 'image') {
    const stem = withoutVolumeEnding(baseName(files[headerFile].name));
    const images = others.filter(({ name }) => endingOf(name)?.holds === 'voxels');
    const found =
      images.find(({ name }) => withoutVolumeEnding(name) === stem) ??
      (images.length === 1 ? images[0] : undefined);
    if (found) return found.i;
    throw new TomaatError(
      'BAD_INPUT',
      `The ${kindOf(files[headerFile])} is the header of a NIfTI pair. Send it together with its .img file`,
    );
  }
  const found =
    others.find(({ name }) => name === wanted.name) ??
    others.find(({ name }) => name.toLowerCase() === wanted.name.toLowerCase());
  if (found) return found.i;
  if (others.length === 1 && files[others[0].i].renamed) return others[0].i;
  throw new TomaatError(
    'BAD_INPUT',
    `The header names a ${kindOf(wanted)} with the voxels, but no file of that name was sent. Send both files together, under their original names`,
  );
}

/** The offset of the encoded voxels, after the lines to skip. */
function startOfVoxels(
  { offset, skipLines, skip, encoding }: StoredLayout,
  { prefix, sizeBytes }: FilePrefix,
): number | undefined {
  if (offset === undefined) return undefined;
  let at = offset;
  for (let line = 0; line < skipLines; line++) {
    const newline = prefix.indexOf(10, at);
    if (newline < 0)
      throw new TomaatError(
        'BAD_HEADER',
        `NRRD field "line skip" is ${skipLines}, but there are fewer lines near the start. Write the file again`,
      );
    at = newline + 1;
  }
  const first = at + (encoding === 'raw' && typeof skip === 'number' ? skip : 0);
  if (sizeBytes !== undefined && first > sizeBytes) {
    throw new TomaatError(
      'BAD_VOXELS',
      `The header says that the voxels begin at byte ${first}, but the file has ${sizeBytes}: it is cut off. Send it again`,
    );
  }
  return at;
}

function compressionOf(encoding: StoredLayout['encoding'], data: Uint8Array): Plan['compression'] {
  if (encoding === 'raw' || encoding === 'text') return 'none';
  if (encoding === 'gzip') return 'gzip';
  if (isGzip(data)) return 'gzip';
  return encoding === 'deflate' ? 'zlib' : 'none';
}

function checkLength(
  { header, layout }: ParsedHeader<VolumeFormat, VolumeExtension>,
  compression: Plan['compression'],
  start: number,
  file: FilePrefix,
): void {
  if (file.sizeBytes === undefined) return;
  const encoded = file.sizeBytes - start;
  const fault = (text: string) => {
    throw new TomaatError('BAD_VOXELS', `The ${kindOf(file)} ${text}`);
  };
  const skip = typeof layout.skip === 'number' ? layout.skip : 0;
  const need = header.storedBytes + skip;
  if (layout.encodedBytes !== undefined && encoded < layout.encodedBytes) {
    fault(
      `holds ${encoded} of the ${layout.encodedBytes} bytes of compressed voxels that its header states: it is cut off. Send it again`,
    );
  }
  if (layout.encoding === 'text') {
    const least = 2 * (header.storedBytes / bytesPerVoxel(header.voxelType)) - 1 + skip;
    if (encoded < least)
      fault(`has ${encoded} bytes of text, too few for its voxels: it is cut off. Send it again`);
  } else if (compression !== 'none') {
    if (encoded * largestRatio < need) {
      fault(
        `has ${encoded} compressed bytes, which cannot decompress to the ${need} that its header states: it is cut off. Send it again`,
      );
    }
  } else if (encoded < need) {
    fault(
      `has ${Math.max(0, encoded - skip)} bytes of voxels, but its header states ${header.storedBytes}: it is cut off. Send it again`,
    );
  } else if (encoded > need + maxPaddingBytes && typeof layout.skip === 'number') {
    throw surplusVoxels(
      `The ${kindOf(file)} has ${encoded - need} bytes after the ${header.storedBytes} bytes of voxels that its header states`,
      header,
    );
  }
}

/** More than padding follows the voxels. The file may still be complete, and the user then has no other one to send. */
export function surplusVoxels(what: string, { format }: { format: VolumeFormat }): TomaatError {
  return new TomaatError(
    'BAD_VOXELS',
    `${what}. If your program shows the whole image, write the file again without them, for instance by ${rowOf(format).rewrite}, and send that; otherwise the header belongs to another file`,
  );
}
