import type { Volume } from '@tomaat/core';
import type { ValueRange, Window } from './windows.ts';

/** Enough for percentiles that are a thousandth off, and few enough to be sorted in some milliseconds. */
const sampleSize = 65_536;

/** What is known of a scan of which some voxels were read. */
export interface Sampled {
  readonly automatic: Window;
  /** Of the values that were read. */
  readonly range: ValueRange;
}

/**
 * The automatic window of a scan: from the 2nd to the 98th percentile of evenly spread voxels of the middle half along
 * each axis, or of the whole scan if there is one value only. Zeros do not count where they are more than 60 %, as
 * around a brain that was cut out. Of the first component; values that are not finite are left out.
 */
export function sampleWindow(scan: Volume): Sampled {
  const middle = sampleOf(scan, true);
  const values = middle.length > 0 && middle[0] < middle.at(-1)! ? middle : sampleOf(scan, false);
  if (values.length === 0) return { automatic: windowOf(0, 0), range: { lowest: 0, highest: 0 } };
  const range = { lowest: values[0], highest: values.at(-1)! };
  const others = values.filter((value) => value !== 0);
  const isMostlyZero = values.length - others.length > 0.6 * values.length && others.length > 0;
  const counted = isMostlyZero ? others : values;
  const percentile = (share: number) => counted[Math.round(share * (counted.length - 1))];
  const low = isMostlyZero ? Math.min(percentile(0.02), 0) : percentile(0.02);
  const high = percentile(0.98);
  return { automatic: high > low ? windowOf(low, high) : windowOf(range.lowest, range.highest), range };
}

const windowOf = (low: number, high: number): Window => ({
  level: (low + high) / 2,
  width: Math.max(high - low, 1e-6),
});

/** Values of evenly spread voxels, ascending. */
function sampleOf({ voxels, size }: Volume, isMiddle: boolean): Float64Array {
  const [nx, ny] = size;
  const least = size.map((n) => (isMiddle ? Math.floor(n / 4) : 0));
  const [bx, by, bz] = size.map((n, axis) => n - 2 * least[axis]);
  const count = bx * by * bz;
  let step = Math.max(1, Math.ceil(count / sampleSize));
  // Else only some columns would be met, or some rows.
  while (commonDivisor(step, bx * by) > 1) step++;
  const found = new Float64Array(Math.ceil(count / step));
  let length = 0;
  for (let i = 0; i < count; i += step) {
    const x = i % bx;
    const y = Math.floor(i / bx) % by;
    const z = Math.floor(i / (bx * by));
    const value = Number(voxels[least[0] + x + nx * (least[1] + y + ny * (least[2] + z))]);
    if (Number.isFinite(value)) found[length++] = value;
  }
  return found.subarray(0, length).sort();
}

const commonDivisor = (a: number, b: number): number => (b === 0 ? a : commonDivisor(b, a % b));
