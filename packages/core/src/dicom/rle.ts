import { TomaatError } from '../errors.ts';
import { machineIsBigEndian } from '../formats/header.ts';
import type { Allocate, DecodedFrame, FrameShape } from './decoders.ts';

const headerBytes = 64;
const mostSegments = 15;

/**
 * Decodes a frame of RLE Lossless (PS3.5 annex G): a segment for each byte of a sample, the most significant first,
 * packed as in TIFF's PackBits.
 *
 * @param allocate memory for the samples; new memory if missing
 * @throws TomaatError BAD_VOXELS, if the segments do not match the image, or end early
 */
export function decodeRle(
  frame: Uint8Array,
  shape: FrameShape,
  allocate: Allocate = (length) => new Uint8Array(length),
): DecodedFrame {
  const { rows, columns, bitsAllocated } = shape;
  const width = Math.ceil(bitsAllocated / 8);
  const pixels = rows * columns;
  if (frame.length < headerBytes) throw damaged('its header is cut off');
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  const segments = view.getUint32(0, true);
  if (segments !== width || segments > mostSegments) {
    throw damaged(`it has ${segments} segments instead of ${width}`);
  }
  const out = allocate(pixels * width);
  for (let segment = 0; segment < segments; segment++) {
    const start = view.getUint32(4 + 4 * segment, true);
    const end = segment + 1 < segments ? view.getUint32(8 + 4 * segment, true) : frame.length;
    if (start < headerBytes || end > frame.length || start > end)
      throw damaged('a segment lies outside of it');
    const first = machineIsBigEndian ? segment : width - 1 - segment;
    const written = unpack(frame.subarray(start, end), out, first, width);
    if (written < pixels) throw damaged(`segment ${segment + 1} ends after ${written} of ${pixels} pixels`);
  }
  const bytesPerSample = width <= 2 ? (width as 1 | 2) : 4;
  return { rows, columns, samplesPerPixel: 1, bytes: out, bytesPerSample, bitsPerSample: bitsAllocated };
}

const damaged = (why: string) =>
  new TomaatError('BAD_VOXELS', `The RLE data of an image is damaged (${why}): send the file again`);

/**
 * Writes the bytes of a segment to every `step`th byte, and returns their number. Anything left over when the image
 * is full is padding.
 */
function unpack(segment: Uint8Array, out: Uint8Array, first: number, step: number): number {
  let to = first;
  let from = 0;
  while (from < segment.length && to < out.length) {
    const control = segment[from++];
    if (control < 128) {
      const stop = Math.min(from + control + 1, segment.length);
      for (; from < stop && to < out.length; to += step) out[to] = segment[from++];
    } else if (control > 128 && from < segment.length) {
      const value = segment[from++];
      const stop = Math.min(to + (257 - control) * step, out.length);
      for (; to < stop; to += step) out[to] = value;
    }
  }
  return Math.floor((to - first) / step);
}
