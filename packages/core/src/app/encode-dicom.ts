import type { Maker } from '../dicom/result-modules.ts';
import type { SegmentLabel } from '../dicom/segment-description.ts';
import { buildSegmentation } from '../dicom/segmentation.ts';
import type { DicomSource } from '../dicom/source.ts';
import { randomSeed } from '../dicom/uids.ts';
import { type DicomObject, writeDicomFile } from '../dicom/write-file.ts';
import { writeStoredZip, type ZipMember } from '../formats/stored-zip.ts';
import { measureLabels } from '../labels/measure.ts';
import type { Bytes } from '../platform.ts';
import { buildStructureSet } from '../dicom/structure-set.ts';
import type { Volume } from '../volume.ts';
import { type DicomFormat, dicomFormats, outputFormats, type SeriesFormat } from './elements.ts';
import type { OutputValue } from './values.ts';

/* Which DICOM object an output becomes in each of the DICOM formats. */

/** What a DICOM object states besides the output. */
export interface DicomContext {
  readonly source: DicomSource;
  readonly maker: Maker;
  /** Name of the output, and what people call it. */
  readonly name: string;
  readonly description: string;
  /** Of the prediction: results of the same seed have the same UIDs, and refer to each other. Random if missing. */
  readonly seed?: string;
}

type Build = (
  value: OutputValue,
  context: DicomContext,
  labels: readonly SegmentLabel[],
) => Promise<DicomObject>;

const segmentation =
  (type?: 'LABELMAP'): Build =>
  (value, { source, maker, name, description, seed }, labels) =>
    buildSegmentation(value as Volume, source, { labels, maker, description, role: name, seed, type });

const structureSet: Build = (value, { source, maker, name, description, seed }, labels) =>
  buildStructureSet(value as Volume, source, { labels, maker, description, role: name, seed });

const builders: Record<DicomFormat, Build> = {
  'seg.dcm': segmentation(),
  'labelmap.dcm': segmentation('LABELMAP'),
  'rtstruct.dcm': structureSet,
};

/**
 * The DICOM object of an output that was computed from the series of `context.source`.
 *
 * @throws TomaatError APP_OUTPUT if the output is not on the grid of the series; NOT_ACCEPTABLE if the series lacks
 *   what a result refers to
 */
export const buildDicomObject = (
  format: DicomFormat,
  value: OutputValue,
  context: DicomContext,
  labels: readonly SegmentLabel[] = [],
): Promise<DicomObject> => builders[format](value, context, labels);

/**
 * The bytes of an output in a format that refers to the series of `context.source`: a DICOM file, or `zip`, an archive
 * of all that a label map can become.
 *
 * @throws TomaatError as buildDicomObject()
 */
export async function* encodeSeriesFormat(
  format: SeriesFormat,
  value: OutputValue,
  context: DicomContext,
  labels: readonly SegmentLabel[] = [],
): AsyncGenerator<Bytes> {
  if (format === 'zip') yield* writeStoredZip(allObjects(value as Volume, context, labels));
  else yield* writeDicomFile(await buildDicomObject(format, value, context, labels));
}

/** One segmentation is enough: `seg.dcm`, which every reader supports. */
const inArchive = dicomFormats.filter((format) => format !== 'labelmap.dcm');

/** The objects of a label map as files, each made when the one before is written: together they may be large. */
async function* allObjects(
  labelMap: Volume,
  context: DicomContext,
  labels: readonly SegmentLabel[],
): AsyncGenerator<ZipMember> {
  // They refer to each other by UIDs of the same seed.
  const related = { ...context, seed: context.seed ?? randomSeed() };
  for (const format of inArchive) {
    const isOfLabels = (outputFormats.LabelVolume as readonly string[]).includes(format);
    const value = isOfLabels ? labelMap : measureLabels(labelMap, labels);
    const object = await buildDicomObject(format, value, related, labels);
    yield { name: `${context.name}.${format}`, read: () => writeDicomFile(object) };
  }
}
