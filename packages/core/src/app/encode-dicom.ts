import { buildMeasurementReport } from '../dicom/measurement-report.ts';
import { checkSource, type Maker } from '../dicom/result-modules.ts';
import type { SegmentLabel } from '../dicom/segment-description.ts';
import { buildSegmentation, checkPlace } from '../dicom/segmentation.ts';
import { identifySegmentation, type SegmentationType } from '../dicom/segmentation-identity.ts';
import type { DicomSource } from '../dicom/source.ts';
import { createSeed } from '../dicom/uids.ts';
import type { DicomObject } from '../dicom/write-file.ts';
import { TomaatError } from '../errors.ts';
import type { LabelMeasurement } from '../labels/measure.ts';
import type { Volume } from '../volume.ts';
import type { DicomFormat } from './elements.ts';
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

const segmentation =
  (type?: SegmentationType): Build =>
  (value, { source, maker, name, description, seed }, labels) =>
    buildSegmentation(value as Volume, source, { labels, maker, description, role: name, seed, type });

const report: Build = async (value, context, labels) => {
  const { source, maker, name, description, labelMap, seed = createSeed() } = context;
  if (!labelMap) throw noLabelMap(name);
  const type = labelMap.format === 'labelmap.dcm' ? 'LABELMAP' : undefined;
  checkSource(source, 'json');
  checkPlace(labelMap.volume, source);
  const segmentation = identifySegmentation(labelMap.volume, { labels, role: labelMap.name, seed, type });
  const options = { segmentation, maker, description, role: name, seed };
  return buildMeasurementReport(value as readonly LabelMeasurement[], source, options);
};

/** NOT_ACCEPTABLE: measurements of no label map, which a report in DICOM must refer to. */
export const noLabelMap = (name: string): TomaatError =>
  new TomaatError(
    'NOT_ACCEPTABLE',
    `${name} is not available as sr.dcm, which refers to the segments that were measured: the app returns no label map. Choose json or csv.`,
    { field: 'format' },
  );

const builders: Record<DicomFormat, Build> = {
  'seg.dcm': segmentation(),
  'labelmap.dcm': segmentation('LABELMAP'),
  'sr.dcm': report,
};

/**
 * The DICOM object of an output that was computed from the series of `context.source`.
 *
 * @throws TomaatError APP_OUTPUT if the label map is not on the grid of the series, or measurements are not those of its
 *   labels; NOT_ACCEPTABLE if the series lacks what a result refers to, or measurements have no label map
 */
export const buildDicomObject = (
  format: DicomFormat,
  value: OutputValue,
  context: DicomContext,
  labels: readonly SegmentLabel[] = [],
): Promise<DicomObject> => builders[format](value, context, labels);
