import { crc32, gunzipSync, gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import type { Platform } from '../platform.ts';
import { longestHeader } from './identifying-lines.ts';
import { findIdentifyingText, neutralNames, writeStripped } from './identifying-text.ts';
import { collectBytes } from './volume-file.ts';
import { webPlatform } from './web-platform.ts';

const latin1 = (text: string) => new Uint8Array(Buffer.from(text, 'latin1'));
const join = (...parts: (Uint8Array | readonly number[])[]) =>
  new Uint8Array(Buffer.concat(parts.map((part) => Uint8Array.from(part))));

/** A file that is read in pieces of `step` bytes. */
const fileOf = (name: string, bytes: Uint8Array, step = bytes.length) => ({
  name,
  sizeBytes: bytes.length,
  async *read(start = 0, end = bytes.length) {
    const last = Math.min(end, bytes.length);
    for (let at = start; at < last; at += step) yield bytes.slice(at, Math.min(last, at + step));
  },
});

/** Several gzip members in a row are read by zlib, not by every DecompressionStream. */
const zlibPlatform: Platform = {
  ...webPlatform,
  async *inflate(chunks) {
    yield new Uint8Array(gunzipSync(await collectBytes(chunks)));
  },
};

/** The header of a gzip member (RFC 1952), then its deflated data. */
function gzip(data: Uint8Array, flags = 0, time = 0, fields: readonly number[] = [], last = [0, 255]) {
  const packed = gzipSync(data);
  const seconds = [0, 8, 16, 24].map((shift) => (time >>> shift) & 255);
  return join([0x1f, 0x8b, 8, flags, ...seconds, ...last], fields, packed.subarray(10));
}
const text = (words: string) => [...latin1(words), 0];

/** One slice in NIfTI-1 or NIfTI-2 whose voxels begin at `at`; nothing in it has to go. */
function nifti(version: 1 | 2, little: boolean, at: number, length = at + 6): Uint8Array {
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  view.setInt32(0, version === 1 ? 348 : 540, little);
  bytes.set(latin1(version === 1 ? 'n+1\0' : 'n+2\0\r\n\x1a\n'), version === 1 ? 344 : 4);
  for (const [i, n] of [3, 2, 3, 1, 1, 1, 1, 1].entries()) {
    if (version === 1) view.setInt16(40 + 2 * i, n, little);
    else view.setBigInt64(16 + 8 * i, BigInt(n), little);
  }
  for (const [i, mm] of [1, 2, 3, 4].entries()) {
    if (version === 1) view.setFloat32(76 + 4 * i, mm, little);
    else view.setFloat64(104 + 8 * i, mm, little);
  }
  if (version === 1) view.setFloat32(108, at, little);
  else view.setBigInt64(168, BigInt(at), little);
  view.setInt16(version === 1 ? 70 : 12, 2, little);
  view.setInt16(version === 1 ? 72 : 14, 8, little);
  bytes.set([1, 2, 3, 4, 5, 6].slice(0, Math.max(0, length - at)), Math.min(at, length));
  return bytes;
}
const none = new Uint8Array(0);
const plain = nifti(1, true, 352);

async function strip(file: ReturnType<typeof fileOf>, platform = webPlatform) {
  const { fields, rewrite } = await findIdentifyingText(file, platform);
  const bytes = rewrite && (await collectBytes(writeStripped(file, rewrite, platform)));
  return { fields, bytes, rewrite };
}

describe('findIdentifyingText() in gzip headers', () => {
  it('leaves a member without text and time as it is', async () => {
    for (const flags of [0, 1]) {
      const file = fileOf('a.nii.gz', gzip(plain, flags));
      expect(await findIdentifyingText(file, webPlatform)).toEqual({ fields: [] });
    }
  });

  it.each<[string, number, number, number[], [string, string][]]>([
    ['a file name', 8, 0, text('Jane.nii'), [['gzip file name', 'Jane.nii']]],
    ['an empty file name', 8, 0, [0], [['gzip file name', '']]],
    ['a comment', 16, 0, text('born 1960'), [['gzip comment', 'born 1960']]],
    ['an extra field', 4, 0, [44, 1, ...text('J'.repeat(299))], [['gzip extra field', '300 bytes']]],
    ['a time', 0, 1_600_000_000, [], [['gzip time', '2020-09-13T12:26:40.000Z']]],
    ['a time of 2096', 0, 4_000_000_000, [], [['gzip time', '2096-10-02T07:06:40.000Z']]],
    ['the first second', 0, 1, [], [['gzip time', '1970-01-01T00:00:01.000Z']]],
    [
      'all of them',
      4 | 8 | 16,
      1_600_000_000,
      [2, 0, 7, 7, ...text('Jane'), ...text('Doe')],
      [
        ['gzip extra field', '2 bytes'],
        ['gzip file name', 'Jane'],
        ['gzip comment', 'Doe'],
        ['gzip time', '2020-09-13T12:26:40.000Z'],
      ],
    ],
  ])('removes %s, and keeps the compressed data', async (_what, flags, time, fields, named) => {
    for (const check of [0, 2]) {
      const head = gzip(plain, flags | check, time, fields).subarray(0, 10 + fields.length);
      const sum = crc32(head) & 0xffff;
      const crc = check ? [sum & 255, sum >> 8] : [];
      const given = gzip(plain, flags | check, time, [...fields, ...crc]);
      const found = await strip(fileOf('a.nii.gz', given));
      expect(found.fields).toEqual(named.map(([name, value]) => ({ name, value })));
      expect(found.bytes).toEqual(gzip(plain));
      expect(found.rewrite).toEqual({
        head: Uint8Array.of(0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255),
        from: 10 + fields.length + crc.length,
        repack: false,
      });
    }
  });

  it('finds a file name after the longest extra field', async () => {
    const fields = [255, 255, ...new Uint8Array(65535).fill(7), ...text('Jane')];
    const given = gzip(plain, 4 | 8, 0, fields);
    for (const step of [1000, 65536, 100_000]) {
      const found = await strip(fileOf('a.nii.gz', given, step));
      expect(found.fields).toEqual([
        { name: 'gzip extra field', value: '65535 bytes' },
        { name: 'gzip file name', value: 'Jane' },
      ]);
      expect(found.bytes).toEqual(gzip(plain));
    }
  });

  it('reports what it can of a truncated header', async () => {
    const given = join([0x1f, 0x8b, 8, 4 | 8, 1, 0, 0, 0, 0, 255, 1, 0, 7], latin1('Jane'));
    expect((await findIdentifyingText(fileOf('a', given), webPlatform)).fields).toEqual([
      { name: 'gzip extra field', value: '1 bytes' },
    ]);
  });

  it('looks for both bytes of the mark', async () => {
    for (const [first, second] of [
      [0x1f, 0x8a],
      [0x1e, 0x8b],
    ]) {
      const given = join([first, second, 8, 8, 0, 0, 0, 0, 0, 255], text('Jane'), gzip(plain));
      expect(await findIdentifyingText(fileOf('a.nii.gz', given), webPlatform)).toEqual({ fields: [] });
    }
  });

  it('takes out the header of data that cannot be unpacked', async () => {
    const given = join([0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 255], text('Jane'), [6, 6, 6, 6]);
    const found = await strip(fileOf('a.nii.gz', given));
    expect(found.fields).toEqual([{ name: 'gzip file name', value: 'Jane' }]);
    expect(found.bytes).toEqual(join([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255], [6, 6, 6, 6]));
  });

  it('looks at no voxels in a file of voxels alone', async () => {
    const looksLikeHeader = nifti(1, true, 352);
    looksLikeHeader.set(latin1('Jane'), 148);
    const named = gzip(looksLikeHeader, 8, 0, text('Jane.img'));
    for (const name of ['a.img', 'a.RAW', 'a.zraw']) {
      expect(await findIdentifyingText(fileOf(name, looksLikeHeader), webPlatform)).toEqual({ fields: [] });
      const found = await strip(fileOf(`${name}.gz`, named));
      expect(found.fields).toEqual([{ name: 'gzip file name', value: 'Jane.img' }]);
      expect(found.bytes).toEqual(gzip(looksLikeHeader));
    }
    const found = await findIdentifyingText(fileOf('a.img.nii', looksLikeHeader), webPlatform);
    expect(found.fields).toEqual([{ name: 'descrip', value: 'Jane' }]);
  });
});

describe('findIdentifyingText() in later members', () => {
  const later = [{ name: 'gzip header', value: 'of a later part of the file' }];

  it('packs again what has a later member with text', async () => {
    for (const first of [gzip(plain), gzip(plain, 8, 0, text('Jane'))]) {
      const given = join(first, gzip(latin1('voxels'), 8, 0, text('Doe')));
      const found = await strip(fileOf('a.nii.gz', given, 13), zlibPlatform);
      expect(found.fields.slice(-1)).toEqual(later);
      expect(found.fields).toHaveLength(first.length > gzip(plain).length ? 2 : 1);
      expect(found.rewrite).toEqual({ head: new Uint8Array(0), from: 0, repack: true });
      expect(gunzipSync(found.bytes ?? none)).toEqual(Buffer.from(join(plain, latin1('voxels'))));
      expect(Buffer.from(found.bytes ?? none).includes('Doe')).toBe(false);
      expect(await findIdentifyingText(fileOf('a.nii.gz', found.bytes as Uint8Array), zlibPlatform)).toEqual({
        fields: [],
      });
    }
  });

  it.each<[string, number[], boolean]>([
    ['an extra field', [31, 139, 8, 4, 0, 0, 0, 0, 0, 3], true],
    ['a name', [31, 139, 8, 8, 0, 0, 0, 0, 0, 3], true],
    ['a comment', [31, 139, 8, 16, 0, 0, 0, 0, 0, 3], true],
    ['all flags', [31, 139, 8, 31, 0, 0, 0, 0, 0, 3], true],
    ['the first byte of a time', [31, 139, 8, 0, 1, 0, 0, 0, 2, 0], true],
    ['the second byte of a time', [31, 139, 8, 0, 0, 1, 0, 0, 2, 0], true],
    ['the third byte of a time', [31, 139, 8, 0, 0, 0, 1, 0, 4, 13], true],
    ['the last byte of a time', [31, 139, 8, 0, 0, 0, 0, 1, 4, 255], true],
    ['a name behind the first byte of a mark', [31, 31, 139, 8, 8, 0, 0, 0, 0, 0, 3], true],
    ['a name behind a mark', [31, 139, 31, 139, 8, 8, 0, 0, 0, 0, 0, 3], true],
    ['a text flag and a checksum', [31, 139, 8, 3, 0, 0, 0, 0, 0, 3], false],
    ['a flag that is not used', [31, 139, 8, 32 | 8, 0, 0, 0, 0, 0, 3], false],
    ['another mark', [31, 138, 8, 8, 0, 0, 0, 0, 0, 3], false],
    ['another compression', [31, 139, 9, 8, 0, 0, 0, 0, 0, 3], false],
    ['XFL of 1', [31, 139, 8, 8, 0, 0, 0, 0, 1, 3], false],
    ['XFL of 3', [31, 139, 8, 8, 0, 0, 0, 0, 3, 3], false],
    ['XFL of 5', [31, 139, 8, 8, 0, 0, 0, 0, 5, 3], false],
    ['a system of 14', [31, 139, 8, 8, 0, 0, 0, 0, 0, 14], false],
    ['a system of 254', [31, 139, 8, 8, 0, 0, 0, 0, 0, 254], false],
  ])('takes %s for a member with text: %#', async (_what, header, speaks) => {
    const first = [31, 139, 8, 0, 0, 0, 0, 0, 0, 255];
    // Never unpacked: the first block is of the kind that is reserved.
    for (const given of [
      join(first, [7], header),
      join(first, header, [0, 0, 0]),
      join(first, [7, 31], new Uint8Array(30).fill(9), header, [9]),
    ]) {
      for (const step of [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 100]) {
        const { fields } = await findIdentifyingText(fileOf('a.img.gz', given, step), webPlatform);
        expect(fields).toEqual(speaks ? later : []);
      }
    }
    const cut = join(first, [7], header.slice(0, -1));
    for (const step of [5, 100]) {
      const { fields } = await findIdentifyingText(fileOf('a.img.gz', cut, step), webPlatform);
      expect(fields).toEqual([]);
    }
  });
});

describe('findIdentifyingText() in packed files', () => {
  const forms = [
    [1, true],
    [1, false],
    [2, true],
    [2, false],
  ] as const;

  it('reads up to the voxels at any distance, and drops text before them', async () => {
    for (const [version, little] of forms) {
      const first = version === 1 ? 352 : 544;
      for (const at of version === 2 ? [4000, 4096, 4097, 70_000] : [4097, 200_000]) {
        const given = nifti(version, little, at);
        const clean = await strip(fileOf('a.nii.gz', gzip(given), 50));
        expect(clean, `zeros to ${at}`).toEqual({ fields: [] });
        given.set(latin1('Jane'), at - 4);
        const found = await strip(fileOf('a.nii.gz', gzip(given), 50));
        expect(found.fields).toEqual([{ name: 'extension', value: `${at - first} bytes` }]);
        expect(found.rewrite).toMatchObject({ from: at, repack: true });
        const wanted = join(nifti(version, little, first).subarray(0, first), given.subarray(at));
        expect(gunzipSync(found.bytes ?? none)).toEqual(Buffer.from(wanted));
        // The same without gzip, in pieces and at once.
        for (const step of [1000, given.length]) {
          const unpacked = await strip(fileOf('a.nii', given, step));
          expect(unpacked.fields).toEqual(found.fields);
          expect(unpacked.bytes).toEqual(wanted);
        }
      }
    }
  });

  it('takes the place of voxels beyond 4 MiB for extensions', async () => {
    const at = longestHeader + 4;
    for (const [version, little] of forms) {
      const first = version === 1 ? 352 : 544;
      const given = nifti(version, little, at, 5000);
      const { fields } = await findIdentifyingText(fileOf('a.nii.gz', gzip(given)), webPlatform);
      expect(fields).toEqual([{ name: 'extension', value: `${at - first} bytes` }]);
    }
    const last = gzip(nifti(1, true, longestHeader));
    expect((await findIdentifyingText(fileOf('a.nii.gz', last), webPlatform)).fields).toEqual([]);
  });

  it.each([
    ['MetaImage', 'NDims = 3\nDimSize = 1 1 1\n', 'ElementDataFile = LOCAL\n'],
    ['NRRD', 'NRRD0004\nsizes: 1 1 1\n', '\n'],
  ])('reads a header of %s to its end', async (_format, lines, end) => {
    const blank = lines.startsWith('NRRD') ? `#${' '.repeat(79)}\n` : `${' '.repeat(80)}\n`;
    for (const count of [0, 51, 2000]) {
      const before = lines + blank.repeat(count);
      const given = latin1(`${before}Jane\n${end}voxels`);
      const found = await strip(fileOf('a.gz', gzip(given), 61));
      expect(found.fields).toEqual([{ name: 'text', value: 'Jane' }]);
      const instead = lines.startsWith('NRRD') ? '#   ' : '    ';
      expect(gunzipSync(found.bytes ?? none).toString('latin1')).toBe(`${before}${instead}\n${end}voxels`);
      const same = await strip(fileOf('a.gz', gzip(latin1(before + end))));
      expect(same.fields).toEqual([]);
      // The file may end where the header does not.
      expect((await strip(fileOf('a.gz', gzip(latin1(before))))).fields).toEqual([]);
      expect((await strip(fileOf('a', latin1(before)))).fields).toEqual([]);
    }
  });

  it('refuses a header of text that does not end within 4 MiB', async () => {
    const start = 'NRRD0004\n#';
    const long = (length: number) => latin1(start.padEnd(length));
    const find = (bytes: Uint8Array) => findIdentifyingText(fileOf('a', bytes), webPlatform);
    expect(await find(long(longestHeader))).toEqual({ fields: [] });
    expect(await find(gzip(long(longestHeader - 1)))).toEqual({ fields: [] });
    for (const bytes of [long(longestHeader + 1), gzip(long(longestHeader + 1))])
      await expect(find(bytes)).rejects.toMatchObject({ code: 'BAD_HEADER' });
  });

  it('asks for the name of the data file, packed or not', async () => {
    const given = latin1('NDims = 3\nDimSize = 1 1 1\nElementDataFile = Jane.raw\n');
    for (const bytes of [given, gzip(given)]) {
      const file = fileOf('a.mhd', bytes);
      expect(await findIdentifyingText(file, webPlatform)).toEqual({ fields: [] });
      const { rewrite } = await findIdentifyingText(file, webPlatform, {
        dataFile: (name) => `${name.length}.raw`,
      });
      expect(Buffer.from(rewrite?.head ?? []).toString()).toBe(
        'NDims = 3\nDimSize = 1 1 1\nElementDataFile = 8.raw\n',
      );
    }
  });
});

describe('writeStripped()', () => {
  it('packs with the quickest level', async () => {
    const levels: number[] = [];
    const platform: Platform = {
      ...webPlatform,
      deflate(chunks, compression, level) {
        levels.push(level);
        expect(compression).toBe('gzip');
        return webPlatform.deflate(chunks, compression, level);
      },
    };
    const rewrite = { head: latin1('head '), from: 3, repack: true };
    for (const words of ['old voxels', 'old', 'ol']) {
      const packed = await collectBytes(writeStripped(fileOf('a', gzip(latin1(words))), rewrite, platform));
      expect(gunzipSync(packed).toString()).toBe(`head ${words.slice(3)}`);
    }
    expect(levels).toEqual([1, 1, 1]);
  });

  it('drops first bytes across pieces', async () => {
    const platform: Platform = {
      async *inflate() {
        for (const piece of ['ab', 'cd', 'ef', 'gh']) yield latin1(piece);
      },
      deflate: (chunks) => chunks,
    };
    for (const from of [0, 1, 2, 3, 4, 7, 8, 9]) {
      const rewrite = { head: new Uint8Array(0), from, repack: true };
      const pieces: string[] = [];
      for await (const piece of writeStripped(fileOf('a', plain), rewrite, platform))
        pieces.push(Buffer.from(piece).toString());
      expect(pieces.join('')).toBe('abcdefgh'.slice(from));
      expect(pieces).not.toContain('');
    }
  });

  it('reads nothing after the end of a file', async () => {
    for (const from of [10, Number.POSITIVE_INFINITY]) {
      const starts: (number | undefined)[] = [];
      const file = {
        ...fileOf('a', plain),
        sizeBytes: 8,
        async *read(start?: number) {
          starts.push(start);
          yield latin1('x');
        },
      };
      const rewrite = { head: latin1('h'), from, repack: false };
      expect(await collectBytes(writeStripped(file, rewrite, webPlatform))).toEqual(latin1('hx'));
      expect(starts).toEqual([8]);
    }
  });
});

describe('neutralNames()', () => {
  it.each([
    [['Jane.nii.gz'], ['t2.nii.gz']],
    [
      ['Jane.hdr', 'Jane.IMG'],
      ['t2.hdr', 't2.img'],
    ],
    [
      ['Jane.hdr.gz', 'Jane.img.gz'],
      ['t2.hdr.gz', 't2.img.gz'],
    ],
    [['Jane.Doe.mha'], ['t2.mha']],
    [
      ['a.nii', 'b.nii', 'c.nii'],
      ['t2.nii', 't2-2.nii', 't2-3.nii'],
    ],
    [
      ['a.mhd', 'a.zraw'],
      ['t2.mhd', 't2.zraw'],
    ],
    [
      ['a.nhdr', 'a.raw'],
      ['t2.nhdr', 't2.raw'],
    ],
    [
      ['a.nrrd', 'b.h5', 'c.mat', 'd.tfm', 'e.txt'],
      ['t2.nrrd', 't2.h5', 't2.mat', 't2.tfm', 't2.txt'],
    ],
    // Voxels beside a header, whatever their file is called.
    [
      ['Jane.dat', 'a.mhd'],
      ['t2.raw', 't2.mhd'],
    ],
    [
      ['a.nhdr', 'Jane'],
      ['t2.nhdr', 't2.raw'],
    ],
    [
      ['a.mhd', 'b.nhdr', 'Jane', 'Doe'],
      ['t2.mhd', 't2.nhdr', 't2.raw', 't2-2.raw'],
    ],
    [
      ['Jane', 'Doe.dat'],
      ['t2', 't2-2'],
    ],
    [
      ['niigz', 'a.nii.Jane'],
      ['t2', 't2-2'],
    ],
  ])('calls %j %j', (names, wanted) => {
    expect(neutralNames('t2', names)).toEqual(wanted);
  });
});
