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

export function createAdmission(jobs: Jobs): Admission {
  const closing = new AbortController();
  let bodies = 0;
  const ending = new AbortController();

  function requireOpen(): void {
    if (closing.signal.aborted)
      throw new TomaatError('BUSY', 'The server stops now and takes no new work. Try again in a minute.');
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
      if (bodies >= maxBodies) {
        throw new TomaatError(
          'BUSY',
          `${bodies} requests are being received already. Try again in a few seconds.`,
        );
      }
      bodies++;
      return {
        [Symbol.dispose]() {
          bodies--;
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
