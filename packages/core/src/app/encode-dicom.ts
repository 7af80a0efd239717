import { buildKeyPicture } from '../dicom/key-picture.ts';
import { buildMeasurementReport } from '../dicom/measurement-report.ts';
import type { Predecessor } from '../dicom/predecessor.ts';
import { checkSource, type Maker } from '../dicom/result-modules.ts';
import type { SegmentLabel } from '../dicom/segment-description.ts';
import { buildSegmentation, checkPlace } from '../dicom/segmentation.ts';
import { identifySegmentation, type SegmentationType } from '../dicom/segmentation-identity.ts';
import type { DicomSource } from '../dicom/source.ts';
import { buildStructureSet } from '../dicom/structure-set.ts';
import { createSeed } from '../dicom/uids.ts';
import { type DicomObject, writeDicomFile } from '../dicom/write-file.ts';
import { TomaatError } from '../errors.ts';
import { writeStoredZip, type ZipMember } from '../formats/stored-zip.ts';
import { type LabelMeasurement, measureLabels } from '../labels/measure.ts';
import type { Bytes } from '../platform.ts';
import type { NumericVoxels, Volume } from '../volume.ts';
import { type DicomFormat, dicomFormats, type SeriesFormat } from './elements.ts';
import type { OutputValue } from './values.ts';

/* Which DICOM object an output becomes in each of the DICOM formats. */

/** What a DICOM object states besides the output. */
export interface DicomContext {
  readonly source: DicomSource;
  readonly maker: Maker;
  /** Name of the output, and what people call it. */
  readonly name: string;
  readonly description: string;
  /**
   * Of the prediction: results of the same seed have the same UIDs. Random if missing; objects that refer to each
   * other need the same one.
   */
  readonly seed?: string;
  /** Of the result; now if missing. */
  readonly time?: Date;
  /** An earlier result in the same format that this one takes the place of; not of an archive. */
  readonly predecessor?: Predecessor;
  /** Values of a slice of the series by its index, columns fastest: key pictures show one, and cannot be made without. */
  readonly readSlice?: (index: number) => Promise<NumericVoxels>;
  /** Of measurements: the label map that was measured, which is the segmentation that `sr.dcm` refers to. */
  readonly labelMap?: MeasuredLabelMap;
}

export interface MeasuredLabelMap {
  /** Name of the output. */
  readonly name: string;
  readonly volume: Volume;
  /** In which it is given; other formats than `labelmap.dcm` count as `seg.dcm`. */
  readonly format?: string;
}

type Build = (
  value: OutputValue,
  context: DicomContext,
  labels: readonly SegmentLabel[],
) => Promise<DicomObject>;

/** What every object states. */
const stated = ({ maker, description, name, seed, time, predecessor }: DicomContext) => ({
  maker,
  description,
  role: name,
  seed,
  time,
  predecessor,
});

const segmentation =
  (type?: SegmentationType): Build =>
  (value, context, labels) =>
    buildSegmentation(value as Volume, context.source, { ...stated(context), labels, type });

const structureSet: Build = (value, context, labels) =>
  buildStructureSet(value as Volume, context.source, { ...stated(context), labels });

const report: Build = async (value, context, labels) => {
  const { source, name, labelMap, seed = createSeed() } = context;
  if (!labelMap) throw noLabelMap(name);
  const type = labelMap.format === 'labelmap.dcm' ? 'LABELMAP' : undefined;
  checkSource(source, 'json');
  checkPlace(labelMap.volume, source);
  const segmentation = identifySegmentation(labelMap.volume, { labels, role: labelMap.name, seed, type });
  const options = { ...stated(context), segmentation, seed };
  return buildMeasurementReport(value as readonly LabelMeasurement[], source, options);
};

/** NOT_ACCEPTABLE: measurements of no label map, which a report in DICOM must refer to. */
export const noLabelMap = (name: string): TomaatError =>
  new TomaatError(
    'NOT_ACCEPTABLE',
    `${name} is not available as sr.dcm, which refers to the segments that were measured: the app returns no label map. Choose json or csv.`,
    { field: 'format' },
  );

const keyPicture: Build = (value, context, labels) => {
  const { source, readSlice } = context;
  if (!readSlice) {
    throw new TomaatError(
      'NOT_ACCEPTABLE',
      'A key picture shows a slice of the images, which are not at hand here. Ask for key.dcm when the job is created, or give readSlice.',
      { field: 'format' },
    );
  }
  const options = { ...stated(context), labels, readSlice };
  return buildKeyPicture(value as Volume, source, options);
};

const builders: Record<DicomFormat, Build> = {
  'seg.dcm': segmentation(),
  'labelmap.dcm': segmentation('LABELMAP'),
  'rtstruct.dcm': structureSet,
  'key.dcm': keyPicture,
  'sr.dcm': report,
};

/**
 * The DICOM object of an output that was computed from the series of `context.source`.
 *
 * @throws TomaatError APP_OUTPUT if the label map is not on the grid of the series, or measurements are not those of its
 *   labels; NOT_ACCEPTABLE if the series lacks what a result refers to, or measurements have no label map
 */
export const buildDicomObject = async (
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

/**
 * The objects of a label map as files, each made when the one before is written: together they may be large. An object
 * that cannot be made of this label map is left out, and a text says why: the others are still of use.
 */
async function* allObjects(
  labelMap: Volume,
  context: DicomContext,
  labels: readonly SegmentLabel[],
): AsyncGenerator<ZipMember> {
  // They refer to each other by UIDs of the same seed.
  const seed = context.seed ?? createSeed();
  const measured = { name: context.name, volume: labelMap, format: 'seg.dcm' };
  const related = { ...context, seed, labelMap: measured, predecessor: undefined };
  let leftOut = '';
  for (const format of inArchive) {
    const name = `${context.name}.${format}`;
    const value = format === 'sr.dcm' ? measureLabels(labelMap, labels) : labelMap;
    try {
      const object = await buildDicomObject(format, value, related, labels);
      yield { name, read: () => writeDicomFile(object) };
    } catch (error) {
      if (!isOfFormat(error, format)) throw error;
      leftOut += `${name}: ${error.message}\n`;
    }
  }
  if (leftOut !== '') yield textFile(`${context.name}.left-out.txt`, leftOut);
}

/** Without the segmentation there would be nothing that the others refer to. */
const isOfFormat = (error: unknown, format: DicomFormat): error is TomaatError =>
  error instanceof TomaatError &&
  (error.code === 'NOT_ACCEPTABLE' || error.code === 'APP_OUTPUT') &&
  format !== 'seg.dcm';

const textFile = (name: string, text: string): ZipMember => ({
  name,
  async *read() {
    yield new TextEncoder().encode(text);
  },
});
