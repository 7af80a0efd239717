import { TomaatError } from '@tomaat/core';
import type { FastifyRequest } from 'fastify';
import { ownerOf } from '../access/principal.ts';
import type { Jobs } from '../store/jobs.ts';

/**
 * Says no before a body is read: when the queue is full, when too many bodies are on their way already, when the server
 * stops; all of them are BUSY. When the caller's key has used what it may, LIMIT_REACHED. Both are answered with Retry-After.
 */
export interface Admission {
  /** Lets a request for a prediction in; dispose of it when its body was received. */
  enter(request: FastifyRequest): Promise<Disposable>;
  /** Throws BUSY when the server stops. */
  requireOpen(): void;
  /** From now on nothing new is let in. */
  close(): void;
  /** Aborts when nothing new is let in any more. */
  readonly closing: AbortSignal;
  /** Aborts when the server is about to go: whoever still waits for a job is told so. */
  readonly ending: AbortSignal;
  end(): void;
}

/** Each body on its way may take two buffers of 512 KiB. */
const defaultMaxBodies = 128;
/** Where there are so many, one that is slower than this makes room for another. */
const slowBytesPerSecond = 64 * 1024;
const youngMs = 2000;

export function createAdmission(jobs: Jobs, { maxBodies = defaultMaxBodies } = {}): Admission {
  const closing = new AbortController();
  const bodies = new Map<FastifyRequest, { owner: string; sinceMs: number; bytesBefore: number }>();
  const ending = new AbortController();

  function requireOpen(): void {
    if (closing.signal.aborted)
      throw new TomaatError('BUSY', 'The server stops now and takes no new work. Try again in a minute.');
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
   * Hangs up on a sender so that another one gets in: on the slowest of all if it drips; else on the slowest of the owner
   * with the most, if that has more than the one who asks would have. False where nobody makes room.
   */
  function makeRoomFor(owner: string): boolean {
    const senders = byPace();
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
      // Whoever repeats a request gets the job that he has, whatever the queue looks like.
      if (typeof key !== 'string' || !(await jobs.isKnown(owner, key))) {
        await jobs.requireRoom(owner);
        await jobs.requireLimits(owner, request.principal?.limits);
      }
      if (bodies.size >= maxBodies && !makeRoomFor(owner)) {
        throw new TomaatError(
          'BUSY',
          `${bodies.size} requests are being received already. Try again in a few seconds.`,
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
    end: () => ending.abort(new TomaatError('BUSY', 'The server stops now. Try again in a minute.')),
  };
}
