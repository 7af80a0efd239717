import type { DicomHeader } from './dicom-files.ts';
import type { PixelFormat } from './pixel-format.ts';
import type { Vector } from './source.ts';

/** One image of a series: a file with one image, or a frame of one with several. Coordinates are those of DICOM: LPS, mm. */
export interface DicomImage {
  readonly header: DicomHeader;
  /** Files with the same SOP instance UID and the same header: they count once, and are compared when they are read. */
  readonly copies: readonly DicomHeader[];
  readonly sopClassUid: string;
  readonly sopInstanceUid: string;
  /** From 0. */
  readonly frame: number;
  /** How many images the file has. */
  readonly frameCount: number;
  readonly format: PixelFormat;
  /** Centre of the first pixel (ImagePositionPatient). */
  readonly position?: Vector;
  /** Unit vectors along a row and along a column. */
  readonly rowDirection?: Vector;
  readonly columnDirection?: Vector;
  /** Distance of neighbouring rows, and of neighbouring columns, mm. */
  readonly pixelSpacing?: readonly [rows: number, columns: number];
  readonly sliceThickness?: number;
  /** value = slope × stored + intercept. */
  readonly slope: number;
  readonly intercept: number;
  /** What tells images at one position apart. */
  readonly keys: FrameKeys;
}

/** Undefined where the file does not say. */
export interface FrameKeys {
  readonly temporalPosition?: number;
  readonly bValue?: number;
  readonly echo?: number;
  readonly acquisition?: number;
  readonly triggerTime?: number;
}
