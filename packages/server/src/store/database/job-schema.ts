import { type JobState, jobStates } from '@tomaat/client';
import { type Generated, type Kysely, type Selectable, sql } from 'kysely';
import type { Migration } from './database.ts';

/** The tables of jobs, in the database of a server, and their migrations. */

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
    /** The grid as stated in the header of the input, as JSON: for other formats of a label map. */
    geometry: Generated<string | null>;
    /**
     * Null for an output. In the row of a file that is kept besides one, because the output's own format cannot be read
     * back: the name of that output. A row of its own, so that its blob is held, backed up and deleted as all others.
     */
    kept_for: Generated<string | null>;
  };
  /** How long predictions took here: the basis of estimates for waiting callers. */
  duration: { id: Generated<number>; service: string; seconds: number; voxels: number | null };
  /** Jobs that an owner with a limit created on a day (days since 1970, UTC), deleted ones included. */
  created_on: { owner: string; day: number; jobs: number };
  // What servers that share a database tell each other about jobs: empty where one process owns the database.
  /** The number of an owner's last turn: it is larger the later that was. */
  owner_turn: { owner: string; turn: number };
  /** The services that are offered somewhere, with their limits, and when a server said so last. */
  offered: { service: string; concurrency: number | null; heard_ms: number };
  /** Blobs that are kept for `holder`: a server that receives a request, or an attempt whose outputs arrive. */
  blob_hold: { holder: string; digest: string; until_ms: number };
  /** Blobs that nothing seemed to refer to at this time; they are deleted if that is so a little later. */
  blob_mark: { digest: string; marked_ms: number };
}

export interface JobTable {
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
  /** How many times the process that computed it was lost. */
  lost: Generated<number>;
  /** The remote worker that runs it; null for this process's own. */
  worker: string | null;
  /** The content of its receipt, as JSON, once it is settled; signed on request. */
  receipt: Generated<string | null>;
  /** Where the running attempt is, 0 to 1 of a stage; null where it is kept in the memory of the one process. */
  stage: Generated<string | null>;
  fraction: Generated<number | null>;
  /** When the running attempt is taken from a silent worker, by the database's clock; null as `stage`. */
  lease_until_ms: Generated<number | null>;
  /** Order of arrival within one millisecond; 0 as `stage`. */
  arrival: Generated<number>;
}

export type JobRow = Selectable<JobTable>;

/** The first steps of the database of a server. */
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

export const keptMigrations: readonly Migration[] = [
  {
    name: 'kept outputs',
    async up(db: Kysely<unknown>) {
      await sql`ALTER TABLE job_output ADD COLUMN kept_for TEXT`.execute(db);
    },
  },
];

export const sharedQueueMigrations: readonly Migration[] = [
  {
    name: 'shared queue',
    async up(db: Kysely<unknown>) {
      await sql`ALTER TABLE job ADD COLUMN stage TEXT`.execute(db);
      await sql`ALTER TABLE job ADD COLUMN fraction REAL`.execute(db);
      await sql`ALTER TABLE job ADD COLUMN lease_until_ms INTEGER`.execute(db);
      await sql`ALTER TABLE job ADD COLUMN arrival INTEGER NOT NULL DEFAULT 0`.execute(db);
      await sql`CREATE INDEX job_running ON job (service, owner) WHERE state = 'running'`.execute(db);
      await sql`CREATE TABLE owner_turn (owner TEXT PRIMARY KEY, turn INTEGER NOT NULL) STRICT`.execute(db);
      await sql`CREATE TABLE offered (
        service TEXT PRIMARY KEY, concurrency INTEGER, heard_ms INTEGER NOT NULL) STRICT`.execute(db);
      await sql`CREATE TABLE blob_hold (
        holder TEXT NOT NULL, digest TEXT NOT NULL, until_ms INTEGER NOT NULL, PRIMARY KEY (holder, digest)) STRICT`.execute(
        db,
      );
      await sql`CREATE INDEX blob_hold_digest ON blob_hold (digest)`.execute(db);
      await sql`CREATE TABLE blob_mark (digest TEXT PRIMARY KEY, marked_ms INTEGER NOT NULL) STRICT`.execute(
        db,
      );
    },
  },
];
