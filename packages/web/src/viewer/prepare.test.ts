import { type Affine, applyAffine, type Grid, invert, multiply, type Vec3, type Volume } from '@tomaat/core';
import { describe, expect, it } from 'vitest';
import { labelsOn } from './labels-on.ts';
import { prepare } from './prepare.ts';
import { createReducer, factorFor, reducedGrid, reduceVolume } from './reduce.ts';

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
    const small = reduceVolume(volume, 2);
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

  it('keeps the first voxels in their place where a size is odd', () => {
    const odd: Volume = {
      size: [5, 1, 3],
      components: 1,
      affine,
      voxels: Int16Array.from({ length: 15 }, (_, i) => i),
    };
    const small = reduceVolume(odd, 2);
    expect(small.size).toEqual([3, 1, 2]);
    // Means of the voxels that exist: 0 1 5 6, 2 3 7 8, 4 9; 10 11, 12 13, 14.
    expect([...small.voxels]).toEqual([3, 5, 7, 11, 13, 14]);
    expect(small.affine).toEqual(reducedGrid(odd, 2).affine);
  });

  it('is the volume itself by the factor 1, of its first component', () => {
    const two: Volume = { ...volume, components: 2, voxels: Float32Array.from({ length: 384 }, (_, i) => i) };
    const same = reduceVolume(two, 1);
    expect([same.affine, same.components, same.voxels.length, same.voxels[191]]).toEqual([
      affine,
      1,
      192,
      191,
    ]);
  });
});

describe('createReducer()', () => {
  it.each([
    [2, [2, 2]],
    [2, [4]],
    // The last block reaches beyond the volume.
    [4, [4]],
    [3, [3, 1]],
  ])('makes the same of slabs, by the factor %d of %j planes', (factor, slabs) => {
    const reducer = createReducer(volume, factor);
    let z = 0;
    for (const planes of slabs) {
      reducer.add((volume.voxels as Float32Array).subarray(nx * ny * z, nx * ny * (z + planes)));
      z += planes;
    }
    const { reduced, range } = reducer.finish();
    expect(reduced.affine).toEqual(reducedGrid(volume, factor).affine);
    const cells = places.map((place) => place.map((v) => Math.floor(v / factor)));
    const [mx, my] = reduced.size;
    reduced.voxels.forEach((value, i) => {
      const cell = [i % mx, Math.floor(i / mx) % my, Math.floor(i / (mx * my))];
      const block = places.filter((_, n) => cells[n].join() === cell.join());
      expect(value).toBeCloseTo(mean(block.map(valueAt)), 3);
    });
    const values = places.map(valueAt);
    expect(range).toEqual({ lowest: Math.min(...values), highest: Math.max(...values) });
  });
});

/** Labels at voxels of `volume`, 0 elsewhere. */
function labelMap(at: Readonly<Record<string, number>>): Volume {
  const voxels = Uint16Array.from(places, (place) => at[place.join()] ?? 0);
  return { ...volume, voxels };
}
/** The number of the voxel whose centre is the nearest along each axis of the grid; -1 beyond it. */
function nearestVoxel({ size, affine }: Grid, position: Vec3): number {
  const [i, j, k] = applyAffine(invert(affine), position).map(Math.round);
  const isInside = [i, j, k].every((v, axis) => v >= 0 && v < size[axis]);
  return isInside ? i + size[0] * (j + size[1] * k) : -1;
}
const drawn = ({ voxels, size: [mx, my] }: Volume, [x, y, z]: Vec3) => voxels[x + mx * (y + my * z)];

describe('labelsOn()', () => {
  it.each([2, 4])('keeps a label of one voxel in its block, by the factor %d', (factor) => {
    for (const [x, y, z] of [
      [0, 0, 0],
      [1, 4, 3],
      [6, 3, 2],
      [7, 5, 3],
    ]) {
      const small = labelsOn(labelMap({ [`${x},${y},${z}`]: 700 }), reducedGrid(volume, factor));
      const there = [x, y, z].map((v) => Math.floor(v / factor)) as unknown as Vec3;
      expect(drawn(small, there)).toBe(700);
      expect([...small.voxels].filter((v) => v !== 0)).toEqual([700]);
    }
  });

  it('keeps a label of 2 × 2 × 1 voxels across four blocks', () => {
    const at = { '3,1,2': 5, '4,1,2': 5, '3,2,2': 5, '4,2,2': 5 };
    const small = labelsOn(labelMap(at), reducedGrid(volume, 2));
    const found = [...small.voxels].flatMap((v, i) => (v === 0 ? [] : [[i, v]]));
    // Blocks 1 and 2 along x, 0 and 1 along y, 1 along z, of 4 × 3 × 2.
    expect(found).toEqual([13, 14, 17, 18].map((i) => [i, 5]));
    expect(small.voxels).toBeInstanceOf(Uint16Array);
  });

  it('draws the rarer of two labels in a block', () => {
    const voxels = new Uint16Array(nx * ny * nz).fill(1);
    voxels[5 + nx * (2 + ny)] = 9;
    const small = labelsOn({ ...volume, voxels }, reducedGrid(volume, 2));
    expect(drawn(small, [2, 1, 0])).toBe(9);
    expect([...small.voxels].filter((v) => v === 9)).toHaveLength(1);
    expect([...small.voxels].filter((v) => v === 1)).toHaveLength(23);
  });

  it('places labels of a coarser, mirrored grid by world position', () => {
    // Two fine voxels along each axis to one of the map, counted from the other end of the first axis.
    const flipped = multiply(
      reducedGrid(volume, 2).affine,
      [-1, 0, 0, 3, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1],
    );
    const coarse: Volume = { size: [4, 3, 2], components: 1, affine: flipped, voxels: new Uint8Array(24) };
    (coarse.voxels as Uint8Array)[0 + 4 * (2 + 3 * 1)] = 3;
    const fine = labelsOn(coarse, volume);
    const found = places.filter((place) => drawn(fine, place) !== 0);
    expect(found).toEqual(places.filter(([x, y, z]) => x >= 6 && y >= 4 && z >= 2));
    // Beyond the map there is nothing.
    const beside = {
      size: volume.size,
      affine: multiply(affine, [1, 0, 0, 20, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]),
    };
    expect([...labelsOn(coarse, beside).voxels].some((v) => v !== 0)).toBe(false);
  });

  // Turned by 30° about the third axis; about all three. Both are anisotropic.
  const [c30, s30] = [Math.cos(Math.PI / 6), Math.sin(Math.PI / 6)];
  it.each<[string, Affine]>([
    [
      'turned about one axis',
      [1.5 * c30, -2 * s30, 0, 4, 1.5 * s30, 2 * c30, 0, -3, 0, 0, 1.1, 2, 0, 0, 0, 1],
    ],
    [
      'turned about all',
      [3 / 7, 6 / 7, -6.6 / 7, 4, 4.5 / 7, -12 / 7, -2.2 / 7, -1, 9 / 7, 4 / 7, 3.3 / 7, 0, 0, 0, 0, 1],
    ],
    // Its rows are parallel to those of the other grid, its planes are not.
    ['with slanted planes', [1.5, 0, 0, 1, 0, 1.8, 0.6, -3, 0, -0.5, 1, 3, 0, 0, 0, 1]],
  ])('places labels of a grid %s by world position, and loses none', (_, affine) => {
    const map: Grid = { size: [7, 5, 6], affine };
    const drawnOn: Grid = {
      size: [9, 11, 3],
      affine: [-1, 0, 0, 12, 0, 1.2, 0, -4, 0, 0, 2.4, 1.5, 0, 0, 0, 1],
    };
    for (const one of [
      [1, 1, 1],
      [6, 0, 4],
      [3, 4, 5],
    ] as const) {
      const voxels = new Uint8Array(210);
      voxels[one[0] + 7 * (one[1] + 5 * one[2])] = 6;
      const found = labelsOn({ ...map, components: 1, voxels }, drawnOn);
      // The voxel that contains the centre, and those of which the label's voxel is the nearest.
      const centre = nearestVoxel(drawnOn, applyAffine(map.affine, one));
      const expected = new Set(centre < 0 ? [] : [centre]);
      for (let i = 0; i < 297; i++) {
        const position = applyAffine(drawnOn.affine, [i % 9, Math.floor(i / 9) % 11, Math.floor(i / 99)]);
        if (nearestVoxel(map, position) === one[0] + 7 * (one[1] + 5 * one[2])) expected.add(i);
      }
      expect([...found.voxels].flatMap((v, i) => (v === 6 ? [i] : []))).toEqual(
        [...expected].sort((a, b) => a - b),
      );
    }
  });

  it('leaves labels on their own grid as they are', () => {
    const map = labelMap({ '2,3,1': 8 });
    expect(labelsOn(map, volume).voxels).toEqual(map.voxels);
  });
});

describe('prepare()', () => {
  it('gives the range of all voxels, whatever is drawn', async () => {
    const voxels = Float32Array.from(volume.voxels as Float32Array);
    voxels.set([Number.NaN, 5000, Number.POSITIVE_INFINITY, -9000]);
    const { lowest, highest } = await prepare({ ...volume, voxels }, { kind: 'mean', factor: 2 });
    expect([lowest, highest]).toEqual([-9000, 5000]);
    const none = voxels.map(() => Number.NaN);
    expect(await prepare({ ...volume, voxels: none }, { kind: 'mean', factor: 2 })).toMatchObject({
      lowest: 0,
      highest: 0,
    });
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
