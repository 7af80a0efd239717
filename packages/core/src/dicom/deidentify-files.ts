import { TomaatError } from '../errors.ts';
import { defaultLimits, type ReadLimits } from '../formats/header.ts';
import type { SourceFile } from '../formats/source-file.ts';
import type { Platform } from '../platform.ts';
import { type Dataset, word } from './dataset.ts';
import { createDeidentifier, type DeidentifyOptions } from './deidentify.ts';
import { type DicomHeader, readDicomFile, readDicomHeader, type UnreadFile } from './dicom-files.ts';
import { encodeDicomFile } from './encode-file.ts';
import { imagesOf } from './frames.ts';
import { hasPlace, isCapture, otherObjectOf } from './object-kinds.ts';
import { damagedAmong, maxFileBytes } from './read-dicom.ts';
import { tags } from './tags.ts';

/* The files of a volume as they came, de-identified by those who receive them; and whether a file names its patient. */

/** An image that is de-identified when it is read. */
export interface DeidentifiedImage {
  /** Its place among the given files. */
  readonly index: number;
  /** The bytes of the de-identified file, the same at every call. The whole original is in memory meanwhile. */
  read(signal?: AbortSignal): Promise<readonly Uint8Array[]>;
}

export interface DeidentifyFilesOptions extends DeidentifyOptions {
  limits?: ReadLimits;
  /** The largest file that is taken into memory, in bytes, after inflating too. */
  maxFileBytes?: number;
  signal?: AbortSignal;
}

/** Bytes that a voxel may take, as in an archive; everything around the pixels of an image. */
const [bytesPerVoxel, headroomBytes] = [8, 2 ** 26];

/**
 * The images among files, each to be de-identified. What is never part of a volume is left out: other DICOM objects
 * (reports, documents, presentation states), files of other kinds, and secondary captures without a place in the body,
 * whose pixels may name the patient.
 *
 * @throws TomaatError the fault of a damaged DICOM file, which may be a slice; `read()` throws UPLOAD_TOO_LARGE for a file that
 *   is larger than `maxFileBytes`, before it is in memory
 */
export async function deidentifyFiles(
  files: readonly SourceFile[],
  platform: Platform,
  {
    limits = defaultLimits,
    maxFileBytes: most = Number.POSITIVE_INFINITY,
    signal,
    ...options
  }: DeidentifyFilesOptions,
): Promise<DeidentifiedImage[]> {
  const clean = createDeidentifier(options);
  const largest = limits.maxVoxels * bytesPerVoxel + headroomBytes;
  const images: DeidentifiedImage[] = [];
  for (const [index, file] of files.entries()) {
    const header = await readDicomHeader(file, platform, signal);
    if (isLeftOut(header, files.length)) continue;
    images.push({
      index,
      async read(signal) {
        // Thousands of headers are not kept: this one is read again.
        const again = requireHeader(await readDicomHeader(file, platform, signal), files.length);
        const { sizeBytes = 0 } = file;
        if (sizeBytes > most) throw tooLarge(sizeBytes, most);
        const maxBytes = Math.min(largestFile(again), largest, most);
        return encodeDicomFile(clean(await readDicomFile(again, platform, maxBytes, signal)).file);
      },
    });
  }
  return images;
}

const tooLarge = (sizeBytes: number, most: number) =>
  new TomaatError(
    'UPLOAD_TOO_LARGE',
    `A DICOM file of ${sizeBytes} bytes is larger than the ${most} bytes that are de-identified here. De-identify it before it is sent, or send the volume as NIfTI`,
  );

/** Colour images and others that are no volume may lie beside the series that is wanted. */
function largestFile(header: DicomHeader): number {
  const { sizeBytes = 0 } = header.file;
  try {
    return Math.max(sizeBytes, maxFileBytes(imagesOf(header)[0]));
  } catch (error) {
    if (!(error instanceof TomaatError)) throw error;
    return sizeBytes + headroomBytes;
  }
}

function isLeftOut(header: DicomHeader | UnreadFile, fileCount: number): boolean {
  if (header.kind === 'unread' && header.fault.code === 'UNKNOWN_FORMAT') return true;
  const known = requireHeader(header, fileCount);
  return otherObjectOf(known) !== undefined || (isCapture(known) && !hasPlace(known));
}

function requireHeader(header: DicomHeader | UnreadFile, fileCount: number): DicomHeader {
  if (header.kind === 'unread') throw damagedAmong(header.fault, fileCount);
  return header;
}

/**
 * Refuses DICOM files that name a patient and do not state that the identity was removed (PS3.3 C.12.1.1: 0012,0062).
 * Files of other kinds are not looked at.
 *
 * @throws TomaatError FORBIDDEN; the fault of a damaged DICOM file
 */
export async function refuseIdentity(
  files: readonly SourceFile[],
  platform: Platform,
  signal?: AbortSignal,
): Promise<void> {
  for (const file of files) {
    const header = await readDicomHeader(file, platform, signal);
    if (header.kind === 'unread' && header.fault.code === 'UNKNOWN_FORMAT') continue;
    if (!namesPatient(requireHeader(header, files.length).dicom.dataset)) continue;
    throw new TomaatError(
      'FORBIDDEN',
      'The DICOM files name a patient, and this server does not accept that. De-identify them before they are sent: “tomaat predict” and the page of the server do so; other programs set PatientIdentityRemoved (0012,0062) to YES',
    );
  }
}

const patientIdentityRemoved = 0x00120062;

const namesPatient = (dataset: Dataset): boolean =>
  // A name of separators alone is none.
  [tags.patientName, tags.patientId].some((tag) => /[^\s^=\\]/.test(word(dataset, tag) ?? '')) &&
  word(dataset, patientIdentityRemoved)?.toUpperCase() !== 'YES';
