import { type HeaderOf, type ReadLimits, storedBytesOf } from '../formats/header.ts';
import type { Platform } from '../platform.ts';
import { unsignedShort } from './dataset.ts';
import { type DicomHeader, maxBytesWith, readDicomFile, type UnreadFile } from './dicom-files.ts';
import {
  isSegmentation,
  planSegmentation,
  type ReadSegmentation,
  readSegmentation,
} from './read-segmentation.ts';
import { tags } from './tags.ts';

/* A DICOM segmentation as the volume of an input: a label map. */

/** The only DICOM object of some files, if it is a segmentation. Among images it is not what is meant. */
export function soleSegmentation(headers: readonly (DicomHeader | UnreadFile)[]): DicomHeader | undefined {
  const [first, ...others] = headers.filter((header) => header.kind === 'dicom');
  return first && others.length === 0 && isSegmentation(first.dicom) ? first : undefined;
}

/**
 * The header of its label map.
 *
 * @throws TomaatError as readSegmentation(), except those about pixels
 */
export function segmentationHeader(
  { dicom, pixels }: DicomHeader,
  limits: ReadLimits,
): HeaderOf<'dicom', 'nii.gz'> {
  const { grid, voxelType } = planSegmentation(dicom, limits);
  return {
    format: 'dicom',
    extension: 'nii.gz',
    size: grid.size,
    affine: grid.affine,
    voxelType,
    components: 1,
    frames: 1,
    geometry: { format: 'dicom' },
    storedBytes: storedBytesOf(grid.size, 1, 1, voxelType),
    compressed: pixels?.statedBytes === undefined,
  };
}

/** Reads its label map and labels. @throws TomaatError as readSegmentation() and readDicomFile() */
export async function readSegmentationVolume(
  header: DicomHeader,
  platform: Platform,
  limits: ReadLimits,
  signal?: AbortSignal,
): Promise<ReadSegmentation> {
  const { grid, frames } = planSegmentation(header.dicom, limits);
  const bits = unsignedShort(header.dicom.dataset, tags.bitsAllocated) ?? 16;
  const maxBytes = maxBytesWith(header, Math.ceil((grid.size[0] * grid.size[1] * frames.length * bits) / 8));
  return readSegmentation(await readDicomFile(header, platform, maxBytes, signal), limits);
}
