import { describe, expect, it } from 'vitest';
import { rulesOf } from './compose-rules.ts';

describe('rulesOf()', () => {
  // torch.where(x[2] > 0, 4, torch.where(x[0] > 0, 1, torch.where(x[1] > 0, 2, 0))), for x = 000, 100, 010, 110, 001 …
  const brats = [0, 1, 2, 1, 4, 4, 4, 4];

  it('finds the order in which one channel overwrites another', () => {
    const rules = rulesOf(brats, 3, 0.5);
    expect(rules).toEqual([
      { channel: 1, above: 0.5, value: 2 },
      { channel: 0, above: 0.5, value: 1 },
      { channel: 2, above: 0.5, value: 4 },
    ]);
  });

  it('takes channels of one value in any order', () => {
    expect(rulesOf([0, 7, 7, 7], 2, 0.5)?.map(({ value }) => value)).toEqual([7, 7]);
  });

  it('refuses a table that no order gives', () => {
    // A sum, an overlap with a value of its own, a circle of three, a background that is not 0, a fraction.
    for (const table of [
      [0, 1, 2, 3],
      [0, 1, 1, 2],
      [1, 1, 2, 2],
      [0, 0.5, 1, 1],
      [0, 1, 2],
    ])
      expect(rulesOf(table, 2, 0.5)).toBeUndefined();
    expect(rulesOf([0, 1, 2, 1, 3, 3, 2, 1], 3, 0.5)).toBeUndefined();
  });
});
