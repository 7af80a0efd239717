import { describe, expect, it } from 'vitest';
import { createFrameDecoder } from './wasm-codecs.ts';

const shape = {
  rows: 1,
  columns: 2,
  samplesPerPixel: 1,
  bitsAllocated: 16,
  bitsStored: 12,
  isSigned: false,
} as const;

describe('createFrameDecoder()', () => {
  // Transfer syntaxes by PS3.6 A, and what the packages call their classes.
  it.each([
    ['1.2.840.10008.1.2.4.50', 'libjpeg-turbo-8bit', 'JPEGDecoder'],
    ['1.2.840.10008.1.2.4.80', 'charls', 'JpegLSDecoder'],
    ['1.2.840.10008.1.2.4.81', 'charls', 'JpegLSDecoder'],
    ['1.2.840.10008.1.2.4.90', 'openjpeg', 'J2KDecoder'],
    ['1.2.840.10008.1.2.4.91', 'openjpeg', 'J2KDecoder'],
    ['1.2.840.10008.1.2.4.201', 'openjph', 'HTJ2KDecoder'],
    ['1.2.840.10008.1.2.4.202', 'openjph', 'HTJ2KDecoder'],
    ['1.2.840.10008.1.2.4.203', 'openjph', 'HTJ2KDecoder'],
  ])('decodes %s by %s, which is loaded once, to the given memory', async (syntax, codec, name) => {
    const loaded: string[] = [];
    let deleted = 0;
    // Its memory is written to, and its samples are gone after delete().
    class Decoder {
      readonly memory = new Uint8Array(8);
      getEncodedBuffer = (length: number) => this.memory.subarray(0, length);
      decode = () => void this.memory.copyWithin(4, 0, 4);
      getFrameInfo = () => ({ width: 2, height: 1, bitsPerSample: 12, componentCount: 1 });
      getDecodedBuffer = () => this.memory.subarray(4);
      delete = () => {
        deleted++;
        this.memory.fill(0);
      };
    }
    const decode = createFrameDecoder(async (which) => {
      loaded.push(which);
      return { [name]: Decoder };
    });
    const room = new Uint8Array(6);
    const first = await decode(syntax, Uint8Array.of(1, 2, 3, 4), shape, (length) =>
      room.subarray(0, length),
    );
    expect(first.bytes.buffer).toBe(room.buffer);
    expect([...room]).toEqual([1, 2, 3, 4, 0, 0]);
    const second = await decode(syntax, Uint8Array.of(5, 6, 7, 8), shape);
    expect(second).toEqual({
      rows: 1,
      columns: 2,
      samplesPerPixel: 1,
      bytes: Uint8Array.of(5, 6, 7, 8),
      bytesPerSample: 2,
      bitsPerSample: 12,
    });
    expect([loaded, deleted]).toEqual([[codec], 2]);
  });
});
