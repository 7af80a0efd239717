import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Grid, type Size, type Volume, voxelCount } from '../volume.ts';
import { type Affine, applyAffine, composeAffine } from './affine.ts';
import { oblique, rotation } from './fixtures.ts';
import { cropGrid, indexMap, orientedGrid, resizedGrid } from './grid.ts';
import { resampleArgmax, resampleThreshold } from './resample-scores.ts';

function randomScores(
  size: Size,
  classes: number,
  affine: Affine,
  seed: number,
  levels: number,
): Volume & { voxels: Float32Array } {
  let state = seed;
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
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
    let best = 0;
    for (let k = 1; k < values.length; k++) if (values[k][i] > values[best][i]) best = k;
    if (labels[i] !== (isInside ? best : 0)) {
      throw new Error(`voxel ${i}: ${labels[i]} instead of ${isInside ? best : 0}`);
    }
  });
  return new Set(labels as Uint8Array);
}

describe('resampleArgmax()', () => {
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
    expect(() => resampleArgmax({ ...scores, components: 3 }, scores)).toThrow(/needed/);
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

  it('refuses a channel that is not there', () => {
    const scores = randomScores([2, 2, 2], 2, oblique, 1, 4);
    expect(() => resampleThreshold(scores, 2, 0.5, scores)).toThrow(/no channel 2/);
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
