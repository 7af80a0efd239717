import { TomaatError } from '../errors.ts';
import { joinBytes } from '../formats/voxel-pieces.ts';
import { type Belonging, belongingOf, isSamePatient } from './belonging.ts';
import { type Dataset, type DicomFile, firstItem, itemsOf, number, numbers, word } from './dataset.ts';
import { encodeDataset } from './encode.ts';
import { parseDicom } from './parse.ts';
import { isSegmentation, planSegmentation } from './read-segmentation.ts';
import { liesOnSource } from './segmentation.ts';
import type { DicomSource, SliceReference, Vector } from './source.ts';
import { type Tag, tags } from './tags.ts';

/*
 * Reads a result back and compares it with the images that it was made of: the last look before it is filed under a
 * patient.
 */

/** What a result must agree with. */
export interface ResultOrigin {
  /** Of one of the images, from its own file. */
  readonly image: Belonging;
  readonly source: DicomSource;
  /** SOP Instance UIDs of the images. */
  readonly instances: ReadonlySet<string>;
  /** Other results that it may refer to: of the same prediction, or earlier ones. */
  readonly others: readonly Pick<Belonging, 'sopInstanceUid' | 'seriesUid'>[];
}

/**
 * Checks a result against its images: same patient, study and frame of reference; references only to those images, or
 * to the other results; each frame of a segmentation, and each contour, at the position of the image that it names.
 *
 * @returns whose it is
 * @throws TomaatError CONFLICT, which says what differs, without its value; errors of parseDicom()
 */
export function checkResult(bytes: Uint8Array, origin: ResultOrigin): Belonging {
  const file = parseDicom(bytes)!;
  const result = belongingOf(file);
  const { image, source } = origin;
  if (!isSamePatient(result, image)) throw differs('names another patient than the images');
  if (result.studyUid === '' || result.studyUid !== image.studyUid)
    throw differs('is of another study than the images');
  if (result.seriesUid === '' || result.seriesUid === image.seriesUid)
    throw differs('has the series of the images, and not one of its own');
  checkReferences(file.dataset, result, origin);
  const places = new Map(source.slices.map((slice) => [keyOf(slice), slice]));
  if (isSegmentation(file)) checkFrames(file, source, places);
  for (const structure of itemsOf(file.dataset, tags.roiContourSequence))
    for (const contour of itemsOf(structure, tags.contourSequence)) checkContour(contour, source, places);
  return result;
}

const differs = (what: string) =>
  new TomaatError(
    'CONFLICT',
    `A result ${what}. It was not stored. Report this, with the kind of the images and the version of TOMAAT.`,
  );

const keyOf = ({ sopInstanceUid, frameNumber }: Pick<SliceReference, 'sopInstanceUid' | 'frameNumber'>) =>
  `${sopInstanceUid} ${frameNumber ?? 1}`;

/** Every UID in it that names an image, a series, a study or a frame of reference. */
function checkReferences(dataset: Dataset, result: Belonging, origin: ResultOrigin): void {
  const { image, source, instances, others } = origin;
  const series = new Set([result.seriesUid, image.seriesUid, ...others.map(({ seriesUid }) => seriesUid)]);
  const objects = new Set([
    // An RT structure set refers to its study like to an object.
    image.studyUid,
    ...others.map(({ sopInstanceUid }) => sopInstanceUid),
  ]);
  const frame = word(source.dataset, tags.frameOfReferenceUid);
  const isAllowed: readonly (readonly [Tag, string, (uid: string) => boolean])[] = [
    [tags.referencedSopInstanceUid, 'an object', (uid) => instances.has(uid) || objects.has(uid)],
    [tags.seriesInstanceUid, 'a series', (uid) => series.has(uid)],
    [tags.studyInstanceUid, 'a study', (uid) => uid === image.studyUid],
    [tags.frameOfReferenceUid, 'a frame of reference', (uid) => frame === undefined || uid === frame],
    [
      tags.referencedFrameOfReferenceUid,
      'a frame of reference',
      (uid) => frame === undefined || uid === frame,
    ],
  ];
  for (const item of datasetsOf(dataset)) {
    for (const [tag, what, allows] of isAllowed) {
      const uid = word(item, tag);
      if (uid !== undefined && !allows(uid)) throw differs(`names ${what} other than those of the images`);
    }
  }
}

/** The data set and all items in it. */
function* datasetsOf(dataset: Dataset): Generator<Dataset> {
  yield dataset;
  for (const element of dataset.values())
    if (element.kind === 'sequence') for (const item of element.items) yield* datasetsOf(item);
}

type Places = ReadonlyMap<string, SliceReference>;

/** The slice that an item refers to. */
function placeOf(item: Dataset | undefined, places: Places): SliceReference {
  const sopInstanceUid = item && word(item, tags.referencedSopInstanceUid);
  const frameNumber = item && number(item, tags.referencedFrameNumber, 'IS');
  const slice = sopInstanceUid === undefined ? undefined : places.get(keyOf({ sopInstanceUid, frameNumber }));
  if (!slice) throw differs('has a part that names no image of the volume');
  return slice;
}

/** Positions in files have up to 16 characters. */
const toleranceMm = 0.001;

function checkFrames(file: DicomFile, source: DicomSource, places: Places): void {
  if (!liesOnSource(planSegmentation(file).grid, source))
    throw differs('does not lie on the grid of the images');
  for (const frame of itemsOf(file.dataset, tags.perFrameFunctionalGroupsSequence)) {
    const derived = firstItem(frame, tags.derivationImageSequence);
    const slice = placeOf(derived && firstItem(derived, tags.sourceImageSequence), places);
    const plane = firstItem(frame, tags.planePositionSequence) ?? new Map();
    const position = numbers(plane, tags.imagePositionPatient, 'DS') ?? [];
    const isThere = slice.position.every((at, axis) => Math.abs(at - position[axis]) <= toleranceMm);
    if (!isThere) throw differs('has a frame elsewhere than the image that it names');
  }
}

/** A contour must lie in the plane of its image, within the image. */
function checkContour(contour: Dataset, source: DicomSource, places: Places): void {
  const slice = placeOf(firstItem(contour, tags.contourImageSequence), places);
  const { rowDirection: row, columnDirection: column, pixelSpacing, dataset } = source;
  const normal: Vector = [
    row[1] * column[2] - row[2] * column[1],
    row[2] * column[0] - row[0] * column[2],
    row[0] * column[1] - row[1] * column[0],
  ];
  const extent = (tag: Tag, spacing: number) => (number(dataset, tag, 'US') ?? 0) * spacing;
  const [width, height] = [extent(tags.columns, pixelSpacing[1]), extent(tags.rows, pixelSpacing[0])];
  const points = numbers(contour, tags.contourData, 'DS') ?? [];
  const isBetween = (value: number, end: number, margin: number) => value >= -margin && value <= end + margin;
  for (let at = 0; at + 2 < points.length; at += 3) {
    const along = (axis: Vector) =>
      axis.reduce((sum, part, i) => sum + part * (points[at + i] - slice.position[i]), 0);
    const isIn =
      Math.abs(along(normal)) <= 0.05 &&
      isBetween(along(row), width, pixelSpacing[1]) &&
      isBetween(along(column), height, pixelSpacing[0]);
    if (!isIn) throw differs('has a contour outside of the image that it names');
  }
}

/** When a result was made: nothing of what it says of the patient. */
const times: ReadonlySet<Tag> = new Set([
  tags.instanceCreationDate,
  tags.instanceCreationTime,
  tags.seriesDate,
  tags.seriesTime,
  tags.contentDate,
  tags.contentTime,
  tags.structureSetDate,
  tags.structureSetTime,
]);

/** Whether two files are the same result, apart from when it was made. @throws TomaatError as parseDicom() */
export function isSameResult(a: Uint8Array, b: Uint8Array): boolean {
  const lasting = (bytes: Uint8Array) => {
    const { dataset, ...file } = parseDicom(bytes)!;
    const elements = [...dataset].filter(([tag]) => !times.has(tag));
    return { file, bytes: joinBytes(encodeDataset(new Map(elements), file)) };
  };
  const [one, other] = [lasting(a), lasting(b)];
  return (
    one.file.transferSyntax === other.file.transferSyntax &&
    one.bytes.length === other.bytes.length &&
    one.bytes.every((byte, i) => byte === other.bytes[i])
  );
}
