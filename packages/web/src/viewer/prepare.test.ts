import { type Affine, applyAffine, type Vec3, type Volume } from '@tomaat/core';
import { describe, expect, it } from 'vitest';
import { factorFor, prepare, reducedGrid, reduceVolume } from './prepare.ts';

/**
 * Oblique, anisotropic, left-handed: columns of 2, 0.7 and 5 mm along the orthogonal unit vectors (2, 3, 6)/7,
 * (3, -6, 2)/7 and (-6, -2, 3)/7.
 */
// biome-ignore format: four rows.
const affine: Affine = [
  4 / 7, 0.3, -30 / 7, 10,
  6 / 7, -0.6, -10 / 7, -20,
  12 / 7, 0.2, 15 / 7, 30,
  0, 0, 0, 1,
];
const [nx, ny, nz] = [8, 6, 4];
const valueAt = ([x, y, z]: readonly number[]) => 3 * x + 50 * y - 700 * z;
const places = Array.from({ length: nx * ny * nz }, (_, i) => [
  i % nx,
  Math.floor(i / nx) % ny,
  Math.floor(i / (nx * ny)),
]) as unknown as Vec3[];
const volume: Volume = {
  size: [nx, ny, nz],
  components: 1,
  affine,
  voxels: Float32Array.from(places, valueAt),
};

const mean = (values: readonly number[]) => values.reduce((sum, v) => sum + v, 0) / values.length;

describe('reduceVolume()', () => {
  it('puts each centre and value at the mean of its 8 voxels', () => {
    const small = reduceVolume(volume, 2, 'mean');
    expect(small.size).toEqual([4, 3, 2]);
    small.voxels.forEach((value, i) => {
      const cell = [i % 4, Math.floor(i / 4) % 3, Math.floor(i / 12)] as const;
      const block = places.filter((place) => place.every((v, axis) => v >> 1 === cell[axis]));
      expect(block).toHaveLength(8);
      const world = block.map((place) => applyAffine(affine, place));
      const centre = applyAffine(small.affine, cell);
      for (const axis of [0, 1, 2]) expect(centre[axis]).toBeCloseTo(mean(world.map((p) => p[axis])), 10);
      expect(value).toBeCloseTo(mean(block.map(valueAt)), 4);
    });
  });

  it('takes a label of the block, never a mean', () => {
    const voxels = Uint8Array.from(places, ([x, y, z]) => ((x + y + z) % 2 === 0 ? 4 : 9));
    const small = reduceVolume({ ...volume, voxels }, 2, 'nearest');
    expect(new Set(small.voxels as Uint8Array)).toEqual(new Set([9]));
    expect(small.voxels).toBeInstanceOf(Uint8Array);
  });

  it('keeps the first voxels in their place where a size is odd', () => {
    const odd: Volume = {
      size: [5, 1, 3],
      components: 1,
      affine,
      voxels: Int16Array.from({ length: 15 }, (_, i) => i),
    };
    const small = reduceVolume(odd, 2, 'mean');
    expect(small.size).toEqual([3, 1, 2]);
    // Means of the voxels that exist: 0 1 5 6, 2 3 7 8, 4 9; 10 11, 12 13, 14.
    expect([...small.voxels]).toEqual([3, 5, 7, 11, 13, 14]);
    expect(small.affine).toEqual(reducedGrid(odd, 2).affine);
  });

  it('is the volume itself by the factor 1, of its first component', () => {
    const two: Volume = { ...volume, components: 2, voxels: Float32Array.from({ length: 384 }, (_, i) => i) };
    const same = reduceVolume(two, 1, 'mean');
    expect([same.affine, same.components, same.voxels.length, same.voxels[191]]).toEqual([
      affine,
      1,
      192,
      191,
    ]);
  });
});

describe('prepare()', () => {
  it('gives the range of all voxels, whatever is drawn', async () => {
    const voxels = Float32Array.from(volume.voxels as Float32Array);
    voxels.set([Number.NaN, 5000, Number.POSITIVE_INFINITY, -9000]);
    const { lowest, highest } = await prepare({ ...volume, voxels }, 2, 'mean');
    expect([lowest, highest]).toEqual([-9000, 5000]);
  });
});

describe('factorFor()', () => {
  it.each([
    [[128, 128, 128], 2_200_000, 1],
    [[256, 256, 256], 2_200_000, 2],
    [[512, 512, 400], 2_200_000, 4],
    [[512, 512, 400], 17_000_000, 2],
    [[512, 512, 400], Number.POSITIVE_INFINITY, 1],
  ] as const)('of %j for at most %d voxels', (size, most, factor) => {
    expect(factorFor(size, most)).toBe(factor);
  });
});
