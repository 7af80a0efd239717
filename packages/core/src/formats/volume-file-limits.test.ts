import { gunzipSync, inflateSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import type { Platform } from '../platform.ts';
import type { Volume } from '../volume.ts';
import {
  collectBytes,
  extensionOf,
  type ReadOptions,
  readableEndings,
  readVolume,
  type SourceFile,
  sourceFromBytes,
  supportedExtensions,
  type WriteOptions,
  writeVolume,
} from './volume-file.ts';
import { webPlatform } from './web-platform.ts';

const voxels = Uint8Array.from({ length: 24 }, (_, i) => i + 1);
const join = (...parts: Uint8Array[]) => new Uint8Array(Buffer.concat(parts));
const bytesOf = (text: string) => new Uint8Array(Buffer.from(text, 'latin1'));
/** 4 × 3 × 2 voxels of uint8. */
const nrrd = (...lines: string[]) =>
  bytesOf(
    `NRRD0005\ntype: uchar\ndimension: 3\nsizes: 4 3 2\nspacings: 1 2 3\n${lines.map((line) => `${line}\n`).join('')}\n`,
  );
/** A file whose length nobody knows, in pieces. */
const streamed = (bytes: Uint8Array, size: number, name = 'a'): SourceFile => ({
  name,
  async *open(start = 0) {
    for (let at = start; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
  },
});
const read = (file: SourceFile, options?: ReadOptions) => readVolume([file], webPlatform, options);
const mebibytes = 2 ** 20;

describe('readVolume()', () => {
  it('looks for the end of a header in 4 MiB', async () => {
    const withHeader = (length: number) => {
      const rest = length - nrrd('encoding: raw', '#').length;
      return join(nrrd('encoding: raw', `#${'x'.repeat(rest)}`), voxels);
    };
    const largest = withHeader(4 * mebibytes);
    for (const file of [sourceFromBytes('a', largest), streamed(largest, 300_000)])
      expect([...(await read(file)).volume.voxels]).toEqual([...voxels]);
    await expect(read(sourceFromBytes('a', withHeader(4 * mebibytes + 1)))).rejects.toMatchObject({
      code: 'BAD_HEADER',
      message: expect.stringContaining('4194304 bytes'),
    });
  });

  it('reads no further than it needs to know the header', async () => {
    let pieces = 0;
    const bytes = join(nrrd('encoding: raw'), voxels, new Uint8Array(200_000));
    const counted: SourceFile = {
      name: 'a',
      async *open() {
        for (let at = 0; at < bytes.length; at += 32_768) {
          pieces++;
          yield bytes.subarray(at, at + 32_768);
        }
      },
    };
    await expect(read(counted)).rejects.toMatchObject({ code: 'BAD_VOXELS' });
    // Two of 64 KiB in all for the header, then the first one again.
    expect(pieces).toBe(3);
  });

  it('takes up to 4 MiB before voxels that are the last bytes', async () => {
    const header = nrrd('encoding: raw', 'byte skip: -1');
    const before = new Uint8Array(4 * mebibytes).fill(9);
    const seen: number[] = [];
    const { volume } = await read(streamed(join(header, before, voxels), 100_000), {
      onProgress: (fraction) => seen.push(fraction),
    });
    expect([...volume.voxels]).toEqual([...voxels]);
    expect(seen).toEqual([1]);
    for (const size of [100_000, 8 * mebibytes])
      await expect(
        read(streamed(join(header, before, voxels, voxels.subarray(0, 1)), size)),
      ).rejects.toMatchObject({
        code: 'BAD_VOXELS',
        message: expect.stringContaining('More than 4194304 bytes'),
      });
    const large = bytesOf(Buffer.from(header).toString().replace('4 3 2', '100 100 10'));
    const read100 = (length: number) => read(streamed(join(large, new Uint8Array(length).fill(5)), 30_000));
    expect((await read100(100_000)).volume.voxels.every((v) => v === 5)).toBe(true);
    await expect(read100(99_999)).rejects.toMatchObject({
      code: 'BAD_VOXELS',
      message: expect.stringContaining('99999 of the 100000 bytes'),
    });
    expect([...(await read(streamed(join(header, voxels), 10))).volume.voxels]).toEqual([...voxels]);
  });

  it('gives the fraction that was read, skipped bytes left out', async () => {
    const seen: number[] = [];
    const header = nrrd('encoding: raw', 'byte skip: 10');
    const file: SourceFile = {
      name: 'a',
      async *open(start = 0) {
        const bytes = join(header, new Uint8Array(10), voxels, new Uint8Array(15));
        if (start === 0) yield bytes;
        else
          for (const [from, to] of [
            [0, 4],
            [4, 10],
            [10, 16],
            [16, 22],
            [22, 40],
            [40, 49],
          ])
            yield bytes.subarray(start + from, start + to);
      },
    };
    const { volume } = await read(file, { onProgress: (fraction) => seen.push(fraction) });
    expect([...volume.voxels]).toEqual([...voxels]);
    expect(seen).toEqual([0.25, 0.5, 1]);
  });

  it('says how much of the voxels there is', async () => {
    // Longer than the first bytes that are looked at: its length is not known before.
    for (const [skip, length, found] of [
      [70_000, 69_990, 0],
      [70_000, 70_000, 0],
      [70_000, 70_023, 23],
    ])
      await expect(
        read(streamed(join(nrrd('encoding: raw', `byte skip: ${skip}`), new Uint8Array(length)), 7000)),
      ).rejects.toMatchObject({
        code: 'BAD_VOXELS',
        message: expect.stringContaining(`after ${found} of the 24 bytes`),
      });
  });

  it('accepts 15 bytes of padding after the voxels, in any pieces', async () => {
    const header = nrrd('encoding: raw', 'byte skip: 70000');
    for (const size of [11, 1000, 100_000]) {
      const of = (padding: number) =>
        streamed(join(header, new Uint8Array(70_000), voxels, new Uint8Array(padding)), size);
      expect([...(await read(of(15))).volume.voxels]).toEqual([...voxels]);
      await expect(read(of(16))).rejects.toMatchObject({
        code: 'BAD_VOXELS',
        message: expect.stringContaining('More than 15 bytes follow the 24 bytes'),
      });
    }
  });

  it('stops at a signal before and while it reads', async () => {
    const stop = AbortSignal.abort(new Error('enough'));
    await expect(read(sourceFromBytes('a', nrrd('encoding: raw')), { signal: stop })).rejects.toThrow(
      'enough',
    );
    const later = new AbortController();
    let opened = 0;
    const file: SourceFile = {
      name: 'a',
      async *open(start = 0) {
        if (++opened === 2) later.abort(new Error('later'));
        yield join(nrrd('encoding: raw'), voxels).subarray(start);
      },
    };
    await expect(read(file, { signal: later.signal })).rejects.toThrow('later');
  });

  it('takes all frames of one volume, and one that there is', async () => {
    const file = sourceFromBytes('a', join(nrrd('encoding: raw'), voxels));
    for (const frame of [undefined, 0, 'all'] as const)
      expect((await read(file, { frame })).volume.components).toBe(1);
    for (const frame of [1, -1, 0.5])
      await expect(read(file, { frame })).rejects.toMatchObject({ code: 'BAD_INPUT', detail: { frames: 1 } });
    const series = bytesOf(
      'NRRD0005\ntype: uchar\ndimension: 4\nsizes: 4 3 1 2\nspacings: 1 2 3 1\nencoding: raw\n\n',
    );
    const frames = sourceFromBytes('a', join(series, voxels));
    await expect(read(frames)).rejects.toMatchObject({ code: 'FRAME_NEEDED', detail: { frames: 2 } });
    expect([...(await read(frames, { frame: 1 })).volume.voxels]).toEqual([...voxels.subarray(12)]);
    await expect(read(frames, { frame: 2 })).rejects.toMatchObject({ code: 'BAD_INPUT' });
  });

  it('names the reason for a fault in compressed data', async () => {
    const fault = new Error('a bad block');
    for (const thrown of [fault, 'a bad block']) {
      const platform: Platform = {
        ...webPlatform,
        inflate() {
          throw thrown;
        },
      };
      const lazily: Platform = {
        ...webPlatform,
        async *inflate() {
          yield* [];
          throw thrown;
        },
      };
      const file = sourceFromBytes('a', join(nrrd('encoding: gzip'), new Uint8Array(50)));
      await expect(readVolume([file], platform)).rejects.toBe(thrown);
      await expect(readVolume([file], lazily)).rejects.toMatchObject({
        code: 'BAD_VOXELS',
        message: expect.stringContaining('gzip data of the voxels is damaged or cut off (a bad block)'),
        cause: thrown,
      });
    }
  });
});

describe('writeVolume()', () => {
  const volumeOf = (more: Partial<Volume> = {}): Volume => ({
    voxels,
    size: [4, 3, 2],
    components: 1,
    affine: [-1, 0, 0, 0, 0, -2, 0, 0, 0, 0, 3, 0, 0, 0, 0, 1],
    ...more,
  });
  type Extension = (typeof supportedExtensions)[number];
  async function written(extension: Extension, options?: WriteOptions, volume = volumeOf()) {
    const pieces: Uint8Array[] = [];
    for await (const piece of writeVolume(volume, extension, webPlatform, options)) pieces.push(piece);
    return pieces;
  }
  const whole = (pieces: Uint8Array[]) => new Uint8Array(Buffer.concat(pieces));

  it('packs NRRD with gzip and MetaImage with zlib, unless the level is 0', async () => {
    for (const options of [undefined, { level: 1 }, { level: 9 }]) {
      const [header, ...rest] = await written('nrrd', options);
      expect(Buffer.from(header).toString()).toContain('encoding: gzip');
      expect(new Uint8Array(gunzipSync(whole(rest)))).toEqual(voxels);
      const [mha, packed, ...none] = await written('mha', options);
      expect(Buffer.from(mha).toString()).toContain(
        `CompressedData = True\nCompressedDataSize = ${packed.length}\n`,
      );
      expect(new Uint8Array(inflateSync(packed))).toEqual(voxels);
      expect(none).toEqual([]);
    }
    for (const [extension, line] of [
      ['nrrd', 'encoding: raw'],
      ['mha', 'CompressedData = False'],
    ] as const) {
      const [header, raw] = await written(extension, { level: 0 });
      expect(Buffer.from(header).toString()).toContain(line);
      expect(raw).toEqual(voxels);
    }
    expect((await written('nii', { level: 9 }))[1]).toEqual(voxels);
    expect(gunzipSync(whole(await written('nii.gz', { level: 0 }))).subarray(352)).toEqual(
      Buffer.from(voxels),
    );
  });

  it.each([
    ['nii', undefined, 1],
    ['nii.gz', undefined, 1],
    ['nii.gz', 5, 5],
    ['nrrd', undefined, 1],
    ['nrrd', 6, 6],
    ['mha', undefined, 1],
    ['mha', 9, 9],
  ] as const)('%s: gives the platform the level %s as %i', async (extension, level, expected) => {
    const levels: number[] = [];
    const platform: Platform = {
      ...webPlatform,
      deflate(source, _compression, given) {
        levels.push(given);
        return source;
      },
    };
    await collectBytes(writeVolume(volumeOf(), extension, platform, { level }));
    expect(levels).toEqual(extension === 'nii' ? [] : [expected]);
  });

  it('describes a label map as such by default', async () => {
    const content = async (options: WriteOptions) =>
      /content: (.*)\n/.exec(Buffer.from((await written('nrrd', options))[0]).toString())?.[1];
    expect(await content({})).toBeUndefined();
    expect(await content({ intent: 'label' })).toBe('label map');
    expect(await content({ intent: 'label', description: 'lungs' })).toBe('lungs');
    expect(await content({ description: 'lungs' })).toBe('lungs');
  });

  it('gives pieces of up to 256 KiB', async () => {
    const size = [300, 300, 3] as const;
    const one = volumeOf({ size, voxels: Uint8Array.from({ length: 270_000 }, (_, i) => i * 7) });
    const pieces = await written('nii', {}, one);
    expect(pieces.map((piece) => piece.length)).toEqual([352, 262_144, 270_000 - 262_144]);
    expect(Buffer.compare(whole(pieces.slice(1)), one.voxels as Uint8Array)).toBe(0);
    const three = Uint16Array.from({ length: 810_000 }, (_, i) => i * 3);
    const [, ...rest] = await written('nrrd', { level: 0 }, volumeOf({ size, components: 3, voxels: three }));
    // 43690 voxels of six bytes go into a piece.
    const full = 43_690 * 6;
    expect(rest.map((piece) => piece.length)).toEqual([
      full,
      full,
      full,
      full,
      full,
      full,
      270_000 * 6 - 6 * full,
    ]);
    const stored = new Uint16Array(whole(rest).buffer);
    for (const i of [0, 1, 43_689, 43_690, 43_691, 269_999])
      expect([...stored.subarray(3 * i, 3 * i + 3)]).toEqual([0, 1, 2].map((c) => three[c * 270_000 + i]));
  });

  it('writes components larger than a piece', async () => {
    const components = 40_000;
    const doubles = Float64Array.from({ length: 2 * components }, (_, i) => i);
    const [, ...rest] = await written(
      'mha',
      { level: 0 },
      volumeOf({ size: [2, 1, 1], components, voxels: doubles }),
    );
    expect(rest.map((piece) => piece.length)).toEqual([320_000, 320_000]);
    const stored = new Float64Array(whole(rest).buffer);
    expect([...stored.subarray(0, 3), stored[components]]).toEqual([0, 2, 4, 1]);
  });

  it('copies what lies in memory that threads share', async () => {
    const shared = new Uint8Array(new SharedArrayBuffer(24));
    shared.set(voxels);
    const [, piece] = await written(
      'nii',
      {},
      volumeOf({ voxels: shared as unknown as Uint8Array<ArrayBuffer> }),
    );
    expect([piece.buffer instanceof ArrayBuffer, [...piece]]).toEqual([true, [...voxels]]);
  });

  it('says how many voxels are missing', async () => {
    for (const length of [47, 49])
      await expect(
        written('nii', {}, volumeOf({ components: 2, voxels: new Uint8Array(length) })),
      ).rejects.toMatchObject({ code: 'BAD_INPUT', message: expect.stringMatching(`${length} voxels.* 48`) });
  });
});

describe('sourceFromBytes()', () => {
  it('gives the bytes from a place on, in pieces of 256 KiB', async () => {
    const bytes = Uint8Array.from({ length: 600_000 }, (_, i) => i * 3);
    const file = sourceFromBytes('a.raw', bytes);
    expect([file.name, file.sizeBytes]).toEqual(['a.raw', 600_000]);
    const lengths: number[] = [];
    for await (const piece of file.open()) lengths.push(piece.length);
    expect(lengths).toEqual([262_144, 262_144, 75_712]);
    expect(Buffer.compare(await collectBytes(file.open(5)), bytes.subarray(5))).toBe(0);
    expect(await collectBytes(file.open(600_000))).toHaveLength(0);
  });
});

describe('endings of names', () => {
  it.each([
    ['.nii.gz', 'nii.gz'],
    ['.hdr.gz', 'nii.gz'],
    ['.img.gz', 'nii.gz'],
    ['.nii', 'nii'],
    ['.hdr', 'nii'],
    ['.img', 'nii'],
    ['.mha', 'mha'],
    ['.mhd', 'mha'],
    ['.nrrd', 'nrrd'],
    ['.nhdr', 'nrrd'],
  ])('%s is read, and written as %s', (ending, extension) => {
    expect(extensionOf(`a.B${ending}`)).toBe(extension);
    expect(extensionOf(`a${ending.toUpperCase()}`)).toBe(extension);
    expect(extensionOf(`a${ending}.txt`)).toBeUndefined();
    expect(readableEndings).toContain(ending);
    expect(supportedExtensions).toContain(extension);
  });

  it('are no others', () => {
    expect([readableEndings.length, supportedExtensions.length]).toEqual([10, 4]);
    expect(['a.gz', 'a.raw', 'a', 'nii'].map(extensionOf)).toEqual([
      undefined,
      undefined,
      undefined,
      undefined,
    ]);
  });
});
