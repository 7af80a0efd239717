import { describe, expect, it } from 'vitest';
import { createNearestPoint } from './nearest.ts';

/** Numbers from 0 to 1 that are the same in every run (Park and Miller 1988). */
function createRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 48271) % 2147483647;
    return state / 2147483647;
  };
}

const random = createRandom(7);
const clouds: Record<string, number[][]> = {
  'one point': [[1, 2, 3]],
  'points in a box': Array.from({ length: 700 }, () => [random() * 90, random() * 40, random() * 7]),
  'points of a grid': Array.from({ length: 1000 }, (_, i) => [
    i % 10,
    Math.floor(i / 10) % 10,
    Math.floor(i / 100),
  ]),
  'points on a line': Array.from({ length: 300 }, (_, i) => [i * 0.5, 4, -i]),
  'one point many times': Array.from({ length: 200 }, () => [5, 5, 5]),
  'two places': Array.from({ length: 301 }, (_, i) => (i % 2 ? [0, 0, 0] : [1000, 0, 0])),
};

describe('createNearestPoint()', () => {
  it.each(Object.entries(clouds))('finds the nearest of %s', (_, points) => {
    const nearest = createNearestPoint(Float64Array.from(points.flat()));
    for (let n = 0; n < 300; n++) {
      const at = [random() * 120 - 15, random() * 60 - 10, random() * 30 - 10];
      const expected = Math.min(...points.map((p) => Math.hypot(...p.map((v, k) => v - at[k]))));
      expect(nearest.distance(at[0], at[1], at[2])).toBeCloseTo(expected, 9);
    }
  });
});
