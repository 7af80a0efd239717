import type { Bytes, Platform } from '../platform.ts';
import type { Volume } from '../volume.ts';
import type { FileGeometry } from './file-geometry.ts';
import type { HeaderBytes, ParsedHeader, ReadLimits } from './header.ts';
import type { Found } from './identifying-found.ts';

/** What a row of the table of volume formats (table.ts) says of a format. */
export interface VolumeFormatRow {
  /** What people call it. */
  readonly name: string;
  /** Each value that `VolumeHeader.format` has for its files, and what people call that. */
  readonly versions: Readonly<Record<string, string>>;
  /** None is needed: a file is recognised by its bytes alone. With a leading dot, lower case; none is the end of another. */
  readonly endings: readonly FileEnding[];
  /** How a header in a file of its own (`holds: 'header'`) is brought together with its voxels. */
  readonly detached?: 'same stem' | DataFileField;
  /** What `matches` goes by. Formats with a magic number are tried first, those with words of text last. */
  readonly clue: Clue;
  /** Whether the first bytes of a file, unpacked, begin like a header of this format; the rest may be wrong. */
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
      /** A header and its voxels in one file. One that ends in .gz is packed as a whole. */
      readonly holds: 'volume';
      readonly mediaType: `application/${string}`;
    }
  | { readonly holds: 'header' | 'voxels' }
);

/** A header that names the file of its voxels, which may have any name. */
export interface DataFileField {
  /** What the field is called. */
  readonly field: string;
  /** The beginning of its line in the header. */
  readonly line: RegExp;
  /** How such files mostly end, unpacked. */
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
  /** How many bytes of an unpacked file hold all its text, told by its first 4096. */
  length(start: Uint8Array): number;
  find(header: Uint8Array<ArrayBuffer>, file: HeaderFile): Found | Promise<Found>;
}

export interface HeaderFile {
  readonly name: string;
  /** Whether the bytes at hand are the whole file. */
  readonly whole: boolean;
  /** The name that the header shall have for the file of its voxels. */
  dataFile(name: string): string;
}

export interface WriteOptions {
  /**
   * What the header of the input stated (VolumeHeader.geometry): the file states the same again where it is of the same format
   * and the volume lies on that grid. It states the affine in mm otherwise.
   */
  geometry?: FileGeometry;
  /** One line for the header; anything but printable ASCII becomes a space. */
  description?: string;
  /** 'label': the header says that the voxels are labels, where the format has a word for it. */
  intent?: 'label';
  /** Names and "#rrggbb" colours of the labels; only NRRD has a place for them. */
  labels?: readonly { value: number; name: string; color?: string }[];
  /** Compression from 1 (default; the fastest) to 9; 0 stores MetaImage and NRRD raw. `nii` is never compressed. */
  level?: number;
}

export interface WriterOptions extends WriteOptions {
  level: number;
  /** Whether the file's ending says that it is packed with gzip as a whole. */
  packed: boolean;
}

/** Whether a name has an ending, in any case. */
export const hasEnding = (name: string, ending: string): boolean =>
  name.slice(-ending.length).toLowerCase() === ending;
