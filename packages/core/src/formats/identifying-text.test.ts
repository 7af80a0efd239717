import { describe, expect, it } from 'vitest';
import { findIdentifyingText, type IdentifyingField, writeStripped } from './identifying-text.ts';
import { collectBytes, readVolume, sourceFromBytes } from './volume-file.ts';
import { webPlatform } from './web-platform.ts';

async function strip(
  name: string,
  bytes: Uint8Array,
): Promise<{ bytes: Uint8Array; fields: readonly IdentifyingField[]; isChanged: boolean }> {
  const source = {
    name,
    sizeBytes: bytes.length,
    async *read(start = 0, end = bytes.length) {
      if (start < end) yield bytes.subarray(start, end);
    },
  };
  const { fields, rewrite } = await findIdentifyingText(source, webPlatform);
  const out = rewrite ? await collectBytes(writeStripped(source, rewrite, webPlatform)) : bytes;
  return { bytes: out, fields, isChanged: rewrite !== undefined };
}

type Kind = 'i16' | 'i32' | 'i64' | 'f32' | 'f64';
type Put = (at: number, kind: Kind, ...values: number[]) => void;
type Place = readonly [name: string, at: number, length: number];

function build(length: number, little: boolean, fill: (put: Put, bytes: Uint8Array) => void): Uint8Array {
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  const width = { i16: 2, i32: 4, i64: 8, f32: 4, f64: 8 };
  fill((at, kind, ...values) => {
    values.forEach((value, i) => {
      const to = at + i * width[kind];
      if (kind === 'i16') view.setInt16(to, value, little);
      else if (kind === 'i32') view.setInt32(to, value, little);
      else if (kind === 'i64') view.setBigInt64(to, BigInt(value), little);
      else if (kind === 'f32') view.setFloat32(to, value, little);
      else view.setFloat64(to, value, little);
    });
  }, bytes);
  return bytes;
}
const ascii = (text: string) => new TextEncoder().encode(text);

// Offsets of nifti1.h, nifti2.h and dbh.h, written down here a second time.

/** 4 × 3 × 2 voxels of int16, oblique, with a scaling: every field that a reader needs, and nothing else. */
const nifti1 = (little: boolean): Uint8Array =>
  build(352 + 48, little, (put, bytes) => {
    put(0, 'i32', 348);
    put(40, 'i16', 3, 4, 3, 2, 1, 1, 1, 1);
    put(68, 'i16', 1002, 4, 16);
    put(76, 'f32', -1, 2, 2, 3, 1, 1, 1, 1);
    put(108, 'f32', 352, 0.5, -1024);
    bytes[123] = 2 | 8;
    put(252, 'i16', 1, 2);
    // A turn by 90° about z, then x to the left: the sform says the same.
    put(256, 'f32', 0, 0, Math.SQRT1_2, 5, -6, 7);
    put(280, 'f32', 0, -2, 0, 5, 2, 0, 0, -6, 0, 0, -3, 7);
    bytes.set(ascii('n+1\0'), 344);
    put(352, 'i16', ...Array.from({ length: 24 }, (_, i) => 31 * i - 200));
  });
const nifti2 = (little: boolean): Uint8Array =>
  build(544 + 48, little, (put, bytes) => {
    put(0, 'i32', 540);
    bytes.set(ascii('n+2\0\r\n\x1a\n'), 4);
    put(12, 'i16', 4, 16);
    put(16, 'i64', 3, 4, 3, 2, 1, 1, 1, 1);
    put(104, 'f64', -1, 2, 2, 3, 1, 1, 1, 1);
    put(168, 'i64', 544);
    put(176, 'f64', 0.5, -1024);
    put(344, 'i32', 1, 2);
    put(352, 'f64', 0, 0, Math.SQRT1_2, 5, -6, 7);
    put(400, 'f64', 0, -2, 0, 5, 2, 0, 0, -6, 0, 0, -3, 7);
    put(500, 'i32', 2 | 8, 1002);
    put(544, 'i16', ...Array.from({ length: 24 }, (_, i) => 31 * i - 200));
  });
const analyze = (little: boolean): Uint8Array =>
  build(348, little, (put) => {
    put(0, 'i32', 348);
    put(40, 'i16', 3, 4, 3, 2, 1, 1, 1, 1);
    put(70, 'i16', 4, 16);
    put(76, 'f32', 0, 2, 2, 3, 1, 1, 1, 1);
    put(112, 'f32', 0.5);
  });

const unneeded1: readonly Place[] = [
  ['data_type', 4, 10],
  ['db_name', 14, 18],
  ['extents', 32, 4],
  ['session_error', 36, 2],
  ['regular', 38, 1],
  ['dim_info', 39, 1],
  ['intent_p1 … intent_p3', 56, 12],
  ['slice_start', 74, 2],
  ['slice_end', 120, 2],
  ['slice_code', 122, 1],
  ['cal_max, cal_min', 124, 8],
  ['slice_duration', 132, 4],
  ['toffset', 136, 4],
  ['glmax, glmin', 140, 8],
  ['descrip', 148, 80],
  ['aux_file', 228, 24],
  ['intent_name', 328, 16],
  ['the extension flag', 349, 3],
];
const unneeded2: readonly Place[] = [
  ['intent_p1 … intent_p3', 80, 24],
  ['cal_max, cal_min', 192, 16],
  ['slice_duration', 208, 8],
  ['toffset', 216, 8],
  ['slice_start, slice_end', 224, 16],
  ['descrip', 240, 80],
  ['aux_file', 320, 24],
  ['slice_code', 496, 4],
  ['intent_name', 508, 16],
  ['dim_info', 524, 1],
  ['unused_str', 525, 15],
  ['the extension flag', 541, 3],
];
const unneededAnalyze: readonly Place[] = [
  ['data_type', 4, 10],
  ['db_name', 14, 18],
  ['extents', 32, 4],
  ['session_error', 36, 2],
  ['regular', 38, 1],
  ['hkey_un0', 39, 1],
  ['unused8 … unused14', 56, 14],
  ['dim_un0', 74, 2],
  ['funused2, funused3', 116, 8],
  ['cal_max … glmin', 124, 24],
  ['data_history', 148, 200],
];
const secret = 'MAXMUSTERMAN born 1950-12-31 ';

const variants: readonly [what: string, name: string, make: () => Uint8Array, places: readonly Place[]][] = [
  ['NIfTI-1', 'a.nii', () => nifti1(true), unneeded1],
  ['NIfTI-1, big-endian', 'a.nii', () => nifti1(false), unneeded1],
  ['NIfTI-2', 'a.nii', () => nifti2(true), unneeded2],
  ['NIfTI-2, big-endian', 'a.nii', () => nifti2(false), unneeded2],
  ['Analyze 7.5', 'a.hdr', () => analyze(true), unneededAnalyze],
  ['Analyze 7.5, big-endian', 'a.hdr', () => analyze(false), unneededAnalyze],
];

describe('findIdentifyingText() in NIfTI and Analyze', () => {
  for (const [what, name, make, places] of variants) {
    it(`leaves ${what} with nothing but needed fields as it is`, async () => {
      const { fields, isChanged } = await strip(name, make());
      expect(fields).toEqual([]);
      expect(isChanged).toBe(false);
    });

    for (const [field, at, length] of places) {
      it(`zeroes and reports ${field} of ${what}`, async () => {
        const bytes = make();
        for (let i = 0; i < length; i++) bytes[at + i] = secret.charCodeAt(i % secret.length);
        const stripped = await strip(name, bytes);
        expect(Buffer.compare(stripped.bytes, make())).toBe(0);
        expect(stripped.fields.map((found) => found.value).join('')).toContain(
          secret.slice(0, Math.min(length, 3)),
        );
      });
    }

    it(`takes text of all these fields of ${what} at once`, async () => {
      const bytes = make();
      for (const [, at, length] of places)
        for (let i = 0; i < length; i++) bytes[at + i] = secret.charCodeAt(i % secret.length);
      expect(Buffer.compare((await strip(name, bytes)).bytes, make())).toBe(0);
    });
  }

  const change = (bytes: Uint8Array, at: number, kind: Kind, ...values: number[]) => {
    bytes.set(
      build(200, true, (put) => put(0, kind, ...values)).subarray(
        0,
        values.length * { i16: 2, i32: 4, i64: 8, f32: 4, f64: 8 }[kind],
      ),
      at,
    );
    return bytes;
  };

  it.each<[string, (bytes: Uint8Array) => Uint8Array]>([
    ['the parameters of a statistic (intent 3)', (b) => change(change(b, 68, 'i16', 3), 56, 'f32', 12, 0, 0)],
    ['qform alone', (b) => change(change(b, 254, 'i16', 0), 280, 'f32', ...new Array(12).fill(0))],
    [
      'a qform of code 0 that says what the sform says, as nibabel writes it',
      (b) => change(b, 252, 'i16', 0),
    ],
    ['a sform of code 0 that says what the qform says', (b) => change(b, 254, 'i16', 0)],
    ['units of m and s', (b) => change(b, 122, 'i16', (1 | 8) << 8)],
    ['a slope of NaN with an intercept of NaN', (b) => change(b, 112, 'f32', Number.NaN, Number.NaN)],
    [
      'the extents and "regular" that programs write by custom',
      (b) => change(change(b, 32, 'i32', 16384), 38, 'i16', 0x72),
    ],
    ['spacing of a dimension that is not there of 0', (b) => change(b, 92, 'f32', 0, 0, 0, 0)],
  ])('keeps %s', async (_what, edit) => {
    const bytes = edit(nifti1(true));
    expect(await strip('a.nii', bytes)).toEqual({ bytes, fields: [], isChanged: false });
  });

  it.each<[string, number, Kind, number[], number[]]>([
    ['sizes of dimensions that are not there', 48, 'i16', [0x4142, 0x4344, 0x4546, 0x4748], [1, 1, 1, 1]],
    ['spacings of dimensions that are not there', 92, 'f32', [1950, 12, 31, 9], [1, 1, 1, 1]],
    ['parameters that a label map does not have', 56, 'f32', [1950, 12, 31], [0, 0, 0]],
    ['bits of a voxel that its type does not have', 72, 'i16', [0x4142], [16]],
    ['an unknown intent', 68, 'i16', [0x4142], [0]],
  ])('replaces %s', async (_what, at, kind, values, wanted) => {
    const bytes = change(nifti1(true), at, kind, ...values);
    const stripped = await strip('a.nii', bytes);
    expect(Buffer.compare(stripped.bytes, change(nifti1(true), at, kind, ...wanted))).toBe(0);
    expect(stripped.fields.length).toBeGreaterThan(0);
    expect((await strip('a.nii', stripped.bytes)).fields).toEqual([]);
  });

  it('zeroes an unset qform or sform with other content', async () => {
    for (const [code, at, count] of [
      [252, 256, 6],
      [254, 280, 12],
    ]) {
      const bytes = change(nifti1(true), code, 'i16', 0);
      for (let i = 0; i < 4 * count; i++) bytes[at + i] = secret.charCodeAt(i % secret.length);
      const stripped = await strip('a.nii', bytes);
      const wanted = change(nifti1(true), code, 'i16', 0).fill(0, at, at + 4 * count);
      expect(Buffer.compare(stripped.bytes, wanted)).toBe(0);
    }
  });

  it('zeroes the intercept where the slope disables scaling', async () => {
    const bytes = change(change(nifti1(true), 112, 'f32', 0), 116, 'f32', 19501231);
    const stripped = await strip('a.nii', bytes);
    expect(stripped.fields.map(({ name }) => name)).toEqual(['scl_inter']);
    expect(Buffer.compare(stripped.bytes, change(nifti1(true), 112, 'f32', 0, 0))).toBe(0);
  });

  it('reads the same voxels at the same places before and after', async () => {
    for (const [what, name, make, places] of variants.slice(0, 4)) {
      const bytes = make();
      for (const [, at, length] of places)
        for (let i = 0; i < length; i++) bytes[at + i] = secret.charCodeAt(i % secret.length);
      const read = (given: Uint8Array) => readVolume([sourceFromBytes(name, given)], webPlatform);
      const after = await read((await strip(name, bytes)).bytes);
      expect(after, what).toEqual(await read(bytes));
      // By hand: 0.5 · (31 · 7 − 200) − 1024 at voxel (3, 1, 0).
      expect(after.volume.voxels[7]).toBe(-1015.5);
      expect(after.volume.affine.slice(0, 4)).toEqual([0, -2, 0, 5]);
    }
  });
});

const mha = (lines: string) =>
  ascii(`NDims = 3\nDimSize = 2 2 2\n${lines}ElementType = MET_UCHAR\nElementDataFile = LOCAL\n01234567`);
const nrrd = (lines: string) =>
  ascii(`NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 2 2\nencoding: raw\n${lines}\n01234567`);
const textOf = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

describe('findIdentifyingText() in lines of text', () => {
  it.each([
    'Offset = 0 0 0\n',
    'TransformMatrix = 1 0 0 0 1 0 0 0 1\nCenterOfRotation = 0 0 0\n',
    'AnatomicalOrientation = RAI\n',
    'AnatomicalOrientation = ???\n',
    'BinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n',
    'ElementSpacing: 1e0, 2.5 , .5\n\n   \n',
    'Modality = MET_MOD_CT\nDistanceUnits = mm\n',
    'Comment =\nElementSpacing =\n'.slice(10),
  ])('keeps %j of a MetaImage', async (lines) => {
    const bytes = mha(lines);
    expect(await strip('a.mha', bytes)).toEqual({ bytes, fields: [], isChanged: false });
  });

  it.each([
    'ElementMin = MUSTERMAN\n',
    'ElementMax = 19501231\n',
    'Offset = 0 0 MUSTERMAN\n',
    'AnatomicalOrientation = PIA\n',
    'Modality = MET_MOD_MUSTERMAN\n',
    'CenterOfRotation = MUSTERMAN\n',
    'BinaryData = TMUSTERMAN\n',
    'MUSTERMAN = 3\n',
    '  MUSTERMAN\n',
    '= MUSTERMAN\n',
    'Offset = 0 0 0\rMUSTERMAN\n',
    ': : MUSTERMAN\n',
  ])('takes the text of %j out of a MetaImage', async (lines) => {
    const bytes = mha(lines);
    const stripped = await strip('a.mha', bytes);
    expect(stripped.fields.length).toBe(1);
    expect(textOf(stripped.bytes)).not.toMatch(/MUSTERMAN|PIA|19501231/);
    expect(stripped.bytes.length).toBe(bytes.length);
    expect(textOf(stripped.bytes.slice(-8))).toBe('01234567');
    expect((await strip('a.mha', stripped.bytes)).fields).toEqual([]);
  });

  it.each([
    'space: left-posterior-superior\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0, 0, 0)\n',
    'space directions: none (1,0,0) (nan,nan,nan) (0,0,1)\nmeasurement frame: (1,0,0) (0,1,0) (0,0,1)\n',
    'kinds: domain 3D-masked-symmetric-matrix ???\ncenterings: cell node ???\n',
    'space: scanner-xyz-time\nspace units: "mm" "mm" ""\nunits: "µm" "s" "dimensionless"\n',
    'endian: little\nspacings: NaN 1 2\naxis mins: 0 0 0\nline skip: 0\nbyte skip: -1\n',
  ])('keeps %j of an NRRD', async (lines) => {
    const bytes = nrrd(lines);
    expect(await strip('a.nrrd', bytes)).toEqual({ bytes, fields: [], isChanged: false });
  });

  it.each([
    'measurement frame: MUSTERMAN\n',
    'number: 19501231\n',
    'old min: Nina MUSTERMAN\n',
    'kinds: domain domain MUSTERMAN\n',
    'space: MUSTERMAN\n',
    'space units: "mm" "MUSTERMAN"\n',
    'space units: "mm" MUSTERMAN "mm"\n',
    'space units: "MUSTERMAN\n',
    'spacings: 1 1 MUSTERMAN\n',
    'centers: cell cell MUSTERMAN\n',
    'MUSTERMAN\n',
    'MUSTERMAN:=1\n',
    '# MUSTERMAN\n',
    'space directions: (1,0,0) (0,MUSTERMAN,0) (0,0,1)\n',
  ])('takes the text of %j out of an NRRD', async (lines) => {
    const bytes = nrrd(lines);
    const stripped = await strip('a.nrrd', bytes);
    expect(stripped.fields.length).toBe(1);
    expect(textOf(stripped.bytes)).not.toMatch(/MUSTERMAN|Nina|19501231/);
    expect(stripped.bytes.length).toBe(bytes.length);
    expect(textOf(stripped.bytes.slice(-8))).toBe('01234567');
    expect((await strip('a.nrrd', stripped.bytes)).fields).toEqual([]);
  });

  it('leaves a header refused that was refused for its space', async () => {
    const { bytes } = await strip('a.nrrd', nrrd('space: MUSTERMAN\n'));
    await expect(readVolume([sourceFromBytes('a.nrrd', bytes)], webPlatform)).rejects.toMatchObject({
      code: 'UNSUPPORTED_FORMAT',
    });
  });

  it('names a thousand lines, and says how many more there are', async () => {
    const { fields } = await strip('a.mha', mha('MUSTERMAN\n'.repeat(5000)));
    expect(fields.length).toBe(1001);
    expect(fields[1000]).toEqual({ name: 'text', value: '4000 more lines' });
  });
});
