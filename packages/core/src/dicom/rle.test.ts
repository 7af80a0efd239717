import { describe, expect, it } from 'vitest';
import { TomaatError } from '../errors.ts';
import type { FrameShape } from './decoders.ts';
import { decodeRle } from './rle.ts';

const shape: FrameShape = {
  rows: 2,
  columns: 3,
  samplesPerPixel: 1,
  bitsAllocated: 16,
  bitsStored: 16,
  isSigned: false,
};

/** A frame of these segments, with a header of theirs. */
function frameOf(...segments: number[][]): Uint8Array {
  const header = new Uint8Array(64);
  const view = new DataView(header.buffer);
  view.setUint32(0, segments.length, true);
  let at = 64;
  for (const [i, segment] of segments.entries()) {
    view.setUint32(4 + 4 * i, at, true);
    at += segment.length;
  }
  return Uint8Array.from([...header, ...segments.flat()]);
}
const valuesOf = (frame: Uint8Array) => [...new Uint16Array(decodeRle(frame, shape).bytes.buffer)];

// PS3.5 G.3.1: -5 repeats six times, 2 copies three bytes, -128 does nothing.
const high = [251, 0x12];
const low = [2, 1, 2, 3, 128, 2, 4, 5, 6];

describe('decodeRle()', () => {
  it('puts the most significant bytes first', () => {
    expect(valuesOf(frameOf(high, low))).toEqual([0x1201, 0x1202, 0x1203, 0x1204, 0x1205, 0x1206]);
  });

  it('ignores segment padding and a run that exceeds the image', () => {
    expect(valuesOf(frameOf([129, 0x12, 9, 9], [...low, 0, 0]))).toEqual(valuesOf(frameOf(high, low)));
  });

  it.each<[string, Uint8Array, RegExp]>([
    ['too few segments', frameOf(low), /1 segments instead of 2/],
    ['too many', frameOf(high, low, low), /3 segments instead of 2/],
    ['a segment that ends early', frameOf(high, low.slice(0, 7)), /segment 2 ends after 4 of 6/],
    ['a run without its value', frameOf([251], low), /segment 1 ends after 0 of 6/],
    ['a segment outside of it', frameOf(high, low).fill(255, 8, 12), /lies outside/],
    ['segments in the wrong order', frameOf(high, low).fill(64, 8, 9).fill(66, 4, 5), /lies outside/],
    ['a header that is cut off', frameOf(high, low).subarray(0, 63), /header is cut off/],
  ])('refuses %s', (_, frame, message) => {
    expect(() => decodeRle(frame, shape)).toThrow(TomaatError);
    expect(() => decodeRle(frame, shape)).toThrow(message);
  });
});
