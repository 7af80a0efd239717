import { type Generated, type Kysely, type QueryExecutorProvider, type Selectable, sql } from 'kysely';
import type { KeepBlob } from '../blobs/blob-writer.ts';
import type { Migration } from './database.ts';

/** The table of uploads, in the database of a server, and the types through which the rest of the server sees an upload. */

export interface UploadsSchema {
  upload: {
    id: string;
    owner: string;
    size_bytes: number;
    /** Durable bytes. */
    offset_bytes: number;
    /** Expected SHA-256 of the bytes, or their actual one once complete. */
    expected: string | null;
    /** The blob, once the upload is complete. */
    digest: string | null;
    file_name: string | null;
    metadata: string;
    expires_ms: number;
    /** Of an upload that a protocol names (upload-groups.ts): who shares a bound on them, and their name, both as hashes. */
    holder: string | null;
    name: string | null;
    /** Grows with each upload that a server takes, µs since 1970; 0 for those of earlier versions. */
    arrived_us: Generated<number>;
  };
  /** Bytes of an incomplete upload that several servers may take: blobs of their own, in the order of their offsets. */
  upload_part: {
    upload: string;
    offset_bytes: number;
    size_bytes: number;
    digest: string;
  };
  /** Which request writes to an upload, at whichever server; see `upload-leases.ts`. */
  upload_writer: {
    upload: string;
    /** Random, of the request. */
    token: string;
    /** By the clock of the database. */
    until_ms: number;
    /** 1: another request waits to continue. */
    is_wanted: number;
  };
}

export type UploadRow = Selectable<UploadsSchema['upload']>;

export const uploadMigrations: readonly Migration[] = [
  {
    name: 'uploads',
    async up(db: Kysely<unknown>) {
      await sql`CREATE TABLE upload (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, size_bytes INTEGER NOT NULL, offset_bytes INTEGER NOT NULL,
        expected TEXT, digest TEXT, file_name TEXT, metadata TEXT NOT NULL, expires_ms INTEGER NOT NULL) STRICT`.execute(
        db,
      );
      await sql`CREATE INDEX upload_digest ON upload (digest) WHERE digest IS NOT NULL`.execute(db);
      await sql`CREATE INDEX upload_expiry ON upload (expires_ms)`.execute(db);
    },
  },
];

export const uploadNameMigrations: readonly Migration[] = [
  {
    name: 'names of uploads',
    async up(db: Kysely<unknown>) {
      await sql`ALTER TABLE upload ADD COLUMN holder TEXT`.execute(db);
      await sql`ALTER TABLE upload ADD COLUMN name TEXT`.execute(db);
      await sql`CREATE INDEX upload_name ON upload (owner, name) WHERE name IS NOT NULL`.execute(db);
    },
  },
];

/** For a database that a server has to itself they stay empty: its uploads are files. */
export const uploadPartMigrations: readonly Migration[] = [
  {
    name: 'parts of uploads',
    async up(db: Kysely<unknown>) {
      await sql`CREATE TABLE upload_part (
        upload TEXT NOT NULL, offset_bytes INTEGER NOT NULL, size_bytes INTEGER NOT NULL, digest TEXT NOT NULL,
        PRIMARY KEY (upload, offset_bytes)) STRICT`.execute(db);
      await sql`CREATE INDEX upload_part_digest ON upload_part (digest)`.execute(db);
      await sql`CREATE TABLE upload_writer (
        upload TEXT PRIMARY KEY, token TEXT NOT NULL, until_ms INTEGER NOT NULL, is_wanted INTEGER NOT NULL) STRICT`.execute(
        db,
      );
      await sql`ALTER TABLE upload ADD COLUMN arrived_us INTEGER NOT NULL DEFAULT 0`.execute(db);
    },
  },
];

export interface Upload {
  id: string;
  sizeBytes: number;
  offsetBytes: number;
  /** `sha256:…`, once it is complete. */
  digest?: string;
  /** `sha256:…` as received, if text was removed. */
  received?: string;
  fileName?: string;
  /** The Upload-Metadata header as it was sent. */
  metadata: string;
  expiresMs: number;
}

export interface NewUpload {
  owner: string;
  sizeBytes: number;
  /** `sha256:…`, checked when all bytes have arrived. */
  expected?: string;
  fileName?: string;
  metadata: string;
}

export function toUpload(row: UploadRow): Upload {
  return {
    id: row.id,
    sizeBytes: row.size_bytes,
    offsetBytes: row.offset_bytes,
    digest: row.digest ?? undefined,
    received: row.digest !== null && row.digest !== row.expected ? (row.expected ?? undefined) : undefined,
    fileName: row.file_name ?? undefined,
    metadata: row.metadata,
    expiresMs: row.expires_ms,
  };
}

/** Records changes of uploads: `received` and `removed` as the last statement of the transaction of the change, as a JobWitness. */
export interface UploadWitness {
  received(
    upload: { id: string; owner: string; digest: string },
    trx: QueryExecutorProvider,
  ): Promise<void> | undefined;
  removed(
    upload: { id: string; owner: string },
    why: 'deleted' | 'expired',
    trx: QueryExecutorProvider,
  ): Promise<void> | undefined;
  /** Another owner asked for this upload, and was answered that it does not exist. */
  refused?(upload: { id: string }, caller: string): void;
}

/** What keeps blobs, where several servers share them; see `blob-holds.ts`. */
export interface SharedBlobHolds {
  /** Keeps a blob for this server until it is released. @throws TomaatError BUSY if another server has just deleted it */
  hold(digest: string): Promise<void>;
  release(digests: Iterable<string>): Promise<void>;
  /** Deletes those that nothing refers to. */
  drop(digests: Iterable<string>): Promise<void>;
}

/** What is done with identifying text when a file is complete. */
export interface UploadCleaning {
  /**
   * Checks a complete file, and stores it without what may identify a person: whether it did, or the file is kept as
   * received. After an error of the caller the upload is deleted.
   */
  strip?(file: { path: string; name: string; sizeBytes: number }, keep: KeepBlob): Promise<boolean>;
  /** What is stored of the name of a file, which may be that of a patient. The metadata are then not stored. */
  hideName?(fileName: string): string;
}

let lastArrivalUs = 0;

/** The time of an upload that arrives now, µs since 1970; later than that of the one before. */
export function nextArrivalUs(nowMs: number): number {
  lastArrivalUs = Math.max(lastArrivalUs + 1, Math.round(nowMs * 1000));
  return lastArrivalUs;
}
