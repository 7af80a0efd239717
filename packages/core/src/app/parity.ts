import { z } from 'zod';
import { type Agreement, formatAgreement } from '../labels/agreement.ts';

/*
 * Whether an app gives what its author's own pipeline gives: the verdict on label maps that were compared voxel by voxel,
 * and the part of a manifest that states it.
 */

/**
 * From best to worst. exact: no voxel differs. within noise: no more than between two runs of the author's own pipeline, or
 * one voxel of ten thousand. close: one of a thousand. differs: more, or a label with a Dice below 0.99.
 */
export const verdicts = ['exact', 'within noise', 'close', 'differs'] as const;
export type Verdict = (typeof verdicts)[number];

export const paritySchema = z.strictObject({
  verdict: z
    .enum(verdicts)
    .describe(
      'The worst of the cases. exact: no voxel differs; within noise: no more than between two runs of the author’s pipeline, or 1 of 10,000; close: 1 of 1,000; differs: more',
    ),
  agree: z.number().min(0).max(1).describe('Fraction of voxels with equal labels, the least of the cases'),
  cases: z.int().min(1).max(1e6).describe('Cases that were compared'),
  conditions: z
    .string()
    .min(1)
    .max(400)
    .optional()
    .describe('A sentence on how both were computed, if not as the author’s software does by default'),
  tool: z.string().min(1).max(200).describe('What compared them, with its version'),
  versions: z
    .record(z.string().max(60), z.string().max(60))
    .optional()
    .describe('Versions of the author’s software that made the expected results'),
});
export type Parity = z.infer<typeof paritySchema>;

/** Labels with fewer voxels in both maps are listed, not judged: a few voxels at their border decide their Dice. */
export const leastJudgedVoxels = 1000;
const leastDice = 0.99;

/**
 * The verdict on one case.
 * @param noise voxels in which two runs of the author's own pipeline differ (such as with sums in float16 and in float32)
 */
export function judge({ differ, agree, labels }: Agreement, noise = 0): Verdict {
  if (differ === 0) return 'exact';
  if (differ <= 1.5 * noise) return 'within noise';
  const judged = labels.filter(({ expected, found }) => Math.max(expected, found) >= leastJudgedVoxels);
  // A label may be missing altogether in a large volume with 99.99 %.
  if (judged.some(({ dice }) => dice < leastDice)) return 'differs';
  if (agree >= 0.9999) return 'within noise';
  return agree >= 0.999 ? 'close' : 'differs';
}

/** The worst of several verdicts; exact if there are none. */
export function worstVerdict(given: readonly Verdict[]): Verdict {
  return verdicts[Math.max(0, ...given.map((verdict) => verdicts.indexOf(verdict)))];
}

type Described = Pick<Parity, 'verdict' | 'agree' | 'cases' | 'conditions'>;

/** A verdict as a sentence for the users of an app, and its conditions. */
export function describeParity({ conditions, ...parity }: Described): string {
  return conditions === undefined ? describeVerdict(parity) : `${describeVerdict(parity)} ${conditions}`;
}

function describeVerdict({ verdict, agree, cases }: Described): string {
  const where = cases === 1 ? 'in one case' : `in ${cases} cases`;
  const least = `at least ${formatAgreement(agree)} of the voxels ${where}`;
  if (verdict === 'exact')
    return `Exactly the results of the authors’ own pipeline: no voxel differs ${where}.`;
  if (verdict === 'within noise')
    return `The results of the authors’ own pipeline, up to the rounding of that pipeline itself: ${least}.`;
  if (verdict === 'close') return `Close to the results of the authors’ own pipeline: ${least}.`;
  return `Not the results of the authors’ own pipeline: in one case only ${formatAgreement(agree)} of the voxels agree.`;
}
