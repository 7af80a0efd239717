import { expect, it } from 'vitest';
import { outlierScores } from './outliers.ts';

const rows = (values: readonly number[]) => values.map((ml) => new Map([['liver', ml]]));

it('outlierScores() is the modified z-score of log(1 + ml)', () => {
  // numpy 2.4.6: x = log1p(v); 0.6745 * abs(x - median(x)) / median(abs(x - median(x)))
  const scores = outlierScores(rows([1000, 1100, 1200, 1300, 5000])).map(({ score }) => score);
  const expected = [1.413269773, 0.6745, 0.0, 0.620523132, 11.067526703];
  for (const [i, score] of scores.entries()) expect(score).toBeCloseTo(expected[i], 6);
});

it('a scan without a label that others have counts 0 ml, and the label is its reason', () => {
  const [, , , last] = outlierScores([...rows([10, 11, 12]), new Map([['spleen', 0]])]);
  expect(last.reasons[0].label).toBe('liver');
  expect(last.score).toBeGreaterThan(3.5);
});

it('equal volumes have score 0, and one that differs from equal ones is marked', () => {
  expect(outlierScores(rows([5, 5, 5]))).toEqual(Array(3).fill({ score: 0, reasons: [] }));
  const scores = outlierScores(rows([5, 5, 5, 5, 5, 9])).map(({ score }) => score);
  expect(scores.slice(0, 5)).toEqual([0, 0, 0, 0, 0]);
  expect(scores[5]).toBeCloseTo(6 / 1.253314, 6);
});
