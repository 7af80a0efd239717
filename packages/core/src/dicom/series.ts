import type { TomaatError } from '../errors.ts';
import type { DicomImage } from './frames.ts';
import type { Stack } from './stack.ts';

/** A series as a person chooses it, and the volume that its images form. */
export interface DicomSeries {
  readonly uid: string;
  readonly studyUid: string;
  readonly number?: number;
  /** Decoded by the character set of the file. */
  readonly description?: string;
  readonly modality?: string;
  readonly bodyPart?: string;
  /** YYYY-MM-DD, of the series, the acquisition or the study: the first that is there. */
  readonly date?: string;
  /** Images, of multi-frame files their frames; copies of a file count once. */
  readonly imageCount: number;
  readonly columns?: number;
  readonly rows?: number;
  /** Slices of one frame. */
  readonly slices?: number;
  /** Distance of voxels along columns, rows and slices, mm. */
  readonly spacing?: readonly [x: number, y: number, z: number];
  /** Time points, echoes or b-values: the frames of a 4-D volume, 1 where there is one. */
  readonly frames: number;
  /** What its images are: only 'images' are meant as a volume, the others are listed so that they can be named. */
  readonly content: 'images' | 'localizer' | 'capture';
  /** Why it is not a volume. */
  readonly refusal?: TomaatError;
  /** In the order of the volume: slices along z, then frames. In the order of the files where it is none. */
  readonly images: readonly DicomImage[];
  /** The place of the images; undefined exactly where there is a refusal. */
  readonly stack?: Stack;
}

export interface LeftOut {
  readonly name: string;
  readonly reason: string;
}

export interface SeriesList {
  /** In the order of their numbers. */
  readonly series: readonly DicomSeries[];
  /** Files that belong to no volume, in the order given. */
  readonly leftOut: readonly LeftOut[];
}
