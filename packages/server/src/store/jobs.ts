import { randomBytes } from 'node:crypto';
import { EventEmitter } from 'node:events';
import { type JobState, jobStates } from '@tomaat/client';
import { type ErrorData, type OutputFormat, TomaatError } from '@tomaat/core';
import { type Generated, type Kysely, sql } from 'kysely';
import type { Blobs } from './blobs.ts';
import { type Database, isUniqueViolation, type Migration } from './database.ts';

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
  };
  /** How long predictions took here: what is told to those who wait. */
  duration: { id: Generated<number>; service: string; seconds: number };
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
];

/** What the caller asked for beside the files: kept with the job, deleted with it. */
export interface JobRequest {
  parameters: Record<string, unknown>;
  frame?: number;
  formats?: Record<string, OutputFormat>;
  /** First part of the results' file names: the name of the input without its extension. */
  stem: string;
}

export interface InputFile {
  /** The input that it belongs to. */
  name: string;
  /** Only its extension has a meaning, and only that is kept. */
  fileName: string;
  digest: string;
  sizeBytes: number;
}

export interface OutputFile {
  name: string;
  type: string;
  label: string;
  primary: boolean;
  format: OutputFormat;
  digest: string;
  sizeBytes: number;
}

export interface NewJob {
  service: string;
  owner: string;
  request: JobRequest;
  inputs: readonly InputFile[];
  idempotencyKey?: string;
  /** What makes two requests the same: compared where an idempotency key is used again. */
  fingerprint?: string;
}

export interface JobRecord {
  id: string;
  service: string;
  owner: string;
  state: JobState;
  attempt: number;
  request: JobRequest;
  createdMs: number;
  startedMs?: number;
  settledMs?: number;
  expiresMs?: number;
  error?: ErrorData;
  outputs: OutputFile[];
  /** Known only while this server runs: where a running job is. */
  stage?: string;
  fraction?: number;
}

export interface ClaimedJob {
  id: string;
  service: string;
  attempt: number;
  request: JobRequest;
  inputs: InputFile[];
}

export interface JobsOptions {
  database: Database<JobsSchema>;
  blobs: Blobs;
  /** How long a settled job and its results are kept. */
  resultTtlMs: number;
  /** More than this many jobs waiting are refused (BUSY). */
  maxQueued: number;
  now?(): number;
}

/** Attempts that a job may take when the server dies under it. */
const maxAttempts = 3;
const durationsKept = 25;

export type Jobs = ReturnType<typeof createJobs>;

export function createJobs({ database, blobs, resultTtlMs, maxQueued, now = Date.now }: JobsOptions) {
  const { db } = database;
  /** Emits a job's id at each change of it, `queued` when there is work, `cancel` with an id. */
  const events = new EventEmitter().setMaxListeners(0);
  const progress = new Map<string, { stage: string; fraction: number }>();
  /** Blobs of requests that are still being received, by digest: how many hold each. */
  const holds = new Map<string, number>();

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

  /** Deletes those blobs that nothing holds any more. */
  async function drop(digests: Iterable<string>): Promise<void> {
    for (const digest of new Set(digests)) await blobs.delete(digest, () => isHeld(digest));
  }

  async function isHeld(digest: string): Promise<boolean> {
    if (holds.has(digest)) return true;
    const { rows } = await sql<{
      held: number;
    }>`SELECT EXISTS (SELECT 1 FROM job_input WHERE digest = ${digest})
      OR EXISTS (SELECT 1 FROM job_output WHERE digest = ${digest}) AS held`.execute(db);
    return rows[0].held !== 0;
  }

  function changed(id: string): void {
    events.emit(`job:${id}`);
  }

  /** Accepts a job: when this resolves it is on disk. BUSY when the queue is full, CONFLICT on a key used for another request. */
  async function create(job: NewJob): Promise<{ id: string; existed: boolean }> {
    const id = randomBytes(16).toString('base64url');
    try {
      await database.transaction(async (trx) => {
        const { count } = await trx
          .selectFrom('job')
          .select((e) => e.fn.countAll<number>().as('count'))
          .where('state', '=', 'queued')
          .executeTakeFirstOrThrow();
        if (count >= maxQueued) {
          throw new TomaatError('BUSY', `${count} jobs are waiting already. Try again in a few minutes.`);
        }
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
            created_ms: now(),
            started_ms: null,
            settled_ms: null,
            expires_ms: null,
            error: null,
          })
          .execute();
        const inputs = job.inputs.map((input, position) => ({
          job: id,
          position,
          name: input.name,
          file_name: input.fileName,
          digest: input.digest,
          size_bytes: input.sizeBytes,
        }));
        if (inputs.length > 0) await trx.insertInto('job_input').values(inputs).execute();
      });
    } catch (error) {
      const existing =
        isUniqueViolation(error) && job.idempotencyKey !== undefined ? await byKey(job) : undefined;
      if (!existing) throw error;
      if (existing.fingerprint !== (job.fingerprint ?? null)) {
        throw new TomaatError(
          'CONFLICT',
          'This Idempotency-Key was used for another request. Use a new key.',
          {
            field: 'Idempotency-Key',
          },
        );
      }
      return { id: existing.id, existed: true };
    }
    events.emit('queued');
    return { id, existed: false };
  }

  function byKey(job: NewJob) {
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
      state: row.state,
      attempt: row.attempt,
      request: JSON.parse(row.request),
      createdMs: row.created_ms,
      startedMs: row.started_ms ?? undefined,
      settledMs: row.settled_ms ?? undefined,
      expiresMs: row.expires_ms ?? undefined,
      error: row.error ? JSON.parse(row.error) : undefined,
      outputs: outputs.map((output) => ({
        name: output.name,
        type: output.type,
        label: output.label,
        primary: output.is_primary === 1,
        format: output.format as OutputFormat,
        digest: output.digest,
        sizeBytes: output.size_bytes,
      })),
      ...(row.state === 'running' ? progress.get(id) : undefined),
    };
  }

  /** Jobs that will be claimed before this one; undefined unless it is queued. */
  async function positionOf(id: string): Promise<number | undefined> {
    const { rows } = await sql<{ position: number | null }>`SELECT (SELECT COUNT(*) FROM job AS other
      WHERE other.state = 'queued' AND (other.created_ms, other.rowid) < (job.created_ms, job.rowid)) AS position
      FROM job WHERE id = ${id} AND state = 'queued'`.execute(db);
    return rows[0]?.position ?? undefined;
  }

  /** The oldest queued job of these services becomes running, with a new attempt number. */
  async function claim(services: readonly string[]): Promise<ClaimedJob | undefined> {
    const { rows } =
      await sql<JobTable>`UPDATE job SET state = 'running', attempt = attempt + 1, started_ms = ${now()}
      WHERE id = (SELECT id FROM job WHERE state = 'queued' AND service IN (${sql.join(services)})
        ORDER BY created_ms, rowid LIMIT 1) RETURNING *`.execute(db);
    const row = rows[0];
    if (!row) return undefined;
    const inputs = await db
      .selectFrom('job_input')
      .selectAll()
      .where('job', '=', row.id)
      .orderBy('position')
      .execute();
    changed(row.id);
    return {
      id: row.id,
      service: row.service,
      attempt: row.attempt,
      request: JSON.parse(row.request),
      inputs: inputs.map((input) => ({
        name: input.name,
        fileName: input.file_name,
        digest: input.digest,
        sizeBytes: input.size_bytes,
      })),
    };
  }

  function touch(id: string, stage: string, fraction: number): void {
    progress.set(id, { stage, fraction });
    changed(id);
  }

  /**
   * Ends an attempt. False when the job is not running this attempt any more (cancelled, or claimed anew):
   * then nothing is changed and the results are not the job's.
   */
  async function settle(
    id: string,
    attempt: number | undefined,
    outcome:
      | { state: 'succeeded'; outputs: readonly OutputFile[]; seconds: number }
      | { state: 'failed' | 'canceled'; error: ErrorData },
  ): Promise<boolean> {
    const digests = await database.transaction(async (trx) => {
      const settledMs = now();
      let update = trx
        .updateTable('job')
        .set({
          state: outcome.state,
          settled_ms: settledMs,
          expires_ms: settledMs + resultTtlMs,
          error: outcome.state === 'succeeded' ? null : JSON.stringify(outcome.error),
        })
        .where('id', '=', id);
      // A cancel may come at any time before the end; a worker only for the attempt that it runs.
      update =
        attempt === undefined
          ? update.where('state', 'in', ['queued', 'running'])
          : update.where('state', '=', 'running').where('attempt', '=', attempt);
      const { numUpdatedRows } = await update.executeTakeFirst();
      if (numUpdatedRows === 0n) return undefined;
      const inputs = await trx.deleteFrom('job_input').where('job', '=', id).returning('digest').execute();
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
        }));
        if (rows.length > 0) await trx.insertInto('job_output').values(rows).execute();
        const { service } = await trx
          .selectFrom('job')
          .select('service')
          .where('id', '=', id)
          .executeTakeFirstOrThrow();
        await trx.insertInto('duration').values({ service, seconds: outcome.seconds }).execute();
        await sql`DELETE FROM duration WHERE service = ${service} AND id NOT IN
          (SELECT id FROM duration WHERE service = ${service} ORDER BY id DESC LIMIT ${durationsKept})`.execute(
          trx,
        );
      }
      return inputs.map((input) => input.digest);
    });
    if (!digests) return false;
    progress.delete(id);
    if (outcome.state === 'canceled') events.emit('cancel', id);
    changed(id);
    await drop(digests);
    return true;
  }

  /** Ends a queued or running job as cancelled; false if it was settled already. */
  function cancel(id: string, message = 'The job was cancelled.'): Promise<boolean> {
    return settle(id, undefined, { state: 'canceled', error: { code: 'CANCELED', message } });
  }

  /** Deletes a settled job with its results; false if there is none. */
  async function remove(id: string): Promise<boolean> {
    const digests = await database.transaction(async (trx) => {
      const outputs = await trx.selectFrom('job_output').select('digest').where('job', '=', id).execute();
      const { numDeletedRows } = await trx
        .deleteFrom('job')
        .where('id', '=', id)
        .where('state', 'not in', ['queued', 'running'])
        .executeTakeFirst();
      return numDeletedRows > 0n ? outputs.map((output) => output.digest) : undefined;
    });
    if (!digests) return false;
    changed(id);
    await drop(digests);
    return true;
  }

  /** Deletes what has expired and empties the log of the database, so that nothing of it is left on the disk. */
  async function sweep(): Promise<number> {
    const expired = await db.selectFrom('job').select('id').where('expires_ms', '<=', now()).execute();
    for (const { id } of expired) await remove(id);
    await database.truncateWal().catch((error: unknown) => {
      if (!(error instanceof TomaatError && error.code === 'BUSY')) throw error;
    });
    return expired.length;
  }

  /**
   * After a crash: what was running is queued again (or failed, when it took the server down too often), and
   * blobs that belong to nothing are deleted.
   */
  async function recover(): Promise<{ requeued: number; failed: number; orphans: number }> {
    const running = await db
      .selectFrom('job')
      .select(['id', 'attempt'])
      .where('state', '=', 'running')
      .execute();
    let failed = 0;
    for (const { id, attempt } of running) {
      if (attempt < maxAttempts) {
        await db.updateTable('job').set({ state: 'queued', started_ms: null }).where('id', '=', id).execute();
        continue;
      }
      failed++;
      const message = `The server stopped ${attempt} times while this job ran, so it was not tried again.`;
      await settle(id, attempt, { state: 'failed', error: { code: 'WORKER_DIED', message } });
    }
    let orphans = await blobs.sweepTemporary();
    for await (const { digest } of blobs.list())
      if (await blobs.delete(digest, () => isHeld(digest))) orphans++;
    if (running.length > failed) events.emit('queued');
    return { requeued: running.length - failed, failed, orphans };
  }

  /** Median seconds of the service's last predictions. */
  async function typicalSeconds(service: string): Promise<number | undefined> {
    const rows = await db
      .selectFrom('duration')
      .select('seconds')
      .where('service', '=', service)
      .orderBy('seconds')
      .execute();
    return rows[rows.length >> 1]?.seconds;
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

  function on(event: 'queued' | 'cancel', listener: (id: string) => void): () => void {
    events.on(event, listener);
    return () => events.off(event, listener);
  }

  /** Resolves with the job once it is settled (or undefined when it is gone); rejects when `signal` aborts. */
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
        if (!job || (job.state !== 'queued' && job.state !== 'running')) return job;
        await change;
      } finally {
        unwatch();
        signal?.removeEventListener('abort', wake);
      }
    }
  }

  return {
    create,
    get,
    positionOf,
    claim,
    touch,
    settle,
    cancel,
    remove,
    sweep,
    recover,
    typicalSeconds,
    counts,
    watch,
    on,
    settled,
    hold,
    release,
  };
}
