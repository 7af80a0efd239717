import { describe, expect, it } from 'vitest';
import { formatProofJson, formatProofMarkdown } from './parity-report.ts';
import type { Proof } from './prove.ts';

const proof: Proof = {
  app: { id: 'spleen', name: 'Spleen', version: '0.5.9' },
  parity: {
    verdict: 'close',
    agree: 0.9995277,
    cases: 2,
    tool: 'tomaat 0.2.0',
    versions: { monai: '1.6.1' },
  },
  warnings: ['labels that occur in no case: 7 (vertebrae)'],
  cases: [
    {
      name: 'plain | one',
      verdict: 'exact',
      voxels: 369_660,
      differ: 0,
      agree: 1,
      noise: 308,
      labels: [{ value: 1, dice: 1, expected: 84_251, found: 84_251, judged: true }],
      where: [],
      warnings: [],
      seconds: 2.14,
    },
    {
      name: 'oblique',
      verdict: 'close',
      voxels: 396_000,
      differ: 187,
      agree: 0.999527,
      labels: [{ value: 3, dice: 0.9999999, expected: 7, found: 8, judged: false }],
      where: ['100 % at borders of labels'],
      bisection: {
        first: 'activation',
        stages: [
          { stage: 'scores', agrees: true, detail: 'equal to 0' },
          { stage: 'activation', source: 'post#0', agrees: false, detail: '5 of 9 values differ' },
        ],
      },
      warnings: ['the author’s result has no label'],
      seconds: 3,
    },
  ],
};

describe('formatProofMarkdown()', () => {
  const lines = formatProofMarkdown(proof).split('\n');

  it('states verdict, versions, numbers and warnings', () => {
    expect(lines[0]).toBe('# Agreement of Spleen 0.5.9 with its author’s pipeline');
    expect(lines[2]).toContain('at least 99.952 % of the voxels in 2 cases');
    expect(lines[4]).toBe(
      'Compared voxel by voxel by tomaat 0.2.0. The author’s results were made with monai 1.6.1.',
    );
    expect(lines).toContain('- labels that occur in no case: 7 (vertebrae)');
    expect(lines).toContain('| oblique | close | 396000 | 187 | 99.952 % |  | 3.0 |');
    expect(lines).toContain('| `scores` |  | yes | equal to 0 |');
    expect(lines).toContain('| `activation` | post#0 | NO | 5 of 9 values differ |');
    expect(lines).toContain('The first stage that differs: `activation`.');
    // Rounded down: a Dice of 1 is only written where no voxel differs.
    expect(lines).toContain('| 3 | 0.999999 | 7 | 8 | no |');
  });

  it('keeps markup in names out of the table', () => {
    expect(lines).toContain('| plain \\| one | exact | 369660 | 0 | 100 % | 308 | 2.1 |');
  });
});

describe('formatProofJson()', () => {
  it('is the proof', () => {
    expect(JSON.parse(formatProofJson(proof))).toEqual(proof);
  });
});
