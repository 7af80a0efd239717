import { TomaatError } from '../errors.ts';
import { type Affine, determinant, spacingOf } from '../geometry/affine.ts';
import type { Bytes } from '../platform.ts';
import {
  bytesPerVoxel,
  type Grid,
  machineIsBigEndian,
  type Size,
  type SuvScale,
  type VoxelType,
} from '../volume.ts';
import type { FileGeometry } from './file-geometry.ts';

/** The content of a volume's header, before any voxel is read. table.ts lists the formats and extensions. */
export interface HeaderOf<Format extends string, Extension extends string> extends Grid {
  format: Format;
  /** The extension of a result in the same format: a pair of files becomes the single file of its format. */
  extension: Extension;
  /** The stored type; with a `scale` the voxels are read as floats. */
  voxelType: VoxelType;
  components: number;
  /** Length of the fourth dimension, 1 if there is none. */
  frames: number;
  /** The grid as stated in the header, in the file's own units; the affine is computed from it. */
  geometry: FileGeometry;
  /** value = slope × stored + intercept, if the file has such a rule. */
  scale?: { slope: number; intercept: number };
  /** Decoded voxel bytes of the whole file: all frames, all components. */
  storedBytes: number;
  compressed: boolean;
  /** Of a DICOM series: how the values of its first frame become SUV. */
  suv?: SuvScale;
}

export interface ReadLimits {
  /** The most values that a file may contain: voxels × components × frames. */
  maxVoxels: number;
}
export const defaultLimits: ReadLimits = { maxVoxels: 2 ** 30 };

/** A non-spatial axis of a stored array. */
export interface ExtraAxis {
  role: 'component' | 'frame';
  count: number;
}

/** An axis of a stored array; spatial ones are in the order x, y, z. */
export interface StoredAxis {
  role: ExtraAxis['role'] | 'space';
  count: number;
}

/** How the voxels are stored in their file. `inner` axes run faster than x, `outer` ones slower than z, fastest first. */
export interface StoredLayout {
  /**
   * The separate file that holds the voxels: its base name, or 'image' for the other half of a NIfTI pair.
   * Absent when they follow the header.
   */
  file?: { name: string } | 'image';
  /** Bytes of the file before the encoded voxels. Undefined if the header does not end in the given bytes. */
  offset: number | undefined;
  /** Lines between that offset and the encoded voxels. */
  skipLines: number;
  /** Decoded bytes before the first voxel; 'all but the voxels' when they are the last bytes. */
  skip: number | 'all but the voxels';
  /** 'sniff': gzip or nothing (NIfTI image), 'deflate': zlib or gzip (MetaImage), detected by the first bytes. */
  encoding: 'raw' | 'gzip' | 'deflate' | 'sniff' | 'text';
  /** Minimum length of the encoded voxels, as the header states. */
  encodedBytes?: number;
  bigEndian: boolean;
  inner: readonly ExtraAxis[];
  outer: readonly ExtraAxis[];
  /** All axes, fastest first, if a non-spatial one is between spatial ones; `inner` and `outer` then have no meaning. */
  order?: readonly StoredAxis[];
}

export interface ParsedHeader<Format extends string = string, Extension extends string = string> {
  header: HeaderOf<Format, Extension>;
  layout: StoredLayout;
}

/** The first bytes of a file, as a format's parser gets them. */
export interface HeaderBytes {
  name: string;
  /** Decompressed if the whole file is a gzip member. */
  bytes: Uint8Array;
  gzip: boolean;
  /** Whether `bytes` are the whole file. */
  whole: boolean;
}

export const badHeader = (message: string): TomaatError => new TomaatError('BAD_HEADER', message);

/**
 * The sizes as numbers, each at least 1, their product within the limit. Counted in BigInt, so that no
 * product wraps or is rounded into the permitted range.
 */
export function checkSizes(
  sizes: readonly (number | bigint)[],
  field: (i: number) => string,
  limits: ReadLimits,
): number[] {
  let product = 1n;
  sizes.forEach((value, i) => {
    if (typeof value === 'number' && !Number.isSafeInteger(value)) {
      throw badHeader(`${field(i)} is ${value}, not a whole number. Write the file again with its true size`);
    }
    if (value < 1) {
      throw badHeader(
        `${field(i)} is ${value}, but a size is at least 1. Write the file again with its true size`,
      );
    }
    product *= BigInt(value);
  });
  if (product > BigInt(limits.maxVoxels)) {
    const named = sizes.map((value, i) => `${field(i)} = ${value}`).join(', ');
    throw new TomaatError(
      'TOO_MANY_VOXELS',
      `The header asks for ${product} values (${named}), more than the ${limits.maxVoxels} allowed. Crop or resample the volume`,
    );
  }
  return sizes.map(Number);
}

/**
 * Why an affine cannot be that of an image: not finite, of an impossible size (1 km between voxels, 1000 km away), or not
 * invertible; undefined if it can. `field` names the part of the header in the message.
 */
export function affineFault(affine: Affine, field: string): string | undefined {
  if (!affine.every(Number.isFinite)) {
    return `${field} holds a number that is not finite. Write the file again with a valid orientation`;
  }
  const spacing = spacingOf(affine);
  const far = Math.max(Math.abs(affine[3]), Math.abs(affine[7]), Math.abs(affine[11]));
  if (Math.max(...spacing) > 1e6 || far > 1e9) {
    return (
      `${field} puts voxels ${spacing.join(' × ')} mm apart, the first one up to ${far} mm away, which is impossible for an image of a body. ` +
      'Write the file again with its true spacing and unit'
    );
  }
  const volume = spacing[0] * spacing[1] * spacing[2];
  const det = determinant(affine);
  if (!Number.isFinite(volume) || !Number.isFinite(det) || Math.abs(det) <= 1e-6 * volume || det === 0) {
    return (
      `${field} cannot be inverted (spacing ${spacing.join(' × ')} mm, determinant ${det}). ` +
      'Write the file again with a valid spacing and orientation'
    );
  }
  return undefined;
}

/** The affine without -0. Throws BAD_HEADER if it cannot be that of an image (see affineFault). */
export function checkAffine(affine: Affine, field: string): Affine {
  const fault = affineFault(affine, field);
  if (fault !== undefined) throw badHeader(fault);
  return affine.map((v) => v + 0);
}

/** The affine with its lengths multiplied. */
export function scaleAffine(affine: Affine, factor: number): Affine {
  return factor === 1 ? affine : affine.map((v, i) => (i < 12 ? v * factor : v));
}

/** Decoded bytes of all voxels; the sizes have been checked against the limit, so the product is exact. */
export function storedBytesOf(size: Size, components: number, frames: number, type: VoxelType): number {
  return size[0] * size[1] * size[2] * components * frames * bytesPerVoxel(type);
}

export { machineIsBigEndian };

/**
 * Our own text for a header as one line of printable ASCII: nothing in it can end a line or a field. Not for names, because
 * it drops every letter that is not English.
 */
export function plainLine(text: string, maxLength: number): string {
  return text
    .normalize('NFKD')
    .replace(/[^\x20-\x7e]+/g, ' ')
    .trim()
    .slice(0, maxLength);
}

/** The same bytes; those in shared memory are copied, because Blob and Response do not accept it. */
export function ownedBytes(bytes: Uint8Array): Bytes {
  return bytes.buffer instanceof ArrayBuffer ? (bytes as Bytes) : new Uint8Array(bytes);
}

/** A value of a header for an error: numbers unchanged, words hidden, because they may contain anything. */
export const shownValue = (text: string): string =>
  /^[\d\s.,+\-()e]*$/i.test(text) ? `"${text.slice(0, 60)}"` : 'a word that is not shown here';

/** Bytes as text, one character a byte: headers are ASCII, and anything else in them is only skipped. */
export function latin1(bytes: Uint8Array): string {
  let text = '';
  for (let i = 0; i < bytes.length; i += 8192) {
    // A spread would use an iterator, which takes six times as long.
    text += String.fromCharCode.apply(null, bytes.subarray(i, i + 8192) as unknown as number[]);
  }
  return text;
}

/** The longest text that is read as one number: a float64 takes 25 characters, so 64 are enough. */
export const longestNumber = 64;

/** A decimal number of at most 64 characters, or NaN: unlike Number(), it accepts neither '' nor hexadecimals. */
export function parseDecimal(text: string): number {
  if (text.length > longestNumber) return Number.NaN;
  return /^[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?$/i.test(text) ? Number(text) : Number.NaN;
}

export const baseName = (path: string): string =>
  path.slice(Math.max(path.lastIndexOf('/'), path.lastIndexOf('\\')) + 1);
