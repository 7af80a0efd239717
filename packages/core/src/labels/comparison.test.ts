import { describe, expect, it } from 'vitest';
import { reorient } from '../geometry/exact.ts';
import type { Volume } from '../volume.ts';
import { compareLabelMaps, differenceMap } from './comparison.ts';

// Oblique, left-handed, anisotropic; a voxel is 1.5 × 2 × 4 mm = 0.012 ml: the first two columns are turned by the 3-4-5 triangle.
const affine: Volume['affine'] = [1.2, 1.2, 0, 30, 0.9, -1.6, 0, -40, 0, 0, 4, 12, 0, 0, 0, 1];

/** 5 × 4 × 3 voxels, with label 1 in `ones` and label 7 in `sevens`. */
function labelMap(ones: readonly number[], sevens: readonly number[] = []): Volume {
  const voxels = new Uint8Array(60);
  for (const i of ones) voxels[i] = 1;
  for (const i of sevens) voxels[i] = 7;
  return { voxels, size: [5, 4, 3], components: 1, affine };
}

const files = { expected: 'ref.nii' };
const expected = labelMap([0, 1, 2, 6], [40, 41]);
const found = labelMap([1, 2, 6, 7], [40]);

describe('compareLabelMaps()', () => {
  it('counts voxels and millilitres of each label, by hand', () => {
    const compared = compareLabelMaps(found, expected, files, [{ value: 1, name: 'liver' }]);
    expect(compared).toMatchObject({ voxels: 60, differ: 3, agree: 0.95 });
    const [liver, seven] = compared.labels;
    expect(liver).toMatchObject({ value: 1, name: 'liver', dice: 0.75 });
    expect(seven).toMatchObject({ value: 7, name: 'label 7' });
    expect(seven.dice).toBeCloseTo(2 / 3, 12);
    expect(
      [liver.foundMl, liver.expectedMl, seven.foundMl, seven.expectedMl].map((ml) => ml.toFixed(6)),
    ).toEqual(['0.048000', '0.048000', '0.012000', '0.024000']);
    // Voxel 0 is 1.5 mm from voxel 1, and voxel 7 from voxel 2 by y (2 mm), from 6 by x (1.5 mm).
    expect(liver.surface?.hausdorff).toBeCloseTo(1.5, 12);
    expect(liver.surface?.mean).toBeCloseTo(3 / 8, 12);
    expect(seven.surface?.mean).toBeCloseTo(1.5 / 3, 12);
  });

  it('has no distance for a label of one map alone', () => {
    const { labels } = compareLabelMaps(labelMap([1]), labelMap([], [40]), files);
    expect(labels.map(({ value, dice, surface }) => [value, dice, surface])).toEqual([
      [1, 0, undefined],
      [7, 0, undefined],
    ]);
  });

  it.each(['LPS', 'SAR', 'PIR'])('finds the same where the result is stored as %s', (axcodes) => {
    const compared = compareLabelMaps(reorient(found, axcodes), expected, files);
    expect(compared).toEqual(compareLabelMaps(found, expected, files));
    expect(compareLabelMaps(reorient(expected, axcodes), expected, files).differ).toBe(0);
  });

  const moved = (change: (affine: number[]) => void): Volume => {
    const other = [...affine];
    change(other);
    return { ...expected, affine: other as unknown as Volume['affine'] };
  };
  it.each([
    [
      'another size',
      { ...expected, voxels: new Uint8Array(40), size: [5, 4, 2] } as Volume,
      /5 × 4 × 3 voxels, and ref\.nii has 5 × 4 × 2/,
    ],
    ['another place', moved((m) => (m[3] += 2)), /first voxels are 2 mm apart/],
    [
      'another spacing',
      moved((m) => (m[10] = 5)),
      /voxels are 1\.5 × 2 × 4 mm, and those of ref\.nii 1\.5 × 2 × 5 mm/,
    ],
    ['fractions', { ...expected, voxels: new Float32Array(60).fill(0.5) }, /ref\.nii is not a label map/],
  ])('refuses %s, and says how it differs', (_, other, message) => {
    expect(() => compareLabelMaps(found, other, files)).toThrow(message);
  });
});

describe('differenceMap()', () => {
  it('marks where the maps differ, whatever the order of the axes', () => {
    const replaced = labelMap([0, 1, 2, 6, 41], [40]);
    for (const axcodes of ['RPS', 'SAL', 'PIR']) {
      const map = differenceMap(reorient(found, axcodes), replaced, files);
      expect(map).toMatchObject({ size: [5, 4, 3], affine });
      expect([...map.voxels].flatMap((value, i) => (value === 0 ? [] : [[i, value]]))).toEqual([
        [0, 2],
        [7, 1],
        [41, 2],
      ]);
    }
    const other = differenceMap(labelMap([40], [41]), labelMap([41], [40]), files);
    expect([other.voxels[40], other.voxels[41]]).toEqual([3, 3]);
    const one = differenceMap(labelMap([40], [41]), labelMap([41], [40]), files, 7);
    expect([one.voxels[40], one.voxels[41]]).toEqual([2, 1]);
  });
});
