import { describe, expect, it } from 'vitest';
import { encodeJpegLossless } from '../../test/jpeg-lossless.ts';
import { codeStreamSize } from './code-stream-size.ts';

/** SOC and SIZ (T.800 A.5.1) of an image of 300 × 200 that begins at (44, 56) of its grid. */
const jpeg2000 = Buffer.from(
  'ff4fff51002f0000 00000158 00000100 0000002c 00000038 00000100 00000100 00000000 00000000 0001 0f0101 ff52'.replaceAll(
    ' ',
    '',
  ),
  'hex',
);
const size = { columns: 300, rows: 200, samplesPerPixel: 1 };

describe('codeStreamSize()', () => {
  it('reads JPEG, JPEG-LS, JPEG 2000, and JPEG 2000 in a file of boxes', () => {
    const lossless = encodeJpegLossless(new Uint16Array(35), {
      rows: 5,
      columns: 7,
      precision: 12,
      predictor: 1,
    });
    expect(codeStreamSize(lossless)).toEqual({ columns: 7, rows: 5, samplesPerPixel: 1 });
    const jpegLs = lossless.map((byte, i) => (byte === 0xc3 && lossless[i - 1] === 0xff ? 0xf7 : byte));
    expect(codeStreamSize(jpegLs)).toEqual({ columns: 7, rows: 5, samplesPerPixel: 1 });
    expect(codeStreamSize(jpeg2000)).toEqual(size);
    const boxes = Buffer.concat([
      Buffer.from('0000000c6a5020200d0a870a', 'hex'),
      Buffer.from('000000006a703263', 'hex'),
      jpeg2000,
    ]);
    expect(codeStreamSize(boxes)).toEqual(size);
  });

  it('gives nothing for truncated or other data', () => {
    for (let length = 0; length < 42; length++)
      expect(codeStreamSize(jpeg2000.subarray(0, length))).toBeUndefined();
    for (const hex of [
      '',
      'ffd8',
      'ffd8ffda0002',
      'ffd8ffc00011',
      'ffd800',
      '0000000000000000',
      '000000016a703262',
      '89504e470d0a1a0a',
    ])
      expect(codeStreamSize(Buffer.from(hex, 'hex'))).toBeUndefined();
  });
});
