import { TomaatError } from '../errors.ts';
import type { Bytes, Platform } from '../platform.ts';
import { bytesPerVoxel, type Volume, type Voxels, voxelCount, voxelTypeOf } from '../volume.ts';
import type { FileGeometry } from './file-geometry.ts';
import {
  checkAffine,
  defaultLimits,
  ownedBytes,
  type ReadLimits,
  type VolumeExtension,
  type VolumeHeader,
} from './header.ts';
import { maxPaddingBytes } from './inflate-members.ts';
import { encodeMetaImageHeader } from './metaimage.ts';
import { encodeNiftiHeader } from './nifti.ts';
import { encodeNrrdHeader } from './nrrd.ts';
import { type FilePrefix, type Plan, planRead, prefixBytes, surplusVoxels } from './volume-plan.ts';
import { createVoxelSink, textToBytes } from './voxel-sink.ts';

export type { ReadLimits, VolumeExtension, VolumeFormat, VolumeHeader } from './header.ts';
export type { FilePrefix } from './volume-plan.ts';

/** A file to read. Only the name's last part is ever looked at; it is never a path to open. */
export interface SourceFile {
  name: string;
  /** Its name is not the one that the header of its pair may know: whether they belong together was seen before. */
  renamed?: boolean;
  sizeBytes?: number;
  /** The bytes from `start` (default 0) to the end; may be called several times. */
  open(start?: number): AsyncIterable<Uint8Array>;
}

export interface ReadOptions {
  /** Which volume of a 4-D file, from 0; 'all' reads every one, as components. */
  frame?: number | 'all';
  limits?: ReadLimits;
  /** Told the fraction of the voxels that was read, at most once per chunk of the source. */
  onProgress?(fraction: number): void;
  signal?: AbortSignal;
}

export interface WriteOptions {
  /**
   * What the header of the input stated (VolumeHeader.geometry): the file states the same again where it is of the same format
   * and the volume lies on that grid. It states the affine in mm otherwise.
   */
  geometry?: FileGeometry;
  /** One line for the header; anything but printable ASCII becomes a space. */
  description?: string;
  /** 'label': the header says that the voxels are labels, where the format has a word for it. */
  intent?: 'label';
  /** Names and "#rrggbb" colours of the labels; only NRRD has a place for them. */
  labels?: readonly { value: number; name: string; color?: string }[];
  /** Compression from 1 (default; the fastest) to 9; 0 stores MetaImage and NRRD raw. `nii` is never compressed. */
  level?: number;
}

/** The extensions that volumes are written with, without the leading dot. */
export const supportedExtensions: readonly VolumeExtension[] = ['nii', 'nii.gz', 'mha', 'nrrd'];

/** File-name endings that are read, with what is written in return for each. */
const endings: readonly (readonly [string, VolumeExtension])[] = [
  ['.nii.gz', 'nii.gz'],
  ['.hdr.gz', 'nii.gz'],
  ['.img.gz', 'nii.gz'],
  ['.nii', 'nii'],
  ['.hdr', 'nii'],
  ['.img', 'nii'],
  ['.mha', 'mha'],
  ['.mhd', 'mha'],
  ['.nrrd', 'nrrd'],
  ['.nhdr', 'nrrd'],
];
/** The file-name endings of volumes that can be read, for file pickers. */
export const readableEndings: readonly string[] = endings.map(([ending]) => ending);

/** The extension to write for a file's name, or undefined when it is no volume's name. */
export function extensionOf(fileName: string): VolumeExtension | undefined {
  const lower = fileName.toLowerCase();
  return endings.find(([ending]) => lower.endsWith(ending))?.[1];
}

/** A header that is longer than this is not looked for. */
const longPrefixBytes = 4 * 2 ** 20;

/**
 * What a volume's header says, from the first bytes of its files. All that a header can tell is checked (magic, sizes,
 * type, offset, geometry; the length of the file where `sizeBytes` is known), and nothing is allocated by it. Payloads are
 * checked when they are read. A packed header is unpacked here, not by the platform (see inflatePrefix).
 *
 * @throws TomaatError UNKNOWN_FORMAT, UNSUPPORTED_FORMAT, BAD_HEADER, BAD_VOXELS (a length that cannot be), TOO_MANY_VOXELS,
 *   BAD_INPUT (a file of a pair is missing or one too many)
 */
export async function inspectVolume(
  files: readonly FilePrefix[],
  _platform: Platform,
  limits: ReadLimits = defaultLimits,
): Promise<VolumeHeader> {
  return planRead(files, limits).header;
}

/**
 * Reads a volume: the header, then one allocation of what is kept, then the voxels as they stream in. Behind the voxels up to
 * 15 bytes of padding may follow, as behind compressed data (see inflateSource); reading stops at the next one.
 *
 * Scaled voxels (NIfTI's scl_slope) become float32 where that is exact enough, else float64 (see `scaledType`).
 *
 * @throws TomaatError as inspectVolume; FRAME_NEEDED; BAD_INPUT (no such frame); BAD_VOXELS (truncated, surplus or corrupt)
 */
export async function readVolume(
  files: readonly SourceFile[],
  platform: Platform,
  options: ReadOptions = {},
): Promise<{ volume: Volume; header: VolumeHeader }> {
  const { limits = defaultLimits, signal } = options;
  const prefixes: FilePrefix[] = [];
  for (const file of files) prefixes.push(await readPrefix(file, prefixBytes, signal));
  let plan = planRead(prefixes, limits);
  if (plan.start === undefined) {
    for (const [i, file] of files.entries()) prefixes[i] = await readPrefix(file, longPrefixBytes, signal);
    plan = planRead(prefixes, limits);
    if (plan.start === undefined) {
      throw new TomaatError(
        'BAD_HEADER',
        `The header does not end within ${longPrefixBytes} bytes: write the file again without its extra fields`,
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
  // Of numbers written as text none is padding.
  const paddingBytes = layout.encoding === 'text' ? 0 : maxPaddingBytes;
  await readDecoded(plan, file, platform, signal, (chunk) => {
    if (seen + chunk.length > end + paddingBytes) {
      throw surplusVoxels(
        `More than ${paddingBytes} bytes follow the ${header.storedBytes} bytes of voxels that the header asks for`,
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
      `The voxel data ends after ${Math.max(0, seen - skip)} of the ${header.storedBytes} bytes that the header promises: the file is cut off, send it again`,
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

async function readPrefix(
  file: SourceFile,
  length: number,
  signal: AbortSignal | undefined,
): Promise<FilePrefix> {
  const parts: Uint8Array[] = [];
  let total = 0;
  let whole = true;
  for await (const chunk of file.open()) {
    signal?.throwIfAborted();
    parts.push(chunk);
    total += chunk.length;
    if (total >= length) {
      whole = false;
      break;
    }
  }
  const prefix = joinBytes(parts).subarray(0, length);
  return {
    name: file.name,
    renamed: file.renamed,
    prefix,
    sizeBytes: file.sizeBytes ?? (whole ? total : undefined),
  };
}

function chooseFrame(frames: number, frame: number | 'all' | undefined): number | 'all' {
  if (frame === undefined) {
    if (frames === 1) return 0;
    throw new TomaatError(
      'FRAME_NEEDED',
      `The volume is 4-D with ${frames} frames: choose one with frame, from 0 to ${frames - 1}: an option of predict() and readVolume(), ?frame=0 to ?frame=${frames - 1} in an address, --frame on the command line`,
      {
        detail: { frames },
      },
    );
  }
  if (frame === 'all' || (Number.isInteger(frame) && frame >= 0 && frame < frames)) return frame;
  throw new TomaatError('BAD_INPUT', `The volume has no frame ${frame}: choose one from 0 to ${frames - 1}`, {
    detail: { frames },
  });
}

/** Hands every decoded byte from the start of the voxels' encoding to `take`. */
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
      `The ${compression} data of the voxels is damaged or cut off (${reason}): send the file again`,
      { cause: error },
    );
  }
}

/** Bytes that the file decodes to, where the voxels are the last of them. Gives up where it can no longer be a header. */
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
        `More than ${longPrefixBytes} bytes stand before the voxels: send the original file`,
      );
    }
  });
  if (total < plan.header.storedBytes) {
    throw new TomaatError(
      'BAD_VOXELS',
      `The voxel data ends after ${total} of the ${plan.header.storedBytes} bytes that the header promises: the file is cut off, send it again`,
    );
  }
  return total;
}

/**
 * The bytes of a volume as a file, in pieces. No text of any input is copied into the header: what it says comes from the
 * volume and the options.
 *
 * @throws TomaatError BAD_INPUT, when the voxels do not fit the size, or the affine cannot be written
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
      `The volume has ${volume.voxels.length} voxels, but its size and components ask for ${expected}: give all of them`,
    );
  }
  checkAffine(volume.affine, 'The affine of the volume to write');
  const level = options.level ?? 1;
  const about = {
    ...options,
    description: options.description ?? (options.intent === 'label' ? 'label map' : undefined),
  };
  if (extension === 'nii' || extension === 'nii.gz') {
    const bytes = chained(encodeNiftiHeader(volume, about), pieces(volume.voxels));
    yield* extension === 'nii' ? bytes : owned(platform.deflate(bytes, 'gzip', level));
    return;
  }
  const voxels = interleaved(volume);
  if (extension === 'nrrd') {
    yield encodeNrrdHeader(volume, { ...about, compressed: level > 0 });
    yield* level > 0 ? owned(platform.deflate(voxels, 'gzip', level)) : voxels;
  } else if (level > 0) {
    const packed = await collectBytes(platform.deflate(voxels, 'zlib', level));
    yield encodeMetaImageHeader(volume, { ...about, compressedBytes: packed.length });
    yield packed;
  } else {
    yield encodeMetaImageHeader(volume, about);
    yield* voxels;
  }
}

const pieceBytes = 2 ** 18;

async function* chained(first: Bytes, rest: AsyncIterable<Bytes>): AsyncIterable<Bytes> {
  yield first;
  yield* rest;
}

async function* pieces(voxels: Voxels): AsyncIterable<Bytes> {
  const bytes = new Uint8Array(voxels.buffer, voxels.byteOffset, voxels.byteLength);
  for (let at = 0; at < bytes.length; at += pieceBytes) yield ownedBytes(bytes.subarray(at, at + pieceBytes));
}

async function* owned(source: AsyncIterable<Uint8Array>): AsyncIterable<Bytes> {
  for await (const chunk of source) yield ownedBytes(chunk);
}

/** The voxels with the components of each one side by side. */
async function* interleaved(volume: Volume): AsyncIterable<Bytes> {
  const { voxels, components } = volume;
  if (components === 1) return yield* pieces(voxels);
  const width = bytesPerVoxel(voxelTypeOf(voxels));
  const n = voxelCount(volume);
  const source = new Uint8Array(voxels.buffer, voxels.byteOffset, voxels.byteLength);
  const perPiece = Math.max(1, Math.floor(pieceBytes / (components * width)));
  for (let first = 0; first < n; first += perPiece) {
    const count = Math.min(perPiece, n - first);
    const piece = new Uint8Array(count * components * width);
    for (let c = 0; c < components; c++) {
      let from = (c * n + first) * width;
      for (let i = 0; i < count; i++) {
        const to = (i * components + c) * width;
        for (let b = 0; b < width; b++) piece[to + b] = source[from++];
      }
    }
    yield piece;
  }
}

/** All pieces as one array. */
export async function collectBytes(source: AsyncIterable<Uint8Array>): Promise<Bytes> {
  const parts: Uint8Array[] = [];
  for await (const part of source) parts.push(part);
  return joinBytes(parts);
}

function joinBytes(parts: readonly Uint8Array[]): Bytes {
  const joined = new Uint8Array(parts.reduce((n, part) => n + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
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
