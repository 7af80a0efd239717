import { randomBytes } from 'node:crypto';
import { isSettled } from '@tomaat/client';
import { TomaatError } from '@tomaat/core';
import type { Blobs } from '../blobs/blobs.ts';
import type { Database } from '../database/database.ts';
import { createJobEvents, readUntil } from '../database/job-events.ts';
import type { JobsSchema } from '../database/job-schema.ts';
import { createBlobHolds } from './blob-holds.ts';
import { addDuration, createJobDurations } from './job-durations.ts';
import { countToday, type JobLimits, requireLimits } from './job-limits.ts';
import type { ClaimedJob, JobRecord, JobWitness, NewJob } from './job-records.ts';
import * as rows from './job-rows.ts';
import { type LeftAttempts, recoverJobs } from './recover-jobs.ts';
import { createSharedHolds } from './shared-holds.ts';
import { createSharedJobs } from './shared-jobs.ts';
import { createUnsettledJobs } from './unsettled-jobs.ts';

/**
 * The one owner of job state. A job is a row: accepted when the row is committed, and every later change of
 * its state is one transaction. Inputs and outputs are blobs; a job holds its inputs until it is settled and
 * its outputs until it expires or is deleted.
 */

export interface JobsOptions {
  database: Database<JobsSchema>;
  blobs: Blobs;
  /** How long a settled job and its results are kept. */
  resultTtlMs: number;
  /** The most jobs that may wait; more are refused (BUSY). */
  maxQueued: number;
  /** How long a remote worker may be silent before its job goes to another one; default 15 s. */
  leaseMs?: number;
  /** How long shared files stay after nothing refers to them; a minute if missing. */
  deleteAfterMs?: number;
  /** The most concurrent predictions of a service; no limit if undefined. */
  concurrencyOf?(service: string): number | undefined;
  witness?: JobWitness;
  /** Wall clock, ms. */
  now?(): number;
  /** The clock by which settled jobs expire and days begin, ms; the wall clock if missing. */
  steadyMs?(): number;
  /** Clock of leases, ms: monotonic, independent of the wall clock. */
  monotonicMs?(): number;
}

/** A job fails when the process that computed it, or the remote worker, was lost this many times. */
const maxLosses = 3;
/** A job is kept for this many times `resultTtlMs` at most, if its owner asks. */
const mostPeriods = 7;
const defaultUrgency = 3;
/** Of the messages between servers that share a database. */
const channelName = 'tomaat_jobs';
const newServerName = () => randomBytes(9).toString('base64url');

export type Jobs = ReturnType<typeof createJobs>;

export function createJobs({
  database,
  blobs,
  resultTtlMs,
  maxQueued,
  leaseMs = 15_000,
  deleteAfterMs,
  concurrencyOf = () => undefined,
  witness = {},
  now = Date.now,
  steadyMs = now,
  monotonicMs = () => performance.now(),
}: JobsOptions) {
  const { db } = database;
  const isShared = database.dialect === 'postgres';
  const events = createJobEvents(
    isShared && database.openChannel ? (listener) => database.openChannel!(channelName, listener) : undefined,
  );
  const sharedHolds = isShared
    ? createSharedHolds({ database, blobs, server: newServerName(), graceMs: deleteAfterMs, monotonicMs })
    : undefined;
  const holds = createBlobHolds(db, blobs, sharedHolds, monotonicMs);
  const durations = createJobDurations(db);
  const queue = { events, maxQueued, leaseMs, concurrencyOf, now, monotonicMs };
  const unsettled = sharedHolds
    ? createSharedJobs({ ...queue, database, renewed: holds.renew })
    : createUnsettledJobs({ ...queue, database });

  /**
   * Accepts a job: when this resolves it is on disk. BUSY when the queue is full, LIMIT_REACHED when the owner is at a
   * limit, CONFLICT if the idempotency key was used for another request.
   */
  async function create(job: NewJob): Promise<{ id: string; existed: boolean }> {
    const { owner, service, idempotencyKey: key, limits = {}, urgency = defaultUrgency } = job;
    const id = randomBytes(16).toString('base64url');
    await unsettled.load();
    const known = key === undefined ? undefined : await rows.findByKey(db, owner, key);
    if (known) return sameRequest(known, job);
    const createdMs = now();
    try {
      await unsettled.admit({ id, owner, service, urgency, created_ms: createdMs }, async (trx) => {
        // Checked again, because other jobs of this owner may have been created since its body began.
        await requireLimits(trx, owner, limits, steadyMs());
        if (limits.perDay !== undefined) await countToday(trx, owner, steadyMs());
        await rows.insertJob(trx, job, { id, createdMs, urgency });
        await witness.accepted?.({ id, service, owner, inputs: job.inputs }, trx);
      });
    } catch (error) {
      // An equal request may have created it meanwhile, at another server, and thereby reached a limit.
      const existing = key !== undefined ? await rows.findByKey(db, owner, key) : undefined;
      if (!existing) throw error;
      return sameRequest(existing, job);
    }
    return { id, existed: false };
  }

  async function get(id: string): Promise<JobRecord | undefined> {
    const job = await rows.readJob(db, id);
    return job?.state === 'running' ? { ...job, ...unsettled.progressOf(id) } : job;
  }

  /**
   * The next job of these services becomes running, with a new attempt number. With `worker`, the name of a remote
   * worker, it is leased: a worker that is silent for `leaseMs` loses the job.
   */
  async function claim(services: readonly string[], worker?: string): Promise<ClaimedJob | undefined> {
    const claimed = await unsettled.claim(services, worker);
    if (!claimed) return undefined;
    const { id, attempt, service, request } = claimed.row;
    events.moved();
    events.changed(id);
    return { id, service, attempt, request: JSON.parse(request), inputs: claimed.inputs };
  }

  /**
   * Ends an attempt. False if the job is no longer running this attempt (cancelled, or claimed again):
   * then nothing is changed and the results are not the job's.
   */
  async function settle(id: string, attempt: number | undefined, outcome: rows.Outcome): Promise<boolean> {
    const times = { settledMs: now(), expiresMs: steadyMs() + resultTtlMs };
    const settled = await database.transaction(async (trx) => {
      const job = await rows.settleJob(trx, { id, attempt, ...times }, outcome);
      if (!job) return undefined;
      const receipt = await witness.receiptOf?.(job, trx);
      if (receipt) await rows.writeReceipt(trx, id, receipt);
      if (outcome.state === 'succeeded') {
        await rows.insertOutputs(trx, { id, attempt: attempt! }, outcome.outputs);
        const { service, request } = job;
        await addDuration(trx, { service, seconds: outcome.seconds, voxels: request.voxels });
      }
      await witness.settled?.(job, trx);
      return job;
    });
    if (!settled) return false;
    unsettled.settled(id);
    if (outcome.state === 'canceled') events.canceled(id);
    events.changed(id);
    await holds.drop(settled.inputs.map((input) => input.digest));
    return true;
  }

  /** Ends a queued or running job as cancelled; false if it was already settled. */
  function cancel(id: string, message = 'The job was cancelled.'): Promise<boolean> {
    return settle(id, undefined, { state: 'canceled', error: { code: 'CANCELED', message } });
  }

  /**
   * A running attempt goes back to the queue: `lost` if the process that computed it was lost (the third loss fails the job),
   * `handed back` if the job did not cause it. Undefined if the job was no longer running this attempt.
   */
  async function requeue(
    id: string,
    attempt: number,
    why: 'lost' | 'handed back',
  ): Promise<'queued' | 'failed' | undefined> {
    const losses = why === 'lost' ? 1 : 0;
    const row = await rows.requeueAttempt(db, { id, attempt, losses, maxLosses });
    if (row) {
      unsettled.requeued(row);
      events.changed(id);
      return 'queued';
    }
    if (losses === 0) return undefined;
    const message = `The process that computed this job was lost ${maxLosses} times, so the job is not tried again. Send a smaller volume, or ask the operator, who finds more in the server’s log.`;
    const failed = await settle(id, attempt, { state: 'failed', error: { code: 'WORKER_DIED', message } });
    return failed ? 'failed' : undefined;
  }

  /** Takes back the jobs whose workers have been silent too long; returns their ids. */
  async function lapse(): Promise<string[]> {
    const lapsed = await unsettled.takeLapsed();
    for (const { id, attempt, heard } of lapsed) {
      // A worker that stopped while this server was down does not count against the job.
      if (attempt !== undefined) await requeue(id, attempt, heard ? 'lost' : 'handed back');
    }
    return lapsed.map(({ id }) => id);
  }

  /** Deletes a settled job with its results; false if it does not exist, or was to have expired and is kept longer by now. */
  async function remove(id: string, why: 'deleted' | 'expired' = 'deleted'): Promise<boolean> {
    const removed = await database.transaction(async (trx) => {
      const job = await rows.deleteJob(trx, id, why === 'expired' ? steadyMs() : undefined);
      if (job) await witness.removed?.({ id, service: job.service, owner: job.owner }, why, trx);
      return job;
    });
    if (!removed) return false;
    events.changed(id);
    await holds.drop(removed.digests);
    return true;
  }

  /**
   * A settled job is kept for another period from now, but for no more than `mostPeriods` after it settled. False if it has been
   * deleted.
   * @throws TomaatError NOT_READY if it is not settled, CONFLICT if it is kept as long as possible already
   */
  async function keep(id: string): Promise<boolean> {
    const job = await rows.readJob(db, id);
    if (!job) return false;
    if (!isSettled(job))
      throw new TomaatError(
        'NOT_READY',
        `The job is ${job.state}. Its results can be kept once it has ended.`,
      );
    const latestMs = steadyMs() + (job.settledMs - now()) + mostPeriods * resultTtlMs;
    const expiresMs = Math.min(steadyMs() + resultTtlMs, latestMs);
    // The clocks of both times may have moved a little apart.
    if (latestMs - job.expiresMs < resultTtlMs / 100)
      throw new TomaatError(
        'CONFLICT',
        'The results are kept for as long as this server allows. Download what you need.',
      );
    const isKept = await database.transaction(async (trx) => {
      if (!(await rows.postponeExpiry(trx, id, expiresMs))) return false;
      await witness.kept?.({ id, service: job.service, owner: job.owner }, trx);
      return true;
    });
    if (!isKept) return (await rows.readJob(db, id)) !== undefined;
    events.changed(id);
    return true;
  }

  /** Deletes the results of a settled job; the job and its receipt are kept until they expire. */
  async function dropOutputs(id: string): Promise<void> {
    const digests = await rows.deleteOutputs(db, id);
    events.changed(id);
    await holds.drop(digests);
  }

  /** Deletes expired jobs and empties the log of the database, so that nothing of them is left on disk. */
  async function sweep(): Promise<number> {
    const expired = await rows.expiredIds(db, steadyMs());
    for (const id of expired) await remove(id, 'expired');
    await holds.sweep();
    await database.truncateWal().catch((error: unknown) => {
      if (!(error instanceof TomaatError && error.code === 'BUSY')) throw error;
    });
    return expired.length;
  }

  return {
    leaseMs,
    create,
    claim,
    settle,
    cancel,
    requeue,
    lapse,
    remove,
    keep,
    dropOutputs,
    sweep,
    /** After a crash: see `recoverJobs()`. */
    recover: (services: readonly string[], left?: LeftAttempts) =>
      recoverJobs({ unsettled, holds, settle, requeue }, services, left),
    touch: unsettled.touch,
    isRunning: unsettled.isRunning,
    positionOf: unsettled.positionOf,
    typicalSeconds: durations.typicalSeconds,
    expectedSeconds: durations.expectedSeconds,
    /** Seconds until a queued job, or a new one (undefined), may start with `slots` concurrent predictions. */
    expectedWaitSeconds: async (id: string | undefined, service: string, slots: number) =>
      durations.waitSeconds(
        await (id === undefined ? unsettled.waiting() : unsettled.positionOf(id)),
        service,
        slots,
      ),
    hold: holds.hold,
    release: holds.release,
    discard: holds.discard,
    heldFor: holds.heldFor,
    releaseAll: holds.releaseAll,
    drop: holds.drop,
    dropNow: holds.dropNow,
    isHeld: holds.isHeld,
    keepAlso: holds.keepAlso,
    watch: events.watch,
    on: events.on,
    get,
    /** Resolves with the job once it is settled (or undefined if it was deleted); rejects when `signal` aborts. */
    settled: (id: string, signal?: AbortSignal): Promise<JobRecord | undefined> =>
      readUntil(() => get(id), isOver, { watch: (listener) => events.watch(id, listener), signal }),
    /** Throws BUSY when the queue is full for this owner; call it before the body of a request is read. */
    requireRoom: unsettled.requireRoom,
    /** Throws LIMIT_REACHED when another job would exceed this owner's limits. */
    requireLimits: (owner: string, limits: JobLimits = {}) => requireLimits(db, owner, limits, steadyMs()),
    /** Whether this owner has used this idempotency key for a job that still exists. */
    isKnown: async (owner: string, idempotencyKey: string) =>
      (await rows.findByKey(db, owner, idempotencyKey)) !== undefined,
    inputsOf: (id: string) => rows.readInputs(db, id),
    hasSucceeded: (id: string, attempt: number) => rows.hasSucceeded(db, id, attempt),
    receipt: (id: string) => rows.readReceipt(db, id),
    idsOf: (owner: string) => rows.idsOf(db, owner),
    counts: () => rows.countByState(db),
    unsettledCounts: () => rows.countUnsettled(db),
    /** Ends what it hears from other processes. */
    close: events.close,
    [Symbol.asyncDispose]: events.close,
  };
}

const isOver = (job: JobRecord | undefined): boolean => !job || isSettled(job);

/** The job that an earlier request with this idempotency key created. @throws TomaatError CONFLICT if that request was different. */
function sameRequest(existing: { id: string; fingerprint: string | null }, job: NewJob) {
  if (existing.fingerprint === (job.fingerprint ?? null)) return { id: existing.id, existed: true };
  throw new TomaatError('CONFLICT', 'This Idempotency-Key was used for another request. Use a new key.', {
    field: 'Idempotency-Key',
  });
}
