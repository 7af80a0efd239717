import { describe, expect, it } from 'vitest';
import { oblique, patterned } from '../geometry/fixtures.ts';
import { createMerged, mergeInto } from './merge.ts';

describe('mergeInto()', () => {
  const grid = { size: [5, 1, 1] as const, affine: oblique };
  const mapOf = (...voxels: number[]) => ({ voxels: Uint8Array.from(voxels), ...grid, components: 1 });

  it('writes listed values over what is there, and leaves it where a value is 0 or not listed', () => {
    const rules = [
      { from: 2, to: 4 },
      { from: 4, to: 1 },
    ];
    const merged = createMerged(grid, rules);
    mergeInto(merged, mapOf(2, 2, 4, 4, 0), rules);
    expect(merged.voxels).toEqual(Uint8Array.of(4, 4, 1, 1, 0));
    mergeInto(merged, mapOf(0, 4, 3, 9, 2), rules);
    expect(merged.voxels).toEqual(Uint8Array.of(4, 1, 1, 1, 4));
    expect([merged.size, merged.affine]).toEqual([grid.size, grid.affine]);
  });

  it('has room for the highest value of all rules', () => {
    const merged = createMerged(grid, [{ from: 1, to: 256 }]);
    mergeInto(merged, mapOf(1, 0, 1, 2, 0), [{ from: 1, to: 256 }]);
    expect(merged.voxels).toEqual(Uint16Array.of(256, 0, 256, 0, 0));
    expect(createMerged(grid, [{ from: 300, to: 255 }]).voxels).toBeInstanceOf(Uint8Array);
  });

  it('takes labels of other types', () => {
    const labels = patterned([5, 1, 1], oblique, 'float32');
    const merged = createMerged(grid, [{ from: 14, to: 3 }]);
    mergeInto(merged, labels, [{ from: 14, to: 3 }]);
    expect([...labels.voxels]).toEqual([0, 7, 14, 21, 28]);
    expect(merged.voxels).toEqual(Uint8Array.of(0, 0, 3, 0, 0));
  });
});
