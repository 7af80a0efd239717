/** What every benchmark returns, and helpers shared by several of them. */

export interface Line {
  /** What is measured, in a few words. */
  readonly point: string;
  readonly measured: number;
  /** The target, an upper bound; missing for numbers that are only informative. */
  readonly target?: number;
  /** Unit of both numbers: 's', 'ms', 'MB'; a ratio has none. */
  readonly unit?: string;
}

export interface BenchOptions {
  /** Fewer rounds and smaller data: a quick look, not a measurement. */
  readonly quick: boolean;
}

/** A benchmark that cannot run here gives the reason instead of lines. */
export type BenchResult = { readonly lines: readonly Line[] } | { readonly skipped: string };

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/**
 * Alternates two pieces of work, and swaps the order from round to round, so that a temporarily busy machine slows
 * both alike. Returns the results of each, by round. No new round begins after `limitMs`, but there are at least two.
 */
export async function inTurn<A, B>(
  rounds: number,
  first: () => Promise<A>,
  second: () => Promise<B>,
  limitMs = Number.POSITIVE_INFINITY,
): Promise<[A, B][]> {
  const pairs: [A, B][] = [];
  const start = performance.now();
  for (let round = 0; round < rounds; round++) {
    if (round >= 2 && performance.now() - start > limitMs) break;
    if (round % 2 === 0) {
      const a = await first();
      pairs.push([a, await second()]);
    } else {
      const b = await second();
      pairs.push([await first(), b]);
    }
  }
  return pairs;
}
