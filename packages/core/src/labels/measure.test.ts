import { describe, expect, it } from 'vitest';
import { applyAffine } from '../geometry/affine.ts';
import type { Volume } from '../volume.ts';
import { dice, diceOfLabels } from './dice.ts';
import { measureLabels, volumeReport } from './measure.ts';

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

  it('counts voxels and millilitres in the order of the list, then the values that are not listed', () => {
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
  it('lists what is there in columns and names what is not', () => {
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
});

describe('dice()', () => {
  const a = box(1, [0, 0, 0], [3, 3, 1]);
  const b = box(1, [2, 0, 0], [5, 3, 1]);

  it('is twice the overlap over the sum, 1 when both are empty', () => {
    expect(dice(a, b)).toBe(0.5);
    expect(dice(a, a, 1)).toBe(1);
    expect(dice(a, b, 2)).toBe(1);
    expect(dice(a, box(2, [0, 0, 0], [3, 3, 1]), 1)).toBe(0);
  });

  it('refuses label maps on different grids', () => {
    expect(() => dice(a, { ...b, affine: affine.map((v, i) => (i === 3 ? v + 1 : v)) })).toThrow(
      /different grids/,
    );
    expect(() => dice(a, { ...b, size: [5, 7, 3] })).toThrow(/different grids/);
  });

  it('diceOfLabels() gives each label that either map has', () => {
    const both = box(3, [6, 4, 2], [6, 4, 2], b.voxels.slice());
    expect([...diceOfLabels(a, both)]).toEqual([
      [1, 0.5],
      [3, 0],
    ]);
  });
});
