import { describe, expect, it } from 'vitest';
import { type Affine, composeAffine } from '../geometry/affine.ts';
import type { Size } from '../volume.ts';
import { formsOf, mmOf, type NiftiFormFields, niftiAffine, qformAffine, readForms } from './nifti-forms.ts';

const size: Size = [4, 3, 2];
const rows = [0, -2.5, 0, 5, 2, 0, 0, -6, 0, 0, -3, 7];
const last = [0, 0, 0, 1];
const fields = (edits: Partial<NiftiFormFields> = {}): NiftiFormFields => ({
  version: 1,
  units: 2,
  pixdim: [1, 2, 2.5, 3, 9, 9, 9, 9],
  qformCode: 0,
  sformCode: 0,
  qform: [0, 0, 0, 10, -20, 30],
  sform: rows,
  ...edits,
});
/** pixdim alone: about the centre, x to the left. */
const byPixdim = [-2, 0, 0, 3, 0, 2.5, 0, -2.5, 0, 0, 3, -1.5, ...last];
const byQform = [2, 0, 0, 10, 0, 2.5, 0, -20, 0, 0, 3, 30, ...last];

describe('mmOf()', () => {
  it('goes by the low three bits, and takes no unit for mm', () => {
    expect([0, 1, 2, 3, 4, 5, 6, 7].map(mmOf)).toEqual([1, 1000, 1, 0.001, 1, 1, 1, 1]);
    expect([8 | 1, 16 | 2, 24 | 3, 64 | 3].map(mmOf)).toEqual([1000, 1, 0.001, 0.001]);
  });
});

describe('readForms()', () => {
  it.each<[string, Partial<NiftiFormFields>, Affine, string[]]>([
    ['pixdim without codes', {}, byPixdim, []],
    ['codes below 0', { qformCode: -1, sformCode: -1 }, byPixdim, []],
    ['codes above 5', { qformCode: 6, sformCode: 6 }, byPixdim, ['qform', 'sform']],
    ['qform code 1', { qformCode: 1 }, byQform, ['qform']],
    ['qform code 5', { qformCode: 5 }, byQform, ['qform']],
    ['sform code 1', { sformCode: 1, qformCode: 1 }, [...rows, ...last], ['qform', 'sform']],
    ['sform code 5', { sformCode: 5 }, [...rows, ...last], ['sform']],
    ['sform code 6 beside a qform', { sformCode: 6, qformCode: 2 }, byQform, ['qform', 'sform']],
    [
      'a sform that is not finite beside a qform',
      { sformCode: 1, sform: rows.map((v, i) => (i === 11 ? Number.NaN : v)), qformCode: 1 },
      byQform,
      ['qform'],
    ],
    [
      'a sform of zeros beside a qform',
      { sformCode: 1, sform: rows.map(() => 0), qformCode: 1 },
      byQform,
      ['qform'],
    ],
    [
      'a qform that is not finite beside a sform',
      { sformCode: 1, qformCode: 1, qform: [0, 0, 0, 1, 2, Number.NaN] },
      [...rows, ...last],
      ['sform'],
    ],
    [
      'negative spacings',
      { qformCode: 1, pixdim: [-1, -2, -2.5, -3] },
      [2, 0, 0, 10, 0, 2.5, 0, -20, 0, 0, -3, 30, ...last],
      ['qform'],
    ],
    ['a qfac of 0', { qformCode: 1, pixdim: [0, 2, 2.5, 3] }, byQform, ['qform']],
    ['a qfac of -2', { qformCode: 1, pixdim: [-2, 2, 2.5, 3] }, byQform, ['qform']],
    ['pixdim in metres', { units: 1 | 8 }, byPixdim.map((v, i) => (i < 12 ? v * 1000 : v)), []],
    [
      'a quaternion a little longer than 1',
      { qformCode: 1, qform: [1.000004, 0, 0, 10, -20, 30] },
      [2, 0, 0, 10, 0, -2.5, 0, -20, 0, 0, -3, 30, ...last],
      ['qform'],
    ],
  ])('reads %s', (_what, edits, affine, stated) => {
    const found = readForms(fields(edits), size);
    for (const [i, value] of affine.entries()) expect(found.affine[i]).toBeCloseTo(value, 9);
    expect(found.affine.some((v) => Object.is(v, -0))).toBe(false);
    const { geometry } = found;
    expect(Object.keys(geometry).filter((key) => key.endsWith('form'))).toEqual(stated);
    expect(niftiAffine(geometry, size).map((v) => v + 0)).toEqual(found.affine);
  });

  it('states the header’s forms, six bits of units, pixdim of the grid', () => {
    const { geometry } = readForms(
      fields({ units: 0x80 | 10, qformCode: 3, sformCode: 4, pixdim: [-1, 2, -2.5, 3, 9, 9, 9, 9] }),
      size,
    );
    expect(geometry).toEqual({
      format: 'nifti',
      version: 1,
      units: 10,
      pixdim: [-1, 2, -2.5, 3],
      qform: { code: 3, quaternion: [0, 0, 0], offset: [10, -20, 30] },
      sform: { code: 4, rows },
    });
  });

  it('replaces a pixdim that is not finite by the sform’s spacing', () => {
    const broken = { sformCode: 1, pixdim: [Number.NaN, Number.NaN, Number.POSITIVE_INFINITY, Number.NaN] };
    expect(readForms(fields(broken), size).geometry.pixdim).toEqual([1, 2, 2.5, 3]);
    const tenth = rows.map((v) => v / 10);
    for (const [version, second] of [
      [1, Math.fround(0.2)],
      [2, 0.2],
    ] as const)
      expect(readForms(fields({ ...broken, version, sform: tenth }), size).geometry.pixdim[1]).toBe(second);
    const micrometres = readForms(fields({ ...broken, units: 3, version: 2 }), size).geometry.pixdim;
    for (const [i, v] of [1, 2, 2.5, 3].entries()) expect(micrometres[i]).toBeCloseTo(v, 9);
  });

  it.each<[string, Partial<NiftiFormFields>, string]>([
    ['a spacing of 0 along x', { pixdim: [1, 0, 2, 3] }, 'pixdim[1] is 0'],
    ['a spacing of NaN along y', { pixdim: [1, 2, Number.NaN, 3], qformCode: 1 }, 'pixdim[2] is NaN'],
    [
      'an infinite spacing along z',
      { pixdim: [1, 2, 3, Number.NEGATIVE_INFINITY] },
      'pixdim[3] is -Infinity',
    ],
    ['a spacing of 2 km', { pixdim: [1, 2, 3, 2], units: 1, qformCode: 0 }, ''],
    ['a spacing of 2000 km', { pixdim: [1, 2, 3, 2000], units: 1 }, 'The pixdim of the NIfTI header'],
    ['an offset of 2000 km', { qformCode: 1, qform: [0, 0, 0, 0, 2e9, 0] }, 'The qform of the NIfTI header'],
    ['a long quaternion along b', { qformCode: 1, qform: [1.00001, 0, 0, 1, 2, 3] }, '(1.00001, 0, 0)'],
    ['a long quaternion along c', { qformCode: 1, qform: [0, 1.00001, 0, 1, 2, 3] }, '(0, 1.00001, 0)'],
    ['a long quaternion along d', { qformCode: 1, qform: [0, 0, 1.00001, 1, 2, 3] }, '(0, 0, 1.00001)'],
    ['a quaternion of NaN', { qformCode: 1, qform: [Number.NaN, 0, 0, 1, 2, 3] }, '(NaN, 0, 0)'],
    ['an offset of NaN', { qformCode: 1, qform: [0, 0, 0, 1, 2, Number.NaN] }, 'not finite'],
    ['a sform of zeros without a qform', { sformCode: 1, sform: rows.map(() => 0) }, 'The sform of the'],
    [
      'a sform of zeros beside a bad qform',
      { sformCode: 1, sform: rows.map(() => 0), qformCode: 1, qform: [2, 0, 0, 0, 0, 0] },
      'The sform of the',
    ],
    ['a sform of 2 km a voxel', { sformCode: 1, sform: rows, units: 1, pixdim: [1, 1, 1, 1] }, ''],
    ['a sform of 2000 km', { sformCode: 1, sform: rows.map((v) => v * 1000), units: 1 }, 'The sform of the'],
  ])('judges %s', (_what, edits, message) => {
    if (message === '') return void expect(readForms(fields(edits), size).affine).toHaveLength(16);
    expect(() => readForms(fields(edits), size)).toThrow(expect.objectContaining({ code: 'BAD_HEADER' }));
    expect(() => readForms(fields(edits), size)).toThrow(message);
  });

  it.each<[string, Size, number[], number[]]>([
    // Oblique in the slice's plane: (0.6, 0.8, 0) and (-0.8, 0.6, 0), or turned on.
    ['x', [1, 4, 3], [0, 1.2, -1.6, 5, 0, 1.6, 1.2, 6, 0, 0, 0, 7], [0, 0, 2.25]],
    ['y', [4, 1, 3], [-1.6, 0, 1.2, 5, 1.2, 0, 1.6, 6, 0, 0, 0, 7], [0, 0, 2.5]],
    ['z', [4, 3, 1], [0, 0, 0, 5, 1.2, -1.6, 0, 6, 1.6, 1.2, 0, 7], [3, 0, 0]],
  ])('gives a slice across %s the thickness in pixdim', (axis, slice, sform, normal) => {
    const across = 'xyz'.indexOf(axis);
    for (const version of [1, 2] as const) {
      for (const sign of [1, -1]) {
        const pixdim = [1, sign * 2.25, sign * 2.5, sign * 3];
        const { affine, geometry } = readForms(fields({ version, sformCode: 2, sform, pixdim }), slice);
        const wanted = sform.map((v, i) => (i % 4 === across ? normal[i >> 2] : v));
        for (const [i, v] of [...wanted, ...last].entries()) expect(affine[i]).toBeCloseTo(v, 6);
        expect(geometry.sform?.code).toBe(2);
        expect(geometry.sform?.rows.some((v) => Object.is(v, -0))).toBe(false);
      }
    }
    for (const missing of [0, Number.NaN, Number.POSITIVE_INFINITY]) {
      const pixdim = [1, 2, 2, 2].map((v, i) => (i === across + 1 ? missing : v));
      expect(() => readForms(fields({ sformCode: 1, sform, pixdim }), slice)).toThrow(
        `pixdim[${across + 1}] is ${missing}`,
      );
    }
    const two = slice.map((n) => (n === 1 ? 2 : n)) as unknown as Size;
    expect(() => readForms(fields({ sformCode: 1, sform }), two)).toThrow(/cannot be inverted/);
    // Its axes along one line have no normal.
    const line = sform.map((v, i) => (i % 4 === 3 ? v : i < 4 && i !== across ? 1 : 0));
    expect(() => readForms(fields({ sformCode: 1, sform: line }), slice)).toThrow(/cannot be inverted/);
  });

  it('rounds the thickness to float32 in NIfTI-1 alone', () => {
    const sform = [2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0];
    for (const [version, wanted] of [
      [1, Math.fround(0.1)],
      [2, 0.1],
    ] as const) {
      const given = fields({ version, sformCode: 1, sform, pixdim: [1, 2, 2, 0.1] });
      expect(readForms(given, [4, 3, 1]).affine[10]).toBe(wanted);
    }
  });
});

describe('qformAffine()', () => {
  const h = Math.SQRT1_2;
  // nifti1.h, method 2: turns by 90° about x, y and z, and the one that takes x to y, y to z and z to x.
  it.each([
    [
      [h, 0, 0],
      [2, 0, 0, 0, 0, -4, 0, 3, 0],
    ],
    [
      [-h, 0, 0],
      [2, 0, 0, 0, 0, 4, 0, -3, 0],
    ],
    [
      [0, h, 0],
      [0, 0, 4, 0, 3, 0, -2, 0, 0],
    ],
    [
      [0, 0, h],
      [0, -3, 0, 2, 0, 0, 0, 0, 4],
    ],
    [
      [0.5, 0.5, 0.5],
      [0, 0, 4, 2, 0, 0, 0, 3, 0],
    ],
    [
      [0, 0.6, 0.8],
      [-2, 0, 0, 0, -0.84, 3.84, 0, 2.88, 1.12],
    ],
    [
      [0.6, 0.8, 0],
      [-0.56, 2.88, 0, 1.92, 0.84, 0, 0, 0, -4],
    ],
    [
      [0.6, 0, 0.8],
      [-0.56, 0, 3.84, 0, -3, 0, 1.92, 0, 1.12],
    ],
  ])('turns by %j', (quaternion, linear) => {
    for (const handedness of [1, -1] as const) {
      const affine = qformAffine(quaternion, [10, -20, 30], [2, 3, 4], handedness);
      for (const [i, v] of linear.entries())
        expect(affine[4 * Math.floor(i / 3) + (i % 3)]).toBeCloseTo(i % 3 === 2 ? v * handedness : v, 12);
      expect([3, 7, 11, 12, 13, 14, 15].map((i) => affine[i])).toEqual([10, -20, 30, ...last]);
    }
  });
});

describe('formsOf()', () => {
  const turn = (b: number, c: number, d: number, handedness: 1 | -1) =>
    qformAffine([b, c, d], [-31.5, 47.25, 112.75], [0.75, 1.25, 5.5], handedness);
  const grid = (affine: Affine) => ({ affine, size });

  // Each of a, b, c and d is the largest once, and each sign of b, c and d occurs.
  it.each([
    [0.1, -0.2, 0.3],
    [0.9, 0.1, -0.2],
    [-0.2, 0.9, 0.1],
    [0.1, -0.3, 0.9],
    [-0.9, -0.1, 0.3],
    [0.2, 0.1, -0.9],
    [0, 0, 0],
  ])('finds the quaternion (%d, %d, %d) again', (...quaternion) => {
    for (const version of [1, 2] as const) {
      for (const handedness of [1, -1] as const) {
        const affine = turn(...(quaternion as [number, number, number]), handedness);
        const forms = formsOf(grid(affine), version);
        expect(forms).toMatchObject({ format: 'nifti', version, units: 2 });
        expect(forms.pixdim[0]).toBe(handedness);
        for (const [i, v] of [0.75, 1.25, 5.5].entries()) expect(forms.pixdim[1 + i]).toBeCloseTo(v, 12);
        expect(forms.qform?.code).toBe(1);
        expect(forms.qform?.offset).toEqual([-31.5, 47.25, 112.75]);
        for (const [i, v] of quaternion.entries())
          expect(forms.qform?.quaternion[i]).toBeCloseTo(v, version === 1 ? 5 : 12);
        expect(forms.sform).toEqual({ code: 1, rows: affine.slice(0, 12) });
      }
    }
  });

  // Turns by nearly 180°, where the root for a is the least certain.
  it.each([180, 179.99, 179.9, 177])('leaves a root where float32 numbers turn by %d°', (degrees) => {
    const angle = (degrees * Math.PI) / 180;
    const s = Math.sin(angle / 2);
    for (const axis of [
      [1, 0, 0],
      [0, 1, 0],
      [0, 0, 1],
      [0.6, 0.8, 0],
      [0.36, 0.48, 0.8],
    ]) {
      const affine = turn(s * axis[0], s * axis[1], s * axis[2], 1);
      const { qform } = formsOf(grid(affine), 1);
      const [b, c, d] = qform?.quaternion ?? [];
      expect([b, c, d].map(Math.fround)).toEqual([b, c, d]);
      const rest = 1 - (b * b + c * c + d * d);
      expect(rest).toBeGreaterThanOrEqual(0);
      expect(Math.sqrt(rest)).toBeCloseTo(Math.cos(angle / 2), 3);
      const second = formsOf(grid(affine), 2).qform?.quaternion ?? [];
      expect(1 - second.reduce((sum, v) => sum + v * v, 0)).toBeGreaterThanOrEqual(0);
    }
  });

  it('gives no qform where two axes are not at right angles', () => {
    // x and y, x and z, y and z.
    for (const i of [1, 2, 4, 6, 8, 9]) {
      const sheared = (by: number) => {
        const affine = composeAffine([1, 1, 1], [1, 0, 0, 0, 1, 0, 0, 0, 1], [1, 2, 3]).map((v, at) =>
          at === i ? by : v,
        );
        // Left-handed, so that pixdim[0] says whether there is a qform.
        return formsOf(grid(affine.map((v, at) => (at < 4 ? -v : v))), 1);
      };
      expect(sheared(0.9e-5).qform).toBeDefined();
      expect(sheared(0.9e-5).pixdim[0]).toBe(-1);
      for (const by of [1.1e-5, -1.1e-5, 0.5]) {
        expect(sheared(by).qform).toBeUndefined();
        expect(sheared(by).pixdim[0]).toBe(1);
      }
    }
  });
});
