import { setTimeout as sleep } from 'node:timers/promises';
import type { SeenSeries, Source } from './series.ts';

export interface SearchOptions {
  /** From the end of a search to the next one, ms; give or take a tenth, so that gateways do not all search at once. */
  readonly pollMs: number;
  readonly see: (seen: SeenSeries) => Promise<void>;
  readonly onFault: (error: unknown) => void;
  readonly signal: AbortSignal;
}

/** The longest is that of a timer in Node. */
const [shortestPauseMs, longestPauseMs] = [100, 2 ** 31 - 1];

/** Searches a source again and again until the signal aborts. A search that fails is followed by the next one at its time. */
export async function searchAgainAndAgain(
  source: Source,
  { pollMs, see, onFault, signal }: SearchOptions,
): Promise<void> {
  let isFaulty = false;
  while (!signal.aborted) {
    try {
      for await (const seen of source.search(signal)) {
        signal.throwIfAborted();
        await see(seen);
      }
      isFaulty = false;
    } catch (error) {
      if (signal.aborted) return;
      // One line in the log for an outage.
      if (!isFaulty) onFault(error);
      isFaulty = true;
    }
    const aboutMs = pollMs * (0.9 + 0.2 * Math.random());
    const waitMs = Math.min(longestPauseMs, Math.max(shortestPauseMs, aboutMs));
    await sleep(waitMs, undefined, { signal }).catch(() => {});
  }
}
