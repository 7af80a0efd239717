import { lacksForResults } from '../dicom/result-modules.ts';
import { liesOnSource } from '../dicom/segmentation.ts';
import type { DicomSource } from '../dicom/source.ts';
import { TomaatError } from '../errors.ts';
import type { FileGeometry } from '../formats/file-geometry.ts';
import { meshToStl, meshToVtk } from '../formats/mesh-writer.ts';
import { formatPoints, formatPointsJson } from '../formats/points.ts';
import { type SpatialTransform, type TransformExtension, writeTransform } from '../formats/transform-file.ts';
import { type VolumeExtension, writeVolume } from '../formats/volume-file.ts';
import type { LabelMeasurement } from '../labels/measure.ts';
import { measurementsToCsv } from '../labels/measurement-csv.ts';
import { buildSurface, type Mesh } from '../labels/surface.ts';
import type { Bytes, Platform } from '../platform.ts';
import type { Volume } from '../volume.ts';
import {
  isReadBack,
  isSeriesFormat,
  type Output,
  type OutputFormat,
  outputFormats,
  type SeriesFormat,
} from './elements.ts';
import { type DicomContext, encodeSeriesFormat } from './encode-dicom.ts';
import type { Manifest } from './manifest.ts';
import type { OutputValue } from './values.ts';

/** What results are given in where the request leaves it open: as the first volume came. */
export interface InputForm {
  readonly extension: VolumeExtension;
  /** Of a DICOM series. */
  readonly source?: DicomSource;
}

/**
 * The format of an output: the wanted one; else for a label map `seg.dcm` where the input is a DICOM series, and the input's
 * extension where it is not; else the type's first.
 *
 * @throws TomaatError NOT_ACCEPTABLE for a format that the output cannot have, or not with this input
 */
export function chooseFormat(
  name: string,
  output: Pick<Output, 'type'>,
  wanted: string | undefined,
  { extension, source }: InputForm,
): OutputFormat {
  const possible: readonly OutputFormat[] = outputFormats[output.type];
  const lack = source ? lacksForResults(source) : 'The input is not a DICOM series.';
  if (wanted === undefined) {
    if (output.type !== 'LabelVolume') return possible[0];
    return lack === undefined ? 'seg.dcm' : extension;
  }
  const has = possible.find((format) => format === wanted);
  const others = possible.filter((format) => lack === undefined || !isSeriesFormat(format)).join(', ');
  if (has !== undefined && !(isSeriesFormat(has) && lack !== undefined)) return has;
  throw new TomaatError(
    'NOT_ACCEPTABLE',
    has === undefined
      ? `${name} is not available as ${wanted}. Available: ${others}.`
      : `${name} is not available as ${wanted}, which refers to the images of a DICOM series. ${lack} Send a DICOM series, or choose one of: ${others}.`,
    { field: 'format' },
  );
}

/**
 * The format in which an output is written. A label map on another grid than the series is no segmentation of its images: it is
 * given in the input's extension, unless a segmentation is wanted.
 */
export function formatOfResult(
  name: string,
  output: Pick<Output, 'type'>,
  value: OutputValue,
  wanted: string | undefined,
  input: InputForm,
): OutputFormat {
  const format = chooseFormat(name, output, wanted, input);
  const { source, extension } = input;
  if (wanted !== undefined || !isSeriesFormat(format) || !source) return format;
  return liesOnSource(value as Volume, source) ? format : extension;
}

/**
 * The format in which an output is kept besides `format`, so that the others can be made of it; undefined if they can be
 * made of `format`.
 */
export function formatKept(
  name: string,
  output: Pick<Output, 'type'>,
  value: OutputValue,
  format: OutputFormat,
  input: InputForm,
): OutputFormat | undefined {
  return isReadBack(output.type, format) ? undefined : formatOfResult(name, output, value, undefined, input);
}

export interface EncodeOptions {
  geometry?: FileGeometry;
  /** As in WriteOptions. */
  namesUnits?: boolean;
  /** Of a label map, where the format leaves the choice; true if missing. */
  compressed?: boolean;
  labels?: Manifest['labels'];
  /** For the formats that refer to a DICOM series, which cannot be written without. */
  dicom?: DicomContext;
}

/** The bytes of one output in a format. Meshes and points are RAS mm; the volume formats use their own. */
export async function* encodeOutput(
  type: Output['type'],
  value: OutputValue,
  format: OutputFormat,
  platform: Platform,
  options: EncodeOptions = {},
): AsyncGenerator<Bytes> {
  const text = (s: string) => new TextEncoder().encode(s);
  if (type === 'LabelVolume' && (format === 'vtk' || format === 'stl')) {
    const mesh = await buildSurface(value as Volume, { smooth: true, keepTriangles: 0.5 });
    yield* format === 'vtk' ? meshToVtk(mesh) : meshToStl(mesh);
  } else if (isSeriesFormat(format)) {
    yield* encodeForSeries(value, format, options);
  } else if (type === 'LabelVolume') {
    yield* writeVolume(value as Volume, format as VolumeExtension, platform, {
      geometry: options.geometry,
      namesUnits: options.namesUnits,
      ...(options.compressed === false && { level: 0 }),
      intent: 'label',
      labels: options.labels,
    });
  } else if (type === 'VTKMesh') {
    yield* format === 'vtk' ? meshToVtk(value as Mesh) : meshToStl(value as Mesh);
  } else if (type === 'Fiducials') {
    const points = value as readonly (readonly [number, number, number])[];
    yield text(format === 'json' ? `${formatPointsJson(points)}\n` : formatPoints(points));
  } else if (type === 'PlainText') {
    yield text(format === 'json' ? `${JSON.stringify({ text: value })}\n` : (value as string));
  } else if (type === 'Measurements') {
    const labels = value as readonly LabelMeasurement[];
    yield text(format === 'csv' ? measurementsToCsv(labels) : `${JSON.stringify({ labels }, null, 2)}\n`);
  } else {
    yield* writeTransform(value as SpatialTransform, format as TransformExtension, platform);
  }
}

async function* encodeForSeries(
  value: OutputValue,
  format: SeriesFormat,
  { labels, dicom }: EncodeOptions,
): AsyncGenerator<Bytes> {
  if (!dicom) {
    throw new TomaatError(
      'NOT_ACCEPTABLE',
      `A result becomes ${format} only in the prediction that reads the DICOM series. Ask for it when the job is created.`,
      { field: 'format' },
    );
  }
  yield* encodeSeriesFormat(format, value, dicom, labels);
}
