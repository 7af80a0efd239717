import { TomaatError } from '../errors.ts';
import { machineIsBigEndian } from '../formats/header.ts';
import { swapBytes } from '../formats/voxel-sink.ts';
import type { NumericVoxels } from '../volume.ts';
import type { DicomFile, ValueElement } from './dataset.ts';
import { type Decoders, decodeFrame, syntaxFault } from './decode-frame.ts';
import type { DecodedFrame } from './decoders.ts';
import { codeStreams } from './encapsulated.ts';
import { frameBytes, type PixelFormat } from './pixel-format.ts';
import { isPixelData } from './tags.ts';

/** A frame's pixel cells: only to be read, since they may be a view of the file, and only until the next frame is. */
export interface StoredFrame {
  readonly cells: NumericVoxels;
  /** The bits of a cell that hold its value; undefined if the numbers of `cells` are the values. */
  readonly bits?: Pick<PixelFormat, 'bitsStored' | 'highBit' | 'isSigned'>;
}

export type ReadFrame = (frame: number) => Promise<StoredFrame>;

/**
 * The pixels of a file, to be read frame by frame.
 * * @throws TomaatError BAD_VOXELS, if pixels are missing or damaged; UNSUPPORTED_FORMAT, if their transfer syntax is
 *   not supported
 */
export function openPixels(
  file: DicomFile,
  format: PixelFormat,
  frameCount: number,
  decoders: Decoders,
): ReadFrame {
  const element = [...file.dataset.values()].find(({ tag }) => isPixelData(tag));
  const fault = syntaxFault(file.transferSyntax, element?.kind === 'fragments', decoders);
  if (fault) throw fault;
  if (element?.kind === 'fragments') {
    if (format.bitsAllocated === 1) {
      throw new TomaatError(
        'UNSUPPORTED_FORMAT',
        'Compressed pixels of one bit are not read: export the series uncompressed',
      );
    }
    const codeStream = codeStreams(element, frameCount, file.dataset);
    return async (frame) =>
      fromDecoded(await decodeFrame(file.transferSyntax, codeStream(frame), format, decoders), format);
  }
  if (element?.kind !== 'value') throw new TomaatError('BAD_VOXELS', 'The file has no pixels: send it again');
  checkNative(element, format, frameCount);
  return async (frame) => nativeFrame(element, format, frame);
}

function checkNative(element: ValueElement, format: PixelFormat, frameCount: number): void {
  const needed = Math.ceil(frameBytes(format) * frameCount);
  if (element.bytes.length < needed) {
    throw new TomaatError(
      'BAD_VOXELS',
      `The pixels end after ${element.bytes.length} of ${needed} bytes: the file is cut off, send it again`,
    );
  }
  if (!element.littleEndian && format.bitsAllocated === 32 && format.number === 'integer') {
    throw new TomaatError(
      'UNSUPPORTED_FORMAT',
      'Pixels of 32 bits in big endian order are written in two ways: convert the files, for instance with dcmconv +te',
    );
  }
}

function nativeFrame(element: ValueElement, format: PixelFormat, frame: number): StoredFrame {
  const { rows, columns, bitsAllocated } = format;
  if (bitsAllocated === 1)
    return { cells: unpackBits(element.bytes, frame * rows * columns, rows * columns) };
  const length = frameBytes(format);
  if (!element.littleEndian && bitsAllocated === 8 && element.vr === 'OW')
    return integers(oddBytes(element, frame * length, length), format, 8);
  const stored = element.bytes.subarray(frame * length, (frame + 1) * length);
  const width = bitsAllocated / 8;
  const swap = width > 1 && element.littleEndian === machineIsBigEndian;
  const bytes = swap ? new Uint8Array(stored) : aligned(stored, width);
  if (swap) swapBytes(bytes, width);
  if (format.number === 'integer') return integers(bytes, format, bitsAllocated);
  const { byteOffset } = bytes;
  const buffer = bytes.buffer as ArrayBuffer;
  const count = rows * columns;
  return {
    cells:
      format.number === 'float32'
        ? new Float32Array(buffer, byteOffset, count)
        : new Float64Array(buffer, byteOffset, count),
  };
}

/** The bytes themselves if numbers of this width can be read from them, otherwise a copy. */
const aligned = (bytes: Uint8Array, width: number): Uint8Array =>
  bytes.byteOffset % width === 0 ? bytes : new Uint8Array(bytes);

/** One-byte pixels in 16-bit big endian words: the first of two is stored second (PS3.5 8.1.1 and annex D). */
function oddBytes({ bytes }: ValueElement, from: number, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => bytes[(from + i) ^ 1] ?? 0);
}

/** Bits, the least significant of a byte first; frames follow each other without padding (PS3.5 8.1.1). */
function unpackBits(bytes: Uint8Array, from: number, count: number): Uint8Array {
  const out = new Uint8Array(count);
  for (let i = 0; i < count; i++) out[i] = (bytes[(from + i) >> 3] >> ((from + i) & 7)) & 1;
  return out;
}

/** The output of a decoder, which has its own number of bits. */
function fromDecoded(decoded: DecodedFrame, format: PixelFormat): StoredFrame {
  const { bytes, bytesPerSample, rows, columns } = decoded;
  // A code stream with fewer bits than the pixel cells contains only the values; one with as many contains the cells.
  const { bitsStored, highBit } = format;
  const holdsCells = decoded.bitsPerSample > highBit;
  const layout = holdsCells
    ? format
    : {
        ...format,
        bitsStored: Math.min(bitsStored, decoded.bitsPerSample),
        highBit: Math.min(bitsStored, decoded.bitsPerSample) - 1,
      };
  const samples = aligned(bytes.subarray(0, rows * columns * bytesPerSample), bytesPerSample);
  return integers(samples, layout, 8 * bytesPerSample);
}

const views = {
  unsigned: { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array },
  signed: { 1: Int8Array, 2: Int16Array, 4: Int32Array },
} as const;

/**
 * The bits from HighBit down to BitsStored of each cell, interpreted by PixelRepresentation: a decoder does not know
 * whether values are signed, and the other bits may contain overlays.
 */
function integers(
  bytes: Uint8Array,
  layout: Pick<PixelFormat, 'bitsStored' | 'highBit' | 'isSigned'>,
  bits: number,
): StoredFrame {
  const width = bits <= 8 ? 1 : bits <= 16 ? 2 : 4;
  const isWhole = layout.bitsStored >= 8 * width;
  const View = views[isWhole && layout.isSigned ? 'signed' : 'unsigned'][width];
  const cells = new View(bytes.buffer as ArrayBuffer, bytes.byteOffset, bytes.length / width);
  return isWhole ? { cells } : { cells, bits: layout };
}

/** value = slope × stored + intercept, in one pass: the values of a frame, written to `voxels` from `at` on. */
export function rescale(
  { cells, bits }: StoredFrame,
  { slope, intercept }: { readonly slope: number; readonly intercept: number },
  voxels: NumericVoxels,
  at: number,
): void {
  const { length } = cells;
  if (!bits) {
    if (slope === 1 && intercept === 0) voxels.set(cells, at);
    else if (slope === 1) {
      // Integer sums take half as long as floating-point sums.
      for (let i = 0; i < length; i++) voxels[at + i] = cells[i] + intercept;
    } else for (let i = 0; i < length; i++) voxels[at + i] = slope * cells[i] + intercept;
    return;
  }
  const shift = bits.highBit + 1 - bits.bitsStored;
  const mask = 2 ** bits.bitsStored - 1;
  // Two's complement: the sign bit counts negative.
  const sign = bits.isSigned ? 2 ** (bits.bitsStored - 1) : 0;
  if (slope === 1) {
    for (let i = 0; i < length; i++)
      voxels[at + i] = (((cells[i] >> shift) & mask) ^ sign) - sign + intercept;
  } else {
    for (let i = 0; i < length; i++)
      voxels[at + i] = slope * ((((cells[i] >> shift) & mask) ^ sign) - sign) + intercept;
  }
}
