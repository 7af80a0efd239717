import { deflateRawSync, gzipSync, inflateRawSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { TomaatError } from '../errors.ts';
import {
  type ByteInput,
  crc32,
  inflateSource,
  maxPaddingBytes,
  type Unpack,
  unpackMember,
} from './inflate-members.ts';

const bytesOf = (text: string) => new Uint8Array(Buffer.from(text, 'latin1'));
const textOf = (chunks: readonly Uint8Array[]) => Buffer.concat(chunks).toString('latin1');

function inPieces(bytes: Uint8Array, size: number): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; at += size) pieces.push(bytes.subarray(at, at + size));
  return pieces;
}

/** A source that can be read again, and counts how often it was opened and closed. */
function sourceOf(chunks: readonly Uint8Array[], fault?: Error) {
  const counts = { opened: 0, closed: 0 };
  const source: AsyncIterable<Uint8Array> = {
    [Symbol.asyncIterator]() {
      counts.opened++;
      let next = 0;
      return {
        async next() {
          if (next < chunks.length) return { done: false, value: chunks[next++] };
          if (fault) throw fault;
          return { done: true, value: undefined };
        },
        async return() {
          counts.closed++;
          return { done: true, value: undefined };
        },
      };
    },
  };
  return { source, counts };
}

async function collect(chunks: AsyncIterable<Uint8Array>): Promise<Uint8Array[]> {
  const all: Uint8Array[] = [];
  for await (const chunk of chunks) all.push(chunk);
  return all;
}

/** Bytes of which some are put back at times, as unpackMember() takes them. */
function inputOf(chunks: readonly Uint8Array[]): ByteInput {
  const queue = [...chunks];
  return {
    next: async () => queue.shift(),
    unread: (bytes) => void (bytes.length > 0 && queue.unshift(bytes)),
  };
}

/** In the place of compressed data: the magic of gzip, a length, and so many bytes as they are. */
const member = (text: string) => bytesOf(`\x1f\x8b${String.fromCharCode(text.length)}${text}`);
const unpackToy: Unpack = async function* (input) {
  const head: number[] = [];
  let left = -1;
  while (left !== 0) {
    const chunk = await input.next();
    if (!chunk) throw new Error('the toy is cut off');
    let at = 0;
    while (at < chunk.length && head.length < 3) head.push(chunk[at++]);
    if (head.length < 3) continue;
    if (left < 0) left = head[2];
    const part = chunk.subarray(at, at + left);
    left -= part.length;
    if (part.length > 0) yield part;
    input.unread(chunk.subarray(at + part.length));
  }
};
const never: Unpack = () => {
  throw new Error('not to be called');
};
const unpackWith = (
  chunks: readonly Uint8Array[],
  compression: 'gzip' | 'zlib' = 'gzip',
  { fast = unpackToy, exact = never }: { fast?: Unpack; exact?: Unpack } = {},
) => collect(inflateSource(sourceOf(chunks).source, compression, { fast, exact })).then(textOf);

describe('crc32()', () => {
  it.each([
    ['', 0],
    // The check value of CRC-32/ISO-HDLC in the catalogue of parametrised CRC algorithms.
    ['123456789', 0xcbf43926],
    ['a', 0xe8b7be43],
  ])('of "%s" is the known value', (text, sum) => {
    expect(crc32(bytesOf(text), 0)).toBe(sum);
  });

  it('continues from the previous checksum, for every byte', () => {
    const bytes = Uint8Array.from({ length: 256 }, (_, i) => i);
    const whole = Buffer.from(gzipSync(bytes)).readUInt32LE(gzipSync(bytes).length - 8);
    expect(crc32(bytes, 0)).toBe(whole);
    expect(crc32(bytes.subarray(100), crc32(bytes.subarray(0, 100), 0))).toBe(whole);
  });

  it('is that of zlib for every length and beginning', () => {
    const bytes = Uint8Array.from({ length: 60 }, (_, i) => (i * 151 + 77) & 255);
    // A gzip file ends with the checksum of its content and its length (RFC 1952, 2.3.1).
    const byZlib = (part: Uint8Array) => gzipSync(part).subarray(-8).readUInt32LE(0);
    for (let start = 0; start < 9; start++)
      for (let end = start; end <= bytes.length; end++) {
        const part = bytes.subarray(start, end);
        expect(crc32(part, 0), `${start} to ${end}`).toBe(byZlib(part));
      }
  });
});

describe('inflateSource()', () => {
  const long = 'a member of more bytes than may be padding';

  it.each([1, 2, 3, 7, 16, 1000])('reads members in a row in pieces of %i bytes', async (size) => {
    const zeros = new Uint8Array(20);
    for (const parts of [
      [member('one')],
      [member('one'), member('two')],
      [member(long), zeros, member('x'), zeros.subarray(0, 1), member(long), zeros],
      [member('one'), member(''), member('three')],
    ]) {
      const whole = parts.map((part) => Buffer.from(part.subarray(3))).map((part) => part.toString('latin1'));
      const expected = whole.join('').replaceAll('\0', '');
      expect(await unpackWith(inPieces(new Uint8Array(Buffer.concat(parts)), size))).toBe(expected);
    }
  });

  it.each([1, 2, 7, 1000])('passes over padding at the end, in pieces of %i bytes', async (size) => {
    const paddings = [
      ...[1, 15, 16, 17, 500].map((n) => new Uint8Array(n)),
      ...[1, 2, maxPaddingBytes].map((n) => new Uint8Array(n).fill(65)),
      Uint8Array.from([...new Uint8Array(40), ...new Uint8Array(maxPaddingBytes).fill(9)]),
      // Half of the magic of another member.
      Uint8Array.of(0x1f),
      Uint8Array.of(0x1f, 0x8c, 1),
      Uint8Array.of(0x1e, 0x8b, 1),
    ];
    for (const compression of ['gzip', 'zlib'] as const)
      for (const padding of paddings) {
        const bytes = Uint8Array.from([...member(long), ...padding]);
        expect(await unpackWith(inPieces(bytes, size), compression)).toBe(long);
      }
  });

  it.each([1, 7, 1000])('refuses 16 other bytes at the end, in pieces of %i bytes', async (size) => {
    for (const compression of ['gzip', 'zlib'] as const)
      for (const [zeros, others] of [
        [0, 16],
        [30, 16],
        [0, 40],
      ]) {
        const bytes = Uint8Array.from([...member(long), ...new Uint8Array(zeros), ...Array(others).fill(9)]);
        await expect(unpackWith(inPieces(bytes, size), compression)).rejects.toMatchObject({
          code: 'BAD_VOXELS',
          message: expect.stringContaining(compression),
        });
      }
  });

  it('takes no second stream of zlib', async () => {
    const bytes = Uint8Array.from([...member('one'), ...member(long)]);
    await expect(unpackWith([bytes], 'zlib')).rejects.toMatchObject({ code: 'BAD_VOXELS' });
    expect(await unpackWith([Uint8Array.from([...member('one'), ...member('two')])], 'zlib')).toBe('one');
  });

  it('gives the unpackers the compression', async () => {
    const seen: string[] = [];
    const record: Unpack = (input, compression) => {
      seen.push(compression);
      return unpackToy(input, compression);
    };
    await unpackWith([member('one'), member('two')], 'gzip', { fast: record });
    await unpackWith([member('one')], 'zlib', { fast: record });
    expect(seen).toEqual(['gzip', 'gzip', 'zlib']);
  });

  it('keeps nothing of an empty piece that is put back', async () => {
    const { source } = sourceOf([bytesOf('ab'), bytesOf('cd')]);
    const fast: Unpack = async function* (input) {
      input.unread(new Uint8Array(0));
      for (let chunk = await input.next(); chunk; chunk = await input.next()) yield chunk;
    };
    expect(
      (await collect(inflateSource(source, 'gzip', { fast, exact: never }))).map((c) => c.length),
    ).toEqual([2, 2]);
  });

  /** Gives the texts, then fails. */
  const failing = (texts: readonly string[], error: Error = new Error('damaged')): Unpack =>
    async function* () {
      for (const text of texts) yield bytesOf(text);
      throw error;
    };
  const giving = (texts: readonly string[]): Unpack =>
    async function* (input) {
      while (await input.next());
      for (const text of texts) yield bytesOf(text);
    };

  it.each([
    [[], ['abc', 'def'], ['abc', 'def']],
    [['ab', 'cd'], ['abcdef'], ['ab', 'cd', 'ef']],
    [
      ['ab', 'cd'],
      ['abc', 'd', 'ef'],
      ['ab', 'cd', 'ef'],
    ],
    [
      ['ab', 'cd'],
      ['a', 'b', 'c', 'de', 'f'],
      ['ab', 'cd', 'e', 'f'],
    ],
    [['abcd'], ['abcd', 'ef'], ['abcd', 'ef']],
    [['abcdef'], ['abc', 'def'], ['abcdef']],
  ])('after %j continues with the rest of %j', async (given, again, expected) => {
    const { source, counts } = sourceOf([bytesOf('packed')]);
    const chunks = await collect(
      inflateSource(source, 'gzip', { fast: failing(given), exact: giving(again) }),
    );
    expect(chunks.map((chunk) => textOf([chunk]))).toEqual(expected);
    expect(counts).toEqual({ opened: 2, closed: 2 });
  });

  it('throws the source’s own error, even if wrapped, and reads once', async () => {
    const fault = new Error('the disk failed');
    for (const wrapped of [false, true]) {
      const { source, counts } = sourceOf([bytesOf('ab')], fault);
      const fast: Unpack = async function* (input) {
        try {
          for (let chunk = await input.next(); chunk; chunk = await input.next()) yield chunk;
        } catch (error) {
          throw wrapped ? new Error('cut off') : error;
        }
      };
      await expect(collect(inflateSource(source, 'gzip', { fast, exact: never }))).rejects.toBe(fault);
      expect(counts).toEqual({ opened: 1, closed: 1 });
    }
  });

  it('gives the fault of the second reading', async () => {
    const fault = new Error('the disk failed');
    const { source } = sourceOf([], fault);
    const reading = inflateSource(source, 'gzip', { fast: failing([]), exact: giving([]) });
    await expect(collect(reading)).rejects.toBe(fault);
  });

  it('does not read again after a TomaatError', async () => {
    const error = new TomaatError('BAD_VOXELS', 'surplus');
    const { source, counts } = sourceOf([bytesOf('ab')]);
    const reading = inflateSource(source, 'gzip', { fast: failing(['ab'], error), exact: never });
    await expect(collect(reading)).rejects.toBe(error);
    expect(counts.opened).toBe(1);
  });

  it('reads a generator by the exact way alone', async () => {
    async function* once() {
      yield member('one');
      yield member('two');
    }
    const chunks = await collect(inflateSource(once(), 'gzip', { fast: never, exact: unpackToy }));
    expect(textOf(chunks)).toBe('onetwo');
  });

  it('closes its source when its reader stops, without waiting for hanging ones', async () => {
    let closed = 0;
    for (const close of [
      () => new Promise<never>(() => {}),
      () => Promise.reject(new Error('closing failed')),
    ]) {
      const source: AsyncIterable<Uint8Array> = {
        [Symbol.asyncIterator]: () => ({
          next: async () => ({ done: false, value: member('one') }),
          return() {
            closed++;
            return close();
          },
        }),
      };
      for await (const chunk of inflateSource(source, 'gzip', { fast: unpackToy, exact: never })) {
        expect(textOf([chunk])).toBe('one');
        break;
      }
    }
    expect(closed).toBe(2);
  });

  it('needs no way to close a source', async () => {
    const chunks = [member('one')];
    const source: AsyncIterable<Uint8Array> = {
      [Symbol.asyncIterator]: () => ({
        next: async () => {
          const value = chunks.shift();
          return value ? { done: false, value } : { done: true, value: undefined };
        },
      }),
    };
    expect(textOf(await collect(inflateSource(source, 'gzip', { fast: unpackToy, exact: never })))).toBe(
      'one',
    );
  });
});

describe('unpackMember()', () => {
  const text = 'Voxels, voxels, voxels and voxels.';
  const packed = deflateRawSync(text);
  const trailer = gzipSync(text).subarray(-8);
  const withHeader = (flags: number, ...fields: readonly number[]) =>
    Uint8Array.from([0x1f, 0x8b, 8, flags, 1, 2, 3, 4, 0, 3, ...fields, ...packed, ...trailer]);
  /** By node:zlib; gives the text in two pieces. */
  async function* unpackRaw(input: ByteInput) {
    const chunks: Uint8Array[] = [];
    for (let chunk = await input.next(); chunk; chunk = await input.next()) chunks.push(chunk);
    const bytes = Buffer.concat(chunks);
    // With `info` it tells how much of the input the stream took, which its types leave out.
    const { buffer, engine } = inflateRawSync(bytes, { info: true }) as unknown as {
      buffer: Buffer;
      engine: { bytesWritten: number };
    };
    yield new Uint8Array(buffer.subarray(0, 10));
    yield new Uint8Array(buffer.subarray(10));
    input.unread(new Uint8Array(bytes.subarray(engine.bytesWritten)));
  }
  const unpack = async (input: ByteInput) => textOf(await collect(unpackMember(input, unpackRaw, crc32)));

  it.each([
    ['no field', 0, []],
    ['the mark of text', 1, []],
    ['a checksum of the header', 2, [7, 0]],
    ['an extra field', 4, [3, 0, 1, 0, 2]],
    ['an extra field of no bytes', 4, [0, 0]],
    ['an extra field of 259 bytes', 4, [3, 1, ...Array(259).fill(0)]],
    ['a name', 8, [...Buffer.from('name\0')]],
    ['an empty name', 8, [0]],
    ['a comment', 16, [...Buffer.from('comment\0')]],
    ['every field', 31, [2, 0, 0, 9, ...Buffer.from('name\0comment\0'), 0, 9]],
  ])('passes over a header with %s', async (_what, flags, fields) => {
    const bytes = withHeader(flags, ...fields);
    for (const size of [1, 2, 9, 1000]) {
      const input = inputOf([...inPieces(bytes, size), bytesOf('next')]);
      expect(await unpack(input)).toBe(text);
      expect(textOf([(await input.next())!])).toBe('next');
    }
  });

  it('fails wherever the member is truncated', async () => {
    const bytes = withHeader(31, 2, 0, 0, 9, ...Buffer.from('name\0comment\0'), 0, 9);
    for (let length = 0; length < bytes.length; length++)
      await expect(unpack(inputOf([bytes.subarray(0, length)])), `${length} bytes`).rejects.toThrow(
        'unexpected end of file',
      );
  });

  it.each([
    ['another first byte', 0, 0x1e, /header check/],
    ['another second byte', 1, 0x8c, /header check/],
    ['another method', 2, 7, /compression method/],
    ['flag 32', 3, 32, /header flags/],
    ['flag 64', 3, 64, /header flags/],
    ['flag 128', 3, 128, /header flags/],
  ])('refuses %s', async (_what, at, value, message) => {
    await expect(unpack(inputOf([withHeader(0).with(at, value)]))).rejects.toThrow(message);
  });

  it.each([1, 2, 3, 4, 5, 6, 7, 8])(
    'refuses a trailer with its last byte but %i changed',
    async (fromEnd) => {
      const bytes = withHeader(0);
      bytes[bytes.length - fromEnd] ^= 0x40;
      await expect(unpack(inputOf([bytes]))).rejects.toThrow(fromEnd > 4 ? /data check/ : /length check/);
    },
  );

  it('counts the length modulo 2^32', async () => {
    const chunks = [2 ** 31, 2 ** 31, 2 ** 31 + 5].map((length) => ({ length }) as Uint8Array);
    const header = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    const read = (...length: number[]) =>
      collect(
        unpackMember(
          inputOf([Uint8Array.from([...header, 7, 0, 0, 0, ...length])]),
          async function* () {
            yield* chunks;
          },
          () => 7,
        ),
      );
    expect(await read(5, 0, 0, 0x80)).toHaveLength(3);
    await expect(read(4, 0, 0, 0x80)).rejects.toThrow(/length check/);
  });
});
