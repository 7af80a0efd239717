import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Grid, Size, Volume } from '../volume.ts';
import { type Affine, applyAffine, composeAffine, invert, orientationOf } from './affine.ts';
import { allOrientations, oblique, patterned, rotation, voxelAt } from './fixtures.ts';
import { cropGrid, orientedGrid, resizedGrid, spacedGrid } from './grid.ts';
import { type Interpolation, interpolations, resample } from './resample.ts';
import { restore } from './restore.ts';

/** A volume whose value is a linear function of its place in the world. */
function ramp(size: Size, affine: Affine): Volume {
  const voxels = new Float32Array(size[0] * size[1] * size[2]);
  let i = 0;
  for (let z = 0; z < size[2]; z++) {
    for (let y = 0; y < size[1]; y++) {
      for (let x = 0; x < size[0]; x++) voxels[i++] = worldValue(applyAffine(affine, [x, y, z]));
    }
  }
  return { voxels, size, components: 1, affine };
}
const worldValue = ([x, y, z]: readonly number[]) => 3 * x - 2 * y + z + 5;

/** Values computed once with scipy 1.10 map_coordinates at the positions of this grid, clamped to the volume. */
const other: Grid = {
  size: [3, 4, 2],
  affine: [
    1.078073235625366, 0.129158082684894, -0.115187667128869, 7.603214411933702, -0.218536263874567,
    0.637156825318441, -0.568238601704259, -22.91355912129473, 0, 0.547585034152037, 0.68835796855604,
    35.699577935092925, 0, 0, 0, 1,
  ],
};
const obliqueOfScipy: Affine = [
  -0.969968480129214, -0.353264130509725, 0.973545855771626, 10, -0.670806935995145, 0.626571102769059,
  -0.680480338238579, -20, 0.221763843258156, 0.35016154453334, 2.199807940703143, 30, 0, 0, 0, 1,
];
const scipy: Record<Interpolation, number[]> = {
  linear: [
    15.406041, 11.7995, 13.538062, 16.67215, 21.297577, 19.850486, 14.890319, 19.382155, 19.66165, 11.827205,
    12.394836, 9.670519, 18.090614, 16.224616, 16.103786, 9.320684, 16.544987, 12.31625, 10.255819, 24.001145,
    19.581396, 14.126638, 15.088437, 12.11001,
  ],
  cubic: [
    12.905342, 7.642219, 14.044949, 18.891252, 24.965851, 22.790871, 13.272103, 24.727785, 23.883624,
    11.965259, 12.324348, 3.698167, 20.152069, 14.333441, 16.039051, 8.567545, 14.549303, 10.39313, 8.161456,
    29.811335, 24.881055, 12.239755, 14.705426, 9.371357,
  ],
  nearest: [12, 8, 17, 12, 30, 29, 21, 30, 15, 12, 3, 3, 18, 18, 15, 12, 28, 6, 4, 28, 15, 10, 19, 15],
};

describe('resample()', () => {
  it.each(['linear', 'cubic', 'nearest'] as const)('gives scipy’s values on an oblique grid: %s', (mode) => {
    for (const type of ['float32', 'float64', 'int16', 'uint8', 'int32'] as const) {
      const out = resample(patterned([7, 5, 6], obliqueOfScipy, type), other, { mode });
      scipy[mode].forEach((v, i) => {
        expect(Number(out.voxels[i])).toBeCloseTo(v, 4);
      });
    }
  });

  it('gives scipy.ndimage.zoom’s values (grid_mode) for a new size', () => {
    const volume = patterned([7, 5, 6], oblique, 'float32');
    const out = resample(volume, resizedGrid(volume, [4, 8, 3]), { mode: 'linear' });
    const first = [
      11.3125, 13.875, 26.125, 7.375, 13.253906, 8.789062, 23.335938, 9.425781, 15.90625, 3.21875,
    ];
    const later = [15.5, 25.5, 4.5, 14.5];
    first.forEach((v, i) => {
      expect(out.voxels[i]).toBeCloseTo(v, 4);
    });
    later.forEach((v, i) => {
      expect(out.voxels[28 + i]).toBeCloseTo(v, 4);
    });
  });

  it('keeps the world position of every voxel, any frame to any frame', () => {
    const angle = fc.double({ min: -Math.PI, max: Math.PI, noNaN: true });
    const mm = fc.double({ min: 0.4, max: 3, noNaN: true });
    const sign = fc.constantFrom(1, -1);
    const frame = fc.tuple(
      angle,
      angle,
      angle,
      mm,
      mm,
      mm,
      sign,
      fc.double({ min: -0.3, max: 0.3, noNaN: true }),
    );
    fc.assert(
      fc.property(frame, frame, fc.constantFrom('linear', 'cubic'), (a, b, mode) => {
        const affineOf = ([x, y, z, sx, sy, sz, s, shear]: typeof a) => {
          const m = [...composeAffine([sx * s, sy, sz], rotation(x, y, z), [5, -7, 11])];
          for (const r of [0, 4, 8]) m[r + 1] += shear * m[r];
          return m;
        };
        const source = ramp([9, 8, 7], affineOf(a));
        const to: Grid = { size: [6, 5, 4], affine: affineOf(b) };
        const inverse = invert(source.affine);
        const out = resample(source, to, { mode: mode as Interpolation, fill: -1e6 });
        let i = 0;
        for (let z = 0; z < 4; z++) {
          for (let y = 0; y < 5; y++) {
            for (let x = 0; x < 6; x++, i++) {
              const world = applyAffine(to.affine, [x, y, z]);
              const at = applyAffine(inverse, world);
              // The ramp is only reproduced by the spline away from its mirrored ends.
              const rim = mode === 'cubic' ? 3.4 : 0;
              if (at.every((p, k) => p >= rim && p <= source.size[k] - 1 - rim)) {
                const error = Math.abs(Number(out.voxels[i]) - worldValue(world));
                expect(error).toBeLessThan(mode === 'cubic' ? 1 : 1e-3);
              } else if (at.some((p, k) => p < -0.501 || p > source.size[k] - 0.499)) {
                expect(out.voxels[i]).toBe(-1e6);
              }
            }
          }
        }
      }),
      { numRuns: 100 },
    );
  });

  it('keeps the last plane, row and column', () => {
    for (const n of [5, 64, 257]) {
      const source = ramp([n, 3, 4], composeAffine([0.1, 0.7, 1 / 3], rotation(0.2, 0.1, 0.4), [0, 0, 0]));
      // The same voxels, asked for twice as densely, up to the last centre.
      const to = { size: [2 * n - 1, 5, 7] as const, affine: spacedGrid(source, [0.05, 0.35, 1 / 6]).affine };
      const out = resample(source, to, { fill: -1e6 });
      for (const corner of [
        [0, 0, 0],
        [2 * n - 2, 4, 6],
        [2 * n - 2, 0, 0],
        [0, 4, 0],
        [0, 0, 6],
      ] as const) {
        expect(voxelAt(out, corner)).toBeCloseTo(worldValue(applyAffine(to.affine, corner)), 3);
      }
    }
  });

  it('repeats the border for half a voxel, then fills', () => {
    const volume = patterned([4, 3, 2], oblique, 'float32');
    const at = (x: number, mode: Interpolation) =>
      resample(volume, cropGrid(volume, [x, 1, 1], [1, 1, 1]), { mode, fill: -7 }).voxels[0] as number;
    for (const mode of ['nearest', 'linear', 'cubic'] as const) {
      expect(at(-0.49, mode)).toBeCloseTo(voxelAt(volume, [0, 1, 1]), 4);
      expect(at(3.49, mode)).toBeCloseTo(voxelAt(volume, [3, 1, 1]), 4);
      expect(at(-0.51, mode)).toBe(-7);
      expect(at(3.51, mode)).toBe(-7);
      expect(at(-1, mode)).toBe(-7);
      // A hundred-thousandth of a voxel is rounding, at every side.
      const size = [4, 3, 2] as const;
      for (const axis of [0, 1, 2]) {
        for (const [border, side] of [
          [0, -0.5],
          [size[axis] - 1, size[axis] - 0.5],
        ] as const) {
          const away = Math.sign(side);
          const place = (value: number, others: number) =>
            [0, 1, 2].map((k) => (k === axis ? value : others)) as unknown as [number, number, number];
          const found = (off: number) =>
            resample(volume, cropGrid(volume, place(side + away * off, 1), [1, 1, 1]), { mode, fill: -7 })
              .voxels[0] as number;
          const voxel = voxelAt(volume, place(border, 1));
          for (const off of [-1e-7, 0, 5e-6])
            expect(found(off), `${mode}, axis ${axis}`).toBeCloseTo(voxel, 4);
          expect(found(2e-5), `${mode}, axis ${axis}`).toBe(-7);
        }
      }
    }
    const edge = resample(volume, cropGrid(volume, [9.3, 1, 1], [1, 1, 1]), { outside: 'edge' });
    expect(edge.voxels[0]).toBe(voxelAt(volume, [3, 1, 1]));
  });

  it('rounds and clamps integers instead of cutting them off', () => {
    const volume: Volume = {
      voxels: Int16Array.of(-3, 4, 300),
      size: [3, 1, 1],
      components: 1,
      affine: oblique,
    };
    const values = (at: number, type: 'int16' | 'uint8' | 'float32') =>
      resample(volume, cropGrid(volume, [at, 0, 0], [1, 1, 1]), { type }).voxels[0];
    expect(values(0.3, 'float32')).toBeCloseTo(-0.9, 5);
    expect(values(0.3, 'int16')).toBe(-1);
    expect(values(0.1, 'int16')).toBe(-2);
    expect(values(0.1, 'uint8')).toBe(0);
    expect(values(1.9, 'uint8')).toBe(255);
    expect(values(0.5 + 1e-9, 'int16')).toBe(1);
    // A grid that only moves voxels gives the type that was asked for, too.
    expect(values(2, 'uint8')).toBe(255);
    expect(resample(volume, volume, {}).voxels).toBeInstanceOf(Float32Array);
  });

  it.each([
    ['int32', 2 ** 24 + 1],
    ['int32', -(2 ** 24) - 1],
    ['int32', 2 ** 31 - 1],
    ['int32', -(2 ** 31)],
    ['uint32', 2 ** 24 + 1],
    ['uint32', 2 ** 32 - 1],
    ['int64', 2 ** 40 + 1],
    ['uint64', 2 ** 50 + 1],
    ['uint16', 65535],
    ['int16', -32768],
  ] as const)('interpolates between %s voxels of %d to that value', (type, value) => {
    const volume: Volume = { ...patterned([4, 3, 2], oblique, type), affine: oblique };
    if (volume.voxels instanceof BigInt64Array || volume.voxels instanceof BigUint64Array)
      volume.voxels.fill(BigInt(value));
    else volume.voxels.fill(value);
    const grid = cropGrid(volume, [0.3, 0.6, 0.2], [3, 2, 1]);
    for (const mode of ['linear', 'cubic', 'nearest'] as const) {
      const { voxels } = resample(volume, grid, { mode, type });
      expect([...voxels].map(Number), mode).toEqual(new Array(6).fill(value));
    }
  });

  it('interpolates between large integers that differ by less than float32 can say', () => {
    const voxels = Int32Array.of(2 ** 24 + 1, 2 ** 24 + 9, -(2 ** 30) - 1, -(2 ** 30) - 5);
    const volume: Volume = { voxels, size: [4, 1, 1], components: 1, affine: oblique };
    const at = (x: number) =>
      Number(resample(volume, cropGrid(volume, [x, 0, 0], [1, 1, 1]), { type: 'int32' }).voxels[0]);
    expect([at(0.25), at(0.75), at(2.25), at(2.5)]).toEqual([
      2 ** 24 + 3,
      2 ** 24 + 7,
      -(2 ** 30) - 2,
      -(2 ** 30) - 3,
    ]);
  });

  it('takes the higher voxel at midpoints, except for float32 rounding, on every axis', () => {
    // Each voxel's value is its place; a shift is in voxels along the source's own axes.
    const size: Size = [5, 4, 3];
    const volume: Volume = {
      voxels: Uint8Array.from({ length: 60 }, (_, i) => i + 1),
      size,
      components: 1,
      affine: oblique,
    };
    // A hundred-thousandth of a voxel counts as rounding: that far, a place counts as halfway and as inside.
    const nearest = (p: number, n: number) => {
      if (p < -0.5 - 1e-5 || p > n - 0.5 + 1e-5) return -1;
      return Math.max(0, Math.min(n - 1, Math.floor(p + 0.5 + 1e-5)));
    };
    for (const off of [-2e-5, -5e-6, -1e-7, 0, 1e-7, 5e-6, 2e-5]) {
      for (const axis of [0, 1, 2]) {
        for (const half of [-0.5, 0.5, -1.5, 2.5]) {
          // The next axis lies outside in part, halfway as well.
          const start = [0, 1, 2].map((k) =>
            k === axis ? half + off : k === (axis + 1) % 3 ? 1.5 - off : 0,
          ) as unknown as [number, number, number];
          const shifted = cropGrid(volume, start, size);
          for (const axcodes of ['RAS', 'LPI', 'SLA', 'AIR', 'PSL']) {
            const grid = orientedGrid(shifted, axcodes);
            const { voxels } = resample(volume, grid, { mode: 'nearest' });
            const edge = resample(volume, grid, { mode: 'nearest', outside: 'edge' }).voxels;
            const back = invert(volume.affine);
            let i = 0;
            for (let z = 0; z < grid.size[2]; z++) {
              for (let y = 0; y < grid.size[1]; y++) {
                for (let x = 0; x < grid.size[0]; x++, i++) {
                  // Whole places are known but for rounding; the shift is known exactly.
                  const p = applyAffine(back, applyAffine(grid.affine, [x, y, z])).map((v, k) => {
                    const whole = Math.round(v - start[k]);
                    return whole + start[k];
                  });
                  const at = p.map((v, k) => nearest(v, size[k]));
                  const kept = p.map((v, k) =>
                    Math.max(0, Math.min(size[k] - 1, Math.floor(v + 0.5 + 1e-5))),
                  );
                  expect(edge[i]).toBe(1 + kept[0] + 5 * (kept[1] + 4 * kept[2]));
                  const expected = at.includes(-1) ? 0 : 1 + at[0] + 5 * (at[1] + 4 * at[2]);
                  expect(voxels[i], `${axcodes}, ${half} + ${off} on axis ${axis}, voxel ${i}`).toBe(
                    expected,
                  );
                }
              }
            }
          }
        }
      }
    }
  });

  it('resamples every component, of a volume of one slice too', () => {
    const volume = patterned([5, 4, 1], oblique, 'uint8', 3);
    const to = resizedGrid(volume, [10, 4, 1]);
    const out = resample(volume, to, {});
    for (const c of [0, 1, 2]) {
      const [a, b] = [voxelAt(volume, [1, 2, 0], c), voxelAt(volume, [2, 2, 0], c)];
      expect(voxelAt(out, [3, 2, 0], c)).toBeCloseTo(0.75 * a + 0.25 * b, 4);
    }
    expect(resample(volume, to, { mode: 'cubic' }).voxels.every((v) => Number.isFinite(Number(v)))).toBe(
      true,
    );
  });

  it('takes 64-bit labels exactly between the voxels', () => {
    const voxels = BigInt64Array.of(2n ** 60n + 1n, -5n, 7n);
    const volume: Volume = { voxels, size: [3, 1, 1], components: 1, affine: oblique };
    const out = resample(volume, cropGrid(volume, [0.3, 0, 0], [4, 1, 1]), { label: true, fill: 9 });
    expect([...out.voxels]).toEqual([2n ** 60n + 1n, -5n, 7n, 9n]);
  });

  it('refuses to interpolate labels, and grids that cannot be', () => {
    const volume = patterned([3, 3, 3]);
    expect(() => resample(volume, volume, { label: true, mode: 'linear' })).toThrow(/nearest/);
    expect(() => resample(volume, { size: [9e4, 9e4, 9e4], affine: oblique })).toThrow(/too large/);
  });
});

describe('restore()', () => {
  const input = patterned([9, 7, 5], oblique, 'uint8');

  it('undoes crops, pads and orders of axes bit for bit, 48 of them', () => {
    for (const axcodes of allOrientations) {
      const there = resample(input, orientedGrid(input, axcodes), { label: true });
      const padded = resample(there, cropGrid(there, [-2, -3, -1], [14, 13, 12]), { label: true, fill: 200 });
      const cropped = resample(padded, cropGrid(padded, [1, 2, 1], [12, 11, 10]), { label: true });
      const back = restore(cropped, input);
      expect(back.voxels).toEqual(input.voxels);
      expect(back.affine).toEqual(input.affine);
      expect(orientationOf(there.affine)).toBe(axcodes);
    }
  });

  it('keeps the voxels of a result on the grid, with the grid’s affine', () => {
    const nudged = input.affine.map((v, i) => (i === 3 ? v + 1e-5 : v));
    const back = restore({ ...input, affine: nudged }, input);
    expect(back.voxels).toBe(input.voxels);
    expect(back.affine).toBe(input.affine);
    const shifted = restore(input, cropGrid(input, [1, 0, 0], [9, 7, 5]));
    expect(voxelAt(shifted, [2, 3, 4])).toBe(voxelAt(input, [3, 3, 4]));
    expect(shifted.voxels).not.toEqual(input.voxels);
  });

  it('leaves 0 where a crop took something away', () => {
    const back = restore(resample(input, cropGrid(input, [2, 1, 1], [4, 4, 3]), { label: true }), input);
    for (let x = 0; x < 9; x++) {
      expect(voxelAt(back, [x, 2, 2])).toBe(x >= 2 && x < 6 ? voxelAt(input, [x, 2, 2]) : 0);
    }
  });

  it('returns every label within half a voxel through orientation, spacing and size', () => {
    // Each voxel's label is its own index; so the label found says where it came from.
    const size = [8, 7, 6] as const;
    const start: Volume = {
      voxels: Uint16Array.from({ length: 336 }, (_, i) => i + 1),
      size,
      components: 1,
      affine: oblique,
    };
    for (const axcodes of allOrientations) {
      const oriented = resample(start, orientedGrid(start, axcodes), { label: true });
      for (const grid of [spacedGrid(oriented, [0.7, 0.6, 0.5]), resizedGrid(oriented, [19, 15, 17])]) {
        const back = restore(resample(oriented, grid, { label: true, outside: 'edge' }), start);
        // The finer grid has a voxel within half of one of the input's along each axis, so nothing moves.
        expect(back.voxels).toEqual(start.voxels);
      }
      const coarse = resizedGrid(oriented, [4, 5, 4]);
      const there = resample(oriented, coarse, { label: true });
      const back = restore(there, start);
      const toCoarse = invert(coarse.affine);
      for (let i = 0; i < 336; i++) {
        const place = (index: number) =>
          applyAffine(start.affine, [index % 8, Math.floor(index / 8) % 7, Math.floor(index / 56)]);
        // What was found here lies in the same coarse voxel, to half a voxel of it and half of the fine.
        const here = applyAffine(toCoarse, place(i));
        const from = applyAffine(toCoarse, place(Number(back.voxels[i]) - 1));
        here.forEach((v, k) => {
          expect(Math.abs(v - from[k])).toBeLessThanOrEqual(1.01);
        });
      }
    }
  });
});

describe("resample() with outside: 'edge'", () => {
  it('repeats the nearest voxel where the grid goes beyond by whole voxels', () => {
    const volume = patterned([4, 3, 5]);
    const size = [8, 6, 9] as const;
    const start = [-2, -1, -3] as const;
    for (const mode of interpolations) {
      const out = resample(volume, cropGrid(volume, start, size), { mode, outside: 'edge', fill: -9 });
      for (let z = 0; z < size[2]; z++) {
        for (let y = 0; y < size[1]; y++) {
          for (let x = 0; x < size[0]; x++) {
            const within = (v: number, n: number) => Math.min(n - 1, Math.max(0, v));
            const source = [within(x - 2, 4), within(y - 1, 3), within(z - 3, 5)] as const;
            // The spline meets its samples to float32.
            expect(voxelAt(out, [x, y, z])).toBeCloseTo(voxelAt(volume, source), 4);
          }
        }
      }
    }
  });
});

describe('resample() on a grid that goes beyond obliquely', () => {
  const volume = patterned([5, 4, 6]);
  // The middles of both lie close together, so that no place is half-way between two voxels.
  const middle = applyAffine(volume.affine, [2.13, 1.37, 2.61]);
  const turned = rotation(-0.5, 0.35, 0.8);
  const reach = applyAffine(composeAffine([0.9, 1.1, 2.1], turned, [0, 0, 0]), [6, 5, 4]);
  const grid: Grid = {
    size: [13, 11, 9],
    affine: composeAffine([0.9, 1.1, 2.1], turned, [
      middle[0] - reach[0],
      middle[1] - reach[1],
      middle[2] - reach[2],
    ]),
  };

  it('takes the nearest voxel, or the nearest at the edge', () => {
    const toIndex = invert(volume.affine);
    const out = resample(volume, grid, { mode: 'nearest', outside: 'edge' });
    const seen = { inside: 0, outside: 0 };
    for (let z = 0; z < grid.size[2]; z++) {
      for (let y = 0; y < grid.size[1]; y++) {
        for (let x = 0; x < grid.size[0]; x++) {
          const place = applyAffine(toIndex, applyAffine(grid.affine, [x, y, z])).map(Math.round);
          const source = place.map((v, i) => Math.min(volume.size[i] - 1, Math.max(0, v)));
          seen[source.every((v, i) => v === place[i]) ? 'inside' : 'outside']++;
          expect(voxelAt(out, [x, y, z])).toBe(voxelAt(volume, [source[0], source[1], source[2]]));
        }
      }
    }
    expect(seen.inside).toBeGreaterThan(50);
    expect(seen.outside).toBeGreaterThan(50);
  });

  it('is constant across a volume of one layer', () => {
    const layer = patterned([5, 1, 6]);
    for (const mode of interpolations) {
      for (const across of [-0.3, 0, 0.3]) {
        const out = resample(layer, cropGrid(layer, [1, across, 2], [3, 1, 2]), { mode });
        for (const [x, z] of [
          [0, 0],
          [1, 0],
          [2, 1],
        ]) {
          expect(voxelAt(out, [x, 0, z])).toBeCloseTo(voxelAt(layer, [x + 1, 0, z + 2]), 4);
        }
      }
    }
  });
});

describe('interpolations', () => {
  it('are those that manifests may name', () => {
    expect(interpolations).toEqual(['nearest', 'linear', 'cubic']);
  });
});
