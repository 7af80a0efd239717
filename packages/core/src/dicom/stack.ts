import { badHeader, checkAffine, checkSizes, type ReadLimits } from '../formats/header.ts';
import type { Affine } from '../geometry/affine.ts';
import type { Size } from '../volume.ts';
import type { DicomImage, FrameKeys } from './frames.ts';
import type { Vector } from './source.ts';
import { tagName, tags } from './tags.ts';
import { splitFrames } from './time-points.ts';

/** Images that form a regular grid. */
export interface Stack {
  readonly size: Size;
  /** Voxel index → RAS+ mm: x along a row, y along a column, z in slice order; sheared if the gantry was tilted. */
  readonly affine: Affine;
  /** For each frame (time point, echo …), the images along z. */
  readonly frames: readonly (readonly DicomImage[])[];
  /** What distinguishes the frames. */
  readonly frameKeys: readonly (keyof FrameKeys)[];
}

/** An image with a known position. */
type PlacedImage = DicomImage &
  Required<Pick<DicomImage, 'position' | 'rowDirection' | 'columnDirection' | 'pixelSpacing'>>;

/**
 * Arranges the images in a grid. Slices are ordered by their positions along the normal (row × column), regardless of
 * names, numbers or dimension indices. All corners of every image must be at their grid positions to within 2 % of
 * the slice distance, which is less than the error of any interpolation. Positions written with two decimals may be
 * off by √3 · 0.01 mm; therefore 0.02 mm is tolerated, but never more than a tenth of the distance.
 *
 * @throws TomaatError BAD_HEADER, if images have no position, or do not form a grid: which ones, and where, in mm;
 *   TOO_MANY_VOXELS
 */
export function stackOf(images: readonly DicomImage[], limits: ReadLimits): Stack {
  const placed = images.map(placedImage);
  checkAlike(placed);
  const [first] = placed;
  const normal = cross(first.rowDirection, first.columnDirection);
  const along = (image: PlacedImage) => dot(image.position, normal);
  const sorted = [...placed].sort((a, b) => along(a) - along(b));
  const positions = groupByPosition(sorted, along);
  const { frames, frameKeys } = splitFrames(positions, (at) => millimetres(along(positions[at][0])));
  const { columns, rows } = first.format;
  const sizes = checkSizes(
    [columns, rows, positions.length, frames.length],
    (i) => ['Columns', 'Rows', 'the number of slices', 'the number of frames'][i],
    limits,
  );
  const slices = positions.map(([image]) => image);
  const step = stepOf(slices, normal);
  checkStep(slices, step, along);
  const affine = affineOf(slices[0], step);
  for (const frame of frames) checkCorners(frame as readonly PlacedImage[], slices[0], step, along);
  return { size: [sizes[0], sizes[1], sizes[2]], affine, frames, frameKeys };
}

function placedImage(image: DicomImage): PlacedImage {
  const { position, rowDirection, columnDirection, pixelSpacing } = image;
  if (position && rowDirection && columnDirection && pixelSpacing) {
    return { ...image, position, rowDirection, columnDirection, pixelSpacing };
  }
  const missing = !position
    ? tags.imagePositionPatient
    : !rowDirection
      ? tags.imageOrientationPatient
      : tags.pixelSpacing;
  throw badHeader(
    `Images of the series have no ${tagName(missing)}, so that their place in the body is not known: export the series again from the system that made it`,
  );
}

/**
 * Images of one series whose directions differ by more than this count as two series. Smaller differences are judged
 * by the corners.
 */
const sameDirection = 1e-3;

/** Refuses images with different orientations, matrix sizes or pixel spacings. */
function checkAlike(images: readonly PlacedImage[]): void {
  const kinds: { image: PlacedImage; count: number }[] = [];
  for (const image of images) {
    const kind = kinds.find((one) => differenceOf(one.image, image) === undefined);
    if (kind) kind.count++;
    else kinds.push({ image, count: 1 });
    if (kinds.length > 16) break;
  }
  if (kinds.length === 1) return;
  const what = differenceOf(kinds[0].image, kinds[1].image);
  throw badHeader(
    `The images of the series have different ${what}: ${kinds.map(({ image, count }) => `${count} of ${describe(image, what)}`).join(', ')}. Send those of one kind`,
  );
}

type Difference = 'matrix sizes' | 'orientations' | 'pixel spacings';

function differenceOf(a: PlacedImage, b: PlacedImage): Difference | undefined {
  if (a.format.rows !== b.format.rows || a.format.columns !== b.format.columns) return 'matrix sizes';
  const isTurned = (u: Vector, v: Vector) => length(subtract(u, v)) > sameDirection;
  if (isTurned(a.rowDirection, b.rowDirection) || isTurned(a.columnDirection, b.columnDirection))
    return 'orientations';
  const isScaled = (i: 0 | 1) => Math.abs(a.pixelSpacing[i] - b.pixelSpacing[i]) > 1e-3 * a.pixelSpacing[i];
  return isScaled(0) || isScaled(1) ? 'pixel spacings' : undefined;
}

function describe(
  { format, rowDirection, columnDirection, pixelSpacing }: PlacedImage,
  what: Difference | undefined,
): string {
  if (what === 'matrix sizes') return `${format.columns} × ${format.rows} pixels`;
  if (what === 'pixel spacings') return `${pixelSpacing.join('\\')} mm`;
  return `(${[...rowDirection, ...columnDirection].map((value) => Number(value.toFixed(3))).join('\\')})`;
}

/** Images closer than this along the normal are at the same position: less than any scanner's slice distance. */
const samePositionMm = (image: PlacedImage) => Math.min(0.01, 0.1 * Math.min(...image.pixelSpacing));

function groupByPosition(
  sorted: readonly PlacedImage[],
  along: (image: PlacedImage) => number,
): PlacedImage[][] {
  const positions: PlacedImage[][] = [];
  const tolerance = samePositionMm(sorted[0]);
  for (const image of sorted) {
    const last = positions.at(-1);
    if (!last || along(image) - along(last[0]) >= tolerance) {
      positions.push([image]);
      continue;
    }
    const apart = length(subtract(image.position, last[0].position));
    if (apart > 10 * tolerance) {
      throw badHeader(
        `Two images lie side by side in one plane, ${millimetres(apart)} apart, at ${millimetres(along(image))} along the normal: send the images of one volume alone`,
      );
    }
    last.push(image);
  }
  return positions;
}

/** From one slice to the next, LPS mm. A single image uses its slice thickness. */
function stepOf(slices: readonly PlacedImage[], normal: Vector): Vector {
  const last = slices[slices.length - 1];
  if (slices.length > 1) return scale(subtract(last.position, slices[0].position), 1 / (slices.length - 1));
  const { sliceThickness } = last;
  if (sliceThickness === undefined) {
    throw badHeader(
      `The series is a single image without ${tagName(tags.sliceThickness)}, so that its extent is not known: send all images of the volume`,
    );
  }
  return scale(normal, sliceThickness);
}

const toleranceOf = (step: Vector) => Math.max(0.02 * length(step), Math.min(0.02, 0.1 * length(step)));

/** Refuses slices that are not evenly spaced on a straight line, and reports the position. */
function checkStep(
  slices: readonly PlacedImage[],
  step: Vector,
  along: (image: PlacedImage) => number,
): void {
  const [{ position: start }] = slices;
  const tolerance = toleranceOf(step);
  const offLine = slices.map(({ position }, k) => length(subtract(position, add(start, scale(step, k)))));
  if (offLine.every((distance) => distance <= tolerance)) return;
  const gaps = slices.slice(1).map((slice, k) => along(slice) - along(slices[k]));
  const median = [...gaps].sort((a, b) => a - b)[gaps.length >> 1];
  const between = (k: number) =>
    `between slice ${k + 1} at ${millimetres(along(slices[k]))} and slice ${k + 2} at ${millimetres(along(slices[k + 1]))} (of ${slices.length}, along the normal)`;
  const hole = gaps.findIndex((gap) => gap > 1.5 * median);
  if (hole >= 0) {
    const missing = Math.max(1, Math.round(gaps[hole] / median) - 1);
    throw badHeader(
      `The series has a gap of ${millimetres(gaps[hole])} ${between(hole)}, where slices are ${millimetres(median)} apart: ` +
        `${missing === 1 ? 'a slice is' : `${missing} slices are`} missing there. Send the series with all of its images`,
    );
  }
  const widest = gaps.reduce(
    (best, gap, k) => (Math.abs(gap - median) > Math.abs(gaps[best] - median) ? k : best),
    0,
  );
  const worst = offLine.reduce((best, distance, k) => (distance > offLine[best] ? k : best), 0);
  throw badHeader(
    Math.abs(gaps[widest] - median) > tolerance
      ? `The slices are not evenly spaced: ${millimetres(gaps[widest])} ${between(widest)}, but ${millimetres(median)} elsewhere. Send a series of even spacing, or resample it and send a NIfTI file`
      : `The slices do not lie on a straight line: slice ${worst + 1} of ${slices.length}, at ${millimetres(along(slices[worst]))} along the normal, is off by ${millimetres(offLine[worst])}. Send the images of one volume alone`,
  );
}

/** Refuses images with a corner that is not at its grid position. */
function checkCorners(
  slices: readonly PlacedImage[],
  first: PlacedImage,
  step: Vector,
  along: (image: PlacedImage) => number,
): void {
  const tolerance = toleranceOf(step);
  for (const [k, image] of slices.entries()) {
    const move = add(first.position, scale(step, k));
    for (const corner of [0, 1, 2, 3]) {
      const expected = add(move, cornerOf(first, corner));
      const found = add(image.position, cornerOf(image, corner));
      const distance = length(subtract(found, expected));
      // Rounding errors of the first and of this image may add up to twice as much.
      if (distance > 2 * tolerance) {
        throw badHeader(
          `Slice ${k + 1} of ${slices.length}, at ${millimetres(along(image))} along the normal, is turned or moved against the first one: a corner is off by ${millimetres(distance)}. Send the images of one volume alone`,
        );
      }
    }
  }
}

function cornerOf(
  { format, rowDirection, columnDirection, pixelSpacing }: PlacedImage,
  corner: number,
): Vector {
  const x = corner & 1 ? (format.columns - 1) * pixelSpacing[1] : 0;
  const y = corner & 2 ? (format.rows - 1) * pixelSpacing[0] : 0;
  return add(scale(rowDirection, x), scale(columnDirection, y));
}

/** PS3.3 C.7.6.2.1.1, equation C.7.6.2.1-1, with the step as the third column, and x and y negated: LPS to RAS. */
function affineOf(
  { position, rowDirection, columnDirection, pixelSpacing }: PlacedImage,
  step: Vector,
): Affine {
  const x = scale(rowDirection, pixelSpacing[1]);
  const y = scale(columnDirection, pixelSpacing[0]);
  const row = (i: 0 | 1 | 2, sign: number) => [x[i], y[i], step[i], position[i]].map((value) => sign * value);
  return checkAffine(
    [...row(0, -1), ...row(1, -1), ...row(2, 1), 0, 0, 0, 1],
    'The place of the images (position, orientation and pixel spacing)',
  );
}

const millimetres = (value: number) => `${Number(value.toFixed(3))} mm`;

const dot = (a: Vector, b: Vector) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a: Vector, b: Vector): Vector => [
  a[1] * b[2] - a[2] * b[1],
  a[2] * b[0] - a[0] * b[2],
  a[0] * b[1] - a[1] * b[0],
];
const add = (a: Vector, b: Vector): Vector => [a[0] + b[0], a[1] + b[1], a[2] + b[2]];
const subtract = (a: Vector, b: Vector): Vector => [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
const scale = (a: Vector, factor: number): Vector => [a[0] * factor, a[1] * factor, a[2] * factor];
const length = (a: Vector) => Math.hypot(...a);
