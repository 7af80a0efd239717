import { TomaatError } from '../errors.ts';
import { badHeader, machineIsBigEndian } from '../formats/header.ts';
import { type DicomFile, unsignedShort } from './dataset.ts';
import type { FrameShape } from './decoders.ts';
import { codeStreams } from './encapsulated.ts';
import { decodeRle } from './rle.ts';
import { tags } from './tags.ts';
import { transferSyntaxes } from './transfer-syntaxes.ts';

/* The pixels of a segmentation, frame by frame. */

export interface SegmentationFrames {
  /**
   * Labels the pixels of a BINARY frame with a value. Returns the existing label if another segment already has one
   * of the pixels.
   */
  addBinary(frame: number, target: Uint8Array | Uint16Array, value: number): number | undefined;
  /** Labels the pixels of a LABELMAP frame. `values` are those of the segment numbers. */
  readLabels(frame: number, target: Uint8Array | Uint16Array, values: ReadonlyMap<number, number>): void;
}

/**
 * @param size of a frame
 * @throws TomaatError BAD_HEADER for a number of bits that its type does not have; BAD_VOXELS if pixels are missing;
 *   UNSUPPORTED_FORMAT for compressions other than RLE
 */
export function openFrames(
  file: DicomFile,
  type: 'BINARY' | 'LABELMAP',
  frames: number,
  [columns, rows]: readonly [columns: number, rows: number],
): SegmentationFrames {
  const pixels = columns * rows;
  const bits = unsignedShort(file.dataset, tags.bitsAllocated) ?? 0;
  if (type === 'BINARY' ? bits !== 1 : bits !== 8 && bits !== 16) {
    throw badHeader(
      `A ${type} segmentation cannot have ${bits} bits a pixel: export it again from the program that made it`,
    );
  }
  const shape = { rows, columns, samplesPerPixel: 1, bitsAllocated: bits, bitsStored: bits, isSigned: false };
  const bytesOf = frameReader(file, frames, shape);
  const padding = unsignedShort(file.dataset, tags.pixelPaddingValue) ?? 0;
  return {
    addBinary(frame, target, value) {
      const { bytes, bit } = bytesOf(frame);
      for (let i = 0; i < pixels; i++) {
        const at = bit + i;
        const byte = bytes[at >>> 3];
        // Most bytes are empty.
        if (byte === 0) {
          i += 7 - (at & 7);
          continue;
        }
        if (((byte >>> (at & 7)) & 1) === 0) continue;
        if (target[i] !== 0 && target[i] !== value) return target[i];
        target[i] = value;
      }
      return undefined;
    },
    readLabels(frame, target, values) {
      const { bytes } = bytesOf(frame);
      const wide = bits === 16;
      let [last, label] = [0, 0];
      for (let i = 0; i < pixels; i++) {
        const stored = wide ? bytes[2 * i] + 256 * bytes[2 * i + 1] : bytes[i];
        if (stored !== last) {
          last = stored;
          const isBackground = stored === 0 || stored === padding;
          const value = isBackground ? 0 : values.get(stored);
          if (value === undefined) {
            throw badHeader(
              `A pixel names the segment ${stored}, which is not described: export the segmentation again from the program that made it`,
            );
          }
          label = value;
        }
        target[i] = label;
      }
    },
  };
}

/** The bytes of a frame, little endian, and its first bit within the first byte. */
type FrameReader = (frame: number) => { bytes: Uint8Array; bit: number };

function frameReader(
  { dataset, transferSyntax, littleEndian }: DicomFile,
  frames: number,
  shape: FrameShape,
): FrameReader {
  const { rows, columns, bitsAllocated: bits } = shape;
  const pixels = rows * columns;
  const element = dataset.get(tags.pixelData);
  if (element?.kind === 'fragments') {
    if (transferSyntax !== transferSyntaxes.rleLossless || bits === 1) {
      throw new TomaatError(
        'UNSUPPORTED_FORMAT',
        `The pixels of the segmentation are compressed in a way that is not read. Convert it to Explicit VR Little Endian, as gdcmconv --raw does.`,
      );
    }
    const streamOf = codeStreams(element, frames, dataset);
    return (frame) => {
      const { bytes } = decodeRle(streamOf(frame), shape);
      return { bytes: bits === 16 && machineIsBigEndian ? swapped(bytes) : bytes, bit: 0 };
    };
  }
  const bytes = element?.kind === 'value' ? element.bytes : new Uint8Array(0);
  if (bytes.length < Math.ceil((frames * pixels * bits) / 8)) throw missingPixels();
  return (frame) => {
    const from = frame * pixels * bits;
    const end = Math.ceil((from + pixels * bits) / 8);
    const own = bytes.subarray(Math.floor(from / 8), end);
    return { bytes: bits === 16 && !littleEndian ? swapped(own) : own, bit: from % 8 };
  };
}

const missingPixels = () =>
  new TomaatError(
    'BAD_VOXELS',
    'The segmentation has fewer pixels than its header promises: send the file again',
  );

const swapped = (bytes: Uint8Array) => Uint8Array.from(bytes, (_, i) => bytes[i ^ 1]);
