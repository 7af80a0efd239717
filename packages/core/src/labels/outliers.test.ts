import { describe, expect, it } from 'vitest';
import { findOutliers, type LabelVolume, orderByOutlier, outlierThreshold } from './outliers.ts';

const only = (...volumes: number[]) =>
  volumes.map((volumeMl): LabelVolume[] => [{ value: 3, name: 'liver', volumeMl }]);

describe('findOutliers()', () => {
  it('gives the modified z-scores worked out by hand', () => {
    // Logarithms 0, 1, 2, 3, 10: median 2; deviations 2, 1, 0, 1, 8: MAD 1.
    const found = findOutliers(only(1, Math.E, Math.E ** 2, Math.E ** 3, Math.E ** 10));
    const expected = [1.349, 0.6745, 0, 0.6745, 5.396];
    for (const [i, { score }] of found.entries()) expect(score).toBeCloseTo(expected[i], 9);
    expect(found.map(({ reasons }) => reasons.map(({ kind }) => kind))).toEqual([[], [], [], [], ['large']]);
  });

  it('uses the mean deviation where most volumes are equal', () => {
    // Logarithms 0 ×5 and −3: MAD 0; mean deviation 0.5; 3 / (1.253314 · 0.5) = 4.787308.
    const found = findOutliers(only(1, 1, 1, 1, 1, Math.E ** -3));
    expect(found[5].score).toBeCloseTo(4.787308, 6);
    expect(found[5].reasons).toMatchObject([{ value: 3, name: 'liver', kind: 'small' }]);
    expect(found[0].score).toBe(0);
  });

  it('does not mark a difference of rounding', () => {
    const found = findOutliers(only(100, 100, 100, 100, 100, 100, 100, 100, 100.2));
    expect(Math.max(...found.map(({ score }) => score))).toBeLessThan(outlierThreshold);
  });

  it('scores a label that most others have by how many lack it', () => {
    // Nine have it, one lacks it: 3.5 · 9 / 4 = 7.875.
    const found = findOutliers(only(...Array(9).fill(50), 0));
    expect(found[9]).toEqual({
      score: 7.875,
      reasons: [{ value: 3, name: 'liver', kind: 'missing', score: 7.875 }],
    });
    // Three of ten lack it: as a lesion may.
    expect(findOutliers(only(...Array(7).fill(50), 0, 0, 0))[9].score).toBe(0);
  });

  it('counts a label that a result does not mention as empty', () => {
    const [first, ...rest] = findOutliers([
      [{ value: 9, name: 'stone', volumeMl: 2 }],
      ...Array.from({ length: 8 }, () => []),
    ]);
    // One has it, eight lack it: 3.5 · 8 / 4.
    expect(first).toMatchObject({ score: 7, reasons: [{ kind: 'unexpected' }] });
    expect(rest.every(({ score }) => score === 0)).toBe(true);
  });

  it('compares nothing among fewer than five', () => {
    expect(findOutliers(only(1, 1, 1, 1000)).map(({ score }) => score)).toEqual([0, 0, 0, 0]);
    expect(findOutliers([])).toEqual([]);
  });

  it.each([Number.NaN, -1, Number.POSITIVE_INFINITY])('refuses a volume of %s', (volume) => {
    expect(() => findOutliers(only(1, volume))).toThrow(/label 3 of result 1 .* Measure/);
  });

  it('puts ten planted failures of 200 into the first fifteen rows', () => {
    const random = generator(7);
    const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
    const labels = [
      { value: 1, name: 'liver', typicalMl: 1500 },
      { value: 2, name: 'spleen', typicalMl: 200 },
      { value: 5, name: 'kidney', typicalMl: 160 },
    ];
    const rows: (LabelVolume[] | undefined)[] = Array.from({ length: 200 }, () =>
      labels.map(({ value, name, typicalMl }) => ({
        value,
        name,
        volumeMl: typicalMl * Math.exp(0.25 * normal()),
      })),
    );
    const planted = [3, 21, 47, 60, 88, 101, 130, 155, 177, 199];
    const change = (i: number, label: number, volumeMl: number) => {
      rows[i] = rows[i]!.map((old, at) => (at === label ? { ...old, volumeMl } : old));
    };
    rows[3] = undefined;
    rows[21] = undefined;
    rows[47] = [];
    for (const [i, label, ml] of [
      [60, 0, 0],
      [88, 1, 0],
      [101, 2, 0],
      [130, 0, 150],
      [155, 1, 5],
      [177, 2, 1600],
      [199, 0, 15_000],
    ])
      change(i, label, ml);
    const order = orderByOutlier(findOutliers(rows));
    expect(order.slice(0, 2)).toEqual([3, 21]);
    expect(order.slice(0, 15)).toEqual(expect.arrayContaining(planted));
    expect([...order].sort((a, b) => a - b)).toEqual(rows.map((_, i) => i));
  });
});

/** Uniform numbers below 1 (mulberry32). */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
