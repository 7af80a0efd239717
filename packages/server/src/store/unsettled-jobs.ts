import type { Kysely } from 'kysely';
import type { JobEvents } from './job-events.ts';
import { createJobQueue, type QueuedJob } from './job-queue.ts';
import type { JobRow, JobsSchema } from './job-schema.ts';
import { createLeases } from './leases.ts';

/**
 * The unsettled jobs in the memory of the one process that owns them: which wait, which attempt of which job runs with what
 * progress, and which are leased to remote workers. Filled from the rows once; follows every change of a row.
 */

export interface UnsettledJobsOptions {
  db: Kysely<JobsSchema>;
  events: JobEvents;
  leaseMs: number;
  concurrencyOf(service: string): number | undefined;
  /** Wall clock, ms. */
  now(): number;
  /** Clock of leases, ms. */
  monotonicMs(): number;
}

export type UnsettledJobs = ReturnType<typeof createUnsettledJobs>;

export function createUnsettledJobs(options: UnsettledJobsOptions) {
  const { db, events } = options;
  const queue = createJobQueue(options.concurrencyOf, options.now);
  const leases = createLeases(options.leaseMs, options.monotonicMs);
  const progress = new Map<string, { stage: string; fraction: number }>();
  let arrivals = 0;
  let loading: Promise<void> | undefined;

  function enqueue(
    row: Pick<JobRow, 'id' | 'service' | 'owner' | 'created_ms' | 'attempt' | 'urgency'>,
  ): void {
    leases.end(row.id);
    progress.delete(row.id);
    queue.remove(row.id);
    queue.add({
      id: row.id,
      service: row.service,
      owner: row.owner,
      urgency: row.urgency,
      createdMs: row.created_ms,
      attempt: row.attempt,
      order: arrivals++,
    });
    events.queued();
    events.moved();
  }

  async function readRows(): Promise<void> {
    const rows = await db
      .selectFrom('job')
      .select(['id', 'service', 'owner', 'urgency', 'created_ms', 'state', 'attempt', 'worker'])
      .where('state', 'in', ['queued', 'running'])
      .orderBy('created_ms')
      .execute();
    for (const row of rows) {
      if (row.state === 'queued') enqueue(row);
      else {
        queue.start(row.id, { service: row.service, owner: row.owner, attempt: row.attempt });
        if (row.worker !== null) leases.resume(row.id);
      }
    }
  }

  return {
    /** Fills the queue from the rows, once. */
    load(): Promise<void> {
      loading ??= readRows();
      return loading;
    },
    /** Queues a job: a new one, or one whose attempt ended without a result. */
    enqueue,
    /** Marks the next job of these services as running, so that no other slot takes it. */
    take(services: readonly string[]): { job: QueuedJob; attempt: number } | undefined {
      const job = queue.next(services);
      if (!job) return undefined;
      const attempt = job.attempt + 1;
      queue.start(job.id, { service: job.service, owner: job.owner, attempt });
      return { job, attempt };
    },
    /** Returns a taken job that did not start to its place. */
    putBack(job: QueuedJob): void {
      queue.remove(job.id);
      queue.add(job);
    },
    /** A taken job turned out to be settled. */
    forget: (id: string): void => void queue.remove(id),
    beginLease: leases.begin,
    /** A job is settled: others move up, and one held back by its service's limit may start. */
    end(id: string): void {
      leases.end(id);
      progress.delete(id);
      queue.remove(id);
      events.moved();
      if (queue.length > 0) events.queued();
    },
    get waiting() {
      return queue.length;
    },
    ownersWaiting: queue.ownersWaiting,
    /** Jobs that are likely to be claimed before this one; undefined unless it is queued. */
    positionOf: queue.positionOf,
    /** Whether the job runs this attempt now. */
    isRunning: (id: string, attempt: number): boolean => queue.attemptOf(id) === attempt,
    /** Records the progress of an attempt and renews its lease; false if the job is no longer running this attempt. */
    touch(id: string, attempt: number, at?: { stage: string; fraction: number }): boolean {
      if (queue.attemptOf(id) !== attempt) return false;
      leases.renew(id);
      const before = progress.get(id);
      if (at && (at.stage !== before?.stage || at.fraction !== before.fraction)) {
        progress.set(id, { stage: at.stage, fraction: at.fraction });
        events.changed(id);
      }
      return true;
    },
    progressOf: (id: string) => progress.get(id),
    /** Running jobs that are not leased to a remote worker. */
    unleased: (): { id: string; attempt: number }[] =>
      [...queue.running()].flatMap(([id, { attempt }]) => (leases.has(id) ? [] : [{ id, attempt }])),
    /** Ends the expired leases; the attempt is undefined if the job is no longer running. */
    takeLapsed: (): { id: string; attempt?: number; heard: boolean }[] =>
      leases.takeLapsed().map(({ id, heard }) => ({ id, heard, attempt: queue.attemptOf(id) })),
  };
}
