import { canaryTensor, type LabelTensor, type NetworkSession, type Tensor } from '@tomaat/core';
import { rewriteGraph } from './rewrite-graph.ts';

/*
 * A rewritten graph is used only if it gives the labels of the original one, on a volume without symmetry. The proof of a rewrite is
 * its algebra; this run finds what a proof does not: a fault of the engine, or a network whose result depends on rounding.
 */

/** What was done with a graph when it was loaded. */
export interface GraphChoice {
  /** How often each rewrite was applied, by its name; empty if the original graph computes. */
  readonly applied: Readonly<Record<string, number>>;
  /** Why the original graph computes. */
  readonly left?: string;
}

/** Labels that may differ, as a fraction of the voxels. */
const maxDifferingLabels = 1e-4;
/** Scores may differ by this fraction of the largest of them. Rounding gives about 1e-6. */
const maxDifference = 1e-3;
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

interface Session extends NetworkSession {
  /** A first run on zeros. */
  warmUp(dims: readonly number[]): Promise<void>;
  close(): Promise<void>;
}

/**
 * Opens the rewritten form of a model instead of `original`, if a rewrite applies and both give the same result. Returns the session to use,
 * which is `original` where nothing is rewritten; otherwise that is closed. A session that cannot run on a window, such as
 * for lack of memory, is not used either.
 * @param tries dimensions for the comparison, the first that the network takes
 * @param warmDims dimensions of the first run of the session, if there is to be one
 * @param open loads a model into the engine; without one, the original again
 */
export async function openFaster<S extends Session>(
  model: Uint8Array,
  original: S,
  { tries, warmDims }: { tries: readonly (readonly number[])[]; warmDims?: readonly number[] },
  open: (model?: Uint8Array) => Promise<S>,
): Promise<{ session: S; choice: GraphChoice; isWarm?: boolean }> {
  const rewritten = rewriteGraph(model);
  if ('left' in rewritten) return { session: original, choice: { applied: {}, left: rewritten.left } };
  const expected = await firstResult(original, tries);
  if (!expected) {
    const left = 'it takes no volume that is small enough to compare both forms';
    return { session: original, choice: { applied: {}, left } };
  }
  // Both at once would need twice the memory.
  await original.close();
  let session: S | undefined;
  let left: string | undefined;
  try {
    session = await open(rewritten.bytes);
    left = differenceOf(expected.result, await session.run(canaryTensor(expected.dims)));
    const isWarm = warmDims?.join() === expected.dims.join();
    if (left === undefined && warmDims && !isWarm) await session.warmUp(warmDims);
  } catch (error) {
    left = error instanceof Error ? error.message : String(error);
  }
  if (session && left === undefined) return { session, choice: { applied: rewritten.applied }, isWarm: true };
  await session?.close();
  return { session: await open(), choice: { applied: {}, left: `rewritten, ${left}` } };
}

async function firstResult(session: NetworkSession, tries: readonly (readonly number[])[]) {
  for (const dims of tries) {
    // Networks refuse sizes that they cannot halve.
    const result = await session.run(canaryTensor(dims)).catch(() => undefined);
    if (result) return { dims, result };
  }
  return undefined;
}
