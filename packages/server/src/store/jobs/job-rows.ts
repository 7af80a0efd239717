import type { JobState } from '@tomaat/client';
import type { ErrorData, FileGeometry, OutputFormat } from '@tomaat/core';
import { type Kysely, type Selectable, sql } from 'kysely';
import type { JobRow, JobsSchema } from '../database/job-schema.ts';
import type {
  InputFile,
  JobAtState,
  JobRecord,
  JobRequest,
  NewJob,
  OutputFile,
  SettledJob,
} from './job-records.ts';

/**
 * The rows of jobs: every statement that reads or changes them, except those of limits, durations and blobs. `jobs.ts`
 * decides which of them form one transaction.
 */

type Db = Kysely<JobsSchema>;

export type Outcome =
  | {
      state: 'succeeded';
      outputs: readonly OutputFile[];
      seconds: number;
      device?: string;
      rewrites?: readonly string[];
    }
  | { state: 'failed' | 'canceled'; error: ErrorData };

/** @throws the violation of the unique index if the owner has already used the idempotency key. */
export async function insertJob(
  trx: Db,
  job: NewJob,
  { id, createdMs, urgency }: { id: string; createdMs: number; urgency: number },
): Promise<void> {
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
}

/** The job of this owner that was created with this idempotency key and still exists. */
export function findByKey(db: Db, owner: string, idempotencyKey: string) {
  return db
    .selectFrom('job')
    .select(['id', 'fingerprint'])
    .where('owner', '=', owner)
    .where('idempotency_key', '=', idempotencyKey)
    .executeTakeFirst();
}

export async function readJob(db: Db, id: string): Promise<JobRecord | undefined> {
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
    ...atState(row),
    outputs: toOutputFiles(outputs),
  };
}

function toOutputFiles(rows: readonly Selectable<JobsSchema['job_output']>[]): OutputFile[] {
  const fileOf = ({ format, digest, size_bytes }: (typeof rows)[number]) => ({
    format: format as OutputFormat,
    digest,
    sizeBytes: size_bytes,
  });
  const kept = new Map(rows.flatMap((row) => (row.kept_for === null ? [] : [[row.kept_for, fileOf(row)]])));
  return rows
    .filter((row) => row.kept_for === null)
    .map((row) => ({
      name: row.name,
      type: row.type,
      label: row.label,
      primary: row.is_primary === 1,
      ...fileOf(row),
      ...(row.geometry !== null && { geometry: JSON.parse(row.geometry) as FileGeometry }),
      ...(kept.has(row.name) && { kept: kept.get(row.name) }),
    }));
}

/** The fields that belong to the row's state; the columns of a state are written together with it. */
function atState(row: JobRow): JobAtState {
  const { state } = row;
  if (state === 'queued') return { state };
  if (state === 'running') {
    const at = row.stage === null ? {} : { stage: row.stage, fraction: row.fraction ?? 0 };
    return { state, startedMs: row.started_ms!, ...at };
  }
  const settled = { settledMs: row.settled_ms!, expiresMs: row.expires_ms! };
  if (state === 'succeeded') return { state, startedMs: row.started_ms!, ...settled, error: undefined };
  return { state, startedMs: row.started_ms ?? undefined, ...settled, error: JSON.parse(row.error!) };
}

/** The input files of an unsettled job. */
export async function readInputs(db: Db, id: string): Promise<InputFile[]> {
  const rows = await db
    .selectFrom('job_input')
    .selectAll()
    .where('job', '=', id)
    .orderBy('position')
    .execute();
  return rows.map(toInputFile);
}

/** Whether the job succeeded with this attempt. */
export async function hasSucceeded(db: Db, id: string, attempt: number): Promise<boolean> {
  const row = await db.selectFrom('job').select(['state', 'attempt']).where('id', '=', id).executeTakeFirst();
  return row?.state === 'succeeded' && row.attempt === attempt;
}

/** The content of the receipt of a settled job; undefined if the job is not settled. */
export async function readReceipt(db: Db, id: string): Promise<object | undefined> {
  const row = await db.selectFrom('job').select('receipt').where('id', '=', id).executeTakeFirst();
  return row?.receipt ? (JSON.parse(row.receipt) as object) : undefined;
}

/** Ids of all jobs of an owner, in every state. */
export async function idsOf(db: Db, owner: string): Promise<string[]> {
  const rows = await db.selectFrom('job').select('id').where('owner', '=', owner).execute();
  return rows.map(({ id }) => id);
}

export async function expiredIds(db: Db, atMs: number): Promise<string[]> {
  const rows = await db.selectFrom('job').select('id').where('expires_ms', '<=', atMs).execute();
  return rows.map(({ id }) => id);
}

/** A settled job expires later, if it is still there; false if it does not exist or is not settled. */
export async function postponeExpiry(db: Db, id: string, expiresMs: number): Promise<boolean> {
  const { numUpdatedRows } = await db
    .updateTable('job')
    .set({ expires_ms: expiresMs })
    .where('id', '=', id)
    .where('expires_ms', '<', expiresMs)
    .executeTakeFirst();
  return numUpdatedRows > 0n;
}

/** Unsettled jobs of other services than these. */
export function findUnserved(
  db: Db,
  services: readonly string[],
): Promise<{ id: string; service: string }[]> {
  let query = db.selectFrom('job').select(['id', 'service']).where('state', 'in', ['queued', 'running']);
  if (services.length > 0) query = query.where('service', 'not in', [...services]);
  return query.execute();
}

export async function countByState(db: Db): Promise<Partial<Record<JobState, number>>> {
  const rows = await db
    .selectFrom('job')
    .select(['state', (e) => e.fn.countAll<number>().as('count')])
    .groupBy('state')
    .execute();
  return Object.fromEntries(rows.map((row) => [row.state, row.count]));
}

/** How many jobs of each service wait, and how many run; services without any are missing. */
export async function countUnsettled(
  db: Db,
): Promise<{ service: string; state: 'queued' | 'running'; count: number }[]> {
  const rows = await db
    .selectFrom('job')
    .where('state', 'in', ['queued', 'running'])
    .select(['service', 'state', (e) => e.fn.countAll<number>().as('count')])
    .groupBy(['service', 'state'])
    .execute();
  return rows as { service: string; state: 'queued' | 'running'; count: number }[];
}

/** A queued job becomes running; undefined if it is no longer queued. */
export async function startAttempt(
  db: Db,
  { id, attempt, startedMs, worker }: { id: string; attempt: number; startedMs: number; worker?: string },
): Promise<JobRow | undefined> {
  const { rows } = await sql<JobRow>`UPDATE job
    SET state = 'running', attempt = ${attempt}, started_ms = ${startedMs}, worker = ${worker ?? null}
    WHERE id = ${id} AND state = 'queued' RETURNING *`.execute(db);
  return rows[0];
}

/** Rewrites a row unchanged, so that earlier unsynced writes to it become durable too. */
export async function rewriteJob(db: Db, id: string): Promise<void> {
  await db.updateTable('job').set({ attempt: sql<number>`attempt` }).where('id', '=', id).execute();
}

/** A running attempt is queued again; undefined if it is not running, or the job would be lost `maxLosses` times. */
export async function requeueAttempt(
  db: Db,
  { id, attempt, losses, maxLosses }: { id: string; attempt: number; losses: number; maxLosses: number },
): Promise<JobRow | undefined> {
  const { rows } = await sql<JobRow>`UPDATE job
    SET state = 'queued', started_ms = NULL, worker = NULL, lost = lost + ${losses},
      stage = NULL, fraction = NULL, lease_until_ms = NULL
    WHERE id = ${id} AND state = 'running' AND attempt = ${attempt} AND lost + ${losses} < ${maxLosses} RETURNING *`.execute(
    db,
  );
  return rows[0];
}

/**
 * A job is settled and releases its inputs; undefined if it is not running this attempt. Without an attempt it
 * may also be queued.
 */
export async function settleJob(
  trx: Db,
  {
    id,
    attempt,
    settledMs,
    expiresMs,
  }: { id: string; attempt?: number; settledMs: number; expiresMs: number },
  outcome: Outcome,
): Promise<SettledJob | undefined> {
  let update = trx
    .updateTable('job')
    .set({
      state: outcome.state,
      settled_ms: settledMs,
      expires_ms: expiresMs,
      error: outcome.state === 'succeeded' ? null : JSON.stringify(outcome.error),
    })
    .where('id', '=', id);
  // A cancel may arrive at any time before the end; a worker's result only for the attempt that it runs.
  update =
    attempt === undefined
      ? update.where('state', 'in', ['queued', 'running'])
      : update.where('state', '=', 'running').where('attempt', '=', attempt);
  const row = await update
    .returning(['service', 'owner', 'request', 'created_ms', 'started_ms'])
    .executeTakeFirst();
  if (row === undefined) return undefined;
  const inputs = await trx.deleteFrom('job_input').where('job', '=', id).returningAll().execute();
  return {
    id,
    service: row.service,
    owner: row.owner,
    request: JSON.parse(row.request) as JobRequest,
    state: outcome.state,
    error: outcome.state === 'succeeded' ? undefined : outcome.error,
    createdMs: row.created_ms,
    startedMs: row.started_ms ?? undefined,
    settledMs,
    expiresMs,
    inputs: inputs.sort((a, b) => a.position - b.position).map(toInputFile),
    outputs: outcome.state === 'succeeded' ? outcome.outputs : [],
    rewrites: outcome.state === 'succeeded' ? (outcome.rewrites ?? []) : [],
    device: outcome.state === 'succeeded' ? outcome.device : undefined,
  };
}

export async function writeReceipt(trx: Db, id: string, receipt: object): Promise<void> {
  await trx
    .updateTable('job')
    .set({ receipt: JSON.stringify(receipt) })
    .where('id', '=', id)
    .execute();
}

export async function insertOutputs(
  trx: Db,
  { id, attempt }: { id: string; attempt: number },
  outputs: readonly OutputFile[],
): Promise<void> {
  const files = outputs.flatMap((output) => [
    { ...output, keptFor: null },
    // No output has a point in its name.
    ...(output.kept
      ? [
          {
            ...output,
            ...output.kept,
            name: `${output.name}.kept`,
            geometry: undefined,
            primary: false,
            keptFor: output.name,
          },
        ]
      : []),
  ]);
  const rows = files.map((file, position) => ({
    job: id,
    attempt,
    position,
    name: file.name,
    type: file.type,
    label: file.label,
    is_primary: file.primary ? 1 : 0,
    format: file.format,
    digest: file.digest,
    size_bytes: file.sizeBytes,
    geometry: file.geometry ? JSON.stringify(file.geometry) : null,
    kept_for: file.keptFor,
  }));
  if (rows.length > 0) await trx.insertInto('job_output').values(rows).execute();
}

/** Deletes the outputs of a job and returns the digests of their blobs. */
export async function deleteOutputs(db: Db, id: string): Promise<string[]> {
  const rows = await db.deleteFrom('job_output').where('job', '=', id).returning('digest').execute();
  return rows.map(({ digest }) => digest);
}

/**
 * Deletes a settled job with its rows; undefined if it does not exist, or has not expired at `expiredMs`. `digests`: the blobs of its
 * outputs.
 */
export async function deleteJob(
  trx: Db,
  id: string,
  expiredMs?: number,
): Promise<{ service: string; owner: string; digests: string[] } | undefined> {
  const outputs = await trx.selectFrom('job_output').select('digest').where('job', '=', id).execute();
  let deletion = trx.deleteFrom('job').where('id', '=', id).where('state', 'not in', ['queued', 'running']);
  if (expiredMs !== undefined) deletion = deletion.where('expires_ms', '<=', expiredMs);
  const row = await deletion.returning(['service', 'owner']).executeTakeFirst();
  return row && { ...row, digests: outputs.map((output) => output.digest) };
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
