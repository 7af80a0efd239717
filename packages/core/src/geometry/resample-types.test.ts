import { describe, expect, it } from 'vitest';
import { voxelTypeOf, voxelTypes } from '../volume.ts';
import { applyAffine, invert } from './affine.ts';
import { oblique, patterned, voxelAt } from './fixtures.ts';
import { cropGrid, orientedGrid } from './grid.ts';
import { interpolations, resample } from './resample.ts';

describe('resample() in every type', () => {
  it.each([
    ['uint8', 'float32'],
    ['int8', 'float32'],
    ['uint16', 'float32'],
    ['int16', 'float32'],
    ['uint32', 'float64'],
    ['int32', 'float64'],
    ['uint64', 'float64'],
    ['int64', 'float64'],
    ['float32', 'float32'],
    ['float64', 'float64'],
  ] as const)('makes of %s %s where it interpolates, and keeps it where it does not', (type, wide) => {
    const volume = patterned([4, 3, 2], oblique, type);
    for (const grid of [volume, cropGrid(volume, [0.3, 0.6, 0.2], [3, 2, 1])]) {
      for (const mode of ['linear', 'cubic', undefined] as const)
        expect(voxelTypeOf(resample(volume, grid, { mode }).voxels)).toBe(wide);
      for (const options of [{ mode: 'nearest' }, { label: true }, { label: true, mode: 'nearest' }] as const)
        expect(voxelTypeOf(resample(volume, grid, options).voxels)).toBe(type);
      expect(voxelTypeOf(resample(volume, grid, { mode: 'nearest', type: 'int16' }).voxels)).toBe('int16');
      expect(voxelTypeOf(resample(volume, grid, { type: 'uint8' }).voxels)).toBe('uint8');
    }
  });

  it.each(voxelTypes)('gathers every component of %s by itself, and fills around', (type) => {
    const volume = patterned([5, 4, 3], oblique, type, 3);
    const back = invert(volume.affine);
    // A third of a voxel off, so that nothing is halfway; from the inside outward, and the other way round.
    for (const grid of [
      cropGrid(volume, [0.3, 0.3, 0.3], [7, 5, 4]),
      orientedGrid(cropGrid(volume, [-1.7, -0.7, -0.7], [6, 4, 3]), 'SLA'),
    ]) {
      for (const options of [
        { fill: 77 },
        { fill: 77, type: 'float32' },
        { fill: 77, type: 'int16' },
      ] as const) {
        const out = resample(volume, grid, { mode: 'nearest', ...options });
        const expected: number[] = [];
        for (let c = 0; c < 3; c++)
          for (let z = 0; z < grid.size[2]; z++)
            for (let y = 0; y < grid.size[1]; y++)
              for (let x = 0; x < grid.size[0]; x++) {
                const p = applyAffine(back, applyAffine(grid.affine, [x, y, z])).map(Math.round);
                const isIn = p.every((v, k) => v >= 0 && v < volume.size[k]);
                expected.push(isIn ? voxelAt(volume, [p[0], p[1], p[2]], c) : 77);
              }
        expect([...out.voxels].map(Number)).toEqual(expected);
        expect(out).toMatchObject({ size: grid.size, components: 3, affine: grid.affine });
      }
    }
  });

  it.each(interpolations)('interpolates every component by itself: %s', (mode) => {
    const volume = patterned([5, 4, 3], oblique, 'float32', 3);
    const grid = cropGrid(volume, [-0.7, 0.3, 0.4], [5, 3, 2]);
    for (const type of ['float32', 'float64', 'int16'] as const) {
      const parts = [0, 1, 2].flatMap((c) => {
        const one = { ...volume, components: 1, voxels: volume.voxels.subarray(c * 60, (c + 1) * 60) };
        return [...resample(one, grid, { mode, type, fill: -3 }).voxels].map(Number);
      });
      const out = resample(volume, grid, { mode, type, fill: -3 });
      expect([...out.voxels].map(Number)).toEqual(parts);
      expect(out.components).toBe(3);
      expect(parts).toContain(-3);
    }
  });

  it('fills with 0 by default', () => {
    const volume = patterned([3, 3, 3], oblique, 'uint8');
    for (const mode of interpolations) {
      for (const off of [5, 5.3]) {
        const out = resample(volume, cropGrid(volume, [off, 0, 0], [2, 1, 1]), { mode });
        expect([...out.voxels]).toEqual([0, 0]);
      }
    }
  });

  it('copies exactly where a grid moves by whole voxels, beyond the volume too', () => {
    const volume = patterned([4, 3, 5], oblique, 'float32');
    volume.voxels.set([0.1, Number.POSITIVE_INFINITY, 0.3, 1e30] as never, 20);
    for (const mode of interpolations) {
      for (const outside of ['fill', undefined] as const) {
        const out = resample(volume, cropGrid(volume, [-1, 0, 0], [6, 3, 5]), { mode, outside, fill: -9 });
        const rows = Array.from({ length: 15 }, (_, i) => [
          -9,
          ...volume.voxels.subarray(i * 4, i * 4 + 4),
          -9,
        ]);
        expect([...out.voxels]).toEqual(rows.flat());
      }
      // Nothing lies outside here, so the edge makes no difference.
      const inner = resample(volume, cropGrid(volume, [1, 1, 0], [3, 2, 5]), { mode, outside: 'edge' });
      const expected = [0, 1, 2, 3, 4].flatMap((z) =>
        [1, 2].flatMap((y) => [1, 2, 3].map((x) => voxelAt(volume, [x, y, z]))),
      );
      expect([...inner.voxels]).toEqual(expected);
    }
  });
});
