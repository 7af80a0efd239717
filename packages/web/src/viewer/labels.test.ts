import type { Service } from '@tomaat/client';
import type { Affine, Vec3, Volume } from '@tomaat/core';
import { describe, expect, it } from 'vitest';
import { createProbe, labelStyles, labelsIn } from './labels.ts';

/** Left and right apart, a value that is not the place in the list, one label without a colour, and one on condition. */
const service = {
  labels: [
    { value: 4, name: 'left kidney', color: '#112233' },
    { value: 2, name: 'right kidney' },
    { value: 9, name: 'liver', color: '#a0b0c0' },
    { value: 5, name: 'cyst', color: '#ffffff', when: { cysts: true } },
  ],
} as unknown as Service;

/** The second, and those after the listed ones, of Paul Tol's bright scheme. */
const tol = { blue: '#4477aa', red: '#ee6677', green: '#228833', yellow: '#ccbb44', cyan: '#66ccee' };

describe('labelStyles()', () => {
  it('gives each value its own name and colour', () => {
    expect(labelStyles(service, { cysts: false }, [])).toEqual([
      { value: 4, name: 'left kidney', color: '#112233', visible: true },
      { value: 2, name: 'right kidney', color: tol.red, visible: true },
      { value: 9, name: 'liver', color: '#a0b0c0', visible: true },
    ]);
  });

  it('adds the values of the map that are not listed', () => {
    expect(labelStyles(service, { cysts: false }, [2, 3, 4, 5]).slice(3)).toEqual([
      { value: 3, name: 'label 3', color: tol.yellow, visible: true },
      { value: 5, name: 'label 5', color: tol.cyan, visible: true },
    ]);
  });

  it('lists a label on condition where its condition holds', () => {
    const styles = labelStyles(service, { cysts: true }, [5]);
    expect(styles.map(({ value, name }) => [value, name])).toEqual([
      [4, 'left kidney'],
      [2, 'right kidney'],
      [9, 'liver'],
      [5, 'cyst'],
    ]);
  });

  it('colours the values of a map without a service', () => {
    expect(labelStyles(undefined, {}, [7, 8, 1])).toEqual([
      { value: 7, name: 'label 7', color: tol.blue, visible: true },
      { value: 8, name: 'label 8', color: tol.red, visible: true },
      { value: 1, name: 'label 1', color: tol.green, visible: true },
    ]);
  });

  it('has ten colours, all different, and then begins again', () => {
    const colors = labelStyles(
      undefined,
      {},
      Array.from({ length: 23 }, (_, i) => i + 1),
    ).map(({ color }) => color);
    expect(new Set(colors).size).toBe(10);
    for (const color of colors) expect(color).toMatch(/^#[0-9a-f]{6}$/);
    expect(colors.slice(10)).toEqual([...colors.slice(0, 10), ...colors.slice(0, 3)]);
  });
});

/**
 * Oblique, anisotropic, left-handed. The columns are 2, 0.7 and 5 mm along the orthogonal unit vectors (2, 3, 6)/7, (3, -6, 2)/7
 * and (-6, -2, 3)/7; their determinant is -7.
 */
// biome-ignore format: four rows.
const affine: Affine = [
  4 / 7, 0.3, -30 / 7, 10,
  6 / 7, -0.6, -10 / 7, -20,
  12 / 7, 0.2, 15 / 7, 30,
  0, 0, 0, 1,
];
const size = [4, 3, 5] as const;
const valueAt = (x: number, y: number, z: number) => 1 + x + 10 * y + 100 * z;

const volume: Volume = {
  size,
  components: 1,
  affine,
  voxels: Uint16Array.from({ length: 60 }, (_, i) =>
    valueAt(i % 4, Math.floor(i / 4) % 3, Math.floor(i / 12)),
  ),
};

/** World position of a place in voxels, by the columns, mm. */
function worldOf([x, y, z]: Vec3): Vec3 {
  return [
    (4 / 7) * x + 0.3 * y - (30 / 7) * z + 10,
    (6 / 7) * x - 0.6 * y - (10 / 7) * z - 20,
    (12 / 7) * x + 0.2 * y + (15 / 7) * z + 30,
  ];
}

describe('createProbe()', () => {
  const probe = createProbe(volume);

  it('reads every voxel at its world position', () => {
    for (let z = 0; z < 5; z++) {
      for (let y = 0; y < 3; y++) {
        for (let x = 0; x < 4; x++) expect(probe(worldOf([x, y, z]))).toBe(valueAt(x, y, z));
      }
    }
  });

  it('takes the nearest voxel', () => {
    for (const shift of [-0.45, 0.45]) {
      for (const axis of [0, 1, 2]) {
        const place = [2, 1, 3].map((v, i) => (i === axis ? v + shift : v)) as unknown as Vec3;
        expect(probe(worldOf(place))).toBe(valueAt(2, 1, 3));
      }
    }
  });

  it('ends half a voxel outside of the first and last centres', () => {
    for (const axis of [0, 1, 2]) {
      for (const [edge, outward] of [
        [0, -1],
        [size[axis] - 1, 1],
      ]) {
        const at = (distance: number) =>
          probe(
            worldOf([1, 1, 1].map((v, i) => (i === axis ? edge + outward * distance : v)) as unknown as Vec3),
          );
        expect(at(0.45)).toBe(
          valueAt(...([1, 1, 1].map((v, i) => (i === axis ? edge : v)) as [number, number, number])),
        );
        expect(at(0.55)).toBeUndefined();
        expect(at(40)).toBeUndefined();
      }
    }
  });

  it('reads 64-bit voxels as numbers', () => {
    const voxels = BigInt64Array.from(volume.voxels as Uint16Array, (v) => -BigInt(v));
    expect(createProbe({ ...volume, voxels })(worldOf([3, 2, 4]))).toBe(-valueAt(3, 2, 4));
  });
});

describe('labelsIn()', () => {
  const mapOf = (voxels: Volume['voxels']): Volume => ({ ...volume, size: [voxels.length, 1, 1], voxels });

  it('finds each value once, ascending, without 0', () => {
    expect(labelsIn(mapOf(Uint8Array.of(10, 10, 0, 9, 0, 10, 2, 2, 0, 200)))).toEqual([2, 9, 10, 200]);
  });

  it('finds a value that only the first or last voxel has', () => {
    expect(labelsIn(mapOf(Uint8Array.of(3, 0, 0, 5)))).toEqual([3, 5]);
    expect(labelsIn(mapOf(Uint8Array.of(1, 1, 0, 2)))).toEqual([1, 2]);
  });

  it('finds nothing in a map of zeros', () => {
    expect(labelsIn(mapOf(new Int16Array(9)))).toEqual([]);
  });

  it('reads 64-bit voxels', () => {
    expect(labelsIn(mapOf(BigUint64Array.of(0n, 12n, 7n)))).toEqual([7, 12]);
  });
});
