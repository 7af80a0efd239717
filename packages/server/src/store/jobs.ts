import { randomBytes } from 'node:crypto';
import { EventEmitter } from 'node:events';
import { isSettled, type JobState, jobStates, type settledStates } from '@tomaat/client';
import { type ErrorData, type FileGeometry, type OutputFormat, TomaatError } from '@tomaat/core';
import { type Generated, type Kysely, type Selectable, sql } from 'kysely';
import { addTo, mayHaveMore } from '../fair-share.ts';
import type { Blobs } from './blobs.ts';
import { type Database, isUniqueViolation, type Migration } from './database.ts';
import { createJobQueue } from './job-queue.ts';
import { createLeases } from './leases.ts';

/**
 * The one owner of job state. A job is a row: accepted when the row is committed, and every later change of
 * its state is one transaction. Inputs and outputs are blobs; a job holds its inputs until it is settled and
 * its outputs until it expires or is deleted.
 */

export interface JobsSchema {
  job: JobTable;
  job_input: {
    job: string;
    position: number;
    name: string;
    file_name: string;
    digest: string;
    size_bytes: number;
    /** SHA-256 as received, if something was removed from it; otherwise null. */
    received: Generated<string | null>;
  };
  job_output: {
    job: string;
    attempt: number;
    position: number;
    name: string;
    type: string;
    label: string;
    is_primary: number;
    format: string;
    digest: string;
    size_bytes: number;
    /** What the header of the input stated of the grid, as JSON: for other formats of a label map. */
    geometry: Generated<string | null>;
  };
  /** How long predictions took here: the basis of estimates for waiting callers. */
  duration: { id: Generated<number>; service: string; seconds: number; voxels: number | null };
  /** Jobs that an owner with a limit created on a day (days since 1970, UTC), deleted ones included. */
  created_on: { owner: string; day: number; jobs: number };
}

interface JobTable {
  id: string;
  service: string;
  state: JobState;
  attempt: number;
  owner: string;
  request: string;
  idempotency_key: string | null;
  fingerprint: string | null;
  created_ms: number;
  started_ms: number | null;
  settled_ms: number | null;
  expires_ms: number | null;
  error: string | null;
  urgency: Generated<number>;
  /** How often the process that computed it was lost before it finished. */
  lost: Generated<number>;
  /** The worker elsewhere that runs it; null for this process's own. */
  worker: string | null;
  /** The content of its receipt, as JSON, once it is settled; signed on request. */
  receipt: Generated<string | null>;
}

export const jobMigrations: readonly Migration[] = [
  {
    name: 'jobs',
    async up(db: Kysely<unknown>) {
      const states = sql.join(jobStates.map((state) => sql.lit(state)));
      await sql`CREATE TABLE job (
        id TEXT PRIMARY KEY, service TEXT NOT NULL, state TEXT NOT NULL CHECK (state IN (${states})),
        attempt INTEGER NOT NULL, owner TEXT NOT NULL, request TEXT NOT NULL,
        idempotency_key TEXT, fingerprint TEXT, created_ms INTEGER NOT NULL, started_ms INTEGER,
        settled_ms INTEGER, expires_ms INTEGER, error TEXT) STRICT`.execute(db);
      await sql`CREATE UNIQUE INDEX job_idempotency ON job (owner, idempotency_key) WHERE idempotency_key IS NOT NULL`.execute(
        db,
      );
      await sql`CREATE INDEX job_queue ON job (created_ms) WHERE state = 'queued'`.execute(db);
      await sql`CREATE INDEX job_expiry ON job (expires_ms) WHERE expires_ms IS NOT NULL`.execute(db);
      await sql`CREATE TABLE job_input (
        job TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE, position INTEGER NOT NULL, name TEXT NOT NULL,
        file_name TEXT NOT NULL, digest TEXT NOT NULL, size_bytes INTEGER NOT NULL, PRIMARY KEY (job, position)) STRICT`.execute(
        db,
      );
      await sql`CREATE INDEX job_input_digest ON job_input (digest)`.execute(db);
      await sql`CREATE TABLE job_output (
        job TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE, attempt INTEGER NOT NULL, position INTEGER NOT NULL,
        name TEXT NOT NULL, type TEXT NOT NULL, label TEXT NOT NULL, is_primary INTEGER NOT NULL, format TEXT NOT NULL,
        digest TEXT NOT NULL, size_bytes INTEGER NOT NULL, PRIMARY KEY (job, name)) STRICT`.execute(db);
      await sql`CREATE INDEX job_output_digest ON job_output (digest)`.execute(db);
      await sql`CREATE TABLE duration (id INTEGER PRIMARY KEY, service TEXT NOT NULL, seconds REAL NOT NULL) STRICT`.execute(
        db,
      );
      await sql`CREATE INDEX duration_service ON duration (service, id)`.execute(db);
    },
  },
  {
    name: 'job queue',
    async up(db: Kysely<unknown>) {
      await sql`ALTER TABLE job ADD COLUMN urgency INTEGER NOT NULL DEFAULT 3`.execute(db);
      await sql`ALTER TABLE job ADD COLUMN lost INTEGER NOT NULL DEFAULT 0`.execute(db);
      await sql`ALTER TABLE job ADD COLUMN worker TEXT`.execute(db);
      await sql`ALTER TABLE duration ADD COLUMN voxels INTEGER`.execute(db);
    },
  },
];

/** A later step; it follows all existing ones. */
export const jobLimitMigrations: readonly Migration[] = [
  {
    name: 'jobs a day',
    async up(db) {
      await sql`CREATE TABLE created_on (
        owner TEXT NOT NULL,
        day INTEGER NOT NULL,
        jobs INTEGER NOT NULL,
        PRIMARY KEY (owner, day)
      ) STRICT`.execute(db);
    },
  },
];

export const receiptMigrations: readonly Migration[] = [
  {
    name: 'receipts',
    async up(db: Kysely<unknown>) {
      await sql`ALTER TABLE job ADD COLUMN receipt TEXT`.execute(db);
      await sql`ALTER TABLE job_input ADD COLUMN received TEXT`.execute(db);
    },
  },
];

export const geometryMigrations: readonly Migration[] = [
  {
    name: 'geometry of outputs',
    async up(db: Kysely<unknown>) {
      await sql`ALTER TABLE job_output ADD COLUMN geometry TEXT`.execute(db);
    },
  },
];

/** What the caller requested besides the files: kept with the job, deleted with it. */
export interface JobRequest {
  parameters: Record<string, unknown>;
  frame?: number;
  formats?: Record<string, OutputFormat>;
  /** First part of the results' file names: the name of the input without its extension. */
  stem: string;
  /** Voxels of the largest input, as its header says. */
  voxels?: number;
}

export interface InputFile {
  /** The input that it belongs to. */
  name: string;
  /** Only its extension has a meaning, and only that is kept. */
  fileName: string;
  digest: string;
  sizeBytes: number;
  /** SHA-256 as received, if identifying text was removed at intake. */
  received?: string;
}

export interface OutputFile {
  name: string;
  type: string;
  label: string;
  primary: boolean;
  format: OutputFormat;
  digest: string;
  sizeBytes: number;
  /** Of a label map: what the header of the input stated of their grid. */
  geometry?: FileGeometry;
}

export interface NewJob {
  service: string;
  owner: string;
  request: JobRequest;
  inputs: readonly InputFile[];
  idempotencyKey?: string;
  /** What makes two requests the same: compared where an idempotency key is used again. */
  fingerprint?: string;
  /** 0 (first) to 7 (last); 3 if missing. */
  urgency?: number;
  /** The limits of the owner. */
  limits?: JobLimits;
}

export interface JobLimits {
  /** Jobs that are not settled. */
  maxJobs?: number;
  /** Jobs created in a day, which begins at 00:00 UTC. */
  perDay?: number;
}

export type JobRecord = JobAtState & {
  id: string;
  service: string;
  owner: string;
  attempt: number;
  request: JobRequest;
  createdMs: number;
  outputs: OutputFile[];
};

/** What a job has besides, by its state; what it has in other states alone is undefined. */
type JobAtState =
  | AtState<{ state: 'queued' }>
  // Where it is, is known only while this server runs.
  | AtState<{ state: 'running'; startedMs: number; stage?: string; fraction?: number }>
  | AtState<{ state: 'succeeded'; startedMs: number } & JobEnd>
  | AtState<{ state: 'failed' | 'canceled'; startedMs?: number; error: ErrorData } & JobEnd>;
export interface JobEnd {
  settledMs: number;
  expiresMs: number;
}
type AtState<T> = T & { [name in Exclude<FieldOfState, keyof T>]?: undefined };
type FieldOfState = 'startedMs' | 'stage' | 'fraction' | 'error' | keyof JobEnd;

export interface ClaimedJob {
  id: string;
  service: string;
  attempt: number;
  request: JobRequest;
  inputs: InputFile[];
}

/** A job that has just been settled. */
export interface SettledJob {
  id: string;
  service: string;
  owner: string;
  request: JobRequest;
  state: (typeof settledStates)[number];
  error?: ErrorData;
  createdMs: number;
  startedMs?: number;
  settledMs: number;
  expiresMs: number;
  inputs: readonly InputFile[];
  outputs: readonly OutputFile[];
}

/** Receives the changes of jobs after they were committed, and writes their receipts. */
export interface JobWitness {
  accepted?(job: { id: string } & Pick<NewJob, 'service' | 'owner' | 'inputs'>): void;
  /** What the receipt says; kept and deleted with the job. */
  receiptOf?(job: SettledJob): object | undefined;
  settled?(job: SettledJob): void;
  removed?(job: { id: string; service: string; owner: string }, why: 'deleted' | 'expired'): void;
}

export interface JobsOptions {
  database: Database<JobsSchema>;
  blobs: Blobs;
  /** How long a settled job and its results are kept. */
  resultTtlMs: number;
  /** More than this many jobs waiting are refused (BUSY). */
  maxQueued: number;
  /** How long a remote worker may be silent before its job goes to another one; default 15 s. */
  leaseMs?: number;
  /** Most predictions of a service at a time; no limit if undefined. */
  concurrencyOf?(service: string): number | undefined;
  witness?: JobWitness;
  /** Wall clock, ms. */
  now?(): number;
  /** The clock by which settled jobs expire, ms; the wall clock if missing. */
  steadyMs?(): number;
  /** Clock of leases, ms: monotonic, independent of the wall clock. */
  monotonicMs?(): number;
}

/** A job is given up when the process that computed it, or the worker elsewhere, was lost this many times. */
const maxLosses = 3;
const durationsKept = 25;
/** From an unsynced claim to its being synced, if the job still runs. */
const claimSyncMs = 1000;
const dayMs = 86_400_000;
export const defaultUrgency = 3;

export type Jobs = ReturnType<typeof createJobs>;

export function createJobs({
  database,
  blobs,
  resultTtlMs,
  maxQueued,
  leaseMs = 15_000,
  concurrencyOf = () => undefined,
  witness = {},
  now = Date.now,
  steadyMs = now,
  monotonicMs = () => performance.now(),
}: JobsOptions) {
  const { db } = database;
  /**
   * Emits a job's id at each change of it, `queued` when there may be work, `queue` when positions change, `cancel` with an
   * id.
   */
  const events = new EventEmitter().setMaxListeners(0);
  const progress = new Map<string, { stage: string; fraction: number }>();
  /** Blobs of requests that are still being received, by digest: how many hold each. */
  const holds = new Map<string, number>();
  /** Others that may keep a blob, such as uploads. */
  const keepers: ((digest: string) => Promise<boolean>)[] = [];
  const queue = createJobQueue(concurrencyOf, now);
  const leases = createLeases(leaseMs, monotonicMs);
  let arrivals = 0;
  /** Owners of jobs that are about to be queued. */
  const creating = new Map<string, string>();
  let loading: Promise<void> | undefined;

  /** Fills the queue from the rows, once. */
  function load(): Promise<void> {
    loading ??= (async () => {
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
    })();
    return loading;
  }

  function enqueue(
    row: Pick<Selectable<JobTable>, 'id' | 'service' | 'owner' | 'created_ms' | 'attempt' | 'urgency'>,
  ): void {
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
    events.emit('queued');
    events.emit('queue');
  }

  /** A job has left the queue or has ended: others move up, and one that a service's limit held back may start. */
  function dequeue(id: string): void {
    leases.end(id);
    progress.delete(id);
    queue.remove(id);
    events.emit('queue');
    if (queue.length > 0) events.emit('queued');
  }

  function hold(digest: string): void {
    holds.set(digest, (holds.get(digest) ?? 0) + 1);
  }

  async function release(digests: Iterable<string>): Promise<void> {
    for (const digest of digests) {
      const count = (holds.get(digest) ?? 0) - 1;
      if (count > 0) holds.set(digest, count);
      else holds.delete(digest);
    }
    await drop(digests);
  }

  /** Deletes those blobs that nothing refers to any longer. */
  async function drop(digests: Iterable<string>): Promise<void> {
    for (const digest of new Set(digests)) await blobs.delete(digest, () => isHeld(digest));
  }

  async function isHeld(digest: string): Promise<boolean> {
    if (holds.has(digest)) return true;
    for (const keeps of keepers) if (await keeps(digest)) return true;
    const { rows } = await sql<{
      held: number;
    }>`SELECT EXISTS (SELECT 1 FROM job_input WHERE digest = ${digest})
      OR EXISTS (SELECT 1 FROM job_output WHERE digest = ${digest}) AS held`.execute(db);
    return rows[0].held !== 0;
  }

  function changed(id: string): void {
    events.emit(`job:${id}`);
  }

  /**
   * Throws BUSY when the queue is full; to be asked before the body of a request is read. Jobs of others do not keep out an
   * owner who has less than a fair share of the queue.
   */
  async function requireRoom(owner: string): Promise<void> {
    await load();
    requireRoomNow(owner);
  }

  function requireRoomNow(owner: string): void {
    const waiting = queue.length + creating.size;
    if (waiting < maxQueued) return;
    const counts = new Map<string, number>();
    for (const one of [...queue.ownersWaiting(), ...creating.values()]) addTo(counts, one, 1);
    if (mayHaveMore(counts, owner, maxQueued)) return;
    throw new TomaatError('BUSY', `${waiting} jobs are waiting already. Try again in a few minutes.`);
  }

  /** Throws LIMIT_REACHED when another job of this owner would be more than the limits allow. */
  async function requireLimits(
    owner: string,
    { maxJobs, perDay }: JobLimits = {},
    at: Kysely<JobsSchema> = db,
  ): Promise<void> {
    if (maxJobs !== undefined) {
      const { unsettled } = await at
        .selectFrom('job')
        .select((e) => e.fn.countAll<number>().as('unsettled'))
        .where('owner', '=', owner)
        .where('state', 'in', ['queued', 'running'])
        .executeTakeFirstOrThrow();
      if (unsettled >= maxJobs) {
        throw new TomaatError(
          'LIMIT_REACHED',
          `This key has ${unsettled} predictions in progress, and its limit is ${maxJobs}. Wait until one is done, or cancel one.`,
          { detail: { maxJobs, retryAfterSeconds: 10 } },
        );
      }
    }
    if (perDay !== undefined) {
      const day = Math.floor(now() / dayMs);
      const today = await at
        .selectFrom('created_on')
        .select('jobs')
        .where('owner', '=', owner)
        .where('day', '=', day)
        .executeTakeFirst();
      if ((today?.jobs ?? 0) >= perDay) {
        throw new TomaatError(
          'LIMIT_REACHED',
          `This key has reached its limit of ${perDay} predictions a day. The next day begins at 00:00 UTC.`,
          { detail: { perDay, retryAfterSeconds: Math.ceil(((day + 1) * dayMs - now()) / 1000) } },
        );
      }
    }
  }

  async function countOfDay(owner: string, trx: Kysely<JobsSchema>): Promise<void> {
    const day = Math.floor(now() / dayMs);
    await trx.deleteFrom('created_on').where('day', '<', day).execute();
    await trx
      .insertInto('created_on')
      .values({ owner, day, jobs: 1 })
      .onConflict((conflict) =>
        conflict.columns(['owner', 'day']).doUpdateSet((e) => ({ jobs: e('created_on.jobs', '+', 1) })),
      )
      .execute();
  }

  /**
   * Accepts a job: when this resolves it is on disk. BUSY when the queue is full, LIMIT_REACHED when the owner is at a
   * limit, CONFLICT on a key used for another request.
   */
  async function create(job: NewJob): Promise<{ id: string; existed: boolean }> {
    const id = randomBytes(16).toString('base64url');
    await load();
    const known = job.idempotencyKey === undefined ? undefined : await byKey(job);
    if (known) return sameRequest(known, job);
    // Nothing may run in between, or concurrent requests would all find the same free place.
    requireRoomNow(job.owner);
    creating.set(id, job.owner);
    const createdMs = now();
    const urgency = job.urgency ?? defaultUrgency;
    try {
      await database.transaction(async (trx) => {
        // Again, as others of this owner may have come in since its body began.
        await requireLimits(job.owner, job.limits, trx);
        if (job.limits?.perDay !== undefined) await countOfDay(job.owner, trx);
        await trx
          .insertInto('job')
          .values({
            id,
            service: job.service,
            state: 'queued',
            attempt: 0,
            owner: job.owner,
            request: JSON.stringify(job.request),
            idempotency_key: job.idempotencyKey ?? null,
            fingerprint: job.fingerprint ?? null,
            created_ms: createdMs,
            started_ms: null,
            settled_ms: null,
            expires_ms: null,
            error: null,
            urgency,
          })
          .execute();
        const inputs = job.inputs.map((input, position) => ({
          job: id,
          position,
          name: input.name,
          file_name: input.fileName,
          digest: input.digest,
          size_bytes: input.sizeBytes,
          received: input.received ?? null,
        }));
        if (inputs.length > 0) await trx.insertInto('job_input').values(inputs).execute();
      });
    } catch (error) {
      const existing =
        isUniqueViolation(error) && job.idempotencyKey !== undefined ? await byKey(job) : undefined;
      if (!existing) throw error;
      return sameRequest(existing, job);
    } finally {
      creating.delete(id);
    }
    witness.accepted?.({ id, service: job.service, owner: job.owner, inputs: job.inputs });
    enqueue({ id, service: job.service, owner: job.owner, urgency, created_ms: createdMs, attempt: 0 });
    return { id, existed: false };
  }

  function sameRequest(existing: { id: string; fingerprint: string | null }, job: NewJob) {
    if (existing.fingerprint === (job.fingerprint ?? null)) return { id: existing.id, existed: true };
    throw new TomaatError('CONFLICT', 'This Idempotency-Key was used for another request. Use a new key.', {
      field: 'Idempotency-Key',
    });
  }

  /** Whether this owner has used this idempotency key for a job that is still there. */
  async function isKnown(owner: string, idempotencyKey: string): Promise<boolean> {
    return (await byKey({ owner, idempotencyKey })) !== undefined;
  }

  function byKey(job: Pick<NewJob, 'owner' | 'idempotencyKey'>) {
    return db
      .selectFrom('job')
      .select(['id', 'fingerprint'])
      .where('owner', '=', job.owner)
      .where('idempotency_key', '=', job.idempotencyKey!)
      .executeTakeFirst();
  }

  async function get(id: string): Promise<JobRecord | undefined> {
    const row = await db.selectFrom('job').selectAll().where('id', '=', id).executeTakeFirst();
    if (!row) return undefined;
    const outputs =
      row.state === 'succeeded'
        ? await db.selectFrom('job_output').selectAll().where('job', '=', id).orderBy('position').execute()
        : [];
    return {
      id,
      service: row.service,
      owner: row.owner,
      attempt: row.attempt,
      request: JSON.parse(row.request),
      createdMs: row.created_ms,
      ...atState(row, progress.get(id)),
      outputs: outputs.map((output) => ({
        name: output.name,
        type: output.type,
        label: output.label,
        primary: output.is_primary === 1,
        format: output.format as OutputFormat,
        digest: output.digest,
        sizeBytes: output.size_bytes,
        ...(output.geometry !== null && { geometry: JSON.parse(output.geometry) as FileGeometry }),
      })),
    };
  }

  /** Jobs that are likely to be claimed before this one; undefined unless it is queued. */
  async function positionOf(id: string): Promise<number | undefined> {
    await load();
    return queue.positionOf(id);
  }

  /**
   * The next job of these services becomes running, with a new attempt number. With `worker`, the name of a worker
   * elsewhere, it does so under a lease: a worker that is silent for `leaseMs` loses the job.
   */
  async function claim(services: readonly string[], worker?: string): Promise<ClaimedJob | undefined> {
    await load();
    let row: Selectable<JobTable> | undefined;
    do {
      const next = queue.next(services);
      if (!next) return undefined;
      // Before the first await, so that no other slot takes the same one.
      const attempt = next.attempt + 1;
      queue.start(next.id, { service: next.service, owner: next.owner, attempt });
      try {
        const start = (at: Kysely<JobsSchema>) =>
          sql<Selectable<JobTable>>`UPDATE job
            SET state = 'running', attempt = ${attempt}, started_ms = ${now()}, worker = ${worker ?? null}
            WHERE id = ${next.id} AND state = 'queued' RETURNING *`.execute(at);
        // A power failure ends this process's own children too, so that it may take their claims back; a worker elsewhere
        // lives on, and its attempt must never be given to another. See syncClaim().
        const { rows } = await (worker === undefined ? database.unsynced(start) : start(db));
        row = rows[0];
      } catch (error) {
        queue.remove(next.id);
        queue.add(next);
        throw error;
      }
      // It was cancelled in between.
      if (!row) queue.remove(next.id);
    } while (!row);
    if (worker !== undefined) leases.begin(row.id);
    else {
      const { id, attempt } = row;
      setTimeout(() => void syncClaim(id, attempt), claimSyncMs).unref();
    }
    events.emit('queue');
    const inputs = await inputsOf(row.id);
    changed(row.id);
    return {
      id: row.id,
      service: row.service,
      attempt: row.attempt,
      request: JSON.parse(row.request),
      inputs,
    };
  }

  /** Makes a claim durable, because a job that brings down the whole machine must count as lost, too. */
  async function syncClaim(id: string, attempt: number): Promise<void> {
    if (queue.attemptOf(id) !== attempt) return;
    const same = sql<number>`attempt`;
    // If it cannot write, the end of the job will fail, too, and report it.
    await db
      .updateTable('job')
      .set({ attempt: same })
      .where('id', '=', id)
      .execute()
      .catch(() => {});
  }

  /** The input files of an unsettled job. */
  async function inputsOf(id: string): Promise<InputFile[]> {
    const rows = await db
      .selectFrom('job_input')
      .selectAll()
      .where('job', '=', id)
      .orderBy('position')
      .execute();
    return rows.map(toInputFile);
  }

  /** Whether this attempt was the one that the job succeeded with. */
  async function hasSucceeded(id: string, attempt: number): Promise<boolean> {
    const row = await db
      .selectFrom('job')
      .select(['state', 'attempt'])
      .where('id', '=', id)
      .executeTakeFirst();
    return row?.state === 'succeeded' && row.attempt === attempt;
  }

  /** Records the progress of an attempt and renews its lease; false if the job is no longer running this attempt. */
  function touch(id: string, attempt: number, at?: { stage: string; fraction: number }): boolean {
    if (queue.attemptOf(id) !== attempt) return false;
    leases.renew(id);
    const before = progress.get(id);
    if (at && (at.stage !== before?.stage || at.fraction !== before.fraction)) {
      progress.set(id, { stage: at.stage, fraction: at.fraction });
      changed(id);
    }
    return true;
  }

  /** Whether the job runs this attempt now. */
  const isRunning = (id: string, attempt: number): boolean => queue.attemptOf(id) === attempt;

  /**
   * Ends an attempt. False if the job is no longer running this attempt (cancelled, or claimed again):
   * then nothing is changed and the results are not the job's.
   */
  async function settle(
    id: string,
    attempt: number | undefined,
    outcome:
      | { state: 'succeeded'; outputs: readonly OutputFile[]; seconds: number }
      | { state: 'failed' | 'canceled'; error: ErrorData },
  ): Promise<boolean> {
    const settledMs = now();
    const expiresMs = steadyMs() + resultTtlMs;
    const settled = await database.transaction(async (trx) => {
      let update = trx
        .updateTable('job')
        .set({
          state: outcome.state,
          settled_ms: settledMs,
          expires_ms: expiresMs,
          error: outcome.state === 'succeeded' ? null : JSON.stringify(outcome.error),
        })
        .where('id', '=', id);
      // A cancel may come at any time before the end; a worker only for the attempt that it runs.
      update =
        attempt === undefined
          ? update.where('state', 'in', ['queued', 'running'])
          : update.where('state', '=', 'running').where('attempt', '=', attempt);
      const row = await update
        .returning(['service', 'owner', 'request', 'created_ms', 'started_ms'])
        .executeTakeFirst();
      if (row === undefined) return undefined;
      const inputs = await trx.deleteFrom('job_input').where('job', '=', id).returningAll().execute();
      const request = JSON.parse(row.request) as JobRequest;
      const job: SettledJob = {
        id,
        service: row.service,
        owner: row.owner,
        request,
        state: outcome.state,
        error: outcome.state === 'succeeded' ? undefined : outcome.error,
        createdMs: row.created_ms,
        startedMs: row.started_ms ?? undefined,
        settledMs,
        expiresMs,
        inputs: inputs.sort((a, b) => a.position - b.position).map(toInputFile),
        outputs: outcome.state === 'succeeded' ? outcome.outputs : [],
      };
      const receipt = witness.receiptOf?.(job);
      if (receipt) {
        await trx
          .updateTable('job')
          .set({ receipt: JSON.stringify(receipt) })
          .where('id', '=', id)
          .execute();
      }
      if (outcome.state === 'succeeded') {
        const rows = outcome.outputs.map((output, position) => ({
          job: id,
          attempt: attempt!,
          position,
          name: output.name,
          type: output.type,
          label: output.label,
          is_primary: output.primary ? 1 : 0,
          format: output.format,
          digest: output.digest,
          size_bytes: output.sizeBytes,
          geometry: output.geometry ? JSON.stringify(output.geometry) : null,
        }));
        if (rows.length > 0) await trx.insertInto('job_output').values(rows).execute();
        const { service } = row;
        const { voxels = null } = request;
        await trx.insertInto('duration').values({ service, seconds: outcome.seconds, voxels }).execute();
        await sql`DELETE FROM duration WHERE service = ${service} AND id <=
          (SELECT id FROM duration WHERE service = ${service} ORDER BY id DESC LIMIT 1 OFFSET ${durationsKept})`.execute(
          trx,
        );
      }
      return job;
    });
    if (!settled) return false;
    witness.settled?.(settled);
    dequeue(id);
    if (outcome.state === 'canceled') events.emit('cancel', id);
    changed(id);
    await drop(settled.inputs.map((input) => input.digest));
    return true;
  }

  /** Ends a queued or running job as cancelled; false if it was settled already. */
  function cancel(id: string, message = 'The job was cancelled.'): Promise<boolean> {
    return settle(id, undefined, { state: 'canceled', error: { code: 'CANCELED', message } });
  }

  /** Deletes a settled job with its results; false if it does not exist. */
  async function remove(id: string, why: 'deleted' | 'expired' = 'deleted'): Promise<boolean> {
    const removed = await database.transaction(async (trx) => {
      const outputs = await trx.selectFrom('job_output').select('digest').where('job', '=', id).execute();
      const row = await trx
        .deleteFrom('job')
        .where('id', '=', id)
        .where('state', 'not in', ['queued', 'running'])
        .returning(['service', 'owner'])
        .executeTakeFirst();
      return row && { ...row, digests: outputs.map((output) => output.digest) };
    });
    if (!removed) return false;
    witness.removed?.({ id, service: removed.service, owner: removed.owner }, why);
    changed(id);
    await drop(removed.digests);
    return true;
  }

  /** Deletes the results of a settled job; the job and its receipt live on until they expire. */
  async function dropOutputs(id: string): Promise<void> {
    const rows = await db.deleteFrom('job_output').where('job', '=', id).returning('digest').execute();
    changed(id);
    await drop(rows.map(({ digest }) => digest));
  }

  /** Ids of all jobs of an owner, in every state. */
  async function idsOf(owner: string): Promise<string[]> {
    const rows = await db.selectFrom('job').select('id').where('owner', '=', owner).execute();
    return rows.map(({ id }) => id);
  }

  /** The content of the receipt of a settled job; undefined if the job is not settled. */
  async function receipt(id: string): Promise<object | undefined> {
    const row = await db.selectFrom('job').select('receipt').where('id', '=', id).executeTakeFirst();
    return row?.receipt ? (JSON.parse(row.receipt) as object) : undefined;
  }

  /** Deletes what has expired and empties the log of the database, so that nothing of it is left on the disk. */
  async function sweep(): Promise<number> {
    const expired = await db.selectFrom('job').select('id').where('expires_ms', '<=', steadyMs()).execute();
    for (const { id } of expired) await remove(id, 'expired');
    await database.truncateWal().catch((error: unknown) => {
      if (!(error instanceof TomaatError && error.code === 'BUSY')) throw error;
    });
    return expired.length;
  }

  /**
   * A running attempt goes back to the queue: `lost` when the process that computed it was (a third time fails the job),
   * `handed back` when it is not at fault. Undefined if the job was no longer running this attempt.
   */
  async function requeue(
    id: string,
    attempt: number,
    why: 'lost' | 'handed back',
  ): Promise<'queued' | 'failed' | undefined> {
    const losses = why === 'lost' ? 1 : 0;
    const { rows } = await sql<Selectable<JobTable>>`UPDATE job
      SET state = 'queued', started_ms = NULL, worker = NULL, lost = lost + ${losses}
      WHERE id = ${id} AND state = 'running' AND attempt = ${attempt} AND lost + ${losses} < ${maxLosses} RETURNING *`.execute(
      db,
    );
    if (rows.length > 0) {
      leases.end(id);
      progress.delete(id);
      enqueue(rows[0]);
      changed(id);
      return 'queued';
    }
    if (losses === 0) return undefined;
    const message = `The process that computed this job was lost ${maxLosses} times, so the job is not tried again. Send a smaller volume, or ask the operator: the server’s log says more.`;
    const failed = await settle(id, attempt, { state: 'failed', error: { code: 'WORKER_DIED', message } });
    return failed ? 'failed' : undefined;
  }

  /** Takes back the jobs whose workers have been silent too long; returns their ids. */
  async function lapse(): Promise<string[]> {
    const lapsed = leases.takeLapsed();
    for (const { id, heard } of lapsed) {
      const attempt = queue.attemptOf(id);
      // A worker that gave up while this server was down does not count against the job.
      if (attempt !== undefined) await requeue(id, attempt, heard ? 'lost' : 'handed back');
    }
    return lapsed.map(({ id }) => id);
  }

  /**
   * After a crash: what ran in this process is queued again (or failed, when its own child was lost too often:
   * `lostChild`), what workers elsewhere run stays theirs for a lease, and blobs that belong to nothing are deleted.
   * Unsettled jobs of other services than the ones that are served now fail with NOT_FOUND: nobody would ever claim them.
   */
  async function recover(
    services: readonly string[],
    lostChild: (job: { id: string; attempt: number }) => boolean = () => true,
  ): Promise<{ requeued: number; failed: number; orphans: number }> {
    await load();
    let requeued = 0;
    let failed = 0;
    let unserved = db.selectFrom('job').select(['id', 'service']).where('state', 'in', ['queued', 'running']);
    if (services.length > 0) unserved = unserved.where('service', 'not in', [...services]);
    for (const { id, service } of await unserved.execute()) {
      const message = `The service ${service} is no longer offered here. GET /api/services lists the available ones.`;
      if (await settle(id, undefined, { state: 'failed', error: { code: 'NOT_FOUND', message } })) failed++;
    }
    for (const [id, { attempt }] of [...queue.running()]) {
      if (leases.has(id)) continue;
      const why = lostChild({ id, attempt }) ? 'lost' : 'handed back';
      if ((await requeue(id, attempt, why)) === 'queued') requeued++;
      else failed++;
    }
    let orphans = await blobs.sweepTemporary();
    // In one query, because startup waits for it; the few that belong to no job are queried one by one.
    const ofJobs = await sql<{
      digest: string;
    }>`SELECT digest FROM job_input UNION SELECT digest FROM job_output`.execute(db);
    const held = new Set(ofJobs.rows.map(({ digest }) => digest));
    for await (const digest of blobs.digests())
      if (!held.has(digest) && (await blobs.delete(digest, () => isHeld(digest)))) orphans++;
    return { requeued, failed, orphans };
  }

  /** Median seconds of the service's last predictions. */
  async function typicalSeconds(service: string): Promise<number | undefined> {
    return median((await durations(service)).map(({ seconds }) => seconds));
  }

  /** Seconds that a prediction on so many voxels may take, from those of the service's last ones. */
  async function expectedSeconds(service: string, voxels: number): Promise<number | undefined> {
    const known = await durations(service);
    const rates = known.flatMap((one) => (one.voxels ? [(one.seconds / one.voxels) * voxels] : []));
    return (voxels > 0 ? median(rates) : undefined) ?? median(known.map(({ seconds }) => seconds));
  }

  function durations(service: string) {
    return db.selectFrom('duration').select(['seconds', 'voxels']).where('service', '=', service).execute();
  }

  /**
   * Seconds until a queued job, or one that came now, may start if `slots` predictions run at a time; undefined without a
   * history.
   */
  async function expectedWaitSeconds(
    id: string | undefined,
    service: string,
    slots: number,
  ): Promise<number | undefined> {
    const position = id === undefined ? queue.length : await positionOf(id);
    const each = position === undefined ? undefined : await typicalSeconds(service);
    return each === undefined ? undefined : ((position ?? 0) / Math.max(1, slots)) * each;
  }

  async function counts(): Promise<Partial<Record<JobState, number>>> {
    const rows = await db
      .selectFrom('job')
      .select(['state', (e) => e.fn.countAll<number>().as('count')])
      .groupBy('state')
      .execute();
    return Object.fromEntries(rows.map((row) => [row.state, row.count]));
  }

  /** Calls `listener` at each change of the job; returns how to stop that. */
  function watch(id: string, listener: () => void): () => void {
    events.on(`job:${id}`, listener);
    return () => events.off(`job:${id}`, listener);
  }

  function on(event: 'queued' | 'queue' | 'cancel', listener: (id: string) => void): () => void {
    events.on(event, listener);
    return () => events.off(event, listener);
  }

  /** Resolves with the job once it is settled (or undefined if it was deleted); rejects when `signal` aborts. */
  async function settled(id: string, signal?: AbortSignal): Promise<JobRecord | undefined> {
    for (;;) {
      signal?.throwIfAborted();
      let wake = () => {};
      const change = new Promise<void>((resolve) => {
        wake = resolve;
      });
      const unwatch = watch(id, wake);
      signal?.addEventListener('abort', wake);
      try {
        const job = await get(id);
        if (!job || isSettled(job)) return job;
        await change;
      } finally {
        unwatch();
        signal?.removeEventListener('abort', wake);
      }
    }
  }

  return {
    leaseMs,
    requireRoom,
    requireLimits,
    isKnown,
    create,
    get,
    positionOf,
    claim,
    touch,
    isRunning,
    inputsOf,
    hasSucceeded,
    settle,
    requeue,
    lapse,
    cancel,
    remove,
    dropOutputs,
    idsOf,
    receipt,
    sweep,
    recover,
    typicalSeconds,
    expectedSeconds,
    expectedWaitSeconds,
    counts,
    keepAlso: (keeps: (digest: string) => Promise<boolean>) => void keepers.push(keeps),
    isHeld,
    drop,
    watch,
    on,
    settled,
    hold,
    release,
  };
}

/** What a job of the row's state has; the columns of a state are written together with it. */
function atState(row: Selectable<JobTable>, progress?: { stage: string; fraction: number }): JobAtState {
  const { state } = row;
  if (state === 'queued') return { state };
  if (state === 'running') return { state, startedMs: row.started_ms!, ...progress };
  const settled = { settledMs: row.settled_ms!, expiresMs: row.expires_ms! };
  if (state === 'succeeded') return { state, startedMs: row.started_ms!, ...settled, error: undefined };
  return { state, startedMs: row.started_ms ?? undefined, ...settled, error: JSON.parse(row.error!) };
}

function toInputFile(row: Selectable<JobsSchema['job_input']>): InputFile {
  return {
    name: row.name,
    fileName: row.file_name,
    digest: row.digest,
    sizeBytes: row.size_bytes,
    ...(row.received !== null && { received: row.received }),
  };
}

/** The middle value, the upper of two; undefined of none. */
function median(values: readonly number[]): number | undefined {
  return [...values].sort((a, b) => a - b)[values.length >> 1];
}
