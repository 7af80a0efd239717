import { deflateRawSync, gunzipSync, gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createNumbers } from '../geometry/fixtures.ts';
import { inflatePrefix, isGzip } from './inflate-prefix.ts';

const text = new Uint8Array(50_000).map((_, i) => (i % 97) * ((i >> 9) % 5) + (i % 3));

describe('inflatePrefix()', () => {
  it.each([0, 1, 6, 9])('gives the first bytes of zlib data at level %i', (level) => {
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

  it('gives a prefix of the data that grows with the input', () => {
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

  it('never throws on any bytes, and gives at most the requested length', () => {
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
});

/** Bits of a deflate stream, written by hand: fields from the low bit, codes from the high one (RFC 1951, 3.1.1). */
function bitWriter() {
  const bits: number[] = [];
  const field = (value: number, count: number) => {
    for (let i = 0; i < count; i++) bits.push((value >> i) & 1);
    return writer;
  };
  const code = (value: number, count: number) => {
    for (let i = count - 1; i >= 0; i--) bits.push((value >> i) & 1);
    return writer;
  };
  const writer = {
    field,
    code,
    /** The header of a block: whether it is the last, and its kind. */
    block: (last: 0 | 1, kind: number) => field(last, 1).field(kind, 2),
    /** A symbol of the fixed code for literals and lengths (3.2.6). */
    fixed: (value: number) =>
      value < 144
        ? code(0x30 + value, 8)
        : value < 256
          ? code(0x190 + value - 144, 9)
          : value < 280
            ? code(value - 256, 7)
            : code(0xc0 + value - 280, 8),
    /** Fills up a byte, with ones. */
    align() {
      while (bits.length % 8 !== 0) bits.push(1);
      return writer;
    },
    /** As a gzip member, without its trailer. */
    gzip(): Uint8Array {
      writer.align();
      const bytes = new Uint8Array(bits.length / 8);
      bits.forEach((bit, i) => void (bytes[i >> 3] |= bit << (i & 7)));
      return Uint8Array.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, ...bytes]);
    },
  };
  return writer;
}
const letters = (bytes: Uint8Array) => Buffer.from(bytes).toString('latin1');
const a = 97;

describe('inflatePrefix() of blocks made by hand', () => {
  it('reads past stored blocks padded with ones', () => {
    const stored = bitWriter().block(0, 1).fixed(a).fixed(256).block(0, 0).align();
    for (const value of [3, 0, 252, 255, 98, 99, 100]) stored.field(value, 8);
    const packed = stored.block(0, 0).align().field(0, 16).field(65535, 16).block(1, 1).fixed(101).fixed(256);
    expect(letters(inflatePrefix(packed.gzip(), 100))).toBe('abcde');
  });

  it.each([
    ['a block of kind 3', bitWriter().block(1, 3).fixed(a).fixed(256), ''],
    ['the symbol 286', bitWriter().block(1, 1).fixed(a).fixed(286).fixed(a).fixed(256), 'a'],
    ['the symbol 287', bitWriter().block(1, 1).fixed(a).fixed(287).fixed(a).fixed(256), 'a'],
    [
      'the distance code 30',
      bitWriter().block(1, 1).fixed(a).fixed(257).code(30, 5).fixed(a).fixed(256),
      'a',
    ],
    [
      'a copy from before the start',
      bitWriter().block(1, 1).fixed(a).fixed(257).code(1, 5).fixed(a).fixed(256),
      'a',
    ],
  ])('stops at %s', (_what, stream, expected) => {
    expect(letters(inflatePrefix(stream.gzip(), 100))).toBe(expected);
  });

  it('copies from its first byte, and the longest copy there is', () => {
    const short = bitWriter().block(1, 1).fixed(a).fixed(257).code(0, 5).fixed(98).fixed(256);
    expect(letters(inflatePrefix(short.gzip(), 100))).toBe('aaaab');
    const long = bitWriter().block(1, 1).fixed(a).fixed(285).code(0, 5).fixed(98).fixed(256);
    expect(letters(inflatePrefix(long.gzip(), 1000))).toBe(`${'a'.repeat(259)}b`);
    expect(letters(inflatePrefix(long.gzip(), 7))).toBe('aaaaaaa');
  });

  it('copies from 32768 bytes before', () => {
    const far = bitWriter().block(0, 0).align();
    const size = 32_769;
    for (const byte of [size & 255, size >> 8, ~size & 255, (~size >> 8) & 255]) far.field(byte, 8);
    for (let i = 0; i < size; i++) far.field(text[i], 8);
    far.block(1, 1).fixed(257).code(29, 5).field(8191, 13).fixed(256);
    expect(inflatePrefix(far.gzip(), 40_000).subarray(size)).toEqual(text.subarray(1, 4));
  });

  /** Codes for the lengths of codes: 0 to 7 of four bits, 8 to 15 of five, 16 to 18 of four. */
  const lengthCodes = (literals: number, distances: number) => {
    const lengths = Array.from({ length: 19 }, (_, i) => (i >= 8 && i < 16 ? 5 : 4));
    const stream = bitWriter()
      .block(1, 2)
      .field(literals - 257, 5)
      .field(distances - 1, 5)
      .field(15, 4);
    for (const i of [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15])
      stream.field(lengths[i], 3);
    return {
      stream,
      /** Canonical: the four-bit codes first, in the order of their symbols. */
      length: (n: number) =>
        n < 8 ? stream.code(n, 4) : n < 16 ? stream.code(22 + n - 8, 5) : stream.code(8 + n - 16, 4),
    };
  };
  /** As many zeros, by the symbols 17 and 18. */
  const zeros = (dynamic: ReturnType<typeof lengthCodes>, count: number) => {
    for (let left = count; left > 0; ) {
      const n = left >= 11 ? Math.min(left, 138) : Math.min(left, 10);
      if (n >= 11) dynamic.length(18).field(n - 11, 7);
      else if (n >= 3) dynamic.length(17).field(n - 3, 3);
      else dynamic.length(0);
      left -= n >= 3 ? n : 1;
    }
  };

  it('reads a code of lengths for the symbols a, b, end and a copy', () => {
    const dynamic = lengthCodes(258, 32);
    zeros(dynamic, 97);
    dynamic.length(2);
    dynamic.length(2);
    zeros(dynamic, 256 - 99);
    dynamic.length(2);
    dynamic.length(2);
    // Distances 0 to 31: of five bits each, by the repeats of symbol 16.
    dynamic.length(5);
    for (const times of [6, 6, 6, 6, 4, 3]) dynamic.length(16).field(times - 3, 2);
    // a: 00, b: 01, end: 10, a copy of 3: 11.
    const head = dynamic.stream.code(0, 2).code(1, 2).code(3, 2).code(1, 5);
    expect(letters(inflatePrefix(head.code(1, 2).code(2, 2).gzip(), 100))).toBe('ababab');
  });

  it.each([30, 31])('stops at the distance %i of a code that has it', (distance) => {
    const dynamic = lengthCodes(258, 32);
    zeros(dynamic, 97);
    dynamic.length(2);
    dynamic.length(2);
    zeros(dynamic, 256 - 99);
    dynamic.length(2);
    dynamic.length(2);
    for (let i = 0; i < 32; i++) dynamic.length(5);
    const stream = dynamic.stream.code(0, 2).code(3, 2).code(distance, 5).code(1, 2).code(2, 2);
    expect(letters(inflatePrefix(stream.gzip(), 100))).toBe('a');
  });

  it('stops at a repeat of nothing, and at one beyond the last length', () => {
    const first = lengthCodes(257, 1);
    first.length(16).field(0, 2);
    expect(inflatePrefix(first.stream.gzip(), 100)).toHaveLength(0);
    // 258 lengths in all: 138 + 119 zeros leave one.
    for (const [symbol, bits] of [
      [16, 2],
      [17, 3],
      [18, 7],
    ]) {
      const beyond = lengthCodes(257, 1);
      beyond.length(1);
      zeros(beyond, 96);
      beyond.length(1);
      zeros(beyond, 159);
      beyond.length(symbol).field(0, bits);
      for (let i = 0; i < 40; i++) beyond.stream.code(0, 1);
      expect(inflatePrefix(beyond.stream.gzip(), 100)).toHaveLength(0);
    }
  });

  it('stops at a code of 15 bits that stands for nothing', () => {
    const dynamic = lengthCodes(257, 1);
    zeros(dynamic, 97);
    dynamic.length(1);
    zeros(dynamic, 256 - 98);
    dynamic.length(15);
    dynamic.length(0);
    // a: 0; end: 15 bits from 1000…; ones stand for nothing.
    const stream = dynamic.stream.code(0, 1).code(0, 1).code(0x7fff, 15).code(0, 1).code(0x4000, 15);
    expect(letters(inflatePrefix(stream.gzip(), 100))).toBe('aa');
  });
});

describe('inflatePrefix() of what node:zlib packs', () => {
  const next = createNumbers(7);
  const random = (n: number) => next() % n;
  const expectSame = (data: Uint8Array, options: Parameters<typeof gzipSync>[1]) =>
    expect(
      Buffer.compare(inflatePrefix(new Uint8Array(gzipSync(data, options)), data.length + 1), data),
    ).toBe(0);

  it.each([1, 2, 4, 8, 16])('reads a header with flag %i alone', (flag) => {
    const fields = { 1: [], 2: [9, 9], 4: [2, 0, 0, 9], 8: [a, 0], 16: [a, a, 0] }[flag] as number[];
    const packed = [0x1f, 0x8b, 8, flag, 9, 9, 9, 9, 9, 9, ...fields, ...deflateRawSync('voxels')];
    expect(letters(inflatePrefix(Uint8Array.from(packed), 100))).toBe('voxels');
  });

  it('reads copies of every length from near and far', () => {
    const base = Uint8Array.from({ length: 33_000 }, () => random(256));
    const parts: Uint8Array[] = [base];
    for (let length = 3; length <= 300; length++) {
      const from = random(32_000);
      parts.push(base.subarray(from, from + length), Uint8Array.of(random(256), random(256)));
      const near = 1 + random(1 << random(9));
      const last = parts[parts.length - 2];
      parts.push(Uint8Array.from({ length: 20 }, (_, i) => last[i % Math.min(near, last.length)]));
    }
    const data = new Uint8Array(Buffer.concat(parts));
    for (const strategy of [0, 4]) expectSame(data, { level: 9, strategy });
  });

  it('reads codes of up to 15 bits', () => {
    // The frequencies of Fibonacci make the longest codes; without copies (Z_HUFFMAN_ONLY).
    let [one, two] = [1, 1];
    const parts: Uint8Array[] = [];
    for (let value = 0; value < 21; value++) {
      parts.push(new Uint8Array(one).fill(value * 12));
      [one, two] = [two, one + two];
    }
    expectSame(new Uint8Array(Buffer.concat(parts)), { strategy: 2 });
  });

  it('reads codes of any alphabet', () => {
    for (let round = 0; round < 150; round++) {
      const alphabet = Array.from({ length: 1 + random(40) }, () => random(256));
      const data = Uint8Array.from({ length: 1 + random(400) }, () => alphabet[random(alphabet.length)]);
      expectSame(data, { strategy: round % 3 });
    }
  });

  it('continues with the next member, skips zeros, and ends at anything else', () => {
    const [one, two] = [gzipSync('abcdefg'), gzipSync('hij')];
    const read = (...parts: Uint8Array[]) =>
      letters(inflatePrefix(new Uint8Array(Buffer.concat(parts)), 100));
    expect(read(one, two, one)).toBe('abcdefghijabcdefg');
    expect(read(one, new Uint8Array(3), two)).toBe('abcdefghij');
    expect(read(one, Uint8Array.of(1), two)).toBe('abcdefg');
    expect(read(one, new Uint8Array(9))).toBe('abcdefg');
  });
});

describe('isGzip()', () => {
  it.each([
    [[0x1f, 0x8b, 8], true],
    [[0x1f, 0x8b, 8, 0], true],
    [[0x1f, 0x8b], false],
    [[0x1e, 0x8b, 8], false],
    [[0x1f, 0x8a, 8], false],
    [[0x1f, 0x8b, 7], false],
  ])('goes by the magic number and the method: %j', (bytes, expected) => {
    expect(isGzip(Uint8Array.from(bytes))).toBe(expected);
  });
});
