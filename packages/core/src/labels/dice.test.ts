import { describe, expect, it } from 'vitest';
import { createNumbers } from '../geometry/fixtures.ts';
import type { Volume, Voxels } from '../volume.ts';
import { dice, diceOfLabels } from './dice.ts';

/** Oblique, left-handed, 0.8 × 1.5 × 2.5 mm. */
const affine = [-0.64, 0.9, 0, 12, 0.48, 1.2, 0, -7, 0, 0, 2.5, 30, 0, 0, 0, 1];
const volumeOf = (voxels: Voxels): Volume => ({ voxels, size: [voxels.length, 1, 1], components: 1, affine });
const left = volumeOf(Int16Array.of(0, 1, 1, 1, 2, 2, 0, -3, 5, 0, 0));
const right = volumeOf(Int16Array.of(0, 1, 1, 2, 2, 0, 2, -3, 0, 0, 1));

const elsewhere = (change: number, at: number): Volume => ({
  ...right,
  affine: affine.map((v, i) => (i === at ? v + change : v)),
});

describe('dice()', () => {
  it.each([
    // 7 voxels each; 5 in both.
    [undefined, 10 / 14],
    // 3 and 3, 2 in both; 2 and 3, 1 in both.
    [1, 4 / 6],
    [2, 2 / 5],
    [-3, 1],
    [5, 0],
    [9, 1],
    [0, 4 / 8],
  ])('is twice the overlap of label %s over the sum', (value, expected) => {
    expect(dice(left, right, value)).toBe(expected);
    expect(dice(right, left, value)).toBe(expected);
  });

  it('is 1 of two empty maps, 0 of one', () => {
    const empty = volumeOf(new Float32Array(11));
    expect(dice(empty, empty)).toBe(1);
    expect(dice(empty, left)).toBe(0);
  });

  it('compares maps of different types, and affines to a micrometre', () => {
    const floats = { ...elsewhere(9e-4, 3), voxels: Float64Array.from(right.voxels, Number) };
    expect(dice(left, floats, 2)).toBe(2 / 5);
  });

  it('refuses label maps on different grids', () => {
    const others = [elsewhere(1.1e-3, 3), elsewhere(-1.1e-3, 6), { ...right, size: [1, 11, 1] as const }];
    for (const other of others) {
      for (const compare of [dice, diceOfLabels]) {
        expect(() => compare(left, other)).toThrow(
          expect.objectContaining({
            code: 'BAD_INPUT',
            message: expect.stringMatching(/different grids.*Resample/),
          }),
        );
      }
    }
  });
});

describe('diceOfLabels()', () => {
  it('gives each label that either map has, ascending', () => {
    const expected = [
      [-3, 1],
      [1, 4 / 6],
      [2, 2 / 5],
      [5, 0],
    ];
    expect([...diceOfLabels(left, right)]).toEqual(expected);
    expect([...diceOfLabels(right, left)]).toEqual(expected);
  });

  it('agrees with dice() of each label, for noise in runs', () => {
    const next = createNumbers(7);
    let value = 0;
    const noise = () =>
      volumeOf(
        Uint8Array.from({ length: 500 }, (_, i) => {
          if (i % 3 === 0) value = (next() >>> 16) % 7;
          return value;
        }),
      );
    const [a, b] = [noise(), noise()];
    expect([...diceOfLabels(a, b)]).toEqual([1, 2, 3, 4, 5, 6].map((value) => [value, dice(a, b, value)]));
  });
});
