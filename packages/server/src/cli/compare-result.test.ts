import { reorient, type Volume } from '@tomaat/core';
import { describe, expect, it } from 'vitest';
import { compareWith, comparisonLines, labelsBelow } from './compare-result.ts';

// Oblique, left-handed, anisotropic; a voxel is 1.5 × 2 × 4 mm = 0.012 ml: the first two columns are turned by the 3-4-5 triangle.
const affine: Volume['affine'] = [1.2, 1.2, 0, 30, 0.9, -1.6, 0, -40, 0, 0, 4, 12, 0, 0, 0, 1];

/** 5 × 4 × 3 voxels, with label 1 in `ones` and label 7 in `sevens`. */
function labelMap(ones: readonly number[], sevens: readonly number[] = []): Volume {
  const voxels = new Uint8Array(60);
  for (const i of ones) voxels[i] = 1;
  for (const i of sevens) voxels[i] = 7;
  return { voxels, size: [5, 4, 3], components: 1, affine };
}

describe('compareWith()', () => {
  const expected = labelMap([0, 1, 2, 6], [40, 41]);
  const found = labelMap([1, 2, 6, 7], [40]);

  it('counts voxels and millilitres of each label, by hand', () => {
    const compared = compareWith(found, expected, 'ref.nii', [{ value: 1, name: 'liver' }]);
    expect(compared).toMatchObject({ voxels: 60, differ: 3, agree: 0.95 });
    const [liver, seven] = compared.labels;
    expect(liver).toMatchObject({ value: 1, name: 'liver', dice: 0.75 });
    expect(seven).toMatchObject({ value: 7, name: 'label 7' });
    expect(seven.dice).toBeCloseTo(2 / 3, 12);
    expect(
      [liver.foundMl, liver.expectedMl, seven.foundMl, seven.expectedMl].map((ml) => ml.toFixed(6)),
    ).toEqual(['0.048000', '0.048000', '0.012000', '0.024000']);
    expect(labelsBelow(compared, 0.7).map(({ value }) => value)).toEqual([7]);
    const lines = comparisonLines(compared).join('\n');
    expect(lines).toContain('3 of 60 voxels differ (95 % agree)');
    expect(lines).toMatch(/liver +0\.7500 +0\.048 ml +0\.048 ml/);
    expect(lines).toMatch(/label 7 +0\.6666/);
  });

  it.each(['LPS', 'SAR', 'PIR'])('finds the same where the result is stored as %s', (axcodes) => {
    const compared = compareWith(reorient(found, axcodes), expected, 'ref.nii', []);
    expect(compared).toEqual(compareWith(found, expected, 'ref.nii', []));
    expect(comparisonLines(compareWith(reorient(expected, axcodes), expected, 'ref.nii', []))[0]).toBe(
      '  equal to ref.nii: all 60 voxels',
    );
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
    expect(() => compareWith(found, other, 'ref.nii', [])).toThrow(message);
  });
});
