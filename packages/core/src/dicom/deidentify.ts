import { TomaatError } from '../errors.ts';
import { burnedInReasons } from './burned-in.ts';
import { decodeText } from './character-sets.ts';
import type { Dataset, DicomElement, DicomFile, SequenceElement, ValueElement } from './dataset.ts';
import { word, words } from './dataset.ts';
import { type DeidentificationReport, startReport } from './deidentification-report.ts';
import { isOfPatient, isTechnicalText, type Rule, ruleOf, sequenceAction } from './deidentification-rules.ts';
import {
  asciiBytes,
  dummyOf,
  hasForm,
  isDateOrTime,
  isWellKnownUid,
  keepForm,
  numberBytes,
  shiftDates,
  valuesOf,
} from './deidentified-values.ts';
import { representationOf } from './dictionary.ts';
import { fileMetaOf } from './encode-file.ts';
import { type HoldsIdentity, identityIn } from './identifying-words.ts';
import { safeElements } from './safe-private.ts';
import { isPixelData, type Tag, tags } from './tags.ts';
import { encodingOf, transferSyntaxes } from './transfer-syntaxes.ts';
import { createUidMapper, type Pseudonym, pseudonymOf, type UidMapper } from './uid-key.ts';
import type { Vr } from './value-representations.ts';

/*
 * De-identifies DICOM files by the Basic Application Level Confidentiality Profile (PS3.15 E.2) with the Retain Safe
 * Private Option and, on request, the options Patient Characteristics and Longitudinal Temporal Information With
 * Modified Dates. It keeps only what is known to be harmless: an attribute that is not in the dictionary is removed;
 * dates, times, UIDs, names of people and free text are recognised by their value representation as well as by the
 * table; and kept values must have the form of their VR. Pixels are not changed.
 */

export interface DeidentifyOptions {
  /** 32 bytes: see `uid-key.ts`. */
  readonly uidKey: Uint8Array;
  /**
   * The patient's sex, age, height, weight and others are kept (code 113108): SUV needs the weight. Otherwise they
   * are removed.
   */
  readonly keepPatientCharacteristics?: boolean;
  /**
   * Dates are shifted by a whole number of days, the same for all files of a patient, and times are kept (code
   * 113107), so that intervals stay correct. Otherwise dates and times are removed, emptied or replaced by dummies.
   */
  readonly shiftDates?: boolean;
}

export interface Deidentified {
  /** The de-identified file, to be written by `encodeDicomFile()`. Kept values are views of the original. */
  readonly file: DicomFile;
  readonly report: DeidentificationReport;
}

/**
 * Removes everything that may identify the patient. UIDs and the pseudonym are derived from the key: files of one
 * series stay one series.
 * @throws TomaatError BAD_INPUT if the key does not have 32 bytes; BAD_VOXELS if the pixels are truncated;
 *   UNSUPPORTED_FORMAT for a directory of files (DICOMDIR) and a transfer syntax that is not in the standard
 */
export const deidentify = (file: DicomFile, options: DeidentifyOptions): Deidentified =>
  createDeidentifier(options)(file);

/** `deidentify()` for many files: UIDs that they share are computed once. */
export function createDeidentifier(options: DeidentifyOptions): (file: DicomFile) => Deidentified {
  const mapUid = createUidMapper(options.uidKey);
  return (file) => {
    refuseOthers(file);
    const { dataset } = file;
    const pseudonym = pseudonymOf(dataset, options.uidKey);
    const characterSets = words(dataset, tags.specificCharacterSet);
    const report = startReport(characterSets);
    const context: Context = {
      mapUid,
      pseudonym,
      keepsCharacteristics: options.keepPatientCharacteristics ?? false,
      days: options.shiftDates ? pseudonym.days : undefined,
      holdsIdentity: identityIn(dataset),
      characterSets,
      report,
    };
    const cleaned = new Map([...cleanDataset(dataset, context, 0), ...marks(context)]);
    return {
      file: {
        ...withSyntax(file.transferSyntax),
        dataset: cleaned,
        meta: metaOf(cleaned, file.transferSyntax),
      },
      report: report.finish(burnedInReasons(dataset)),
    };
  };
}

function refuseOthers({ meta, dataset, transferSyntax }: DicomFile): void {
  const sopClass = word(meta, tags.mediaStorageSopClassUid);
  if (sopClass === mediaDirectory || dataset.has(directoryRecords)) {
    throw new TomaatError(
      'UNSUPPORTED_FORMAT',
      'The file is a directory of DICOM files (DICOMDIR), which holds no image: leave it out',
    );
  }
  // It is kept in the file, so it must be a UID of the standard.
  if (!isWellKnownUid(transferSyntax)) {
    throw new TomaatError(
      'UNSUPPORTED_FORMAT',
      'The transfer syntax of the file is not one of the DICOM standard: convert it, for example with gdcmconv --raw',
    );
  }
}

const mediaDirectory = '1.2.840.10008.1.3.10';
const directoryRecords: Tag = 0x00041220;

interface Context {
  readonly mapUid: UidMapper;
  readonly pseudonym: Pseudonym;
  readonly keepsCharacteristics: boolean;
  /** Days by which dates are shifted; undefined if they are removed. */
  readonly days: number | undefined;
  readonly holdsIdentity: HoldsIdentity;
  readonly characterSets: readonly string[];
  readonly report: ReturnType<typeof startReport>;
}

function cleanDataset(dataset: Dataset, context: Context, depth: number): Map<Tag, DicomElement> {
  const kept = new Map<Tag, DicomElement>();
  const safe = safeElements(dataset);
  for (const [tag, element] of dataset) {
    if (depth === 0 && marked.has(tag)) continue;
    if (Math.floor(tag / 65536) % 2 === 1) {
      const isSafe = safe.has(tag);
      context.report.private(isSafe);
      if (isSafe) kept.set(tag, element);
      continue;
    }
    const cleaned = isStandard(tag, depth) ? cleanElement(element, context, depth) : undefined;
    if (cleaned !== undefined) kept.set(tag, cleaned);
    if (tag % 65536 !== 0) context.report.add(element, cleaned);
  }
  return kept;
}

/**
 * Whether an attribute is allowed in its place. Groups 0 to 7 are for commands, file meta information and
 * directories, 50xx and 60xx are curves and overlays, and the pixels are followed by padding and signatures. Pixels
 * within sequences are icons and previews.
 */
function isStandard(tag: Tag, depth: number): boolean {
  const group = Math.floor(tag / 65536);
  const isRepeating = (group >= 0x5000 && group <= 0x50ff) || (group >= 0x6000 && group <= 0x60ff);
  if (tag % 65536 === 0 || group < 8 || isRepeating) return false;
  return group < 0x7fe0 || (isPixelData(tag) ? depth === 0 : frameTables.has(tag));
}

/** Extended offset table, its lengths, and the length of encapsulated pixels. */
const frameTables: ReadonlySet<Tag> = new Set([0x7fe00001, 0x7fe00002, 0x7fe00003]);

function cleanElement(element: DicomElement, context: Context, depth: number): DicomElement | undefined {
  const { tag } = element;
  if (isPixelData(tag)) return wholePixels(element);
  const vr = representationOf(tag);
  // Not in PS3.6, or newer than the edition used here.
  if (vr === undefined) return undefined;
  const rule = ruleOf(tag);
  if (rule === undefined && isOfPatient(tag) && !context.keepsCharacteristics) return undefined;
  switch (element.kind) {
    case 'fragments':
      return undefined;
    case 'sequence':
      return vr === 'SQ' ? cleanSequence(element, rule, context, depth) : undefined;
    case 'value': {
      if (element.bytes.length === 0) return rule?.action === 'remove' ? undefined : element;
      const isMixedUp = element.vr !== undefined && element.vr !== 'UN' && !areAlike(element.vr, vr);
      return vr === 'SQ' || isMixedUp ? undefined : cleanValue(element, vr, rule, context);
    }
  }
}

function wholePixels(element: DicomElement): DicomElement {
  if (element.kind === 'value' && element.bytes.length < element.statedBytes) {
    throw new TomaatError('BAD_VOXELS', 'The pixels are cut off: send the file again');
  }
  return element;
}

/**
 * Items keep their positions, even if emptied, because frames refer to them by position; a sequence of which nothing
 * is left is removed.
 */
function cleanSequence(
  element: SequenceElement,
  rule: Rule | undefined,
  context: Context,
  depth: number,
): SequenceElement | undefined {
  if (element.items.length === 0) return rule?.action === 'remove' ? undefined : element;
  switch (sequenceAction(element.tag, rule)) {
    case 'remove':
      return undefined;
    case 'empty':
      return { ...element, items: [] };
    case 'clean items': {
      const items = element.items.map((item) => cleanDataset(item, context, depth + 1));
      return items.every(({ size }) => size === 0) ? undefined : { ...element, items };
    }
  }
}

/** The action for a non-empty value. */
function cleanValue(
  element: ValueElement,
  vr: Vr,
  rule: Rule | undefined,
  context: Context,
): ValueElement | undefined {
  const replaced = (bytes: Uint8Array): ValueElement =>
    bytes === element.bytes ? element : { ...element, bytes, statedBytes: bytes.length };
  const { tag } = element;
  if (tag === tags.patientName || tag === tags.patientId) return replaced(asciiBytes(context.pseudonym.name));
  if (rule?.isTemporal && context.days !== undefined && (isDateOrTime(vr) || tag === timezone)) {
    return cleanDate(element, vr, rule, context.days, replaced);
  }
  if (rule !== undefined && !(rule.isCharacteristic && context.keepsCharacteristics)) {
    return byAction(element, vr, rule, context, replaced);
  }
  return byRepresentation(element, vr, context, replaced);
}

type Replaced = (bytes: Uint8Array) => ValueElement;

function byAction(
  element: ValueElement,
  vr: Vr,
  { action }: Rule,
  context: Context,
  replaced: Replaced,
): ValueElement | undefined {
  switch (action) {
    case 'remove':
      return undefined;
    case 'empty':
      return replaced(new Uint8Array(0));
    case 'replace':
      return replaced(vr === 'UI' ? mappedUids(element, context.mapUid) : dummyOf(vr));
    case 'replace UIDs':
      return vr === 'UI' ? replaced(mappedUids(element, context.mapUid)) : undefined;
  }
}

const timezone: Tag = 0x00080201;

/**
 * A date to be shifted. One that cannot be, because it is incomplete, is treated as without the option, except that
 * it keeps its place.
 */
function cleanDate(
  element: ValueElement,
  vr: Vr,
  rule: Rule | undefined,
  days: number,
  replaced: Replaced,
): ValueElement {
  if (element.tag === timezone) {
    const isOffset = valuesOf(element.bytes).every((value) => /^[-+]\d{4}$/.test(value));
    return isOffset ? element : replaced(new Uint8Array(0));
  }
  const moved = shiftDates(element.bytes, vr, days);
  return replaced(moved ?? (rule?.action === 'replace' ? dummyOf(vr) : new Uint8Array(0)));
}

/** Values that PS3.15 keeps, and attributes that are not in its table. */
function byRepresentation(
  element: ValueElement,
  vr: Vr,
  context: Context,
  replaced: Replaced,
): ValueElement | undefined {
  const { tag, bytes } = element;
  switch (vr) {
    case 'PN':
      return replaced(new Uint8Array(0));
    case 'DA':
    case 'DT':
    case 'TM':
      return context.days === undefined
        ? replaced(new Uint8Array(0))
        : cleanDate(element, vr, undefined, context.days, replaced);
    case 'UI':
      return replaced(mappedUids(element, context.mapUid));
    case 'LO':
    case 'SH': {
      const isKept =
        makers.has(tag) ||
        ((isTechnicalText(tag) || ruleOf(tag)?.isCharacteristic) &&
          !context.holdsIdentity(decodeText(bytes, context.characterSets)));
      return isKept ? element : replaced(new Uint8Array(0));
    }
    case 'UC':
      return tag === longCodeValue && !context.holdsIdentity(decodeText(bytes, context.characterSets))
        ? element
        : undefined;
    case 'UR':
      return tag === urnCodeValue && isCodeName(bytes) ? element : undefined;
    case 'AE':
    case 'LT':
    case 'ST':
    case 'UT':
    case 'UN':
    case 'SQ':
      return undefined;
    case 'OB':
      return waveforms.has(tag) ? element : undefined;
    default:
      return numbersOrCodes(element, vr, replaced);
  }
}

/**
 * A code in the form of two kinds that PS3.3 8.1 mentions, such as urn:oid:2.16.840.1; any other URI may name a
 * server or a person.
 */
function isCodeName(bytes: Uint8Array): boolean {
  const [name, ...more] = valuesOf(bytes);
  return more.length === 0 && name.length <= 80 && /^urn:(?:oid:[\d.]+|lex:[\w:.-]+)$/.test(name);
}

/** Manufacturer and model: a word that also occurs in a patient's name reveals nothing about the patient. */
const makers: ReadonlySet<Tag> = new Set([tags.manufacturer, 0x00081090]);
const longCodeValue: Tag = 0x00080119;
const urnCodeValue: Tag = 0x00080120;
/**
 * ChannelMinimumValue, ChannelMaximumValue, WaveformPaddingValue, WaveformData: other values of bytes (OB) may be
 * documents.
 */
const waveforms: ReadonlySet<Tag> = new Set([0x54000110, 0x54000112, 0x5400100a, 0x54001010]);

function numbersOrCodes(element: ValueElement, vr: Vr, replaced: Replaced): ValueElement | undefined {
  if (hasForm(vr)) return replaced(keepForm(element.bytes, vr));
  // "US or SS" and "OB or OW" are one VR in the dictionary and may be the other in the file.
  const written = element.vr === undefined || element.vr === 'UN' ? vr : element.vr;
  const size = numberBytes[written];
  return size !== undefined && element.bytes.length % size === 0 ? element : undefined;
}

/** The same bytes if all UIDs are the standard's own. */
function mappedUids({ tag, bytes }: ValueElement, mapUid: UidMapper): Uint8Array {
  const uids = valuesOf(bytes);
  const mapped = uids.map((uid) =>
    uid === '' || (!instances.has(tag) && isWellKnownUid(uid)) || isCodeSystem(tag, uid) ? uid : mapUid(uid),
  );
  return mapped.every((uid, i) => uid === uids[i]) ? bytes : asciiBytes(mapped.join('\\'), '\0');
}

/** UIDs that identify one object, study or series: never one of the standard. */
const instances: ReadonlySet<Tag> = new Set([
  tags.sopInstanceUid,
  tags.studyInstanceUid,
  tags.seriesInstanceUid,
  tags.referencedSopInstanceUid,
]);

const codingSchemeUid: Tag = 0x0008010c;

/** Code systems registered with HL7, such as that of SNOMED CT. */
const isCodeSystem = (tag: Tag, uid: string): boolean =>
  tag === codingSchemeUid && /^2\.16\.840\.1\.113883\.6\.\d{1,4}$/.test(uid);

/** Whether a value of one VR can be read as the other: both binary numbers, or both text. */
const areAlike = (a: Vr, b: Vr): boolean => a === b || (kindOf(a) === kindOf(b) && kindOf(a) !== 'other');

function kindOf(vr: Vr): 'binary' | 'text' | 'other' {
  if (numberBytes[vr] !== undefined) return 'binary';
  return ['CS', 'DS', 'IS', 'LO', 'SH', 'AS'].includes(vr) ? 'text' : 'other';
}

/**
 * PatientIdentityRemoved, DeidentificationMethod and its codes, LongitudinalTemporalInformationModified: overwritten
 * in any case.
 */
const marked: ReadonlySet<Tag> = new Set([0x00120062, 0x00120063, 0x00120064, 0x00280303]);

/** What was done, in the form that the standard requires (PS3.15 E.1.1, CID 7050). */
function marks({ days, keepsCharacteristics }: Context): Map<Tag, DicomElement> {
  const codes: [string, string][] = [
    ['113100', 'Basic Application Confidentiality Profile'],
    ...(days === undefined
      ? []
      : [['113107', 'Retain Longitudinal Temporal Information Modified Dates Option'] as [string, string]]),
    ...(keepsCharacteristics
      ? [['113108', 'Retain Patient Characteristics Option'] as [string, string]]
      : []),
    ['113111', 'Retain Safe Private Option'],
  ];
  const items = codes.map(
    ([value, meaning]) =>
      new Map([
        ascii(0x00080100, 'SH', value),
        ascii(0x00080102, 'SH', 'DCM'),
        ascii(0x00080104, 'LO', meaning),
      ]),
  );
  return new Map<Tag, DicomElement>([
    ascii(0x00120062, 'CS', 'YES'),
    ascii(0x00120063, 'LO', 'PS3.15 E Basic Profile by TOMAAT'),
    [0x00120064, { kind: 'sequence', tag: 0x00120064, vr: 'SQ', items, implicitItems: false }],
    ascii(0x00280303, 'CS', days === undefined ? 'REMOVED' : 'MODIFIED'),
  ]);
}

/** File meta information: only the transfer syntax of the original is kept (PS3.15 E.1.1, item 7). */
const metaOf = (dataset: Dataset, transferSyntax: string): Dataset =>
  fileMetaOf({
    sopClassUid: word(dataset, tags.sopClassUid),
    sopInstanceUid: word(dataset, tags.sopInstanceUid),
    transferSyntax: withSyntax(transferSyntax).transferSyntax,
  });

/** The transfer syntax of the output: a deflated file is not deflated again. */
function withSyntax(transferSyntax: string): Omit<DicomFile, 'meta' | 'dataset'> {
  const written =
    transferSyntax === transferSyntaxes.deflated ? transferSyntaxes.explicitLittleEndian : transferSyntax;
  return { transferSyntax: written, ...encodingOf(written) };
}

function ascii(tag: Tag, vr: Vr, text: string): [Tag, DicomElement] {
  const bytes = asciiBytes(text, vr === 'UI' ? '\0' : ' ');
  return [tag, { kind: 'value', tag, vr, bytes, littleEndian: true, statedBytes: bytes.length }];
}
