import fc from 'fast-check';
import { expect, it } from 'vitest';
import { decodeBase64, isRawVolume } from './base64.ts';

async function* chunksOf(bytes: Uint8Array, sizes: readonly number[]): AsyncGenerator<Uint8Array> {
  for (let from = 0, turn = 0; from < bytes.length; turn++) {
    const size = sizes[turn % sizes.length];
    yield bytes.subarray(from, from + size);
    from += size;
  }
}

async function decode(
  text: string,
  sizes: readonly number[] = [65_536],
  spaceIsPlus = false,
): Promise<Buffer> {
  const pieces: Buffer[] = [];
  const source = chunksOf(Buffer.from(text, 'latin1'), sizes);
  for await (const piece of decodeBase64(source, { spaceIsPlus })) pieces.push(Buffer.from(piece));
  return Buffer.concat(pieces);
}

const noise = (length: number) =>
  Buffer.from(Array.from({ length }, (_, i) => (Math.imul(i + 1, 2654435761) >>> 13) & 255));
const wrap = (text: string, columns: number, lineBreak: string) =>
  columns > 0 ? text.replace(new RegExp(`.{1,${columns}}`, 'g'), `$&${lineBreak}`) : text;

it('decodeBase64() equals Buffer.from for every chunking, line length and line break', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.nat(6000),
      fc.constantFrom(0, 4, 60, 64, 75, 76, 77),
      fc.constantFrom('\n', '\r\n'),
      fc.array(fc.integer({ min: 1, max: 700 }), { minLength: 1, maxLength: 5 }),
      async (length, columns, lineBreak, sizes) => {
        const bytes = noise(length);
        const text = wrap(bytes.toString('base64'), columns, lineBreak);
        expect((await decode(text, sizes)).equals(bytes)).toBe(true);
      },
    ),
    { numRuns: 300 },
  );
});

it('decodeBase64() equals Buffer.from for line breaks at any places', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.nat(2000),
      fc.array(fc.tuple(fc.nat(3000), fc.constantFrom('\n', '\r\n', '\r', '\n\n')), { maxLength: 60 }),
      fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1, maxLength: 4 }),
      async (length, breaks, sizes) => {
        const bytes = noise(length);
        let text = bytes.toString('base64');
        for (const [at, lineBreak] of breaks) text = text.slice(0, at) + lineBreak + text.slice(at);
        expect((await decode(text, sizes)).equals(bytes)).toBe(true);
      },
    ),
    { numRuns: 200 },
  );
});

it('decodeBase64() decodes large values in the chunks of a socket', async () => {
  const bytes = noise(700_001);
  for (const lineBreak of ['\n', '\r\n']) {
    const text = wrap(bytes.toString('base64'), 76, lineBreak);
    for (const sizes of [[65_536], [65_535, 1], [65_459, 77], [200_000], [1448]]) {
      expect((await decode(text, sizes)).equals(bytes)).toBe(true);
    }
  }
  expect((await decode(bytes.toString('base64'))).equals(bytes)).toBe(true);
});

it('decodeBase64() names the offset of every character that does not belong', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 3000 }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      fc.constantFrom('-', '_', ' ', '\t', '!', '\0', '\xe9'),
      fc.array(fc.integer({ min: 1, max: 500 }), { minLength: 1, maxLength: 3 }),
      async (length, where, wrong, sizes) => {
        const text = wrap(noise(length * 3).toString('base64'), 76, '\n');
        const at = Math.floor(where * (text.length - 2));
        const error = await decode(text.slice(0, at) + wrong + text.slice(at + 1), sizes).catch(
          (caught) => caught,
        );
        expect(error).toMatchObject({ code: 'BAD_REQUEST' });
        expect(error.detail).toEqual({ offset: at });
      },
    ),
    { numRuns: 300 },
  );
});

it('decodeBase64() is strict about padding and the end', async () => {
  for (const [text, bytes] of [
    ['', ''],
    ['\r\n', ''],
    ['QQ==', 'A'],
    ['QUI=\n', 'AB'],
    ['Q\nQ=\n=\n\n', 'A'],
    ['QUJD', 'ABC'],
  ]) {
    for (const size of [1, 2, 100]) expect((await decode(text, [size])).toString('latin1')).toBe(bytes);
  }
  const line = 'QUJD'.repeat(25);
  for (const tail of [
    'Q',
    'QQ',
    'QUI',
    'QQ=',
    '=',
    'Q=',
    'Q===',
    'QQ===',
    'QUI==',
    'QQ==QUJD',
    'QQ==\nQQ==',
    'QUJD=',
    'QQ=Q',
    'QQ=\n',
  ]) {
    for (const size of [1, 3, 1000]) {
      await expect(decode(line + tail, [size]), tail).rejects.toMatchObject({ code: 'BAD_REQUEST' });
    }
  }
  await expect(decode(`${line}QU`)).rejects.toThrow(/ends at offset 102 .*cut off/);
  await expect(decode(`${line}-UJD`)).rejects.toThrow(/'-'.*base64url.*offset 100/);
});

it('decodeBase64() with spaceIsPlus takes a space for a plus', async () => {
  const bytes = Buffer.alloc(3000, 0xfb);
  const text = wrap(bytes.toString('base64'), 76, '\n');
  expect(text).toContain('+');
  const mangled = text.replaceAll('+', ' ');
  expect((await decode(mangled, [333], true)).equals(bytes)).toBe(true);
  await expect(decode(mangled, [333])).rejects.toThrow(/a space.*offset/);
});

it('isRawVolume() distinguishes files from their base64', () => {
  const header = (size: number, bigEndian: boolean) => {
    const bytes = Buffer.alloc(348);
    if (bigEndian) bytes.writeInt32BE(size);
    else bytes.writeInt32LE(size);
    return bytes;
  };
  const files = [
    Buffer.from('ObjectType = Image\nNDims = 3\n'),
    Buffer.from('NDims = 3\r\n'),
    Buffer.from('Comment =made by hand\nObjectType = Image\n'),
    Buffer.from('ObjectType=Image\n'),
    Buffer.from('NRRD0004\n# x\n'),
    Buffer.from([0x1f, 0x8b, 8, 0]),
    header(348, false),
    header(348, true),
    header(540, false),
    header(540, true),
  ];
  for (const file of files) {
    expect(isRawVolume(file), file.toString('latin1', 0, 20)).toBe(true);
    expect(isRawVolume(Buffer.from(file.toString('base64')))).toBe(false);
    expect(isRawVolume(Buffer.from(wrap(file.toString('base64'), 4, '\r\n')))).toBe(false);
  }
  expect(isRawVolume(new Uint8Array(0))).toBe(false);
});
