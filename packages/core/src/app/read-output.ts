import { readSegmentationFile } from '../dicom/read-segmentation.ts';
import type { FileGeometry } from '../formats/file-geometry.ts';
import { readMesh } from '../formats/mesh-reader.ts';
import { parsePoints } from '../formats/points.ts';
import { readTransform } from '../formats/transform-file.ts';
import { collectBytes, readVolume, type SourceFile } from '../formats/volume-file.ts';
import { parseMeasurementsCsv } from '../labels/measurement-csv.ts';
import type { Platform } from '../platform.ts';
import type { Label } from './elements.ts';
import { isDicomFormat, type OutputFormat, type OutputType } from './elements.ts';
import type { OutputValue } from './values.ts';

/** An output as it was written: its type, its format, its bytes. */
export interface OutputSource {
  readonly type: OutputType;
  readonly format: OutputFormat;
  readonly file: SourceFile;
}

export interface ReadOutput {
  readonly value: OutputValue;
  /** Of a label map in a volume format: the grid as its header states it. */
  readonly stated?: FileGeometry;
  /** Of a segmentation: the labels that it names itself. */
  readonly own?: readonly Label[];
}

/** Reads an output back, to be written in another format (`encodeOutput()`). Its format must be one that `isReadBack()`. */
export async function readOutput(
  { type, format, file }: OutputSource,
  platform: Platform,
): Promise<ReadOutput> {
  const bytes = () => collectBytes(file.open());
  const text = async () => new TextDecoder().decode(await bytes());
  switch (type) {
    case 'LabelVolume': {
      if (isDicomFormat(format)) {
        const { labelMap, labels } = readSegmentationFile(await bytes());
        return { value: labelMap, own: labels };
      }
      const { volume, header } = await readVolume([file], platform);
      return { value: volume, stated: header.geometry };
    }
    case 'VTKMesh':
      return { value: readMesh(await bytes()) };
    case 'Fiducials':
      return {
        value: format === 'json' ? JSON.parse(await text()) : parsePoints(await text(), 'points'),
      };
    case 'PlainText':
      return {
        value: format === 'json' ? (JSON.parse(await text()) as { text: string }).text : await text(),
      };
    case 'Measurements':
      return {
        value: format === 'csv' ? parseMeasurementsCsv(await text()) : JSON.parse(await text()).labels,
      };
    default:
      return { value: await readTransform(file, platform) };
  }
}
