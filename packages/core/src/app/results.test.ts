import { describe, expect, it } from 'vitest';
import { type Affine, applyAffine, type Vec3 } from '../geometry/affine.ts';
import { oblique, rotation, voxelAt } from '../geometry/fixtures.ts';
import type { Mesh } from '../labels/surface.ts';
import type { Size, Volume, Voxels } from '../volume.ts';
import { outputSchema } from './elements.ts';
import {
  asLabels,
  checkPlace,
  checkType,
  derive,
  fromOf,
  hasLabel,
  isVolume,
  missingOutput,
} from './results.ts';
import type { OutputValue } from './values.ts';

const labelMap = (size: Size, affine: Affine, voxels: Voxels = new Uint8Array(size[0] * size[1] * size[2])) =>
  ({ size, affine, voxels, components: 1 }) satisfies Volume;
/** Axes along the world's, spacing in mm, the first voxel at `origin`. */
const straight = ([sx, sy, sz]: Vec3, [r, a, s]: Vec3 = [0, 0, 0]): Affine => [
  ...[sx, 0, 0, r],
  ...[0, sy, 0, a],
  ...[0, 0, sz, s],
  ...[0, 0, 0, 1],
];
const refused = (field = 'segmentation') => expect.objectContaining({ code: 'APP_OUTPUT', field });

describe('derive()', () => {
  /** 3 at (1, 0, 0) and (2, 0, 0), 9 at (0, 2, 1). */
  const two = labelMap([4, 3, 2], oblique, Uint8Array.of(...[0, 3, 3, 0], ...Array(16).fill(0), 9, 0, 0, 0));
  const names = [
    { value: 3, name: 'liver' },
    { value: 5, name: 'cyst' },
  ];
  const from = (fields: object) => derive(outputSchema.parse(fields), two, names);

  it('measures by the names of the labels', async () => {
    expect(await from({ type: 'Measurements' })).toMatchObject([
      { value: 3, name: 'liver', voxels: 2 },
      { value: 5, name: 'cyst', voxels: 0 },
      { value: 9, name: 'label 9', voxels: 1 },
    ]);
  });

  it('gives the centroids of the labels that have voxels', async () => {
    const points = (await from({ type: 'Fiducials' })) as Vec3[];
    expect(points).toHaveLength(2);
    const expected = [applyAffine(oblique, [1.5, 0, 0]), applyAffine(oblique, [0, 2, 1])];
    for (const [i, point] of points.entries())
      for (const axis of [0, 1, 2]) expect(point[axis]).toBeCloseTo(expected[i][axis], 9);
  });

  it('reports volumes as text where the manifest asks for it', async () => {
    const report = await from({ type: 'PlainText', report: 'volumes' });
    expect(report).toMatch(/^liver +3 +2 /m);
    expect(report).toContain('Not found: cyst');
    expect(await from({ type: 'PlainText' })).toBeUndefined();
  });

  it('meshes the labels that the output lists, as it says', async () => {
    const all = (await from({ type: 'VTKMesh', keepTriangles: 1 })) as Mesh;
    expect(new Set(all.labels)).toEqual(new Set([3, 9]));
    const one = (await from({ type: 'VTKMesh', labels: [9], keepTriangles: 1, smooth: false })) as Mesh;
    expect(new Set(one.labels)).toEqual(new Set([9]));
    // The 8 vertices lie around the middle of the voxel.
    expect(one.positions).toHaveLength(24);
    const middle = [0, 1, 2].map((k) =>
      one.positions.reduce((sum, v, i) => sum + (i % 3 === k ? v / 8 : 0), 0),
    );
    const expected = applyAffine(oblique, [0, 2, 1]);
    for (const k of [0, 1, 2]) expect(middle[k]).toBeCloseTo(expected[k], 4);
  });

  it('smooths and simplifies meshes as the output says', async () => {
    const block = labelMap(
      [12, 10, 8],
      oblique,
      Uint8Array.from({ length: 960 }, (_, i) => {
        const [x, y, z] = [i % 12, Math.floor(i / 12) % 10, Math.floor(i / 120)];
        return Number(x > 1 && x < 10 && y > 1 && y < 8 && z > 1 && z < 6);
      }),
    );
    const meshOf = async (fields: object) =>
      (await derive(outputSchema.parse({ type: 'VTKMesh', ...fields }), block, [])) as Mesh;
    const whole = await meshOf({ keepTriangles: 1 });
    const less = await meshOf({ keepTriangles: 0.3 });
    expect(less.triangles.length).toBeLessThan(0.5 * whole.triangles.length);
    const steps = await meshOf({ keepTriangles: 1, smooth: false });
    expect(steps.triangles).toHaveLength(whole.triangles.length);
    expect(steps.positions).not.toEqual(whole.positions);
  });

  it.each(['TransformGrid', 'TransformBSpline', 'TransformLinear', 'LabelVolume'])(
    'makes no %s from a label map',
    async (type) => expect(await from({ type })).toBeUndefined(),
  );
});

describe('fromOf()', () => {
  it('is the label map that the output names', () => {
    expect(fromOf(outputSchema.parse({ type: 'VTKMesh', from: 'organs' }))).toBe('organs');
    expect(fromOf(outputSchema.parse({ type: 'VTKMesh' }))).toBeUndefined();
    expect(fromOf(outputSchema.parse({ type: 'LabelVolume' }))).toBeUndefined();
  });
});

describe('isVolume()', () => {
  it.each<[unknown, boolean]>([
    [labelMap([1, 2, 3], oblique), true],
    [{ affine: oblique }, false],
    [{ voxels: new Uint8Array(1) }, false],
    [null, false],
    [undefined, false],
    ['affine voxels', false],
    [Object.assign(() => 0, { affine: oblique, voxels: [] }), false],
  ])('says of %o %s', (value, expected) => {
    expect(isVolume(value)).toBe(expected);
  });
});

describe('missingOutput()', () => {
  it('names the output', () => {
    expect(missingOutput('mesh')).toMatchObject({ code: 'APP_OUTPUT', field: 'mesh' });
    expect(missingOutput('mesh').message).toContain('mesh');
  });
});

describe('hasLabel()', () => {
  it.each<[Voxels, boolean]>([
    [new Uint8Array(24), false],
    [Uint8Array.from({ length: 24 }, (_, i) => Number(i === 0)), true],
    [Uint8Array.from({ length: 24 }, (_, i) => Number(i === 23)), true],
    [BigInt64Array.from({ length: 24 }, (_, i) => (i === 7 ? 2n : 0n)), true],
    [new BigInt64Array(24), false],
  ])('says of %o %s', (voxels, expected) => {
    expect(hasLabel(labelMap([4, 3, 2], oblique, voxels))).toBe(expected);
  });
});

describe('checkPlace()', () => {
  const size: Size = [10, 6, 4];
  /** Refused where the label map on `affine` does not lie where one of the volumes does. */
  const place = (value: Volume, ...given: Volume[]) => expect(() => checkPlace('segmentation', value, given));

  it('accepts the volume’s grid, also with its axes reordered', () => {
    place(labelMap(size, oblique), labelMap(size, oblique)).not.toThrow();
    // x of the label map is the volume's z, y its x backwards, z its y.
    const column = (c: number, sign = 1) => [0, 1, 2].map((r) => sign * oblique[4 * r + c]);
    const [x, y, z] = [column(2), column(0, -1), column(1)];
    const first = applyAffine(oblique, [9, 0, 0]);
    const turned = [0, 1, 2].flatMap((r) => [x[r], y[r], z[r], first[r]]).concat(0, 0, 0, 1);
    place(labelMap([4, 10, 6], turned), labelMap(size, oblique)).not.toThrow();
  });

  it('ignores label maps of another size, other values, and a missing volume', () => {
    const lost = straight([1, 1, 1]);
    place(labelMap([10, 6, 5], lost), labelMap(size, oblique)).not.toThrow();
    place(labelMap(size, lost)).not.toThrow();
    expect(() => checkPlace('text', 'words', [labelMap(size, oblique)])).not.toThrow();
  });

  it('refuses a lost affine, and says which size it has', () => {
    const lost = straight([1, 1, 1]);
    place(labelMap(size, lost), labelMap(size, oblique)).toThrow(refused());
    place(labelMap(size, lost), labelMap(size, oblique)).toThrow('10 × 6 × 4');
    place(labelMap([4, 10, 6], lost), labelMap(size, oblique)).toThrow(refused());
  });

  it('accepts a label map that fits any of the volumes', () => {
    const value = labelMap(size, straight([1, 2, 3]));
    place(value, labelMap(size, oblique), labelMap(size, straight([1, 2, 3]))).not.toThrow();
    place(value, labelMap(size, oblique), labelMap([9, 9, 9], straight([1, 2, 3]))).toThrow(refused());
  });

  // The label map says nothing of its place, so the outer edges decide: within the largest spacing, 2.5 mm.
  it.each<[Vec3, boolean]>([
    [[2.4, 0, 0], true],
    [[-2.4, 0, 0], true],
    [[2.6, 0, 0], false],
    [[0, 2.4, 0], true],
    [[0, 2.6, 0], false],
    [[0, -2.6, 0], false],
    [[0, 0, 2.4], true],
    [[0, 0, -2.6], false],
    [[1.7, 1.7, 0], true],
    [[1.9, 1.9, 0], false],
    [[0, 1.9, 1.9], false],
  ])('compares the edges of a default affine with a volume at %j: %s', (origin, isPlaced) => {
    const spacing: Vec3 = [1.2, 0.8, 2.5];
    const check = place(labelMap(size, straight(spacing)), labelMap(size, straight(spacing, origin)));
    if (isPlaced) check.not.toThrow();
    else check.toThrow(refused());
  });

  it('accepts a largest spacing between them, but no more', () => {
    const volume = labelMap(size, straight([1, 1, 2.5]));
    place(
      labelMap(size, straight([1, 1, 2.5])),
      labelMap(size, straight([1, 1, 2.5], [2.5, 0, 0])),
    ).not.toThrow();
    // The outer edge of the last voxel is 9.5 · 0.27 = 2.565 mm away; its centre would be 2.43.
    place(labelMap(size, straight([1.27, 1, 2.5])), volume).toThrow(refused());
    place(labelMap(size, straight([1.25, 1, 2.5])), volume).not.toThrow();
    // One corner of eight is near.
    place(labelMap(size, straight([2, 2, 5])), volume).toThrow(refused());
  });

  /** A grid of 3 mm in directions of its own, with its middle at a voxel index of the volume. */
  const around = (index: Vec3): Volume => {
    const directions = rotation(-0.2, 0.5, 1.1).map((v) => 3 * v);
    const rows = [0, 1, 2].map((r) => directions.slice(3 * r, 3 * r + 3));
    const middle = applyAffine(oblique, index);
    // Of 6 × 10 × 4 voxels the middle is at (2.5, 4.5, 1.5).
    const origin = rows.map(([x, y, z], r) => middle[r] - (2.5 * x + 4.5 * y + 1.5 * z));
    return labelMap([6, 10, 4], [...rows.flatMap((row, r) => [...row, origin[r]]), 0, 0, 0, 1]);
  };
  // The middle of 10 × 6 × 4 voxels is at (4.5, 2.5, 1.5); a quarter of the size is 2.5, 1.5 and 1 voxels.
  it.each<[Vec3, boolean]>([
    [[4.5, 2.5, 1.5], true],
    [[6.9, 2.5, 1.5], true],
    [[7.1, 2.5, 1.5], false],
    [[2.1, 2.5, 1.5], true],
    [[1.9, 2.5, 1.5], false],
    [[4.5, 3.9, 1.5], true],
    [[4.5, 4.1, 1.5], false],
    [[4.5, 1.1, 1.5], true],
    [[4.5, 0.9, 1.5], false],
    [[4.5, 2.5, 2.4], true],
    [[4.5, 2.5, 2.6], false],
    [[4.5, 2.5, 0.6], true],
    [[4.5, 2.5, 0.4], false],
  ])('compares the centre of an independent grid, at voxel %j: %s', (index, isPlaced) => {
    const check = place(around(index), labelMap(size, oblique));
    if (isPlaced) check.not.toThrow();
    else check.toThrow(refused());
  });

  it('accepts an independent grid around the centre of one or two slices', () => {
    for (const slices of [1, 2]) {
      const flat: Size = [10, 6, slices];
      const value = labelMap(flat, straight([3, 4, 2], [-13.5, -10, 0]));
      place(value, labelMap(flat, straight([1.2, 0.8, 2], [-5.4, -2, 0]))).not.toThrow();
    }
  });

  it('goes by the middle only where the label map says where it is', () => {
    // Both middles are at (14, 7.5, 4.5).
    const volume = labelMap(size, straight([1.2, 0.8, 2.5], [8.6, 5.5, 0.75]));
    place(labelMap(size, straight([3, 3, 3], [0.5, 0, 0])), volume).not.toThrow();
    place(labelMap(size, straight([3, 3, 3])), volume).toThrow(refused());
    place(labelMap(size, straight([3, 3, 3], [5e-7, 0, -5e-7])), volume).toThrow(refused());
  });
});

describe('asLabels()', () => {
  const as = (voxels: Voxels, more: Partial<Volume> = {}) =>
    asLabels('segmentation', { ...labelMap([4, 3, 2], oblique, voxels), ...more });

  it('hands uint8 and uint16 on as they are', () => {
    for (const voxels of [new Uint8Array(24), new Uint16Array(24).fill(65_535)]) {
      const value = labelMap([4, 3, 2], oblique, voxels);
      expect(asLabels('segmentation', value)).toBe(value);
    }
  });

  it.each<[Voxels, number, 'Uint8Array' | 'Uint16Array']>([
    [new Int16Array(24), 0, 'Uint8Array'],
    [new Float32Array(24), 255, 'Uint8Array'],
    [new Float64Array(24), 256, 'Uint16Array'],
    [new Int32Array(24), 65_535, 'Uint16Array'],
    [new BigInt64Array(24), 300, 'Uint16Array'],
    [new BigUint64Array(24), 1, 'Uint8Array'],
  ])('takes %o with the value %i for %s', (voxels, highest, type) => {
    const isBig = voxels instanceof BigInt64Array || voxels instanceof BigUint64Array;
    // The highest value neither comes first nor last.
    voxels[13] = isBig ? BigInt(highest) : highest;
    voxels[23] = isBig ? 1n : 1;
    const labels = as(voxels);
    expect(labels.voxels.constructor.name).toBe(type);
    expect(labels).toMatchObject({ size: [4, 3, 2], affine: oblique, components: 1 });
    expect(voxelAt(labels, [1, 0, 1])).toBe(highest);
    expect(voxelAt(labels, [3, 2, 1])).toBe(1);
    expect(voxelAt(labels, [0, 0, 0])).toBe(0);
  });

  it.each([-1, 65_536, 1.5, Number.NaN, Number.POSITIVE_INFINITY])('refuses the value %d anywhere', (bad) => {
    for (const at of [0, 11, 23]) {
      const voxels = new Float32Array(24);
      voxels[at] = bad;
      expect(() => as(voxels)).toThrow(refused());
      expect(() => as(voxels)).toThrow(`the value ${bad}.`);
    }
  });

  it('refuses anything but a volume of one component', () => {
    expect(() => asLabels('segmentation', 'text')).toThrow(refused());
    expect(() => as(new Uint8Array(48), { components: 2 })).toThrow(refused());
    expect(() => as(new Uint8Array(24), { components: 2 })).toThrow('one component');
  });

  it.each<[string, Partial<Volume>]>([
    ['a voxel too few', { voxels: new Uint8Array(23) }],
    ['a voxel too many', { voxels: new Uint8Array(25) }],
    ['an affine of 12 numbers', { affine: oblique.slice(0, 12) }],
    ['an affine of 17 numbers', { affine: [...oblique, 0] }],
    ['an affine that is not finite', { affine: oblique.map((v, i) => (i === 7 ? Number.NaN : v)) }],
  ])('refuses %s', (_, more) => {
    expect(() => as(new Uint8Array(24), more)).toThrow(refused());
    expect(() => as(new Uint8Array(24), more)).toThrow('4 × 3 × 2');
  });
});

describe('checkType()', () => {
  const volume = labelMap([1, 1, 1], oblique);
  const mesh = { positions: new Float32Array(9), triangles: Uint32Array.of(0, 1, 2) };
  const row = { value: 1, name: 'liver', voxels: 2, volumeMl: 0.5 };
  const grid = { kind: 'grid', displacement: volume };
  const linear = { kind: 'linear', matrix: oblique };
  const bspline = { kind: 'bspline', bytes: new Uint8Array(9) };
  const check = (type: string, value: unknown) =>
    expect(() => checkType('result', outputSchema.parse({ type }), value as OutputValue));

  it.each<[string, unknown]>([
    ['LabelVolume', volume],
    ['VTKMesh', mesh],
    ['Fiducials', [[1, -2.5, 3]]],
    ['Fiducials', []],
    ['PlainText', 'words'],
    ['PlainText', ''],
    ['Measurements', [row, { ...row, note: 'more' }]],
    ['Measurements', []],
    ['TransformGrid', grid],
    ['TransformBSpline', bspline],
    ['TransformLinear', linear],
  ])('accepts as %s %o', (type, value) => check(type, value).not.toThrow());

  const others = [volume, mesh, [[1, -2.5, 3]], 'words', [row], grid, bspline, linear, 7, true, null];
  it.each<[string, number]>([
    ['LabelVolume', 0],
    ['VTKMesh', 1],
    ['Fiducials', 2],
    ['PlainText', 3],
    ['Measurements', 4],
    ['TransformGrid', 5],
    ['TransformBSpline', 6],
    ['TransformLinear', 7],
  ])('refuses as %s what another type asks for', (type, own) => {
    for (const [i, value] of others.entries()) {
      if (i === own) continue;
      check(type, value).toThrow(refused('result'));
      check(type, value).toThrow(type);
    }
  });

  it.each<[string, unknown]>([
    [
      'Fiducials',
      [
        [1, 2, 3],
        [1, 2],
      ],
    ],
    ['Fiducials', [[1, 2, 3, 4]]],
    ['Fiducials', [[1, 2, Number.NaN]]],
    ['Fiducials', [[1, 2, 3], 'abc']],
    ['Fiducials', [{ length: 3, every: () => true }]],
    ['Fiducials', { every: () => true }],
    ['Measurements', { every: () => true }],
    ['Measurements', [row, null]],
    ['Measurements', [{ ...row, name: 7 }]],
    ['Measurements', [{ ...row, value: '1' }]],
    ['Measurements', [{ ...row, voxels: Number.NaN }]],
    ['Measurements', [{ ...row, volumeMl: undefined }]],
    ['VTKMesh', Object.assign(() => 0, mesh)],
  ])('refuses as %s %o', (type, value) => check(type, value).toThrow(refused('result')));
});
