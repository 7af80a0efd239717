import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  extractWindow,
  importanceMap,
  mirror,
  mirrorings,
  type Stepping,
  sourceIndices,
  windowsAlong,
} from './windows.ts';

function windowStarts(length: number, roi: number, overlap: number, stepping: Stepping): number[] {
  const { count, start } = windowsAlong(length, roi, overlap, stepping);
  return Array.from({ length: count }, (_, index) => start(index));
}

describe('windowsAlong()', () => {
  it('gives the positions of MONAI 1.5 dense_patch_slices', () => {
    expect(windowStarts(160, 96, 0.5, 'monai')).toEqual([0, 48, 64]);
    expect(windowStarts(100, 32, 0.25, 'monai')).toEqual([0, 24, 48, 68]);
    expect(windowStarts(96, 96, 0.25, 'monai')).toEqual([0]);
    expect(windowStarts(97, 96, 0.25, 'monai')).toEqual([0, 1]);
    expect(windowStarts(9, 2, 0.9, 'monai')).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    expect(windowStarts(64, 32, 0, 'monai')).toEqual([0, 32]);
  });
  it('gives the positions of nnU-Net compute_steps_for_sliding_window', () => {
    expect(windowStarts(128, 64, 0.5, 'nnunet')).toEqual([0, 32, 64]);
    expect(windowStarts(110, 64, 0.5, 'nnunet')).toEqual([0, 23, 46]);
    expect(windowStarts(123, 64, 0.5, 'nnunet')).toEqual([0, 30, 59]); // 29.5 rounds to the even 30
    expect(windowStarts(125, 64, 0.5, 'nnunet')).toEqual([0, 30, 61]); // 30.5 too
    // Four steps of 2.75 and three of 2.4: only halves are special.
    expect(windowStarts(15, 4, 0.25, 'nnunet')).toEqual([0, 3, 6, 8, 11]);
    expect(windowStarts(16, 4, 0.4, 'nnunet')).toEqual([0, 2, 5, 7, 10, 12]);
    expect(windowStarts(64, 64, 0.5, 'nnunet')).toEqual([0]);
    expect(windowStarts(65, 64, 0.5, 'nnunet')).toEqual([0, 1]);
  });
  it('centres a volume smaller than the window, the odd voxel at the end', () => {
    expect(windowStarts(5, 8, 0.25, 'monai')).toEqual([-1]);
    expect(windowStarts(5, 9, 0.25, 'nnunet')).toEqual([-2]);
    expect(windowStarts(1, 8, 0.25, 'monai')).toEqual([-3]);
  });
  it('has no window along an axis without voxels', () => {
    expect(windowStarts(0, 8, 0.25, 'monai')).toEqual([]);
    expect(windowStarts(0, 8, 0.25, 'nnunet')).toEqual([]);
  });
  it('counts as MONAI does, without going through the windows', () => {
    // monai.data.utils.dense_patch_slices: the first d with d · interval + roi ≥ length, plus one.
    const monai = (length: number, roi: number, interval: number) => {
      let d = 0;
      while (d * interval + roi < length) d++;
      return d + 1;
    };
    for (const [length, roi] of [
      [1, 1],
      [2, 1],
      [97, 96],
      [100, 32],
      [160, 96],
      [192, 96],
      [193, 96],
      [1000, 7],
    ])
      for (const overlap of [0, 0.25, 0.5, 0.9]) {
        const interval = Math.max(1, Math.floor(roi * (1 - overlap)));
        expect(windowsAlong(length, roi, overlap, 'monai').count).toBe(monai(length, roi, interval));
      }
    // 2^30 − 16 steps of one voxel, and the first window.
    expect(windowsAlong(2 ** 30, 16, 0.9, 'monai').count).toBe(2 ** 30 - 15);
    expect(windowsAlong(2 ** 53 - 1, 4096, 0, 'monai').count).toBe(Math.ceil((2 ** 53 - 4097) / 4096) + 1);
    // nnU-Net: ⌈(2^30 − 64) / 32⌉ steps, and the first window; never less than a voxel a step.
    expect(windowsAlong(2 ** 30, 64, 0.5, 'nnunet').count).toBe(2 ** 25 - 1);
    expect(windowsAlong(100, 16, 1 - 2 ** -53, 'nnunet').count).toBe(85);
  });
  it('covers every voxel', () => {
    const parameters = [
      fc.integer({ min: 1, max: 200 }),
      fc.integer({ min: 1, max: 64 }),
      fc.double({ min: 0, max: 0.95, noNaN: true }),
    ] as const;
    fc.assert(
      fc.property(
        ...parameters,
        fc.constantFrom('monai' as const, 'nnunet' as const),
        (length, roi, overlap, stepping) => {
          let covered = 0;
          for (const start of windowStarts(length, roi, overlap, stepping)) {
            if (start > covered) return false;
            covered = start + roi;
          }
          return covered >= length;
        },
      ),
    );
  });
});

describe('importanceMap()', () => {
  it('has the values of MONAI compute_importance_map', () => {
    // torch: compute_importance_map((4, 3, 2), 'gaussian', 0.125), patch in z, y, x.
    const map = importanceMap([2, 3, 4], 'gaussian', 0.125, 'monai');
    const weight = (x: number, y: number, z: number) =>
      Math.exp(-(x * x) / (2 * 0.0625)) *
      Math.exp(-(y * y) / (2 * 0.140625)) *
      Math.exp(-(z * z) / (2 * 0.25));
    expect(map.length).toBe(24);
    expect(map[2 + 6]).toBeCloseTo(weight(0.5, 0, 0.5), 6); // x 0, y 1, z 1
    expect(map[2]).toBeCloseTo(Math.max(weight(0.5, 0, 1.5), 1e-3), 7); // x 0, y 1, z 0
    expect(map[0]).toBe(Math.fround(1e-3));
    expect(Math.max(...map)).toBe(map[2 + 6]);
  });
  it('is the product of Gaussians per axis, sigma relative to axis length', () => {
    // sigmaScale 0.5: sigma 1.5, 1 and 2 voxels, so exp(−1 / 4.5), exp(−0.25 / 2), exp(−2.25 / 8) and exp(−0.25 / 8).
    const [x, y, z] = [
      [0.8007374, 1, 0.8007374],
      [0.8824969, 0.8824969],
      [0.7548396, 0.9692333, 0.9692333, 0.7548396],
    ];
    const expected = z.flatMap((wz) => y.flatMap((wy) => x.map((wx) => expect.closeTo(wx * wy * wz, 6))));
    expect([...importanceMap([3, 2, 4], 'gaussian', 0.5, 'monai')]).toEqual(expected);
  });
  it('raises small weights to 0.001, and none with nnU-Net’s stepping', () => {
    // sigma 0.625, centre 2 and 2: exp(−0.5 · (k / 0.625)²) is 0.278 one voxel away and 0.00598 two away.
    const near = [0.005976, 0.2780373, 1, 0.2780373, 0.005976].map((v) => expect.closeTo(v, 6));
    expect([...importanceMap([5, 1, 1], 'gaussian', 0.125, 'monai')]).toEqual(near);
    expect([...importanceMap([5, 1, 1], 'gaussian', 0.125, 'nnunet')]).toEqual(near);
    // sigma 0.5: 0.1353 one voxel away, 0.000335 two away, 1.5e-8 three away.
    const thin = [...importanceMap([1, 1, 7], 'gaussian', 1 / 14, 'monai')];
    expect(thin.map((v) => v === Math.fround(1e-3))).toEqual([true, true, false, false, false, true, true]);
    const thinner = [...importanceMap([1, 7, 1], 'gaussian', 1 / 14, 'nnunet')];
    for (const end of [thinner[0], thinner[6]]) expect(end / Math.exp(-18)).toBeCloseTo(1, 6);
    expect(thinner[1]).toBeCloseTo(0.00033546, 8);
  });
  // exp(−0.5 · 40²) is 0 in a double.
  it('is above 0 everywhere, however narrow the Gaussian', () => {
    const map = importanceMap([81, 1, 1], 'gaussian', 1 / 81, 'nnunet');
    expect([map[0], map[80]]).toEqual([2 ** -100, 2 ** -100]);
    expect(map.every((weight) => weight > 0)).toBe(true);
  });
  it('is 1 everywhere when constant', () => {
    expect([...importanceMap([2, 1, 3], 'constant', 0.125, 'monai')]).toEqual([1, 1, 1, 1, 1, 1]);
    expect([...importanceMap([1, 2, 1], 'constant', 0.125, 'nnunet')]).toEqual([1, 1]);
  });
  it('is nnU-Net’s with its stepping: centred on voxel ⌊n/2⌋, not raised to 0.001', () => {
    const map = importanceMap([8, 1, 1], 'gaussian', 0.125, 'nnunet');
    expect([...map].map((v) => Math.log(v))).toEqual(
      [-8, -4.5, -2, -0.5, 0, -0.5, -2, -4.5].map((v) => expect.closeTo(v, 4)),
    );
  });
});

describe('sourceIndices()', () => {
  it('pads as torch.nn.functional.pad does', () => {
    expect([...sourceIndices(-2, 7, 4, 'constant')]).toEqual([-1, -1, 0, 1, 2, 3, -1]);
    expect([...sourceIndices(-2, 7, 4, 'replicate')]).toEqual([0, 0, 0, 1, 2, 3, 3]);
    expect([...sourceIndices(-2, 7, 4, 'reflect')]).toEqual([2, 1, 0, 1, 2, 3, 2]);
  });
  it('reads the window itself where nothing is padded', () => {
    for (const mode of ['constant', 'replicate', 'reflect'] as const) {
      expect([...sourceIndices(3, 4, 9, mode)]).toEqual([3, 4, 5, 6]);
      expect([...sourceIndices(0, 1, 1, mode)]).toEqual([0]);
      expect([...sourceIndices(6, 3, 9, mode)]).toEqual([6, 7, 8]);
    }
  });
  it('reflects up to one voxel less than the size, at both ends', () => {
    expect([...sourceIndices(-3, 7, 4, 'reflect')]).toEqual([3, 2, 1, 0, 1, 2, 3]);
    expect([...sourceIndices(0, 7, 4, 'reflect')]).toEqual([0, 1, 2, 3, 2, 1, 0]);
    for (const [start, roi] of [
      [-4, 8],
      [0, 8],
      [-4, 12],
    ])
      expect(() => sourceIndices(start, roi, 4, 'reflect')).toThrow(
        expect.objectContaining({
          code: 'BAD_INPUT',
          message: expect.stringMatching(new RegExp(`only 4 voxels .* window of ${roi}\\.`)),
        }),
      );
    expect([...sourceIndices(-4, 8, 4, 'replicate')]).toEqual([0, 0, 0, 0, 0, 1, 2, 3]);
  });
});

describe('extractWindow()', () => {
  // Two components of 3 × 2 × 2 voxels: the digits are component, z, y, x, counted from 1.
  const size = [3, 2, 2] as const;
  const voxels = Float32Array.of(
    ...[1111, 1112, 1113, 1121, 1122, 1123, 1211, 1212, 1213, 1221, 1222, 1223],
    ...[2111, 2112, 2113, 2121, 2122, 2123, 2211, 2212, 2213, 2221, 2222, 2223],
  );
  const extract = (xs: number[], ys: number[], zs: number[]) => {
    const out = new Float32Array(2 * xs.length * ys.length * zs.length).fill(Number.NaN);
    extractWindow(voxels, size, 2, [Int32Array.from(xs), Int32Array.from(ys), Int32Array.from(zs)], -7, out);
    return [...out];
  };

  it('copies the part of every component that the axes read', () => {
    expect(extract([1, 2], [1], [0, 1])).toEqual([1122, 1123, 1222, 1223, 2122, 2123, 2222, 2223]);
    expect(extract([0, 1, 2], [0, 1], [1])).toEqual([
      ...[1211, 1212, 1213, 1221, 1222, 1223],
      ...[2211, 2212, 2213, 2221, 2222, 2223],
    ]);
    expect(extract([2], [0], [0])).toEqual([1113, 2113]);
  });

  it('puts the padding value before and after each axis', () => {
    expect(extract([-1, 0, 1, 2], [0], [1])).toEqual([-7, 1211, 1212, 1213, -7, 2211, 2212, 2213]);
    expect(extract([1, 2, -1], [1], [0])).toEqual([1122, 1123, -7, 2122, 2123, -7]);
    expect(extract([0, 1], [-1, 1], [1])).toEqual([-7, -7, 1221, 1222, -7, -7, 2221, 2222]);
    expect(extract([0, 1], [0], [0, -1])).toEqual([1111, 1112, -7, -7, 2111, 2112, -7, -7]);
  });

  it('repeats and reflects voxels as the axes say', () => {
    expect(extract([1, 0, 1, 2, 1], [0], [0])).toEqual([
      1112, 1111, 1112, 1113, 1112, 2112, 2111, 2112, 2113, 2112,
    ]);
    expect(extract([0, 0, 1], [1, 1], [0])).toEqual([
      ...[1121, 1121, 1122, 1121, 1121, 1122],
      ...[2121, 2121, 2122, 2121, 2121, 2122],
    ]);
  });
});

describe('mirrorings()', () => {
  it.each([
    [[], ['---']],
    [['x'], ['---', 'x--']],
    [['y'], ['---', '-y-']],
    [
      ['z', 'x'],
      ['---', 'x--', '--z', 'x-z'],
    ],
    [
      ['y', 'y'],
      ['---', '-y-'],
    ],
    [
      ['x', 'y', 'z'],
      ['---', 'x--', '-y-', 'xy-', '--z', 'x-z', '-yz', 'xyz'],
    ],
  ] as [('x' | 'y' | 'z')[], string[]][])('gives every combination of %j once', (axes, expected) => {
    const names = mirrorings(axes).map((flip) => flip.map((on, i) => (on ? 'xyz'[i] : '-')).join(''));
    expect(names).toEqual(expected);
  });
});

describe('mirror()', () => {
  // Two planes of 3 × 2 × 2: the digits are plane, z, y, x.
  const size = [3, 2, 2] as const;
  const source = Float32Array.of(
    ...[1111, 1112, 1113, 1121, 1122, 1123, 1211, 1212, 1213, 1221, 1222, 1223],
    ...[2111, 2112, 2113, 2121, 2122, 2123, 2211, 2212, 2213, 2221, 2222, 2223],
  );
  const first = {
    x: [1113, 1112, 1111, 1123, 1122, 1121, 1213, 1212, 1211, 1223, 1222, 1221],
    y: [1121, 1122, 1123, 1111, 1112, 1113, 1221, 1222, 1223, 1211, 1212, 1213],
    z: [1211, 1212, 1213, 1221, 1222, 1223, 1111, 1112, 1113, 1121, 1122, 1123],
    xz: [1213, 1212, 1211, 1223, 1222, 1221, 1113, 1112, 1111, 1123, 1122, 1121],
  };

  it.each(Object.entries(first))('reverses %s within every plane', (axes, expected) => {
    const flip = [axes.includes('x'), axes.includes('y'), axes.includes('z')] as const;
    const mirrored = [...expected, ...expected.map((v) => v + 1000)];
    const out = new Float32Array(24).fill(5);
    mirror(source, 2, size, flip, out, false);
    expect([...out]).toEqual(mirrored);
    mirror(source, 2, size, flip, out, true);
    expect([...out]).toEqual(mirrored.map((v) => 2 * v));
  });
});
