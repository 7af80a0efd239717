import { type DicomFile, text, word } from './dataset.ts';
import { tags } from './tags.ts';

/* What says whose an object is, and in which study and series it is filed. */

export interface Belonging {
  readonly sopClassUid: string;
  readonly sopInstanceUid: string;
  readonly studyUid: string;
  readonly seriesUid: string;
  /** PatientID with its issuer, PatientName, PatientBirthDate and PatientSex, decoded; empty where missing. */
  readonly patient: readonly string[];
}

const patientTags = [
  tags.patientId,
  tags.issuerOfPatientId,
  tags.patientName,
  tags.patientBirthDate,
  tags.patientSex,
] as const;

/** UIDs that are missing are empty. */
export const belongingOf = ({ dataset }: Pick<DicomFile, 'dataset'>): Belonging => ({
  sopClassUid: word(dataset, tags.sopClassUid) ?? '',
  sopInstanceUid: word(dataset, tags.sopInstanceUid) ?? '',
  studyUid: word(dataset, tags.studyInstanceUid) ?? '',
  seriesUid: word(dataset, tags.seriesInstanceUid) ?? '',
  patient: patientTags.map((tag) => text(dataset, tag) ?? ''),
});

/** Whether two objects name the same patient. */
export const isSamePatient = (a: Belonging, b: Belonging): boolean =>
  a.patient.every((value, i) => value === b.patient[i]);
