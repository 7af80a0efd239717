import { describe, expect, it } from 'vitest';
import { applyAffine } from '../geometry/affine.ts';
import type { Volume } from '../volume.ts';
import { formatMl, type LabelMeasurement, measureLabels, mmDigits, volumeReport } from './measure.ts';

/** Oblique, left-handed, 0.8 × 1.5 × 2.5 mm. */
const affine = [-0.64, 0.9, 0, 12, 0.48, 1.2, 0, -7, 0, 0, 2.5, 30, 0, 0, 0, 1];
const size = [7, 5, 3] as const;

function box(
  value: number,
  min: number[],
  max: number[],
  voxels: Int16Array = new Int16Array(105),
): Volume & { voxels: Int16Array } {
  for (let z = min[2]; z <= max[2]; z++) {
    for (let y = min[1]; y <= max[1]; y++) {
      for (let x = min[0]; x <= max[0]; x++) voxels[(z * 5 + y) * 7 + x] = value;
    }
  }
  return { voxels, size, components: 1, affine };
}

describe('measureLabels()', () => {
  const map = box(9, [0, 0, 0], [0, 0, 2], box(4, [2, 1, 1], [5, 3, 2]).voxels);
  const labels = [
    { value: 4, name: 'prostate' },
    { value: 2, name: 'bladder' },
  ];

  it('counts voxels and millilitres in list order, then for unlisted values', () => {
    const found = measureLabels(map, labels);
    expect(found.map(({ value, name, voxels }) => [value, name, voxels])).toEqual([
      [4, 'prostate', 24],
      [2, 'bladder', 0],
      [9, 'label 9', 3],
    ]);
    expect(found[0].volumeMl).toBeCloseTo((24 * 0.8 * 1.5 * 2.5) / 1000, 12);
    expect(found[1]).toEqual({ value: 2, name: 'bladder', voxels: 0, volumeMl: 0 });
  });

  it('gives centroid and boxes in world mm', () => {
    const [found] = measureLabels(map, labels);
    const centre = applyAffine(affine, [3.5, 2, 1.5]);
    centre.forEach((v, k) => void expect(found.centroidMm![k]).toBeCloseTo(v, 10));
    expect(found.box).toEqual({ min: [2, 1, 1], max: [5, 3, 2] });
    // The box's edges lie half a voxel outside the outermost centres: compare with its eight corners.
    const corners = [1.5, 5.5].flatMap((x) =>
      [0.5, 3.5].flatMap((y) => [0.5, 2.5].map((z) => applyAffine(affine, [x, y, z]))),
    );
    for (let k = 0; k < 3; k++) {
      expect(found.boxMm!.min[k]).toBeCloseTo(Math.min(...corners.map((c) => c[k])), 10);
      expect(found.boxMm!.max[k]).toBeCloseTo(Math.max(...corners.map((c) => c[k])), 10);
    }
  });

  it('treats 0 as background, listed or not, and other values as labels', () => {
    const few = box(1, [6, 4, 2], [6, 4, 2], box(-1, [0, 0, 0], [0, 0, 0]).voxels);
    const named = [
      { value: 1, name: 'one' },
      { value: 0, name: 'background' },
      { value: -1, name: 'minus one' },
      { value: 5, name: 'five' },
    ];
    expect(measureLabels(few, named).map(({ name, voxels }) => [name, voxels])).toEqual([
      ['one', 1],
      ['minus one', 1],
      ['five', 0],
    ]);
    expect(measureLabels(few).map(({ name }) => name)).toEqual(['label -1', 'label 1']);
  });

  it('bounds a label in world mm on a sheared grid', () => {
    const sheared = [1, 0.5, -0.25, 10, 0.25, -2, 0.5, 20, 0.75, 0.125, 3, 30, 0, 0, 0, 1];
    const [found] = measureLabels({ ...box(3, [1, 2, 0], [2, 2, 2]), affine: sheared });
    // The centre is voxel (1.5, 2, 1); half a box are 1, 0.5 and 1.5 voxels.
    expect(found.centroidMm).toEqual([10 + 1.5 + 1 - 0.25, 20 + 0.375 - 4 + 0.5, 30 + 1.125 + 0.25 + 3]);
    const half = [1 + 0.25 + 0.375, 0.25 + 1 + 0.75, 0.75 + 0.0625 + 4.5];
    expect(found.boxMm).toEqual({
      min: half.map((v, k) => found.centroidMm![k] - v),
      max: half.map((v, k) => found.centroidMm![k] + v),
    });
  });

  it('measures many labels, negative and large values, in every type', () => {
    const voxels = Int32Array.from({ length: 105 }, (_, i) => (i % 53) * 40000 - 80000);
    for (const copy of [voxels, Float64Array.from(voxels), BigInt64Array.from(voxels, BigInt)]) {
      const found = measureLabels({ ...map, voxels: copy });
      expect(found).toHaveLength(52);
      expect(found.map(({ value }) => value)).toEqual(
        [...new Set(voxels)].filter((v) => v !== 0).sort((a, b) => a - b),
      );
      expect(found.every((m) => m.voxels === voxels.filter((v) => v === m.value).length)).toBe(true);
    }
  });
});

describe('volumeReport()', () => {
  it('lists available values in columns and names the missing ones', () => {
    const text = volumeReport(
      measureLabels(box(4, [2, 1, 1], [5, 3, 2]), [
        { value: 4, name: 'prostate' },
        { value: 2, name: 'bladder' },
      ]),
    );
    const lines = text.split('\n');
    expect(lines[0]).toBe('Label     Value  Voxels  Volume (ml)  Centre R, A, S (mm)');
    expect(lines[1]).toMatch(/^prostate {6}4 {6}24 {8}0\.072 {5}11\.6, -2\.9, 33\.8$/);
    expect(lines[2]).toBe('Not found: bladder');
    expect(volumeReport(measureLabels(box(0, [0, 0, 0], [0, 0, 0])))).toBe('No label has a voxel.\n');
  });

  it.each([
    // mm of a cubic voxel, and the millilitres of its 24 voxels: 24 × mm³ / 1000.
    [20, '192'],
    [8, '12.3'],
    [4, '1.54'],
    [2, '0.192'],
  ])('shows three digits of millilitres for voxels of %d mm', (mm, ml) => {
    const map = {
      ...box(4, [2, 1, 1], [5, 3, 2]),
      affine: [mm, 0, 0, 0, 0, mm, 0, 0, 0, 0, mm, 0, 0, 0, 0, 1],
    };
    expect(
      volumeReport(measureLabels(map))
        .split('\n')[1]
        .split(/\s{2,}/)[3],
    ).toBe(ml);
  });

  it('aligns available values, and names all missing ones in one line', () => {
    const labels: LabelMeasurement[] = [
      { value: 1, name: 'a', voxels: 1_000_000_000, volumeMl: 1_234_567, centroidMm: [-100.25, 0, 1234.56] },
      { value: 30_000, name: 'left kidney', voxels: 5, volumeMl: 0.5 },
      { value: 2, name: 'b', voxels: 0, volumeMl: 0 },
      { value: 3, name: 'c d', voxels: 0, volumeMl: 0 },
    ];
    expect(volumeReport(labels)).toBe(
      [
        'Label        Value      Voxels  Volume (ml)  Centre R, A, S (mm)',
        'a                1  1000000000      1234567  -100.3, 0.0, 1234.6',
        'left kidney  30000           5        0.500',
        'Not found: b, c d',
        '',
      ].join('\n'),
    );
    expect(volumeReport(labels.slice(2))).toBe('No label has a voxel. b, c d\n');
    expect(volumeReport(labels.slice(1, 2)).split('\n')).toHaveLength(3);
  });

  it.each([
    // A cubic voxel of this spacing in mm; the centre is at 0.12345 mm.
    [0.10002, '0.1'],
    [0.09998, '0.123'],
    [0.0101, '0.123'],
    [0.0099, '0.1235'],
  ])('gives the centre as exactly as voxels of %d mm need', (mm, text) => {
    const label: LabelMeasurement = {
      value: 1,
      name: 'a',
      voxels: 7,
      volumeMl: (7 * mm ** 3) / 1000,
      centroidMm: [0.12345, 0.12345, 0.12345],
    };
    expect(volumeReport([label]).split('\n')[1]).toMatch(new RegExp(` ${text}, ${text}, ${text}$`));
  });

  it('shows three digits of volumes and places in micrometres', () => {
    const micrometres = affine.map((v, i) => (i < 12 ? v / 2000 : v));
    const map = { ...box(4, [2, 1, 1], [5, 3, 2]), affine: micrometres };
    // 24 voxels of 0.4 × 0.75 × 1.25 µm are 9 µm³; their centre is (11.56, -2.92, 33.75) / 2000.
    expect(volumeReport(measureLabels(map)).split('\n')[1]).toMatch(
      /^label 4 {6}4 {6}24 {2}0\.00000000000900 {2}0\.00578, -0\.00146, 0\.01688$/,
    );
  });
});

describe('formatMl()', () => {
  it.each([
    [0, '0.000'],
    [1234.5, '1235'],
    [123.45, '123'],
    [100, '100'],
    [99.94, '99.9'],
    [12.345, '12.3'],
    [10, '10.0'],
    [1.234, '1.23'],
    [1, '1.00'],
    [0.9994, '0.999'],
    [0.1234, '0.123'],
    [0.0123, '0.012'],
    [0.01, '0.010'],
    [0.00988, '0.00988'],
    [5.487e-8, '0.0000000549'],
    [9.994, '9.99'],
    [0.001, '0.00100'],
    [1.23e-18, '0.00000000000000000123'],
    [1.23e-19, '0.00000000000000000012'],
    [1e-25, '0.00000000000000000000'],
  ])('%d ml is %s', (ml, text) => {
    expect(formatMl(ml)).toBe(text);
  });
});

describe('mmDigits()', () => {
  it.each([
    [2.5, 1],
    [0.1, 1],
    [0.0999, 3],
    [0.05, 3],
    [0.001, 4],
    [0.0004, 5],
    [1e-11, 12],
    [1e-15, 12],
    [0, 1],
    [Number.NaN, 1],
  ])('of %d mm is %i', (mm, digits) => {
    expect(mmDigits(mm)).toBe(digits);
  });
});
