/**
 * Zip archives: the accepted size is bounded, and every accepted archive is either read in full or refused with a
 * clear error.
 */
import { openZip, type Platform, type SourceFile, sourceFromBytes } from '@tomaat/core';
import { zipOf } from '../../packages/core/test/zip-files.ts';
import { must, type Target } from '../target.ts';

const limits = { maxVoxels: 2 ** 12 };
/** As documented for openZip(): 8 bytes for each voxel, 64 MiB of headers. */
const mostBytes = 8 * limits.maxVoxels + 64 * 2 ** 20;
const text = (value: string) => new TextEncoder().encode(value);
const files = [
  { name: 'a/IM1', data: text('the first file of a few, of a few, of a few') },
  { name: 'b.mhd', data: text('ElementDataFile = b.raw\n'), method: 0 },
  { name: '../b.raw', data: Uint8Array.from({ length: 90 }, (_, i) => i & 7), descriptor: true },
];

async function lengthOf(file: SourceFile, start = 0): Promise<number> {
  let bytes = 0;
  for await (const chunk of file.open(start)) bytes += chunk.length;
  return bytes;
}

export const zipTarget = (platformFor: (input: Uint8Array) => Platform): Target => ({
  description: 'A zip archive, and the files in it',
  seeds: async () => [
    zipOf(files),
    zipOf([files[0]]),
    zipOf([{ ...files[0], zip64: true }, { name: '__MACOSX/._x', data: text('x') }, files[1]]),
    zipOf([{ ...files[1], extra: Uint8Array.of(9, 9, 2, 0, 1, 1) }], { comment: text('a comment') }),
  ],
  words: [
    'PK\x03\x04',
    'PK\x01\x02',
    'PK\x05\x06',
    'PK\x06\x06',
    'PK\x06\x07',
    'PK\x07\x08',
    '\xff\xff\xff\xff',
    '\x01\0\x18\0',
    '/',
    '.zip',
  ],
  maxBytes: 1024,
  async run(input) {
    const found = await openZip(sourceFromBytes('a.zip', input), platformFor(input), limits);
    must(found.length > 0, 'there is a file in it');
    const stated = found.reduce((sum, { sizeBytes = 0 }) => sum + sizeBytes, 0);
    must(stated <= Math.min(mostBytes, 1032 * input.length), 'no more bytes than it can hold');
    for (const file of found) {
      must(!/[/\\]/.test(file.name), 'names are not paths');
      must((await lengthOf(file)) === file.sizeBytes, 'as many bytes as it states');
      const start = Math.min(3, file.sizeBytes!);
      must((await lengthOf(file, start)) === file.sizeBytes! - start, 'the rest from a byte on');
    }
  },
});
