import { describe, expect, it } from 'vitest';
import { TomaatError } from '../errors.ts';
import { createNumbers } from '../geometry/fixtures.ts';
import type { Size, Volume } from '../volume.ts';
import {
  type Connectivity,
  fillHoles,
  findComponents,
  keepLargestComponent,
  removeSmallObjects,
} from './components.ts';

const size = [23, 17, 11] as const;
const affine = [0, -0.7, 0.1, 3, 1.1, 0, 0, -4, 0, 0.2, 2.3, 5, 0, 0, 0, 1];

/** Labels 1…k in `perMille` of the voxels. */
function noise(perMille: number, k: number, of: Size = size): Volume & { voxels: Uint8Array } {
  const next = createNumbers(12345);
  const voxels = Uint8Array.from({ length: of[0] * of[1] * of[2] }, () => {
    const v = (next() >>> 16) % 1000;
    return v < perMille ? 1 + (v % k) : 0;
  });
  return { voxels, size: of, components: 1, affine };
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

/** Components by flood fill: for each, in the order of their first voxels, its voxels in ascending order. */
function floodFill(map: Volume, connectivity: Connectivity): number[][] {
  const [nx, ny, nz] = map.size;
  const reach = { 6: 1, 18: 2, 26: 3 }[connectivity];
  const steps = [-1, 0, 1].flatMap((z) => [-1, 0, 1].flatMap((y) => [-1, 0, 1].map((x) => [x, y, z])));
  const near = steps.filter((step) => Math.abs(step[0]) + Math.abs(step[1]) + Math.abs(step[2]) <= reach);
  const seen = new Uint8Array(map.voxels.length);
  const all: number[][] = [];
  for (let seed = 0; seed < seen.length; seed++) {
    if (seen[seed] || map.voxels[seed] === 0) continue;
    const found = [seed];
    seen[seed] = 1;
    for (const i of found) {
      for (const [dx, dy, dz] of near) {
        const [x, y, z] = [(i % nx) + dx, (Math.floor(i / nx) % ny) + dy, Math.floor(i / (nx * ny)) + dz];
        if (x < 0 || y < 0 || z < 0 || x >= nx || y >= ny || z >= nz) continue;
        const j = (z * ny + y) * nx + x;
        if (seen[j] || map.voxels[j] !== map.voxels[seed]) continue;
        seen[j] = 1;
        found.push(j);
      }
    }
    all.push(found.sort((a, b) => a - b));
  }
  return all;
}

function voxelsOf(found: ReturnType<typeof findComponents>): number[][] {
  const all = Array.from({ length: found.count }, () => [] as number[]);
  found.component.forEach((c, r) => {
    for (let i = found.start[r]; i < found.end[r]; i++) all[c].push(i);
  });
  return all;
}

describe('findComponents() in more runs than its first arrays hold', () => {
  it.each([6, 18, 26] as const)('finds what a flood fill finds: %i', (connectivity) => {
    const map = noise(450, 2, [61, 43, 29]);
    const found = findComponents(map.voxels, map.size, { connectivity });
    expect(found.component.length).toBeGreaterThan(1 << 14);
    const expected = floodFill(map, connectivity);
    expect(voxelsOf(found)).toEqual(expected);
    expect([...found.voxels]).toEqual(expected.map(({ length }) => length));
    expect([...found.value]).toEqual(expected.map(([first]) => map.voxels[first]));
  });
});

describe('findComponents() in a box', () => {
  const map = noise(500, 3);
  const box = { min: [3, 2, 1], max: [18, 11, 8] } as const;

  it.each([6, 18, 26] as const)(
    'sees nothing beyond it, and marks what lies on its faces: %i',
    (connectivity) => {
      const own = [16, 10, 8] as const;
      const within = (i: number) => [i % 16, Math.floor(i / 16) % 10, Math.floor(i / 160)];
      const inMap = (i: number) => {
        const [x, y, z] = within(i);
        return ((z + 1) * 17 + y + 2) * 23 + x + 3;
      };
      const cut = Uint8Array.from({ length: 1280 }, (_, i) => map.voxels[inMap(i)]);
      const expected = floodFill({ ...map, voxels: cut, size: own }, connectivity);
      const found = findComponents(map.voxels, size, { connectivity, box });
      expect(voxelsOf(found)).toEqual(expected.map((all) => all.map(inMap)));
      const onFace = (i: number) => within(i).some((v, k) => v === 0 || v === own[k] - 1);
      expect([...found.onBorder]).toEqual(expected.map((all) => Number(all.some(onFace))));
      if (connectivity === 6) expect(new Set(found.onBorder).size).toBe(2);
    },
  );

  it('joins values of one class that follow each other in a row', () => {
    const row = Uint8Array.of(1, 2, 0, 2, 3, 1, 1, 0, 3);
    const classOf = (value: number) => (value === 0 ? 0 : value === 3 ? 7 : 5);
    const found = findComponents(row, [9, 1, 1], { connectivity: 6, classOf });
    expect(voxelsOf(found)).toEqual([[0, 1], [3], [4], [5, 6], [8]]);
    expect([...found.value]).toEqual([5, 5, 7, 5, 7]);
    expect([...found.voxels]).toEqual([2, 1, 1, 2, 1]);
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

  it('changes only the given labels, and keeps the requested number of components', () => {
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

  it('keeps the largest by size, whatever their order and number', () => {
    const map = small([['1.11.111.1111.11', '................']]);
    const kept = (components: number) =>
      [...(keepLargestComponent(map, { components }).voxels as Uint8Array)].slice(0, 16).join('');
    expect(kept(1)).toBe('0000000001111000');
    expect(kept(2)).toBe('0000011101111000');
    // Of the two of two voxels the first.
    expect(kept(3)).toBe('0011011101111000');
    expect(kept(4)).toBe('0011011101111011');
    expect(kept(5)).toBe(kept(9));
    for (const components of [0, -1, 1.5, Number.NaN])
      expect(() => keepLargestComponent(map, { components })).toThrow(
        expect.objectContaining({
          code: 'BAD_INPUT',
          message: expect.stringContaining(`to keep is ${components}`),
        }),
      );
  });

  it('leaves 0 alone when it is listed', () => {
    const map = small([['11.1', '....']]);
    expect(keepLargestComponent(map, { labels: [0, 1], independent: false }).voxels).toEqual(
      small([['11..', '....']]).voxels,
    );
    expect(keepLargestComponent(map, { labels: [0] }).voxels).toEqual(map.voxels);
  });

  it('refuses values that are not labels', () => {
    const voxels = Float32Array.from(map.voxels, (v) => v + 0.5);
    expect(() => keepLargestComponent({ ...map, voxels })).toThrow(TomaatError);
    expect(() => keepLargestComponent({ ...map, voxels })).toThrow(/0\.5|1\.5/);
  });
});

describe('removeSmallObjects()', () => {
  const map = small([['111.1.', '......', '2.2222']]);

  it('removes components below the voxel limit, not those at it', () => {
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

  it('uses a limit of 64 voxels by default', () => {
    expect(removeSmallObjects(map).voxels.some((v) => v !== 0)).toBe(false);
    const exactly = (n: number) => small([['1'.repeat(n), '.'.repeat(n)]]);
    expect(removeSmallObjects(exactly(64)).voxels).toEqual(exactly(64).voxels);
    expect(removeSmallObjects(exactly(63)).voxels).toEqual(new Uint8Array(126));
  });

  it('takes the labels it is given, one by one or as one mask', () => {
    const mixed = small([['12.3.4', '......', '222333']]);
    const kept = (options: object) => removeSmallObjects(mixed, { minVoxels: 4, ...options }).voxels;
    expect(kept({})).toEqual(new Uint8Array(18));
    expect(kept({ labels: [1, 3] })).toEqual(small([['.2...4', '......', '222...']]).voxels);
    expect(kept({ independent: false })).toEqual(small([['......', '......', '222333']]).voxels);
    expect(kept({ independent: false, labels: [2] })).toEqual(small([['1..3.4', '......', '...333']]).voxels);
  });

  it('wants both limits met where both are given', () => {
    // 0.001793 ml a voxel, as above.
    const both = (minVoxels: number, voxels: number) =>
      removeSmallObjects(map, { minVoxels, minVolumeMl: voxels * 0.001793 }).voxels;
    expect(both(1, 4)).toEqual(both(4, 1));
    expect(both(1, 4)).toEqual(small([['......', '......', '..2222']]).voxels);
  });

  it('clears 64-bit integers too', () => {
    const voxels = BigUint64Array.from(map.voxels, BigInt);
    expect(removeSmallObjects({ ...map, voxels }, { minVoxels: 4 }).voxels).toEqual(
      BigUint64Array.from(small([['......', '......', '..2222']]).voxels, BigInt),
    );
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

  it('fills the same wherever a label lies in the volume', () => {
    const map = noise(930, 1, [9, 7, 6]);
    const within = (at: Size): Volume & { voxels: Uint8Array } => {
      const voxels = new Uint8Array(15 * 12 * 11);
      for (const [i, v] of map.voxels.entries()) {
        const [x, y, z] = [i % 9, Math.floor(i / 9) % 7, Math.floor(i / 63)];
        voxels[((z + at[2]) * 12 + y + at[1]) * 15 + x + at[0]] = v;
      }
      return { voxels, size: [15, 12, 11], components: 1, affine };
    };
    for (const slicewise of ['x', 'y', 'z', undefined] as const) {
      for (const connectivity of [6, 18, 26] as const) {
        const options = { slicewise, connectivity };
        const filled = fillHoles(map, options).voxels as Uint8Array;
        expect(filled).not.toEqual(map.voxels);
        for (const at of [
          [0, 0, 0],
          [6, 0, 5],
          [1, 5, 2],
          [3, 2, 1],
        ] as Size[]) {
          const found = fillHoles(within(at), options).voxels as Uint8Array;
          const back = Uint8Array.from(filled, (_, i) => {
            const [x, y, z] = [i % 9, Math.floor(i / 9) % 7, Math.floor(i / 63)];
            return found[((z + at[2]) * 12 + y + at[1]) * 15 + x + at[0]];
          });
          expect(back).toEqual(filled);
          // Nothing is filled around it.
          expect(found.reduce((n, v) => n + v, 0)).toBe(filled.reduce((n, v) => n + v, 0));
        }
      }
    }
  });

  it('fills enclosed other labels, and only for the given labels', () => {
    const map = small([
      ['111', '111', '111'],
      ['111', '121', '111'],
      ['111', '111', '111'],
    ]);
    expect(fillHoles(map).voxels.every((v) => v === 1)).toBe(true);
    expect(fillHoles(map, { labels: [2] }).voxels).toEqual(map.voxels);
    expect(fillHoles(map, { labels: [5, 1] })).toEqual(fillHoles(map, { labels: [1] }));
    const floats = fillHoles({ ...map, voxels: Float64Array.from(map.voxels) });
    expect(floats.voxels).toEqual(new Float64Array(27).fill(1));
  });
});
