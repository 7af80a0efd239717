/** Readers of gzip. */
import { gunzipSync, gzipSync } from 'node:zlib';
import { collectBytes, TomaatError, webPlatform } from '@tomaat/core';
import { inflatePrefix } from '../../packages/core/src/formats/inflate-prefix.ts';
import { nodePlatform } from '../../packages/server/src/node-platform.ts';
import { equal, inPieces, must, type Target } from '../target.ts';
import { copied, smallFile } from './inputs.ts';

export const gzipTargets = {
  inflate: {
    description: 'The first bytes of a gzip member',
    async seeds() {
      const text = Buffer.from('hello hello hello, world of volumes '.repeat(20));
      return [
        ...[1, 9].map((level) => new Uint8Array(gzipSync(text, { level }))),
        new Uint8Array(gzipSync(await smallFile('nii'))),
        new Uint8Array(gzipSync(text, { level: 0 })),
        new Uint8Array(
          Buffer.concat([
            Buffer.from('\x1f\x8b\x08\x1c\0\0\0\0\0\x03\x03\0abcname\0comment\0', 'latin1'),
            gzipSync(text).subarray(10),
          ]),
        ),
      ];
    },
    words: ['\x1f\x8b\x08', '\x00', '\xff', '\x04', '\x08'],
    maxBytes: 4096,
    run(input) {
      const out = inflatePrefix(input, 4096);
      must(out.length <= 4096, 'no more bytes than were asked for');
      let whole: Buffer;
      try {
        whole = gunzipSync(input, { maxOutputLength: 1 << 16 });
      } catch {
        throw new TomaatError('BAD_VOXELS', 'no gzip');
      }
      // Node's zlib stops at zeros; the prefix reader continues to a member after them.
      must(equal(out.subarray(0, whole.length), whole.subarray(0, out.length)), 'zlib unpacks the same');
    },
  },
  members: {
    description: 'gzip members in a row, by every inflater',
    async seeds() {
      const text = Buffer.from('hello hello hello, world of volumes '.repeat(20));
      const [one, two] = [gzipSync(text.subarray(0, 300)), gzipSync(text.subarray(300))];
      const adorned = Buffer.from('\x1f\x8b\x08\x1c\0\0\0\0\0\x03\x03\0abcname\0comment\0', 'latin1');
      return [
        new Uint8Array(Buffer.concat([one, two])),
        new Uint8Array(Buffer.concat([gzipSync(''), one, Buffer.alloc(40), two, Buffer.alloc(40)])),
        new Uint8Array(Buffer.concat([adorned, one.subarray(10), Buffer.from('\r\n')])),
        new Uint8Array(gzipSync(text, { level: 0 })),
      ];
    },
    words: ['\x1f\x8b\x08\0\0\0\0\0\0\x03', '\x1f\x8b', '\0\0\0\0', '\xff', '\x1c', '\x02'],
    maxBytes: 2048,
    async run(input) {
      const source = {
        async *[Symbol.asyncIterator]() {
          yield* inPieces(input, input.length);
        },
      };
      const outcomes = await Promise.all(
        [
          nodePlatform.inflate(source, 'gzip'),
          nodePlatform.inflate(inPieces(input, 7), 'gzip'),
          webPlatform.inflate(inPieces(input, 3), 'gzip'),
        ].map((unpacked) => collectBytes(copied(unpacked)).catch((error: unknown) => error as Error)),
      );
      const [first, ...others] = outcomes;
      for (const other of others) {
        must(first instanceof Error === other instanceof Error, 'all take it or none');
        must(first instanceof Error || equal(first, other as Uint8Array), 'all unpack the same');
      }
      if (first instanceof Error) throw new TomaatError('BAD_VOXELS', 'no gzip');
    },
  },
} satisfies Record<string, Target>;
