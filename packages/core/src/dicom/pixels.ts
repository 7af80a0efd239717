import { TomaatError } from '../errors.ts';
import { machineIsBigEndian } from '../formats/header.ts';
import { swapBytes } from '../formats/voxel-sink.ts';
import type { Platform } from '../platform.ts';
import type { NumericVoxels } from '../volume.ts';
import type { DicomFile, ValueElement } from './dataset.ts';
import { decodeFrame, syntaxFault } from './decode-frame.ts';
import type { DecodedFrame } from './decoders.ts';
import { codeStreams } from './encapsulated.ts';
import { frameBytes, type PixelFormat } from './pixel-format.ts';
import { isPixelData } from './tags.ts';

/** The stored values of a frame of a file, with sign and unused bits handled by its header, not yet rescaled. */
export type ReadFrame = (frame: number) => Promise<NumericVoxels>;

/**
 * The pixels of a file, to be read frame by frame.
 *
 * @throws TomaatError BAD_VOXELS, if pixels are missing or damaged; UNSUPPORTED_FORMAT, if their transfer syntax is
 *   not supported
 */
export function openPixels(
  file: DicomFile,
  format: PixelFormat,
  frameCount: number,
  platform: Pick<Platform, 'decodeFrame'>,
): ReadFrame {
  const element = [...file.dataset.values()].find(({ tag }) => isPixelData(tag));
  const fault = syntaxFault(file.transferSyntax, element?.kind === 'fragments', platform);
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
      fromDecoded(await decodeFrame(file.transferSyntax, codeStream(frame), format, platform), format);
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

function nativeFrame(element: ValueElement, format: PixelFormat, frame: number): NumericVoxels {
  const { rows, columns, bitsAllocated } = format;
  if (bitsAllocated === 1) return unpackBits(element.bytes, frame * rows * columns, rows * columns);
  const length = frameBytes(format);
  // A copy, aligned to the size of a pixel.
  const bytes = new Uint8Array(element.bytes.subarray(frame * length, (frame + 1) * length));
  if (!element.littleEndian && bitsAllocated === 8 && element.vr === 'OW')
    return masked(oddBytes(element, frame * length, length), format, 8);
  if (bitsAllocated > 8 && element.littleEndian === machineIsBigEndian) swapBytes(bytes, bitsAllocated / 8);
  if (format.number === 'float32') return new Float32Array(bytes.buffer);
  if (format.number === 'float64') return new Float64Array(bytes.buffer);
  return masked(unsigned(bytes, bitsAllocated), format, bitsAllocated);
}

/** One-byte pixels in 16-bit big endian words: the first of two is stored second (PS3.5 8.1.1 and annex D). */
function oddBytes({ bytes }: ValueElement, from: number, length: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, (_, i) => bytes[(from + i) ^ 1] ?? 0);
}

/** Bits, the least significant of a byte first; frames follow each other without padding (PS3.5 8.1.1). */
function unpackBits(bytes: Uint8Array, from: number, count: number): Uint8Array {
  const out = new Uint8Array(count);
  for (let i = 0; i < count; i++) out[i] = (bytes[(from + i) >> 3] >> ((from + i) & 7)) & 1;
  return out;
}

type Unsigned = Uint8Array<ArrayBuffer> | Uint16Array<ArrayBuffer> | Uint32Array<ArrayBuffer>;

function unsigned(bytes: Uint8Array<ArrayBuffer>, bits: number): Unsigned {
  if (bits <= 8) return bytes;
  return bits <= 16 ? new Uint16Array(bytes.buffer) : new Uint32Array(bytes.buffer);
}

/** Converts the output of a decoder, which has its own number of bits, to stored values. */
function fromDecoded(decoded: DecodedFrame, format: PixelFormat): NumericVoxels {
  const bits = 8 * decoded.bytesPerSample;
  const bytes = new Uint8Array(decoded.bytes.subarray(0, (decoded.rows * decoded.columns * bits) / 8));
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
  return masked(unsigned(bytes, bits), layout, bits);
}

/**
 * The bits from HighBit down to BitsStored of each cell, interpreted by PixelRepresentation: a decoder does not know
 * whether values are signed, and the other bits may contain overlays.
 */
function masked(
  cells: Unsigned,
  { bitsStored, highBit, isSigned }: Pick<PixelFormat, 'bitsStored' | 'highBit' | 'isSigned'>,
  bits: number,
): NumericVoxels {
  const left = 31 - highBit;
  const right = 32 - bitsStored;
  if (!isSigned) {
    if (bitsStored < bits) for (let i = 0; i < cells.length; i++) cells[i] = (cells[i] << left) >>> right;
    return cells;
  }
  const { buffer } = cells;
  const values =
    bits === 8 ? new Int8Array(buffer) : bits === 16 ? new Int16Array(buffer) : new Int32Array(buffer);
  if (bitsStored < bits) for (let i = 0; i < values.length; i++) values[i] = (cells[i] << left) >> right;
  return values;
}
