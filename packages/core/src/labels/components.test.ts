import { describe, expect, it } from 'vitest';
import { TomaatError } from '../errors.ts';
import type { Volume } from '../volume.ts';
import {
  type Connectivity,
  fillHoles,
  findComponents,
  keepLargestComponent,
  removeSmallObjects,
} from './components.ts';

const size = [23, 17, 11] as const;
const affine = [0, -0.7, 0.1, 3, 1.1, 0, 0, -4, 0, 0.2, 2.3, 5, 0, 0, 0, 1];

/** Labels 1…k in `perMille` of the voxels, by a linear congruential generator (Numerical Recipes). */
function noise(perMille: number, k: number): Volume & { voxels: Uint8Array } {
  let x = 12345;
  const voxels = Uint8Array.from({ length: size[0] * size[1] * size[2] }, () => {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
    const v = (x >>> 16) % 1000;
    return v < perMille ? 1 + (v % k) : 0;
  });
  return { voxels, size, components: 1, affine };
}

function small(rows: string[][]): Volume & { voxels: Uint8Array } {
  const voxels = Uint8Array.from(rows.flat().join('').replaceAll('.', '0'), Number);
  return { voxels, size: [rows[0][0].length, rows[0].length, rows.length], components: 1, affine };
}

/** Count, largest, how many of at least 3 voxels, and sum of number × voxels, of the components of one value. */
function summary(voxels: Float64Array): number[] {
  const sizes = [...voxels];
  const weighted = sizes.reduce((sum, n, i) => sum + (i + 1) * n, 0);
  return [sizes.length, Math.max(...sizes), sizes.filter((n) => n >= 3).length, weighted % 1000003];
}

describe('findComponents()', () => {
  // scipy.ndimage.label of the array [z, y, x]: each label by itself, then all labels as one mask.
  const scipy: Record<string, number[][]> = {
    '300,1,6': [
      [292, 297, 86, 135068],
      [292, 297, 86, 135068],
    ],
    '300,1,18': [
      [9, 1324, 2, 1389],
      [9, 1324, 2, 1389],
    ],
    '300,1,26': [
      [3, 1333, 1, 1338],
      [3, 1333, 1, 1338],
    ],
    '600,3,6': [
      [407, 18, 98, 168881],
      [396, 28, 89, 166471],
      [402, 41, 82, 163258],
      [19, 2605, 1, 2807],
    ],
    '600,3,18': [
      [57, 679, 14, 5915],
      [38, 765, 12, 3562],
      [49, 786, 9, 3674],
      [1, 2624, 1, 2624],
    ],
    '600,3,26': [
      [15, 828, 4, 1895],
      [12, 842, 3, 1003],
      [16, 852, 4, 1186],
      [1, 2624, 1, 2624],
    ],
    '850,2,6': [
      [141, 1499, 27, 25071],
      [113, 1724, 9, 10391],
      [1, 3683, 1, 3683],
    ],
    '850,2,18': [
      [4, 1796, 1, 1805],
      [4, 1881, 1, 1890],
      [1, 3683, 1, 3683],
    ],
    '850,2,26': [
      [2, 1798, 1, 1800],
      [2, 1883, 1, 1885],
      [1, 3683, 1, 3683],
    ],
  };
  it.each(Object.keys(scipy))('finds and numbers the components as scipy does: %s', (key) => {
    const [perMille, k, connectivity] = key.split(',').map(Number);
    const { voxels } = noise(perMille, k);
    const all = findComponents(voxels, size, { connectivity: connectivity as Connectivity });
    const found = Array.from({ length: k }, (_, i) =>
      summary(all.voxels.filter((_, c) => all.value[c] === i + 1)),
    );
    const mask = findComponents(voxels, size, {
      connectivity: connectivity as Connectivity,
      classOf: (v) => (v > 0 ? 1 : 0),
    });
    expect([...found, summary(mask.voxels)]).toEqual(scipy[key]);
  });

  it('gives runs that cover exactly the voxels of each label', () => {
    const { voxels } = noise(600, 3);
    const found = findComponents(voxels, size, { connectivity: 18 });
    const painted = new Uint8Array(voxels.length);
    found.component.forEach((c, r) => void painted.fill(found.value[c], found.start[r], found.end[r]));
    expect(painted).toEqual(voxels);
  });
});

describe('keepLargestComponent()', () => {
  const map = small([
    ['11..2', '.1.22', '.....'],
    ['....2', '1..2.', '1....'],
  ]);

  it('keeps the largest component of each label and leaves the input alone', () => {
    const before = map.voxels.slice();
    const { voxels } = keepLargestComponent(map, { connectivity: 6 });
    expect(voxels).toEqual(
      small([
        ['11..2', '.1.22', '.....'],
        ['....2', '...2.', '.....'],
      ]).voxels,
    );
    expect(map.voxels).toEqual(before);
  });

  it('takes all labels as one mask when they are not independent', () => {
    const { voxels } = keepLargestComponent(map, { connectivity: 6, independent: false });
    expect(voxels).toEqual(
      small([
        ['....2', '...22', '.....'],
        ['....2', '...2.', '.....'],
      ]).voxels,
    );
  });

  it('keeps what only a corner joins at connectivity 26, the default', () => {
    expect(keepLargestComponent(map).voxels).toEqual(map.voxels);
  });

  it('touches only the labels it is given, and keeps as many components as asked', () => {
    const one = keepLargestComponent(map, { connectivity: 6, labels: [2] });
    expect(one.voxels).toEqual(map.voxels);
    const two = keepLargestComponent(map, { connectivity: 6, labels: [1], components: 2 });
    expect(two.voxels).toEqual(map.voxels);
  });

  it('keeps the first of two components of one size', () => {
    expect(keepLargestComponent(small([['1.1', '1.1']])).voxels).toEqual(small([['1..', '1..']]).voxels);
  });

  it('works on labels stored as floats or 64-bit integers, and keeps their type', () => {
    for (const voxels of [Float32Array.from(map.voxels), BigInt64Array.from(map.voxels, BigInt)]) {
      const result = keepLargestComponent({ ...map, voxels }, { connectivity: 6, independent: false });
      expect(result.voxels.constructor).toBe(voxels.constructor);
      expect(Array.from(result.voxels, Number).filter((v) => v === 2)).toHaveLength(5);
      expect(Array.from(result.voxels, Number)).not.toContain(1);
    }
  });

  it('refuses values that are no labels', () => {
    const voxels = Float32Array.from(map.voxels, (v) => v + 0.5);
    expect(() => keepLargestComponent({ ...map, voxels })).toThrow(TomaatError);
    expect(() => keepLargestComponent({ ...map, voxels })).toThrow(/0\.5|1\.5/);
  });
});

describe('removeSmallObjects()', () => {
  const map = small([['111.1.', '......', '2.2222']]);

  it('removes what has fewer voxels than the limit, not what has as many', () => {
    expect(removeSmallObjects(map, { minVoxels: 3 }).voxels).toEqual(
      small([['111...', '......', '..2222']]).voxels,
    );
    expect(removeSmallObjects(map, { minVoxels: 4 }).voxels).toEqual(
      small([['......', '......', '..2222']]).voxels,
    );
  });

  it('removes by millilitres, with the volume of this grid’s voxel', () => {
    // A voxel is |det| = 1.1 × (0.7 × 2.3 + 0.1 × 0.2) = 1.793 mm³.
    const limit = 3 * 0.001793;
    expect(removeSmallObjects(map, { minVolumeMl: limit }).voxels).toEqual(
      small([['111...', '......', '..2222']]).voxels,
    );
    expect(removeSmallObjects(map, { minVolumeMl: limit * 1.001 }).voxels).toEqual(
      small([['......', '......', '..2222']]).voxels,
    );
  });

  it('takes 64 voxels as the limit when there is none', () => {
    expect(removeSmallObjects(map).voxels.some((v) => v !== 0)).toBe(false);
  });
});

describe('fillHoles()', () => {
  // MONAI's algorithm in scipy: changed voxels, and the sum of label × (index mod 9973).
  const monai: Record<string, [number, number]> = {
    '600,3,6': [1, 11355811],
    '600,3,26': [0, 11352617],
    '600,3,6,x': [21, 11401603],
    '600,3,6,y': [26, 11419507],
    '600,3,6,z': [17, 11380368],
    '850,2,6': [19, 11945174],
    '850,2,6,x': [289, 12075097],
    '850,2,26,x': [2, 11919951],
    '850,2,6,y': [374, 12213567],
    '850,2,26,y': [11, 11932117],
    '850,2,6,z': [425, 12127046],
    '850,2,26,z': [5, 11926542],
    '950,1,6': [136, 9081239],
    '950,1,18': [108, 9021699],
    '950,1,26': [91, 8980160],
    '950,1,26,x': [138, 9089636],
    '950,1,26,y': [144, 9094167],
    '950,1,26,z': [164, 9156249],
  };
  it.each(Object.keys(monai))('fills as MONAI does: %s', (key) => {
    const [perMille, k, connectivity, axis] = key.split(',');
    const map = noise(Number(perMille), Number(k));
    const filled = fillHoles(map, {
      connectivity: Number(connectivity) as Connectivity,
      slicewise: axis as 'x' | 'y' | 'z' | undefined,
    });
    const voxels = filled.voxels as Uint8Array;
    const changed = voxels.reduce((n, v, i) => n + (v === map.voxels[i] ? 0 : 1), 0);
    const weighted = voxels.reduce((sum, v, i) => sum + v * (i % 9973), 0);
    expect([changed, weighted]).toEqual(monai[key]);
  });

  it('fills another label that is enclosed, and only for the labels it is given', () => {
    const map = small([
      ['111', '111', '111'],
      ['111', '121', '111'],
      ['111', '111', '111'],
    ]);
    expect(fillHoles(map).voxels.every((v) => v === 1)).toBe(true);
    expect(fillHoles(map, { labels: [2] }).voxels).toEqual(map.voxels);
    const floats = fillHoles({ ...map, voxels: Float64Array.from(map.voxels) });
    expect(floats.voxels).toEqual(new Float64Array(27).fill(1));
  });
});
