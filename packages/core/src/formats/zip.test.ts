import zlib, { deflateRawSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { joined, zipOf } from '../../test/zip-files.ts';
import { createNumbers } from '../geometry/fixtures.ts';
import type { Platform } from '../platform.ts';
import { sourceFromBytes } from './volume-file.ts';
import { collectBytes } from './voxel-pieces.ts';
import { webPlatform } from './web-platform.ts';
import { isZip, maxZipEntries, openZip } from './zip.ts';
import { zlibPlatform } from './zlib-platform.ts';

const platforms: [string, Platform][] = [
  ['webPlatform', webPlatform],
  ['zlibPlatform()', zlibPlatform(zlib)],
];
const nodePlatform = platforms[1][1];

const next = createNumbers(7);
const noise = Uint8Array.from({ length: 200_000 }, () => next() >>> 24);
const ramp = Uint8Array.from({ length: 300_000 }, (_, i) => (i / 700) & 255);
const few = new TextEncoder().encode('few bytes');

const open = (bytes: Uint8Array, limits?: { maxVoxels: number }, platform = nodePlatform) =>
  openZip(sourceFromBytes('series.zip', bytes), platform, limits);

async function refusal(work: Promise<unknown>): Promise<{ code: string; message: string }> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toMatchObject({ name: 'TomaatError' });
  return error as { code: string; message: string };
}

const readAll = async (bytes: Uint8Array) => {
  for (const file of await open(bytes)) await collectBytes(file.open());
};

describe.each(platforms)('openZip() with %s', (_name, platform) => {
  it('gives every file with its bytes, from any of them on', async () => {
    const bytes = zipOf([
      { name: 'a/deflated', data: ramp },
      { name: 'a/stored', data: noise, method: 0 },
      { name: 'later', data: noise, descriptor: true },
      { name: 'stored later', data: few, method: 0, descriptor: true },
      { name: 'wide', data: ramp, zip64: true },
      { name: 'empty', data: new Uint8Array(0), method: 0 },
      { name: 'extra', data: few, extra: Uint8Array.of(9, 9, 2, 0, 1, 1) },
    ]);
    const files = await open(bytes, undefined, platform);
    const expected = [ramp, noise, noise, few, ramp, new Uint8Array(0), few];
    expect(files.map(({ name, sizeBytes }) => [name, sizeBytes])).toEqual(
      ['deflated', 'stored', 'later', 'stored later', 'wide', 'empty', 'extra'].map((name, i) => [
        name,
        expected[i].length,
      ]),
    );
    for (const [i, file] of files.entries()) {
      for (const start of [0, 1, 7, 65_537, 199_999]) {
        const found = await collectBytes(file.open(start));
        expect(Buffer.compare(found, expected[i].subarray(start)), `${file.name} from ${start}`).toBe(0);
      }
    }
  });

  it('detects changed bytes by checksum, stored and compressed, and wrong lengths', async () => {
    for (const method of [0, 8]) {
      const bytes = zipOf([{ name: 'x', data: noise, method }]);
      const [file] = await open(bytes.with(60_000, bytes[60_000] ^ 16), undefined, platform);
      const { code, message } = await refusal(collectBytes(file.open()));
      expect(code).toBe('BAD_VOXELS');
      expect(message).toMatch(/File 1 of the zip archive is damaged.*Pack the files again/);
    }
    for (const unpacked of [ramp.length - 1, ramp.length + 1, 5]) {
      const [file] = await open(zipOf([{ name: 'x', data: ramp, sizes: { unpacked } }]), undefined, platform);
      expect(await refusal(collectBytes(file.open()))).toMatchObject({ code: 'BAD_VOXELS' });
    }
  });

  it('gives at most the bytes that an entry states, whatever it unpacks to', async () => {
    const zeros = deflateRawSync(new Uint8Array(64 * 2 ** 20));
    const [file] = await open(
      zipOf([{ name: 'x', packed: zeros, sizes: { unpacked: 100_000 }, crc: 1 }]),
      undefined,
      platform,
    );
    let given = 0;
    const reading = (async () => {
      for await (const chunk of file.open()) given += chunk.length;
    })();
    expect(await refusal(reading)).toMatchObject({ code: 'BAD_VOXELS' });
    expect(given).toBeLessThanOrEqual(100_000);
  });
});

describe('openZip()', () => {
  it('reads of a file no more than its beginning where its reader stops there', async () => {
    const bytes = zipOf([
      { name: 'x', data: noise },
      { name: 'y', data: noise, method: 0 },
    ]);
    let opened = 0;
    let closed = 0;
    let read = 0;
    const files = await openZip(
      {
        name: 'z.zip',
        sizeBytes: bytes.length,
        async *open(start = 0) {
          opened++;
          try {
            for (let at = start; at < bytes.length; at += 4096) {
              const piece = bytes.subarray(at, at + 4096);
              read += piece.length;
              yield piece;
            }
          } finally {
            closed++;
          }
        },
      },
      nodePlatform,
    );
    read = 0;
    for (const file of files) for await (const _ of file.open()) break;
    // Node's own stream unpacks ahead of its reader.
    await expect.poll(() => closed).toBe(opened);
    expect(read).toBeLessThan(2 * 2 ** 17);
  });

  it('reads two files concurrently', async () => {
    const files = await open(zipOf(Array.from({ length: 20 }, (_, i) => ({ name: `${i}`, data: ramp }))));
    const read = await Promise.all(files.map((file) => collectBytes(file.open())));
    for (const bytes of read) expect(Buffer.compare(bytes, ramp)).toBe(0);
  });

  it('uses names only as labels, and omits folders and system files', async () => {
    const files = await open(
      zipOf([
        { name: '../../etc/passwd', data: few },
        { name: '/abs/olute', data: few },
        { name: 'C:\\scans\\IM1', data: few },
        { name: 'same/IM1', data: few },
        { name: 'folder/', data: new Uint8Array(0) },
        { name: '__MACOSX/._IM1', data: few },
        { name: 'a/.DS_Store', data: few },
        { name: 'Thumbs.db', data: few },
        { name: 'a/..', data: few },
        { name: 'Größe ‮mp4', data: few },
      ]),
    );
    expect(files.map(({ name }) => name)).toEqual(['passwd', 'olute', 'IM1', 'IM1', '..', 'Größe ‮mp4']);
  });

  it('forgets names with those of an archive that was renamed', async () => {
    const bytes = zipOf([
      { name: 'Roe^Jane/1.dcm', data: few },
      { name: 'roe.mhd', data: few },
      { name: 'roe.raw', data: noise, method: 0 },
    ]);
    const damaged = bytes.with(bytes.length - 1000, bytes[bytes.length - 1000] ^ 1);
    const files = await openZip({ ...sourceFromBytes('volume', damaged), renamed: true }, nodePlatform);
    expect(files.map(({ name, renamed }) => [name, renamed])).toEqual([
      ['file-1', true],
      ['file-2.mhd', true],
      ['file-3.raw', true],
    ]);
    expect((await refusal(collectBytes(files[2].open()))).message).toMatch(/^File 3 of the zip archive/);
  });

  it('refuses an archive of folders alone, or of nothing', async () => {
    for (const bytes of [zipOf([]), zipOf([{ name: 'folder/', data: new Uint8Array(0) }])])
      expect(await refusal(open(bytes))).toMatchObject({ code: 'BAD_INPUT', message: /holds no files/ });
  });

  it.each<[string, Parameters<typeof zipOf>[0][number], RegExp]>([
    [
      'encrypted',
      { name: 'x', data: few, flags: 0x801 },
      /File 2 of the zip.*encrypted. Pack the files again without/,
    ],
    ['a link', { name: 'x', data: few, mode: 0o120777 }, /link or a device/],
    ['a device', { name: 'x', data: few, mode: 0o060666 }, /link or a device/],
    [
      'an archive in it',
      { name: 'a/inner.ZIP', data: few },
      /File 2 of the zip archive is an archive itself/,
    ],
    ['bzip2', { name: 'x', data: few, method: 12, packed: few }, /method 12/],
    ['deflate64', { name: 'x', data: few, method: 9, packed: few }, /method 9/],
  ])('refuses %s by name', async (_, entry, message) => {
    const refused = await refusal(open(zipOf([{ name: 'good', data: ramp }, entry])));
    expect(refused.code).toBe('UNSUPPORTED_FORMAT');
    expect(refused.message).toMatch(message);
  });

  it('refuses split archives, truncated ones, and those with a broken directory', async () => {
    const good = zipOf([
      { name: 'x', data: few },
      { name: 'y', data: few, method: 0 },
    ]);
    expect(await refusal(open(zipOf([{ name: 'x', data: few }], { disk: 1 })))).toMatchObject({
      code: 'UNSUPPORTED_FORMAT',
      message: expect.stringMatching(/one part of a zip archive that was split/),
    });
    for (let length = 0; length < good.length; length++) await refusal(readAll(good.subarray(0, length)));
    for (let at = 0; at < good.length; at++) {
      // A changed byte is found, or is one of those that say nothing (times, versions).
      for (const bit of [1, 128]) {
        await readAll(good.with(at, good[at] ^ bit)).catch((error: unknown) => {
          expect(error).toMatchObject({ name: 'TomaatError' });
        });
      }
    }
    expect(await refusal(open(zipOf([{ name: 'x', data: few }], { count: 3 })))).toMatchObject({
      code: 'BAD_HEADER',
      message: expect.stringMatching(/^The directory of the zip archive is damaged/),
    });
    // What the end says of the directory's place may be wrong: it lies before the end.
    for (const end of [{ directoryOffset: 1e9 }, { directoryBytes: 2e9 }])
      await expect(readAll(zipOf([{ name: 'x', data: few }], end))).resolves.toBeUndefined();
  });
});

describe('openZip() refuses bombs before it unpacks a byte', () => {
  const kernel = deflateRawSync(new Uint8Array(20 * 2 ** 20));
  const zeroCrc = 0;

  it('entries that all share one piece of data', async () => {
    const entry = { packed: kernel, sizes: { unpacked: 20 * 2 ** 20 }, crc: zeroCrc };
    const bytes = zipOf([
      { name: '0', ...entry },
      ...Array.from({ length: 300 }, (_, i) => ({
        name: `${i + 1}`,
        ...entry,
        offset: 0,
        inDirectoryAlone: true,
      })),
    ]);
    expect(bytes.length).toBeLessThan(50_000);
    const { code, message } = await refusal(open(bytes));
    expect(code).toBe('BAD_HEADER');
    expect(message).toMatch(/File \d+ of the zip archive lies within another of its files/);
  });

  it('entries whose headers lie in the data of the one before', async () => {
    // Each entry begins with a stored block of deflate that holds the header of the next one.
    const inner = zipOf([{ name: 'b', packed: kernel, sizes: { unpacked: 20 * 2 ** 20 } }]);
    const quoted = inner.subarray(0, 31);
    const block = Uint8Array.of(0, quoted.length, 0, 255 - quoted.length, 255);
    const packed = joined([block, quoted, kernel]);
    const bytes = zipOf([
      { name: 'a', packed, sizes: { unpacked: quoted.length + 20 * 2 ** 20 } },
      {
        name: 'b',
        packed: kernel,
        sizes: { unpacked: 20 * 2 ** 20 },
        offset: 31 + block.length,
        inDirectoryAlone: true,
      },
    ]);
    expect(await refusal(open(bytes))).toMatchObject({ code: 'BAD_HEADER' });
  });

  it('entries that reach beyond the archive', async () => {
    const packed = 20 * 2 ** 20;
    const bytes = zipOf([{ name: 'x', packed: kernel, sizes: { packed, unpacked: 2 ** 30 } }]);
    const { code, message } = await refusal(open(bytes));
    expect(code).toBe('BAD_HEADER');
    expect(message).toMatch(/^File 1 of the zip archive ends behind the archive/);
  });

  it('a quine, which holds itself: the archive in it is refused by its name', async () => {
    const bytes = zipOf([{ name: 'r/r.zip', data: zipOf([{ name: 'r.zip', data: few }]) }]);
    expect(await refusal(open(bytes))).toMatchObject({ code: 'UNSUPPORTED_FORMAT' });
  });

  it('more bytes than deflate can hold, and lengths of stored files that differ', async () => {
    for (const entry of [
      { name: 'x', data: few, sizes: { unpacked: 1e9 } },
      { name: 'x', data: few, method: 0, sizes: { unpacked: 1e9 } },
      { name: 'x', data: few, method: 0, sizes: { unpacked: 4 } },
      { name: 'x', data: few, zip64: true, sizes: { unpacked: 2 ** 50 } },
    ])
      expect(await refusal(open(zipOf([entry])))).toMatchObject({
        code: 'BAD_HEADER',
        message: expect.stringMatching(/cannot have \d+ bytes/),
      });
  });

  it('more in all than the largest volume takes, or than images ever pack to', async () => {
    const entry = { packed: kernel, sizes: { unpacked: 20 * 2 ** 20 } };
    const of = (count: number) =>
      zipOf(Array.from({ length: count }, (_, i) => ({ name: `${i}`, ...entry, crc: zeroCrc })));
    const small = { maxVoxels: 2 ** 20 };
    await expect(open(of(3), small)).resolves.toHaveLength(3);
    const { code, message } = await refusal(open(of(4), small));
    expect(code).toBe('UPLOAD_TOO_LARGE');
    expect(message).toMatch(/unpacks to 83886080 bytes, more than the 75497472 that are accepted/);
    await expect(open(of(51))).resolves.toHaveLength(51);
    expect(await refusal(open(of(52)))).toMatchObject({
      code: 'UPLOAD_TOO_LARGE',
      message: expect.stringMatching(/times its length/),
    });
  });

  it(`more than ${maxZipEntries} entries, and a directory of endless names`, async () => {
    const tiny = { data: new Uint8Array(0), method: 0 };
    const many = zipOf(Array.from({ length: maxZipEntries + 1 }, (_, i) => ({ name: `${i}`, ...tiny })));
    expect(await refusal(open(many))).toMatchObject({
      code: 'BAD_INPUT',
      message: /more than 20000 entries/,
    });
    const name = 'n'.repeat(65_000);
    const long = zipOf(Array.from({ length: 300 }, () => ({ name, ...tiny })));
    expect(await refusal(open(long))).toMatchObject({
      code: 'BAD_HEADER',
      message: expect.stringMatching(/directory of \d+ bytes/),
    });
  });
});

describe('isZip()', () => {
  it('knows an archive, an empty one, and one part of several', () => {
    for (const start of ['PK\x03\x04', 'PK\x05\x06', 'PK\x07\x08'])
      expect(isZip(new TextEncoder().encode(start))).toBe(true);
    for (const start of ['PK\x01\x02', 'PK', '', 'DICM', '\x1f\x8b'])
      expect(isZip(new TextEncoder().encode(start))).toBe(false);
  });
});
