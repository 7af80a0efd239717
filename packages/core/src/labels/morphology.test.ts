import { describe, expect, it } from 'vitest';
import { createNumbers } from '../geometry/fixtures.ts';
import type { Volume } from '../volume.ts';
import {
  type Ball,
  chordsOf,
  closeLabels,
  dilateLabels,
  erodeLabels,
  growByDistance,
  growByRuns,
  openLabels,
} from './morphology.ts';

const size = [23, 17, 11] as const;
/** Spacing 0.8, 1.1, 2.3 mm; axes turned and mirrored, which must not matter. */
const affine = [0, -1.1, 0, 3, 0.8, 0, 0, -4, 0, 0, -2.3, 5, 0, 0, 0, 1];

function noise(perMille: number): Volume & { voxels: Uint8Array } {
  const next = createNumbers(12345);
  const voxels = Uint8Array.from({ length: size[0] * size[1] * size[2] }, () =>
    (next() >>> 16) % 1000 < perMille ? 1 : 0,
  );
  return { voxels, size, components: 1, affine };
}

function line(text: string, spacing = 1): Volume & { voxels: Uint8Array } {
  const voxels = Uint8Array.from(text.replaceAll('.', '0'), Number);
  return {
    voxels,
    size: [text.length, 1, 1],
    components: 1,
    affine: [spacing, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1],
  };
}
const show = (volume: Volume) => [...(volume.voxels as Uint8Array)].join('').replaceAll('0', '.');

describe('dilateLabels(), erodeLabels(), openLabels(), closeLabels()', () => {
  // scipy.ndimage with a ball of that radius, mm (erosion with border_value=1; closing in a padded array):
  // voxels, and sum of the indices mod 9973, of the mask, dilated, eroded, opened, closed. Key: per mille, radius of a
  // dilation before, radius.
  const scipy: Record<string, [number, number][]> = {
    '30,0,2.4': [
      [121, 248641],
      [1999, 4095709],
      [0, 0],
      [0, 0],
      [173, 344644],
    ],
    '30,0,3.3': [
      [121, 248641],
      [3511, 7418736],
      [0, 0],
      [0, 0],
      [488, 950570],
    ],
    '150,0,1.1': [
      [693, 1467934],
      [2466, 5228468],
      [1, 1058],
      [4, 4233],
      [922, 1905971],
    ],
    '60,1.7,2.3': [
      [2042, 4128721],
      [4152, 8813190],
      [28, 40466],
      [336, 550045],
      [2838, 5787688],
    ],
    '25,2.4,2.4': [
      [1710, 3566687],
      [3768, 8134384],
      [122, 244201],
      [1710, 3566687],
      [2143, 4421664],
    ],
    '900,0,1.7': [
      [3890, 8326527],
      [4301, 9247150],
      [1559, 3230966],
      [3407, 7268042],
      [4269, 9160938],
    ],
  };
  it.each(Object.keys(scipy))('equal scipy with a ball in mm: %s', (key) => {
    const [perMille, before, radiusMm] = key.split(',').map(Number);
    const mask = before > 0 ? dilateLabels(noise(perMille), { radiusMm: before }) : noise(perMille);
    const found = [
      mask,
      ...[dilateLabels, erodeLabels, openLabels, closeLabels].map((f) => f(mask, { radiusMm })),
    ];
    const sums = found.map(({ voxels }) => {
      const values = voxels as Uint8Array;
      return [values.reduce((n, v) => n + v, 0), values.reduce((sum, v, i) => sum + v * (i % 9973), 0)];
    });
    expect(sums).toEqual(scipy[key]);
  });

  /** The volume with a label at some places [x, y, z]. */
  const places = (list: readonly (readonly number[])[], label = 4, voxels = new Uint8Array(23 * 17 * 11)) => {
    for (const [x, y, z] of list) voxels[(z * 17 + y) * 23 + x] = label;
    return { voxels, size, components: 1, affine };
  };
  const within = (a: number, b: number, radiusMm: number) => {
    const at = (i: number) => [i % 23, Math.floor(i / 23) % 17, Math.floor(i / 391)];
    const [p, q] = [at(a), at(b)];
    return Math.hypot(0.8 * (p[0] - q[0]), 1.1 * (p[1] - q[1]), 2.3 * (p[2] - q[2])) <= radiusMm + 1e-9;
  };

  it.each([
    [[[2, 12, 7]], 2.5],
    [[[19, 3, 2]], 4.7],
    [
      [
        [2, 12, 7],
        [3, 12, 7],
        [14, 4, 8],
        [8, 9, 1],
      ],
      2.5,
    ],
    [
      [
        [0, 0, 0],
        [22, 16, 10],
      ],
      3,
    ],
    [
      [
        [11, 16, 0],
        [11, 0, 10],
      ],
      2.3,
    ],
    [
      [
        [0, 8, 5],
        [22, 9, 4],
      ],
      0.8,
    ],
    [[[5, 5, 5]], 0.79],
  ])('reach from a label wherever it lies: %j, %d mm', (list, radiusMm) => {
    const map = places(list);
    const seeds = [...map.voxels.keys()].filter((i) => map.voxels[i] === 4);
    const grown = map.voxels.map((_, i) => (seeds.some((seed) => within(seed, i, radiusMm)) ? 4 : 0));
    expect(dilateLabels(map, { radiusMm }).voxels).toEqual(grown);
    // What is eaten from the rest is what grows into it.
    const rest = { ...map, voxels: map.voxels.map((v) => (v === 4 ? 0 : 4)) };
    expect(erodeLabels(rest, { radiusMm }).voxels).toEqual(grown.map((v) => (v === 4 ? 0 : 4)));
    expect(closeLabels(map, { radiusMm: 0 }).voxels).toEqual(map.voxels);
  });

  it('leave a voxel in reach of several labels to the lowest', () => {
    const map = places([[10, 8, 5]], 9, places([[13, 8, 5]], 4).voxels);
    const [four, nine] = [(5 * 17 + 8) * 23 + 13, (5 * 17 + 8) * 23 + 10];
    const expected = map.voxels.map((v, i) =>
      v !== 0 ? v : within(four, i, 2.4) ? 4 : within(nine, i, 2.4) ? 9 : 0,
    );
    for (const labels of [undefined, [9, 4], [4, 9, 9, 0], [4, 9, 77]])
      expect(dilateLabels(map, { radiusMm: 2.4, labels }).voxels).toEqual(expected);
    expect(dilateLabels(map, { radiusMm: 2.4, labels: [9] }).voxels).toEqual(
      map.voxels.map((v, i) => (v !== 0 ? v : within(nine, i, 2.4) ? 9 : 0)),
    );
  });

  it.each([0, 1, 2])('are flat in a volume of one slice across axis %i', (axis) => {
    const own = [5, 7, 6].map((n, k) => (k === axis ? 1 : n)) as [number, number, number];
    const voxels = new Uint8Array(own[0] * own[1] * own[2]);
    const index = (p: readonly number[]) => (p[2] * own[1] + p[1]) * own[0] + p[0];
    const centre = own.map((n) => Math.floor(n / 2));
    voxels[index(centre)] = 1;
    const volume = {
      voxels,
      size: own,
      components: 1,
      affine: [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1],
    };
    // A plus in its plane.
    const expected = voxels.slice();
    for (const k of [0, 1, 2].filter((other) => other !== axis)) {
      for (const step of [-1, 1]) expected[index(centre.map((v, other) => (other === k ? v + step : v)))] = 1;
    }
    const grown = dilateLabels(volume, { radiusMm: 1 });
    expect(grown.voxels).toEqual(expected);
    expect(openLabels(grown, { radiusMm: 1 }).voxels).toEqual(expected);
    expect(erodeLabels(grown, { radiusMm: 1 }).voxels).toEqual(voxels);
    expect(closeLabels(volume, { radiusMm: 1 }).voxels).toEqual(voxels);
  });

  it('take a voxel at exactly the radius into the ball', () => {
    expect(show(dilateLabels(line('.....1.....', 0.9), { radiusMm: 2.7 }))).toBe('..1111111..');
    expect(show(dilateLabels(line('.....1.....', 0.9), { radiusMm: 2.69 }))).toBe('...11111...');
  });

  it('closing keeps voxels at the border, and erosion keeps a cut face', () => {
    expect(show(closeLabels(line('11..11.....'), { radiusMm: 1 }))).toBe('111111.....');
    expect(show(erodeLabels(line('1111...1111'), { radiusMm: 2 }))).toBe('11.......11');
    expect(show(openLabels(line('1.11111...1'), { radiusMm: 1 }))).toBe('..11111....');
  });

  it('work on each label by itself, and only on background', () => {
    expect(show(dilateLabels(line('..1...2...33'), { radiusMm: 2 }))).toBe('111112222333');
    expect(show(closeLabels(line('1.1.2.2.1.1'), { radiusMm: 1 }))).toBe('111.222.111');
    expect(show(erodeLabels(line('.1112222.'), { radiusMm: 1, labels: [2] }))).toBe('.111.22..');
  });

  it('keep the type and the input', () => {
    const map = { ...line('..1..'), voxels: Float32Array.from([0, 0, 1, 0, 0]) };
    expect(dilateLabels(map, { radiusMm: 1 }).voxels).toEqual(Float32Array.from([0, 1, 1, 1, 0]));
    expect(map.voxels).toEqual(Float32Array.from([0, 0, 1, 0, 0]));
    expect(() => dilateLabels(map, { radiusMm: -1 })).toThrow(/radius/);
    expect(() => dilateLabels(map, { radiusMm: Number.NaN })).toThrow(/radius/);
  });
});

describe('growByRuns(), growByDistance()', () => {
  it.each([
    [5, 2.4],
    [20, 3.3],
    [60, 1.65],
    [3, 6.6],
    [0, 2],
  ])('both cover exactly the voxels within the radius: %i per mille, %f mm', (perMille, radiusMm) => {
    const spacingMm = [0.8, 1.1, 2.3] as const;
    const { voxels: mask } = noise(perMille);
    const expected = new Uint8Array(mask.length);
    const at = (i: number) => [i % 23, Math.floor(i / 23) % 17, Math.floor(i / 391)];
    const seeds = [...mask.keys()].filter((i) => mask[i]).map(at);
    for (let i = 0; i < mask.length; i++) {
      const p = at(i);
      const near = (q: number[]) =>
        Math.hypot(...p.map((v, k) => (v - q[k]) * spacingMm[k])) <= radiusMm * (1 + 1e-9);
      expected[i] = seeds.some(near) ? 1 : 0;
    }
    const reach = spacingMm.map((s) => Math.floor((radiusMm / s) * (1 + 1e-9))) as [number, number, number];
    const ball: Ball = { radiusMm, spacingMm, reach };
    expect(growByRuns(mask, size, chordsOf(ball))).toEqual(expected);
    expect(growByDistance(mask, size, ball)).toEqual(expected);
  });
});
