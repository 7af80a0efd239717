import { compareResults, type LabelTensor, type Tensor } from '@tomaat/core';

/*
 * A rewritten graph is used only if it gives the labels of the original one, on a volume without symmetry. The proof of a rewrite is
 * its algebra; this run finds what a proof does not: a fault of the engine, or a network whose result depends on rounding.
 */

/** Scores may differ by this fraction of the largest: rounding gives about 1e-6. Another processor may differ more, see core's canary. */
const mostScores = 1e-3;

/** Why two results of a network on the same input do not count as the same; undefined if they do. */
export const differenceOf = (
  expected: Tensor | LabelTensor,
  found: Tensor | LabelTensor,
): string | undefined =>
  compareResults(expected, found, { reference: 'the original graph', mostScores }).fault;
