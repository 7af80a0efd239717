import { type ErrorCode, TomaatError } from '@tomaat/core';
import type { PeerHealth } from './gateway-type.ts';
import type { Destination, Source } from './series.ts';

/* Whether sources and destinations answer, learned from what they are asked anyway. */

export interface HealthBoard {
  ok(name: string): void;
  /** Anything that is thrown; errors about one series alone, and aborts, say nothing of the peer. */
  fault(name: string, error: unknown): void;
  of(names: Iterable<string>): PeerHealth[];
}

const aboutOne: readonly ErrorCode[] = ['NOT_FOUND', 'CANCELED', 'BAD_INPUT', 'CONFLICT', 'UPLOAD_TOO_LARGE'];

/**
 * @param now wall clock, ms
 * @param onBack called when a peer answers again after a fault
 */
export function createHealthBoard(
  now: () => number = Date.now,
  onBack: (name: string) => void = () => {},
): HealthBoard {
  const peers = new Map<string, { lastOkAt?: number; fault?: PeerHealth['fault'] }>();
  return {
    ok(name) {
      const isBack = peers.get(name)?.fault !== undefined;
      peers.set(name, { lastOkAt: now() });
      if (isBack) onBack(name);
    },
    fault(name, error) {
      if (!(error instanceof TomaatError) || aboutOne.includes(error.code)) return;
      const { lastOkAt, fault } = peers.get(name) ?? {};
      const { code, message } = error;
      peers.set(name, { lastOkAt, fault: { code, message, since: fault?.since ?? now() } });
    },
    of: (names) => [...names].map((name) => ({ name, ...peers.get(name) })),
  };
}

/**
 * A refused login or a wrong address concerns all series of a peer, and passes once the operator has corrected it: it must not end each of
 * them. What a destination says of single objects has no HTTP status, and stays as it is.
 */
function concerningAll(error: unknown, more: readonly ErrorCode[] = []): unknown {
  const codes: readonly ErrorCode[] = [
    ...more,
    'UNAUTHORIZED',
    'FORBIDDEN',
    'METHOD_NOT_ALLOWED',
    'NOT_ACCEPTABLE',
  ];
  return error instanceof TomaatError && codes.includes(error.code) && error.detail?.httpStatus !== undefined
    ? new TomaatError('UPSTREAM', error.message, { cause: error, detail: error.detail })
    : error;
}

/** The same source; what it answers is noted. */
export function watchedSource(source: Source, board: HealthBoard): Source {
  const { name } = source;
  const noted = async <T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> => {
    try {
      const result = await work();
      board.ok(name);
      return result;
    } catch (error) {
      if (!signal.aborted) board.fault(name, error);
      throw concerningAll(error);
    }
  };
  async function* each<T>(items: AsyncIterable<T>, signal: AbortSignal): AsyncGenerator<T> {
    const iterator = items[Symbol.asyncIterator]();
    try {
      for (;;) {
        const { done, value } = await noted(() => iterator.next(), signal);
        if (done) return;
        yield value;
      }
    } finally {
      await iterator.return?.();
    }
  }
  return {
    name,
    search: (signal) => each(source.search(signal), signal),
    look: (study, series, signal) => noted(() => source.look(study, series, signal), signal),
    instances: (study, series, signal) => noted(() => source.instances(study, series, signal), signal),
    fetch: (study, series, signal) => each(source.fetch(study, series, signal), signal),
  };
}

/** The same destination; what it answers is noted. */
export function watchedDestination(destination: Destination, board: HealthBoard): Destination {
  const { name } = destination;
  const noted = async (work: () => Promise<void> | undefined, signal: AbortSignal): Promise<void> => {
    try {
      await work();
    } catch (error) {
      if (!signal.aborted) board.fault(name, error);
      // Nothing is looked for there: the address is wrong.
      throw concerningAll(error, ['NOT_FOUND']);
    }
  };
  return {
    name,
    async store(objects, signal) {
      await noted(() => destination.store(objects, signal), signal);
      board.ok(name);
    },
    // That it answers does not say that it stores.
    ask: (signal) => noted(() => destination.ask?.(signal), signal),
  };
}
