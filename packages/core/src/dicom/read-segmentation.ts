import { TomaatError } from '../errors.ts';
import { badHeader, defaultLimits, type ReadLimits } from '../formats/header.ts';
import { type Affine, applyAffine, lpsToRas, multiply } from '../geometry/affine.ts';
import { inverseAffine } from '../geometry/grid.ts';
import { createVoxels, type Grid, type Size, type Volume, voxelCount } from '../volume.ts';
import {
  type Dataset,
  type DicomFile,
  firstItem,
  itemsOf,
  number,
  numbers,
  unsignedShort,
  word,
} from './dataset.ts';
import { isAtVoxel } from './frame-place.ts';
import { parseDicom } from './parse.ts';
import { privateNumbers, privateTags } from './private-block.ts';
import { type ReadSegment, readSegment, type SegmentLabel } from './segment-description.ts';
import { openFrames } from './segmentation-frames.ts';
import { type Tag, tags } from './tags.ts';

/* A DICOM segmentation as a label map, with each frame at its position. */

export interface ReadSegmentation {
  /** uint8 or uint16; 0 where there is no segment. */
  readonly labelMap: Volume;
  /** In the order of the file, without the background. */
  readonly labels: readonly SegmentLabel[];
}

/** Whether a file is a segmentation. */
export const isSegmentation = ({ dataset }: DicomFile): boolean =>
  word(dataset, tags.modality) === 'SEG' && dataset.has(tags.segmentSequence);

/**
 * Reads a segmentation of the type BINARY or LABELMAP.
 *
 * For files of this program, the grid is the one in the private block. Otherwise it extends from the first to the
 * last frame along the slice normal, with the slice distance given in the file if positions are multiples of it, and
 * slices without a frame are background. Values are those of the original label map for files of this program,
 * otherwise the segment numbers.
 *
 * @throws TomaatError UNSUPPORTED_FORMAT for FRACTIONAL segments, segments that overlap in a voxel, frames in several
 *   directions, and compressions other than RLE; BAD_HEADER, BAD_VOXELS for damaged files; TOO_MANY_VOXELS
 */
export function readSegmentation(file: DicomFile, limits: ReadLimits = defaultLimits): ReadSegmentation {
  const { type, segments, values, frames, grid, slices, voxelType } = planSegmentation(file, limits);
  const voxels = createVoxels(voxelType, voxelCount(grid)) as Uint8Array | Uint16Array;
  const [columns, rows] = grid.size;
  const perSlice = columns * rows;
  const { addBinary, readLabels } = openFrames(file, type, frames.length, [columns, rows]);
  for (const [frame, { segmentNumber }] of frames.entries()) {
    const target = voxels.subarray(slices[frame] * perSlice, (slices[frame] + 1) * perSlice);
    if (type === 'LABELMAP') {
      readLabels(frame, target, values);
      continue;
    }
    const value = values.get(segmentNumber!);
    if (value === undefined) throw damaged(`Frame ${frame + 1} names a segment that is not described`);
    const other = addBinary(frame, target, value);
    if (other !== undefined) throw overlap(values, other, value);
  }
  return {
    labelMap: { ...grid, components: 1, voxels },
    labels: segments.map(({ number, ...label }) => ({ ...label, value: values.get(number)! })),
  };
}

/** What the header of a segmentation says of its label map. */
export interface SegmentationPlan extends Placed {
  readonly type: 'BINARY' | 'LABELMAP';
  /** Without the background. */
  readonly segments: readonly ReadSegment[];
  /** The value of each segment number. */
  readonly values: ReadonlyMap<number, number>;
  readonly frames: readonly PlacedFrame[];
  readonly voxelType: 'uint8' | 'uint16';
}

/**
 * Everything about the label map of a segmentation but its voxels; the pixels need not be there.
 *
 * @throws TomaatError as readSegmentation(), except those about pixels
 */
export function planSegmentation(
  { dataset }: Pick<DicomFile, 'dataset'>,
  limits: ReadLimits = defaultLimits,
): SegmentationPlan {
  const type = typeOf(dataset);
  const items = itemsOf(dataset, tags.segmentSequence);
  if (items.length > mostSegments + 1) throw damaged(`The file describes ${items.length} segments`);
  const segments = items
    .map((item, i) => readSegment(item, unsignedShort(item, tags.segmentNumber) ?? i + 1, dataset))
    // The background of a LABELMAP; no frame of a BINARY one can have this number.
    .filter(({ number }) => number !== 0);
  const frames = framesOf(dataset, type);
  const pixels = { columns: unsignedShort(dataset, tags.columns), rows: unsignedShort(dataset, tags.rows) };
  if (!pixels.columns || !pixels.rows) throw damaged('Rows or Columns are missing');
  const size = [pixels.columns, pixels.rows] as const;
  const placed = statedGrid(dataset, size, frames) ?? spannedGrid(dataset, size, frames);
  if (voxelCount(placed.grid) > limits.maxVoxels) {
    throw new TomaatError(
      'TOO_MANY_VOXELS',
      `The segmentation has ${placed.grid.size.join(' × ')} voxels (at most ${limits.maxVoxels}). Send a smaller part of it.`,
    );
  }
  const values = valuesOf(segments);
  const largest = Math.max(0, ...values.values());
  return { ...placed, type, segments, values, frames, voxelType: largest < 256 ? 'uint8' : 'uint16' };
}

/** Reads the bytes of a whole file; see `readSegmentation()`. UNKNOWN_FORMAT if it is not a DICOM file. */
export const readSegmentationFile = (bytes: Uint8Array, limits?: ReadLimits): ReadSegmentation =>
  readSegmentation(parseDicom(bytes)!, limits);

const damaged = (what: string) =>
  badHeader(`${what}: export the segmentation again from the program that made it`);

/** SegmentNumber is an unsigned short. */
const mostSegments = 65_535;

function typeOf(dataset: Dataset): 'BINARY' | 'LABELMAP' {
  const type = word(dataset, tags.segmentationType);
  if (type === 'BINARY' || type === 'LABELMAP') return type;
  if (type === 'FRACTIONAL') {
    throw new TomaatError(
      'UNSUPPORTED_FORMAT',
      'The segmentation is FRACTIONAL: its pixels are probabilities, not labels. Threshold it and export it as BINARY, with highdicom or 3D Slicer.',
    );
  }
  throw damaged('The file states no type of segmentation');
}

/**
 * The number of each segment except the background, and its value in the label map: its own, or, if those are not
 * valid and distinct label values, all by their numbers.
 */
function valuesOf(segments: readonly ReadSegment[]): Map<number, number> {
  const isUsable =
    segments.every(({ value }) => value !== 0) &&
    new Set(segments.map(({ value }) => value)).size === segments.length;
  const values = new Map(segments.map(({ number, value }) => [number, isUsable ? value : number]));
  if (values.size < segments.length) throw damaged('Two segments have the same number');
  if ([...values.values()].some((value) => value > mostSegments))
    throw damaged(`A segment has a number above ${mostSegments}`);
  return values;
}

interface PlacedFrame {
  /** Centre of the first pixel, LPS mm. */
  readonly position: readonly number[];
  readonly segmentNumber?: number;
}

function framesOf(dataset: Dataset, type: 'BINARY' | 'LABELMAP'): PlacedFrame[] {
  const shared = firstItem(dataset, tags.sharedFunctionalGroupsSequence) ?? new Map();
  const frames = itemsOf(dataset, tags.perFrameFunctionalGroupsSequence);
  const stated = number(dataset, tags.numberOfFrames, 'IS');
  if (frames.length === 0 || frames.length !== stated)
    throw damaged(`The file describes ${frames.length} frames and states ${stated ?? 'no number of them'}`);
  return frames.map((frame, i) => {
    const group = (tag: Tag) => firstItem(frame, tag) ?? firstItem(shared, tag) ?? new Map();
    const position = numbers(group(tags.planePositionSequence), tags.imagePositionPatient, 'DS');
    if (position?.length !== 3) {
      throw new TomaatError(
        'UNSUPPORTED_FORMAT',
        `Frame ${i + 1} of the segmentation has no position in the patient. Export it for a series of slices.`,
      );
    }
    const segmentNumber = unsignedShort(
      group(tags.segmentIdentificationSequence),
      tags.referencedSegmentNumber,
    );
    if (type === 'BINARY' && segmentNumber === undefined) throw damaged(`Frame ${i + 1} names no segment`);
    return { position, segmentNumber };
  });
}

/** A grid, and the slice of each frame on it. */
interface Placed {
  readonly grid: Grid;
  readonly slices: readonly number[];
}

/** The grid stored in files of this program, unless the frames are elsewhere: another program has then changed them. */
function statedGrid(
  dataset: Dataset,
  [columns, rows]: readonly [number, number],
  frames: readonly PlacedFrame[],
): Placed | undefined {
  const size = privateNumbers(dataset, privateTags.size, 'UL');
  const affine = privateNumbers(dataset, privateTags.affine, 'FD');
  if (size?.length !== 3 || affine?.length !== 12 || size[0] !== columns || size[1] !== rows)
    return undefined;
  return placeOn({ size: [columns, rows, size[2]], affine: [...affine, 0, 0, 0, 1] }, frames);
}

/** Frames on a grid in LPS; undefined if one is not on it. */
function placeOn(lps: Grid, frames: readonly PlacedFrame[]): Placed | undefined {
  const toIndex = inverseAffine(lps.affine);
  const slices: number[] = [];
  for (const { position } of frames) {
    const index = applyAffine(toIndex, [position[0], position[1], position[2]]);
    const slice = Math.round(index[2]);
    if (!isAtVoxel(lps, index, [0, 0, slice]) || slice < 0 || slice >= lps.size[2]) return undefined;
    slices.push(slice);
  }
  return { grid: { size: lps.size, affine: multiply(lpsToRas, lps.affine) }, slices };
}

/** The grid that the frames span. */
function spannedGrid(
  dataset: Dataset,
  [columns, rows]: readonly [number, number],
  frames: readonly PlacedFrame[],
): Placed {
  const { orientation, spacing, distance } = geometryOf(dataset);
  const [rx, ry, rz, cx, cy, cz] = orientation;
  const normal = [ry * cz - rz * cy, rz * cx - rx * cz, rx * cy - ry * cx];
  const height = ({ position }: PlacedFrame) =>
    position.reduce((sum, value, i) => sum + value * normal[i], 0);
  const ordered = [...frames].sort((a, b) => height(a) - height(b));
  const [first, last] = [ordered[0], ordered[ordered.length - 1]];
  const span = height(last) - height(first);
  const { step, count } = stepOf(
    ordered.map((frame) => height(frame) - height(first)),
    distance,
  );
  const along = [0, 1, 2].map((r) =>
    count > 1 ? (last.position[r] - first.position[r]) / (count - 1) : normal[r] * step,
  );
  const affine: Affine = [
    ...[0, 1, 2].flatMap((r) => [
      orientation[r] * spacing[1],
      orientation[r + 3] * spacing[0],
      along[r],
      first.position[r],
    ]),
    ...[0, 0, 0, 1],
  ];
  const size: Size = [columns, rows, count];
  const placed = placeOn({ size, affine }, frames);
  if (placed) return placed;
  throw new TomaatError(
    'UNSUPPORTED_FORMAT',
    `The frames of the segmentation do not lie at regular distances along ${span.toFixed(1)} mm, so that they form no volume. Resample it to a regular grid first, with 3D Slicer for instance.`,
  );
}

/** The maximum deviation of a distance from a multiple of the step, in steps. */
const regularity = 0.1;

/** The slice distance (mm) and the number of slices, given heights in ascending order from 0. */
function stepOf(heights: readonly number[], stated: number | undefined): { step: number; count: number } {
  const span = heights[heights.length - 1];
  const gaps = heights.slice(1).map((height, i) => height - heights[i]);
  // Frames of several segments in one slice.
  const isSame = (stated ?? span) * regularity;
  const between = gaps.filter((gap) => gap > Math.min(isSame, 0.01));
  if (between.length === 0) return { step: stated ?? 1, count: 1 };
  const isMultiple = (step: number) =>
    between.every((gap) => Math.abs(gap / step - Math.round(gap / step)) <= regularity && gap / step > 0.5);
  const smallest = between.reduce((a, b) => Math.min(a, b));
  const step = stated !== undefined && isMultiple(stated) ? stated : smallest;
  return { step, count: Math.round(span / step) + 1 };
}

/** Orientation, pixel spacing and slice distance, which are common to all frames. */
function geometryOf(dataset: Dataset): { orientation: number[]; spacing: number[]; distance?: number } {
  const shared = firstItem(dataset, tags.sharedFunctionalGroupsSequence) ?? new Map();
  const frames = itemsOf(dataset, tags.perFrameFunctionalGroupsSequence);
  const of = (group: Tag, tag: Tag) => {
    const all = firstItem(shared, group) ? [shared] : frames;
    const values = all.map((item) => numbers(firstItem(item, group) ?? new Map(), tag, 'DS') ?? []);
    const isSame = values.every((other) => other.every((value, i) => Math.abs(value - values[0][i]) < 1e-4));
    if (isSame) return values[0];
    throw new TomaatError(
      'UNSUPPORTED_FORMAT',
      'The frames of the segmentation have several orientations or pixel sizes. Export one for each series of slices.',
    );
  };
  const orientation = of(tags.planeOrientationSequence, tags.imageOrientationPatient);
  const spacing = of(tags.pixelMeasuresSequence, tags.pixelSpacing);
  if (orientation.length !== 6 || spacing.length !== 2 || !spacing.every((value) => value > 0))
    throw damaged('The orientation of the frames or the size of their pixels is missing or wrong');
  const [distance] = [tags.spacingBetweenSlices, tags.sliceThickness]
    .map((tag) => of(tags.pixelMeasuresSequence, tag)[0])
    .filter((value) => value > 0);
  return { orientation, spacing, distance };
}

/** Reports the numbers of the segments: names in a file are untrusted text, which does not belong in a message. */
function overlap(values: ReadonlyMap<number, number>, ...both: readonly [number, number]): TomaatError {
  const numbersOf = both.map((value) => [...values.keys()].find((number) => values.get(number) === value));
  return new TomaatError(
    'UNSUPPORTED_FORMAT',
    `The segments ${numbersOf.join(' and ')} overlap, and a label map has one label a voxel. Export each segment as a file of its own.`,
  );
}
