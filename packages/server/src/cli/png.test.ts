import { crc32, inflateSync } from 'node:zlib';
import { expect, it } from 'vitest';
import { encodePng } from './png.ts';

/** The chunks by name, their checksums compared. */
function chunksOf(png: Buffer): Map<string, Buffer> {
  expect(png.subarray(0, 8).toString('latin1')).toBe('\x89PNG\r\n\x1a\n');
  const chunks = new Map<string, Buffer>();
  for (let at = 8; at < png.length; ) {
    const length = png.readUInt32BE(at);
    const named = png.subarray(at + 4, at + 8 + length);
    expect(png.readUInt32BE(at + 8 + length)).toBe(crc32(named));
    chunks.set(named.toString('latin1', 0, 4), named.subarray(4));
    at += 12 + length;
  }
  return chunks;
}

it('encodePng() gives rows that undo to the same pixels of many colours', () => {
  const [width, height] = [20, 15];
  const rgb = Uint8Array.from({ length: 900 }, (_, i) => [i / 3, i / 768, i * 7][i % 3]);
  const chunks = chunksOf(encodePng({ width, height, rgb }));
  expect([...chunks.keys()]).toEqual(['IHDR', 'IDAT', 'IEND']);
  expect([...chunks.get('IHDR')!]).toEqual([0, 0, 0, 20, 0, 0, 0, 15, 8, 2, 0, 0, 0]);
  const rows = inflateSync(chunks.get('IDAT')!);
  const pixels: number[] = [];
  for (let y = 0; y < height; y++) {
    expect(rows[61 * y]).toBe(1);
    for (let i = 0; i < 60; i++) {
      const left = i < 3 ? 0 : pixels[60 * y + i - 3];
      pixels.push((rows[61 * y + 1 + i] + left) & 255);
    }
  }
  expect(pixels).toEqual([...rgb]);
});

it('encodePng() gives a picture of few colours a palette', () => {
  const colors = [
    [0, 0, 0],
    [255, 128, 7],
    [9, 9, 9],
  ];
  const order = [0, 1, 2, 2, 1, 0, 1, 1];
  const rgb = Uint8Array.from(order.flatMap((i) => colors[i]));
  const chunks = chunksOf(encodePng({ width: 4, height: 2, rgb }));
  expect([...chunks.keys()]).toEqual(['IHDR', 'PLTE', 'IDAT', 'IEND']);
  expect([...chunks.get('IHDR')!].slice(8)).toEqual([8, 3, 0, 0, 0]);
  const palette = chunks.get('PLTE')!;
  const rows = inflateSync(chunks.get('IDAT')!);
  const pixels = [0, 1].flatMap((y) => {
    expect(rows[5 * y]).toBe(0);
    return [...rows.subarray(5 * y + 1, 5 * y + 5)].flatMap((i) => [...palette.subarray(3 * i, 3 * i + 3)]);
  });
  expect(pixels).toEqual([...rgb]);
});
