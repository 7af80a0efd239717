import { TomaatError } from '@tomaat/core';

/*
 * The DICOM JSON model (PS3.18, annex F): the format of QIDO-RS responses, WADO-RS metadata and STOW-RS responses. It
 * comes from other programs, so accessors accept any JSON and return undefined for anything that is missing or of the
 * wrong type.
 */

/** One element: its value representation, and its values or their location. */
export interface DicomElement {
  readonly vr?: string;
  readonly Value?: readonly unknown[];
  /** The location of the bytes of a large value. */
  readonly BulkDataURI?: string;
  /** The bytes in base64. */
  readonly InlineBinary?: string;
}

/** Elements by tag: eight hex digits in upper case. */
export type DicomDataset = Readonly<Record<string, DicomElement>>;

/** The elements that have keywords here; all others are accessed by tag. */
export const dicomTags = {
  SpecificCharacterSet: '00080005',
  SOPClassUID: '00080016',
  SOPInstanceUID: '00080018',
  StudyDate: '00080020',
  SeriesDate: '00080021',
  StudyTime: '00080030',
  SeriesTime: '00080031',
  AccessionNumber: '00080050',
  InstanceAvailability: '00080056',
  Modality: '00080060',
  ModalitiesInStudy: '00080061',
  Manufacturer: '00080070',
  ReferringPhysicianName: '00080090',
  StationName: '00081010',
  StudyDescription: '00081030',
  SeriesDescription: '0008103E',
  ManufacturerModelName: '00081090',
  ReferencedSOPClassUID: '00081150',
  ReferencedSOPInstanceUID: '00081155',
  RetrieveURL: '00081190',
  WarningReason: '00081196',
  FailureReason: '00081197',
  FailedSOPSequence: '00081198',
  ReferencedSOPSequence: '00081199',
  OtherFailuresSequence: '0008119A',
  PatientName: '00100010',
  PatientID: '00100020',
  PatientBirthDate: '00100030',
  PatientSex: '00100040',
  BodyPartExamined: '00180015',
  ProtocolName: '00181030',
  StudyInstanceUID: '0020000D',
  SeriesInstanceUID: '0020000E',
  StudyID: '00200010',
  SeriesNumber: '00200011',
  InstanceNumber: '00200013',
  FrameOfReferenceUID: '00200052',
  NumberOfStudyRelatedSeries: '00201206',
  NumberOfStudyRelatedInstances: '00201208',
  NumberOfSeriesRelatedInstances: '00201209',
  NumberOfFrames: '00280008',
  Rows: '00280010',
  Columns: '00280011',
  BitsAllocated: '00280100',
} as const;

export type DicomKeyword = keyof typeof dicomTags;
/** A keyword of `dicomTags`, or a tag as eight hex digits such as `00181030`. */
export type DicomAttribute = DicomKeyword | (string & {});

/** The tag for a keyword or a tag, in upper case; anything else is returned unchanged. */
export function tagOf(attribute: DicomAttribute): string {
  if (Object.hasOwn(dicomTags, attribute)) return dicomTags[attribute as DicomKeyword];
  return /^[0-9A-Fa-f]{8}$/.test(attribute) ? attribute.toUpperCase() : attribute;
}

/**
 * Parsed JSON as data sets; one object counts as a list of one.
 * @throws {TomaatError} UPSTREAM with `from` at the start of its message, if it is anything else
 */
export function toDatasets(data: unknown, from: string): DicomDataset[] {
  const list: unknown[] = Array.isArray(data) ? data : [data];
  if (list.every(isObject)) return list as DicomDataset[];
  throw new TomaatError(
    'UPSTREAM',
    `${from} answered with JSON that is not DICOM JSON (PS3.18, annex F). Check that the address is that of its DICOMweb service.`,
  );
}

/** The values of an element; empty if it is missing or empty. */
export function dicomValues(dataset: DicomDataset, attribute: DicomAttribute): readonly unknown[] {
  const tag = tagOf(attribute);
  const element = own(dataset, tag) ?? own(dataset, tag.toLowerCase());
  return isObject(element) && Array.isArray(element.Value) ? element.Value : [];
}

/**
 * The first value of an element as text: a person's name in its alphabetic form, otherwise ideographic or phonetic
 * (PS3.5, section 6.2.1). Undefined if it is missing or empty.
 */
export function dicomText(dataset: DicomDataset, attribute: DicomAttribute): string | undefined {
  return dicomTexts(dataset, attribute)[0];
}

/** All values of an element as text, without empty ones. */
export function dicomTexts(dataset: DicomDataset, attribute: DicomAttribute): string[] {
  return dicomValues(dataset, attribute).flatMap((value) => textOf(value) ?? []);
}

/**
 * The first value of an element as a number: servers write IS and DS as numbers or strings. Undefined if it is not
 * finite.
 */
export function dicomNumber(dataset: DicomDataset, attribute: DicomAttribute): number | undefined {
  const text = dicomText(dataset, attribute);
  const number = Number(text);
  return text !== undefined && Number.isFinite(number) ? number : undefined;
}

/** The items of a sequence. */
export function dicomItems(dataset: DicomDataset, attribute: DicomAttribute): DicomDataset[] {
  return dicomValues(dataset, attribute).filter(isObject) as DicomDataset[];
}

/** A study in search results. Dates are YYYYMMDD and times HHMMSS.FFFFFF, as in DICOM. */
export interface DicomStudy {
  readonly studyInstanceUid: string;
  readonly studyDate?: string;
  readonly studyTime?: string;
  readonly studyDescription?: string;
  readonly accessionNumber?: string;
  readonly patientName?: string;
  readonly patientId?: string;
  readonly patientBirthDate?: string;
  readonly patientSex?: string;
  /** For example MR, CT, SEG. */
  readonly modalities: readonly string[];
  readonly seriesCount?: number;
  readonly instanceCount?: number;
  /** Everything that the server returns for it. */
  readonly dataset: DicomDataset;
}

/** A series in search results. */
export interface DicomSeries {
  readonly studyInstanceUid: string;
  readonly seriesInstanceUid: string;
  readonly modality?: string;
  readonly seriesNumber?: number;
  readonly seriesDescription?: string;
  readonly bodyPartExamined?: string;
  /** The number of its instances on the server; `retrieveSeries` can be asked to check for this number. */
  readonly instanceCount?: number;
  readonly dataset: DicomDataset;
}

/** An instance in search results: one file. */
export interface DicomInstance {
  readonly studyInstanceUid: string;
  readonly seriesInstanceUid: string;
  readonly sopInstanceUid: string;
  readonly sopClassUid?: string;
  readonly instanceNumber?: number;
  /** For a multi-frame object. */
  readonly frameCount?: number;
  readonly rows?: number;
  readonly columns?: number;
  readonly dataset: DicomDataset;
}

/** What the caller knows because it asked for it: servers may omit it from their responses. */
export interface KnownUids {
  studyInstanceUid?: string;
  seriesInstanceUid?: string;
}

export function toStudy(dataset: DicomDataset, from: string): DicomStudy {
  const text = (attribute: DicomKeyword) => dicomText(dataset, attribute);
  return {
    studyInstanceUid: needed(dataset, 'StudyInstanceUID', undefined, from),
    studyDate: text('StudyDate'),
    studyTime: text('StudyTime'),
    studyDescription: text('StudyDescription'),
    accessionNumber: text('AccessionNumber'),
    patientName: text('PatientName'),
    patientId: text('PatientID'),
    patientBirthDate: text('PatientBirthDate'),
    patientSex: text('PatientSex'),
    modalities: dicomTexts(dataset, 'ModalitiesInStudy'),
    seriesCount: dicomNumber(dataset, 'NumberOfStudyRelatedSeries'),
    instanceCount: dicomNumber(dataset, 'NumberOfStudyRelatedInstances'),
    dataset,
  };
}

export function toSeries(dataset: DicomDataset, from: string, known: KnownUids = {}): DicomSeries {
  return {
    studyInstanceUid: needed(dataset, 'StudyInstanceUID', known.studyInstanceUid, from),
    seriesInstanceUid: needed(dataset, 'SeriesInstanceUID', undefined, from),
    modality: dicomText(dataset, 'Modality'),
    seriesNumber: dicomNumber(dataset, 'SeriesNumber'),
    seriesDescription: dicomText(dataset, 'SeriesDescription'),
    bodyPartExamined: dicomText(dataset, 'BodyPartExamined'),
    instanceCount: dicomNumber(dataset, 'NumberOfSeriesRelatedInstances'),
    dataset,
  };
}

export function toInstance(dataset: DicomDataset, from: string, known: KnownUids = {}): DicomInstance {
  return {
    studyInstanceUid: needed(dataset, 'StudyInstanceUID', known.studyInstanceUid, from),
    seriesInstanceUid: needed(dataset, 'SeriesInstanceUID', known.seriesInstanceUid, from),
    sopInstanceUid: needed(dataset, 'SOPInstanceUID', undefined, from),
    sopClassUid: dicomText(dataset, 'SOPClassUID'),
    instanceNumber: dicomNumber(dataset, 'InstanceNumber'),
    frameCount: dicomNumber(dataset, 'NumberOfFrames'),
    rows: dicomNumber(dataset, 'Rows'),
    columns: dicomNumber(dataset, 'Columns'),
    dataset,
  };
}

function needed(
  dataset: DicomDataset,
  attribute: DicomKeyword,
  known: string | undefined,
  from: string,
): string {
  const uid = dicomText(dataset, attribute) ?? known;
  if (uid !== undefined) return uid;
  throw new TomaatError(
    'UPSTREAM',
    `${from} gave a result without ${attribute}, which every result must have (PS3.18, section 10.6.3). Report it to the operator of the server.`,
  );
}

function textOf(value: unknown): string | undefined {
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  const texts = isObject(value) ? [value.Alphabetic, value.Ideographic, value.Phonetic] : [value];
  const text = texts.find((candidate) => typeof candidate === 'string' && candidate.trim() !== '');
  return (text as string | undefined)?.trim();
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const own = (dataset: DicomDataset, tag: string): unknown =>
  Object.hasOwn(dataset, tag) ? dataset[tag] : undefined;
