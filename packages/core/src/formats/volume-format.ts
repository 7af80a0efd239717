import type { Bytes, Platform } from '../platform.ts';
import type { Volume } from '../volume.ts';
import type { FileGeometry } from './file-geometry.ts';
import type { HeaderBytes, ParsedHeader, ReadLimits } from './header.ts';
import type { Found } from './identifying-found.ts';

/** A row of the table of volume formats (table.ts). */
export interface VolumeFormatRow {
  /** Its usual name. */
  readonly name: string;
  /** Each value that `VolumeHeader.format` has for its files, with its usual name. */
  readonly versions: Readonly<Record<string, string>>;
  /** Optional: a file is recognised by its bytes alone. With a leading dot, lower case; none may be the end of another. */
  readonly endings: readonly FileEnding[];
  /** How a separate header (`holds: 'header'`) is combined with its voxels. */
  readonly detached?: 'same stem' | DataFileField;
  /** The basis of `matches`. Formats with a magic number are tried first, those with words of text last. */
  readonly clue: Clue;
  /** Whether the first bytes of a file, decompressed, begin like a header of this format; the rest may be wrong. */
  matches(bytes: Uint8Array): boolean;
  /** Whether the first 256 bytes (less of a shorter file) begin like this format, and no base64 text can begin like that. */
  unlikeBase64(bytes: Uint8Array): boolean;
  readonly reads: OneHeader | ManyHeaders;
  /** Missing: what identifies a person is found and taken out in another way. */
  readonly text?: HeaderText;
  /** The bytes of a file, in pieces. Missing: the format is read alone. Where it is there, every ending of a whole volume is written. */
  write?(volume: Volume, platform: Platform, options: WriterOptions): AsyncIterable<Bytes>;
  /** A line of Python that reads a file and writes it again, for a message. */
  readonly rewrite: string;
}

export type FileEnding = {
  readonly ending: `.${string}`;
} & (
  | {
      /** A header and its voxels in one file. One that ends in .gz is compressed as a whole. */
      readonly holds: 'volume';
      readonly mediaType: `application/${string}`;
    }
  | { readonly holds: 'header' | 'voxels' }
);

/** A header that names the file of its voxels, which may have any name. */
export interface DataFileField {
  /** The name of the field. */
  readonly field: string;
  /** The beginning of its line in the header. */
  readonly line: RegExp;
  /** The usual extensions of such files, uncompressed. */
  readonly endings: readonly `.${string}`[];
}

export const clues = ['magic', 'numbers', 'words'] as const;
export type Clue = (typeof clues)[number];

/** One header says all of a volume, whose voxels are in one file. */
export interface OneHeader {
  readonly from: 'one header';
  /** @throws TomaatError BAD_HEADER, UNSUPPORTED_FORMAT, TOO_MANY_VOXELS */
  parse(file: HeaderBytes, limits: ReadLimits): ParsedHeader;
}

/** Each file has a header of its own, and one or more slices: they are sorted into series, of which one is the volume (dicom/read-dicom.ts). */
export interface ManyHeaders {
  readonly from: 'many headers';
}

/** Where a header may say whose scan it is. */
export interface HeaderText {
  /** How many bytes of a decompressed file contain all its text, from its first 4096. */
  length(start: Uint8Array): number;
  find(header: Uint8Array<ArrayBuffer>, file: HeaderFile): Found | Promise<Found>;
}

export interface HeaderFile {
  readonly name: string;
  /** Whether the given bytes are the whole file. */
  readonly whole: boolean;
  /** The new name in the header for the file of its voxels. */
  dataFile(name: string): string;
}

export interface WriteOptions {
  /**
   * The geometry from the header of the input (VolumeHeader.geometry): the file repeats it if it is of the same format
   * and the volume is on that grid. Otherwise it states the affine in mm.
   */
  geometry?: FileGeometry;
  /**
   * Whether NRRD names the unit of its space, which is mm (default). OHIF's reader fails on files that do; without the line, readers
   * take mm.
   */
  namesUnits?: boolean;
  /** One line for the header; anything but printable ASCII becomes a space. */
  description?: string;
  /** 'label': the header says that the voxels are labels, if the format has a word for it. */
  intent?: 'label';
  /** Names and "#rrggbb" colours of the labels; only NRRD can store them. */
  labels?: readonly { value: number; name: string; color?: string }[];
  /** Compression from 1 (default; the fastest) to 9; 0 stores MetaImage and NRRD raw. `nii` is never compressed. */
  level?: number;
}

export interface WriterOptions extends WriteOptions {
  level: number;
  /** Whether the file's extension says that it is compressed with gzip as a whole. */
  packed: boolean;
}

/** Whether a name has this extension, in upper or lower case. */
export const hasEnding = (name: string, ending: string): boolean =>
  name.slice(-ending.length).toLowerCase() === ending;
