import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach } from 'vitest';
import { type Blobs, openBlobs } from '../src/store/blobs/blobs.ts';
import type { Database } from '../src/store/database/database.ts';
import { openServerDatabase, type ServerSchema } from '../src/store/database/server-database.ts';
import { openUploads, type Uploads, type UploadsOptions } from '../src/store/uploads/uploads.ts';
import { databaseOf } from './support/tested-database.ts';

/* Uploads in a folder of their own for each test of a file, which calls useUploads(). */

export const leaseMs = 60_000;
export const startMs = 1_000_000;
export const clock = { nowMs: startMs };
export let database: Database<ServerSchema>;
export let blobs: Blobs;
export let uploads: Uploads;
/** What the witness was told. */
export const seen: string[] = [];
/** Digests that something else keeps. */
export const kept = new Set<string>();
let folder: string;

const witness: UploadsOptions['witness'] = {
  received: ({ owner, digest }) => void seen.push(`received ${owner} ${digest.slice(7, 11)}`),
  removed: ({ owner }, why) => void seen.push(`${why} ${owner}`),
  refused: (_upload, caller) => void seen.push(`refused ${caller}`),
};
/** The folder of parts. */
export const parts = () => join(folder, 'uploads');

/** As after a restart, or with other options. */
export async function reopen(more: Partial<UploadsOptions> = {}): Promise<void> {
  uploads = await openUploads({
    database,
    blobs,
    folder: parts(),
    maxBytes: 10_000_000,
    leaseMs,
    isHeld: async (digest) => kept.has(digest) || (await uploads.keeps(digest)),
    witness,
    now: () => clock.nowMs,
    ...more,
  });
}

export function useUploads(): void {
  let dataFolder: string;
  beforeAll(async () => {
    dataFolder = await mkdtemp(join(tmpdir(), 'tomaat-uploads-'));
    database = await openServerDatabase(dataFolder, await databaseOf(dataFolder));
  });
  afterAll(async () => {
    await database.close();
    await rm(dataFolder, { recursive: true, force: true });
  });
  beforeEach(async () => {
    folder = await mkdtemp(join(dataFolder, 'test-'));
    for (const table of ['upload', 'job'] as const) await database.db.deleteFrom(table).execute();
    blobs = await openBlobs(join(folder, 'blobs'));
    clock.nowMs = startMs;
    seen.length = 0;
    kept.clear();
    await reopen();
  });
  afterEach(async () => {
    await uploads.close();
    await blobs.close();
  });
}

export const sha256 = (bytes: Uint8Array | string) =>
  `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
export const begin = (sizeBytes: number, more: Partial<Parameters<Uploads['create']>[0]> = {}) =>
  uploads.create({ owner: 'a', sizeBytes, metadata: '', ...more });
export async function* body(...texts: string[]): AsyncGenerator<Uint8Array> {
  for (const text of texts) yield Buffer.from(text);
}
export const whole = async (text: string, more: Partial<Parameters<Uploads['create']>[0]> = {}) => {
  const { id } = await begin(text.length, more);
  return uploads.append(more.owner ?? 'a', id, 0, body(text));
};
export const partOf = (id: string) => readFile(join(parts(), id), 'utf8');
export const rowOf = (id: string) =>
  database.db.selectFrom('upload').selectAll().where('id', '=', id).executeTakeFirstOrThrow();

/** A body that is sent piece by piece, and ends or breaks off when the test says so. */
export function sender() {
  const chunks: Uint8Array[] = [];
  let wake = () => {};
  let end: { error?: Error } | undefined;
  return {
    send(text: string | Uint8Array) {
      chunks.push(typeof text === 'string' ? Buffer.from(text) : text);
      wake();
    },
    end(error?: Error) {
      end = { error };
      wake();
    },
    async *body(): AsyncGenerator<Uint8Array> {
      for (;;) {
        while (chunks.length > 0) yield chunks.shift()!;
        if (end?.error) throw end.error;
        if (end) return;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    },
  };
}
