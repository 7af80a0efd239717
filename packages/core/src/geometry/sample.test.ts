import { describe, expect, it } from 'vitest';
import type { Size } from '../volume.ts';
import { createNumbers, oblique, patterned } from './fixtures.ts';
import {
  innerRun,
  type Line,
  layOut,
  type Positions,
  sampleCubicRow,
  sampleLinearLine,
  sampleLinearRow,
  sampleNearestLine,
  sampleNearestRow,
  slack,
  splineCoefficients,
} from './sample.ts';

const sizes: Size[] = [
  [5, 4, 3],
  [1, 4, 3],
  [5, 1, 3],
  [5, 4, 1],
  [1, 1, 1],
  [2, 2, 2],
];

const floats = (size: Size) => Float64Array.from(patterned(size, oblique, 'float64').voxels, Number);
const valueAt = (source: ArrayLike<number>, size: Size, x: number, y: number, z: number) =>
  source[(z * size[1] + y) * size[0] + x];

function random(seed: number): () => number {
  const next = createNumbers(seed);
  return () => next() / 2 ** 32;
}

/** Lines through, along, past and away from a volume, with steps of 0 and backwards. */
function linesThrough(size: Size): Line[] {
  const next = random(7);
  const along = [0, 1, 2].flatMap((axis) =>
    [-1, -0.4, 0.25, 1].flatMap((step) =>
      [-1.5, -0.5, 0, 0.5].map((from) => ({
        start: Float64Array.from([0, 1, 2], (k) => (k === axis ? (step < 0 ? size[k] - 1 - from : from) : 0)),
        step: Float64Array.from([0, 1, 2], (k) => (k === axis ? step : 0)),
      })),
    ),
  );
  const across = Array.from({ length: 60 }, () => ({
    start: Float64Array.from(size, (n) => next() * (n + 4) - 2),
    step: Float64Array.from([0, 1, 2], () => (next() < 0.2 ? 0 : next() * 1.6 - 0.8)),
  }));
  return [...along, ...across];
}

const n = 14;
const positions = (line: Line): Positions => {
  const along = (k: number) => Float64Array.from({ length: n }, (_, i) => line.start[k] + line.step[k] * i);
  return { px: along(0), py: along(1), pz: along(2) };
};
const placeAt = (at: Positions, i: number) => [at.px[i], at.py[i], at.pz[i]];
const isWithin = (p: readonly number[], size: Size) =>
  p.every((v, k) => v >= -0.5 - slack && v <= size[k] - 0.5 + slack);
const clamped = (p: readonly number[], size: Size) => p.map((v, k) => Math.min(size[k] - 1, Math.max(0, v)));

describe('layOut()', () => {
  it('puts start + i · step', () => {
    const at = { px: new Float64Array(3), py: new Float64Array(3), pz: new Float64Array(3) };
    layOut({ start: Float64Array.of(1, -2, 0.5), step: Float64Array.of(0.5, 2, -1) }, 3, at);
    expect(at).toEqual({
      px: Float64Array.of(1, 1.5, 2),
      py: Float64Array.of(-2, 0, 2),
      pz: Float64Array.of(0.5, -0.5, -1.5),
    });
  });
});

describe('innerRun()', () => {
  it('is the run of positions from low up to, not including, high', () => {
    const counts = { empty: 0, whole: 0, part: 0 };
    for (const size of sizes) {
      for (const line of linesThrough(size)) {
        for (const low of [-0.5, 0]) {
          const high = size.map((length) => length + low);
          const at = positions(line);
          const inside = Array.from({ length: n }, (_, i) => i).filter((i) =>
            placeAt(at, i).every((v, k) => v >= low && v < high[k]),
          );
          const expected = inside.length > 0 ? [inside[0], inside[inside.length - 1] + 1] : [n, n];
          expect(innerRun(n, line, low, high[0], high[1], high[2])).toEqual(expected);
          counts[inside.length === 0 ? 'empty' : inside.length === n ? 'whole' : 'part']++;
        }
      }
    }
    expect(Math.min(...Object.values(counts))).toBeGreaterThan(20);
  });
});

describe('sampleNearestRow(), sampleNearestLine()', () => {
  it('give the offset of the nearest voxel, −1 outside', () => {
    for (const size of sizes) {
      for (const line of linesThrough(size)) {
        const at = positions(line);
        for (const edge of [false, true]) {
          const expected = Array.from({ length: n }, (_, i) => {
            const p = placeAt(at, i);
            if (!edge && !isWithin(p, size)) return -1;
            // Halfway: the higher one.
            const [x, y, z] = clamped(
              p.map((v) => Math.floor(v + 0.5 + slack)),
              size,
            );
            return (z * size[1] + y) * size[0] + x;
          });
          const row = new Int32Array(n);
          sampleNearestRow(row, n, size, at, edge);
          expect([...row]).toEqual(expected);
          sampleNearestLine(row.fill(99), n, size, line, edge);
          expect([...row]).toEqual(expected);
        }
      }
    }
  });

  it('leave what lies beyond the n-th position', () => {
    const line = { start: Float64Array.of(1, 1, 1), step: Float64Array.of(0.5, 0, 0) };
    for (const sample of [
      (row: Int32Array) => sampleNearestRow(row, 2, [5, 4, 3], positions(line), false),
      (row: Int32Array) => sampleNearestLine(row, 2, [5, 4, 3], line, false),
    ]) {
      const row = new Int32Array(4).fill(77);
      sample(row);
      expect([...row]).toEqual([26, 27, 77, 77]);
    }
  });
});

describe('sampleLinearRow(), sampleLinearLine()', () => {
  it('weight the voxels around by their distance along each axis', () => {
    for (const size of sizes) {
      const source = floats(size);
      for (const line of linesThrough(size)) {
        const at = positions(line);
        for (const edge of [false, true]) {
          const expected = Array.from({ length: n }, (_, i) => {
            const place = placeAt(at, i);
            if (!edge && !isWithin(place, size)) return -7;
            const p = clamped(place, size);
            let sum = 0;
            for (let z = 0; z < size[2]; z++)
              for (let y = 0; y < size[1]; y++)
                for (let x = 0; x < size[0]; x++) {
                  const weights = [x, y, z].map((v, k) => Math.max(0, 1 - Math.abs(p[k] - v)));
                  sum += weights[0] * weights[1] * weights[2] * valueAt(source, size, x, y, z);
                }
            return sum;
          });
          const row = new Float64Array(n);
          sampleLinearRow(row, n, source, size, at, -7, edge);
          const out = new Float64Array(n + 5).fill(99);
          sampleLinearLine(out, 3, n, source, size, line, -7, edge);
          expect([...out.subarray(0, 3), ...out.subarray(n + 3)]).toEqual([99, 99, 99, 99, 99]);
          for (let i = 0; i < n; i++) {
            expect(row[i]).toBeCloseTo(expected[i], 9);
            expect(out[i + 3]).toBeCloseTo(expected[i], 9);
          }
        }
      }
    }
  });

  it('do not read voxels of weight zero', () => {
    // Only the voxel (2, 1, 1) is a number; its neighbours in every direction are not.
    const size = [5, 4, 3] as const;
    const source = new Float64Array(60).fill(Number.NaN);
    source[(1 * 4 + 1) * 5 + 2] = 8;
    source[(1 * 4 + 1) * 5 + 3] = 10;
    const at = { px: Float64Array.of(2, 2.5, 3), py: Float64Array.of(1, 1, 1), pz: Float64Array.of(1, 1, 1) };
    const row = new Float64Array(3);
    sampleLinearRow(row, 3, source, size, at, 0, false);
    expect([...row]).toEqual([8, 9, 10]);
    // The last voxel along each axis.
    source.fill(Number.NaN)[59] = 6;
    const last = { px: Float64Array.of(4), py: Float64Array.of(3), pz: Float64Array.of(2) };
    sampleLinearRow(row, 1, source, size, last, 0, false);
    expect(row[0]).toBe(6);
    const line = { start: Float64Array.of(4, 3, 2), step: new Float64Array(3) };
    sampleLinearLine(row, 1, 1, source, size, line, 0, false);
    expect(row[1]).toBe(6);
  });
});

/** Index m mirrored at the first and the last sample, neither repeated. */
function mirrored(m: number, length: number): number {
  if (length === 1) return 0;
  let i = m;
  while (i < 0 || i >= length) i = i < 0 ? -i : 2 * (length - 1) - i;
  return i;
}

/** What the spline at a sample is made of. */
const taps = [
  [-1, 1 / 6],
  [0, 4 / 6],
  [1, 1 / 6],
];

describe('splineCoefficients()', () => {
  it('solves two samples and three as by hand', () => {
    // 4 a + 2 b = 6 s, 2 a + 4 b = 6 t.
    const two = splineCoefficients(Float64Array.of(5, 8), [1, 2, 1]);
    expect(two[0]).toBeCloseTo(2, 12);
    expect(two[1]).toBeCloseTo(11, 12);
    // 4 a + 2 b = 6, a + 4 b + c = 0, 2 b + 4 c = 0 for a pulse at the first.
    const three = splineCoefficients(Float64Array.of(1, 0, 0), [1, 1, 3]);
    [1.75, -0.5, 0.25].forEach((v, i) => {
      expect(three[i]).toBeCloseTo(v, 12);
    });
  });

  it('gives the samples back through 1, 4, 1 sixths along each axis', () => {
    for (const size of [...sizes, [45, 2, 3], [2, 50, 3], [3, 2, 47]] as Size[]) {
      const source = floats(size);
      const before = source.slice();
      const coefficients = splineCoefficients(source, size);
      expect(source).toEqual(before);
      for (let z = 0; z < size[2]; z++)
        for (let y = 0; y < size[1]; y++)
          for (let x = 0; x < size[0]; x++) {
            let sum = 0;
            for (const [dz, wz] of taps)
              for (const [dy, wy] of taps)
                for (const [dx, wx] of taps) {
                  const p = [x + dx, y + dy, z + dz].map((v, k) => mirrored(v, size[k]));
                  sum += wz * wy * wx * valueAt(coefficients, size, p[0], p[1], p[2]);
                }
            if (Math.abs(sum - valueAt(source, size, x, y, z)) > 1e-9) expect(sum, `${x} ${y} ${z}`).toBe(0);
          }
    }
  });

  it('keeps the type of the samples', () => {
    expect(splineCoefficients(Float32Array.of(5, 8), [2, 1, 1])).toEqual(Float32Array.of(2, 11));
  });
});

/** The cubic B-spline by its definition. */
function spline(t: number): number {
  const d = Math.abs(t);
  if (d >= 2) return 0;
  return d < 1 ? 2 / 3 - d * d + (d * d * d) / 2 : (2 - d) ** 3 / 6;
}

describe('sampleCubicRow()', () => {
  it('sums the splines around, mirrored at the ends', () => {
    for (const size of sizes) {
      const coefficients = floats(size);
      for (const line of linesThrough(size).filter((_, i) => i % 2 === 0)) {
        const at = positions(line);
        for (const edge of [false, true]) {
          const row = new Float64Array(n + 1).fill(99);
          sampleCubicRow(row, n, coefficients, size, at, -7, edge);
          expect(row[n]).toBe(99);
          for (let i = 0; i < n; i++) {
            const place = placeAt(at, i);
            let expected = -7;
            if (edge || isWithin(place, size)) {
              expected = 0;
              const p = clamped(place, size);
              const near = p.map((v) => [-2, -1, 0, 1, 2].map((d) => Math.floor(v) + d));
              for (const z of near[2])
                for (const y of near[1])
                  for (const x of near[0]) {
                    const weight = spline(p[0] - x) * spline(p[1] - y) * spline(p[2] - z);
                    const from = [x, y, z].map((v, k) => mirrored(v, size[k]));
                    expected += weight * valueAt(coefficients, size, from[0], from[1], from[2]);
                  }
            }
            expect(row[i]).toBeCloseTo(expected, 8);
          }
        }
      }
    }
  });
});
