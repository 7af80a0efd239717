import type { TomaatError } from '../errors.ts';
import type { SourceFile } from '../formats/source-file.ts';
import type { DicomFile } from './dataset.ts';
import type { Tag } from './tags.ts';

/** The header of a DICOM file: everything before its pixel data. */
export interface DicomHeader {
  readonly kind: 'dicom';
  readonly file: SourceFile;
  /** The last part of the file's name. */
  readonly name: string;
  /** Its data set ends before the pixel data. */
  readonly dicom: DicomFile;
  /** The element that holds the pixels; undefined where the object has none. */
  readonly pixels?: PixelElement;
  /** The bytes that `dicom` is a view of. */
  readonly bytes: Uint8Array;
}

export interface PixelElement {
  readonly tag: Tag;
  /** Bytes of the value; undefined where the pixels are encapsulated. */
  readonly statedBytes: number | undefined;
}

/** A file that is not a DICOM file, or a damaged one. */
export interface UnreadFile {
  readonly kind: 'unread';
  readonly name: string;
  readonly fault: TomaatError;
}
