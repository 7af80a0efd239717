import { describe, expect, it } from 'vitest';
import { limitsOf } from './cases.ts';

/** A proven case whose labels have these Dice. */
const proven = (agree: number, ...dice: number[]) => ({
  agree,
  labels: dice.map((value, i) => ({ value: i + 1, dice: value, expected: 50, found: 49, judged: false })),
});

describe('limitsOf()', () => {
  it.each([
    ['no voxel differs', proven(1, 1, 1), { dice: 0.99, agree: 0.999 }],
    ['a small label differs', proven(0.99992, 0.9999, 0.8765), { dice: 0.86, agree: 0.999 }],
    ['two decimals that floats lie below', proven(0.9992, 0.57), { dice: 0.56, agree: 0.999 }],
    ['more differs than one of 1,000', proven(0.82349, 0.5, 0.004), { dice: 0, agree: 0.8234 }],
    ['there is no label', proven(1), { dice: 0.99, agree: 0.999 }],
  ])('gives limits that the proof meets: %s', (_, given, limits) => {
    expect(limitsOf(given)).toEqual(limits);
  });
});
