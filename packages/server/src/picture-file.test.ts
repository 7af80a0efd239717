import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readPicture } from './picture-file.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-picture-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

type Part = string | readonly number[];

async function read(parts: readonly Part[]) {
  const bytes = Buffer.concat(
    parts.map((part) => (typeof part === 'string' ? Buffer.from(part, 'latin1') : Buffer.from(part))),
  );
  const file = join(folder, 'picture');
  await writeFile(file, bytes);
  return readPicture(file, 'picture.png');
}

const png = (width: number[], height: number[]): Part[] => [
  '\x89PNG\r\n\x1a\n',
  [0, 0, 0, 13],
  'IHDR',
  width,
  height,
  [8, 2, 0, 0, 0],
];
const riff = ['RIFF', [0, 0, 0, 0], 'WEBP'] as const;
const filler = Array.from({ length: 20 }, () => 0);

describe('readPicture()', () => {
  it.each<[string, readonly Part[], number, number]>([
    ['image/png', [...png([0, 0, 2, 128], [0, 0, 1, 64])], 640, 320],
    // An application segment, a table of Huffman codes, fill bytes, then a progressive frame.
    [
      'image/jpeg',
      [
        [0xff, 0xd8, 0xff, 0xe0, 0, 4, 1, 2, 0xff, 0xc4, 0, 3, 9],
        [0xff, 0xff, 0xff, 0xc2, 0, 17, 8, 1, 64, 2, 128, 3],
      ],
      640,
      320,
    ],
    // The scale is in the two highest bits.
    [
      'image/webp',
      [...riff, 'VP8 ', filler.slice(0, 7), [0x9d, 0x01, 0x2a, 0x80, 0x42, 0x40, 0x81]],
      640,
      320,
    ],
    // 639 and 319 in 14 bits each: 639 | 319 << 14.
    ['image/webp', [...riff, 'VP8L', filler.slice(0, 4), [0x2f, 0x7f, 0xc2, 0x4f, 0], filler], 640, 320],
    ['image/webp', [...riff, 'VP8X', filler.slice(0, 8), [0x7f, 2, 0, 0x3f, 1, 0], filler], 640, 320],
  ])('reads %s', async (mediaType, parts, width, height) => {
    expect(await read(parts)).toMatchObject({ mediaType, width, height });
  });

  it.each<[string, readonly Part[]]>([
    ['is no PNG, JPEG or WebP image. Store it as one of these.', ['GIF89a', filler]],
    [
      'is no PNG, JPEG or WebP image. Store it as one of these.',
      ['<svg xmlns="http://www.w3.org/2000/svg"/>'],
    ],
    ['is no PNG, JPEG or WebP image. Store it as one of these.', []],
    // A JPEG whose segments never end in a frame, and one that is cut.
    [
      'is no PNG, JPEG or WebP image. Store it as one of these.',
      [[0xff, 0xd8], Array.from({ length: 100_000 }, () => 0xff)],
    ],
    [
      'is no PNG, JPEG or WebP image. Store it as one of these.',
      [[0xff, 0xd8, 0xff, 0xe0, 0xff, 0xff], filler],
    ],
    ['has 1025 × 320 pixels. Scale it to at most 1024 × 1024.', [...png([0, 0, 4, 1], [0, 0, 1, 64])]],
    ['has 640 × 0 pixels. Scale it to at most 1024 × 1024.', [...png([0, 0, 2, 128], [0, 0, 0, 0])]],
    [
      'has more than 200 kB. Make it smaller, or store it as WebP.',
      [...png([0, 0, 2, 128], [0, 0, 1, 64]), Array.from({ length: 200_000 }, () => 1)],
    ],
  ])('refuses one that %s', async (fault, parts) => {
    await expect(read(parts)).rejects.toMatchObject({
      code: 'BAD_MANIFEST',
      message: `The picture picture.png ${fault}`,
      field: 'picture',
    });
  });
});
