import type { Kysely, Transaction } from 'kysely';
import type { Database } from '../database/database.ts';
import type { JobEvents } from '../database/job-events.ts';
import type { JobRow, JobsSchema } from '../database/job-schema.ts';
import { createQueueRoom } from './job-limits.ts';
import { createJobQueue, type QueuedJob } from './job-queue.ts';
import type { Attempt, InputFile } from './job-records.ts';
import * as rows from './job-rows.ts';
import { createLeases } from './leases.ts';

/**
 * The unsettled jobs: which wait, which attempt of which job runs with what progress, and until when its worker may be silent.
 * In the memory of the one process that owns them (here), or in a database that several servers share (shared-jobs.ts).
 */
export interface UnsettledJobs {
  /** Has to be awaited before the queue is used. */
  load(): Promise<void>;
  /** @throws TomaatError BUSY when the queue is full for this owner */
  requireRoom(owner: string): Promise<void>;
  /**
   * Queues a new job, which `insert` writes, once there is room: room is found and taken in one step.
   * @throws TomaatError BUSY when the queue is full for this owner
   */
  admit(job: NewRow, insert: (trx: Transaction<JobsSchema>) => Promise<void>): Promise<void>;
  /**
   * The next job of these services becomes running, unless this rejects. With `worker`, the name of a remote worker, it is leased.
   */
  claim(services: readonly string[], worker?: string): Promise<Claim | undefined>;
  /** An attempt ended without a result; its row is queued again. */
  requeued(row: JobRow): void;
  /** A job is settled: others move up, and one held back by its service's limit may start. */
  settled(id: string): void;
  /** How many jobs wait. */
  waiting(): Promise<number>;
  /** Jobs that are likely to be claimed before this one; undefined unless it is queued. */
  positionOf(id: string): Promise<number | undefined>;
  /** Whether the job runs this attempt now. */
  isRunning(id: string, attempt: number): Promise<boolean>;
  /** Records the progress of an attempt and renews its lease; false if the job is no longer running this attempt. */
  touch(id: string, attempt: number, at?: Progress): Promise<boolean>;
  /** The progress of a running job, if it is not in its row. */
  progressOf(id: string): Progress | undefined;
  /**
   * After a crash: the running attempts of the last process itself, whose children may be lost. In a shared database those among `left`
   * that still run: others are of servers that live.
   */
  ownAttempts(left: readonly Attempt[]): Promise<Attempt[]>;
  /** The services that are offered here, at the start. */
  offer(services: readonly string[]): Promise<void>;
  /** Unsettled jobs of services that nobody offers. */
  unserved(services: readonly string[]): Promise<{ id: string; service: string }[]>;
  /**
   * The attempts whose leases have expired; none if the job is no longer running. `heard`: whether the worker was heard from after
   * the last time that it could not be.
   */
  takeLapsed(): Promise<{ id: string; attempt?: number; heard: boolean }[]>;
}

/** A job that has just become running. Its files are read with it: one whose claim had failed halfway would run nowhere. */
export interface Claim {
  readonly row: JobRow;
  readonly inputs: InputFile[];
}

export type NewRow = Pick<JobRow, 'id' | 'service' | 'owner' | 'created_ms' | 'urgency'>;

export interface Progress {
  readonly stage: string;
  /** 0 to 1 of the stage. */
  readonly fraction: number;
}

export interface UnsettledJobsOptions {
  database: Database<JobsSchema>;
  events: JobEvents;
  /** The most jobs that may wait. */
  maxQueued: number;
  leaseMs: number;
  /** The most predictions of a service at a time; no limit if undefined. */
  concurrencyOf(service: string): number | undefined;
  /** Wall clock, ms. */
  now(): number;
  /** Clock of leases, ms. */
  monotonicMs(): number;
}

/** Time from an unsynced claim to its sync, if the job is still running. */
const claimSyncMs = 1000;

/** Keeps them in memory: filled from the rows once, it follows every change of a row. */
export function createUnsettledJobs(options: UnsettledJobsOptions): UnsettledJobs {
  const { database, events } = options;
  const { db } = database;
  const queue = createJobQueue(options.concurrencyOf, options.now);
  const leases = createLeases(options.leaseMs, options.monotonicMs);
  const room = createQueueRoom(options.maxQueued, queue.ownersWaiting);
  const progress = new Map<string, Progress>();
  let arrivals = 0;
  let loading: Promise<void> | undefined;

  const load = (): Promise<void> => {
    loading ??= readRows(db, { enqueue, queue, leases });
    return loading;
  };

  function enqueue(row: NewRow & Pick<JobRow, 'attempt'>): void {
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

  /** Marks the next job of these services as running, so that no other slot takes it. */
  function take(services: readonly string[]): { job: QueuedJob; attempt: number } | undefined {
    const job = queue.next(services);
    if (!job) return undefined;
    const attempt = job.attempt + 1;
    queue.start(job.id, { service: job.service, owner: job.owner, attempt });
    return { job, attempt };
  }

  /** Makes a claim durable, because a job that crashes the whole machine must count as lost too. */
  async function syncClaim(id: string, attempt: number): Promise<void> {
    if (queue.attemptOf(id) !== attempt) return;
    // If it cannot write, settling the job will fail too, and report it.
    await rows.rewriteJob(db, id).catch(() => {});
  }

  async function claim(services: readonly string[], worker?: string): Promise<Claim | undefined> {
    await load();
    let row: JobRow | undefined;
    let inputs: InputFile[] = [];
    do {
      // Before the first await, so that no other slot takes the same job.
      const taken = take(services);
      if (!taken) return undefined;
      const { job, attempt } = taken;
      try {
        inputs = await rows.readInputs(db, job.id);
        const start = (at: typeof db) =>
          rows.startAttempt(at, { id: job.id, attempt, startedMs: options.now(), worker });
        // A power failure also ends this process's own children, so it may undo their claims; a remote worker
        // survives it, and its attempt must never be given to another. See syncClaim().
        row = await (worker === undefined ? database.unsynced(start) : start(db));
      } catch (error) {
        queue.remove(job.id);
        queue.add(job);
        throw error;
      }
      // It was cancelled meanwhile.
      if (!row) queue.remove(job.id);
    } while (!row);
    const { id, attempt } = row;
    if (worker !== undefined) leases.begin(id);
    else setTimeout(() => void syncClaim(id, attempt), claimSyncMs).unref();
    return { row, inputs };
  }

  return {
    load,
    async requireRoom(owner) {
      await load();
      room.requireRoom(owner);
    },
    async admit(job, insert) {
      // Before the first await: concurrent requests would all find the same room.
      room.enter(job.id, job.owner);
      try {
        await database.transaction(insert);
      } finally {
        room.leave(job.id);
      }
      enqueue({ ...job, attempt: 0 });
    },
    claim,
    requeued: enqueue,
    settled(id) {
      leases.end(id);
      progress.delete(id);
      queue.remove(id);
      events.moved();
      if (queue.length > 0) events.queued();
    },
    waiting: async () => queue.length,
    async positionOf(id) {
      await load();
      return queue.positionOf(id);
    },
    isRunning: async (id, attempt) => queue.attemptOf(id) === attempt,
    async touch(id, attempt, at) {
      if (queue.attemptOf(id) !== attempt) return false;
      leases.renew(id);
      const before = progress.get(id);
      if (at && (at.stage !== before?.stage || at.fraction !== before.fraction)) {
        progress.set(id, { stage: at.stage, fraction: at.fraction });
        events.changed(id);
      }
      return true;
    },
    progressOf: (id) => progress.get(id),
    ownAttempts: async () =>
      [...queue.running()].flatMap(([id, { attempt }]) => (leases.has(id) ? [] : [{ id, attempt }])),
    offer: async () => {},
    unserved: (services) => rows.findUnserved(db, services),
    takeLapsed: async () =>
      leases.takeLapsed().map(({ id, heard }) => ({ id, heard, attempt: queue.attemptOf(id) })),
  };
}

async function readRows(
  db: Kysely<JobsSchema>,
  {
    enqueue,
    queue,
    leases,
  }: {
    enqueue(row: NewRow & Pick<JobRow, 'attempt'>): void;
    queue: ReturnType<typeof createJobQueue>;
    leases: ReturnType<typeof createLeases>;
  },
): Promise<void> {
  const unsettled = await db
    .selectFrom('job')
    .select(['id', 'service', 'owner', 'urgency', 'created_ms', 'state', 'attempt', 'worker'])
    .where('state', 'in', ['queued', 'running'])
    .orderBy('created_ms')
    .execute();
  for (const row of unsettled) {
    if (row.state === 'queued') enqueue(row);
    else {
      queue.start(row.id, { service: row.service, owner: row.owner, attempt: row.attempt });
      if (row.worker !== null) leases.resume(row.id);
    }
  }
}
