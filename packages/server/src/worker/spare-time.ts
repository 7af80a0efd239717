import { setTimeout as delay } from 'node:timers/promises';

/** What may be done while nothing is computed, and gives way to it. */
export interface SpareTime {
  /** Something is computed: work in spare time is ended. Call the result when it is done. */
  hold(): () => void;
  /**
   * Begins `work` when nothing was computed for a while; its signal aborts when something is, and it is begun again later. Resolves
   * when it is done, or `stopping` aborts.
   */
  run(work: (signal: AbortSignal) => Promise<void>): Promise<void>;
}

/** Long enough for those who start a server and use it at once. */
const defaultQuietMs = 10_000;

export function createSpareTime(stopping: AbortSignal, quietMs = defaultQuietMs): SpareTime {
  let held = 0;
  let quietSinceMs = performance.now();
  let giveWay = new AbortController();

  return {
    hold() {
      held++;
      giveWay.abort();
      let isHeld = true;
      return () => {
        if (!isHeld) return;
        isHeld = false;
        held--;
        quietSinceMs = performance.now();
      };
    },
    async run(work) {
      while (!stopping.aborted) {
        const waitMs = held > 0 ? quietMs : quietSinceMs + quietMs - performance.now();
        if (waitMs > 0) {
          await delay(waitMs, undefined, { signal: stopping, ref: false }).catch(() => {});
          continue;
        }
        giveWay = new AbortController();
        const signal = AbortSignal.any([giveWay.signal, stopping]);
        try {
          await work(signal);
          if (!signal.aborted) return;
        } catch (error) {
          if (!signal.aborted) throw error;
        }
      }
    },
  };
}
