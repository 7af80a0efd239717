import { TomaatError } from '@tomaat/core';
import type { FastifyRequest } from 'fastify';
import { ownerOf } from '../access/principal.ts';
import type { Jobs } from '../store/jobs/jobs.ts';

/**
 * Refuses a request before its body is read: BUSY when the queue is full, too many bodies are already being received, or the
 * server is stopping; LIMIT_REACHED when the caller's key has used up its limit. Both answers carry Retry-After.
 */
export interface Admission {
  /** Admits a request for a prediction; dispose of it when its body has been received. */
  enter(request: FastifyRequest): Promise<Disposable>;
  /** Throws BUSY when the server stops. */
  requireOpen(): void;
  /** Admits nothing new from now on. */
  close(): void;
  /** Aborts when nothing new is admitted any longer. */
  readonly closing: AbortSignal;
  /** Aborts when the server is about to exit: requests still waiting for a job get an answer. */
  readonly ending: AbortSignal;
  /**
   * Aborts when a stream of events should end, so that its client asks again: as soon as nothing new is admitted where other
   * servers know the same jobs, else when the server is about to exit.
   */
  readonly leaving: AbortSignal;
  end(): void;
}

/** Each body being received may take two buffers of 512 KiB. */
const defaultMaxBodies = 128;
/** At that number, a body slower than this makes room for another. */
const slowBytesPerSecond = 64 * 1024;
const youngMs = 2000;

/** `isShared`: whether other servers know the same jobs. */
export function createAdmission(
  jobs: Jobs,
  { maxBodies = defaultMaxBodies, isShared = false }: { maxBodies?: number; isShared?: boolean } = {},
): Admission {
  const closing = new AbortController();
  const bodies = new Map<FastifyRequest, { owner: string; sinceMs: number; bytesBefore: number }>();
  const ending = new AbortController();

  function requireOpen(): void {
    if (closing.signal.aborted)
      throw new TomaatError('BUSY', 'The server is stopping and takes no new work. Try again in a minute.');
  }

  /** Senders with their pace, bytes/s, the slowest first. */
  function byPace() {
    return [...bodies]
      .map(([request, { owner, sinceMs, bytesBefore }]) => {
        const ms = performance.now() - sinceMs;
        const pace = ((request.raw.socket.bytesRead - bytesBefore) / Math.max(1, ms)) * 1000;
        return { request, owner, pace, ms };
      })
      .sort((a, b) => a.pace - b.pace);
  }

  /**
   * Disconnects a sender to admit another: the slowest of all if it is too slow; otherwise the slowest of the owner
   * with the most bodies on their way, if that is more than the new caller would have. False if no sender can be disconnected.
   */
  function makeRoomFor(owner: string): boolean {
    // A caller that has sent everything waits for this server: for its disk, its database or its store of files.
    const senders = byPace().filter(({ request }) => !request.raw.complete);
    const counts = new Map<string, number>();
    for (const sender of senders) counts.set(sender.owner, (counts.get(sender.owner) ?? 0) + 1);
    const [rich, most] = [...counts].reduce((a, b) => (b[1] > a[1] ? b : a), ['', 0]);
    const dripping = senders.find(({ ms, pace }) => ms >= youngMs && pace < slowBytesPerSecond);
    const isFair = most > (counts.get(owner) ?? 0) + 1;
    const ended = dripping ?? (isFair ? senders.find((sender) => sender.owner === rich) : undefined);
    if (!ended) return false;
    bodies.delete(ended.request);
    ended.request.raw.socket.destroy();
    return true;
  }

  return {
    requireOpen,
    async enter(request) {
      requireOpen();
      const owner = ownerOf(request);
      const key = request.headers['idempotency-key'];
      // A repeated request gets its existing job, whatever the state of the queue.
      if (typeof key !== 'string' || !(await jobs.isKnown(owner, key))) {
        await jobs.requireRoom(owner);
        await jobs.requireLimits(owner, request.principal?.limits);
      }
      if (bodies.size >= maxBodies && !makeRoomFor(owner)) {
        throw new TomaatError(
          'BUSY',
          `${bodies.size} requests are already being received. Try again in a few seconds.`,
        );
      }
      bodies.set(request, { owner, sinceMs: performance.now(), bytesBefore: request.raw.socket.bytesRead });
      return {
        [Symbol.dispose]() {
          bodies.delete(request);
        },
      };
    },
    close() {
      closing.abort();
    },
    closing: closing.signal,
    ending: ending.signal,
    leaving: (isShared ? closing : ending).signal,
    end: () => ending.abort(new TomaatError('BUSY', 'The server is stopping. Try again in a minute.')),
  };
}
