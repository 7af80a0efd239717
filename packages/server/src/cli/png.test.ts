import { crc32, inflateSync } from 'node:zlib';
import { expect, it } from 'vitest';
import { encodePng } from './png.ts';

it('encodePng() gives chunks whose rows undo to the same pixels', () => {
  const [width, height] = [5, 3];
  const rgb = Uint8Array.from({ length: 45 }, (_, i) => (i * 97 + 13) % 256);
  const png = encodePng({ width, height, rgb });
  expect(png.subarray(0, 8).toString('latin1')).toBe('\x89PNG\r\n\x1a\n');
  const chunks = new Map<string, Buffer>();
  for (let at = 8; at < png.length; ) {
    const length = png.readUInt32BE(at);
    const named = png.subarray(at + 4, at + 8 + length);
    expect(png.readUInt32BE(at + 8 + length)).toBe(crc32(named));
    chunks.set(named.toString('latin1', 0, 4), named.subarray(4));
    at += 12 + length;
  }
  expect([...chunks.keys()]).toEqual(['IHDR', 'IDAT', 'IEND']);
  expect([...chunks.get('IHDR')!]).toEqual([0, 0, 0, 5, 0, 0, 0, 3, 8, 2, 0, 0, 0]);
  const rows = inflateSync(chunks.get('IDAT')!);
  const pixels: number[] = [];
  for (let y = 0; y < height; y++) {
    expect(rows[16 * y]).toBe(1);
    for (let i = 0; i < 15; i++) {
      const left = i < 3 ? 0 : pixels[15 * y + i - 3];
      pixels.push((rows[16 * y + 1 + i] + left) & 255);
    }
  }
  expect(pixels).toEqual([...rgb]);
});
