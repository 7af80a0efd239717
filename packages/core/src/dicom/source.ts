import type { Dataset, Encoding } from './dataset.ts';

/** What DICOM results say about the series that they were computed from. Coordinates are those of DICOM: LPS, mm. */
export interface DicomSource extends Encoding {
  /**
   * The data set of the first slice without its pixels. Patient, study, frame of reference and character set are copied from it,
   * byte for byte.
   */
  readonly dataset: Dataset;
  /**
   * Unit vectors along a row (towards higher columns) and along a column (towards higher rows), from
   * ImageOrientationPatient.
   */
  readonly rowDirection: Vector;
  readonly columnDirection: Vector;
  /** Distance between neighbouring rows, and between neighbouring columns, mm: the order of PixelSpacing. */
  readonly pixelSpacing: readonly [rows: number, columns: number];
  /** The slices of the volume in order along z, the first at z = 0. */
  readonly slices: readonly SliceReference[];
}

export type Vector = readonly [x: number, y: number, z: number];

/** The image, or the frame of one, that a slice of a volume was read from. */
export interface SliceReference {
  readonly sopClassUid: string;
  readonly sopInstanceUid: string;
  /** Starts at 1; only for images with several frames. */
  readonly frameNumber?: number;
  /** Centre of the first pixel, LPS mm (ImagePositionPatient). */
  readonly position: Vector;
  /** How its header wants it to be displayed: the first of its windows. */
  readonly window?: DisplayWindow;
}

/** Values that are displayed from black to white (PS3.3 C.11.2.1.2), after rescaling. */
export interface DisplayWindow {
  readonly center: number;
  readonly width: number;
  readonly shape: 'LINEAR' | 'LINEAR_EXACT' | 'SIGMOID';
}
