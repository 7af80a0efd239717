import type { Job, Service } from '@tomaat/client';
import type {
  DeidentificationReport,
  DicomDisplay,
  DicomSeries,
  DicomVolumeHeader,
  LeftOut,
  SeriesFormat,
  Volume,
} from '@tomaat/core';

/** The messages between the page and its DICOM worker. All files stay in this browser. */

/** A file that the user selected, by its path in the folder. */
export interface NamedFile {
  readonly path: string;
  readonly file: Blob;
}

/** What a person selects a series by. */
export interface SeriesCard
  extends Pick<
    DicomSeries,
    | 'uid'
    | 'number'
    | 'description'
    | 'modality'
    | 'bodyPart'
    | 'date'
    | 'imageCount'
    | 'columns'
    | 'rows'
    | 'slices'
    | 'spacing'
    | 'frames'
    | 'content'
  > {
  /** Why it is not a volume. */
  readonly refusal?: string;
}

export interface SeriesCards {
  readonly series: readonly SeriesCard[];
  readonly leftOut: readonly (Pick<LeftOut, 'name' | 'reason'> & { readonly isDamaged: boolean })[];
}

/** A slice in shades of grey, as stored: the first row at the top. */
export interface Picture {
  readonly width: number;
  readonly height: number;
  /** Pixel height divided by pixel width, in physical units. */
  readonly stretch: number;
  readonly rgba: Uint8ClampedArray<ArrayBuffer>;
}

export interface ChosenSeriesFacts {
  readonly header: DicomVolumeHeader;
  readonly sizeBytes: number;
  readonly fileCount: number;
}

export interface SeriesDisplay extends DicomDisplay {
  readonly modality?: string;
}

export interface RemovalChoice {
  readonly keepPatientCharacteristics: boolean;
  /** The files are sent as they are. */
  readonly keepIdentity: boolean;
}

/** What is removed from a series before it is sent. */
export interface Removal extends RemovalChoice {
  /** Missing if the files are sent as they are. */
  readonly report?: DeidentificationReport;
  /** Number of bytes to send. */
  readonly sizeBytes: number;
  /** The UID of the series as sent. */
  readonly sentUid: string;
}

export type ResultService = Pick<Service, 'id' | 'name' | 'version' | 'labels' | 'outputs'>;

/** What the worker does: the input and output of each task. A worker has the files of one `open`. */
export type Operations = {
  open: { given: { files: readonly NamedFile[] }; result: SeriesCards };
  /** The middle slice of a series. */
  picture: { given: { uid: string }; result: Picture };
  /** Without a UID: the only series. */
  choose: { given: { uid?: string }; result: ChosenSeriesFacts };
  /** How the middle slice is meant to be shown. Without a UID: the only series. */
  display: { given: { uid?: string }; result: SeriesDisplay };
  read: { given: { uid?: string; frame?: number }; result: Volume };
  /** @see PrepareOptions in the client */
  prepare: { given: { uid: string; key: string } & RemovalChoice; result: Removal };
  /** The archive that `prepare` created. */
  pack: { given: { uid: string; key: string } & RemovalChoice; result: Blob };
  /** The series whose UID is `sentUid` after de-identification. */
  find: { given: { sentUid: string; key: string }; result: SeriesCard };
  createResult: {
    given: {
      uid: string;
      /** A label map in any volume format; measurements as JSON. */
      file: Uint8Array;
      /** For measurements: the label map that was measured. */
      labelMap?: Uint8Array;
      service: ResultService;
      job: Pick<Job, 'id' | 'parameters'>;
      output: string;
      format: SeriesFormat;
      frame?: number;
    };
    result: Blob;
  };
};
