import { deflateRawSync, gunzipSync, gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { inflatePrefix, isGzip } from './inflate-prefix.ts';

const text = new Uint8Array(50_000).map((_, i) => (i % 97) * ((i >> 9) % 5) + (i % 3));

describe('inflatePrefix()', () => {
  it.each([0, 1, 6, 9])('gives the first bytes of what zlib packed at level %i', (level) => {
    const packed = new Uint8Array(gzipSync(text, { level }));
    expect(inflatePrefix(packed, 4096)).toEqual(text.subarray(0, 4096));
    expect(inflatePrefix(packed, 100_000)).toEqual(text);
  });

  it('reads a fixed code (strategy Z_FIXED)', () => {
    expect(inflatePrefix(new Uint8Array(gzipSync(text, { strategy: 4 })), 9999)).toEqual(
      text.subarray(0, 9999),
    );
  });

  it('passes over the name, comment, extra field and checksum of a gzip header', () => {
    const extra = [3, 0, 1, 2, 3];
    const header = [0x1f, 0x8b, 8, 2 | 4 | 8 | 16, 9, 9, 9, 9, 0, 3, ...extra, 110, 97, 0, 99, 0, 1, 2];
    expect(inflatePrefix(Uint8Array.from([...header, ...deflateRawSync(text)]), 1000)).toEqual(
      text.subarray(0, 1000),
    );
  });

  it.each([
    ['as bgzip writes it', 4, [6, 0, 66, 67, 2, 0, 27, 0]],
    ['of no bytes', 4, [0, 0]],
    ['of 300 bytes', 4, [44, 1, ...Array(300).fill(7)]],
    ['with an empty name and comment after it', 4 | 8 | 16, [8, 0, ...Buffer.from('comment\0'), 0, 0]],
  ])('ends an extra field where it ends: %s', (_what, flags, fields) => {
    const header = [0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 3, ...fields];
    const trailer = gzipSync(text).subarray(-8);
    const packed = Uint8Array.from([...header, ...deflateRawSync(text), ...trailer]);
    expect(gunzipSync(packed).equals(text)).toBe(true);
    expect(inflatePrefix(packed, 1000)).toEqual(text.subarray(0, 1000));
  });

  it('gives a beginning of the data, longer the more of the input there is', () => {
    const packed = new Uint8Array(gzipSync(text));
    let previous = 0;
    for (let length = 0; length <= packed.length; length += 61) {
      const out = inflatePrefix(packed.subarray(0, length), 100_000);
      expect(out).toEqual(text.subarray(0, out.length));
      expect(out.length).toBeGreaterThanOrEqual(previous);
      previous = out.length;
    }
    expect(previous).toBeGreaterThan(40_000);
  });

  it('takes any bytes without a throw, and gives no more than asked for', () => {
    const packed = new Uint8Array(gzipSync(text.subarray(0, 3000)));
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(packed.length - 1), fc.nat(255)), { minLength: 1, maxLength: 8 }),
        (changes) => {
          const mutated = packed.slice();
          for (const [at, value] of changes) mutated[at] = value;
          expect(inflatePrefix(mutated, 4096).length).toBeLessThanOrEqual(4096);
        },
      ),
      { numRuns: 500 },
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => inflatePrefix(bytes, 4096).length <= 4096),
    );
  });

  it('isGzip() goes by the magic number', () => {
    expect(isGzip(gzipSync('x'))).toBe(true);
    expect(isGzip(Uint8Array.of(0x1f, 0x8b))).toBe(false);
  });
});
