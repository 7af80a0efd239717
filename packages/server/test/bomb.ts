import { constants, deflateRawSync } from 'node:zlib';

const pieceBytes = 2 ** 24;

/**
 * Deflate data of `bytes` zeros after `head`, a thousandth of that long, made in no time: flushed pieces can be
 * repeated. Its checksum is left out or wrong, as no one may get that far.
 */
export function deflateBomb(head: Uint8Array, bytes: number, wrapper: 'gzip' | 'zlib'): Uint8Array {
  const options = { finishFlush: constants.Z_FULL_FLUSH, level: 9 };
  const zeros = deflateRawSync(new Uint8Array(pieceBytes), options);
  const start =
    wrapper === 'gzip' ? Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]) : Buffer.from([0x78, 0x9c]);
  const pieces = Array.from({ length: Math.ceil(bytes / pieceBytes) }, () => zeros);
  return Buffer.concat([
    start,
    deflateRawSync(head, options),
    ...pieces,
    deflateRawSync(new Uint8Array(0)),
    Buffer.alloc(8),
  ]);
}
