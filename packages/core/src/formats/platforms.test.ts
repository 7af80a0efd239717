import zlib, {
  deflateRawSync,
  deflateSync,
  gunzipSync,
  gzipSync,
  inflateRawSync,
  inflateSync,
} from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { createNumbers } from '../geometry/fixtures.ts';
import type { Platform } from '../platform.ts';
import { webPlatform } from './web-platform.ts';
import { zlibPlatform } from './zlib-platform.ts';

/* One suite for both platforms: what they make of bytes is compared with node:zlib's functions for whole buffers. */

const platforms: [string, Platform][] = [
  ['webPlatform', webPlatform],
  ['zlibPlatform()', zlibPlatform(zlib)],
];
const compressions = ['gzip', 'zlib', 'deflate-raw'] as const;
const pack = { gzip: gzipSync, zlib: deflateSync, 'deflate-raw': deflateRawSync };
const unpack = { gzip: gunzipSync, zlib: inflateSync, 'deflate-raw': inflateRawSync };

const next = createNumbers(1);
const noise = Uint8Array.from({ length: 300_000 }, () => next() >>> 24);
const smooth = Uint8Array.from({ length: 400_000 }, (_, i) => (i >> 9) & 255);
/** Copies from 20,000 bytes before, and bytes of their own. */
const repeated = Uint8Array.from([...noise.subarray(0, 20_000), ...noise.subarray(0, 20_100)]);
const small = new Uint8Array(Buffer.from('A few voxels, a few voxels.'));
const join = (...parts: Uint8Array[]) => new Uint8Array(Buffer.concat(parts));

interface Source extends AsyncIterable<Uint8Array> {
  readonly pulled: number;
  readonly closed: number;
}

/** A source in pieces; a slow one gives each in a turn of its own. With `isOnce` it cannot be read again. */
function sourceOf(
  bytes: Uint8Array,
  size: number,
  { isSlow = false, isOnce = false, fault }: { isSlow?: boolean; isOnce?: boolean; fault?: Error } = {},
): Source {
  const counts = { pulled: 0, closed: 0 };
  const open = (): AsyncIterator<Uint8Array> => {
    let at = 0;
    return {
      async next() {
        if (isSlow) await new Promise((resolve) => setImmediate(resolve));
        if (at >= bytes.length) {
          if (fault) throw fault;
          return { done: true, value: undefined };
        }
        counts.pulled++;
        const value = bytes.subarray(at, at + size);
        at += size;
        return { done: false, value };
      },
      async return() {
        counts.closed++;
        at = bytes.length;
        return { done: true, value: undefined };
      },
    };
  };
  const source = {
    get pulled() {
      return counts.pulled;
    },
    get closed() {
      return counts.closed;
    },
    [Symbol.asyncIterator]: open,
  };
  if (!isOnce) return source;
  return Object.assign(source, open(), { [Symbol.asyncIterator]: () => source });
}

async function collect(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const all: Uint8Array[] = [];
  for await (const chunk of chunks) all.push(chunk);
  return Buffer.concat(all);
}

describe.each(platforms)('%s', (name, platform) => {
  const inflate = async (
    bytes: Uint8Array,
    compression: (typeof compressions)[number] = 'gzip',
    { size = bytes.length || 1, ...more }: { size?: number; isSlow?: boolean; isOnce?: boolean } = {},
  ) => collect(platform.inflate(sourceOf(bytes, size, more), compression));

  it.each(compressions)('packs as %s what node:zlib unpacks, in pieces of any size', async (compression) => {
    for (const [data, size] of [
      [new Uint8Array(0), 1],
      [small, 1],
      [small, 100],
      [smooth, 10_000],
      [noise, 7919],
      [noise, 300_000],
    ] as const) {
      const packed = await collect(platform.deflate(sourceOf(data, size), compression, 6));
      const start = { gzip: 0x1f, zlib: 0x78, 'deflate-raw': packed[0] }[compression];
      expect(packed[0]).toBe(start);
      expect(Buffer.compare(unpack[compression](packed), data)).toBe(0);
    }
  });

  it.each(compressions)('unpacks %s in pieces of any size, read once or twice', async (compression) => {
    for (const isOnce of [false, true])
      for (const isSlow of [false, true])
        for (const [data, sizes] of [
          [new Uint8Array(0), [1, 100]],
          [small, [1, 5, 100]],
          [repeated, [997, 100_000]],
          [smooth, [50, 100_000]],
          [noise, [65_536, 400_000]],
        ] as const) {
          const packed = new Uint8Array(pack[compression](data));
          for (const size of sizes)
            expect(
              Buffer.compare(await inflate(packed, compression, { size, isSlow, isOnce }), data),
              `${size}, slow: ${isSlow}, once: ${isOnce}`,
            ).toBe(0);
        }
  });

  it('unpacks gzip members in a row, with zeros between', async () => {
    const parts = [small, noise.subarray(0, 40_000), new Uint8Array(0), repeated, small];
    const packed = join(...parts.flatMap((part, i) => [gzipSync(part), new Uint8Array(i === 2 ? 40 : 0)]));
    const expected = join(...parts);
    for (const isOnce of [false, true])
      for (const isSlow of [false, true])
        for (const size of [1009, 30_000, 70_000, packed.length])
          expect(
            Buffer.compare(await inflate(packed, 'gzip', { size, isSlow, isOnce }), expected),
            `${size}, slow: ${isSlow}, once: ${isOnce}`,
          ).toBe(0);
    const tiny = join(gzipSync(small), gzipSync('and more'), gzipSync(small));
    for (const size of [1, 2, 3, 11])
      for (const isSlow of [false, true])
        expect((await inflate(tiny, 'gzip', { size, isSlow, isOnce: true })).toString()).toBe(
          `${Buffer.from(small)}and more${Buffer.from(small)}`,
        );
  });

  it('throws only through its reader where zeros and more follow a member', async () => {
    // A stream of node:zlib ends at such zeros, and fails on a piece that it was given meanwhile.
    const strays: unknown[] = [];
    const note = (error: unknown) => strays.push(error);
    process.on('uncaughtException', note);
    const expected = Buffer.concat([small, small]);
    const packed = join(gzipSync(small), new Uint8Array(40), gzipSync(small), new Uint8Array(40));
    for (const size of [1, 2, 3, 5, 10, 21, 30, 40, 47, 48, 49, 60, 80, 90])
      for (const isSlow of [false, true])
        expect(Buffer.compare(await inflate(packed, 'gzip', { size, isSlow }), expected), `${size}`).toBe(0);
    await new Promise((resolve) => setTimeout(resolve, 20));
    process.off('uncaughtException', note);
    expect(strays).toEqual([]);
  });

  it('keeps the order of pieces read ahead of a member’s end', async () => {
    // The first piece is one that a stream takes time for, and ends within the second member; small ones follow.
    const members = [noise.subarray(0, 100_000), small, repeated, small];
    const packed = join(...members.map((part) => gzipSync(part)));
    const first = gzipSync(members[0]).length + 20;
    for (const rest of [97, 5000]) {
      async function* source() {
        yield packed.subarray(0, first);
        for (let at = first; at < packed.length; at += rest) yield packed.subarray(at, at + rest);
      }
      expect(Buffer.compare(await collect(platform.inflate(source(), 'gzip')), join(...members))).toBe(0);
    }
  });

  it.each(compressions)('accepts 15 bytes of padding after %s, and refuses 16', async (compression) => {
    const packed = new Uint8Array(pack[compression](small));
    for (const isOnce of [false, true])
      for (const size of [1, 7, 1000]) {
        const read = (...padding: number[]) =>
          inflate(Uint8Array.from([...packed, ...padding]), compression, { size, isOnce });
        for (const padding of [[10], Array(15).fill(255), Array(600).fill(0)])
          expect(Buffer.compare(await read(...padding), small)).toBe(0);
        await expect(read(...Array(16).fill(255))).rejects.toMatchObject({ code: 'BAD_VOXELS' });
        await expect(read(...Array(16).fill(0), ...Array(16).fill(1))).rejects.toMatchObject({
          code: 'BAD_VOXELS',
        });
      }
  });

  it.each(compressions)('fails on %s that is truncated or damaged', async (compression) => {
    const packed = new Uint8Array(pack[compression](small));
    for (const isOnce of [false, true]) {
      for (const length of [0, 1, 5, 19, packed.length - 1])
        await expect(inflate(packed.subarray(0, length), compression, { isOnce })).rejects.toThrow();
      // A deflate stream without a wrapper has no checksum: only its first byte, the kind of its block, tells.
      for (const at of compression === 'deflate-raw' ? [0] : [0, packed.length - 1])
        await expect(
          inflate(packed.with(at, packed[at] ^ 1), compression, { isOnce, size: 9 }),
        ).rejects.toThrow();
    }
  });

  it.each(compressions)('gives the fault of its source to its reader: %s', async (compression) => {
    const fault = new Error('the disk failed');
    const packed = new Uint8Array(pack[compression](noise)).subarray(0, 200_000);
    for (const [bytes, size] of [
      [packed, 20_000],
      [packed, 200_000],
      [packed.subarray(0, 3), 1],
      [new Uint8Array(0), 1],
    ] as const) {
      await expect(collect(platform.inflate(sourceOf(bytes, size, { fault }), compression))).rejects.toBe(
        fault,
      );
      await expect(collect(platform.deflate(sourceOf(bytes, size, { fault }), compression, 1))).rejects.toBe(
        fault,
      );
    }
  });

  it.each(compressions)('reads %s no faster than its reader, and closes it', async (compression) => {
    const data = join(
      noise,
      noise.map((v) => v ^ 85),
      noise.map((v) => v ^ 170),
    );
    const packed = new Uint8Array(pack[compression](data));
    for (const isOnce of [false, true])
      for (const [source, run] of [
        [sourceOf(packed, 2000, { isOnce }), (s: Source) => platform.inflate(s, compression)],
        [sourceOf(data, 2000, { isOnce }), (s: Source) => platform.deflate(s, compression, 1)],
      ] as const) {
        for await (const _ of run(source)) {
          for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
          break;
        }
        await expect.poll(() => source.closed).toBeGreaterThan(0);
        // 450 pieces in all; streams take a few hundred KiB ahead.
        expect(source.pulled).toBeLessThan(300);
      }
  });

  it('does not wait for a source that hangs or fails when it is closed', async () => {
    const packed = new Uint8Array(gzipSync(small));
    for (const close of [
      () => new Promise<never>(() => {}),
      () => Promise.reject(new Error('closing failed')),
    ]) {
      const source = () => {
        const chunks = [packed];
        return {
          [Symbol.asyncIterator]: () => ({
            next: async () => {
              const value = chunks.shift();
              return value ? { done: false as const, value } : { done: true as const, value: undefined };
            },
            return: close,
          }),
        };
      };
      expect(Buffer.compare(await collect(platform.inflate(source(), 'gzip')), small)).toBe(0);
      expect(gunzipSync(await collect(platform.deflate(source(), 'gzip', 1)))).toEqual(Buffer.from(packed));
    }
  });

  if (name === 'webPlatform') {
    it('unpacks a source that is read once in pieces of 64 KiB', async () => {
      for (const compression of compressions) {
        const data = new Uint8Array(200_000);
        const packed = new Uint8Array(pack[compression](data));
        const lengths: number[] = [];
        for await (const chunk of platform.inflate(sourceOf(packed, 100, { isOnce: true }), compression))
          lengths.push(chunk.length);
        expect(Math.max(...lengths)).toBe(65_536);
        expect(lengths.reduce((sum, n) => sum + n)).toBe(200_000);
      }
    });
  }
});

describe('zlibPlatform()', () => {
  it.each([
    ['nothing', [], 32_768],
    ['one small piece', [10], 32_768],
    ['4096 bytes', [4096], 32_768],
    ['4097 bytes', [4097], 32_776],
    ['two pieces', [5000, 1000], 48_000],
    ['two pieces of more', [5000, 1000, 90_000], 48_000],
    ['32768 bytes', [32_768], 262_144],
    ['a large piece', [100, 200_000], 262_144],
  ])('asks for chunks of a size that fits %s', async (_what, lengths, chunkSize) => {
    const seen: [string, unknown][] = [];
    const watched = zlibPlatform({
      ...zlib,
      createGzip: (options) => {
        seen.push(['gzip', options]);
        return zlib.createGzip(options);
      },
      createDeflate: (options) => {
        seen.push(['deflate', options]);
        return zlib.createDeflate(options);
      },
      createGunzip: (options) => {
        seen.push(['gunzip', options]);
        return zlib.createGunzip(options);
      },
    });
    async function* source() {
      for (const length of lengths) yield noise.subarray(0, length);
    }
    const packed = await collect(watched.deflate(source(), 'gzip', 3));
    await collect(watched.deflate(source(), 'zlib', 7));
    expect(seen).toEqual([
      ['gzip', { level: 3, chunkSize }],
      ['deflate', { level: 7, chunkSize }],
    ]);
    await collect(watched.inflate(sourceOf(packed, packed.length), 'gzip'));
    expect(seen[2]).toEqual([
      'gunzip',
      { chunkSize: Math.min(262_144, Math.max(32_768, 8 * packed.length)) },
    ]);
  });

  it('sums by the crc32 of node:zlib where there is one', async () => {
    let calls = 0;
    const counted = zlibPlatform({
      ...zlib,
      crc32: () => {
        calls++;
        return gzipSync(small).readUInt32LE(gzipSync(small).length - 8);
      },
    });
    const packed = new Uint8Array(gzipSync(small));
    const read = await collect(counted.inflate(sourceOf(packed, 100, { isOnce: true }), 'gzip'));
    expect([Buffer.compare(read, small), calls]).toEqual([0, 1]);
  });
});
