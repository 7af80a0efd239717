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

async function* parts(bytes: Uint8Array, length = 10_000): AsyncIterable<Uint8Array> {
  for (let at = 0; at < bytes.length; at += length) yield bytes.subarray(at, at + length);
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
    it('inflate() gives back what was packed, however the input is cut', async () => {
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

    it('inflate() fails on input that is cut off, at its very end too', async () => {
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

    it('inflate() fails on bytes after the compressed data, in the same chunk or the next ones', async () => {
      const packed = pack(compression);
      for (const surplus of [
        Uint8Array.of(7),
        new Uint8Array(3),
        new Uint8Array(100_000),
        Uint8Array.of(0, 0, 9),
      ]) {
        for (const length of [packed.length, 2 ** 20]) {
          const source = parts(joined(packed, surplus), length);
          await expect(
            collectBytes(platform.inflate(source, compression)),
            `${surplus.length} bytes`,
          ).rejects.toThrow();
        }
      }
    });

    it('inflate() passes on the fault of its source', async () => {
      async function* failing() {
        yield pack(compression).subarray(0, 100);
        throw new Error('the disk failed');
      }
      await expect(collectBytes(platform.inflate(failing(), compression))).rejects.toThrow('the disk failed');
    });

    it('inflate() reads its source no faster than it is read, and lets it go when its reader leaves', async () => {
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

  it('readVolume() stops a bomb of 10 GB within a second, in little memory', async () => {
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
      message: expect.stringContaining('longer than the 2000000 bytes'),
    });
    expect(performance.now() - start).toBeLessThan(1000);
    expect(process.memoryUsage().rss - before).toBeLessThan(100e6);
  });
});

describe('inflate() of several gzip members in a row', () => {
  const packed = joined(pack('gzip'), pack('gzip'));

  it('gives all of them on Node', async () => {
    expect(await collectBytes(nodePlatform.inflate(parts(packed), 'gzip'))).toHaveLength(2 * data.length);
  });

  it('fails where the Compression Streams standard rules, rather than give the first alone', async () => {
    await expect(collectBytes(webPlatform.inflate(parts(packed), 'gzip'))).rejects.toThrow();
  });
});
