import type { Removal, RemovalChoice, SeriesCard } from './messages.ts';
import type { SentSeries } from './originals.ts';
import type { CallOptions, DicomSession } from './session.ts';

/** A series of the selected files, as it is sent. */
export interface ScanOfSeries {
  readonly session: DicomSession;
  readonly card: SeriesCard;
  /** De-identifies all files once, and reports what is removed from them. */
  prepare(choice: RemovalChoice, options?: CallOptions): Promise<Removal>;
  /** Keeps the original files for the lifetime of this page, for results in DICOM. */
  keepOriginals(): SentSeries;
}
