import { setTimeout as delay } from 'node:timers/promises';
import { TomaatError } from '@tomaat/core';
import type { FastifyBaseLogger } from 'fastify';
import type { ClaimedJob } from '../store/jobs/job-records.ts';
import { mayPass, type RemoteServer } from './remote-server.ts';

const touchEveryMs = 500;
const touchLimitMs = 5_000;

/** A job that this worker holds at a server elsewhere. */
export interface Lease {
  readonly job: ClaimedJob;
  /** Aborts when the job has ended, here or there. */
  readonly ended: AbortSignal;
  /** What the server is told of next. */
  at: { stage: string; fraction: number } | undefined;
}

/**
 * The jobs that this worker holds at a server elsewhere. While a job runs the server hears of it twice a second; if it cannot be
 * reached for the time of its lease, the job counts as lost here, as it does there. A server that answers that its database is away is reached.
 */
export interface Leases {
  /** Begins a lease, of which the server was heard at `heardMs` (of performance.now()), and keeps it until `end()`. */
  begin(job: ClaimedJob, heardMs: number): void;
  /** The lease of a job by its id, whatever its attempt. */
  get(id: string): Lease | undefined;
  /** Ends the lease of this attempt, if it is still held. */
  end(job: ClaimedJob): void;
  /** Calls back with the id of each job that is lost or no longer ours. */
  onLost(listener: (id: string) => void): () => void;
  /** How long the server may be out of reach, as it says itself. */
  leaseMs: number;
}

interface Held extends Lease {
  readonly ending: AbortController;
  heardMs: number;
}

export function createLeases(server: RemoteServer, logger: FastifyBaseLogger): Leases {
  const held = new Map<string, Held>();
  const listeners = new Set<(id: string) => void>();

  /** Reports to the server that the job is in progress, until it has ended in any way. */
  async function keepTouching(one: Held): Promise<void> {
    const { job, ended } = one;
    while (!ended.aborted) {
      const askedMs = performance.now();
      const leftMs = leases.leaseMs - (askedMs - one.heardMs);
      if (leftMs <= 0) {
        logger.error(
          { job: job.id, server: server.base },
          'the server was unreachable for the time of the lease; the job is dropped',
        );
        return lose(one);
      }
      try {
        const limitMs = Math.ceil(Math.max(100, Math.min(touchLimitMs, leftMs)));
        const signal = AbortSignal.any([ended, AbortSignal.timeout(limitMs)]);
        const path = `/api/worker/jobs/${job.id}/touch`;
        await server.askJson('POST', path, { attempt: job.attempt, ...one.at }, signal);
        one.heardMs = askedMs;
      } catch (error) {
        if (ended.aborted) return;
        if (!mayPass(error)) {
          logger.info({ job: job.id, reason: (error as Error).message }, 'the job is no longer ours');
          return lose(one);
        }
        // Without its database the server gives the job to nobody, and waits for a lease when it has it again.
        if (isWithoutDatabase(error)) one.heardMs = askedMs;
      }
      await delay(touchEveryMs, undefined, { signal: ended }).catch(() => {});
    }
  }

  function lose(one: Held): void {
    leases.end(one.job);
    for (const listener of listeners) listener(one.job.id);
  }

  const leases: Leases = {
    leaseMs: 15_000,
    begin(job, heardMs) {
      const ending = new AbortController();
      const one: Held = { job, ended: ending.signal, ending, at: undefined, heardMs };
      held.set(job.id, one);
      void keepTouching(one);
    },
    get: (id) => held.get(id),
    end(job) {
      const one = held.get(job.id);
      if (one?.job.attempt !== job.attempt) return;
      held.delete(job.id);
      one.ending.abort();
    },
    onLost(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
  return leases;
}

const isWithoutDatabase = (error: unknown) => error instanceof TomaatError && error.code === 'BUSY';
