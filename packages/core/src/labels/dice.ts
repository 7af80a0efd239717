import { TomaatError } from '../errors.ts';
import { affinesEqual } from '../geometry/affine.ts';
import type { Volume } from '../volume.ts';
import { labelVoxels } from './label-map.ts';

/**
 * The overlap of two label maps on one grid, 2 |A ∩ B| / (|A| + |B|) (Dice 1945): of the voxels of label
 * `value`, or of all that are not 0. 1 if both are empty. Throws BAD_INPUT if the grids differ.
 */
export function dice(a: Volume, b: Volume, value?: number): number {
  const [left, right] = sameGridVoxels(a, b);
  let inA = 0;
  let inB = 0;
  let inBoth = 0;
  for (let i = 0; i < left.length; i++) {
    const p = value === undefined ? left[i] !== 0 : left[i] === value;
    const q = value === undefined ? right[i] !== 0 : right[i] === value;
    if (p) inA++;
    if (q) inB++;
    if (p && q) inBoth++;
  }
  return inA + inB === 0 ? 1 : (2 * inBoth) / (inA + inB);
}

/** The Dice overlap of every label that occurs in either map, ascending. Throws BAD_INPUT if the grids differ. */
export function diceOfLabels(a: Volume, b: Volume): Map<number, number> {
  const [left, right] = sameGridVoxels(a, b);
  const sums = new Map<number, number>();
  const both = new Map<number, number>();
  const add = (to: Map<number, number>, key: number, n: number) => to.set(key, (to.get(key) ?? 0) + n);
  // Equal pairs come in runs, so the maps are looked up once per run.
  for (let i = 0; i < left.length; ) {
    const p = left[i];
    const q = right[i];
    const first = i++;
    while (i < left.length && left[i] === p && right[i] === q) i++;
    if (p !== 0) add(sums, p, i - first);
    if (q !== 0) add(sums, q, i - first);
    if (p !== 0 && p === q) add(both, p, i - first);
  }
  return new Map(
    [...sums.keys()].sort((x, y) => x - y).map((key) => [key, (2 * (both.get(key) ?? 0)) / sums.get(key)!]),
  );
}

function sameGridVoxels(a: Volume, b: Volume) {
  if (a.size.some((n, k) => n !== b.size[k]) || !affinesEqual(a.affine, b.affine, 1e-3)) {
    throw new TomaatError(
      'BAD_INPUT',
      `The label maps lie on different grids (${a.size.join('×')} and ${b.size.join('×')} voxels, or placed differently). Resample one onto the other first.`,
    );
  }
  return [labelVoxels(a), labelVoxels(b)] as const;
}
