import { TomaatError } from '../errors.ts';
import { type LabelVoxels, labelVoxels } from '../labels/label-map.ts';
import { machineIsBigEndian, type Size, type Volume } from '../volume.ts';
import { encodeRleFrame } from './rle-encode.ts';

/* The pixel data of segmentations. Each function passes over the voxels once, for any number of labels. */

/** A frame of a BINARY segmentation: one segment in one slice. */
export interface SegmentFrame {
  readonly value: number;
  /** Index of the slice, starting at 0. */
  readonly slice: number;
}

const largestValue = 65_535;

/** The labels of a volume; SegmentNumber and its pixels have 16 bits. BAD_INPUT for a value outside 0 to 65535. */
export function segmentVoxels(labelMap: Volume): LabelVoxels {
  const voxels = labelVoxels(labelMap);
  if (voxels instanceof Uint8Array || voxels instanceof Uint16Array) return voxels;
  for (let i = 0; i < voxels.length; i++) {
    if (voxels[i] < 0 || voxels[i] > largestValue) {
      throw new TomaatError(
        'BAD_INPUT',
        `A DICOM result holds labels from 0 to ${largestValue}, and the label map has the value ${voxels[i]}. Map it to another value.`,
      );
    }
  }
  return voxels;
}

/** The values other than 0 in each slice, ascending. */
export function valuesInSlices(voxels: LabelVoxels, [nx, ny, nz]: Size): number[][] {
  const pixels = nx * ny;
  const lastSeen = new Int32Array(largestValue + 1).fill(-1);
  return Array.from({ length: nz }, (_, slice) => {
    const found: number[] = [];
    let last = 0;
    for (let i = slice * pixels, end = i + pixels; i < end; i++) {
      const value = voxels[i];
      if (value === last) continue;
      last = value;
      if (value === 0 || lastSeen[value] === slice) continue;
      lastSeen[value] = slice;
      found.push(value);
    }
    return found.sort((a, b) => a - b);
  });
}

/**
 * Frames with one bit per pixel, the first pixel in the lowest bit (PS3.5 8.1.1, D). A frame begins at the bit after
 * the previous frame.
 */
export function packBinaryFrames(
  voxels: LabelVoxels,
  [nx, ny]: Size,
  frames: readonly SegmentFrame[],
): Uint8Array {
  const pixels = nx * ny;
  const bytes = new Uint8Array(Math.ceil((frames.length * pixels) / 8));
  const framesOf = new Map<number, { value: number; frame: number }[]>();
  for (const [frame, { value, slice }] of frames.entries()) {
    const others = framesOf.get(slice) ?? [];
    framesOf.set(slice, others);
    others.push({ value, frame });
  }
  const frameOf = new Float64Array(largestValue + 1).fill(-1);
  for (const [slice, inSlice] of framesOf) {
    for (const { value, frame } of inSlice) frameOf[value] = frame;
    const first = slice * pixels;
    let i = 0;
    while (i < pixels) {
      const value = voxels[first + i];
      const from = i++;
      while (i < pixels && voxels[first + i] === value) i++;
      if (value === 0 || frameOf[value] < 0) continue;
      const bit = frameOf[value] * pixels;
      setBits(bytes, Math.floor(bit / 8), (bit % 8) + from, (bit % 8) + i);
    }
    for (const { value } of inSlice) frameOf[value] = -1;
  }
  return bytes;
}

/** Sets the bits `from` to `to` (exclusive), counted from a byte. */
function setBits(bytes: Uint8Array, byte: number, from: number, to: number): void {
  const [first, last] = [byte + (from >>> 3), byte + ((to - 1) >>> 3)];
  const [head, tail] = [0xff << (from & 7), 0xff >>> (7 - ((to - 1) & 7))];
  if (first === last) {
    bytes[first] |= head & tail;
    return;
  }
  bytes[first] |= head;
  bytes.fill(0xff, first + 1, last);
  bytes[last] |= tail;
}

/** All slices as frames with one or two bytes per pixel (little endian): uncompressed, or each compressed with RLE. */
export function labelFrames(
  voxels: LabelVoxels,
  [nx, ny, nz]: Size,
  bytesPerSample: 1 | 2,
  compression: 'none' | 'rle',
): { bytes: Uint8Array } | { fragments: Uint8Array[]; offsets: Uint32Array } {
  const pixels = nx * ny;
  const frameBytes = (slice: number, count: number) =>
    littleEndianBytes(voxels.subarray(slice * pixels, (slice + count) * pixels), bytesPerSample);
  if (compression === 'none') return { bytes: frameBytes(0, nz) };
  const fragments = Array.from({ length: nz }, (_, slice) =>
    encodeRleFrame(frameBytes(slice, 1), nx, bytesPerSample),
  );
  const offsets = new Uint32Array(nz);
  for (let slice = 1; slice < nz; slice++)
    offsets[slice] = offsets[slice - 1] + 8 + fragments[slice - 1].length;
  return { fragments, offsets };
}

function littleEndianBytes(voxels: LabelVoxels, bytesPerSample: 1 | 2): Uint8Array {
  if (bytesPerSample === 1) return voxels instanceof Uint8Array ? voxels : Uint8Array.from(voxels);
  const samples = voxels instanceof Uint16Array && !machineIsBigEndian ? voxels : Uint16Array.from(voxels);
  const bytes = new Uint8Array(samples.buffer, samples.byteOffset, samples.byteLength);
  if (machineIsBigEndian)
    for (let i = 0; i < bytes.length; i += 2) [bytes[i], bytes[i + 1]] = [bytes[i + 1], bytes[i]];
  return bytes;
}
