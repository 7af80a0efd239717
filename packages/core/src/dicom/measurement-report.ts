import { TomaatError } from '../errors.ts';
import type { LabelMeasurement } from '../labels/measure.ts';
import { ascii, type Code, datasetOf, sequence, text } from './build.ts';
import {
  codeItem,
  containerItem,
  givenCodeItem,
  numberItem,
  segmentItem,
  textItem,
  uidItem,
} from './content-items.ts';
import { type Dataset, type DicomElement, itemsOf, word, words } from './dataset.ts';
import { type Predecessor, predecessorDocuments } from './predecessor.ts';
import {
  checkSource,
  equipment,
  imagesOf,
  type Maker,
  patientAndStudy,
  reference,
  times,
} from './result-modules.ts';
import {
  algorithmFamily,
  categoryOf,
  defaultType,
  type SegmentLabel,
  textsOf,
} from './segment-description.ts';
import type { SegmentationIdentity, SegmentReference } from './segmentation-identity.ts';
import type { DicomSource } from './source.ts';
import { type Tag, tags } from './tags.ts';
import { chooseTextCoding, type TextCoding } from './text-coding.ts';
import { transferSyntaxes } from './transfer-syntaxes.ts';
import { createUids, keyedDigest, uidOf } from './uids.ts';
import type { DicomObject } from './write-file.ts';

/*
 * The volumes of labels as a structured report (PS3.16 TID 1500, with a group of TID 1411 for each segment). A
 * Comprehensive SR, which archives and viewers know best: only coordinates in 3D, of which there are none here, need the
 * Comprehensive 3D SR.
 */

export interface MeasurementReportOptions {
  /** The segmentation whose segments were measured: from `identifySegmentation()`. */
  segmentation: SegmentationIdentity;
  maker: Maker;
  /** The description of the series. */
  description: string;
  /** Distinguishes this result from others of the same seed. */
  role: string;
  /** The seed for UIDs (see `createUids`): equal seeds give equal UIDs. Random if missing. */
  seed?: string;
  /** Of the result; now if missing. */
  time?: Date;
  /** An earlier result that this one takes the place of. */
  predecessor?: Predecessor;
}

const comprehensiveSr = '1.2.840.10008.5.1.4.1.1.88.33';

/** Its series is numbered apart from those of segmentations. */
const seriesNumber = 1002;

const dcm = (value: string, meaning: string): Code => ({ scheme: 'DCM', value, meaning });
const sct = (value: string, meaning: string): Code => ({ scheme: 'SCT', value, meaning });
const millilitre: Code = { scheme: 'UCUM', value: 'mL', meaning: 'mL' };

/**
 * Creates the report of the volumes of labels, in millilitres. Each refers to the segment that was measured, and has
 * its codes, its tracking identifier and its tracking UID, by which later reports of the same structure are found. A
 * label without a voxel has 0 mL.
 *
 * @param measurements one for each label; `volumeMl` is what is reported
 * @param source the series that the label map belongs to
 * @throws TomaatError NOT_ACCEPTABLE if the source lacks what a result refers to (`lacksForResults()`); APP_OUTPUT for
 *   a measurement whose value is no segment
 */
export function buildMeasurementReport(
  measurements: readonly LabelMeasurement[],
  source: DicomSource,
  options: MeasurementReportOptions,
): DicomObject {
  checkSource(source, 'json');
  const measured = matchSegments(measurements, options.segmentation);
  const { maker, description, role } = options;
  const coding = chooseTextCoding(words(source.dataset, tags.specificCharacterSet), [
    ...measured.flatMap(({ segment }) => textsOf(segment.label)),
    ...[description, maker.id, maker.name, maker.version],
  ]);
  const createUid = createUids(options.seed);
  const sopInstanceUid = createUid(`${role} report`);
  return {
    sopClassUid: comprehensiveSr,
    sopInstanceUid,
    transferSyntax: transferSyntaxes.explicitLittleEndian,
    dataset: datasetOf(
      ...patientAndStudy(source, coding),
      ...equipment(maker, coding),
      ...times(source, options.time ?? new Date()),
      ascii(tags.sopClassUid, 'UI', comprehensiveSr),
      ascii(tags.sopInstanceUid, 'UI', sopInstanceUid),
      ascii(tags.modality, 'CS', 'SR'),
      ascii(tags.seriesInstanceUid, 'UI', createUid(`${role} report series`)),
      ascii(tags.seriesNumber, 'IS', seriesNumber),
      text(tags.seriesDescription, 'LO', description, coding),
      sequence(tags.referencedPerformedProcedureStepSequence),
      ...documentModule(source, options.segmentation),
      ...predecessorDocuments(options.predecessor),
      ...contentTree(measured, source, options, coding).values(),
    ),
  };
}

interface Measured {
  readonly segment: SegmentReference;
  readonly volumeMl: number;
}

/** The measurements in the order of their segments. */
function matchSegments(
  measurements: readonly LabelMeasurement[],
  { segments }: SegmentationIdentity,
): Measured[] {
  const volumes = new Map(measurements.map(({ value, volumeMl }) => [value, volumeMl]));
  const measured = segments.flatMap((segment) => {
    const volumeMl = volumes.get(segment.label.value);
    return volumeMl === undefined || segment.label.value === 0 ? [] : [{ segment, volumeMl }];
  });
  const known = new Set(measured.map(({ segment }) => segment.label.value));
  const stranger = measurements.find(({ value }) => !known.has(value));
  if (!stranger) return measured;
  throw new TomaatError(
    'APP_OUTPUT',
    `The measurements have the value ${stranger.value} (${stranger.name}), which is neither in the label map nor among the labels, so that a DICOM report cannot refer to its segment. Measure values of the label map, or take the measurements as json.`,
  );
}

/** SR document general (PS3.3 C.17.2): its state, and all objects that it refers to. */
function documentModule(source: DicomSource, segmentation: SegmentationIdentity): DicomElement[] {
  const series = (uid: string, objects: readonly Dataset[]) =>
    datasetOf(sequence(tags.referencedSopSequence, ...objects), ascii(tags.seriesInstanceUid, 'UI', uid));
  return [
    ascii(tags.instanceNumber, 'IS', 1),
    ascii(tags.completionFlag, 'CS', 'COMPLETE'),
    ascii(tags.verificationFlag, 'CS', 'UNVERIFIED'),
    sequence(tags.performedProcedureCodeSequence),
    sequence(
      tags.currentRequestedProcedureEvidenceSequence,
      datasetOf(
        sequence(
          tags.referencedSeriesSequence,
          series(segmentation.seriesInstanceUid, [datasetOf(...reference(segmentation))]),
          series(seriesUidOf(source), imagesOf(source.slices)),
        ),
        ascii(tags.studyInstanceUid, 'UI', word(source.dataset, tags.studyInstanceUid) ?? ''),
      ),
    ),
  ];
}

const seriesUidOf = ({ dataset }: DicomSource) => word(dataset, tags.seriesInstanceUid) ?? '';

/** TID 1500. */
function contentTree(
  measured: readonly Measured[],
  source: DicomSource,
  options: MeasurementReportOptions,
  coding: TextCoding,
): Dataset {
  const english: Code = { scheme: 'RFC5646', value: 'en', meaning: 'English' };
  const language = dcm('121049', 'Language of Content Item and Descendants');
  return containerItem(
    undefined,
    dcm('126000', 'Imaging Measurement Report'),
    [
      codeItem('HAS CONCEPT MOD', language, english, coding),
      ...deviceObserver(options.maker, coding),
      ...proceduresOf(source, coding),
      containerItem(
        'CONTAINS',
        dcm('126010', 'Imaging Measurements'),
        measured.map((one) => measurementGroup(one, source, options, coding)),
        coding,
      ),
    ],
    coding,
    '1500',
  );
}

/** TID 1001, 1002 and 1004: the app, as the equipment module names it, observed. It has the same UID in all reports. */
function deviceObserver({ id, name }: Maker, coding: TextCoding): Dataset[] {
  const uid = uidOf(keyedDigest(new TextEncoder().encode('TOMAAT device observer'), id));
  const said = (code: Code, value: string) => textItem('HAS OBS CONTEXT', code, value, coding);
  return [
    codeItem('HAS OBS CONTEXT', dcm('121005', 'Observer Type'), dcm('121007', 'Device'), coding),
    uidItem('HAS OBS CONTEXT', dcm('121012', 'Device Observer UID'), uid, coding),
    said(dcm('121013', 'Device Observer Name'), 'TOMAAT'),
    said(dcm('121014', 'Device Observer Manufacturer'), 'TOMAAT'),
    said(dcm('121015', 'Device Observer Model Name'), name),
    said(dcm('121016', 'Device Observer Serial Number'), id),
  ];
}

/** The procedures of the study if they are coded, otherwise the most general one: an item is required. */
function proceduresOf({ dataset }: DicomSource, coding: TextCoding): Dataset[] {
  const name = dcm('121058', 'Procedure reported');
  const codes = itemsOf(dataset, tags.procedureCodeSequence).filter(isCode);
  return codes.length > 0
    ? codes.map((code) => givenCodeItem('HAS CONCEPT MOD', name, copyOfCode(code, coding), coding))
    : [codeItem('HAS CONCEPT MOD', name, sct('363679005', 'Imaging procedure'), coding)];
}

const codeParts = [
  tags.codeValue,
  tags.longCodeValue,
  tags.codingSchemeDesignator,
  tags.codingSchemeVersion,
  tags.codeMeaning,
];

function isCode(item: Dataset): boolean {
  const has = (tag: Tag) => word(item, tag) !== undefined;
  const isValued = has(tags.codeValue) || has(tags.longCodeValue);
  return isValued && has(tags.codingSchemeDesignator) && has(tags.codeMeaning);
}

/** The code alone, without what else an item of another program may hold. */
const copyOfCode = (item: Dataset, coding: TextCoding): Dataset =>
  datasetOf(
    ...codeParts.map((tag) => {
      const element = word(item, tag) === undefined ? undefined : item.get(tag);
      return element && coding.adopt(element);
    }),
  );

/** TID 1411. */
function measurementGroup(
  { segment, volumeMl }: Measured,
  source: DicomSource,
  { segmentation, maker }: MeasurementReportOptions,
  coding: TextCoding,
): Dataset {
  const { label, number, trackingUid } = segment;
  return containerItem(
    'CONTAINS',
    dcm('125007', 'Measurement Group'),
    [
      textItem('HAS OBS CONTEXT', dcm('112039', 'Tracking Identifier'), label.name, coding),
      uidItem('HAS OBS CONTEXT', dcm('112040', 'Tracking Unique Identifier'), trackingUid, coding),
      ...findingOf(label, coding),
      ...algorithm(maker, coding),
      numberItem('CONTAINS', sct('118565006', 'Volume'), volumeMl, millilitre, coding),
      segmentItem('CONTAINS', dcm('121191', 'Referenced Segment'), segmentation, number, coding),
      uidItem('CONTAINS', dcm('121232', 'Source Series for Segmentation'), seriesUidOf(source), coding),
    ],
    coding,
    '1411',
  );
}

/** Codes of anatomical structures as a category (PS3.16 CID 7150): today's, and that of older editions. */
const anatomicalStructures = ['123037004', '91723000'];
/** PS3.16 CID 244. */
const sides = ['24028007', '7771000', '51440002', '66459002'];

/**
 * Category and type of the segment. A structure of the body is also the site, which is where templates have the side;
 * the modifier of anything else belongs to the finding itself.
 */
function findingOf(label: SegmentLabel, coding: TextCoding): Dataset[] {
  const { code = defaultType, modifier } = label;
  const category = categoryOf(label);
  const modifiers = modifier ? [codeItem('HAS CONCEPT MOD', modifierName(modifier), modifier, coding)] : [];
  const isSite =
    label.code !== undefined && category.scheme === 'SCT' && anatomicalStructures.includes(category.value);
  return [
    codeItem('CONTAINS', sct('276214006', 'Finding category'), category, coding),
    codeItem('CONTAINS', dcm('121071', 'Finding'), code, coding, isSite ? [] : modifiers),
    ...(isSite
      ? [codeItem('HAS CONCEPT MOD', sct('363698007', 'Finding Site'), code, coding, modifiers)]
      : []),
  ];
}

const modifierName = ({ scheme, value }: Code): Code =>
  scheme === 'SCT' && sides.includes(value)
    ? sct('272741003', 'Laterality')
    : sct('106233006', 'Topographical modifier');

/** TID 4019. */
const algorithm = ({ name, version }: Maker, coding: TextCoding): Dataset[] => [
  textItem('HAS CONCEPT MOD', dcm('111001', 'Algorithm Name'), name, coding),
  textItem('HAS CONCEPT MOD', dcm('111003', 'Algorithm Version'), version, coding),
  codeItem('HAS CONCEPT MOD', dcm('111000', 'Algorithm Family'), algorithmFamily, coding),
];
