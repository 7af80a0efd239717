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
import { type Output, type OutputFormat, outputFormats } from './elements.ts';
import type { Manifest } from './manifest.ts';
import type { OutputValue } from './values.ts';

/** The format of an output: the wanted one, else the input's for a label map, else the type's first. */
export function chooseFormat(
  name: string,
  output: Pick<Output, 'type'>,
  wanted: string | undefined,
  inputExtension: VolumeExtension,
): OutputFormat {
  const possible: readonly OutputFormat[] = outputFormats[output.type];
  if (wanted !== undefined) {
    if ((possible as readonly string[]).includes(wanted)) return wanted as OutputFormat;
    throw new TomaatError(
      'NOT_ACCEPTABLE',
      `${name} cannot be given as ${wanted}; it can be had as: ${possible.join(', ')}.`,
      { field: 'format' },
    );
  }
  return output.type === 'LabelVolume' ? inputExtension : possible[0];
}

/** The bytes of one output in a format. Meshes and points are RAS mm; the volume formats hold what they hold. */
export async function* encodeOutput(
  type: Output['type'],
  value: OutputValue,
  format: OutputFormat,
  platform: Platform,
  options: { geometry?: FileGeometry; labels?: Manifest['labels'] } = {},
): AsyncGenerator<Bytes> {
  const text = (s: string) => new TextEncoder().encode(s);
  if (type === 'LabelVolume' && (format === 'vtk' || format === 'stl')) {
    const mesh = await buildSurface(value as Volume, { smooth: true, keepTriangles: 0.5 });
    yield* format === 'vtk' ? meshToVtk(mesh) : meshToStl(mesh);
  } else if (type === 'LabelVolume') {
    yield* writeVolume(value as Volume, format as VolumeExtension, platform, {
      geometry: options.geometry,
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
