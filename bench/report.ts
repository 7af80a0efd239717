/** What every benchmark gives back, and the little that several of them need. */

export interface Line {
  /** What is measured, in a few words. */
  readonly point: string;
  readonly measured: number;
  /** The most that it should be; missing for numbers that are only good to know. */
  readonly target?: number;
  /** Of both numbers: 's', 'ms', 'MB'; a ratio has none. */
  readonly unit?: string;
}

export interface BenchOptions {
  /** Fewer rounds and smaller data: a glance, not a measurement. */
  readonly quick: boolean;
}

/** A benchmark that cannot run here says why instead of giving lines. */
export type BenchResult = { readonly lines: readonly Line[] } | { readonly skipped: string };

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/**
 * Runs two pieces of work in turn, the first of a pair changing from round to round, so that a machine that is busy
 * for a while slows both alike. Gives what each returned, by round. After `limitMs` no new round begins, but there are
 * two at least.
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
