import { buildKeyPicture } from '../dicom/key-picture.ts';
import type { Maker } from '../dicom/result-modules.ts';
import type { SegmentLabel } from '../dicom/segment-description.ts';
import { buildSegmentation } from '../dicom/segmentation.ts';
import type { DicomSource } from '../dicom/source.ts';
import type { DicomObject } from '../dicom/write-file.ts';
import { TomaatError } from '../errors.ts';
import type { NumericVoxels, Volume } from '../volume.ts';
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
  /** Values of a slice of the series by its index, columns fastest: key pictures show one, and cannot be made without. */
  readonly readSlice?: (index: number) => Promise<NumericVoxels>;
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

const keyPicture: Build = (value, { source, maker, name, description, seed, readSlice }, labels) => {
  if (!readSlice) {
    throw new TomaatError(
      'NOT_ACCEPTABLE',
      'A key picture shows a slice of the images, which are not at hand here. Ask for key.dcm when the job is created, or give readSlice.',
      { field: 'format' },
    );
  }
  const options = { labels, maker, description, role: name, seed, readSlice };
  return buildKeyPicture(value as Volume, source, options);
};

const builders: Record<DicomFormat, Build> = {
  'seg.dcm': segmentation(),
  'labelmap.dcm': segmentation('LABELMAP'),
  'key.dcm': keyPicture,
};

/**
 * The DICOM object of an output that was computed from the series of `context.source`.
 *
 * @throws TomaatError APP_OUTPUT if the output is not on the grid of the series; NOT_ACCEPTABLE if the series lacks
 *   what a result refers to
 */
export const buildDicomObject = async (
  format: DicomFormat,
  value: OutputValue,
  context: DicomContext,
  labels: readonly SegmentLabel[] = [],
): Promise<DicomObject> => builders[format](value, context, labels);
