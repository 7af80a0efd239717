import { TomaatError } from '@tomaat/core';

/** A place to work in, until it is disposed of. */
export interface Place extends Disposable {
  /** Aborts when the place is needed for an owner who has none: stop, and enter again with `again`. */
  readonly revoked: AbortSignal;
}

export interface FairPlaces {
  /**
   * Waits for a place. BUSY if too many wait (the owner with the most is refused); the signal's reason when it
   * aborts. `again`: for work whose place was revoked; it comes first and is never refused.
   */
  enter(owner: string, signal: AbortSignal, options?: { again?: boolean }): Promise<Place>;
}

interface Waiter {
  readonly owner: string;
  readonly again: boolean;
  enter(): void;
  refuse(): void;
}

/**
 * Places that owners share: one owner alone may have all of them, but no owner waits while another has several. An owner
 * with several gives one up at once for an owner who has none.
 */
export function createFairPlaces({
  atATime,
  maxWaiting,
  busyMessage,
}: {
  atATime: number;
  maxWaiting: number;
  busyMessage: string;
}): FairPlaces {
  const taken: { owner: string; revoke: AbortController }[] = [];
  const waiting: Waiter[] = [];
  /** The last turn of each owner, while any owner works or waits. */
  const lastTurn = new Map<string, number>();
  let turn = 0;
  const busy = () => new TomaatError('BUSY', busyMessage);

  function countOf(list: readonly { owner: string }[], owner: string): number {
    return list.filter((one) => one.owner === owner).length;
  }

  /** The owner with the most items in a list, and their number. */
  function largest(list: readonly { owner: string }[]): { owner: string; count: number } {
    const owners = [...new Set(list.map(({ owner }) => owner))];
    const counts = owners.map((owner) => ({ owner, count: countOf(list, owner) }));
    return counts.reduce((a, b) => (b.count > a.count ? b : a), { owner: '', count: 0 });
  }

  function take(owner: string): Place {
    const one = { owner, revoke: new AbortController() };
    taken.push(one);
    lastTurn.set(owner, ++turn);
    return {
      revoked: one.revoke.signal,
      [Symbol.dispose]() {
        const at = taken.indexOf(one);
        if (at < 0) return;
        taken.splice(at, 1);
        letIn();
        if (taken.length === 0) lastTurn.clear();
      },
    };
  }

  /** Who comes first: the owner with the fewest places, then the one whose turn was longest ago. */
  function compare(a: Waiter, b: Waiter): number {
    const turnOf = ({ owner }: Waiter) => lastTurn.get(owner) ?? 0;
    return countOf(taken, a.owner) - countOf(taken, b.owner) || turnOf(a) - turnOf(b);
  }

  /** Gives free places to waiting owners; within an owner in the order of arrival. */
  function letIn(): void {
    while (taken.length < atATime && waiting.length > 0) {
      const next = waiting.reduce((a, b) => (compare(b, a) < 0 ? b : a));
      waiting.splice(waiting.indexOf(next), 1);
      next.enter();
    }
  }

  /** Takes a place from an owner with several for one with none; the newest work loses least. */
  function revokeFor(owner: string): void {
    if (countOf(taken, owner) > 0) return;
    const kept = taken.filter(({ revoke }) => !revoke.signal.aborted);
    const { owner: rich, count } = largest(kept);
    if (count > 1) kept.findLast((one) => one.owner === rich)?.revoke.abort();
  }

  /** Makes room in the queue: refuses the newest request of the owner with the most, unless that is the asking owner. */
  function requireRoom(owner: string): void {
    if (waiting.length < maxWaiting) return;
    const refusable = waiting.filter(({ again }) => !again);
    const { owner: rich, count } = largest(refusable);
    if (count <= countOf(waiting, owner) + 1) throw busy();
    refusable.findLast((one) => one.owner === rich)?.refuse();
  }

  return {
    async enter(owner, signal, { again = false } = {}) {
      signal.throwIfAborted();
      if (taken.length < atATime) return take(owner);
      if (!again) requireRoom(owner);
      return new Promise<Place>((resolve, reject) => {
        const leave = (reason: unknown) => {
          signal.removeEventListener('abort', onAbort);
          const at = waiting.indexOf(waiter);
          if (at >= 0) waiting.splice(at, 1);
          reject(reason);
        };
        const onAbort = () => leave(signal.reason);
        const waiter: Waiter = {
          owner,
          again,
          enter() {
            signal.removeEventListener('abort', onAbort);
            resolve(take(owner));
          },
          refuse: () => leave(busy()),
        };
        if (again) waiting.unshift(waiter);
        else waiting.push(waiter);
        signal.addEventListener('abort', onAbort, { once: true });
        revokeFor(owner);
      });
    },
  };
}
