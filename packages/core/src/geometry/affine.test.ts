import { describe, expect, it } from 'vitest';
import {
  type Affine,
  affinesEqual,
  applyAffine,
  composeAffine,
  determinant,
  directionOf,
  identity,
  invert,
  lpsToRas,
  multiply,
  orientationOf,
  originOf,
  shiftIndex,
  spacingOf,
  type Vec3,
} from './affine.ts';
import { rotation } from './fixtures.ts';

/** Nine primes and a translation: no two entries are alike, so that no swap goes unnoticed. Computed with by hand. */
const primes: Affine = [2, 3, 5, 10, 7, 11, 13, 20, 17, 19, 23, 30, 0, 0, 0, 1];
/** Columns (2, 3, 6), (1, 4, 8) and (-4, 4, 7): whole lengths 7, 9 and 9. */
const whole: Affine = [2, 1, -4, 11, 3, 4, 4, -12, 6, 8, 7, 13, 0, 0, 0, 1];

function expectNumbers(found: readonly number[], expected: readonly number[]): void {
  expect(found).toHaveLength(expected.length);
  for (const [i, value] of expected.entries()) expect(found[i], `number ${i}`).toBeCloseTo(value, 12);
}

describe('multiply()', () => {
  it('is the product of rows and columns', () => {
    const a: Affine = [2, 0, 1, 10, 0, 3, 0, 20, -1, 0, 4, 30, 0, 0, 0, 1];
    const b: Affine = [0, 1, 0, 5, -2, 0, 0, 6, 0, 0, 3, 7, 0, 0, 0, 1];
    expectNumbers(multiply(a, b), [0, 2, 3, 27, -6, 0, 0, 38, 0, -1, 12, 53, 0, 0, 0, 1]);
  });

  it('keeps every entry with the identity on either side', () => {
    expect(multiply(primes, identity)).toEqual(primes);
    expect(multiply(identity, primes)).toEqual(primes);
  });
});

describe('determinant()', () => {
  it('is the rule of Sarrus', () => {
    // 2 (253 - 247) - 3 (161 - 221) + 5 (133 - 187)
    expect(determinant(primes)).toBe(-78);
  });
});

describe('invert()', () => {
  it('is the adjugate over the determinant', () => {
    const inverse = [6, 26, -16, -100, 60, -39, 9, -90, -54, 13, 1, 250].map((v) => v / -78);
    expectNumbers(invert(primes), [...inverse, 0, 0, 0, 1]);
  });

  it('refuses what has no inverse', () => {
    const flat: Affine = [1, 2, 3, 0, 2, 4, 6, 0, 0, 0, 1, 0, 0, 0, 0, 1];
    for (const bad of [flat, primes.with(0, Number.NaN), primes.with(5, Number.POSITIVE_INFINITY)]) {
      expect(() => invert(bad)).toThrow(RangeError);
    }
  });
});

describe('applyAffine()', () => {
  it('moves a point by rows and translation', () => {
    expect(applyAffine(primes, [1, 2, 3])).toEqual([2 + 6 + 15 + 10, 7 + 22 + 39 + 20, 17 + 38 + 69 + 30]);
  });

  it('negates x and y from LPS+ to RAS+', () => {
    expect(applyAffine(lpsToRas, [1, 2, 3])).toEqual([-1, -2, 3]);
    expect(applyAffine(identity, [1, 2, 3])).toEqual([1, 2, 3]);
  });
});

describe('composeAffine()', () => {
  const direction = [2 / 7, 1 / 9, -4 / 9, 3 / 7, 4 / 9, 4 / 9, 6 / 7, 8 / 9, 7 / 9];

  it('scales the columns of the direction', () => {
    expectNumbers(composeAffine([7, 9, 9], direction, [11, -12, 13]), whole);
  });

  it('is taken apart by spacingOf(), directionOf() and originOf()', () => {
    expect(spacingOf(whole)).toEqual([7, 9, 9]);
    expectNumbers(directionOf(whole), direction);
    expect(originOf(whole)).toEqual([11, -12, 13]);
  });
});

describe('shiftIndex()', () => {
  it('keeps every voxel where it was', () => {
    const shifted = shiftIndex(primes, [1, 2, 3]);
    expect(shifted).toEqual([2, 3, 5, 33, 7, 11, 13, 88, 17, 19, 23, 154, 0, 0, 0, 1]);
    const [x, y, z]: Vec3 = [4, -1, 6];
    expect(applyAffine(shifted, [x - 1, y - 2, z - 3])).toEqual(applyAffine(primes, [x, y, z]));
  });
});

describe('affinesEqual()', () => {
  it('takes a difference of the tolerance in either direction', () => {
    for (const [change, isEqual] of [
      [0.5, true],
      [-0.5, true],
      [0.501, false],
      [-0.501, false],
    ] as const) {
      for (let i = 0; i < 12; i++) {
        expect(affinesEqual(primes, primes.with(i, primes[i] + change), 0.5)).toBe(isEqual);
      }
    }
  });

  it('has a tenth of a micrometre as its default tolerance', () => {
    expect(affinesEqual(primes, primes.with(3, 10.00009))).toBe(true);
    expect(affinesEqual(primes, primes.with(3, 10.00011))).toBe(false);
  });
});

describe('orientationOf()', () => {
  it('names the largest direction of each axis', () => {
    expect(orientationOf(identity)).toBe('RAS');
    expect(orientationOf(lpsToRas)).toBe('LPS');
    // Columns up, to the left, to the back.
    expect(orientationOf([0, -1, 0, 0, 0, 0, -2, 0, 3, 0, 0, 0, 0, 0, 0, 1])).toBe('SLP');
  });

  it('gives each direction once, the largest first', () => {
    // Columns of directions (0.6, 0.8, 0), (0.28, 0.96, 0): the second is more to the front, so that the first is to the right.
    expect(orientationOf([0.6, 0.28, 0, 0, 0.8, 0.96, 0, 0, 0, 0, -1, 0, 0, 0, 0, 1])).toBe('RAI');
    expect(orientationOf([0.28, 0.6, 0, 0, 0.96, 0.8, 0, 0, 0, 0, -1, 0, 0, 0, 0, 1])).toBe('ARI');
  });

  it('takes the first of directions that are equally large', () => {
    // Columns (0.8, 0.6, 0) and (0.8, -0.6, 0).
    expect(orientationOf([4, 4, 0, 0, 3, -3, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1])).toBe('RPS');
  });

  // Directions row by row, and the letters of nibabel 5.0.0's aff2axcodes: the largest number of two columns is in one row.
  it.each([
    ['PLI', [1.2, 0.8, 2.5], [0.128, -0.766, 0.63, -0.788, 0.307, 0.533, -0.602, -0.565, -0.564]],
    ['IRP', [0.5, 5, 1], [-0.444, 0.787, 0.427, 0.529, 0.616, -0.584, -0.723, -0.034, -0.69]],
    ['LIA', [0.5, 5, 1], [-0.774, 0.089, 0.626, 0.534, 0.622, 0.572, 0.339, -0.778, 0.529]],
    ['ASL', [0.5, 5, 1], [0.277, 0.316, -0.908, 0.716, -0.698, -0.024, 0.641, 0.643, 0.419]],
    ['RAS', [0.5, 5, 1], [0.726, 0.08, -0.683, -0.484, 0.765, -0.424, 0.489, 0.639, 0.594]],
    ['LSP', [0.5, 5, 1], [-0.734, -0.197, -0.65, 0.626, -0.566, -0.535, 0.263, 0.8, -0.539]],
    ['PIL', [1.2, 0.8, 2.5], [-0.595, 0.663, -0.454, -0.718, -0.186, 0.671, -0.36, -0.725, -0.587]],
    ['LAS', [1.2, 0.8, 2.5], [-0.723, 0.043, -0.69, 0.412, 0.829, -0.38, -0.555, 0.558, 0.616]],
  ] as const)('gives each axis a distinct direction: %s', (letters, spacing, direction) => {
    expect(orientationOf(composeAffine(spacing, direction, [10, -20, 30]))).toBe(letters);
  });

  it.each([
    ['z', 44, 'RAS'],
    ['z', 46, 'ALS'],
    ['z', -46, 'PRS'],
    ['z', 134, 'ALS'],
    ['x', 44, 'RAS'],
    ['x', 46, 'RSP'],
    ['x', -46, 'RIA'],
    ['x', 134, 'RSP'],
  ] as const)('turned about %s by %d°: %s', (axis, degrees, letters) => {
    const angle = (degrees / 180) * Math.PI;
    const direction = axis === 'z' ? rotation(0, 0, angle) : rotation(angle, 0, 0);
    // Of a coarse axis the numbers of the affine are larger, but not its direction.
    for (const spacing of [
      [1, 1, 1],
      [0.2, 5, 1],
      [5, 0.2, 1],
      [1, 0.2, 5],
    ] as const)
      expect(orientationOf(composeAffine(spacing, direction, [0, 0, 0])), `${spacing}`).toBe(letters);
  });

  it('refuses an axis without a direction', () => {
    const affine: Affine = [1.2, 0.1, 0, 5, 0, 0.8, 0.2, 6, 0.3, 0, 2.5, 7, 0, 0, 0, 1];
    expect(determinant(affine)).toBeGreaterThan(0);
    for (const column of [0, 1, 2]) {
      for (const value of [0, Number.NaN, Number.POSITIVE_INFINITY])
        expect(() => orientationOf(affine.map((v, i) => (i % 4 === column ? value : v)))).toThrow(RangeError);
    }
  });
});
