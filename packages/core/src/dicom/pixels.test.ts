import { describe, expect, it } from 'vitest';
import { type Slice, syntaxes } from '../../test/dicom-files.ts';
import { files, four, read, refusalOf, slices } from '../../test/dicom-series.ts';
import { encodeJpegLossless } from '../../test/jpeg-lossless.ts';
import { readVolume } from '../formats/volume-file.ts';
import { webPlatform } from '../formats/web-platform.ts';

describe('stored values', () => {
  const two = (more: Slice, second: Slice = {}) =>
    slices([0, 2]).map((slice, i) => ({ ...slice, ...more, ...(i === 1 && second) }));
  const values = [0, 1, 2047, 2048, 4095, 5, 6, 7, 8, 9, 10, 11];

  it.each<[what: string, slice: Slice, type: string, first: number[]]>([
    ['12 bits', {}, 'uint16', [0, 1, 2047, 2048, 4095]],
    [
      '12 bits with an intercept, as CT has',
      { intercept: '-1024' },
      'int16',
      [-1024, -1023, 1023, 1024, 3071],
    ],
    ['12 bits with a sign', { isSigned: true }, 'int16', [0, 1, 2047, -2048, -1]],
    ['7 bits', { bitsStored: 7 }, 'uint8', [0, 1, 127, 0, 127]],
    [
      '16 bits with a sign and an intercept',
      { isSigned: true, bitsStored: 16, intercept: '-1024' },
      'int32',
      [-1024, -1023, 1023, 1024, 3071],
    ],
    ['a slope', { slope: '0.5', intercept: '-1' }, 'float32', [-1, -0.5, 1022.5, 1023, 2046.5]],
    ['an intercept that is not whole', { intercept: '0.5' }, 'float32', [0.5, 1.5, 2047.5, 2048.5, 4095.5]],
    [
      'an intercept too large for float32',
      { slope: '0.001', intercept: '1000000' },
      'float64',
      [1e6, 1_000_000.001],
    ],
  ])('%s become %s', async (_, slice, type, first) => {
    const { volume, header } = await read(two({ values, ...slice }));
    expect(header.voxelType).toBe(type);
    expect(volume.voxels.constructor.name.toLowerCase()).toBe(`${type}array`);
    expect([...volume.voxels.subarray(0, first.length)]).toEqual(
      first.map((value) => expect.closeTo(value, 6)),
    );
  });

  it('follow the header of each slice: sign, bits, slope and intercept', async () => {
    const { volume, header } = await read(
      two({ values, intercept: '-1024' }, { isSigned: true, bitsStored: 16, intercept: '0', slope: '2' }),
    );
    expect(header.voxelType).toBe('float32');
    expect([...volume.voxels.subarray(0, 4), ...volume.voxels.subarray(12, 16)]).toEqual([
      -1024, -1023, 1023, 1024, 0, 2, 4094, 4096,
    ]);
  });

  it('leave out what lies beside the stored bits, as overlays do', async () => {
    const beside = (more: Slice) =>
      read(
        two({
          values: values.map((value) => (value << 2) | 0xc003),
          more: { 2621698: ['US', [13]] },
          ...more,
        }),
      );
    for (const [more, first] of [
      [{}, [0, 1, 2047, 2048, 4095]],
      [{ isSigned: true }, [0, 1, 2047, -2048, -1]],
      [{ isSigned: true, slope: '0.5', intercept: '-3' }, [-3, -2.5, 1020.5, -1027, -3.5]],
    ] as const)
      expect([...(await beside(more)).volume.voxels.subarray(0, 5)]).toEqual(first);
  });

  const cells = (bits: number, bytes: Uint8Array, vr = 'OB', more: Slice['more'] = {}): Slice => ({
    more: {
      2621696: ['US', [bits]],
      2621697: ['US', [bits]],
      2621698: ['US', [bits - 1]],
      2145386512: [vr, bytes],
      ...more,
    },
  });

  it('of 1, 8 and 32 bits', async () => {
    const bits = await read(two(cells(1, Uint8Array.of(0b10100101, 0b00001100))));
    expect([...bits.volume.voxels.subarray(0, 12)]).toEqual([1, 0, 1, 0, 0, 1, 0, 1, 0, 0, 1, 1]);
    const bytes = await read(
      two(
        cells(
          8,
          Uint8Array.from({ length: 12 }, (_, i) => 250 + i),
        ),
      ),
    );
    expect([...bytes.volume.voxels.subarray(0, 8)]).toEqual([250, 251, 252, 253, 254, 255, 0, 1]);
    const long = Uint32Array.from({ length: 12 }, (_, i) => 4_294_967_290 + i);
    const unsigned = await read(two(cells(32, new Uint8Array(long.buffer))));
    expect([unsigned.header.voxelType, unsigned.volume.voxels[3]]).toEqual(['uint32', 4_294_967_293]);
    const signed = await read(two(cells(32, new Uint8Array(long.buffer), 'OW', { 2621699: ['US', [1]] })));
    expect([signed.header.voxelType, signed.volume.voxels[3]]).toEqual(['int32', -3]);
    const stored31 = { 2621697: ['US', [31]], 2621698: ['US', [31]], 2621699: ['US', [1]] } as const;
    const high = await read(two(cells(32, new Uint8Array(long.buffer), 'OW', stored31)));
    // The lowest bit is not stored: -3, -2, 3 and 4 are halved, and rounded down.
    expect([3, 4, 9, 10].map((i) => high.volume.voxels[i])).toEqual([-2, -1, 1, 2]);
  });

  it('of floats', async () => {
    const single = Float32Array.from({ length: 12 }, (_, i) => i / 3);
    const floats = (tag: number, vr: string, bytes: Uint8Array) =>
      two({ more: { 2145386512: undefined, [tag]: [vr, bytes] } });
    const one = await read(floats(0x7fe00008, 'OF', new Uint8Array(single.buffer)));
    expect(one.volume.voxels.subarray(0, 12)).toEqual(single);
    const double = Float64Array.from({ length: 12 }, (_, i) => i / 3);
    const other = await read(floats(0x7fe00009, 'OD', new Uint8Array(double.buffer)));
    expect(other.volume.voxels.subarray(0, 12)).toEqual(double);
  });

  it('of every uncompressed transfer syntax', async () => {
    const expected = (await read(four)).volume;
    for (const syntax of [syntaxes.implicit, syntaxes.deflated])
      expect((await read(four, {}, { syntax })).volume).toEqual(expected);
    // Big endian: words are swapped, bytes in words too.
    const swapped = four.map((slice): Slice => {
      const pixels = Buffer.from(
        Uint16Array.from({ length: 12 }, (_, i) => slice.instance! * 100 + i).buffer,
      ).swap16();
      return { ...slice, more: { 2145386512: ['OW', pixels] } };
    });
    expect((await read(swapped, {}, { syntax: syntaxes.big })).volume).toEqual(expected);
    const bytes = Buffer.from(Array.from({ length: 12 }, (_, i) => 250 + i)).swap16();
    const { volume } = await read(two(cells(8, bytes, 'OW')), {}, { syntax: syntaxes.big });
    expect([...volume.voxels.subarray(0, 4)]).toEqual([250, 251, 252, 253]);
  });

  it('of lossless JPEG, signed by the header', async () => {
    const jpeg = { rows: 3, columns: 4, precision: 12, predictor: 1 };
    const fragments = [new Uint8Array(0), encodeJpegLossless(values, jpeg)];
    const form = { syntax: syntaxes.jpegLossless };
    const { volume, header } = await read(
      two({ isSigned: true, more: { 2145386512: ['OB', { fragments }] } }),
      {},
      form,
    );
    expect(header.compressed).toBe(true);
    expect([...volume.voxels.subarray(0, 5)]).toEqual([0, 1, 2047, -2048, -1]);
    const unknown = await refusalOf(
      read(two({ more: { 2145386512: ['OB', { fragments }] } }), {}, { syntax: '1.2.840.10008.1.2.4.100' }),
    );
    expect([unknown.code, unknown.message]).toEqual([
      'UNSUPPORTED_FORMAT',
      expect.stringContaining('1.2.840.10008.1.2.4.100 is not read'),
    ]);
  });

  it('that a decoder returns in another size, or not at all, are refused', async () => {
    const fragments = [
      new Uint8Array(0),
      encodeJpegLossless(values, { rows: 3, columns: 4, precision: 12, predictor: 1 }),
    ];
    const all = files(two({ more: { 2145386512: ['OB', { fragments }] } }), {
      syntax: '1.2.840.10008.1.2.4.80',
    });
    const frame = {
      rows: 3,
      columns: 4,
      samplesPerPixel: 1,
      bytes: new Uint8Array(24),
      bytesPerSample: 2,
      bitsPerSample: 12,
    } as const;
    const by = (decodeFrame: () => Promise<typeof frame>) => readVolume(all, { ...webPlatform, decodeFrame });
    expect((await by(async () => frame)).volume.voxels).toEqual(new Uint16Array(24));
    for (const [change, message] of [
      [{ rows: 4 as 3, columns: 3 as 4 }, /3 × 4 pixels of 1 samples, but its header says 4 × 3/],
      [{ bytes: new Uint8Array(22) }, /22 of 24 bytes/],
    ] as const)
      expect((await refusalOf(by(async () => ({ ...frame, ...change })))).message).toMatch(message);
    // Codecs throw addresses of exceptions.
    const error = await refusalOf(by(() => Promise.reject(5_245_672)));
    expect([error.code, error.message]).toEqual([
      'BAD_VOXELS',
      expect.stringContaining('the decoder failed'),
    ]);
  });
});
