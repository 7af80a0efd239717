import { crc32, deflateSync } from 'node:zlib';
import type { Picture } from '@tomaat/core';

/** A picture as a PNG file: 8 bits of red, green and blue (https://www.w3.org/TR/png-3/). */
export function encodePng({ width, height, rgb }: Picture): Buffer {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  // Bit depth 8, colour type 2 (RGB), then the only compression and filter method, not interlaced.
  header.set([8, 2, 0, 0, 0], 8);
  const rowBytes = 3 * width;
  // Each row follows the number of its filter: 1, each byte less the one of the pixel to its left.
  const rows = Buffer.alloc(height * (rowBytes + 1));
  for (let y = 0; y < height; y++) {
    const at = y * (rowBytes + 1);
    rows[at] = 1;
    for (let i = 0; i < rowBytes; i++) {
      const value = rgb[y * rowBytes + i];
      rows[at + 1 + i] = i < 3 ? value : value - rgb[y * rowBytes + i - 3];
    }
  }
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return Buffer.concat([
    signature,
    chunk('IHDR', header),
    chunk('IDAT', deflateSync(rows)),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}

/** Length, name, data, and the CRC-32 of name and data. */
function chunk(name: string, data: Buffer): Buffer {
  const named = Buffer.concat([Buffer.from(name, 'latin1'), data]);
  const ends = Buffer.alloc(8);
  ends.writeUInt32BE(data.length, 0);
  ends.writeUInt32BE(crc32(named), 4);
  return Buffer.concat([ends.subarray(0, 4), named, ends.subarray(4)]);
}
