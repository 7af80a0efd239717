import type { LabelTensor, Tensor } from '@tomaat/core';

/*
 * A rewritten graph is used only if it gives the labels of the original one, on a volume without symmetry. The proof of a rewrite is
 * its algebra; this run finds what a proof does not: a fault of the engine, or a network whose result depends on rounding.
 */

/** Labels that may differ, as a fraction of the voxels. */
const maxDifferingLabels = 1e-4;
/** Scores may differ by this fraction of the largest of them. Rounding gives about 1e-6. */
const maxDifference = 1e-3;
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
export function differenceOf(
  expected: Tensor | LabelTensor,
  found: Tensor | LabelTensor,
): string | undefined {
  const { dims } = expected;
  if (dims.join() !== found.dims.join() || 'integer' in expected !== 'integer' in found)
    return `its result has the dimensions ${found.dims.join(' × ')} instead of ${dims.join(' × ')}`;
  const [a, b] = [expected.data, found.data];
  if ('integer' in expected)
    return tooMany(
      countWhere(a.length, (i) => a[i] !== b[i]),
      a.length,
    );

  let [largest, difference] = [0, 0];
  for (let i = 0; i < a.length; i++) {
    if (Number.isFinite(a[i])) largest = Math.max(largest, Math.abs(a[i]));
    if (Object.is(a[i], b[i])) continue;
    const by = Math.abs(a[i] - b[i]);
    // One of them is no number.
    if (Number.isNaN(by)) return 'its scores are not numbers at the same voxels';
    difference = Math.max(difference, by);
  }
  if (difference > maxDifference * largest)
    return `its scores differ by ${difference.toPrecision(2)}, and the largest is ${largest.toPrecision(2)}`;
  if (dims.length < 4 || dims[0] !== 1 || dims[1] < 2) return undefined;
  const voxels = a.length / dims[1];
  const label = (scores: Tensor['data'], voxel: number) => {
    let best = voxel;
    for (let at = voxel; at < scores.length; at += voxels) if (scores[at] > scores[best]) best = at;
    return best;
  };
  return tooMany(
    countWhere(voxels, (i) => label(a as Float32Array, i) !== label(b as Float32Array, i)),
    voxels,
  );
}

function countWhere(count: number, differs: (index: number) => boolean): number {
  let found = 0;
  for (let i = 0; i < count; i++) if (differs(i)) found++;
  return found;
}

const tooMany = (differing: number, count: number): string | undefined =>
  differing > maxDifferingLabels * count ? `${differing} of ${count} labels differ` : undefined;
