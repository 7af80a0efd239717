import { copyNumbers, type Voxels } from '../volume.ts';

/*
 * Statistics of voxels. NaN and ±Infinity are left out everywhere: they are common in real images (divisions
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

/** How many voxels are handled at a time: a piece as float64, so that every loop below meets one kind of array. */
const piece = 16_384;

/** Calls a function with the voxels as float64, piece by piece; the array is used again for the next piece. */
export function forEachPiece(voxels: Voxels, each: (values: Float64Array, start: number) => void): void {
  const values = new Float64Array(Math.min(piece, voxels.length));
  for (let start = 0; start < voxels.length; start += piece) {
    const end = Math.min(voxels.length, start + piece);
    if (voxels instanceof BigInt64Array || voxels instanceof BigUint64Array) {
      for (let i = start; i < end; i++) values[i - start] = Number(voxels[i]);
    } else values.set(voxels.subarray(start, end));
    each(values.subarray(0, end - start), start);
  }
}

/** Count, extremes, mean and standard deviation of the finite voxels under a mask; all 0 where there are none. */
export function summarize(voxels: Voxels, mask: Mask = 'all'): Summary {
  if (mask === 'aboveMean') return accumulate(voxels, summarize(voxels).mean, Number.NaN);
  return accumulate(voxels, -Infinity, mask === 'nonzero' ? 0 : Number.NaN);
}

/**
 * Mean and deviation of the finite voxels where a mask of one component is not 0; both 0 where there are none. The voxels are
 * those of one component, or of several one after the other.
 */
export function summarizeWithin(voxels: Voxels, mask: Uint8Array): Pick<Summary, 'count' | 'mean' | 'std'> {
  const sumOf = (termOf: (v: number) => number) => {
    let [count, sum, place] = [0, 0, 0];
    forEachPiece(voxels, (values) => {
      let [n, total, at] = [0, 0, place];
      for (let i = 0; i < values.length; i++) {
        const v = values[i];
        if (mask[at] !== 0 && v - v === 0) {
          n++;
          total += termOf(v);
        }
        if (++at === mask.length) at = 0;
      }
      count += n;
      sum += total;
      place = at;
    });
    return { count, sum };
  };
  const { count, sum } = sumOf((v) => v);
  if (count === 0) return { count, mean: 0, std: 0 };
  const mean = sum / count;
  return { count, mean, std: Math.sqrt(sumOf((v) => (v - mean) * (v - mean)).sum / count) };
}

/** Of the finite voxels greater than `above` and other than `except`. */
function accumulate(voxels: Voxels, above: number, except: number): Summary {
  let count = 0;
  let min = Infinity;
  let max = -Infinity;
  let sum = 0;
  forEachPiece(voxels, (values) => {
    // Variables of its own: numbers shared with the closure outside are slow to change.
    let [n, total, low, high] = [0, 0, min, max];
    for (let i = 0; i < values.length; i++) {
      const v = values[i];
      // The difference is 0 for finite numbers only.
      if (v - v !== 0 || v === except || v <= above) continue;
      n++;
      total += v;
      if (v < low) low = v;
      if (v > high) high = v;
    }
    count += n;
    sum += total;
    min = low;
    max = high;
  });
  if (count === 0) return { count: 0, min: 0, max: 0, mean: 0, std: 0 };
  const mean = sum / count;
  // A second pass: the one-pass formula loses all digits when the mean is large against the deviation.
  let squares = 0;
  forEachPiece(voxels, (values) => {
    let total = 0;
    for (let i = 0; i < values.length; i++) {
      const v = values[i];
      if (v - v === 0 && v !== except && v > above) total += (v - mean) * (v - mean);
    }
    squares += total;
  });
  return { count, min, max, mean, std: Math.sqrt(squares / count) };
}

type FewValued = Uint8Array | Int8Array | Uint16Array | Int16Array;

/** Whether the voxels are integers of at most 16 bits: any function of them fits into a table. */
export function hasFewValues(voxels: Voxels): voxels is FewValued {
  return (
    voxels instanceof Uint8Array ||
    voxels instanceof Int8Array ||
    voxels instanceof Uint16Array ||
    voxels instanceof Int16Array
  );
}

/** The same memory as unsigned integers: places in a table of all values of the type (see valuesOf). */
export function placesOf({
  buffer,
  byteOffset,
  length,
  BYTES_PER_ELEMENT,
}: FewValued): Uint8Array | Uint16Array {
  return BYTES_PER_ELEMENT === 1
    ? new Uint8Array(buffer, byteOffset, length)
    : new Uint16Array(buffer, byteOffset, length);
}

/** All values of the type of these voxels, each at its place. */
export function valuesOf(voxels: FewValued): Float64Array {
  const count = 2 ** (8 * voxels.BYTES_PER_ELEMENT);
  const signed = voxels instanceof Int8Array || voxels instanceof Int16Array;
  return Float64Array.from({ length: count }, (_, i) => (signed && i >= count / 2 ? i - count : i));
}

function extremesOfFew(voxels: FewValued): { min: number; max: number } {
  if (voxels.length === 0) return { min: 0, max: 0 };
  const values = valuesOf(voxels);
  const places = placesOf(voxels);
  const seen = places instanceof Uint8Array ? seen8(places) : seen16(places);
  let min = Infinity;
  let max = -Infinity;
  for (let i = 0; i < values.length; i++) {
    if (seen[i] === 0) continue;
    min = Math.min(min, values[i]);
    max = Math.max(max, values[i]);
  }
  return { min, max };
}

// One function for each width: a loop that meets several kinds of array is several times slower.
function seen8(places: Uint8Array): Uint8Array {
  const seen = new Uint8Array(256);
  for (let i = 0; i < places.length; i++) seen[places[i]] = 1;
  return seen;
}

function seen16(places: Uint16Array): Uint8Array {
  const seen = new Uint8Array(65536);
  for (let i = 0; i < places.length; i++) seen[places[i]] = 1;
  return seen;
}

/** Lowest and highest finite voxel; both 0 where there is none. */
export function extremes(voxels: Voxels): { min: number; max: number } {
  if (hasFewValues(voxels)) return extremesOfFew(voxels);
  let min = Infinity;
  let max = -Infinity;
  forEachPiece(voxels, (values) => {
    let [low, high] = [min, max];
    for (let i = 0; i < values.length; i++) {
      const v = values[i];
      if (v < low && v !== -Infinity) low = v;
      if (v > high && v !== Infinity) high = v;
    }
    min = low;
    max = high;
  });
  return min <= max ? { min, max } : { min: 0, max: 0 };
}

/**
 * Percentiles (0..100) of the finite voxels, linearly interpolated between ranks as numpy.percentile does by
 * default; 0 where there are none. Exact: by counting for types of up to 32 bits, by sorting for those of 64.
 */
export function percentiles(voxels: Voxels, percents: readonly number[]): number[] {
  const ordered = order(voxels);
  if (ordered.count === 0) return percents.map(() => 0);
  const places = percents.map((percent) => (Math.min(100, Math.max(0, percent)) / 100) * (ordered.count - 1));
  const last = ordered.count - 1;
  const values = ordered.values(places.flatMap((at) => [Math.floor(at), Math.min(last, Math.floor(at) + 1)]));
  return places.map((at, i) => {
    const t = at - Math.floor(at);
    const a = values[2 * i];
    const b = values[2 * i + 1];
    return t < 0.5 ? a + (b - a) * t : b - (b - a) * (1 - t);
  });
}

/** The finite voxels in ascending order, without sorting where that can be avoided. */
interface Ordered {
  readonly count: number;
  values(ranks: readonly number[]): number[];
}

function order(voxels: Voxels): Ordered {
  if (voxels instanceof Float64Array || voxels instanceof BigInt64Array || voxels instanceof BigUint64Array) {
    const numbers = new Float64Array(voxels.length);
    copyNumbers(voxels, numbers);
    let count = 0;
    for (const v of numbers) if (v - v === 0) numbers[count++] = v;
    const finite = numbers.subarray(0, count).sort();
    return { count, values: (ranks) => ranks.map((rank) => finite[rank]) };
  }
  if (voxels.BYTES_PER_ELEMENT === 4) return orderWords(voxels as Float32Array | Int32Array | Uint32Array);
  // 8 and 16 bits: a count of every value.
  const counts = new Uint32Array(65536);
  const shift = voxels instanceof Int8Array || voxels instanceof Int16Array ? 32768 : 0;
  for (let i = 0; i < voxels.length; i++) counts[voxels[i] + shift]++;
  return { count: voxels.length, values: (ranks) => ranks.map((rank) => find(counts, rank).bin - shift) };
}

/** The bin that holds a rank, and the ranks below it. */
function find(counts: Uint32Array, rank: number): { bin: number; below: number } {
  let bin = 0;
  let below = 0;
  while (below + counts[bin] <= rank) below += counts[bin++];
  return { bin, below };
}

/**
 * 32 bits: by the upper 16 first, then by the lower 16 within the few upper values that hold the ranks. Each word is
 * made an unsigned key that sorts as its value does: the sign bit flipped, and all bits of a negative float.
 */
function orderWords(voxels: Float32Array | Int32Array | Uint32Array): Ordered {
  const words = new Uint32Array(voxels.buffer, voxels.byteOffset, voxels.length);
  const isFloat = voxels instanceof Float32Array;
  const sign = voxels instanceof Uint32Array ? 0 : 0x80000000;
  const negative = isFloat ? 0x7fffffff : 0;
  const exponent = 0x7f800000;
  const upper = new Uint32Array(65536);
  let count = 0;
  for (let i = 0; i < words.length; i++) {
    const w = words[i] | 0;
    if (isFloat && (w & exponent) === exponent) continue;
    upper[(w ^ sign ^ ((w >> 31) & negative)) >>> 16]++;
    count++;
  }
  const scratch = new DataView(new ArrayBuffer(4));
  const toValue = (key: number) => {
    if (!isFloat) return sign ? key - 2 ** 31 : key;
    scratch.setUint32(0, key >= 2 ** 31 ? key - 2 ** 31 : ~key);
    return scratch.getFloat32(0);
  };
  const values = (ranks: readonly number[]) => {
    const found = ranks.map((rank) => find(upper, rank));
    const tables = new Int32Array(65536).fill(-1);
    const lowers: Uint32Array[] = [];
    for (const { bin } of found) {
      if (tables[bin] < 0) tables[bin] = lowers.push(new Uint32Array(65536)) - 1;
    }
    for (let i = 0; i < words.length; i++) {
      // What is not finite has upper halves of its own, which hold no rank.
      const w = words[i] | 0;
      const key = w ^ sign ^ ((w >> 31) & negative);
      const table = tables[key >>> 16];
      if (table >= 0) lowers[table][key & 0xffff]++;
    }
    return ranks.map((rank, i) => {
      const { bin, below } = found[i];
      return toValue(bin * 65536 + find(lowers[tables[bin]], rank - below).bin);
    });
  };
  return { count, values };
}
