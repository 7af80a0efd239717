import { crc32, deflateSync, gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { collectBytes, readVolume, sourceFromBytes } from '../packages/core/src/formats/volume-file.ts';
import { webPlatform } from '../packages/core/src/formats/web-platform.ts';
import type { Compression, Platform } from '../packages/core/src/platform.ts';
import { nodePlatform } from '../packages/server/src/node-platform.ts';

// What core asks of a platform, asked of each one.

const platforms: [string, Platform][] = [
  ['nodePlatform', nodePlatform],
  ['webPlatform', webPlatform],
];
const compressions: Compression[] = ['gzip', 'zlib'];

const data = new Uint8Array(700_001).map((_, i) => (i * i) >> 7);
const pack = (compression: Compression) =>
  new Uint8Array(compression === 'gzip' ? gzipSync(data) : deflateSync(data));

/** A source that can be iterated more than once, as a file can be. */
const parts = (bytes: Uint8Array, length = 10_000): AsyncIterable<Uint8Array> => ({
  async *[Symbol.asyncIterator]() {
    for (let at = 0; at < bytes.length; at += length) yield bytes.subarray(at, at + length);
  },
});

/** One that cannot, as a generator. */
async function* once(source: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  yield* source;
}

const joined = (...all: Uint8Array[]) => new Uint8Array(Buffer.concat(all));

/** A gzip member of zeros: 1 MiB in a few bytes, repeated by full flushes. */
function zeroBomb(mebibytes: number): Uint8Array {
  const mib = deflateSync(new Uint8Array(2 ** 20), { finishFlush: 3 /* Z_FULL_FLUSH */, level: 9 }).subarray(
    2,
  );
  const block = new Uint8Array(mib.length * mebibytes + 10);
  block.set([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]);
  for (let i = 0; i < mebibytes; i++) block.set(mib, 10 + i * mib.length);
  return block;
}

describe.each(platforms)('%s', (_name, platform) => {
  describe.each(compressions)('%s', (compression) => {
    it('inflate() restores compressed data, however the input is split', async () => {
      for (const length of [1_000_000, 10_000, 997]) {
        const unpacked = await collectBytes(platform.inflate(parts(pack(compression), length), compression));
        expect(Buffer.compare(unpacked, data)).toBe(0);
      }
    });

    it('deflate() packs what inflate() unpacks', async () => {
      const packed = await collectBytes(platform.deflate(parts(data), compression, 1));
      expect(packed.length).toBeLessThan(data.length);
      expect(Buffer.compare(await collectBytes(platform.inflate(parts(packed), compression)), data)).toBe(0);
    });

    it('inflate() fails on truncated input, at its very end too', async () => {
      const packed = pack(compression);
      for (const length of [0, 1, 5, 1000, packed.length - 9, packed.length - 1]) {
        await expect(
          collectBytes(platform.inflate(parts(packed.subarray(0, length)), compression)),
          `${length} bytes`,
        ).rejects.toThrow();
      }
    });

    it('inflate() fails on input with a wrong checksum', async () => {
      const packed = pack(compression);
      packed[packed.length - (compression === 'gzip' ? 6 : 2)] ^= 1;
      await expect(collectBytes(platform.inflate(parts(packed), compression))).rejects.toThrow();
    });

    it.each([
      ['one byte', Uint8Array.of(7)],
      ['a line end', Uint8Array.of(13, 10)],
      ['zeros of a tape', new Uint8Array(100_000)],
      ['zeros, then other bytes', Uint8Array.of(0, 0, 9)],
      ['15 bytes', new Uint8Array(15).fill(65)],
    ])('inflate() skips padding after the data: %s', async (_what, padding) => {
      const packed = pack(compression);
      for (const length of [packed.length, 2 ** 20, 10_000]) {
        const source = parts(joined(packed, padding), length);
        for (const given of [source, once(source)]) {
          const unpacked = await collectBytes(platform.inflate(given, compression));
          expect(Buffer.compare(unpacked, data), `pieces of ${length}`).toBe(0);
        }
      }
    });

    it.each([
      ['16 bytes', new Uint8Array(16).fill(65)],
      ['text', new Uint8Array(100_000).fill(65)],
      ['text behind zeros', joined(new Uint8Array(512), new Uint8Array(100).fill(65))],
    ])('inflate() fails on other data after it: %s', async (_what, surplus) => {
      const packed = pack(compression);
      for (const length of [packed.length, 2 ** 20, 10_000]) {
        const source = parts(joined(packed, surplus), length);
        for (const given of [source, once(source)])
          await expect(collectBytes(platform.inflate(given, compression)), `${length}`).rejects.toThrow(
            'Other data follows',
          );
      }
    });

    it('inflate() passes on the fault of its source', async () => {
      async function* failing() {
        yield pack(compression).subarray(0, 100);
        throw new Error('the disk failed');
      }
      await expect(collectBytes(platform.inflate(failing(), compression))).rejects.toThrow('the disk failed');
    });

    it('inflate() reads its source on demand, and releases it when abandoned', async () => {
      let given = 0;
      let closed = false;
      const packed = joined(zeroBomb(1));
      const body = packed.subarray(10, -10);
      async function* endless() {
        try {
          yield compression === 'gzip' ? packed.subarray(0, 10) : Uint8Array.of(0x78, 0x9c);
          for (;;) {
            given++;
            yield body;
          }
        } finally {
          closed = true;
        }
      }
      const output = platform.inflate(endless(), compression)[Symbol.asyncIterator]();
      for (let i = 0; i < 5; i++) expect((await output.next()).done).toBe(false);
      await new Promise((resolve) => setTimeout(resolve, 50));
      // About a kilobyte each: what the stream's own buffer takes, and no more.
      expect(given).toBeLessThan(200);
      await output.return?.();
      await expect.poll(() => closed).toBe(true);
    });
  });

  it('deflate() writes a gzip header without a time or a name', async () => {
    const packed = await collectBytes(platform.deflate(parts(data), 'gzip', 1));
    expect([...packed.subarray(0, 8)]).toEqual([0x1f, 0x8b, 8, 0, 0, 0, 0, 0]);
    expect(new DataView(packed.buffer, packed.byteOffset + packed.length - 8).getUint32(0, true)).toBe(
      crc32(data),
    );
  });

  it('readVolume() stops a bomb of 10 GB at once, in little memory', async () => {
    const header = new Uint8Array(352);
    const view = new DataView(header.buffer);
    view.setInt32(0, 348, true);
    [3, 100, 100, 100].forEach((v, i) => void view.setInt16(40 + 2 * i, v, true));
    view.setInt16(70, 4, true);
    [1, 1, 1, 1].forEach((v, i) => void view.setFloat32(76 + 4 * i, v, true));
    header.set([0x6e, 0x2b, 0x31, 0], 344);
    const stored = joined(Uint8Array.of(0, 96, 1, ~96 & 255, ~1 & 255), header);
    const bomb = zeroBomb(10_240);
    const file = joined(bomb.subarray(0, 10), stored, bomb.subarray(10));
    expect(file.length).toBeLessThan(12_000_000);
    const before = process.memoryUsage().rss;
    const start = performance.now();
    await expect(readVolume([sourceFromBytes('bomb.nii.gz', file)], platform)).rejects.toMatchObject({
      code: 'BAD_VOXELS',
      message: expect.stringContaining('follow the 2000000 bytes'),
    });
    expect(performance.now() - start).toBeLessThan(10_000);
    expect(process.memoryUsage().rss - before).toBeLessThan(100e6);
  });
});

/** A member with what a gzip header may have (RFC 1952, 2.3): extra field, name, comment and checksum of the header. */
function adornedMember(bytes: Uint8Array): Uint8Array {
  const extra = [6, 0, 66, 67, 2, 0, 27, 0];
  const head = Uint8Array.of(
    ...[0x1f, 0x8b, 8, 2 | 4 | 8 | 16, 1, 2, 3, 4, 0, 3, ...extra],
    ...Buffer.from('scan.nii\0of a test\0'),
  );
  const sum = crc32(head) & 0xffff;
  const packed = gzipSync(bytes);
  return joined(head, Uint8Array.of(sum & 255, sum >> 8), packed.subarray(10));
}

/** What bgzip ends a file with (SAM/BAM format specification, 4.1.2). */
const bgzipEnd = Uint8Array.from(
  Buffer.from('1f8b08040000000000ff0600424302001b0003000000000000000000', 'hex'),
);
const halves = [data.subarray(0, 300_000), data.subarray(300_000)];
const members = halves.map((half) => new Uint8Array(gzipSync(half)));
const nothing = new Uint8Array(gzipSync(''));
const rows: [string, Uint8Array][] = [
  ['two members', joined(...members)],
  [
    'many small members',
    joined(
      ...Array.from(
        { length: 70 },
        (_, i) => new Uint8Array(gzipSync(data.subarray(10_001 * i, 10_001 * (i + 1)))),
      ),
    ),
  ],
  [
    'an empty member first, in the middle and last',
    joined(nothing, members[0], nothing, members[1], nothing),
  ],
  ['members with all a header may have', joined(...halves.map(adornedMember))],
  ['the end of a bgzip file', joined(adornedMember(data), bgzipEnd)],
  ['zeros between members', joined(members[0], new Uint8Array(3000), members[1], new Uint8Array(512))],
  ['stored, not compressed', joined(...halves.map((half) => new Uint8Array(gzipSync(half, { level: 0 }))))],
];

describe.each(platforms)('inflate() of gzip members in a row, %s', (_name, platform) => {
  it.each(rows)('gives all of them: %s', async (what, packed) => {
    // Of tiny pieces, what each member read too far is read again.
    for (const length of [2 ** 20, 9973, what === 'many small members' ? 1021 : 61]) {
      const source = parts(packed, length);
      for (const given of [source, once(source)]) {
        const unpacked = await collectBytes(platform.inflate(given, 'gzip'));
        expect(Buffer.compare(unpacked, data), `pieces of ${length}`).toBe(0);
      }
    }
  });

  it('fails on a later member that is damaged or truncated', async () => {
    const whole = joined(...members);
    const damaged: Record<string, Uint8Array> = {
      'its last byte is missing': whole.subarray(0, -1),
      'cut in its data': whole.subarray(0, members[0].length + 1000),
      'cut in its header': whole.subarray(0, members[0].length + 5),
      'a wrong checksum': whole.with(whole.length - 6, whole[whole.length - 6] ^ 1),
      'a wrong length': whole.with(whole.length - 2, whole[whole.length - 2] ^ 1),
      'a wrong checksum of the first': whole.with(members[0].length - 6, whole[members[0].length - 6] ^ 1),
      'an unknown method': whole.with(members[0].length + 2, 9),
      'flags that are not known': whole.with(members[0].length + 3, 0x80),
    };
    for (const [what, bytes] of Object.entries(damaged)) {
      const source = parts(bytes);
      for (const given of [source, once(source)])
        await expect(collectBytes(platform.inflate(given, 'gzip')), what).rejects.toThrow();
    }
  });

  it('takes no second zlib stream for a part of the first', async () => {
    const packed = pack('zlib');
    await expect(collectBytes(platform.inflate(parts(joined(packed, packed)), 'zlib'))).rejects.toThrow();
  });
});
