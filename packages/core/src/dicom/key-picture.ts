import { TomaatError } from '../errors.ts';
import { determinant } from '../geometry/affine.ts';
import { labelPalette } from '../labels/label-palette.ts';
import { formatMl } from '../labels/measure.ts';
import { percentiles } from '../transforms/statistics.ts';
import type { NumericVoxels, Volume } from '../volume.ts';
import { ascii, binary, bytesElement, datasetOf, text } from './build.ts';
import { type DicomElement, word, words } from './dataset.ts';
import { type DrawnPicture, drawKeyPicture } from './key-picture-drawing.ts';
import { asciiOf, type Rgb, rgbOf } from './picture.ts';
import { type Predecessor, relatedSeries } from './predecessor.ts';
import {
  equipment,
  lacksForResults,
  lossyCompression,
  type Maker,
  patientAndStudy,
  sourceImage,
  times,
} from './result-modules.ts';
import type { SegmentLabel } from './segment-description.ts';
import { liesOnSource } from './segmentation.ts';
import { segmentVoxels } from './segmentation-pixels.ts';
import type { DicomSource, DisplayWindow, Vector } from './source.ts';
import { tags } from './tags.ts';
import { chooseTextCoding } from './text-coding.ts';
import { transferSyntaxes } from './transfer-syntaxes.ts';
import { createUids } from './uids.ts';
import type { DicomObject } from './write-file.ts';

/*
 * A key picture: the slice with the largest labelled area, with the outlines of its labels, as a colour picture that every PACS shows
 * (Secondary Capture, PS3.3 A.8.1). It is for reading beside the images; measurements are made on those.
 */

export interface KeyPictureOptions {
  /** The meaning of the values. Values that are not listed are named “label 7”. */
  labels: readonly SegmentLabel[];
  /**
   * Values of a slice of the series by its index, columns fastest, as readVolume() gives them; an image that is displayed inverted
   * (MONOCHROME1) is inverted by the picture.
   */
  readSlice(index: number): Promise<NumericVoxels>;
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

const secondaryCapture = '1.2.840.10008.5.1.4.1.1.7';

/** After those of the other results. */
const seriesNumber = 1004;

const notForDiagnosis = 'Not for diagnosis';

/**
 * Creates the key picture of a label map on the grid of its source.
 *
 * @throws TomaatError APP_OUTPUT if the label map is not on the grid of the source; BAD_INPUT if it is not a label map with values from
 *   0 to 65535; NOT_ACCEPTABLE if the source lacks what a result refers to; errors of `readSlice`
 */
export async function buildKeyPicture(
  labelMap: Volume,
  source: DicomSource,
  options: KeyPictureOptions,
): Promise<DicomObject> {
  const lack = lacksForResults(source);
  if (lack)
    throw new TomaatError('NOT_ACCEPTABLE', `${lack} Take the result as nii.gz.`, { field: 'format' });
  if (!liesOnSource(labelMap, source)) {
    throw new TomaatError(
      'APP_OUTPUT',
      `The label map (${labelMap.size.join(' × ')}) does not lie on the grid of the DICOM series, so that its outlines cannot be drawn on the images. Resample it to that grid first, or write it as nii.gz.`,
    );
  }
  const counts = countLabels(labelMap);
  const slice = counts.largestSlice;
  const drawn = draw(labelMap, source, options, counts, await options.readSlice(slice));
  const createUid = createUids(options.seed);
  const derivation = `Slice ${slice + 1} of ${source.slices.length} with outlines of labels found by ${options.maker.name} ${options.maker.version}. ${notForDiagnosis}.`;
  const coding = chooseTextCoding(words(source.dataset, tags.specificCharacterSet), [
    options.description,
    derivation,
  ]);
  const sopInstanceUid = createUid(`${options.role} key picture instance`);
  return {
    sopClassUid: secondaryCapture,
    sopInstanceUid,
    transferSyntax: transferSyntaxes.explicitLittleEndian,
    dataset: datasetOf(
      ...patientAndStudy(source, coding),
      ...equipment(options.maker, coding),
      ...times(source, options.time ?? new Date()),
      ascii(tags.sopClassUid, 'UI', secondaryCapture),
      ascii(tags.sopInstanceUid, 'UI', sopInstanceUid),
      ascii(tags.modality, 'CS', 'OT'),
      ascii(tags.conversionType, 'CS', 'WSD'),
      ascii(tags.seriesInstanceUid, 'UI', createUid(`${options.role} key picture series`)),
      ascii(tags.seriesNumber, 'IS', seriesNumber),
      text(tags.seriesDescription, 'LO', options.description, coding),
      ...relatedSeries(options.predecessor, coding),
      // Of type 2C: empty, because the picture may show both sides of a paired organ.
      ascii(tags.laterality, 'CS', ''),
      ascii(tags.instanceNumber, 'IS', 1),
      ascii(tags.imageType, 'CS', 'DERIVED', 'SECONDARY'),
      text(tags.derivationDescription, 'ST', derivation, coding),
      sourceImage(source.slices[slice], coding),
      ascii(tags.patientOrientation, 'CS', lettersOf(source.rowDirection), lettersOf(source.columnDirection)),
      ...lossyCompression(source, coding),
      ...pixels(drawn, source),
    ),
  };
}

/** Image Pixel module (PS3.3 C.7.6.3), and whether texts in the image are those of its source. */
function pixels({ picture, pixelSpacing }: DrawnPicture, { dataset }: DicomSource): DicomElement[] {
  return [
    ascii(tags.burnedInAnnotation, 'CS', word(dataset, tags.burnedInAnnotation) === 'YES' ? 'YES' : 'NO'),
    binary(tags.samplesPerPixel, 'US', 3),
    ascii(tags.photometricInterpretation, 'CS', 'RGB'),
    binary(tags.planarConfiguration, 'US', 0),
    binary(tags.rows, 'US', picture.height),
    binary(tags.columns, 'US', picture.width),
    ascii(tags.pixelSpacing, 'DS', ...pixelSpacing),
    binary(tags.bitsAllocated, 'US', 8),
    binary(tags.bitsStored, 'US', 8),
    binary(tags.highBit, 'US', 7),
    binary(tags.pixelRepresentation, 'US', 0),
    bytesElement(tags.pixelData, 'OB', picture.rgb),
  ];
}

interface Counts {
  /** The slice with most labelled pixels, the first of several; the middle one where nothing is labelled. */
  readonly largestSlice: number;
  /** Its pixels. */
  readonly slice: Uint8Array | Uint16Array;
  /** Voxels of each value in the whole label map. */
  readonly voxels: ReadonlyMap<number, number>;
  /** Pixels of each value in the slice, the largest first. */
  readonly pixels: readonly (readonly [value: number, count: number])[];
}

function countLabels(labelMap: Volume): Counts {
  const all = segmentVoxels(labelMap) as Uint8Array | Uint16Array;
  const [nx, ny, nz] = labelMap.size;
  const voxels = new Uint32Array(65_536);
  let [largestSlice, most] = [nz >> 1, 0];
  for (let slice = 0, i = 0; slice < nz; slice++) {
    let labelled = 0;
    for (const end = (slice + 1) * nx * ny; i < end; i++) {
      voxels[all[i]]++;
      if (all[i] !== 0) labelled++;
    }
    if (labelled > most) [largestSlice, most] = [slice, labelled];
  }
  const slice = all.subarray(largestSlice * nx * ny, (largestSlice + 1) * nx * ny);
  const pixels = new Map<number, number>();
  for (const value of slice) if (value !== 0) pixels.set(value, (pixels.get(value) ?? 0) + 1);
  const counted = [...voxels.entries()].filter(([value, count]) => value !== 0 && count > 0);
  return {
    largestSlice,
    slice,
    voxels: new Map(counted),
    pixels: [...pixels].sort((a, b) => b[1] - a[1] || a[0] - b[0]),
  };
}

const amber: Rgb = [255, 200, 60];
const white: Rgb = [235, 235, 235];
const pale: Rgb = [170, 170, 170];

function draw(
  { size, affine }: Volume,
  source: DicomSource,
  { labels, maker }: KeyPictureOptions,
  counts: Counts,
  values: NumericVoxels,
): DrawnPicture {
  const [columns, rows, count] = size;
  const range = rangeOf(values, source.slices[counts.largestSlice].window);
  const isInverted = word(source.dataset, tags.photometricInterpretation) === 'MONOCHROME1';
  const [right, bottom] = [lettersOf(source.rowDirection), lettersOf(source.columnDirection)];
  const voxelMl = Math.abs(determinant(affine)) / 1000;
  const style = stylesOf(labels, [...counts.voxels.keys()]);
  return drawKeyPicture({
    grey: greyOf(values, range, isInverted),
    labels: counts.slice,
    columns,
    rows,
    spacing: [source.pixelSpacing[1], source.pixelSpacing[0]],
    colorOf: (label) => style(label).color,
    heading: [
      { text: notForDiagnosis, color: amber },
      {
        text: asciiOf(maker.name) ?? maker.id,
        end: ` ${asciiOf(maker.version)?.slice(0, longestVersion) ?? ''}`,
        color: white,
      },
      {
        text: `Slice ${counts.largestSlice + 1} of ${count}   W ${brief(range.width)}  L ${brief(range.center)}`,
        color: pale,
      },
    ],
    legend: legendOf(counts, voxelMl, style),
    edges: { right, bottom, left: oppositeOf(right), top: oppositeOf(bottom) },
  });
}

const longestVersion = 16;

const brief = (value: number) => String(Number(value.toPrecision(3)));

const mostLabels = 12;

/** The labels of the largest areas in the slice, in their order in the list, each with the volume of all of its voxels. */
function legendOf({ pixels, voxels }: Counts, voxelMl: number, style: ReturnType<typeof stylesOf>) {
  const largest = pixels.slice(0, mostLabels).map(([value]) => ({ value, ...style(value) }));
  const shown = largest
    .sort((a, b) => a.order - b.order)
    .map(({ value, name, color }) => ({
      text: name,
      end: `  ${formatMl((voxels.get(value) ?? 0) * voxelMl)} ml`,
      color: white,
      box: color,
    }));
  const remarks = [
    ...(pixels.length > mostLabels ? [`and ${pixels.length - mostLabels} more in this slice`] : []),
    ...(voxels.size > pixels.length ? [`${voxels.size - pixels.length} more in other slices`] : []),
    ...(voxels.size === 0 ? ['No label found'] : []),
  ];
  return [...shown, ...remarks.map((remark) => ({ text: remark, color: pale }))];
}

/** Place in the list, name in ASCII and colour of each value: as in the list, or from the palette in its order. */
export function stylesOf(labels: readonly SegmentLabel[], present: readonly number[]) {
  const known = new Set(labels.map(({ value }) => value));
  const all: readonly SegmentLabel[] = [
    ...labels,
    ...present.filter((value) => !known.has(value)).map((value) => ({ value, name: `label ${value}` })),
  ];
  const styles = new Map(
    all.map(({ value, name, color }, i) => [
      value,
      {
        order: i,
        name: asciiOf(name) ?? `label ${value}`,
        color: rgbOf(color ?? labelPalette[i % labelPalette.length]),
      },
    ]),
  );
  return (value: number) => styles.get(value)!;
}

/** The window of the image, unless hardly any of its pixels lies in it; else between its 1st and 99.5th percentile. */
export function rangeOf(values: NumericVoxels, window: DisplayWindow | undefined): DisplayWindow {
  if (window) {
    const [low, high] = [window.center - window.width / 2, window.center + window.width / 2];
    let within = 0;
    for (let i = 0; i < values.length; i++) if (values[i] > low && values[i] < high) within++;
    if (within >= values.length * leastWithin) return window;
  }
  const [low, high] = percentiles(values, [1, 99.5]);
  return { center: (low + high) / 2, width: Math.max(high - low, Number.MIN_VALUE), shape: 'LINEAR_EXACT' };
}

const leastWithin = 0.01;

/** Brightness from 0 to 255 (PS3.3 C.11.2.1.2.1, C.11.2.1.3). */
export function greyOf(
  values: NumericVoxels,
  { center, width, shape }: DisplayWindow,
  isInverted: boolean,
): Uint8Array {
  const shadeOf = (value: number): number => {
    if (shape === 'SIGMOID') return 1 / (1 + Math.exp((-4 * (value - center)) / width));
    // LINEAR maps the values of width pixels, LINEAR_EXACT the interval of that width.
    const [middle, span] = shape === 'LINEAR' ? [center - 0.5, Math.max(width - 1, 1e-9)] : [center, width];
    return (value - middle) / span + 0.5;
  };
  return Uint8Array.from(values as ArrayLike<number>, (value) => {
    const shade = Math.min(1, Math.max(0, shadeOf(value) || 0));
    return Math.round(255 * (isInverted ? 1 - shade : shade));
  });
}

const letterPairs = [
  ['L', 'R'],
  ['P', 'A'],
  ['H', 'F'],
] as const;

/** Components of a direction less than this (15 degrees) are left out. */
const leastComponent = Math.sin(Math.PI / 12);

/** Where a direction (LPS) leads in the patient, the main letter first (PS3.3 C.7.6.1.1.1). */
const lettersOf = (direction: Vector): string =>
  direction
    .map((value, axis) => ({ value, letter: letterPairs[axis][value > 0 ? 0 : 1] }))
    .filter(({ value }) => Math.abs(value) > leastComponent)
    .sort((a, b) => Math.abs(b.value) - Math.abs(a.value))
    .map(({ letter }) => letter)
    .join('');

const opposites = new Map(letterPairs.flatMap(([a, b]) => [[a, b] as const, [b, a] as const]));

const oppositeOf = (letters: string): string =>
  Array.from(letters, (letter) => opposites.get(letter as 'L')).join('');
