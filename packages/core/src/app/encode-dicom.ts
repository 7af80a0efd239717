import type { Maker } from '../dicom/result-modules.ts';
import type { SegmentLabel } from '../dicom/segment-description.ts';
import { buildSegmentation } from '../dicom/segmentation.ts';
import type { DicomSource } from '../dicom/source.ts';
import { buildStructureSet } from '../dicom/structure-set.ts';
import type { DicomObject } from '../dicom/write-file.ts';
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
  /** Of the prediction: results of the same seed have the same UIDs. Random if missing. */
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
