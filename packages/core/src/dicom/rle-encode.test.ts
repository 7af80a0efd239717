import { describe, expect, it } from 'vitest';
import { encodeRleFrame } from './rle-encode.ts';

/** A segment of RLE Lossless, read as PS3.5 G.3.2 says. */
function unpack(segment: Uint8Array): number[] {
  const bytes: number[] = [];
  for (let at = 0; at + 1 < segment.length; ) {
    const control = new Int8Array([segment[at++]])[0];
    if (control >= 0) for (let i = 0; i <= control; i++) bytes.push(segment[at++]);
    else if (control !== -128) {
      for (let i = 0; i < 1 - control; i++) bytes.push(segment[at]);
      at++;
    }
  }
  return bytes;
}

function segmentsOf(frame: Uint8Array): Uint8Array[] {
  const view = new DataView(frame.buffer, frame.byteOffset);
  const count = view.getUint32(0, true);
  const offsets = Array.from({ length: count }, (_, i) => view.getUint32(4 + 4 * i, true));
  return offsets.map((offset, i) => frame.subarray(offset, offsets[i + 1] ?? frame.length));
}

describe('encodeRleFrame()', () => {
  it('writes runs, other bytes and an even length', () => {
    const frame = encodeRleFrame(Uint8Array.of(7, 7, 7, 1, 2, 3, 3, 9), 8, 1);
    expect(Array.from(frame.subarray(0, 8))).toEqual([1, 0, 0, 0, 64, 0, 0, 0]);
    // A run of 3, two bytes, a run of 2, one byte.
    expect(Array.from(frame.subarray(64))).toEqual([254, 7, 1, 1, 2, 255, 3, 0, 9, 0]);
  });

  it('ends runs with their row, and takes 128 bytes at most', () => {
    expect(Array.from(encodeRleFrame(new Uint8Array(6).fill(5), 3, 1).subarray(64))).toEqual([
      254, 5, 254, 5,
    ]);
    expect(Array.from(encodeRleFrame(new Uint8Array(300), 300, 1).subarray(64))).toEqual([
      129, 0, 129, 0, 213, 0,
    ]);
  });

  it.each([1, 2] as const)(
    'holds %d bytes a sample, the most significant first, whatever they are',
    (width) => {
      let seed = 1;
      const random = () => (seed = (seed * 48271) % 2147483647);
      for (const levels of [1, 2, 3, 256]) {
        const samples = Uint8Array.from({ length: 37 * 11 * width }, () => random() % levels);
        const segments = segmentsOf(encodeRleFrame(samples, 37, width));
        expect(segments.length).toBe(width);
        for (const [i, segment] of segments.entries()) {
          expect(segment.length % 2).toBe(0);
          const plane = samples.filter((_, at) => at % width === width - 1 - i);
          expect(unpack(segment).slice(0, plane.length)).toEqual(Array.from(plane));
        }
      }
    },
  );
});
