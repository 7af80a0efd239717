import { describe, expect, it } from 'vitest';
import { dicomFile, type Slice, sliceElements, syntaxes } from '../../test/dicom-files.ts';
import { four } from '../../test/dicom-series.ts';
import { encodeJpegLossless } from '../../test/jpeg-lossless.ts';
import { zipOf } from '../../test/zip-files.ts';
import type { SourceFile } from '../formats/source-file.ts';
import { readVolume, sourceFromBytes } from '../formats/volume-file.ts';
import { webPlatform } from '../formats/web-platform.ts';
import { type DicomHeader, readDicomHeader } from './dicom-files.ts';

/** A file that comes in pieces, and says how many of its bytes were read. */
function piecewise(bytes: Uint8Array, size: number, sizeBytes?: number) {
  const counts = { read: 0 };
  const file: SourceFile = {
    name: 'folder/slice.dcm',
    sizeBytes,
    async *open(start = 0) {
      for (let at = start; at < bytes.length; at += size) {
        const piece = bytes.subarray(at, at + size);
        counts.read += piece.length;
        yield piece;
      }
    },
  };
  return { file, counts };
}
const [rows, columns] = [300, 400];
const thick = { 1572944: ['DS', '2'] } as const;
const values = Array.from({ length: rows * columns }, (_, i) => (i * 7919) % 4096);
const large = (more: Slice['more'] = {}, syntax?: string) =>
  dicomFile(sliceElements({ rows, columns, values, more: { ...thick, ...more } }), { syntax });
const fragments = [
  new Uint8Array(0),
  encodeJpegLossless(values, { rows, columns, precision: 12, predictor: 1 }),
];
const compressed = large({ 2145386512: ['OB', { fragments }] }, syntaxes.jpegLossless);
const headerOf = async (file: SourceFile) => (await readDicomHeader(file, webPlatform)) as DicomHeader;

describe('readDicomHeader()', () => {
  it('keeps no more memory than the header takes', async () => {
    const bytes = large();
    const moved = new Uint8Array(bytes.length + 100);
    moved.set(bytes, 100);
    const { dicom, bytes: kept } = await headerOf(sourceFromBytes('a', moved.subarray(100)));
    // Behind it: the head of the pixel data, and the pixels.
    expect(kept.length).toBe(bytes.length - 2 * rows * columns);
    for (const element of [...dicom.meta.values(), ...dicom.dataset.values()])
      expect(element.kind === 'value' && element.bytes.buffer).toBe(kept.buffer);
    expect(kept.buffer.byteLength).toBe(kept.length);
  });

  it('reads at most 64 KiB of a file with a short header', async () => {
    for (const bytes of [large(), compressed]) {
      expect(bytes.length).toBeGreaterThan(131_072);
      const { file, counts } = piecewise(bytes, 4096, bytes.length);
      const header = await headerOf(file);
      expect([header.kind, header.name, counts.read]).toEqual(['dicom', 'slice.dcm', 65_536]);
      // Its bytes end before the pixels, in memory of their own.
      expect(header.bytes.length).toBeLessThan(1000);
      expect(header.bytes.buffer.byteLength).toBe(header.bytes.length);
    }
  });

  it('distinguishes fragments from values in a prefix as in the whole', async () => {
    for (const size of [1000, 65_536, compressed.length]) {
      expect((await headerOf(piecewise(compressed, size).file)).pixels).toEqual({
        tag: 0x7fe00010,
        statedBytes: undefined,
      });
      expect((await headerOf(piecewise(large(), size).file)).pixels).toEqual({
        tag: 0x7fe00010,
        statedBytes: 240_000,
      });
    }
  });

  it('reads on where the header is longer, up to 16 MiB', async () => {
    const long = (length: number) => large({ 593921: ['UN', new Uint8Array(length).fill(1)] });
    const { file, counts } = piecewise(long(300_000), 10_000);
    expect((await headerOf(file)).bytes.length).toBeGreaterThan(300_000);
    expect(counts.read).toBeLessThan(600_000);
    const endless = piecewise(long(17_000_000), 100_000);
    expect(await readDicomHeader(endless.file, webPlatform)).toMatchObject({
      kind: 'unread',
      fault: { code: 'BAD_HEADER', message: expect.stringContaining('does not end within 16777216 bytes') },
    });
    expect(endless.counts.read).toBeLessThan(16_900_000);
  });

  it('reports files that are not DICOM, and rethrows the source’s errors', async () => {
    const text = piecewise(new TextEncoder().encode('hello'), 2).file;
    expect(await readDicomHeader(text, webPlatform)).toMatchObject({
      kind: 'unread',
      name: 'slice.dcm',
      fault: { code: 'UNKNOWN_FORMAT' },
    });
    const fault = new Error('the disk failed');
    const broken: SourceFile = {
      name: 'a',
      // biome-ignore lint/correctness/useYield: it fails before
      async *open() {
        throw fault;
      },
    };
    await expect(readDicomHeader(broken, webPlatform)).rejects.toBe(fault);
  });
});

describe('readVolume()', () => {
  it('keeps the bytes of a Node Buffer, whose slice() is a view', async () => {
    const bytes = Buffer.concat([Buffer.alloc(3), large({ 2625618: ['DS', '-1024'] })]).subarray(3);
    const before = Uint8Array.from(bytes);
    const { volume } = await readVolume([piecewise(bytes, bytes.length).file], webPlatform);
    expect([...volume.voxels]).toEqual(values.map((value) => value - 1024));
    expect(Uint8Array.from(bytes)).toEqual(before);
  });

  it.each([
    ['uncompressed', large()],
    ['compressed', compressed],
    ['deflated', large({}, syntaxes.deflated)],
  ])('reads a large file that comes in pieces: %s', async (_, bytes) => {
    for (const size of [3333, 65_536, bytes.length]) {
      const { volume } = await readVolume([piecewise(bytes, size).file], webPlatform);
      expect([...volume.voxels]).toEqual(values);
    }
  });
});

describe('readVolume() of DICOM files', () => {
  /** A file that is read to the offered room, in pieces, as far as there is any; the last piece never is. */
  const roomy = (bytes: Uint8Array, size: number): SourceFile => ({
    name: 'a',
    sizeBytes: bytes.length,
    async *open(start = 0, room) {
      let used = 0;
      for (let at = start; at < bytes.length; at += size) {
        const piece = bytes.subarray(at, at + size);
        const space = at + size < bytes.length ? room?.subarray(used, used + piece.length) : undefined;
        if (space?.length !== piece.length) {
          yield piece;
          continue;
        }
        space.set(piece);
        used += piece.length;
        yield space;
      }
    },
  });
  // The second file is the longest, the third the shortest.
  const comments = ['', 'x'.repeat(3000), '', 'y'.repeat(40)];
  const elements = four.map((slice, i) =>
    sliceElements({
      ...slice,
      more: comments[i] === '' ? {} : { 2113536: ['LT', comments[i]] },
    }),
  );
  // Slice n has the values 100 n + i, by `sliceElements()`.
  const expected = [1, 2, 3, 4].flatMap((n) => Array.from({ length: 12 }, (_, i) => 100 * n + i));

  it.each([7, 64, 500, 1000, 100_000])('uses one room for all files, in pieces of %i bytes', async (size) => {
    const sources = elements.map((one) => roomy(dicomFile(one), size));
    const { volume } = await readVolume(sources, webPlatform);
    expect([...volume.voxels]).toEqual(expected);
  });

  it.each([64, 500, 100_000])('uses one room for the files of a zip, in pieces of %i bytes', async (size) => {
    const entries = elements.map((one, i) => ({ name: `${i}`, data: dicomFile(one), method: 0 }));
    const { volume } = await readVolume([roomy(Uint8Array.from(zipOf(entries)), size)], webPlatform);
    expect([...volume.voxels]).toEqual(expected);
  });

  it('compares the checksum of a small file in a zip', async () => {
    const entries = elements.map((one, i) => ({ name: `${i}`, data: dicomFile(one), method: 0 }));
    const zip = Uint8Array.from(zipOf(entries));
    // The last bytes of an entry are pixels: those before the local header of the second one.
    const at = zip.findIndex((byte, i) => i > 0 && byte === 0x50 && zip[i + 1] === 0x4b && zip[i + 2] === 3);
    zip[at - 2] ^= 1;
    for (const source of [sourceFromBytes('a', zip), roomy(zip, 100_000), roomy(zip, 64)])
      await expect(readVolume([source], webPlatform)).rejects.toMatchObject({ code: 'BAD_VOXELS' });
  });

  it('refuses a file that is far longer than its image, before its end', async () => {
    const bytes = dicomFile(sliceElements({ more: thick }));
    const counts = { read: 0 };
    const piece = new Uint8Array(2 ** 20);
    const endless: SourceFile = {
      name: 'a',
      sizeBytes: 2 ** 40,
      async *open() {
        for (let left = bytes; ; left = piece) {
          counts.read += left.length;
          yield left;
        }
      },
    };
    await expect(readVolume([endless], webPlatform)).rejects.toMatchObject({
      code: 'BAD_VOXELS',
      message: expect.stringContaining('longer than'),
    });
    expect(counts.read).toBeLessThan(20 * 2 ** 20);
  });

  it('reads pixels at odd addresses, of 16 and 32 bits', async () => {
    const shifted = (bytes: Uint8Array) => {
      const moved = new Uint8Array(bytes.length + 1);
      moved.set(bytes, 1);
      return sourceFromBytes('a', moved.subarray(1));
    };
    const short = await readVolume(
      elements.map((one) => shifted(dicomFile(one))),
      webPlatform,
    );
    expect([...short.volume.voxels]).toEqual(expected);
    const floats = Float32Array.from({ length: 12 }, (_, i) => i / 8);
    const float = sliceElements({
      more: { ...thick, 2145386512: undefined, 2145386504: ['OF', new Uint8Array(floats.buffer)] },
    });
    expect((await readVolume([shifted(dicomFile(float))], webPlatform)).volume.voxels).toEqual(floats);
  });
});
