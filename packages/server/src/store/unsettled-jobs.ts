import type { Kysely } from 'kysely';
import type { JobEvents } from './job-events.ts';
import { createJobQueue, type QueuedJob } from './job-queue.ts';
import type { JobRow, JobsSchema } from './job-schema.ts';
import { createLeases } from './leases.ts';

/**
 * The unsettled jobs as the one process that owns them has them in memory: who waits, who runs which attempt and how far it
 * is, and which are leased to workers elsewhere. Filled from the rows once; every change of a row is followed here.
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
    /** A job waits: a new one, or one whose attempt is over without an end. */
    enqueue,
    /** The job that is next for these services counts as running, so that nobody else takes it. */
    take(services: readonly string[]): { job: QueuedJob; attempt: number } | undefined {
      const job = queue.next(services);
      if (!job) return undefined;
      const attempt = job.attempt + 1;
      queue.start(job.id, { service: job.service, owner: job.owner, attempt });
      return { job, attempt };
    },
    /** What was taken did not start, and has its place again. */
    putBack(job: QueuedJob): void {
      queue.remove(job.id);
      queue.add(job);
    },
    /** What was taken is settled already. */
    forget: (id: string): void => void queue.remove(id),
    beginLease: leases.begin,
    /** A job is settled: others move up, and one that a service's limit held back may start. */
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
    /** Running jobs that no worker elsewhere has under a lease. */
    unleased: (): { id: string; attempt: number }[] =>
      [...queue.running()].flatMap(([id, { attempt }]) => (leases.has(id) ? [] : [{ id, attempt }])),
    /** Ends the leases that are over; the attempt is undefined where the job does not run any more. */
    takeLapsed: (): { id: string; attempt?: number; heard: boolean }[] =>
      leases.takeLapsed().map(({ id, heard }) => ({ id, heard, attempt: queue.attemptOf(id) })),
  };
}
