import { compareResults, type LabelTensor, type Tensor } from '@tomaat/core';

/*
 * A rewritten graph is used only if it gives the labels of the original one, on a volume without symmetry. The proof of a rewrite is
 * its algebra; this run finds what a proof does not: a fault of the engine, or a network whose result depends on rounding.
 */

/** Scores may differ by this fraction of the largest: rounding gives about 1e-6. Another processor may differ more, see core's canary. */
const mostScores = 1e-3;
/** The largest volume that is tried: more would delay the first prediction, and take memory. */
export const canaryVoxelsMax = 128 ** 3;

/** Lengths along z, y and x, the quickest first: all different, and multiples of 16 and of 32, by which networks halve. */
const volumes = [
  [16, 32, 64],
  [32, 64, 128],
];

/**
 * Dimensions to try, the first that the network takes: small volumes, then a window.
 * @param inputDims of the network, null where any is accepted
 * @param window dimensions of a window, if the network gets windows
 * @param components of the input, where the network does not say
 */
export function canaryDims(
  inputDims: readonly (number | null)[],
  window: readonly number[] | undefined,
  components: number,
): number[][] {
  const spatial = inputDims.length >= 5 ? 3 : 2;
  const first = inputDims.length - spatial;
  const small = volumes.map((lengths) =>
    inputDims.map((d, i) => {
      if (d !== null) return d;
      if (i < first) return i === first - 1 ? components : 1;
      return Math.min(lengths[3 - spatial + i - first], window?.[i] ?? Number.POSITIVE_INFINITY);
    }),
  );
  const tries = new Map([...small, ...(window ? [[...window]] : [])].map((dims) => [dims.join(), dims]));
  return [...tries.values()].filter((dims) => dims.reduce((a, b) => a * b, 1) <= canaryVoxelsMax);
}

/** Why two results of a network on the same input do not count as the same; undefined if they do. */
export const differenceOf = (
  expected: Tensor | LabelTensor,
  found: Tensor | LabelTensor,
): string | undefined =>
  compareResults(expected, found, { reference: 'the original graph', mostScores }).fault;
