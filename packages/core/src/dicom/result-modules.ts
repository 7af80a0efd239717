import { TomaatError } from '../errors.ts';
import { ascii, codeSequence, datasetOf, sequence, text } from './build.ts';
import { type Dataset, type DicomElement, word } from './dataset.ts';
import type { DicomSource, SliceReference } from './source.ts';
import { type Tag, tags } from './tags.ts';
import type { TextCoding } from './text-coding.ts';
import type { CreateUid } from './uids.ts';
import type { Vr } from './value-representations.ts';

/*
 * The modules (PS3.3 C.7, C.12) that every DICOM result of a series has: the patient, the program, and the source
 * images.
 */

/** The app that produced a result. */
export interface Maker {
  readonly id: string;
  readonly name: string;
  readonly version: string;
}

/** Attributes required in every object, with an empty value if the source has none (type 2). */
const required: readonly (readonly [Tag, Vr])[] = [
  [tags.patientName, 'PN'],
  [tags.patientId, 'LO'],
  [tags.patientBirthDate, 'DA'],
  [tags.patientSex, 'CS'],
  [tags.studyDate, 'DA'],
  [tags.studyTime, 'TM'],
  [tags.accessionNumber, 'SH'],
  [tags.referringPhysicianName, 'PN'],
  [tags.studyId, 'SH'],
];

/** The rest of patient, patient's study, clinical trial and general study: copied if the source has it. */
const optional: readonly Tag[] = [
  tags.studyInstanceUid,
  tags.studyDescription,
  tags.procedureCodeSequence,
  tags.issuerOfAccessionNumberSequence,
  tags.timezoneOffsetFromUtc,
  tags.issuerOfPatientId,
  tags.patientAge,
  tags.patientSize,
  tags.patientWeight,
  tags.clinicalTrialSponsorName,
  tags.clinicalTrialProtocolId,
  tags.clinicalTrialProtocolName,
  tags.clinicalTrialSiteId,
  tags.clinicalTrialSiteName,
  tags.clinicalTrialSubjectId,
  tags.clinicalTrialSubjectReadingId,
  tags.clinicalTrialTimePointId,
  tags.clinicalTrialTimePointDescription,
  tags.clinicalTrialCoordinatingCenterName,
  tags.patientIdentityRemoved,
  tags.deidentificationMethod,
  tags.deidentificationMethodCodeSequence,
];

/**
 * Why no DICOM result can be created for a series, as a sentence; undefined if one can. A result is filed under its
 * study and refers to the images, so both need UIDs.
 */
export function lacksForResults({ dataset, slices }: DicomSource): string | undefined {
  const missing = [
    ...(word(dataset, tags.studyInstanceUid) === undefined ? ['StudyInstanceUID'] : []),
    ...(word(dataset, tags.seriesInstanceUid) === undefined ? ['SeriesInstanceUID'] : []),
    ...(slices.some(({ sopInstanceUid }) => sopInstanceUid === '') ? ['SOPInstanceUID'] : []),
  ];
  return missing.length === 0
    ? undefined
    : `The images have no ${missing.join(' and no ')}, to which a DICOM result refers.`;
}

/**
 * @param instead the format that can be had without
 * @throws TomaatError NOT_ACCEPTABLE if no DICOM result can be created for a series
 */
export function checkSource(source: DicomSource, instead: string): void {
  const lack = lacksForResults(source);
  if (lack)
    throw new TomaatError('NOT_ACCEPTABLE', `${lack} Take the result as ${instead}.`, { field: 'format' });
}

/** Patient and study as in the source. */
export function patientAndStudy({ dataset }: DicomSource, coding: TextCoding): DicomElement[] {
  const own = (tag: Tag) => {
    const element = dataset.get(tag);
    return element && coding.adopt(element);
  };
  return [
    ...(coding.characterSets.length === 0
      ? []
      : [ascii(tags.specificCharacterSet, 'CS', ...coding.characterSets)]),
    ...required.map(([tag, vr]) => own(tag) ?? emptyElement(tag, vr)),
    ...optional.flatMap((tag) => own(tag) ?? []),
  ];
}

const emptyElement = (tag: Tag, vr: Vr): DicomElement => ({
  kind: 'value',
  tag,
  vr,
  bytes: new Uint8Array(0),
  littleEndian: true,
  statedBytes: 0,
});

/** Frame of reference. A series without one gets a new one: positions in the result are those of the source. */
export function frameOfReference({ dataset }: DicomSource, createUid: CreateUid): DicomElement[] {
  const uid = word(dataset, tags.frameOfReferenceUid) ?? createUid('frame of reference');
  return [ascii(tags.frameOfReferenceUid, 'UI', uid), emptyElement(tags.positionReferenceIndicator, 'LO')];
}

/** Equipment: this program as the manufacturer, the app as its model and software. */
export const equipment = ({ id, name, version }: Maker, coding: TextCoding): DicomElement[] => [
  text(tags.manufacturer, 'LO', 'TOMAAT', coding),
  text(tags.manufacturerModelName, 'LO', name, coding),
  text(tags.deviceSerialNumber, 'LO', id, coding),
  text(tags.softwareVersions, 'LO', version, coding),
];

/**
 * Date and time of the instance, its series and its content, in the time zone of the source, or else of this machine.
 */
export function times(source: DicomSource, time: Date): DicomElement[] {
  const [date, clock] = dateAndTime(source, time);
  return [
    ...[tags.instanceCreationDate, tags.seriesDate, tags.contentDate].map((tag) => ascii(tag, 'DA', date)),
    ...[tags.instanceCreationTime, tags.seriesTime, tags.contentTime].map((tag) => ascii(tag, 'TM', clock)),
  ];
}

/** The values of DA and TM for a time, in the time zone of the source, or else of this machine. */
export function dateAndTime({ dataset }: DicomSource, time: Date): [date: string, time: string] {
  const minutes = zoneMinutes(word(dataset, tags.timezoneOffsetFromUtc)) ?? -time.getTimezoneOffset();
  const local = new Date(time.getTime() + minutes * 60_000).toISOString();
  return [local.slice(0, 10).replaceAll('-', ''), local.slice(11, 19).replaceAll(':', '')];
}

function zoneMinutes(offset: string | undefined): number | undefined {
  const [, sign, hours, minutes] = /^([+-])(\d{2})(\d{2})$/.exec(offset ?? '') ?? [];
  if (sign === undefined) return undefined;
  return (sign === '-' ? -1 : 1) * (Number(hours) * 60 + Number(minutes));
}

/** The series that a result is derived from, with every image of it that was read (ReferencedSeriesSequence). */
export function referencedSeries({ dataset, slices }: DicomSource): DicomElement {
  const uid = word(dataset, tags.seriesInstanceUid);
  if (uid === undefined) throw new TomaatError('INTERNAL', 'The source of a DICOM result has no series UID.');
  return sequence(
    tags.referencedSeriesSequence,
    datasetOf(
      sequence(tags.referencedInstanceSequence, ...imagesOf(slices)),
      ascii(tags.seriesInstanceUid, 'UI', uid),
    ),
  );
}

/** References to the images of slices, one item for each image: those of several frames have several slices. */
export const imagesOf = (slices: readonly SliceReference[]): Dataset[] =>
  [...new Map(slices.map((slice) => [slice.sopInstanceUid, slice])).values()].map((image) =>
    datasetOf(...reference(image)),
  );

/** The attributes that refer to an object. */
export const reference = ({
  sopClassUid,
  sopInstanceUid,
}: Pick<SliceReference, 'sopClassUid' | 'sopInstanceUid'>): DicomElement[] => [
  ascii(tags.referencedSopClassUid, 'UI', sopClassUid),
  ascii(tags.referencedSopInstanceUid, 'UI', sopInstanceUid),
];

/**
 * The image, or the frame of one, that a frame of a result is derived from, at the same position
 * (DerivationImageSequence).
 */
export function derivedFrom(slice: SliceReference, coding: TextCoding): DicomElement {
  const source: Dataset = datasetOf(
    ...reference(slice),
    slice.frameNumber === undefined ? undefined : ascii(tags.referencedFrameNumber, 'IS', slice.frameNumber),
    ascii(tags.spatialLocationsPreserved, 'CS', 'YES'),
    codeSequence(
      tags.purposeOfReferenceCodeSequence,
      { scheme: 'DCM', value: '121322', meaning: 'Source image for image processing operation' },
      coding,
    ),
  );
  return sequence(
    tags.derivationImageSequence,
    datasetOf(
      sequence(tags.sourceImageSequence, source),
      codeSequence(
        tags.derivationCodeSequence,
        { scheme: 'DCM', value: '113076', meaning: 'Segmentation' },
        coding,
      ),
    ),
  );
}

/** The image, or the frame of one, that a picture was made of (SourceImageSequence). */
export const sourceImage = (slice: SliceReference, coding: TextCoding): DicomElement =>
  sequence(
    tags.sourceImageSequence,
    datasetOf(
      ...reference(slice),
      slice.frameNumber === undefined
        ? undefined
        : ascii(tags.referencedFrameNumber, 'IS', slice.frameNumber),
      ascii(tags.spatialLocationsPreserved, 'CS', 'NO'),
      codeSequence(
        tags.purposeOfReferenceCodeSequence,
        { scheme: 'DCM', value: '121322', meaning: 'Source image for image processing operation' },
        coding,
      ),
    ),
  );

/** Whether the source is or ever was lossily compressed, and how (type 1 in derived objects). */
export function lossyCompression({ dataset }: DicomSource, coding: TextCoding): DicomElement[] {
  if (word(dataset, tags.lossyImageCompression) !== '01')
    return [ascii(tags.lossyImageCompression, 'CS', '00')];
  const more = [tags.lossyImageCompressionRatio, tags.lossyImageCompressionMethod];
  return [
    ascii(tags.lossyImageCompression, 'CS', '01'),
    ...more.flatMap((tag) => {
      const element = dataset.get(tag);
      return element ? [coding.adopt(element)] : [];
    }),
  ];
}
