import { describe, expect, it } from 'vitest';
import { voxelTypes } from '../volume.ts';
import { applyAffine, invert } from './affine.ts';
import { cropOrPad, flip, reorient, voxelMove } from './exact.ts';
import { allOrientations, oblique, patterned, voxelAt } from './fixtures.ts';
import { cropGrid, orientedGrid } from './grid.ts';
import { restore } from './restore.ts';

describe('reorient()', () => {
  it('moves every voxel with its place in the world, in all 48 orientations', () => {
    const volume = patterned([7, 5, 6], oblique, 'int16', 2);
    const back = invert(volume.affine);
    for (const axcodes of allOrientations) {
      const out = reorient(volume, axcodes);
      for (let z = 0; z < out.size[2]; z++) {
        for (let y = 0; y < out.size[1]; y++) {
          for (let x = 0; x < out.size[0]; x++) {
            const p = applyAffine(back, applyAffine(out.affine, [x, y, z]));
            const source = [Math.round(p[0]), Math.round(p[1]), Math.round(p[2])] as const;
            expect(Math.hypot(p[0] - source[0], p[1] - source[1], p[2] - source[2])).toBeLessThan(1e-6);
            for (const c of [0, 1]) expect(voxelAt(out, [x, y, z], c)).toBe(voxelAt(volume, source, c));
          }
        }
      }
    }
  });

  it('is undone bit for bit in every type, larger than a tile', () => {
    for (const type of voxelTypes) {
      const volume = patterned([70, 3, 41], oblique, type);
      if (volume.voxels instanceof BigInt64Array) volume.voxels[17] = -(2n ** 62n) - 1n;
      // A NaN with a payload, which arithmetic would lose.
      if (volume.voxels instanceof Float32Array) new Uint32Array(volume.voxels.buffer)[17] = 0x7fa12345;
      for (const axcodes of ['SAR', 'LIA', 'PSR', 'ILA']) {
        const there = reorient(volume, axcodes);
        expect(there.voxels.constructor).toBe(volume.voxels.constructor);
        expect(new Uint8Array(restore(there, volume).voxels.buffer)).toEqual(
          new Uint8Array(volume.voxels.buffer),
        );
      }
    }
  });
});

describe('cropOrPad()', () => {
  const volume = patterned([5, 4, 3], oblique, 'int16');

  it('copies what is inside and fills the rest, rounded and clamped to the type', () => {
    const out = cropOrPad(volume, [-1, 1, 0], [4, 5, 2], { value: 40_000.6 });
    expect(voxelAt(out, [1, 0, 0])).toBe(voxelAt(volume, [0, 1, 0]));
    expect(voxelAt(out, [3, 2, 1])).toBe(voxelAt(volume, [2, 3, 1]));
    expect(voxelAt(out, [0, 0, 0])).toBe(32767);
    expect(voxelAt(out, [1, 3, 0])).toBe(32767);
    const world = applyAffine(out.affine, [3, 2, 1]);
    applyAffine(volume.affine, [2, 3, 1]).forEach((v, k) => {
      expect(world[k]).toBeCloseTo(v, 9);
    });
  });

  it('gives only the fill where nothing is inside', () => {
    const out = cropOrPad(volume, [50, 0, 0], [2, 2, 2], { value: 7 });
    expect([...out.voxels]).toEqual([7, 7, 7, 7, 7, 7, 7, 7]);
    const nan = patterned([2, 2, 2], oblique, 'float32');
    expect(cropOrPad(nan, [2, 0, 0], [1, 1, 1], { value: Number.NaN }).voxels[0]).toBeNaN();
  });

  it('repeats and mirrors as numpy.pad, padding wider than the volume', () => {
    const line = patterned([3, 1, 1], oblique, 'uint8');
    line.voxels.set([1, 2, 3] as never);
    // np.pad([1, 2, 3], 5, mode='edge' | 'reflect')
    expect([...cropOrPad(line, [-5, 0, 0], [13, 1, 1], { mode: 'edge' }).voxels]).toEqual([
      1, 1, 1, 1, 1, 1, 2, 3, 3, 3, 3, 3, 3,
    ]);
    expect([...cropOrPad(line, [-5, 0, 0], [13, 1, 1], { mode: 'reflect' }).voxels]).toEqual([
      2, 1, 2, 3, 2, 1, 2, 3, 2, 1, 2, 3, 2,
    ]);
  });
});

describe('flip()', () => {
  it('reverses voxels and keeps their places', () => {
    const volume = patterned([5, 4, 3]);
    const out = flip(volume, ['y', 'z']);
    expect(voxelAt(out, [1, 0, 2])).toBe(voxelAt(volume, [1, 3, 0]));
    expect(restore(out, volume).voxels).toEqual(volume.voxels);
  });
});

describe('voxelMove()', () => {
  const grid = { size: [50, 40, 30] as const, affine: oblique };

  it('sees through the rounding of float32 headers', () => {
    const float32 = { ...grid, affine: oblique.map(Math.fround) };
    expect(voxelMove(grid, orientedGrid(float32, 'SPL'))).toBeDefined();
    expect(voxelMove(float32, cropGrid(grid, [3, -2, 1], [10, 10, 10]))?.offset).toEqual([3, -2, 1]);
  });

  it('takes no grid that lies between the voxels', () => {
    expect(voxelMove(grid, cropGrid(grid, [0.01, 0, 0], [10, 10, 10]))).toBeUndefined();
    const stretched = { ...grid, affine: oblique.map((v, i) => (i % 4 === 0 ? v * 1.001 : v)) };
    expect(voxelMove(grid, stretched)).toBeUndefined();
  });
});
