/** Decides when a worker with several slots has had nothing to do for long enough to end. */
export interface IdleWatch {
  /** A slot has a job. Call the result when the job is settled or handed back. */
  hold(): () => void;
  /**
   * A slot asked for a job in vain. True once all slots did, and nothing was held for the time: then all of them are to end, and
   * none may ask again. False if the slot is to ask again.
   */
  mayEnd(signal: AbortSignal): Promise<boolean>;
}

/** Watches `slots` slots; they may end after `idleMs` without a job, counted from now or from the end of the last one. */
export function createIdleWatch(slots: number, idleMs: number): IdleWatch {
  let held = 0;
  let idleSinceMs = performance.now();
  /** The slots that ask no more, unless another one gets a job. */
  const waiting = new Set<(end: boolean) => void>();

  function release(end: boolean): void {
    for (const resolve of waiting) resolve(end);
    waiting.clear();
  }

  return {
    hold() {
      held++;
      release(false);
      let isHeld = true;
      return () => {
        if (!isHeld) return;
        isHeld = false;
        held--;
        idleSinceMs = performance.now();
      };
    },
    async mayEnd(signal) {
      if (signal.aborted || held > 0 || performance.now() - idleSinceMs < idleMs) return false;
      return new Promise<boolean>((resolve) => {
        const stop = () => resolve(false);
        signal.addEventListener('abort', stop, { once: true });
        waiting.add((end) => {
          signal.removeEventListener('abort', stop);
          resolve(end);
        });
        if (waiting.size === slots) release(true);
      });
    },
  };
}
