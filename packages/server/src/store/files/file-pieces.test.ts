import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { temporaryFolder } from '../../../test/test-server.ts';
import { filePieces, type PieceOptions } from './file-pieces.ts';

const bytes = Uint8Array.from({ length: 200_000 }, (_, i) => (i * 31) ^ (i >> 8));
let folder: string;
let path: string;
beforeAll(async () => {
  folder = await temporaryFolder();
  path = join(folder, 'file');
  await writeFile(path, bytes);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function read(options?: PieceOptions, sizeBytes = bytes.length) {
  const pieces: Uint8Array[] = [];
  for await (const piece of filePieces(path, sizeBytes, options)) pieces.push(piece);
  return pieces;
}

describe('filePieces()', () => {
  it('gives the bytes from any of them on, after a short first piece', async () => {
    for (const start of [0, 1, 69_632, 199_999, 200_000, 300_000]) {
      const pieces = await read({ start, pieceBytes: 50_000 });
      expect(Buffer.compare(Buffer.concat(pieces), bytes.subarray(start)), String(start)).toBe(0);
      expect(Math.max(0, ...pieces.map(({ length }) => length))).toBeLessThanOrEqual(69_632);
    }
    expect((await read()).map(({ length }) => length)).toEqual([69_632, 130_368]);
  });

  it('fills the given room first, then memory of its own', async () => {
    for (const roomBytes of [0, 1, 60_000, 150_000, 200_000, 250_000]) {
      const room = new Uint8Array(roomBytes + 10).subarray(5, roomBytes + 5);
      const pieces = await read({ room, pieceBytes: 40_000 });
      expect(Buffer.compare(Buffer.concat(pieces), bytes), String(roomBytes)).toBe(0);
      const inRoom = pieces.filter(({ buffer }) => buffer === room.buffer);
      expect(inRoom.reduce((sum, { length }) => sum + length, 0)).toBe(Math.min(roomBytes, 200_000));
      let at = 5;
      for (const { byteOffset, length } of inRoom) {
        expect(byteOffset).toBe(at);
        at += length;
      }
      expect(new Uint8Array(room.buffer)[at]).toBe(0);
    }
  });

  it('ends where a file ends that is shorter than stated', async () => {
    const pieces = await read({ start: 199_990 }, 300_000);
    expect(Buffer.concat(pieces)).toEqual(Buffer.from(bytes.subarray(199_990)));
  });

  it('fails for a file that is not there', async () => {
    await expect(filePieces(join(folder, 'missing'), 5).next()).rejects.toMatchObject({ code: 'ENOENT' });
  });
});
