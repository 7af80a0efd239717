import { describe, expect, it } from 'vitest';
import { reorient } from '../geometry/exact.ts';
import type { Volume } from '../volume.ts';
import { compareLabels, describeAgreement, describeWhere, formatAgreement, worstLabel } from './agreement.ts';
import { leftHanded, shape, sheared } from './fixtures.ts';

/** Two boxes that touch, labels 1 and 2, on an anisotropic, left-handed, rotated grid. */
const boxes = shape([12, 10, 8], leftHanded, (x, y, z) => {
  if (y < 2 || y > 7 || z < 2 || z > 5) return 0;
  return x >= 2 && x < 6 ? 1 : x >= 6 && x < 10 ? 2 : 0;
});
const at = (x: number, y: number, z: number) => (z * 10 + y) * 12 + x;
const changed = (change: (voxels: Uint8Array) => void): Volume => {
  const voxels = Uint8Array.from(boxes.voxels as Uint8Array);
  change(voxels);
  return { ...boxes, voxels };
};
/** The map with every label taken from the voxel at (x − dx, …). */
const moved = ([dx, dy, dz]: readonly number[]) =>
  changed((voxels) => {
    const source = boxes.voxels as Uint8Array;
    voxels.fill(0);
    for (let z = 1; z < 7; z++)
      for (let y = 1; y < 9; y++)
        for (let x = 1; x < 11; x++) voxels[at(x + dx, y + dy, z + dz)] = source[at(x, y, z)];
  });

describe('compareLabels()', () => {
  it('finds no difference between a map and itself', () => {
    const same = compareLabels(boxes, boxes);
    expect(same).toEqual({
      voxels: 960,
      differ: 0,
      agree: 1,
      sameGrid: true,
      labels: [
        { value: 1, dice: 1, expected: 96, found: 96 },
        { value: 2, dice: 1, expected: 96, found: 96 },
      ],
      where: { labelBorder: 0, outerShell: 0, replaced: [] },
    });
    expect(describeWhere(same)).toEqual([]);
    expect(describeAgreement(same)).toBe('all 960 voxels agree');
  });

  it('compares by world position where the axes are stored otherwise', () => {
    const other = compareLabels(reorient(boxes, 'SPL'), boxes);
    expect(other.sameGrid).toBe(false);
    expect(other.differ).toBe(0);
  });

  it('counts the differing voxels and the Dice of each label', () => {
    // Six voxels of label 1 become 2, four of the background become 3.
    const found = changed((voxels) => {
      for (let y = 2; y < 8; y++) voxels[at(5, y, 3)] = 2;
      for (let y = 2; y < 6; y++) voxels[at(0, y, 3)] = 3;
    });
    const { differ, agree, labels } = compareLabels(found, boxes);
    expect(differ).toBe(10);
    expect(agree).toBeCloseTo(950 / 960, 12);
    expect(labels).toEqual([
      { value: 1, dice: 180 / 186, expected: 96, found: 90 },
      { value: 2, dice: 192 / 198, expected: 96, found: 102 },
      { value: 3, dice: 0, expected: 0, found: 4 },
    ]);
    expect(worstLabel(labels)).toMatchObject({ value: 3, dice: 0 });
  });

  it('tells differences at borders of labels from those inside', () => {
    const border = compareLabels(
      changed((voxels) => {
        for (let y = 2; y < 8; y++) voxels[at(5, y, 2 + (y % 4))] = 2;
      }),
      boxes,
    );
    expect(border.where).toMatchObject({ labelBorder: 6, outerShell: 0 });
    expect(describeWhere(border)).toContain('100 % at borders of labels');
    const inside = compareLabels(
      changed((voxels) => {
        voxels[at(4, 4, 3)] = 0;
        voxels[at(3, 4, 4)] = 2;
      }),
      boxes,
    );
    expect(inside.where.labelBorder).toBe(0);
  });

  it('finds differences in the outermost layer', () => {
    const { where } = compareLabels(
      changed((voxels) => {
        for (let x = 0; x < 12; x++) voxels[at(x, 0, x % 8)] = 1;
      }),
      boxes,
    );
    expect(where).toMatchObject({ outerShell: 12, plane: { axis: 'y', index: 0, differ: 12 } });
  });

  it('finds the plane that holds the differences', () => {
    const found = compareLabels(
      changed((voxels) => {
        for (let y = 2; y < 8; y++) for (let x = 2; x < 10; x++) voxels[at(x, y, 4)] = 0;
        voxels[at(2, 2, 2)] = 0;
      }),
      boxes,
    );
    expect(found.where.plane).toEqual({ axis: 'z', index: 4, differ: 48 });
    expect(describeWhere(found)).toContain('97 % in the plane z = 4');
  });

  it('finds labels that were exchanged, and one that is missing', () => {
    const swapped = compareLabels(
      changed((voxels) => {
        for (const [i, v] of voxels.entries()) voxels[i] = v === 0 ? 0 : 3 - v;
      }),
      boxes,
    );
    expect(swapped.where.replaced).toEqual([
      { value: 1, by: 2, voxels: 96 },
      { value: 2, by: 1, voxels: 96 },
    ]);
    expect(describeWhere(swapped)).toContain('label 1 is 2 (96 voxels)');
    const missing = compareLabels(
      changed((voxels) => {
        for (const [i, v] of voxels.entries()) if (v === 2) voxels[i] = 0;
      }),
      boxes,
    );
    expect(describeWhere(missing)).toContain('label 2 is missing (96 voxels are 0)');
  });

  it.each([
    [1, 0, 0],
    [0, -1, 0],
    [-1, 1, 1],
  ])('finds a shift by (%i, %i, %i) voxels', (...shift) => {
    const found = compareLabels(moved(shift), boxes);
    expect(found.where.shift).toEqual(shift);
    expect(describeWhere(found)).toContain(`the labels lie further by (${shift.join(', ')}) voxels`);
  });

  it('finds no shift where labels are exchanged', () => {
    const swapped = changed((voxels) => {
      for (const [i, v] of voxels.entries()) if (v === 2) voxels[i] = 1;
    });
    expect(compareLabels(swapped, boxes).where.shift).toBeUndefined();
  });

  it('counts a found map that lies elsewhere as background', () => {
    const away = { ...boxes, affine: sheared.map((v, i) => (i === 3 ? v + 500 : v)) };
    const { differ, labels } = compareLabels(away, boxes);
    expect(differ).toBe(192);
    expect(labels.map(({ dice }) => dice)).toEqual([0, 0]);
  });

  it('refuses a volume that is not a label map', () => {
    const voxels = Float32Array.from(boxes.voxels as Uint8Array, (v) => v / 2);
    expect(() => compareLabels({ ...boxes, voxels }, boxes)).toThrow('not a label map');
  });
});

describe('formatAgreement()', () => {
  it.each([
    [1, '100 %'],
    [1 - 1e-9, '99.999 %'],
    [0.99942, '99.942 %'],
    [0.5, '50 %'],
  ])('writes %d as %s: 100 % only where no voxel differs', (agree, text) => {
    expect(formatAgreement(agree)).toBe(text);
  });
});
