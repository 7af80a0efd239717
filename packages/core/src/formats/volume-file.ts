import { inspectDicom, readDicomVolume } from '../dicom/read-dicom.ts';
import type { SegmentLabel } from '../dicom/segment-description.ts';
import type { LeftOut } from '../dicom/series.ts';
import type { DicomSource } from '../dicom/source.ts';
import { TomaatError } from '../errors.ts';
import type { Bytes, Platform } from '../platform.ts';
import { type Volume, voxelCount } from '../volume.ts';
import { checkAffine, defaultLimits, type ReadLimits } from './header.ts';
import { maxPaddingBytes } from './inflate-members.ts';
import { readPrefix, sortFiles } from './inspect-files.ts';
import type { SourceFile } from './source-file.ts';
import { type VolumeExtension, type VolumeHeader, writerOf } from './table.ts';
import type { WriteOptions } from './volume-format.ts';
import {
  type FilePrefix,
  isOneOfMany,
  type Plan,
  planRead,
  prefixBytes,
  surplusVoxels,
} from './volume-plan.ts';
import { pieceBytes } from './voxel-pieces.ts';
import { createVoxelSink, textToBytes } from './voxel-sink.ts';

export type { ReadLimits } from './header.ts';
export type { SourceFile } from './source-file.ts';
export {
  extensionOf,
  readableEndings,
  supportedExtensions,
  type VolumeExtension,
  type VolumeFormat,
  type VolumeHeader,
} from './table.ts';
export type { WriteOptions } from './volume-format.ts';
export type { FilePrefix } from './volume-plan.ts';
export { collectBytes } from './voxel-pieces.ts';

export interface ReadOptions {
  /** Which volume of a 4-D file, from 0; 'all' reads every one, as components. */
  frame?: number | 'all';
  /** Which series of DICOM files to read where there are several: its UID, or its number. */
  series?: string;
  limits?: ReadLimits;
  /** Called with the fraction of the voxels read so far, at most once per chunk of the source. */
  onProgress?(fraction: number): void;
  signal?: AbortSignal;
}

/** The longest header that is read. */
const longPrefixBytes = 4 * 2 ** 20;

/**
 * What a volume's header says, from the first bytes of its files. All that a header can tell is checked (magic, sizes,
 * type, offset, geometry; the length of the file where `sizeBytes` is known), and nothing is allocated by it. Payloads are
 * checked when they are read. A packed header is unpacked here, not by the platform (see inflatePrefix), but for deflated DICOM.
 *
 * DICOM files are sorted into series (see inspectDicom): give as much of each as its header takes, 64 KiB of most, up to 1 MiB of
 * enhanced multi-frame images.
 *
 * @throws TomaatError UNKNOWN_FORMAT, UNSUPPORTED_FORMAT, BAD_HEADER, BAD_VOXELS (a length that cannot be), TOO_MANY_VOXELS,
 *   BAD_INPUT (a file of a pair is missing or one too many; several DICOM series)
 */
export async function inspectVolume(
  files: readonly FilePrefix[],
  platform: Platform,
  limits: ReadLimits = defaultLimits,
  { series }: Pick<ReadOptions, 'series'> = {},
): Promise<VolumeHeader> {
  if (!files.some((file) => isOneOfMany(file, files))) return planRead(files, limits).header;
  return (await inspectDicom(files.map(sourceOfPrefix), platform, { limits, series })).header;
}

/** The beginning of a file as a file to read, which says that more follows it. */
function sourceOfPrefix({ name, prefix, sizeBytes }: FilePrefix): SourceFile {
  const least = prefix.length < prefixBytes ? prefix.length : prefix.length + 1;
  return { ...sourceFromBytes(name, prefix), sizeBytes: Math.max(sizeBytes ?? least, prefix.length) };
}

/** A volume as it was read. */
export interface ReadVolume {
  volume: Volume;
  header: VolumeHeader;
  /** Of DICOM files: what results state of the series that they were computed from. */
  source?: DicomSource;
  /** Of a DICOM segmentation: its labels, in the order of the file. */
  labels?: readonly SegmentLabel[];
  /** Of DICOM files: those that do not belong to the volume, with the reason. */
  leftOut?: readonly LeftOut[];
}

/**
 * Reads a volume: the header, then one allocation for the result, then the voxels as a stream. Up to 15 bytes of padding
 * may follow the voxels, as after compressed data (see inflateSource); reading stops at the next one.
 *
 * Scaled voxels (NIfTI's scl_slope) become float32 if that is exact enough, otherwise float64 (see `scaledType`).
 *
 * The files of a DICOM series are read one after the other (see readDicomVolume). One zip archive stands for the files in it (see
 * openZip).
 *
 * @throws TomaatError as inspectVolume, openZip; FRAME_NEEDED; BAD_INPUT (no such frame); BAD_VOXELS (truncated, surplus or corrupt)
 */
export async function readVolume(
  given: readonly SourceFile[],
  platform: Platform,
  options: ReadOptions = {},
): Promise<ReadVolume> {
  const { limits = defaultLimits, signal } = options;
  const { files, prefixes } = await sortFiles(given, platform, { limits, signal });
  if (!prefixes) return readDicom(files, platform, options);
  let plan = planRead(prefixes, limits);
  if (plan.start === undefined) {
    for (const [i, file] of files.entries()) prefixes[i] = await readPrefix(file, longPrefixBytes, signal);
    plan = planRead(prefixes, limits);
    if (plan.start === undefined) {
      throw new TomaatError(
        'BAD_HEADER',
        `The header does not end within ${longPrefixBytes} bytes. Write the file again without its extra fields`,
      );
    }
  }
  const { header, layout } = plan;
  const frame = chooseFrame(header.frames, options.frame);
  const file = files[plan.file];
  const skip =
    typeof layout.skip === 'number'
      ? layout.skip
      : (await decodedLength(plan, file, platform, signal)) - header.storedBytes;

  const sink = createVoxelSink(plan, frame);
  let seen = 0;
  const end = skip + header.storedBytes;
  // Numbers as text have no padding.
  const paddingBytes = layout.encoding === 'text' ? 0 : maxPaddingBytes;
  await readDecoded(plan, file, platform, signal, (chunk) => {
    if (seen + chunk.length > end + paddingBytes) {
      throw surplusVoxels(
        `More than ${paddingBytes} bytes follow the ${header.storedBytes} bytes of voxels that the header states`,
        header,
      );
    }
    const from = Math.max(0, skip - seen);
    const to = Math.min(chunk.length, end - seen);
    if (from < to) {
      sink.push(chunk.subarray(from, to));
      options.onProgress?.((seen + to - skip) / header.storedBytes);
    }
    seen += chunk.length;
  });
  if (seen < end) {
    throw new TomaatError(
      'BAD_VOXELS',
      `The voxel data ends after ${Math.max(0, seen - skip)} of the ${header.storedBytes} bytes that the header promises: the file is cut off. Send it again`,
    );
  }
  sink.finish();
  const volume = {
    voxels: sink.voxels,
    size: header.size,
    components: sink.components,
    affine: header.affine,
  };
  return { volume, header };
}

async function readDicom(
  files: readonly SourceFile[],
  platform: Platform,
  options: ReadOptions,
): Promise<ReadVolume> {
  const { volume, header, source, labels, leftOut } = await readDicomVolume(files, platform, {
    ...options,
    chooseFrame: (frames) => chooseFrame(frames, options.frame),
  });
  return { volume, header, source, labels, leftOut };
}

function chooseFrame(frames: number, frame: number | 'all' | undefined): number | 'all' {
  if (frame === undefined) {
    if (frames === 1) return 0;
    throw new TomaatError(
      'FRAME_NEEDED',
      `The volume is 4-D with ${frames} frames. Choose one with frame, from 0 to ${frames - 1}: an option of predict() and readVolume(), ?frame=0 to ?frame=${frames - 1} in an address, --frame on the command line`,
      {
        detail: { frames },
      },
    );
  }
  if (frame === 'all' || (Number.isInteger(frame) && frame >= 0 && frame < frames)) return frame;
  throw new TomaatError('BAD_INPUT', `The volume has no frame ${frame}. Choose one from 0 to ${frames - 1}`, {
    detail: { frames },
  });
}

/** Passes every decoded byte from the start of the voxels' encoding to `take`. */
async function readDecoded(
  plan: Plan,
  file: SourceFile,
  platform: Platform,
  signal: AbortSignal | undefined,
  take: (chunk: Uint8Array) => void,
): Promise<void> {
  let sourceFault: { error: unknown } | undefined;
  const watched: AsyncIterable<Uint8Array> = {
    async *[Symbol.asyncIterator]() {
      try {
        for await (const chunk of file.open(plan.start)) {
          signal?.throwIfAborted();
          yield chunk;
        }
      } catch (error) {
        sourceFault = { error };
        throw error;
      }
    },
  };
  const { compression } = plan;
  const decoded = compression === 'none' ? watched : platform.inflate(watched, compression);
  const bytes = plan.layout.encoding === 'text' ? textToBytes(decoded, plan.header.voxelType) : decoded;
  try {
    for await (const chunk of bytes) take(chunk);
  } catch (error) {
    const own = sourceFault as { error: unknown } | undefined;
    if (own) throw own.error;
    if (error instanceof TomaatError || compression === 'none') throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new TomaatError(
      'BAD_VOXELS',
      `The ${compression} data of the voxels is damaged or cut off (${reason}). Send the file again`,
      { cause: error },
    );
  }
}

/** The decoded length of a file that ends with the voxels. Fails as soon as the rest cannot be a header. */
async function decodedLength(
  plan: Plan,
  file: SourceFile,
  platform: Platform,
  signal: AbortSignal | undefined,
): Promise<number> {
  let total = 0;
  await readDecoded(plan, file, platform, signal, (chunk) => {
    total += chunk.length;
    if (total > plan.header.storedBytes + longPrefixBytes) {
      throw new TomaatError(
        'BAD_VOXELS',
        `More than ${longPrefixBytes} bytes precede the voxels. Send the original file`,
      );
    }
  });
  if (total < plan.header.storedBytes) {
    throw new TomaatError(
      'BAD_VOXELS',
      `The voxel data ends after ${total} of the ${plan.header.storedBytes} bytes that the header promises: the file is cut off. Send it again`,
    );
  }
  return total;
}

/**
 * The bytes of a volume as a file, in pieces. No text of any input is copied into the header: its content comes from the
 * volume and the options.
 *
 * @throws TomaatError BAD_INPUT, when the voxels do not fit the size, or the affine cannot be written; NOT_ACCEPTABLE, when
 *   volumes are not written with that extension
 */
export async function* writeVolume(
  volume: Volume,
  extension: VolumeExtension,
  platform: Platform,
  options: WriteOptions = {},
): AsyncGenerator<Bytes> {
  const expected = voxelCount(volume) * volume.components;
  if (volume.voxels.length !== expected) {
    throw new TomaatError(
      'BAD_INPUT',
      `The volume has ${volume.voxels.length} voxels, but its size and components require ${expected}. Give all of them`,
    );
  }
  checkAffine(volume.affine, 'The affine of the volume to write');
  const { write, packed } = writerOf(extension);
  yield* write(volume, platform, {
    ...options,
    description: options.description ?? (options.intent === 'label' ? 'label map' : undefined),
    level: options.level ?? 1,
    packed,
  });
}

/** Bytes in memory as a file to read. */
export function sourceFromBytes(name: string, bytes: Uint8Array): SourceFile {
  return {
    name,
    sizeBytes: bytes.length,
    async *open(start = 0) {
      for (let at = start; at < bytes.length; at += pieceBytes) yield bytes.subarray(at, at + pieceBytes);
    },
  };
}
