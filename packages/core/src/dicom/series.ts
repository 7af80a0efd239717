import { TomaatError } from '../errors.ts';
import { badHeader, defaultLimits, type ReadLimits } from '../formats/header.ts';
import { spacingOf } from '../geometry/affine.ts';
import { type Dataset, number, text, word } from './dataset.ts';
import type { DicomHeader, UnreadFile } from './dicom-files.ts';
import { type DicomImage, imagesOf } from './frames.ts';
import { hasPlace, isCapture, isLocalizer, otherObjectOf } from './object-kinds.ts';
import { type Stack, stackOf } from './stack.ts';
import { tagName, tags } from './tags.ts';

/** A series as the user sees it, and the volume that its images form. */
export interface DicomSeries {
  readonly uid: string;
  readonly studyUid: string;
  readonly number?: number;
  /** Decoded by the character set of the file. */
  readonly description?: string;
  /** Of its study, likewise. */
  readonly studyDescription?: string;
  readonly modality?: string;
  readonly bodyPart?: string;
  /** YYYY-MM-DD, of the series, the acquisition or the study: the first one present. */
  readonly date?: string;
  /** Number of images, or of frames for multi-frame files; copies of a file count once. */
  readonly imageCount: number;
  readonly columns?: number;
  readonly rows?: number;
  /** Slices of one frame. */
  readonly slices?: number;
  /** Distance between voxels along columns, rows and slices, mm. */
  readonly spacing?: readonly [x: number, y: number, z: number];
  /** Number of time points, echoes or b-values: the frames of a 4-D volume, otherwise 1. */
  readonly frames: number;
  /**
   * The kind of its images: only 'images' are intended as a volume; the others are listed so that messages can name
   * them.
   */
  readonly content: 'images' | 'localizer' | 'capture';
  /** Why it is not a volume. */
  readonly refusal?: TomaatError;
  /** In volume order: slices along z, then frames. In file order if it is not a volume. */
  readonly images: readonly DicomImage[];
  /** The position of the images; undefined exactly if there is a refusal. */
  readonly stack?: Stack;
}

export interface LeftOut {
  readonly name: string;
  readonly reason: string;
  /** What is wrong with a damaged DICOM file: it may be a slice of any of the series. */
  readonly fault?: TomaatError;
}

export interface SeriesList {
  /** Ordered by their numbers. */
  readonly series: readonly DicomSeries[];
  /** Files that belong to no volume, in the given order. */
  readonly leftOut: readonly LeftOut[];
}

/**
 * Sorts files into series and checks whether each is a volume. Two series are never mixed, and no image of a series
 * is left out except localizers, screen captures without a position in the body, and exact copies; these are listed,
 * as are files of other kinds.
 */
export function listSeries(
  headers: readonly (DicomHeader | UnreadFile)[],
  limits: ReadLimits = defaultLimits,
): SeriesList {
  const leftOut = new Map<DicomHeader | UnreadFile, Omit<LeftOut, 'name'>>();
  const groups = new Map<string, DicomHeader[]>();
  for (const header of headers) {
    const reason = reasonToLeaveOut(header);
    if (reason) {
      leftOut.set(header, reason);
      continue;
    }
    const { dataset } = (header as DicomHeader).dicom;
    const key = `${word(dataset, tags.studyInstanceUid) ?? ''} ${word(dataset, tags.seriesInstanceUid)}`;
    const group = groups.get(key);
    if (group) group.push(header as DicomHeader);
    else groups.set(key, [header as DicomHeader]);
  }
  const series = [...groups.values()].map((files) =>
    seriesOf(files, limits, (header, reason) => leftOut.set(header, { reason })),
  );
  return {
    series: series.sort((a, b) => (a.number ?? 0) - (b.number ?? 0) || compare(a.uid, b.uid)),
    leftOut: headers.flatMap((header) => {
      const found = leftOut.get(header);
      return found ? [{ name: header.name, ...found }] : [];
    }),
  };
}

const compare = (a: string, b: string) => Number(a > b) - Number(a < b);

function reasonToLeaveOut(header: DicomHeader | UnreadFile): Omit<LeftOut, 'name'> | undefined {
  if (header.kind === 'unread') {
    return header.fault.code === 'UNKNOWN_FORMAT'
      ? { reason: 'is not a DICOM file' }
      : { reason: `is damaged: ${header.fault.message}`, fault: header.fault };
  }
  const object = otherObjectOf(header);
  if (object !== undefined) return { reason: `is ${object}` };
  if (word(header.dicom.dataset, tags.seriesInstanceUid) === undefined) {
    const fault = badHeader(
      `${tagName(tags.seriesInstanceUid)} is missing, so that its series is not known: export the series again from the system that made it`,
    );
    return { reason: fault.message, fault };
  }
  return undefined;
}

type LeaveOut = (header: DicomHeader, reason: string) => void;

function seriesOf(files: readonly DicomHeader[], limits: ReadLimits, leaveOut: LeaveOut): DicomSeries {
  const found = withoutStrangers(files, leaveOut);
  const { kept } = found;
  let { content } = found;
  let images: DicomImage[] = [];
  let stack: Stack | undefined;
  let refusal: TomaatError | undefined;
  try {
    const distinct = withoutCopies(kept, leaveOut);
    images = distinct.flatMap(({ header, copies }) => imagesOf(header, copies));
    if (content !== 'images') throw notAVolume(content);
    stack = stackOf(images, limits);
  } catch (error) {
    if (!(error instanceof TomaatError)) throw error;
    refusal = error;
    if (content === 'images' && kept.every(isCapture)) {
      content = 'capture';
      for (const header of kept) leaveOut(header, 'is a secondary capture');
    }
  }
  const { dataset } = kept[0].dicom;
  return {
    ...describe(dataset),
    imageCount: images.length || kept.length,
    columns: images[0]?.format.columns,
    rows: images[0]?.format.rows,
    slices: stack?.size[2],
    spacing: stack && spacingOf(stack.affine),
    frames: stack?.frames.length ?? 1,
    content,
    refusal,
    images: stack?.frames.flat() ?? images,
    stack,
  };
}

/** The images that are intended as a volume; if there are none, all of them, and their kind. */
function withoutStrangers(
  files: readonly DicomHeader[],
  leaveOut: LeaveOut,
): { kept: readonly DicomHeader[]; content: DicomSeries['content'] } {
  const kinds = files.map((header) => ({
    header,
    isLocalizer: isLocalizer(header),
    isCapture: isCapture(header) && !hasPlace(header),
  }));
  for (const { header, isLocalizer: locates, isCapture: captures } of kinds) {
    if (locates) leaveOut(header, 'is a localizer (ImageType LOCALIZER)');
    else if (captures) leaveOut(header, 'is a secondary capture without a place in the body');
  }
  const kept = kinds.flatMap((kind) => (kind.isLocalizer || kind.isCapture ? [] : kind.header));
  if (kept.length > 0) return { kept, content: 'images' };
  return { kept: files, content: kinds[0].isLocalizer ? 'localizer' : 'capture' };
}

const notAVolume = (content: 'localizer' | 'capture') =>
  new TomaatError(
    'UNSUPPORTED_FORMAT',
    content === 'localizer'
      ? 'The series is a localizer, which shows where the slices of the others lie: send one of those'
      : 'The series is a secondary capture, pictures without a place in the body: send the series that they were made from',
  );

interface Distinct {
  readonly header: DicomHeader;
  readonly copies: readonly DicomHeader[];
}

/**
 * Each object once. Objects with the same UID and the same header count as copies until their pixels are read and
 * compared.
 * @throws TomaatError BAD_HEADER, if different objects have the same UID
 */
function withoutCopies(files: readonly DicomHeader[], leaveOut: LeaveOut): Distinct[] {
  const byUid = new Map<string, DicomHeader[]>();
  for (const header of files) {
    const uid = word(header.dicom.dataset, tags.sopInstanceUid);
    if (uid === undefined) {
      throw badHeader(
        `${tagName(tags.sopInstanceUid)} is missing: export the series again from the system that made it`,
      );
    }
    byUid.set(uid, [...(byUid.get(uid) ?? []), header]);
  }
  return [...byUid].map(([uid, [header, ...copies]]) => {
    for (const copy of copies) {
      if (!isSameHeader(header, copy)) throw sameUid(uid);
      leaveOut(copy, 'is a copy of another file');
    }
    return { header, copies };
  });
}

/** Different objects with the same UID: it is impossible to know which is meant. */
export const sameUid = (uid: string): TomaatError =>
  badHeader(
    `Different images of the series have the same ${tagName(tags.sopInstanceUid)} ${/^[\d.]{1,64}$/.test(uid) ? uid : ''}: send the series as it was exported, without changed copies`,
  );

function isSameHeader(a: DicomHeader, b: DicomHeader): boolean {
  if (a.file.sizeBytes !== b.file.sizeBytes || a.bytes.length !== b.bytes.length) return false;
  return a.bytes.every((byte, i) => byte === b.bytes[i]);
}

function describe(dataset: Dataset) {
  const date = [tags.seriesDate, tags.acquisitionDate, tags.studyDate]
    .map((tag) => /^(\d{4})\.?(\d\d)\.?(\d\d)$/.exec(word(dataset, tag) ?? ''))
    .find((found) => found !== null);
  return {
    uid: word(dataset, tags.seriesInstanceUid) ?? '',
    studyUid: word(dataset, tags.studyInstanceUid) ?? '',
    number: seriesNumber(dataset),
    description: text(dataset, tags.seriesDescription),
    studyDescription: text(dataset, tags.studyDescription),
    modality: word(dataset, tags.modality),
    bodyPart: word(dataset, tags.bodyPartExamined),
    date: date ? date.slice(1).join('-') : undefined,
  };
}

function seriesNumber(dataset: Dataset): number | undefined {
  try {
    return number(dataset, tags.seriesNumber, 'IS');
  } catch (error) {
    // An unreadable number only affects the sort order, which is not a reason to refuse the series.
    if (error instanceof TomaatError) return undefined;
    throw error;
  }
}
