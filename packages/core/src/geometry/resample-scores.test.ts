import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Grid, type Size, type Volume, voxelCount } from '../volume.ts';
import { type Affine, applyAffine, composeAffine } from './affine.ts';
import { fitOf } from './fit.ts';
import { createNumbers, oblique, rotation } from './fixtures.ts';
import { cropGrid, indexMap, orientedGrid, resizedGrid } from './grid.ts';
import { resample } from './resample.ts';
import {
  resampleArgmax,
  resampleComposed,
  resampleForeground,
  resampleThreshold,
} from './resample-scores.ts';

function randomScores(
  size: Size,
  classes: number,
  affine: Affine,
  seed: number,
  levels: number,
): Volume & { voxels: Float32Array } {
  const next = createNumbers(seed);
  const random = () => next() / 2 ** 32;
  const n = voxelCount({ size });
  const voxels = new Float32Array(n * classes);
  // Few levels make ties; a winning class in each half makes cells that agree.
  for (let k = 0; k < classes; k++) {
    for (let i = 0; i < n; i++) {
      voxels[k * n + i] =
        Math.floor(random() * levels) / 4 + (k === Math.floor((i / n) * 3) ? levels / 6 : 0);
    }
  }
  return { voxels, size, components: classes, affine };
}

/** Each class interpolated in turn, as the documentation says: along y and z, then along x. */
function bruteForce(
  scores: Volume & { voxels: Float32Array },
  grid: Grid,
): { values: number[][]; inside: boolean[] } {
  const map = indexMap(scores, grid);
  const [nx, ny, nz] = scores.size;
  const n = nx * ny * nz;
  const values: number[][] = Array.from({ length: scores.components }, () => []);
  const inside: boolean[] = [];
  for (let z = 0; z < grid.size[2]; z++) {
    for (let y = 0; y < grid.size[1]; y++) {
      for (let x = 0; x < grid.size[0]; x++) {
        const q = [0, 1, 2].map(
          (r) => map[4 * r + 1] * y + map[4 * r + 2] * z + map[4 * r + 3] + map[4 * r] * x,
        );
        inside.push(q.every((v, k) => v >= -0.5 - 1e-5 && v < scores.size[k] - 0.5 + 1e-5));
        const p = q.map((v, k) => Math.min(scores.size[k] - 1, Math.max(0, v)));
        const i = p.map((v, k) => Math.max(0, Math.min(scores.size[k] - 2, Math.floor(v))));
        const [fx, fy, fz] = p.map((v, k) => v - i[k]);
        for (let k = 0; k < scores.components; k++) {
          const at = (dx: number, dy: number, dz: number) => {
            const [a, b, c] = [
              Math.min(nx - 1, i[0] + dx),
              Math.min(ny - 1, i[1] + dy),
              Math.min(nz - 1, i[2] + dz),
            ];
            return scores.voxels[k * n + (c * ny + b) * nx + a];
          };
          const column = (dx: number) =>
            (1 - fy) * (1 - fz) * at(dx, 0, 0) +
            fy * (1 - fz) * at(dx, 1, 0) +
            (1 - fy) * fz * at(dx, 0, 1) +
            fy * fz * at(dx, 1, 1);
          values[k].push((1 - fx) * column(0) + fx * column(1));
        }
      }
    }
  }
  return { values, inside };
}

function expectBruteForce(scores: Volume & { voxels: Float32Array }, grid: Grid) {
  const labels = resampleArgmax(scores, grid).voxels;
  const { values, inside } = bruteForce(scores, grid);
  inside.forEach((isInside, i) => {
    // A NaN is not greater than anything.
    let best = 0;
    let most = Number.NEGATIVE_INFINITY;
    for (let k = 0; k < values.length; k++) if (values[k][i] > most) most = values[(best = k)][i];
    if (labels[i] !== (isInside ? best : 0)) {
      throw new Error(`voxel ${i}: ${labels[i]} instead of ${isInside ? best : 0}`);
    }
  });
  return new Set(labels as Uint8Array);
}

/** A grid across the scores obliquely and beyond them. */
function turned(scores: Volume): Grid {
  const { affine } = resizedGrid(
    cropGrid(scores, [-1, -1, -1], [scores.size[0] + 2, scores.size[1] + 2, scores.size[2] + 2]),
    [9, 8, 7],
  );
  return { size: [9, 8, 7], affine: affine.map((v, i) => (i === 1 || i === 6 || i === 8 ? v + 0.05 : v)) };
}

describe('resampleArgmax()', () => {
  it.each([
    [[1, 1, 1]],
    [[1, 5, 4]],
    [[5, 1, 4]],
    [[5, 4, 1]],
    [[1, 1, 5]],
    [[1, 5, 1]],
    [[5, 1, 1]],
    [[2, 2, 2]],
    [[3, 2, 6]],
  ] as [Size][])('equals it for scores of %j voxels, the last class and infinities among them', (size) => {
    const n = voxelCount({ size });
    for (const odd of [undefined, Number.POSITIVE_INFINITY, Number.NaN]) {
      const scores = randomScores(size, 3, oblique, 11, 40);
      // The last class leads in the last half.
      for (let i = 0; i < n; i++) if (i >= n / 2 || n === 1) scores.voxels[2 * n + i] += 20;
      if (odd !== undefined) for (let i = 0; i < 3 * n; i += 4) scores.voxels[i] = odd;
      const seen = new Set([
        ...expectBruteForce(scores, turned(scores)),
        ...expectBruteForce(scores, resizedGrid(scores, [7, 6, 5])),
        ...expectBruteForce(scores, orientedGrid(resizedGrid(scores, [7, 6, 5]), 'RPI')),
        ...expectBruteForce(scores, orientedGrid(cropGrid(scores, [0.3, -0.4, 0.2], [6, 5, 5]), 'AIR')),
      ]);
      if (odd === undefined) expect(seen).toContain(2);
    }
  });

  it.each([
    [256, Uint8Array],
    [257, Uint16Array],
  ])('gives labels of %i classes as %o', (classes, Type) => {
    const voxels = new Float32Array(classes * 2);
    voxels.set([1, 1], (classes - 1) * 2);
    const scores: Volume = { voxels, size: [2, 1, 1], components: classes, affine: oblique };
    for (const grid of [scores, resizedGrid(scores, [3, 1, 1])]) {
      const found = resampleArgmax(scores, grid).voxels;
      expect(found.constructor).toBe(Type);
      expect(new Set(found as Uint8Array)).toEqual(new Set([classes - 1]));
    }
  });

  it('takes up to 65,534 classes', () => {
    const of = (components: number): Volume => {
      const voxels = new Float32Array(components);
      if (components > 0) voxels[components - 1] = 1;
      return { voxels, size: [1, 1, 1], components, affine: oblique };
    };
    expect([...resampleArgmax(of(65534), of(1)).voxels]).toEqual([65533]);
    expect([...resampleArgmax(of(1), of(1)).voxels]).toEqual([0]);
    for (const classes of [65535, 0])
      expect(() => resampleArgmax(of(classes), of(1))).toThrow(
        expect.objectContaining({
          code: 'BAD_INPUT',
          message: expect.stringContaining(`of ${classes} classes`),
        }),
      );
  });

  it('decides half a voxel outside as at the border, and no further', () => {
    const scores: Volume = {
      voxels: Float32Array.of(0, 0, 1, 1),
      size: [2, 1, 1],
      components: 2,
      affine: oblique,
    };
    for (const axis of [0, 1, 2]) {
      for (const [border, away] of [
        [-0.5, -1],
        [scores.size[axis] - 0.5, 1],
      ]) {
        const at = (off: number) => {
          const start = [0.25, 0, 0].map((v, k) => (k === axis ? border + away * off : v)) as unknown as [
            number,
            number,
            number,
          ];
          const aligned = cropGrid(scores, start, [1, 1, 1]);
          // A second voxel, turned a little, makes the grid oblique.
          const oblique2 = { ...aligned, affine: aligned.affine.map((v, i) => (i === 4 ? v + 0.3 : v)) };
          return [resampleArgmax(scores, aligned).voxels[0], resampleArgmax(scores, oblique2).voxels[0]];
        };
        for (const off of [-0.01, -1e-7, 5e-6]) expect(at(off)).toEqual([1, 1]);
        for (const off of [2e-5, 0.01, 3]) expect(at(off)).toEqual([0, 0]);
      }
    }
  });

  it('equals the argmax of every interpolated class in every voxel, ties included', () => {
    const angle = fc.double({ min: -1, max: 1, noNaN: true });
    const mm = fc.constantFrom(0.5, 0.8, 1, 1.7);
    const length = fc.integer({ min: 1, max: 7 });
    fc.assert(
      fc.property(
        fc.record({
          angle: fc.oneof(fc.constant(0), angle),
          mm: fc.tuple(mm, mm, mm),
          seed: fc.nat(),
          levels: fc.constantFrom(3, 40),
          size: fc.tuple(length, length, length),
        }),
        ({ angle, mm, seed, levels, size }) => {
          const scores = randomScores(
            size,
            5,
            composeAffine([1, 1, 1], rotation(0, 0, 0), [0, 0, 0]),
            seed,
            levels,
          );
          expectBruteForce(scores, {
            size: [9, 8, 7],
            affine: composeAffine(mm, rotation(angle, 0, angle / 2), [-0.7, 0.3, -0.4]),
          });
        },
      ),
      { numRuns: 200 },
    );
  });

  it('equals it for flipped and permuted finer grids, and for whole-voxel moves', () => {
    const scores = randomScores([8, 6, 5], 4, oblique, 3, 40);
    for (const axcodes of ['RAS', 'LPS', 'SAR', 'ILA']) {
      const seen = expectBruteForce(scores, orientedGrid(resizedGrid(scores, [17, 13, 11]), axcodes));
      expect(seen.size).toBe(4);
      expectBruteForce(scores, orientedGrid(cropGrid(scores, [-1, 1, 0], [10, 4, 6]), axcodes));
    }
  });

  it('gives the first of the classes that are equal, whatever their level', () => {
    // More voxels than are looked at together; which classes lead at a voxel, and the label that follows.
    const size: Size = [23, 17, 13];
    const n = voxelCount({ size });
    const leaders = [[0, 1, 2, 3], [1, 3], [2, 3], [0, 3], [3], [1, 2], [0]];
    for (const [top, low] of [
      [1, 0],
      [0, -1],
      [-2, -3],
      [1e30, -1e30],
      [0, -0],
    ]) {
      const voxels = new Float32Array(4 * n);
      for (let i = 0; i < n; i++)
        for (let k = 0; k < 4; k++) voxels[k * n + i] = leaders[i % 7].includes(k) ? top : low;
      const scores: Volume = { voxels, size, components: 4, affine: oblique };
      // 0 and −0 are equal: then all classes are.
      const expected = Uint8Array.from({ length: n }, (_, i) => (top === low ? 0 : leaders[i % 7][0]));
      expect(resampleArgmax(scores, scores).voxels, `${top}`).toEqual(expected);
      const turned = orientedGrid(cropGrid(scores, [2, 1, 1], [19, 14, 11]), 'SLA');
      const labels: Volume = { voxels: expected, size, components: 1, affine: oblique };
      expect(resampleArgmax(scores, turned).voxels).toEqual(resample(labels, turned, { label: true }).voxels);
    }
  });

  it('is background where all scores are equal, on any grid', () => {
    const scores: Volume = {
      voxels: new Float32Array(3 * 60).fill(0.25),
      size: [5, 4, 3],
      components: 3,
      affine: oblique,
    };
    for (const grid of [scores, resizedGrid(scores, [9, 7, 5]), orientedGrid(scores, 'PIR')])
      expect(new Set(resampleArgmax(scores, grid).voxels as Uint8Array)).toEqual(new Set([0]));
  });

  it('gives 0 outside the scores, where another class would win', () => {
    const voxels = Float32Array.of(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    const scores: Volume = { voxels, size: [2, 2, 2], components: 2, affine: oblique };
    const out = resampleArgmax(scores, cropGrid(scores, [-1.25, 0.1, 0.1], [4, 1, 1]));
    expect([...out.voxels]).toEqual([0, 1, 1, 0]);
  });

  it('lets a NaN never win, and widens to uint16 above 256 classes', () => {
    const voxels = new Float32Array(300 * 2).fill(-1);
    voxels.set([Number.NaN, Number.NaN], 0);
    voxels.set([5, 5], 299 * 2);
    const scores: Volume = { voxels, size: [2, 1, 1], components: 300, affine: oblique };
    for (const grid of [scores, resizedGrid(scores, [3, 1, 1])]) {
      const out = resampleArgmax(scores, grid);
      expect(out.voxels).toBeInstanceOf(Uint16Array);
      expect(new Set(out.voxels as Uint16Array)).toEqual(new Set([299]));
    }
  });

  it('refuses scores that are not float32 or too short', () => {
    const scores = randomScores([2, 2, 2], 2, oblique, 1, 4);
    expect(() => resampleArgmax({ ...scores, voxels: new Uint8Array(16) }, scores)).toThrow(/float32/);
    expect(() => resampleArgmax({ ...scores, components: 3 }, scores)).toThrow(/instead of/);
  });
});

describe('resampleArgmax() of probabilities', () => {
  /** Softmax or sigmoid in double, rounded to float32, voxel by voxel. */
  function probabilities(scores: Volume & { voxels: Float32Array }, activation: 'softmax' | 'sigmoid') {
    const n = voxelCount(scores);
    const voxels = scores.voxels.map((v, at) => {
      if (activation === 'sigmoid') return 1 / (1 + Math.exp(-v));
      const all = Array.from({ length: scores.components }, (_, k) => scores.voxels[k * n + (at % n)]);
      const most = Math.max(...all);
      return Math.exp(v - most) / all.reduce((sum, s) => sum + Math.exp(s - most), 0);
    });
    return { ...scores, voxels };
  }

  it.each(['softmax', 'sigmoid'] as const)('%s equals interpolating the probabilities', (activation) => {
    for (const seed of [5, 6]) {
      const scores = randomScores([7, 6, 5], 4, oblique, seed, 40);
      const expected = probabilities(scores, activation);
      for (const grid of [
        turned(scores),
        resizedGrid(scores, [12, 11, 9]),
        cropGrid(scores, [1, 1, 0], [5, 4, 5]),
      ]) {
        const { values, inside } = bruteForce(expected, grid);
        const given = { ...scores, voxels: scores.voxels.slice() };
        const labels = resampleArgmax(given, grid, { activation }).voxels;
        let compared = 0;
        for (const [i, isInside] of inside.entries()) {
          const here = values.map((of) => of[i]);
          const order = [...here].sort((a, b) => b - a);
          // Equal but for rounding: either class is right.
          if (isInside && order[0] - order[1] < 1e-6) continue;
          compared++;
          if (labels[i] !== (isInside ? here.indexOf(order[0]) : 0)) throw new Error(`voxel ${i} of ${seed}`);
        }
        expect(compared).toBeGreaterThan(90);
      }
    }
  });

  it('softmax differs from the scores where they are interpolated', () => {
    const scores = randomScores([7, 6, 5], 4, oblique, 5, 40);
    const grid = resizedGrid(scores, [12, 11, 9]);
    const plain = resampleArgmax(scores, grid).voxels as Uint8Array;
    const soft = resampleArgmax({ ...scores, voxels: scores.voxels.slice() }, grid, {
      activation: 'softmax',
    });
    expect(plain.filter((label, i) => label !== soft.voxels[i]).length).toBeGreaterThan(10);
  });

  it('softmax makes scores equal that differ by rounding: the lower class wins', () => {
    const voxels = Float32Array.of(0.1, 0.1, Math.fround(0.1) + 1e-8, Math.fround(0.1) + 1e-8);
    expect(voxels[2]).toBeGreaterThan(voxels[0]);
    const scores: Volume = { voxels, size: [2, 1, 1], components: 2, affine: oblique };
    expect([...(resampleArgmax(scores, scores).voxels as Uint8Array)]).toEqual([1, 1]);
    expect([...(resampleArgmax(scores, scores, { activation: 'softmax' }).voxels as Uint8Array)]).toEqual([
      0, 0,
    ]);
  });

  it('softmax computes no more voxels than those beside a border between classes', () => {
    const n = 20 * 6 * 5;
    const voxels = Float32Array.from({ length: 2 * n }, (_, i) => (i % 20 < 10 === i < n ? 3 : -2));
    const given = voxels.slice();
    const scores: Volume = { voxels: given, size: [20, 6, 5], components: 2, affine: oblique };
    resampleArgmax(scores, resizedGrid(scores, [40, 12, 10]), { activation: 'softmax' });
    const changed = new Set([...given.keys()].filter((i) => given[i] !== voxels[i]).map((i) => i % 20));
    expect([...changed].sort()).toEqual([10, 9]);
  });

  it('a fit needs the scores on its grid', () => {
    const scores = randomScores([7, 6, 5], 2, oblique, 1, 9);
    const fit = { from: resizedGrid(scores, [9, 9, 9]), to: resizedGrid(scores, [8, 6, 5]) };
    expect(() => resampleArgmax(scores, fit.from, { fit })).toThrow(RangeError);
  });
});

describe('resampleThreshold()', () => {
  it('equals the threshold of the interpolated channel in every voxel', () => {
    for (const [seed, above] of [
      [1, 0.5],
      [2, 0],
      [3, 0.25],
      [4, 1.1],
    ] as const) {
      const scores = randomScores([7, 6, 5], 3, oblique, seed, 9);
      const grid: Grid = {
        size: [12, 11, 10],
        affine: [...resizedGrid(scores, [12, 11, 10]).affine].map((v, i) => (i === 1 ? v + 0.02 : v)),
      };
      for (const to of [grid, resizedGrid(scores, [9, 14, 11]), scores]) {
        const { values, inside } = bruteForce(scores, to);
        const expected = inside.map((isInside, i) => Number(isInside && values[1][i] > above));
        expect([...resampleThreshold(scores, 1, above, to).voxels]).toEqual(expected);
        expect(new Set(expected).size).toBe(2);
      }
    }
  });

  it('is 0 where a score equals the threshold, and 1 above it', () => {
    for (const above of [0.5, 0, -0.25, 2 ** 66]) {
      const next = above === 0 ? 2 ** -40 : above + Math.abs(above) * 2 ** -20;
      const voxels = Float32Array.from({ length: 60 }, (_, i) => (i % 3 === 0 ? next : above));
      const scores: Volume = { voxels, size: [5, 4, 3], components: 1, affine: oblique };
      expect([...resampleThreshold(scores, 0, above, scores).voxels]).toEqual(
        Array.from({ length: 60 }, (_, i) => (i % 3 === 0 ? 1 : 0)),
      );
    }
  });

  it('computes scores that lie as near to the threshold as rounding reaches', () => {
    // Just below 0.5: blending halves of 0.5 may round down to it.
    for (const above of [0.5 - 2 ** -54, -0.5 - 2 ** -53, 0.3, -0.3]) {
      const voxels = new Float32Array(4 * 5 * 3).fill(above < 0 ? Math.fround(above) : above);
      const scores = { voxels, size: [4, 5, 3] as const, components: 1, affine: oblique };
      for (const grid of [resizedGrid(scores, [23, 19, 17]), turned(scores)]) {
        const { values, inside } = bruteForce(scores, grid);
        const expected = inside.map((isInside, i) => Number(isInside && values[0][i] > above));
        expect([...resampleThreshold(scores, 0, above, grid).voxels], `${above}`).toEqual(expected);
      }
    }
  });

  it('takes no score that is infinite or NaN for decided', () => {
    for (const odd of [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN]) {
      const scores = randomScores([6, 5, 4], 2, oblique, 5, 9);
      for (let i = 0; i < scores.voxels.length; i++) if (i % 7 < 3 || i < 30) scores.voxels[i] = odd;
      for (const grid of [resizedGrid(scores, [11, 9, 7]), turned(scores)]) {
        const { values, inside } = bruteForce(scores, grid);
        for (const channel of [0, 1]) {
          const expected = inside.map((isInside, i) => Number(isInside && values[channel][i] > 0.6));
          expect([...resampleThreshold(scores, channel, 0.6, grid).voxels], `${odd}`).toEqual(expected);
        }
        expectBruteForce(scores, grid);
      }
    }
  });

  it('refuses a missing channel', () => {
    const scores = randomScores([2, 2, 2], 2, oblique, 1, 4);
    for (const channel of [-1, 0.5, 2, Number.NaN])
      expect(() => resampleThreshold(scores, channel, 0.5, scores)).toThrow(
        expect.objectContaining({
          code: 'BAD_INPUT',
          message: expect.stringContaining(`no channel ${channel}`),
        }),
      );
    expect(resampleThreshold(scores, 1, 0.5, scores).voxels).toBeInstanceOf(Uint8Array);
    expect(() => resampleThreshold(scores, 2, 0.5, scores)).toThrow(/no channel 2/);
  });
});

/** A permuted, flipped, finer grid and an oblique one, on left-handed anisotropic scores. */
const gridsOf = (scores: Volume): [string, Grid][] => [
  ['axes in another order', resizedGrid(orientedGrid(scores, 'PIR'), [11, 9, 13])],
  ['oblique', turned(scores)],
  ['the same voxels', orientedGrid(scores, 'SLA')],
];

describe('resampleForeground()', () => {
  // 0.5 is a level of the scores: many voxels lie exactly on the floor.
  it.each([0.5, 0.3, -1, 99])('equals the argmax of interpolated scores above %f', (atMost) => {
    const scores = randomScores([5, 4, 6], 3, oblique, 8, 5);
    for (const [name, grid] of gridsOf(scores)) {
      const { values, inside } = bruteForce(scores, grid);
      const expected = inside.map((isInside, i) => {
        const most = Math.max(...values.map((channel) => channel[i]));
        return isInside && most > atMost ? values.findIndex((channel) => channel[i] === most) + 1 : 0;
      });
      expect([name, ...resampleForeground(scores, atMost, grid).voxels]).toEqual([name, ...expected]);
      if (atMost < 1) expect(new Set(expected).size).toBeGreaterThan(2);
    }
  });

  it('computes a voxel with a NaN, which never wins', () => {
    const scores = randomScores([3, 3, 3], 2, oblique, 4, 6);
    scores.voxels.fill(Number.NaN, 0, 27);
    scores.voxels.fill(2, 27);
    expect(new Set(resampleForeground(scores, 0, scores).voxels as Uint8Array)).toEqual(new Set([2]));
  });

  it.each([
    [255, Uint8Array],
    [256, Uint16Array],
  ] as const)('stores the values of %i classes', (classes, Type) => {
    const scores = randomScores([2, 2, 2], classes, oblique, 5, 1);
    scores.voxels.fill(9, (classes - 1) * 8);
    expect(resampleForeground(scores, 1, scores).voxels).toEqual(new Type(8).fill(classes));
  });
});

describe('resampleForeground() and resampleComposed()', () => {
  const rules = [
    { channel: 1, above: 0.3, value: 5 },
    { channel: 2, above: 0.4, value: 6 },
  ];
  it.each(['softmax', 'sigmoid'] as const)(
    'take probabilities by %s before they interpolate',
    (activation) => {
      const given = () => randomScores([5, 4, 6], 3, oblique, 8, 5);
      const probabilities = given();
      const n = voxelCount(probabilities);
      for (let i = 0; i < n; i++) {
        const terms = [0, 1, 2].map((k) => Math.exp(probabilities.voxels[k * n + i]));
        const sum = terms[0] + terms[1] + terms[2];
        terms.forEach((term, k) => {
          probabilities.voxels[k * n + i] = term / (activation === 'softmax' ? sum : 1 + term);
        });
      }
      for (const [, grid] of gridsOf(probabilities)) {
        const { values, inside } = bruteForce(probabilities, grid);
        const foreground = resampleForeground(given(), 0.45, grid, { activation }).voxels;
        const composed = resampleComposed(given(), rules, grid, { activation }).voxels;
        inside.forEach((isInside, i) => {
          const each = values.map((channel) => (isInside ? channel[i] : 0));
          // Voxels that rounding to float32 could decide are left out.
          const near = (a: number, b: number) => Math.abs(a - b) < 1e-5;
          const most = Math.max(...each);
          const isTie = each.filter((value) => near(value, most)).length > 1;
          if (!isTie && !near(most, 0.45))
            expect([i, foreground[i]]).toEqual([i, most > 0.45 ? each.indexOf(most) + 1 : 0]);
          if (!near(each[1], 0.3) && !near(each[2], 0.4))
            expect([i, composed[i]]).toEqual([i, each[2] > 0.4 ? 6 : each[1] > 0.3 ? 5 : 0]);
        });
      }
    },
  );

  it('go back through a fit as the argmax of scores with a constant background does', () => {
    const from: Grid = { size: [9, 7, 11], affine: oblique };
    const fit = fitOf(from, [1.9, 0.6, 6], 'z');
    const level = Math.fround(1.15);
    const sized = randomScores(fit.to.size, 3, fit.to.affine, 8, 5);
    const n = voxelCount(sized);
    const withBackground = new Float32Array(4 * n).fill(level, 0, n);
    withBackground.set(sized.voxels, n);
    const background = { ...sized, components: 4, voxels: withBackground };
    const expected = resampleArgmax(background, from, { fit }).voxels;
    expect(resampleForeground(sized, level, from, { fit }).voxels).toEqual(expected);
    expect(new Set(expected as Uint8Array)).toEqual(new Set([0, 1, 2, 3]));
  });
});

describe('resampleComposed()', () => {
  const rules = [
    { channel: 2, above: 0.4, value: 1 },
    { channel: 0, above: 0.5, value: 300 },
    { channel: 1, above: 0.9, value: 0 },
  ];
  it('gives the value of the last rule that the interpolated scores meet', () => {
    const scores = randomScores([5, 4, 6], 3, oblique, 8, 5);
    for (const [name, grid] of gridsOf(scores)) {
      const { values, inside } = bruteForce(scores, grid);
      const expected = inside.map((isInside, i) => {
        const last = rules.findLast(({ channel, above }) => isInside && values[channel][i] > above);
        return last?.value ?? 0;
      });
      const { voxels, size, affine } = resampleComposed(scores, rules, grid);
      expect(voxels).toBeInstanceOf(Uint16Array);
      expect([name, ...voxels]).toEqual([name, ...expected]);
      expect({ size, affine }).toEqual(grid);
      expect(new Set(expected)).toEqual(new Set([0, 1, 300]));
    }
  });

  it('stores values up to 255 in one byte, and refuses a missing channel', () => {
    const scores = randomScores([2, 3, 2], 3, oblique, 8, 5);
    expect(resampleComposed(scores, rules.slice(0, 1), scores).voxels).toBeInstanceOf(Uint8Array);
    const missing = [{ channel: 3, above: 0, value: 1 }];
    expect(() => resampleComposed(scores, missing, scores)).toThrow('no channel 3');
  });
});

describe('both', () => {
  it('have the grid that was asked for', () => {
    const scores = randomScores([3, 4, 5], 2, oblique, 1, 4);
    const grid = resizedGrid(scores, [5, 6, 7]);
    expect(resampleArgmax(scores, grid)).toMatchObject({
      size: [5, 6, 7],
      affine: grid.affine,
      components: 1,
    });
    expect(applyAffine(grid.affine, [0, 0, 0])).not.toEqual(applyAffine(scores.affine, [0, 0, 0]));
  });
});
