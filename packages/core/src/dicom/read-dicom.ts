import { TomaatError } from '../errors.ts';
import { defaultLimits, type HeaderOf, type ReadLimits, storedBytesOf } from '../formats/header.ts';
import type { SourceFile } from '../formats/source-file.ts';
import { scaledType } from '../formats/voxel-sink.ts';
import type { Platform } from '../platform.ts';
import { createVoxels, type NumericVoxels, type Volume, type VoxelType, voxelCount } from '../volume.ts';
import { syntaxFault } from './decode-frame.ts';
import {
  createSpace,
  type DicomHeader,
  maxBytesWith,
  readDicomFile,
  readDicomHeader,
  roomIn,
} from './dicom-files.ts';
import type { DicomImage } from './frames.ts';
import { frameBytes, type PixelFormat, storedRange } from './pixel-format.ts';
import { openPixels, rescale } from './pixels.ts';
import type { SegmentLabel } from './segment-description.ts';
import { readSegmentationVolume, segmentationHeader, soleSegmentation } from './segmentation-volume.ts';
import { type DicomSeries, type LeftOut, listSeries, type SeriesList, sameUid } from './series.ts';
import type { DicomSource } from './source.ts';
import type { Stack } from './stack.ts';
import { suvScaleOf } from './suv.ts';

/** The header of a DICOM volume. Values are rescaled by each slice's own rule: `voxelType` is the resulting type. */
export type DicomVolumeHeader = HeaderOf<'dicom', 'nii.gz'>;

export interface DicomChoice {
  limits?: ReadLimits;
  /** The series to read if the files contain several: its UID or its number. */
  series?: string;
  signal?: AbortSignal;
}

export interface DicomReadOptions extends DicomChoice {
  /** Which frame of a 4-D series to read, from 0, given their number; 'all' reads every one, as components. */
  chooseFrame(frames: number): number | 'all';
  /** Called with the fraction of the images that was read, after each of them. */
  onProgress?(fraction: number): void;
}

/** What is known about a DICOM volume before its pixels are read. */
export interface DicomFindings {
  header: DicomVolumeHeader;
  /** Files that do not belong to it, with the reason. */
  leftOut: readonly LeftOut[];
  /** The series of images; undefined for a segmentation. */
  series?: DicomSeries & { stack: Stack };
  /** The source of its first frame; undefined for a segmentation. */
  source?: DicomSource;
  /** The file of a segmentation, which is a volume where there are no images: a label map. */
  segmentation?: DicomHeader;
}

/** What is known about a series of images. */
export type DicomImages = Required<Omit<DicomFindings, 'segmentation'>>;

/**
 * Describes the volume formed by DICOM files from their headers; no pixels are read. A segmentation without images is
 * one too.
 *
 * @throws TomaatError BAD_INPUT, if there are several series and none was selected (`detail.series` lists them), the
 *   selected one does not exist, or no file is an image; why the series is not a volume: BAD_HEADER,
 *   UNSUPPORTED_FORMAT, TOO_MANY_VOXELS
 */
export async function inspectDicom(
  files: readonly SourceFile[],
  platform: Platform,
  options: DicomChoice = {},
): Promise<DicomFindings> {
  const { limits = defaultLimits, signal } = options;
  const headers = [];
  for (const file of files) headers.push(await readDicomHeader(file, platform, signal));
  // A request chooses one series for all of its volumes; of this one there is nothing to choose.
  const segmentation = soleSegmentation(headers);
  if (segmentation) {
    const { leftOut } = listSeries(
      headers.filter((header) => header !== segmentation),
      limits,
    );
    return { header: segmentationHeader(segmentation, limits), segmentation, leftOut };
  }
  const found = chooseDicom(listSeries(headers, limits), files.length, options.series);
  for (const { header, format } of distinctFiles(found.series.images)) {
    const fault = syntaxFault(
      header.dicom.transferSyntax,
      header.pixels?.statedBytes === undefined,
      platform,
    );
    if (fault) throw fault;
    checkStatedBytes(header, format, found.series.images);
  }
  return found;
}

/**
 * One of the series in the files: the selected one, or the only one. Does not check whether its pixels can be decoded
 * here.
 *
 * @param fileCount the number of files
 * @throws TomaatError as inspectDicom(), except those about pixels
 */
export function chooseDicom(
  { series: all, leftOut }: SeriesList,
  fileCount: number,
  wanted?: string,
): DicomImages {
  const damaged = leftOut.find(({ fault }) => fault);
  if (damaged?.fault) throw damagedAmong(damaged.fault, fileCount);
  const series = chooseSeries(all, leftOut, wanted);
  const { stack } = series;
  if (!stack) throw series.refusal;
  return {
    header: headerOf(stack),
    series: { ...series, stack },
    source: sourceOf(stack.frames[0]),
    leftOut,
  };
}

/** The fault of a damaged file, as an error of all files. */
export const damagedAmong = (fault: TomaatError, fileCount: number): TomaatError =>
  fileCount === 1
    ? fault
    : new TomaatError(
        fault.code,
        `One of the ${fileCount} files is damaged, perhaps a slice of the volume. ${fault.message}`,
        { cause: fault },
      );

/** The source of a frame of a series, by its number from 0; 0 for a series without frames. */
export function dicomSourceOf({ stack, refusal }: DicomSeries, frame = 0): DicomSource {
  if (!stack) throw refusal;
  const slices = stack.frames[frame];
  if (slices) return sourceOf(slices);
  throw new TomaatError(
    'BAD_INPUT',
    `The series has ${stack.frames.length} frames, and none of the number ${frame}: count from 0`,
    { field: 'frame' },
  );
}

/** The first image of each file. */
export function distinctFiles(images: readonly DicomImage[]): DicomImage[] {
  const seen = new Set<DicomHeader>();
  return images.filter(({ header }) => !seen.has(header) && seen.add(header));
}

function checkStatedBytes({ pixels }: DicomHeader, format: PixelFormat, images: readonly DicomImage[]): void {
  const needed = Math.ceil(frameBytes(format) * images[0].frameCount);
  if (pixels?.statedBytes === undefined || pixels.statedBytes >= needed) return;
  throw new TomaatError(
    'BAD_VOXELS',
    `An image states ${pixels.statedBytes} bytes of pixels, but its size takes ${needed}: export the series again from the system that made it`,
  );
}

function chooseSeries(
  all: readonly DicomSeries[],
  leftOut: readonly LeftOut[],
  chosen: string | undefined,
): DicomSeries {
  if (chosen !== undefined) {
    const byUid = all.filter(({ uid }) => uid === chosen);
    const found = byUid.length > 0 ? byUid : all.filter(({ number }) => String(number) === chosen);
    if (found.length === 1) return found[0];
    throw new TomaatError(
      'BAD_INPUT',
      `${found.length === 0 ? 'No series has that UID or number' : 'Several series have that number: choose one by its UID'}. ${listed(all)}`,
      { detail: { series: all.map(summaryOf) } },
    );
  }
  const images = all.filter(({ content }) => content === 'images');
  if (images.length === 1) return images[0];
  if (images.length === 0 && all.length > 0) return all[0];
  if (images.length === 0) {
    throw new TomaatError(
      'BAD_INPUT',
      leftOut.length === 1
        ? `The file ${leftOut[0].reason}, not an image of a volume: send the images of one series`
        : `None of the ${leftOut.length} files is an image of a volume; the first ${leftOut[0]?.reason}. Send the images of one series`,
    );
  }
  throw new TomaatError(
    'BAD_INPUT',
    `The files hold ${images.length} series: choose one with series, by its UID or number: an option of readVolume(), ?series= in an address, --series on the command line. ${listed(images)}`,
    { detail: { series: images.map(summaryOf) } },
  );
}

const listed = (all: readonly DicomSeries[]) =>
  `Available: ${all
    .slice(0, 20)
    .map(({ number, description, modality, columns, rows, imageCount }) =>
      [
        `${number ?? 'without a number'}:`,
        modality,
        description,
        `(${columns} × ${rows}, ${imageCount} images)`,
      ]
        .filter((part) => part !== undefined)
        .join(' '),
    )
    .join('; ')}${all.length > 20 ? '; …' : ''}`;

/** What a person or a program selects a series by. */
function summaryOf({
  uid,
  number,
  description,
  modality,
  columns,
  rows,
  slices,
  imageCount,
  frames,
  refusal,
}: DicomSeries) {
  return {
    uid,
    number,
    description,
    modality,
    columns,
    rows,
    slices,
    imageCount,
    frames,
    refusal: refusal?.message,
  };
}

function headerOf({ size, affine, frames }: Stack): DicomVolumeHeader {
  const voxelType = voxelTypeOf(frames.flat());
  return {
    format: 'dicom',
    extension: 'nii.gz',
    size,
    affine,
    voxelType,
    components: 1,
    frames: frames.length,
    geometry: { format: 'dicom' },
    storedBytes: storedBytesOf(size, 1, frames.length, voxelType),
    compressed: frames[0][0].header.pixels?.statedBytes === undefined,
    suv: suvScaleOf(frames[0], frames.flat()),
  };
}

const integerTypes: readonly (readonly [type: VoxelType, least: number, largest: number])[] = [
  ['uint8', 0, 2 ** 8 - 1],
  ['int8', -(2 ** 7), 2 ** 7 - 1],
  ['uint16', 0, 2 ** 16 - 1],
  ['int16', -(2 ** 15), 2 ** 15 - 1],
  ['uint32', 0, 2 ** 32 - 1],
  ['int32', -(2 ** 31), 2 ** 31 - 1],
];

/**
 * The type that can represent all values of the images. If every slope is 1 and every intercept an integer: the
 * smallest integer type that can represent every stored value (int16 for 12-bit CT). Otherwise float32 if that is
 * exact enough, else float64 (see `scaledType`).
 */
function voxelTypeOf(images: readonly DicomImage[]): VoxelType {
  const isWhole = ({ format, slope, intercept }: DicomImage) =>
    format.number === 'integer' && slope === 1 && Number.isInteger(intercept);
  if (images.every(isWhole)) {
    let [least, largest] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
    for (const { format, intercept } of images) {
      const [low, high] = storedRange(format);
      least = Math.min(least, low + intercept);
      largest = Math.max(largest, high + intercept);
    }
    return integerTypes.find(([, low, high]) => low <= least && largest <= high)?.[0] ?? 'float64';
  }
  const isFloat64 = ({ format, slope, intercept }: DicomImage) =>
    scaledType(storedType(format), slope, intercept) === 'float64';
  return images.some(isFloat64) ? 'float64' : 'float32';
}

function storedType({ number, bitsStored, isSigned }: PixelFormat): VoxelType {
  if (number !== 'integer') return number;
  const bits = bitsStored <= 8 ? 8 : bitsStored <= 16 ? 16 : 32;
  return `${isSigned ? 'int' : 'uint'}${bits}`;
}

function sourceOf(slices: readonly DicomImage[]): DicomSource {
  const [first] = slices;
  const { dataset, explicit, littleEndian } = first.header.dicom;
  return {
    dataset,
    explicit,
    littleEndian,
    rowDirection: first.rowDirection!,
    columnDirection: first.columnDirection!,
    pixelSpacing: first.pixelSpacing!,
    slices: slices.map(({ sopClassUid, sopInstanceUid, frame, frameCount, position, window }) => ({
      sopClassUid,
      sopInstanceUid,
      ...(frameCount > 1 && { frameNumber: frame + 1 }),
      position: position!,
      ...(window && { window }),
    })),
  };
}

/**
 * Reads the volume of a DICOM series: all headers, one allocation, then one file after the other, frame by frame.
 * Only the volume and one file are in memory. A segmentation without images gives its label map.
 *
 * @throws TomaatError as inspectDicom(); FRAME_NEEDED; BAD_VOXELS, if pixels are truncated or damaged
 */
export async function readDicomVolume(
  files: readonly SourceFile[],
  platform: Platform,
  options: DicomReadOptions,
): Promise<{ volume: Volume; labels?: readonly SegmentLabel[] } & DicomFindings> {
  const found = await inspectDicom(files, platform, options);
  if (found.segmentation) {
    options.chooseFrame(1);
    const { limits = defaultLimits, signal } = options;
    const read = await readSegmentationVolume(found.segmentation, platform, limits, signal);
    options.onProgress?.(1);
    return { ...found, volume: read.labelMap, labels: read.labels };
  }
  return { ...found, ...(await readImages(found as DicomImages, platform, options)) };
}

/** The voxels of a series of images, and the source of the frame. */
async function readImages(
  found: DicomImages,
  platform: Platform,
  options: DicomReadOptions,
): Promise<{ volume: Volume; source: DicomSource }> {
  const { stack } = found.series;
  const frame = options.chooseFrame(stack.frames.length);
  const kept = frame === 'all' ? stack.frames : [stack.frames[frame]];
  const { header } = found;
  const voxels = allocate(header, kept.length);
  const plane = header.size[0] * header.size[1];
  const places = new Map<DicomHeader, { image: DicomImage; at: number }[]>();
  for (const [i, image] of kept.flat().entries()) {
    const list = places.get(image.header);
    if (list) list.push({ image, at: i * plane });
    else places.set(image.header, [{ image, at: i * plane }]);
  }
  let done = 0;
  const total = kept.length * header.size[2];
  const spaces = createSpaces();
  for (const images of places.values()) {
    const readFrame = await openImages(images[0].image, platform, options.signal, spaces);
    for (const { image, at } of images) {
      options.signal?.throwIfAborted();
      rescale(await readFrame(image.frame), image, voxels, at);
      options.onProgress?.(++done / total);
    }
  }
  const volume = {
    voxels,
    size: header.size,
    components: kept.length,
    affine: header.affine,
    suv: suvScaleOf(kept.flat(), stack.frames.flat()),
  };
  return { volume, source: sourceOf(kept[0]) };
}

/**
 * The values of one image of a series, columns fastest, rescaled by its own rule: a picture by which a person
 * recognises the series.
 *
 * @throws TomaatError BAD_VOXELS, if its pixels are truncated or damaged; UNSUPPORTED_FORMAT, if they cannot be
 *   decoded here
 */
export async function readDicomImage(
  image: DicomImage,
  platform: Platform,
  signal?: AbortSignal,
): Promise<Float32Array> {
  const fault = syntaxFault(
    image.header.dicom.transferSyntax,
    image.header.pixels?.statedBytes === undefined,
    platform,
  );
  if (fault) throw fault;
  const readFrame = await openImages(image, platform, signal);
  const stored = await readFrame(image.frame);
  const values = new Float32Array(stored.cells.length);
  rescale(stored, image, values, 0);
  return values;
}

function allocate(header: DicomVolumeHeader, components: number): NumericVoxels {
  const count = voxelCount(header) * components;
  try {
    return createVoxels(header.voxelType, count) as NumericVoxels;
  } catch (cause) {
    throw new TomaatError(
      'TOO_MANY_VOXELS',
      `No memory for ${count} voxels of ${header.voxelType}: crop or resample the volume`,
      { cause },
    );
  }
}

/** Maximum size in bytes of an image's file after inflating. */
export const maxFileBytes = ({ header, format, frameCount }: DicomImage): number =>
  maxBytesWith(header, frameBytes(format) * frameCount);

/** Memory for one file after the other, and for one decoded frame after the other. */
const createSpaces = () => ({ file: createSpace(), samples: createSpace() });

async function openImages(
  image: DicomImage,
  platform: Platform,
  signal: AbortSignal | undefined,
  spaces = createSpaces(),
) {
  const { header, copies, format, frameCount, sopInstanceUid } = image;
  const file = await readDicomFile(header, platform, maxFileBytes(image), signal, spaces.file);
  for (const copy of copies) {
    if (!(await isSameFile(header.file, copy.file, signal))) throw sameUid(sopInstanceUid);
  }
  const { decodeFrame } = platform;
  return openPixels(file, format, frameCount, {
    decodeFrame,
    allocate: (length) => roomIn(spaces.samples, length),
  });
}

/** Whether two files have the same bytes. Neither is held in memory as a whole. */
async function isSameFile(a: SourceFile, b: SourceFile, signal: AbortSignal | undefined): Promise<boolean> {
  const other = b.open()[Symbol.asyncIterator]();
  let rest: Uint8Array = new Uint8Array(0);
  try {
    for await (const chunk of a.open()) {
      signal?.throwIfAborted();
      for (let at = 0; at < chunk.length; ) {
        if (rest.length === 0) {
          const step = await other.next();
          if (step.done) return false;
          rest = step.value;
        }
        const length = Math.min(rest.length, chunk.length - at);
        for (let i = 0; i < length; i++) if (rest[i] !== chunk[at + i]) return false;
        rest = rest.subarray(length);
        at += length;
      }
    }
    while (rest.length === 0) {
      const step = await other.next();
      if (step.done) return true;
      rest = step.value;
    }
    return false;
  } finally {
    await other.return?.();
  }
}
