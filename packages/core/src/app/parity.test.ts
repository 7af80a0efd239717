import { describe, expect, it } from 'vitest';
import type { Agreement } from '../labels/agreement.ts';
import { describeParity, judge, type Verdict, worstVerdict } from './parity.ts';

/** An agreement with so many differing voxels, and labels as [dice, voxels]. */
function agreementOf(
  voxels: number,
  differ: number,
  labels: [dice: number, voxels: number][] = [],
): Agreement {
  return {
    voxels,
    differ,
    agree: 1 - differ / voxels,
    sameGrid: true,
    labels: labels.map(([dice, count], k) => ({ value: k + 1, dice, expected: count, found: count })),
    where: { labelBorder: 0, outerShell: 0, replaced: [] },
  };
}

describe('judge()', () => {
  it.each<[Verdict, string, Agreement, number | undefined]>([
    ['exact', 'no voxel', agreementOf(1e6, 0, [[1, 5000]]), undefined],
    ['exact', 'no voxel, whatever the noise', agreementOf(1e6, 0), 300],
    ['within noise', '1.5 of the noise', agreementOf(1e6, 450, [[0.98, 5000]]), 300],
    ['close', 'more than 1.5 of the noise', agreementOf(1e6, 451, [[0.995, 5000]]), 300],
    ['within noise', '99.99 %', agreementOf(1e6, 100, [[0.99, 5000]]), undefined],
    ['close', 'a voxel more', agreementOf(1e6, 101, [[0.99, 5000]]), undefined],
    ['close', '99.9 %', agreementOf(1e6, 1000, [[0.99, 1000]]), undefined],
    ['differs', 'more than that', agreementOf(1e6, 1001, [[0.999, 1000]]), undefined],
    ['differs', 'a label of 1000 voxels below 0.99', agreementOf(1e6, 500, [[0.9899, 1000]]), undefined],
    ['close', 'a label of 999 voxels below 0.99', agreementOf(1e6, 500, [[0.5, 999]]), undefined],
    ['differs', 'a whole label in a large volume', agreementOf(1e8, 2000, [[0, 2000]]), undefined],
    ['differs', 'a whole label, and no noise', agreementOf(1e8, 2000, [[0, 2000]]), 0],
  ])('says %s: %s', (verdict, _what, agreement, noise) => {
    expect(judge(agreement, noise)).toBe(verdict);
  });

  it('judges a label by the larger of its two counts', () => {
    const given = agreementOf(1e6, 990, [[0.1, 10]]);
    const labels = [{ ...given.labels[0], found: 1000 }];
    expect(judge({ ...given, labels })).toBe('differs');
  });
});

describe('worstVerdict()', () => {
  it('takes the worst of all, and exact of none', () => {
    expect(worstVerdict(['exact', 'close', 'within noise'])).toBe('close');
    expect(worstVerdict(['differs', 'exact'])).toBe('differs');
    expect(worstVerdict([])).toBe('exact');
  });
});

describe('describeParity()', () => {
  it.each([
    [{ verdict: 'exact', agree: 1, cases: 3 }, 'no voxel differs in 3 cases.'],
    [{ verdict: 'within noise', agree: 0.99942, cases: 1 }, 'at least 99.942 % of the voxels in one case.'],
    [{ verdict: 'close', agree: 0.9991, cases: 2 }, 'at least 99.91 % of the voxels in 2 cases.'],
    [{ verdict: 'differs', agree: 0.82, cases: 2 }, 'in one case only 82 % of the voxels agree.'],
  ] as const)('says what %j means', (parity, text) => {
    expect(describeParity(parity)).toContain(text);
  });

  it('ends with the conditions', () => {
    const conditions = 'Both without mirroring.';
    expect(describeParity({ verdict: 'exact', agree: 1, cases: 1, conditions })).toBe(
      'Exactly the results of the authors’ own pipeline: no voxel differs in one case. Both without mirroring.',
    );
  });
});
