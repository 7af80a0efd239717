import { describe, expect, it } from 'vitest';
import { collectBytes, readVolume, type SourceFile, sourceFromBytes, writeVolume } from './volume-file.ts';
import { webPlatform } from './web-platform.ts';

type Version = 1 | 2;

/** Byte offsets of fields, from nifti1.h and nifti2.h. */
const places = {
  1: {
    data: 352,
    datatype: 70,
    dim: 40,
    pixdim: 76,
    voxOffset: 108,
    slope: 112,
    units: 123,
    codes: 252,
    qform: 256,
    sform: 280,
  },
  2: {
    data: 544,
    datatype: 12,
    dim: 16,
    pixdim: 104,
    voxOffset: 168,
    slope: 176,
    units: 500,
    codes: 344,
    qform: 352,
    sform: 400,
  },
} as const;

interface Fields {
  pixdim?: readonly number[];
  /** scl_slope, scl_inter */
  scale?: readonly [number, number];
  units?: number;
  codes?: readonly [q: number, s: number];
  /** b, c, d, then the offsets. */
  qform?: readonly number[];
  sform?: readonly number[];
}

const size = [3, 2, 2] as const;
const stored = [-32768, -1024, -5, 0, 1, 2, 7, 255, 300, 4095, 32766, 32767];

/** A file of 3 × 2 × 2 int16 voxels in either version and byte order. */
function nifti(version: Version, little: boolean, fields: Fields): SourceFile {
  const at = places[version];
  const bytes = new Uint8Array(at.data + 2 * stored.length);
  const view = new DataView(bytes.buffer);
  const numbers = (place: number, values: readonly number[]) => {
    for (const [i, value] of values.entries()) {
      if (version === 1) view.setFloat32(place + 4 * i, value, little);
      else view.setFloat64(place + 8 * i, value, little);
    }
  };
  const codes = (place: number, values: readonly number[]) => {
    for (const [i, value] of values.entries()) {
      if (version === 1) view.setInt16(place + 2 * i, value, little);
      else view.setInt32(place + 4 * i, value, little);
    }
  };
  view.setInt32(0, version === 1 ? 348 : 540, little);
  const magic = version === 1 ? 'n+1\0' : 'n+2\0\r\n\x1a\n';
  bytes.set(Buffer.from(magic, 'latin1'), version === 1 ? 344 : 4);
  view.setInt16(at.datatype, 4, little);
  for (const [i, n] of [3, ...size, 1, 1, 1, 1].entries()) {
    if (version === 1) view.setInt16(at.dim + 2 * i, n, little);
    else view.setBigInt64(at.dim + 8 * i, BigInt(n), little);
  }
  numbers(at.pixdim, fields.pixdim ?? [1, 2, 3, 4]);
  if (version === 1) view.setFloat32(at.voxOffset, 352, little);
  else view.setBigInt64(at.voxOffset, 544n, little);
  numbers(at.slope, fields.scale ?? [0, 0]);
  if (version === 1) bytes[at.units] = fields.units ?? 2;
  else view.setInt32(at.units, fields.units ?? 2, little);
  codes(at.codes, fields.codes ?? [0, 0]);
  numbers(at.qform, fields.qform ?? []);
  numbers(at.sform, fields.sform ?? []);
  for (const [i, value] of stored.entries()) view.setInt16(at.data + 2 * i, value, little);
  return sourceFromBytes('a.nii', bytes);
}

/** What stands in a header of the machine's byte order. */
function fieldsOf(bytes: Uint8Array, version: Version): Required<Omit<Fields, 'scale'>> {
  const at = places[version];
  const little = new DataView(bytes.buffer).getInt32(0, true) === (version === 1 ? 348 : 540);
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const numbers = (place: number, count: number) =>
    Array.from({ length: count }, (_, i) =>
      version === 1 ? view.getFloat32(place + 4 * i, little) : view.getFloat64(place + 8 * i, little),
    );
  const code = (i: number) =>
    version === 1 ? view.getInt16(at.codes + 2 * i, little) : view.getInt32(at.codes + 4 * i, little);
  return {
    pixdim: numbers(at.pixdim, 4),
    units: version === 1 ? bytes[at.units] : view.getInt32(at.units, little),
    codes: [code(0), code(1)],
    qform: numbers(at.qform, 6),
    sform: numbers(at.sform, 12),
  };
}

const forms = [
  [1, true],
  [1, false],
  [2, true],
  [2, false],
] as const;

describe('scl_slope and scl_inter', () => {
  it.each([
    // Most CT: 1 × stored − 1024 are Hounsfield units.
    [1, -1024, [-33792, -2048, -1029, -1024, -1023, -1022, -1017, -769, -724, 3071, 31742, 31743]],
    [1, 0.5, [-32767.5, -1023.5, -4.5, 0.5, 1.5, 2.5, 7.5, 255.5, 300.5, 4095.5, 32766.5, 32767.5]],
    [2, 0, [-65536, -2048, -10, 0, 2, 4, 14, 510, 600, 8190, 65532, 65534]],
    [-1, 0, [32768, 1024, 5, -0, -1, -2, -7, -255, -300, -4095, -32766, -32767]],
    [-1, 3, [32771, 1027, 8, 3, 2, 1, -4, -252, -297, -4092, -32763, -32764]],
    [0.25, -3, [-8195, -259, -4.25, -3, -2.75, -2.5, -1.25, 60.75, 72, 1020.75, 8188.5, 8188.75]],
  ])('slope %d with intercept %d gives slope × stored + intercept', async (slope, inter, expected) => {
    for (const [version, little] of forms) {
      const file = nifti(version, little, { scale: [slope, inter] });
      const { volume, header } = await readVolume([file], webPlatform);
      expect([...volume.voxels].map((v) => Number(v) + 0)).toEqual(expected.map((v) => v + 0));
      expect(header.scale).toEqual({ slope, intercept: inter });
    }
  });

  it.each([
    [1, 0],
    [0, 0],
    [0, -1024],
    [Number.NaN, -1024],
    [Number.NEGATIVE_INFINITY, 0],
  ])('slope %d with intercept %d leaves the stored integers', async (slope, inter) => {
    for (const [version, little] of forms) {
      const file = nifti(version, little, { scale: [slope, inter] });
      const { volume, header } = await readVolume([file], webPlatform);
      expect(volume.voxels).toEqual(Int16Array.from(stored));
      expect(header.scale).toBeUndefined();
    }
  });
});

describe('writeVolume() in the units of the input', () => {
  // Sheared and left-handed in mm; the qform is another grid, so that neither stands for the other.
  const rows = [-0.5, 0.125, 0, 5, 0.0625, 0.75, 0.25, -6, 0, 0, 1.5, 7];
  const offsets = [10, -20, 30];
  const spacing = [0.5, 0.75, 1.5];

  it.each([
    ['m', 1, 1000],
    ['mm', 2, 1],
    ['µm', 3, 0.001],
    ['no unit', 0, 1],
    ['mm and s', 10, 1],
  ] as const)('writes both forms and pixdim in %s, as they were read', async (_name, units, mm) => {
    for (const [version, little] of forms) {
      for (const codes of [
        [0, 1],
        [1, 0],
        [2, 4],
      ] as const) {
        const exact = (value: number) => (version === 1 ? Math.fround(value / mm) : value / mm);
        const stated: Required<Omit<Fields, 'scale'>> = {
          pixdim: [-1, ...spacing.map(exact)],
          units,
          codes,
          qform: codes[0] > 0 ? [0, 0, exact(mm * Math.SQRT1_2), ...offsets.map(exact)] : [0, 0, 0, 0, 0, 0],
          sform: codes[1] > 0 ? rows.map(exact) : new Array<number>(12).fill(0),
        };
        const { volume, header } = await readVolume([nifti(version, little, stated)], webPlatform);
        // A turn by 90° about z with z mirrored: x runs to the front, y to the left, z downwards.
        const byQform = [0, -0.75, 0, 10, 0.5, 0, 0, -20, 0, 0, -1.5, 30];
        const expected = codes[1] > 0 ? rows : byQform;
        for (const [i, value] of expected.entries()) expect(header.affine[i]).toBeCloseTo(value, 5);
        const { geometry } = header;
        const bytes = await collectBytes(writeVolume(volume, 'nii', webPlatform, { geometry }));
        const name = `NIfTI-${version}, codes ${codes}`;
        expect(fieldsOf(bytes, version), name).toEqual(stated);
        const back = (await readVolume([sourceFromBytes('b.nii', bytes)], webPlatform)).header;
        expect(back.affine, name).toEqual(header.affine);
      }
    }
  });

  it('writes mm on another grid, as NIfTI-2 for such inputs or long axes', async () => {
    const stated = { units: 3, codes: [0, 1], sform: rows.map((v) => v * 1000) } as const;
    const { volume, header } = await readVolume([nifti(2, true, stated)], webPlatform);
    const moved = volume.affine.map((v, i) => (i === 3 ? v + 0.5 : v));
    const sform = rows.map((v, i) => (i === 3 ? v + 0.5 : v));
    const long = { voxels: new Uint8Array(40_000), size: [40_000, 1, 1] as const, components: 1 };
    for (const other of [
      { ...volume, affine: moved },
      { ...long, affine: moved },
    ]) {
      const { geometry } = header;
      const bytes = await collectBytes(writeVolume(other, 'nii', webPlatform, { geometry }));
      const version = new DataView(bytes.buffer).getInt32(0, true) === 540 ? 2 : 1;
      if (other.size[0] === 40_000) expect(version).toBe(2);
      const found = fieldsOf(bytes, version);
      expect(found.units).toBe(2);
      for (const [i, value] of sform.entries()) expect(found.sform[i]).toBeCloseTo(value, 6);
      for (const [i, value] of [0, 1, 2].entries())
        expect(found.pixdim[1 + i]).toBeCloseTo(Math.hypot(rows[value], rows[4 + value], rows[8 + value]), 6);
    }
  });
});
