import { TomaatError } from '../errors.ts';
import { badHeader } from '../formats/header.ts';
import { type Dataset, firstItem, itemsOf, number, numbers, word, words } from './dataset.ts';
import type { DicomHeader } from './dicom-files.ts';
import { type PixelFormat, pixelFormatOf } from './pixel-format.ts';
import type { DisplayWindow, Vector } from './source.ts';
import { type Tag, tagName, tags } from './tags.ts';

/**
 * One image of a series: a single-image file, or a frame of a multi-frame file. Coordinates are those of DICOM: LPS,
 * mm.
 */
export interface DicomImage {
  readonly header: DicomHeader;
  /** Files with the same SOP instance UID and the same header: they count once, and are compared when they are read. */
  readonly copies: readonly DicomHeader[];
  readonly sopClassUid: string;
  readonly sopInstanceUid: string;
  /** Starts at 0. */
  readonly frame: number;
  /** The number of images in the file. */
  readonly frameCount: number;
  readonly format: PixelFormat;
  /** Centre of the first pixel (ImagePositionPatient). */
  readonly position?: Vector;
  /** Unit vectors along a row and along a column. */
  readonly rowDirection?: Vector;
  readonly columnDirection?: Vector;
  /** Distance between neighbouring rows, and between neighbouring columns, mm. */
  readonly pixelSpacing?: readonly [rows: number, columns: number];
  readonly sliceThickness?: number;
  /** value = slope × stored + intercept. */
  readonly slope: number;
  readonly intercept: number;
  readonly window?: DisplayWindow;
  /** Attributes that distinguish images at the same position. */
  readonly keys: FrameKeys;
}

/** Undefined if the file does not say it. */
export interface FrameKeys {
  readonly temporalPosition?: number;
  readonly bValue?: number;
  /** Echo time, ms, or the echo number. */
  readonly echo?: number;
  readonly acquisition?: number;
  readonly triggerTime?: number;
  readonly instance?: number;
}

/**
 * The images of a file: one, or one for each frame. Position, orientation, spacing and rescaling of a frame are in
 * its own functional groups, in the shared ones, or in the data set (PS3.3 C.7.6.16).
 *
 * @throws TomaatError BAD_HEADER, if a number is malformed, a vector or spacing is invalid, or frames lack their
 *   functional groups; UNSUPPORTED_FORMAT, for colour images, mosaics, frames without positions, lookup tables
 */
export function imagesOf(header: DicomHeader, copies: readonly DicomHeader[] = []): DicomImage[] {
  const { dataset } = header.dicom;
  if (!header.pixels) throw badHeader('The object has no pixels: leave it out');
  if (words(dataset, tags.imageType).includes('MOSAIC')) {
    throw new TomaatError(
      'UNSUPPORTED_FORMAT',
      'The images are mosaics, which hold all slices in one picture: export the series as enhanced DICOM, or convert it with dcm2niix and send the NIfTI file',
    );
  }
  const format = pixelFormatOf(dataset, header.pixels);
  const groups = functionalGroups(dataset);
  return groups.map((group, frame) => ({
    header,
    copies,
    sopClassUid: word(dataset, tags.sopClassUid) ?? '',
    sopInstanceUid: word(dataset, tags.sopInstanceUid) ?? '',
    frame,
    frameCount: groups.length,
    format,
    ...placeOf(group),
    ...rescaleOf(group),
    window: windowOf(group),
    keys: keysOf(group),
  }));
}

/** The location of the attributes of one frame. */
export interface FrameGroups {
  readonly dataset: Dataset;
  /** Undefined if the file has one image. */
  readonly own?: Dataset;
  readonly shared?: Dataset;
}

function functionalGroups(dataset: Dataset): FrameGroups[] {
  const frames = number(dataset, tags.numberOfFrames, 'IS') ?? 1;
  if (!Number.isInteger(frames) || frames < 1) {
    throw badHeader(
      `${tagName(tags.numberOfFrames)} is ${frames}: export the file again from the system that made it`,
    );
  }
  const perFrame = itemsOf(dataset, tags.perFrameFunctionalGroupsSequence);
  const shared = firstItem(dataset, tags.sharedFunctionalGroupsSequence);
  if (perFrame.length === 0) {
    if (frames === 1) return [{ dataset, shared }];
    const modality = word(dataset, tags.modality) ?? '';
    throw new TomaatError(
      'UNSUPPORTED_FORMAT',
      `The file holds ${frames} frames${/^[A-Z]{1,8}$/.test(modality) ? ` (${modality})` : ''} that have no position each: ` +
        'export it as an enhanced multi-frame image or as one file for each slice, or convert it with the program that made it and send a NIfTI file',
    );
  }
  if (perFrame.length !== frames) {
    throw badHeader(
      `The file says that it has ${frames} frames, but describes ${perFrame.length}: export it again from the system that made it`,
    );
  }
  return perFrame.map((own) => ({ dataset, own, shared }));
}

/** The functional groups of an image. */
export function groupsOf({ header, frame }: Pick<DicomImage, 'header' | 'frame'>): FrameGroups {
  const { dataset } = header.dicom;
  return {
    dataset,
    own: itemsOf(dataset, tags.perFrameFunctionalGroupsSequence)[frame],
    shared: firstItem(dataset, tags.sharedFunctionalGroupsSequence),
  };
}

/** The data set with an attribute of a functional group: the frame's, the shared one, or the file's. */
export function holderOf({ dataset, own, shared }: FrameGroups, group: Tag, tag: Tag): Dataset {
  const has = (one: Dataset | undefined) => (one?.has(tag) ? one : undefined);
  return has(own && firstItem(own, group)) ?? has(shared && firstItem(shared, group)) ?? dataset;
}

const groupNumbers = (groups: FrameGroups, group: Tag, tag: Tag) =>
  numbers(holderOf(groups, group, tag), tag, 'DS');
const groupNumber = (groups: FrameGroups, group: Tag, tag: Tag) => groupNumbers(groups, group, tag)?.[0];

function placeOf(groups: FrameGroups) {
  const position = groupNumbers(groups, tags.planePositionSequence, tags.imagePositionPatient);
  const orientation = groupNumbers(groups, tags.planeOrientationSequence, tags.imageOrientationPatient);
  const spacing = groupNumbers(groups, tags.pixelMeasuresSequence, tags.pixelSpacing);
  const thickness = groupNumber(groups, tags.pixelMeasuresSequence, tags.sliceThickness);
  if (position && position.length !== 3) throw wrongCount(tags.imagePositionPatient, 3, position.length);
  if (orientation && orientation.length !== 6)
    throw wrongCount(tags.imageOrientationPatient, 6, orientation.length);
  if (spacing && (spacing.length !== 2 || Math.min(...spacing) <= 0)) {
    throw badHeader(
      `${tagName(tags.pixelSpacing)} is ${spacing.join('\\')}, not two lengths: export the series again from the system that made it`,
    );
  }
  return {
    position: position && vector(position),
    ...(orientation && directionsOf(orientation)),
    pixelSpacing: spacing && ([spacing[0], spacing[1]] as const),
    sliceThickness: thickness !== undefined && thickness > 0 ? thickness : undefined,
  };
}

const wrongCount = (tag: Tag, expected: number, found: number) =>
  badHeader(
    `${tagName(tag)} has ${found} numbers instead of ${expected}: export the series again from the system that made it`,
  );

const vector = ([x, y, z]: readonly number[]): Vector => [x, y, z];

/** Directions written with three decimals are off by up to this. */
const directionTolerance = 5e-3;

/** Rounding makes directions slightly longer or shorter than 1: they are normalized, or all pixels would shift. */
function directionsOf(orientation: readonly number[]): { rowDirection: Vector; columnDirection: Vector } {
  const [row, column] = [orientation.slice(0, 3), orientation.slice(3)];
  const lengths = [Math.hypot(...row), Math.hypot(...column)];
  const cosine = row.reduce((sum, value, i) => sum + value * column[i], 0);
  if (
    lengths.some((length) => Math.abs(length - 1) > directionTolerance) ||
    Math.abs(cosine) > directionTolerance
  ) {
    throw badHeader(
      `${tagName(tags.imageOrientationPatient)} is ${orientation.join('\\')}, not two perpendicular unit vectors: export the series again from the system that made it`,
    );
  }
  return {
    rowDirection: vector(row.map((value) => value / lengths[0])),
    columnDirection: vector(column.map((value) => value / lengths[1])),
  };
}

/**
 * The rule that converts stored values, for each frame, since signs, slopes and intercepts may differ between frames.
 */
function rescaleOf(groups: FrameGroups): { slope: number; intercept: number } {
  if (itemsOf(groups.dataset, tags.modalityLutSequence).length > 0) {
    throw new TomaatError(
      'UNSUPPORTED_FORMAT',
      `The values are defined by a lookup table (${tagName(tags.modalityLutSequence)}), which is not applied: export the series with RescaleSlope and RescaleIntercept`,
    );
  }
  const sequence = tags.pixelValueTransformationSequence;
  const slope = groupNumber(groups, sequence, tags.rescaleSlope) ?? 1;
  const intercept = groupNumber(groups, sequence, tags.rescaleIntercept) ?? 0;
  if (slope === 0) {
    throw badHeader(
      `${tagName(tags.rescaleSlope)} is 0, which makes all values equal: export the series again from the system that made it`,
    );
  }
  return { slope, intercept };
}

/** The first window of an image. One that cannot be is no reason to refuse the image. */
function windowOf(groups: FrameGroups): DisplayWindow | undefined {
  const holder = holderOf(groups, tags.frameVoiLutSequence, tags.windowWidth);
  try {
    const center = number(holder, tags.windowCenter, 'DS');
    const width = number(holder, tags.windowWidth, 'DS');
    const shape = word(holder, tags.voiLutFunction);
    if (center === undefined || width === undefined || !(width > 0)) return undefined;
    return { center, width, shape: shape === 'LINEAR_EXACT' || shape === 'SIGMOID' ? shape : 'LINEAR' };
  } catch (error) {
    if (error instanceof TomaatError) return undefined;
    throw error;
  }
}

function keysOf(groups: FrameGroups): FrameKeys {
  const { dataset, own } = groups;
  const content = own && firstItem(own, tags.frameContentSequence);
  const isEnhanced = own !== undefined;
  return {
    temporalPosition:
      (content && number(content, tags.temporalPositionIndex, 'UL')) ??
      number(dataset, tags.temporalPositionIdentifier, 'IS'),
    bValue: groupNumber(groups, tags.mrDiffusionSequence, tags.diffusionBValue),
    echo:
      groupNumber(groups, tags.mrEchoSequence, tags.effectiveEchoTime) ??
      number(dataset, tags.echoTime, 'DS') ??
      number(dataset, tags.echoNumbers, 'IS'),
    acquisition:
      (content && number(content, tags.frameAcquisitionNumber, 'US')) ??
      number(dataset, tags.acquisitionNumber, 'IS'),
    triggerTime:
      groupNumber(groups, tags.cardiacSynchronizationSequence, tags.nominalCardiacTriggerDelayTime) ??
      number(dataset, tags.triggerTime, 'DS'),
    instance: isEnhanced ? undefined : number(dataset, tags.instanceNumber, 'IS'),
  };
}
