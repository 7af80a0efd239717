import { TomaatError } from '../errors.ts';
import { applyAffine, determinant, lpsToRas, multiply, spacingOf } from '../geometry/affine.ts';
import { inverseAffine } from '../geometry/grid.ts';
import { type LabelVoxels, labelTypeFor } from '../labels/label-map.ts';
import type { Grid, Volume } from '../volume.ts';
import { ascii, binary, bytesElement, datasetOf, sequence, text } from './build.ts';
import { type Dataset, type DicomElement, unsignedShort, words } from './dataset.ts';
import { isAtVoxel } from './frame-place.ts';
import { type Predecessor, relatedSeries } from './predecessor.ts';
import { privateBlock, privateTags } from './private-block.ts';
import {
  checkSource,
  derivedFrom,
  equipment,
  frameOfReference,
  lossyCompression,
  type Maker,
  patientAndStudy,
  referencedSeries,
  times,
} from './result-modules.ts';
import { describeSegment, textsOf } from './segment-description.ts';
import {
  identityOf,
  type SegmentationIdentity,
  type SegmentationIdentityOptions,
  type SegmentationType,
} from './segmentation-identity.ts';
import {
  labelFrames,
  packBinaryFrames,
  type SegmentFrame,
  segmentVoxels,
  valuesInSlices,
} from './segmentation-pixels.ts';
import type { DicomSource, Vector } from './source.ts';
import { tags } from './tags.ts';
import { chooseTextCoding, type TextCoding } from './text-coding.ts';
import { transferSyntaxes } from './transfer-syntaxes.ts';
import { type CreateUid, createUids } from './uids.ts';
import type { DicomObject } from './write-file.ts';

/*
 * A label map as a DICOM segmentation (PS3.3 A.51, C.8.20), with each frame at the position of the image it is
 * derived from.
 */

export interface SegmentationOptions extends SegmentationIdentityOptions {
  maker: Maker;
  /** The description of the series. */
  description: string;
  /** Of a LABELMAP; 'rle' if missing. */
  compression?: 'none' | 'rle';
  /** Of the result; now if missing. */
  time?: Date;
  /** An earlier result that this one takes the place of. */
  predecessor?: Predecessor;
}

/** Series numbers of results start here, after those that scanners use. */
const firstSeriesNumber = 1000;

/**
 * Creates the segmentation of a label map on the grid of its source.
 *
 * Every label of the list is a segment, in order, whether or not a voxel has it: that a structure was not found is a
 * finding, and its number is the same for every patient. (highdicom does the same with the given segments.) BINARY
 * omits frames without a pixel; a label map without any label has one frame, which an image requires.
 *
 * @throws TomaatError APP_OUTPUT if the label map is not on the grid of the source; BAD_INPUT if it is not a label
 *   map with values from 0 to 65535; NOT_ACCEPTABLE if the source lacks what a result refers to (`lacksForResults()`)
 */
export async function buildSegmentation(
  labelMap: Volume,
  source: DicomSource,
  options: SegmentationOptions,
): Promise<DicomObject> {
  checkSource(source, 'nii.gz');
  checkPlace(labelMap, source);
  const voxels = segmentVoxels(labelMap);
  const present = valuesInSlices(voxels, labelMap.size);
  const createUid = createUids(options.seed);
  const identity = identityOf(labelMap, present, options, createUid);
  const coding = chooseTextCoding(words(source.dataset, tags.specificCharacterSet), [
    ...identity.segments.flatMap(({ label }) => textsOf(label)),
    ...[options.description, options.maker.name, options.maker.version],
  ]);
  const context: Context = { labelMap, voxels, source, options, identity, present, coding, createUid };
  const { type, sopClassUid, sopInstanceUid } = identity;
  const { pixels, frames } = type === 'BINARY' ? binaryPixels(context) : labelMapPixels(context);
  return {
    sopClassUid,
    sopInstanceUid,
    transferSyntax:
      type === 'LABELMAP' && options.compression !== 'none'
        ? transferSyntaxes.rleLossless
        : transferSyntaxes.explicitLittleEndian,
    dataset: datasetOf(
      ...patientAndStudy(source, coding),
      ...frameOfReference(source, createUid),
      ...equipment(options.maker, coding),
      ...times(source, options.time ?? new Date()),
      ...seriesAndInstance(context),
      ...imageModule(context, frames.length),
      ...segmentModule(context),
      ...functionalGroups(context, frames),
      ...privateGrid(labelMap),
      pixels,
    ),
  };
}

interface Context {
  readonly labelMap: Volume;
  readonly voxels: LabelVoxels;
  readonly source: DicomSource;
  readonly options: SegmentationOptions;
  readonly identity: SegmentationIdentity;
  /** The values in each slice. */
  readonly present: readonly (readonly number[])[];
  readonly coding: TextCoding;
  readonly createUid: CreateUid;
}

/**
 * Checks that the voxels of a volume coincide with those of the images: a segmentation takes its position from them.
 */
export function liesOnSource(grid: Grid, { dataset, slices, ...source }: DicomSource): boolean {
  const { size, affine } = grid;
  const hasSize =
    size[0] === unsignedShort(dataset, tags.columns) &&
    size[1] === unsignedShort(dataset, tags.rows) &&
    size[2] === slices.length;
  const toIndex = multiply(inverseAffine(affine), lpsToRas);
  const isOn = (slice: number, x: number, y: number) => {
    const [right, down] = [x * source.pixelSpacing[1], y * source.pixelSpacing[0]];
    const place = (r: number) =>
      slices[slice].position[r] + source.rowDirection[r] * right + source.columnDirection[r] * down;
    const index = applyAffine(toIndex, [place(0), place(1), place(2)]);
    return isAtVoxel(grid, index, [x, y, slice]);
  };
  const [x, y] = [size[0] - 1, size[1] - 1];
  return hasSize && slices.every((_, k) => isOn(k, 0, 0) && isOn(k, x, 0) && isOn(k, 0, y));
}

/** @throws TomaatError APP_OUTPUT if the label map is not on the grid of the source */
export function checkPlace(labelMap: Grid, source: DicomSource): void {
  if (liesOnSource(labelMap, source)) return;
  const { dataset, slices } = source;
  const [columns, rows] = [tags.columns, tags.rows].map((tag) => unsignedShort(dataset, tag));
  throw new TomaatError(
    'APP_OUTPUT',
    `The label map (${labelMap.size.join(' × ')}) does not lie on the grid of the DICOM series (${columns} × ${rows} × ${slices.length}), so that no DICOM result for its images can be made of it. Resample it to that grid first, or write it as nii.gz.`,
  );
}

function seriesAndInstance({ options, coding, identity, source }: Context): DicomElement[] {
  return [
    ascii(tags.sopClassUid, 'UI', identity.sopClassUid),
    ascii(tags.sopInstanceUid, 'UI', identity.sopInstanceUid),
    ascii(tags.modality, 'CS', 'SEG'),
    ascii(tags.seriesInstanceUid, 'UI', identity.seriesInstanceUid),
    ascii(tags.seriesNumber, 'IS', firstSeriesNumber),
    text(tags.seriesDescription, 'LO', options.description, coding),
    ascii(tags.instanceNumber, 'IS', 1),
    referencedSeries(source),
    ...relatedSeries(options.predecessor, coding),
    ascii(tags.contentLabel, 'CS', 'SEGMENTATION'),
    text(tags.contentDescription, 'LO', options.description, coding),
    text(tags.contentCreatorName, 'PN', 'TOMAAT', coding),
  ];
}

/** Segmentation image (PS3.3 C.8.20.2): how the pixels are stored. */
function imageModule({ labelMap, source, coding, identity }: Context, frames: number): DicomElement[] {
  const { type } = identity;
  const bits = type === 'BINARY' ? 1 : 8 * bytesPerLabel(identity);
  return [
    ascii(tags.imageType, 'CS', 'DERIVED', 'PRIMARY'),
    binary(tags.samplesPerPixel, 'US', 1),
    ascii(tags.photometricInterpretation, 'CS', 'MONOCHROME2'),
    ascii(tags.numberOfFrames, 'IS', frames),
    binary(tags.rows, 'US', labelMap.size[1]),
    binary(tags.columns, 'US', labelMap.size[0]),
    binary(tags.bitsAllocated, 'US', bits),
    binary(tags.bitsStored, 'US', bits),
    binary(tags.highBit, 'US', bits - 1),
    binary(tags.pixelRepresentation, 'US', 0),
    ...lossyCompression(source, coding),
    ...(type === 'LABELMAP'
      ? [binary(tags.pixelPaddingValue, 'US', 0), ascii(tags.presentationLutShape, 'CS', 'IDENTITY')]
      : []),
  ];
}

const bytesPerLabel = ({ segments }: SegmentationIdentity): 1 | 2 =>
  labelTypeFor(segments.map(({ label }) => label.value)) === 'uint8' ? 1 : 2;

function segmentModule({ identity, options, coding }: Context): DicomElement[] {
  const items = identity.segments.map(({ label, number, trackingUid }) =>
    describeSegment(label, number, trackingUid, options.maker, coding),
  );
  return [
    ascii(tags.segmentationType, 'CS', identity.type),
    ascii(tags.segmentsOverlap, 'CS', 'NO'),
    sequence(tags.segmentSequence, ...items),
  ];
}

/** A frame of the result, by the index of its slice; for BINARY also the number of its segment. */
interface Frame {
  readonly slice: number;
  readonly segmentNumber?: number;
}

function binaryPixels({ voxels, labelMap, identity, present }: Context): {
  pixels: DicomElement;
  frames: Frame[];
} {
  const { segments } = identity;
  const slicesOf = new Map<number, number[]>(segments.map(({ label }) => [label.value, []]));
  for (const [slice, values] of present.entries())
    for (const value of values) slicesOf.get(value)?.push(slice);
  const planned: SegmentFrame[] = segments.flatMap(({ label: { value } }) =>
    slicesOf.get(value)!.map((slice) => ({ value, slice })),
  );
  if (planned.length === 0) planned.push({ value: segments[0].label.value, slice: 0 });
  const numberOf = new Map(segments.map(({ label, number }) => [label.value, number]));
  return {
    pixels: bytesElement(tags.pixelData, 'OB', packBinaryFrames(voxels, labelMap.size, planned)),
    frames: planned.map(({ value, slice }) => ({ slice, segmentNumber: numberOf.get(value) })),
  };
}

function labelMapPixels({ voxels, labelMap, identity, options }: Context): {
  pixels: DicomElement;
  frames: Frame[];
} {
  const bytesPerSample = bytesPerLabel(identity);
  const encoded = labelFrames(voxels, labelMap.size, bytesPerSample, options.compression ?? 'rle');
  return {
    pixels:
      'bytes' in encoded
        ? bytesElement(tags.pixelData, bytesPerSample === 1 ? 'OB' : 'OW', encoded.bytes)
        : { kind: 'fragments', tag: tags.pixelData, vr: 'OB', ...encoded },
    frames: Array.from({ length: labelMap.size[2] }, (_, slice) => ({ slice })),
  };
}

/** Where the frames are, what they show and what they are derived from (PS3.3 C.7.6.16, C.7.6.17). */
function functionalGroups(context: Context, frames: readonly Frame[]): DicomElement[] {
  const { source, coding, createUid, options, labelMap } = context;
  const { type } = context.identity;
  const organization = createUid(`${options.role} dimensions`);
  const slices = [...new Set(frames.map(({ slice }) => slice))].sort((a, b) => a - b);
  const positionIndex = new Map(slices.map((slice, i) => [slice, i + 1]));
  // The same elements for all frames of a slice or segment.
  const ofSlice = new Map(
    slices.map((slice) => [
      slice,
      [
        derivedFrom(source.slices[slice], coding),
        sequence(
          tags.planePositionSequence,
          datasetOf(ascii(tags.imagePositionPatient, 'DS', ...source.slices[slice].position)),
        ),
      ],
    ]),
  );
  const ofSegment = new Map(
    frames.map(({ segmentNumber: number }) => [
      number,
      number === undefined
        ? undefined
        : sequence(
            tags.segmentIdentificationSequence,
            datasetOf(binary(tags.referencedSegmentNumber, 'US', number)),
          ),
    ]),
  );
  const perFrame = frames.map(({ slice, segmentNumber }) => {
    const index = [...(segmentNumber === undefined ? [] : [segmentNumber]), positionIndex.get(slice)!];
    const content = datasetOf(binary(tags.dimensionIndexValues, 'UL', ...index));
    return datasetOf(
      sequence(tags.frameContentSequence, content),
      ...ofSlice.get(slice)!,
      ofSegment.get(segmentNumber),
    );
  });
  return [
    ...dimensions(organization, type, coding),
    ...(type === 'LABELMAP' && isBox(labelMap) ? [ascii(tags.dimensionOrganizationType, 'CS', '3D')] : []),
    sequence(tags.sharedFunctionalGroupsSequence, sharedGroups(source, labelMap)),
    sequence(tags.perFrameFunctionalGroupsSequence, ...perFrame),
  ];
}

/** The dimensions that index the frames: the segment, except for a LABELMAP, then the position. */
function dimensions(organization: string, type: SegmentationType, coding: TextCoding): DicomElement[] {
  const dimension = (pointer: number, group: number, label: string) =>
    datasetOf(
      ascii(tags.dimensionOrganizationUid, 'UI', organization),
      binary(tags.dimensionIndexPointer, 'AT', pointer),
      binary(tags.functionalGroupPointer, 'AT', group),
      text(tags.dimensionDescriptionLabel, 'LO', label, coding),
    );
  const segment = dimension(tags.referencedSegmentNumber, tags.segmentIdentificationSequence, 'Segment');
  const position = dimension(tags.imagePositionPatient, tags.planePositionSequence, 'Position');
  return [
    sequence(
      tags.dimensionOrganizationSequence,
      datasetOf(ascii(tags.dimensionOrganizationUid, 'UI', organization)),
    ),
    sequence(tags.dimensionIndexSequence, ...(type === 'BINARY' ? [segment] : []), position),
  ];
}

/**
 * Orientation and measures of all frames. Slices are as thick as their distance: labels fill the space between them.
 */
function sharedGroups(
  { rowDirection, columnDirection, pixelSpacing }: DicomSource,
  labelMap: Volume,
): Dataset {
  const thickness = sliceDistance(labelMap);
  return datasetOf(
    sequence(
      tags.planeOrientationSequence,
      datasetOf(ascii(tags.imageOrientationPatient, 'DS', ...rowDirection, ...columnDirection)),
    ),
    sequence(
      tags.pixelMeasuresSequence,
      datasetOf(
        ascii(tags.sliceThickness, 'DS', thickness),
        ascii(tags.spacingBetweenSlices, 'DS', thickness),
        ascii(tags.pixelSpacing, 'DS', ...pixelSpacing),
      ),
    ),
  );
}

/**
 * Distance between the planes of neighbouring slices, mm: along their normal, shorter than the step if the gantry was
 * tilted.
 */
function sliceDistance({ affine }: Volume): number {
  const column = (c: number): Vector => [affine[c], affine[4 + c], affine[8 + c]];
  const [[ax, ay, az], [bx, by, bz]] = [column(0), column(1)];
  const area = Math.hypot(ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx);
  // Without the last digits, which are noise from the division.
  return Number((Math.abs(determinant(affine)) / area).toPrecision(12));
}

/** Whether slices are straight above each other, unlike those of a tilted gantry. */
function isBox({ affine }: Volume): boolean {
  return Math.abs(sliceDistance({ affine } as Volume) / spacingOf(affine)[2] - 1) < 1e-4;
}

function privateGrid({ size, affine }: Volume): DicomElement[] {
  const lps = multiply(lpsToRas, affine);
  return privateBlock(
    binary(privateTags.size, 'UL', ...size),
    binary(privateTags.affine, 'FD', ...lps.slice(0, 12)),
  );
}
