import { TomaatError } from '../errors.ts';
import type { Platform } from '../platform.ts';
import { bytesPerVoxel, type Volume, type Voxels, voxelCount, voxelTypeOf } from '../volume.ts';
import {
  baseName,
  checkAffine,
  defaultLimits,
  type HeaderBytes,
  type LengthUnit,
  latin1,
  type ParsedHeader,
  type ReadLimits,
  type StoredLayout,
  type VolumeExtension,
  type VolumeHeader,
} from './header.ts';
import { inflatePrefix, isGzip } from './inflate-prefix.ts';
import { encodeMetaImageHeader, isMetaImage, parseMetaImage } from './metaimage.ts';
import { encodeNiftiHeader, isNifti, parseNifti } from './nifti.ts';
import { encodeNrrdHeader, isNrrd, parseNrrd } from './nrrd.ts';
import { createVoxelSink, textToBytes } from './voxel-sink.ts';

export type { LengthUnit, ReadLimits, VolumeExtension, VolumeFormat, VolumeHeader } from './header.ts';

/** A file to read. Only the name's last part is ever looked at; it is never a path to open. */
export interface SourceFile {
  name: string;
  /** Its name is not the one that the header of its pair may know: whether they belong together was seen before. */
  renamed?: boolean;
  sizeBytes?: number;
  /** The bytes from `start` (default 0) to the end; may be called several times. */
  open(start?: number): AsyncIterable<Uint8Array>;
}

/** The first bytes of a file: the whole file, or 64 KiB at least. */
export interface FilePrefix {
  name: string;
  renamed?: boolean;
  prefix: Uint8Array;
  sizeBytes?: number;
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
  /** Unit that a NIfTI file states its geometry in (default mm); MetaImage and NRRD are always in mm. */
  unit?: LengthUnit;
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

const formats = [
  { matches: isNrrd, parse: parseNrrd },
  { matches: isNifti, parse: parseNifti },
  { matches: isMetaImage, parse: parseMetaImage },
] as const;

/** Other kinds of files that people send, and what to do about them. */
const strangers: readonly (readonly [at: number, magic: string, advice: string])[] = [
  [128, 'DICM', 'a DICOM file: convert the series to NIfTI, for instance with dcm2niix'],
  [0, '\xff\xd8\xff', 'a JPEG picture: send the volume that it was made from'],
  [0, '\x89PNG', 'a PNG picture: send the volume that it was made from'],
  [0, 'GIF8', 'a GIF picture: send the volume that it was made from'],
  [0, 'II*\0', 'a TIFF file: convert it to NIfTI, NRRD or MetaImage'],
  [0, 'MM\0*', 'a TIFF file: convert it to NIfTI, NRRD or MetaImage'],
  [0, '%PDF', 'a PDF document: send a volume'],
  [0, 'PK\x03\x04', 'a zip archive: unpack it and send the volume in it'],
  [0, 'BZh', 'packed with bzip2: unpack it, or pack it with gzip'],
  [0, '\xfd7zXZ\0', 'packed with xz: unpack it, or pack it with gzip'],
  [0, '\x28\xb5\x2f\xfd', 'packed with zstd: unpack it, or pack it with gzip'],
  [257, 'ustar', 'a tar archive: unpack it and send the volume in it'],
  [0, '\x89HDF\r\n\x1a\n', 'an HDF5 file, perhaps MINC: convert it to NIfTI'],
  [0, 'CDF\x01', 'a NetCDF file, perhaps MINC: convert it to NIfTI'],
  [0, '# vtk DataFile', 'a VTK file: convert it to NIfTI, NRRD or MetaImage'],
  [0, '\0\0\0\x01\0\0', 'perhaps a FreeSurfer MGH volume: convert it with mri_convert to NIfTI'],
];

const prefixBytes = 65536;
const longPrefixBytes = 4 * 2 ** 20;
/** No byte of deflate unpacks to more than this: a repeated copy of 258 bytes takes two bits. */
const largestRatio = 1032;

/** What one read of files needs: the header, and where in which file the voxels are. */
interface Plan extends ParsedHeader {
  file: number;
  compression: 'none' | 'gzip' | 'zlib';
  /** First byte of the encoded voxels; undefined when the header is longer than the bytes at hand. */
  start: number | undefined;
}

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
 * Reads a volume: the header, then one allocation of what is kept, then the voxels as they stream in. Stops at the first
 * byte more than the header promises. A file has to be exactly as long as its header says: nothing may follow the voxels,
 * nor the compressed data.
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
  await readDecoded(plan, file, platform, signal, (chunk) => {
    if (seen + chunk.length > end) {
      throw new TomaatError(
        'BAD_VOXELS',
        `The voxel data is longer than the ${header.storedBytes} bytes that the header promises: send the original file`,
      );
    }
    if (seen + chunk.length > skip) {
      sink.push(seen < skip ? chunk.subarray(skip - seen) : chunk);
      options.onProgress?.((seen + chunk.length - skip) / header.storedBytes);
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

function planRead(files: readonly FilePrefix[], limits: ReadLimits): Plan {
  if (files.length === 0)
    throw new TomaatError('BAD_INPUT', 'No file was given: send the file or files of one volume');
  const heads = files.map(headOf);
  // Of a pair the header goes first: raw voxels may begin like anything.
  const order = files
    .map((_, i) => i)
    .sort((a, b) => Number(isHeaderName(files[b].name)) - Number(isHeaderName(files[a].name)));
  for (const i of order) {
    const format = formats.find(({ matches }) => matches(heads[i].bytes));
    if (!format) continue;
    if (heads[i].gzip && format.matches !== isNifti) {
      throw new TomaatError(
        'UNSUPPORTED_FORMAT',
        `The ${kindOf(files[i])} is packed with gzip as a whole: unpack it first`,
      );
    }
    return placeVoxels(format.parse(heads[i], limits), i, files);
  }
  throw unknownFormat(files[order[0]], heads[order[0]]);
}

const isHeaderName = (name: string) => /\.(hdr|hdr\.gz|mhd|nhdr)$/i.test(name);
/** What kind of file it is, by its ending: a name may tell whose scan it is. */
const kindOf = (file: { name: string }) => {
  const ending = /\.(nii|hdr|img|mha|mhd|nrrd|nhdr|z?raw)(\.gz)?$/i.exec(baseName(file.name))?.[0];
  return ending ? `${ending.toLowerCase()} file` : 'file';
};

function headOf({ name, prefix, sizeBytes }: FilePrefix): HeaderBytes {
  const whole = sizeBytes === undefined ? prefix.length < prefixBytes : prefix.length >= sizeBytes;
  const gzip = isGzip(prefix);
  // A NIfTI header takes 540 bytes, and no other format is read out of a gzip member.
  return { name, bytes: gzip ? inflatePrefix(prefix, 4096) : prefix, gzip, whole };
}

function unknownFormat(file: FilePrefix, head: HeaderBytes): TomaatError {
  if (file.prefix.length === 0)
    return new TomaatError('UNKNOWN_FORMAT', `The ${kindOf(file)} is empty: send it again`);
  if (head.gzip && head.bytes.length < 540) {
    return new TomaatError(
      'UNKNOWN_FORMAT',
      `The ${kindOf(file)} is packed with gzip, but damaged or too short to hold a volume: send it again`,
    );
  }
  for (const [at, magic, advice] of strangers) {
    if (latin1(head.bytes.subarray(at, at + magic.length)) === magic) {
      return new TomaatError('UNSUPPORTED_FORMAT', `The ${kindOf(file)} is ${advice}`);
    }
  }
  return new TomaatError(
    'UNKNOWN_FORMAT',
    `The ${kindOf(file)} does not begin like a NIfTI, MetaImage or NRRD file: send a volume in one of these formats`,
  );
}

/** Finds the file with the voxels among those given, and checks what lengths can tell. */
function placeVoxels(parsed: ParsedHeader, headerFile: number, files: readonly FilePrefix[]): Plan {
  const { layout } = parsed;
  const index = layout.file ? findDataFile(layout.file, headerFile, files) : headerFile;
  const used = new Set([headerFile, index]);
  const unused = files.find((_, i) => !used.has(i));
  if (unused) {
    throw new TomaatError(
      'BAD_INPUT',
      `A ${kindOf(unused)} does not belong to the volume of the ${kindOf(files[headerFile])}: send it as another input, or not at all`,
    );
  }
  const file = files[index];
  const start = startOfVoxels(layout, file);
  const compression = compressionOf(layout.encoding, file.prefix.subarray(start));
  const header = parsed.header;
  if (header.format === 'nifti1' || header.format === 'nifti2') {
    header.compressed = compression !== 'none';
    header.extension = header.compressed ? 'nii.gz' : 'nii';
  }
  if (start !== undefined) checkLength(parsed, compression, start, file);
  return { ...parsed, file: index, compression, start };
}

function findDataFile(
  wanted: NonNullable<StoredLayout['file']>,
  headerFile: number,
  files: readonly FilePrefix[],
): number {
  const others = files
    .map((file, i) => ({ i, name: baseName(file.name) }))
    .filter(({ i }) => i !== headerFile);
  if (wanted === 'image') {
    const stem = baseName(files[headerFile].name).replace(/\.hdr(\.gz)?$/i, '');
    const images = others.filter(({ name }) => /\.img(\.gz)?$/i.test(name));
    const found =
      images.find(({ name }) => name.replace(/\.img(\.gz)?$/i, '') === stem) ??
      (images.length === 1 ? images[0] : undefined);
    if (found) return found.i;
    throw new TomaatError(
      'BAD_INPUT',
      `The ${kindOf(files[headerFile])} is the header of a NIfTI pair: send it together with its .img file`,
    );
  }
  const found =
    others.find(({ name }) => name === wanted.name) ??
    others.find(({ name }) => name.toLowerCase() === wanted.name.toLowerCase());
  if (found) return found.i;
  if (others.length === 1 && files[others[0].i].renamed) return others[0].i;
  throw new TomaatError(
    'BAD_INPUT',
    `The header names a ${kindOf(wanted)} with the voxels, and none of that name was sent: send both files together, under the names that they have`,
  );
}

/** The offset of the encoded voxels, behind the lines to skip. */
function startOfVoxels(
  { offset, skipLines, skip, encoding }: StoredLayout,
  { prefix, sizeBytes }: FilePrefix,
): number | undefined {
  if (offset === undefined) return undefined;
  let at = offset;
  for (let line = 0; line < skipLines; line++) {
    const newline = prefix.indexOf(10, at);
    if (newline < 0)
      throw new TomaatError(
        'BAD_HEADER',
        `NRRD field "line skip" is ${skipLines}, but there are not as many lines near the start: write the file again`,
      );
    at = newline + 1;
  }
  const first = at + (encoding === 'raw' && typeof skip === 'number' ? skip : 0);
  if (sizeBytes !== undefined && first > sizeBytes) {
    throw new TomaatError(
      'BAD_VOXELS',
      `The header says that the voxels begin at byte ${first}, but the file has ${sizeBytes}: it is cut off, send it again`,
    );
  }
  return at;
}

function compressionOf(encoding: StoredLayout['encoding'], data: Uint8Array): Plan['compression'] {
  if (encoding === 'raw' || encoding === 'text') return 'none';
  if (encoding === 'gzip') return 'gzip';
  if (isGzip(data)) return 'gzip';
  return encoding === 'deflate' ? 'zlib' : 'none';
}

function checkLength(
  { header, layout }: ParsedHeader,
  compression: Plan['compression'],
  start: number,
  file: FilePrefix,
): void {
  if (file.sizeBytes === undefined) return;
  const encoded = file.sizeBytes - start;
  const fault = (text: string) => {
    throw new TomaatError('BAD_VOXELS', `The ${kindOf(file)} ${text}`);
  };
  const skip = typeof layout.skip === 'number' ? layout.skip : 0;
  const need = header.storedBytes + skip;
  if (layout.encodedBytes !== undefined && encoded < layout.encodedBytes) {
    fault(
      `holds ${encoded} of the ${layout.encodedBytes} bytes of compressed voxels that its header states: it is cut off, send it again`,
    );
  }
  if (layout.encoding === 'text') {
    const least = 2 * (header.storedBytes / bytesPerVoxel(header.voxelType)) - 1 + skip;
    if (encoded < least)
      fault(`has ${encoded} bytes of text, too few for its voxels: it is cut off, send it again`);
  } else if (compression !== 'none') {
    if (encoded * largestRatio < need) {
      fault(
        `has ${encoded} compressed bytes, which cannot unpack to the ${need} that its header asks for: it is cut off, send it again`,
      );
    }
  } else if (encoded < need) {
    fault(
      `has ${Math.max(0, encoded - skip)} bytes of voxels, but its header asks for ${header.storedBytes}: it is cut off, send it again`,
    );
  } else if (encoded > need && typeof layout.skip === 'number') {
    fault(
      `has ${encoded - skip} bytes of voxels, but its header asks for ${header.storedBytes}: header and voxels do not belong together, send the original file`,
    );
  }
}

function chooseFrame(frames: number, frame: number | 'all' | undefined): number | 'all' {
  if (frame === undefined) {
    if (frames === 1) return 0;
    throw new TomaatError(
      'FRAME_NEEDED',
      `The volume is 4-D with ${frames} frames: choose one, by ?frame=0 … ?frame=${frames - 1} in the address or --frame on the command line`,
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
  async function* watched(): AsyncIterable<Uint8Array> {
    try {
      for await (const chunk of file.open(plan.start)) {
        signal?.throwIfAborted();
        yield chunk;
      }
    } catch (error) {
      sourceFault = { error };
      throw error;
    }
  }
  const { compression } = plan;
  const decoded = compression === 'none' ? watched() : platform.inflate(watched(), compression);
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
): AsyncIterable<Uint8Array> {
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
    yield* extension === 'nii' ? bytes : platform.deflate(bytes, 'gzip', level);
    return;
  }
  const voxels = interleaved(volume);
  if (extension === 'nrrd') {
    yield encodeNrrdHeader(volume, { ...about, compressed: level > 0 });
    yield* level > 0 ? platform.deflate(voxels, 'gzip', level) : voxels;
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

async function* chained(first: Uint8Array, rest: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  yield first;
  yield* rest;
}

async function* pieces(voxels: Voxels): AsyncIterable<Uint8Array> {
  const bytes = new Uint8Array(voxels.buffer, voxels.byteOffset, voxels.byteLength);
  for (let at = 0; at < bytes.length; at += pieceBytes) yield bytes.subarray(at, at + pieceBytes);
}

/** The voxels with the components of each one side by side. */
async function* interleaved(volume: Volume): AsyncIterable<Uint8Array> {
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
export async function collectBytes(source: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for await (const part of source) parts.push(part);
  return joinBytes(parts);
}

function joinBytes(parts: readonly Uint8Array[]): Uint8Array {
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
