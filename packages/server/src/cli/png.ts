import { crc32, deflateSync } from 'node:zlib';
import type { Picture } from '@tomaat/core';

/** A picture as a PNG file (https://www.w3.org/TR/png-3/): with a palette if it has at most 256 colours, otherwise 8 bits of each. */
export function encodePng(picture: Picture): Buffer {
  const { width, height } = picture;
  const palette = paletteOf(picture);
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  // Bit depth 8, colour type 3 (palette) or 2 (RGB), then the only compression and filter method, not interlaced.
  header.set([8, palette ? 3 : 2, 0, 0, 0], 8);
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return Buffer.concat([
    signature,
    chunk('IHDR', header),
    ...(palette ? [chunk('PLTE', Buffer.from(palette.colors))] : []),
    chunk('IDAT', deflateSync(palette ? palette.rows : colorRows(picture))),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}

/** The colours of a picture, and rows of their numbers; undefined if there are too many. */
function paletteOf({ width, height, rgb }: Picture): { colors: number[]; rows: Buffer } | undefined {
  const numbers = new Map<number, number>();
  const colors: number[] = [];
  // Each row begins with the number of its filter: 0, none.
  const rows = Buffer.alloc(height * (width + 1));
  for (let y = 0, i = 0; y < height; y++)
    for (let x = 0; x < width; x++, i += 3) {
      const color = (rgb[i] << 16) | (rgb[i + 1] << 8) | rgb[i + 2];
      let number = numbers.get(color);
      if (number === undefined) {
        number = numbers.size;
        if (number === 256) return undefined;
        numbers.set(color, number);
        colors.push(rgb[i], rgb[i + 1], rgb[i + 2]);
      }
      rows[y * (width + 1) + 1 + x] = number;
    }
  return { colors, rows };
}

/** Each row follows the number of its filter: 1, each byte less the one of the pixel to its left. */
function colorRows({ width, height, rgb }: Picture): Buffer {
  const rowBytes = 3 * width;
  const rows = Buffer.alloc(height * (rowBytes + 1));
  for (let y = 0; y < height; y++) {
    const at = y * (rowBytes + 1);
    rows[at] = 1;
    for (let i = 0; i < rowBytes; i++) {
      const value = rgb[y * rowBytes + i];
      rows[at + 1 + i] = i < 3 ? value : value - rgb[y * rowBytes + i - 3];
    }
  }
  return rows;
}

/** Length, name, data, and the CRC-32 of name and data. */
function chunk(name: string, data: Buffer): Buffer {
  const named = Buffer.concat([Buffer.from(name, 'latin1'), data]);
  const ends = Buffer.alloc(8);
  ends.writeUInt32BE(data.length, 0);
  ends.writeUInt32BE(crc32(named), 4);
  return Buffer.concat([ends.subarray(0, 4), named, ends.subarray(4)]);
}
