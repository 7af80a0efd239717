import type { ReadLimits } from '../formats/header.ts';
import type { DicomSeries, LeftOut } from './series.ts';

export interface InspectDicomOptions {
  limits?: ReadLimits;
  /** The series to read where the files hold several: its UID, or its number. */
  series?: string;
  signal?: AbortSignal;
}

/** What is known of a DICOM volume before its pixels are read, beside its header. */
export interface DicomFindings {
  /** The series that was read. */
  series: DicomSeries;
  /** Files that do not belong to it, with the reason. */
  leftOut: readonly LeftOut[];
}
