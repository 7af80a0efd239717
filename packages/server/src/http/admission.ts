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
const maxBodies = 128;
/** Where there are so many, one that is slower than this has to make room for another. */
const slowBytesPerSecond = 64 * 1024;
const youngMs = 2000;

export function createAdmission(jobs: Jobs): Admission {
  const closing = new AbortController();
  const bodies = new Map<FastifyRequest, { sinceMs: number; bytesBefore: number }>();
  const ending = new AbortController();

  function requireOpen(): void {
    if (closing.signal.aborted)
      throw new TomaatError('BUSY', 'The server stops now and takes no new work. Try again in a minute.');
  }

  /** Hangs up on the slowest sender, so that senders who drip cannot take all places; false where all are quick. */
  function endSlowest(): boolean {
    let slowest: FastifyRequest | undefined;
    let least = slowBytesPerSecond;
    for (const [request, { sinceMs, bytesBefore }] of bodies) {
      const ms = performance.now() - sinceMs;
      const pace = ((request.raw.socket.bytesRead - bytesBefore) / ms) * 1000;
      if (ms < youngMs || pace >= least) continue;
      slowest = request;
      least = pace;
    }
    if (!slowest) return false;
    bodies.delete(slowest);
    slowest.raw.socket.destroy();
    return true;
  }

  return {
    requireOpen,
    async enter(request) {
      requireOpen();
      const key = request.headers['idempotency-key'];
      // Whoever repeats a request gets the job that he has, whatever the queue looks like.
      if (typeof key !== 'string' || !(await jobs.isKnown(ownerOf(request), key))) {
        await jobs.requireRoom();
        await jobs.requireLimits(ownerOf(request), request.principal?.limits);
      }
      if (bodies.size >= maxBodies && !endSlowest()) {
        throw new TomaatError(
          'BUSY',
          `${bodies.size} requests are being received already. Try again in a few seconds.`,
        );
      }
      bodies.set(request, { sinceMs: performance.now(), bytesBefore: request.raw.socket.bytesRead });
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
