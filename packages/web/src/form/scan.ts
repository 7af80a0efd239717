import { anonymousFiles } from '@tomaat/client';
import {
  type AcceptanceRule,
  checkShape,
  checkVolume,
  collectBytes,
  type DicomVolumeHeader,
  formatNames,
  type IdentifyingField,
  inspectVolume,
  numericVoxels,
  orientationOf,
  readableEndings,
  readVolume,
  spacingOf,
  transformEndings,
  type Volume,
  type VolumeHeader,
  volumeEndings,
  webPlatform,
  writeVolume,
} from '@tomaat/core';
import { sourceOf } from '../blob-source.ts';
import type { ScanOfSeries } from '../dicom/scan-of-series.ts';
import type { ScanDisplay } from '../viewer/windows.ts';

/** A volume that the user selected: its files, and the contents of its header, read only here. */
export interface Scan {
  /** The user's name for it; stays in this browser. */
  name: string;
  fileCount: number;
  sizeBytes: number;
  header: VolumeHeader | DicomVolumeHeader;
  fields: readonly IdentifyingField[];
  read(options: ReadScanOptions): Promise<Volume>;
  /** The files as sent: without identifying text, and without their names. */
  anonymous(): Promise<{ name: string; blob: Blob }[]>;
  /** How the files say that they are to be shown. */
  display?: ScanDisplay;
  /** For a DICOM series. What is removed from it is decided before it is sent. */
  dicom?: ScanOfSeries;
}

export interface ReadScanOptions {
  frame?: number;
  signal?: AbortSignal;
}

/** What the file picker offers: browsers match only the last part of a file extension. */
export const volumePicker: readonly string[] = [...readableEndings, '.gz', '.dcm', '.dicom', '.ima', '.zip'];
/** The same for transforms; a displacement grid is a single-file volume. */
export const transformPicker: readonly string[] = [
  ...transformEndings,
  ...volumeEndings.flatMap(({ holds, ending }) => (holds === 'volume' ? ending : [])),
  '.gz',
];

const prefixBytes = 256 * 1024;

/** Reads the header and looks for identifying text. Throws a TomaatError that says what to do instead. */
export async function openScan(files: readonly File[]): Promise<Scan> {
  const prefixes = await Promise.all(
    files.map(async (file) => ({
      name: file.name,
      prefix: new Uint8Array(await file.slice(0, prefixBytes).arrayBuffer()),
      sizeBytes: file.size,
    })),
  );
  const header = await inspectVolume(prefixes, webPlatform);
  const found = await anonymousFiles('volume', files);
  return {
    name: files.map(({ name }) => name).join(' + '),
    fileCount: files.length,
    sizeBytes: files.reduce((sum, { size }) => sum + size, 0),
    header,
    fields: found.fields,
    read: (options) =>
      readScan(
        files.map((file) => ({ name: file.name, blob: file })),
        options,
      ),
    // Given Blobs, it returns Blobs.
    anonymous: async () =>
      (await found.strip()).map((file) => ({ name: (file as File).name, blob: file as File })),
  };
}

/** Reads a volume's voxels in the browser. */
export async function readScan(
  files: readonly { name: string; blob: Blob }[],
  options: ReadScanOptions & { onProgress?(fraction: number): void } = {},
): Promise<Volume> {
  const { volume } = await readVolume(files.map(sourceOf), webPlatform, options);
  // From here on the time is counted until it is seen: `npm run bench -- page`.
  performance.mark(readMark);
  return volume;
}

/** Among the performance entries of the page: voxels were read. */
export const readMark = 'volume read';

/** The volume as NIfTI for the viewer: a single component, with unambiguous geometry from our own writer. */
export function toNifti(volume: Volume): Promise<Uint8Array<ArrayBuffer>> {
  const count = volume.size[0] * volume.size[1] * volume.size[2];
  let voxels = numericVoxels(volume.voxels.subarray(0, count) as Volume['voxels']) as Volume['voxels'];
  // The viewer draws in single precision.
  if (voxels instanceof Float64Array) voxels = Float32Array.from(voxels);
  return collectBytes(writeVolume({ ...volume, components: 1, voxels }, 'nii', webPlatform)) as Promise<
    Uint8Array<ArrayBuffer>
  >;
}

export interface HeaderFact {
  name: string;
  value: string;
}

/** A length to the millimetre, or to two digits if it is less than ten. */
const wholeMm = (mm: number) => (mm < 10 ? Number(mm.toPrecision(2)) : Math.round(mm));

/** A header described in words for people. */
export function headerFacts(header: Scan['header']): HeaderFact[] {
  const spacing = spacingOf(header.affine);
  const round = (value: number) => String(Number(value.toPrecision(4)));
  const facts = [
    { name: 'Size', value: `${header.size.join(' × ')} voxels` },
    { name: 'Spacing', value: `${spacing.map(round).join(' × ')} mm` },
    {
      name: 'Field of view',
      value: `${spacing.map((mm, i) => wholeMm(mm * header.size[i])).join(' × ')} mm`,
    },
    { name: 'Orientation', value: `${orientationOf(header.affine)}${isOblique(header) ? ', oblique' : ''}` },
    {
      name: 'Values',
      value: header.voxelType + (header.components > 1 ? `, ${header.components} components` : ''),
    },
    {
      name: 'Format',
      value:
        (header.format === 'dicom' ? 'DICOM' : formatNames[header.format]) +
        (header.compressed ? ', compressed' : ''),
    },
  ];
  if (header.frames > 1) facts.push({ name: 'Frames', value: `${header.frames} (4-D)` });
  return facts;
}

/** Whether an axis deviates by more than half a degree from the body's. */
function isOblique({ affine }: Scan['header']): boolean {
  const spacing = spacingOf(affine);
  return [0, 1, 2].some(
    (c) =>
      Math.max(...[0, 1, 2].map((r) => Math.abs(affine[r * 4 + c]) / spacing[c])) < Math.cos(Math.PI / 360),
  );
}

/** The service's rules that this volume violates: by its header alone, or with its voxels if they were read. */
export function refusals(
  rules: readonly AcceptanceRule[],
  input: string,
  header: Scan['header'],
  volume?: Volume,
): string[] {
  return rules
    .filter((rule) => rule.input === undefined || rule.input === input)
    .flatMap((rule) => {
      const faults = volume ? checkVolume(rule, volume) : checkShape(rule, header);
      if (faults.length === 0) return [];
      const why = `The service does not accept this volume: ${faults.join('; ')}.`;
      return [rule.message ? `${rule.message} ${why}` : why];
    });
}
