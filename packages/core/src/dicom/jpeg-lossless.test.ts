import { describe, expect, it } from 'vitest';
import { encodeJpegLossless, type LosslessJpeg } from '../../test/jpeg-lossless.ts';
import { TomaatError } from '../errors.ts';
import { createNumbers } from '../geometry/fixtures.ts';
import { decodeJpegLossless } from './jpeg-lossless.ts';

const next = createNumbers(7);
const noise = (precision: number, count: number) =>
  Array.from({ length: count }, () => next() >>> (32 - precision));
const decode = (bytes: Uint8Array, { rows, columns }: LosslessJpeg) => {
  const frame = decodeJpegLossless(bytes, { rows, columns });
  return [...new Uint16Array(frame.bytes.buffer)];
};
const base: LosslessJpeg = { rows: 5, columns: 7, precision: 12, predictor: 1 };

describe('decodeJpegLossless()', () => {
  it.each([1, 2, 3, 4, 5, 6, 7])('predictor %i, of 2 to 16 bits, with and without restarts', (predictor) => {
    for (let precision = 2; precision <= 16; precision++)
      for (const restartLines of [0, 1, 2, 5]) {
        const jpeg = { ...base, predictor, precision, restartLines };
        const samples = noise(precision, 35);
        expect(decode(encodeJpegLossless(samples, jpeg), jpeg)).toEqual(samples);
      }
  });

  it('reads the largest 16-bit differences, which have a separate category', () => {
    const samples = [0, 32_768, 0, 65_535, 32_767, 65_535, 0, 1, 32_769, 0, 0, 32_768];
    const jpeg = { ...base, rows: 2, columns: 6, precision: 16 };
    for (const predictor of [1, 2, 4, 7])
      expect(decode(encodeJpegLossless(samples, { ...jpeg, predictor }), jpeg)).toEqual(samples);
  });

  it('reads codes of every length up to 16 bits', () => {
    for (let codeBits = 5; codeBits <= 16; codeBits++) {
      const jpeg = { ...base, precision: 16, predictor: 6, restartLines: 2, codeBits };
      const samples = noise(16, 35);
      expect(decode(encodeJpegLossless(samples, jpeg), jpeg)).toEqual(samples);
    }
  });

  it('shifts by the point transform', () => {
    const samples = noise(12, 35);
    for (const pointTransform of [1, 4]) {
      const jpeg = { ...base, predictor: 4, pointTransform };
      const expected = samples.map((value) => (value >> pointTransform) << pointTransform);
      expect(decode(encodeJpegLossless(samples, jpeg), jpeg)).toEqual(expected);
    }
  });

  it('reads one line, one column, one sample', () => {
    for (const [rows, columns] of [
      [1, 9],
      [9, 1],
      [1, 1],
    ]) {
      const samples = noise(12, rows * columns);
      const jpeg = { ...base, rows, columns, predictor: 7 };
      expect(decode(encodeJpegLossless(samples, jpeg), jpeg)).toEqual(samples);
    }
  });

  const good = encodeJpegLossless(noise(12, 35), base);
  it('fails with a typed error wherever truncated before its last sample', () => {
    for (let length = 0; length < good.length - 3; length++) {
      const cut = good.subarray(0, length);
      expect(() => decode(cut, base), String(length)).toThrow(TomaatError);
    }
  });

  it('takes any change of a byte, or fails with a typed error', () => {
    for (let at = 0; at < good.length; at++)
      for (const change of [1, 0x80, 0xff]) {
        try {
          expect(decode(good.with(at, good[at] ^ change), base).length).toBe(35);
        } catch (error) {
          expect(error).toBeInstanceOf(TomaatError);
        }
      }
  });

  it.each<[what: string, bytes: Uint8Array, message: RegExp]>([
    [
      'another size',
      encodeJpegLossless(noise(12, 35), { ...base, rows: 7, columns: 5 }),
      /5 × 7 pixels instead of 7 × 5/,
    ],
    ['a restart interval that is not of lines', restarted(4), /restart interval/],
    ['a predictor that there is not', encodeJpegLossless(noise(12, 35), { ...base, predictor: 0 }), /scan/],
    [
      'another kind of JPEG',
      good.map((byte, i) => (byte === 0xc3 && good[i - 1] === 0xff ? 0xc1 : byte)),
      /another kind/,
    ],
    ['a PNG', Uint8Array.of(0x89, 0x50, 0x4e, 0x47), /does not begin like a JPEG/],
  ])('refuses %s', (_, bytes, message) => {
    expect(() => decode(bytes, base)).toThrow(message);
  });

  /** With an interval of so many samples. */
  function restarted(samples: number): Uint8Array {
    const bytes = encodeJpegLossless(noise(12, 35), { ...base, restartLines: 1 });
    const at = bytes.findIndex((byte, i) => byte === 0xff && bytes[i + 1] === 0xdd);
    return bytes.with(at + 5, samples);
  }
});
