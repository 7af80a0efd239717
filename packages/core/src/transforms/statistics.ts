import type { Voxels } from '../volume.ts';

/*
 * Statistics of voxels. NaN and ±Infinity are left out everywhere: they are daily company in real images (divisions
 * by zero, masked backgrounds) and would make every result NaN.
 */

export interface Summary {
  /** How many voxels were counted. */
  readonly count: number;
  readonly min: number;
  readonly max: number;
  readonly mean: number;
  /** Standard deviation of the population (divided by n), as numpy and MONAI take it. */
  readonly std: number;
}

/** Which voxels count, besides being finite: all, those that are not 0, those above the mean of all. */
export const masks = ['all', 'nonzero', 'aboveMean'] as const;
export type Mask = (typeof masks)[number];

/** Count, extremes, mean and standard deviation of the finite voxels under a mask; all 0 where there are none. */
export function summarize(voxels: Voxels, mask: Mask = 'all'): Summary {
  if (mask === 'aboveMean') {
    const mean = summarize(voxels).mean;
    return accumulate(voxels, (v) => v > mean);
  }
  return accumulate(voxels, mask === 'nonzero' ? (v) => v !== 0 : () => true);
}

function accumulate(voxels: Voxels, counts: (v: number) => boolean): Summary {
  let count = 0;
  let min = Infinity;
  let max = -Infinity;
  let sum = 0;
  for (let i = 0; i < voxels.length; i++) {
    const v = Number(voxels[i]);
    // 0 for finite numbers only.
    if (v - v !== 0 || !counts(v)) continue;
    count++;
    sum += v;
    if (v < min) min = v;
    if (v > max) max = v;
  }
  if (count === 0) return { count: 0, min: 0, max: 0, mean: 0, std: 0 };
  const mean = sum / count;
  // A second pass: the one-pass formula loses all digits when the mean is large against the deviation.
  let squares = 0;
  for (let i = 0; i < voxels.length; i++) {
    const v = Number(voxels[i]);
    if (v - v === 0 && counts(v)) squares += (v - mean) * (v - mean);
  }
  return { count, min, max, mean, std: Math.sqrt(squares / count) };
}

/**
 * Percentiles (0..100) of the finite voxels, linearly interpolated between ranks as numpy.percentile does by
 * default; 0 where there are none. Exact: by counting for types of up to 32 bits, by sorting for those of 64.
 */
export function percentiles(voxels: Voxels, percents: readonly number[]): number[] {
  const ranked = rankFunction(voxels);
  if (ranked.count === 0) return percents.map(() => 0);
  return percents.map((percent) => {
    const at = (Math.min(100, Math.max(0, percent)) / 100) * (ranked.count - 1);
    const low = Math.floor(at);
    const t = at - low;
    const a = ranked.value(low);
    if (t === 0) return a;
    const b = ranked.value(low + 1);
    return t < 0.5 ? a + (b - a) * t : b - (b - a) * (1 - t);
  });
}

/** The finite voxels in ascending order, without sorting where that can be avoided. */
function rankFunction(voxels: Voxels): { count: number; value(rank: number): number } {
  if (voxels instanceof Float32Array) return rankWords(floatKeys(voxels), keyToFloat);
  if (voxels instanceof Int32Array) {
    const words = new Uint32Array(voxels.buffer, voxels.byteOffset, voxels.length);
    return rankWords(
      { words, key: (w) => (w ^ 0x80000000) >>> 0, skip: () => false },
      (key) => key - 2 ** 31,
    );
  }
  if (voxels instanceof Uint32Array) {
    return rankWords({ words: voxels, key: (w) => w, skip: () => false }, (key) => key);
  }
  if (voxels instanceof Float64Array || voxels instanceof BigInt64Array || voxels instanceof BigUint64Array) {
    const numbers = Float64Array.from(voxels as ArrayLike<number | bigint>, Number);
    const finite = numbers.filter((v) => v - v === 0).sort();
    return { count: finite.length, value: (rank) => finite[rank] };
  }
  // 8 and 16 bits: a count of every value.
  const counts = new Float64Array(65536);
  const shift = voxels instanceof Int8Array || voxels instanceof Int16Array ? 32768 : 0;
  for (let i = 0; i < voxels.length; i++) counts[voxels[i] + shift]++;
  return {
    count: voxels.length,
    value(rank) {
      let k = 0;
      for (let seen = counts[0]; seen <= rank; seen += counts[k]) k++;
      return k - shift;
    },
  };
}

interface Keys {
  readonly words: Uint32Array;
  /** An unsigned integer that sorts as the value does. */
  key(word: number): number;
  skip(word: number): boolean;
}

/** Floats as integers of the same order: the sign bit flipped for positive numbers, all bits for negative ones. */
function floatKeys(voxels: Float32Array): Keys {
  return {
    words: new Uint32Array(voxels.buffer, voxels.byteOffset, voxels.length),
    key: (w) => (w & 0x80000000 ? ~w : w | 0x80000000) >>> 0,
    skip: (w) => (w & 0x7f800000) === 0x7f800000,
  };
}

const scratch = new DataView(new ArrayBuffer(4));
function keyToFloat(key: number): number {
  scratch.setUint32(0, key & 0x80000000 ? key & 0x7fffffff : ~key >>> 0);
  return scratch.getFloat32(0);
}

/** Ranks by the upper 16 bits first, then by the lower 16 within the one upper value that holds the rank. */
function rankWords(keys: Keys, toValue: (key: number) => number) {
  const { words } = keys;
  const upper = new Float64Array(65536);
  let count = 0;
  for (let i = 0; i < words.length; i++) {
    const w = words[i];
    if (keys.skip(w)) continue;
    upper[keys.key(w) >>> 16]++;
    count++;
  }
  const lowers = new Map<number, Float64Array>();
  const lowerOf = (high: number) => {
    let lower = lowers.get(high);
    if (lower) return lower;
    lower = new Float64Array(65536);
    for (let i = 0; i < words.length; i++) {
      const w = words[i];
      if (keys.skip(w)) continue;
      const key = keys.key(w);
      if (key >>> 16 === high) lower[key & 0xffff]++;
    }
    lowers.set(high, lower);
    return lower;
  };
  const value = (rank: number) => {
    let high = 0;
    let before = 0;
    while (before + upper[high] <= rank) before += upper[high++];
    const lower = lowerOf(high);
    let low = 0;
    while (before + lower[low] <= rank) before += lower[low++];
    return toValue(high * 65536 + low);
  };
  return { count, value };
}
