import { TomaatError } from '../errors.ts';
import { badHeader } from '../formats/header.ts';
import { type DicomFile, unsignedShort } from './dataset.ts';
import { tags } from './tags.ts';
import { transferSyntaxes } from './transfer-syntaxes.ts';

/* The pixels of a segmentation, frame by frame. */

export interface SegmentationFrames {
  /**
   * Labels the pixels of a BINARY frame with a value. Returns the label that a pixel has already, where another segment has one
   * of them.
   */
  addBinary(frame: number, target: Uint8Array | Uint16Array, value: number): number | undefined;
  /** Labels the pixels of a LABELMAP frame. `values` are those of the segment numbers. */
  readLabels(frame: number, target: Uint8Array | Uint16Array, values: ReadonlyMap<number, number>): void;
}

/**
 * @param pixels of a frame
 * @throws TomaatError BAD_HEADER for a number of bits that its type does not have; BAD_VOXELS when pixels are missing;
 *   UNSUPPORTED_FORMAT for compressions other than RLE
 */
export function openFrames(
  file: DicomFile,
  type: 'BINARY' | 'LABELMAP',
  frames: number,
  pixels: number,
): SegmentationFrames {
  const bits = unsignedShort(file.dataset, tags.bitsAllocated) ?? 0;
  if (type === 'BINARY' ? bits !== 1 : bits !== 8 && bits !== 16) {
    throw badHeader(
      `A ${type} segmentation cannot have ${bits} bits a pixel: export it again from the program that made it`,
    );
  }
  const bytesOf = frameReader(file, frames, pixels, bits);
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

/** The bytes of a frame, little endian, and the bit of the first of them at which it begins. */
type FrameReader = (frame: number) => { bytes: Uint8Array; bit: number };

function frameReader(
  { dataset, transferSyntax, littleEndian }: DicomFile,
  frames: number,
  pixels: number,
  bits: number,
): FrameReader {
  const element = dataset.get(tags.pixelData);
  if (element?.kind === 'fragments') {
    if (transferSyntax !== transferSyntaxes.rleLossless || bits === 1) {
      throw new TomaatError(
        'UNSUPPORTED_FORMAT',
        `The pixels of the segmentation are compressed in a way that is not read. Convert it to Explicit VR Little Endian, as gdcmconv --raw does.`,
      );
    }
    if (element.fragments.length !== frames) throw missingPixels();
    return (frame) => ({ bytes: decodeRle(element.fragments[frame], pixels, bits / 8), bit: 0 });
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

/** A frame in RLE Lossless (PS3.5 G) as samples in little endian. Nothing is allocated by what the frame states. */
function decodeRle(frame: Uint8Array, pixels: number, bytesPerSample: number): Uint8Array {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  if (frame.length < 64 || view.getUint32(0, true) !== bytesPerSample) throw missingPixels();
  const samples = new Uint8Array(pixels * bytesPerSample);
  for (let segment = 0; segment < bytesPerSample; segment++) {
    // The most significant byte comes first.
    const offset = bytesPerSample - 1 - segment;
    let at = view.getUint32(4 + 4 * segment, true);
    let pixel = 0;
    while (pixel < pixels) {
      if (at + 1 >= frame.length) throw missingPixels();
      const control = frame[at++];
      if (control === 128) continue;
      const count = control < 128 ? control + 1 : 257 - control;
      if (pixel + count > pixels || at + (control < 128 ? count : 1) > frame.length) throw missingPixels();
      for (let i = 0; i < count; i++, pixel++)
        samples[pixel * bytesPerSample + offset] = frame[control < 128 ? at + i : at];
      at += control < 128 ? count : 1;
    }
  }
  return samples;
}
