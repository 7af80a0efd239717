import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { TomaatError } from '@tomaat/core';
import { sql } from 'kysely';
import type { Recorder } from '../audit/refusals.ts';
import type { Database } from '../store/database/database.ts';
import type { ServerSchema } from '../store/database/server-database.ts';
import type { Jobs } from '../store/jobs/jobs.ts';
import type { Uploads } from '../store/uploads/uploads.ts';

export interface EraseContext {
  audit: Pick<Recorder, 'record'>;
  jobs: Jobs;
  uploads: Uploads;
  database: Database<ServerSchema>;
  dataFolder: string;
}

/** How long a child that computes for the owner may take to end. */
const endsWithinMs = 30_000;
/** How long another reader of the database may keep its log from being emptied. */
const readsWithinMs = 10_000;

/**
 * Erases the data of an owner, in the process that holds the data folder: jobs in every state with their inputs, results
 * and receipts, uploads, and the count of jobs per day. Running jobs are cancelled. When this resolves, the files are deleted, except
 * those that another owner has too, and no trace of the rows is left in the database and its log.
 * @throws TomaatError BUSY when another program keeps the database's log from being emptied.
 */
export async function eraseOwner(
  { owner, keyId }: { owner: string; keyId?: string },
  { audit, jobs, uploads, database, dataFolder }: EraseContext,
): Promise<{ jobs: number; uploads: number }> {
  let erased = 0;
  audit.record('erasure.begun', { who: owner, keyId });
  const removedUploads = await uploads.removeAll(owner);
  // More may have arrived meanwhile, and jobs that have just settled can no longer be cancelled.
  for (let ids = await jobs.idsOf(owner); ids.length > 0; ids = await jobs.idsOf(owner)) {
    for (const id of ids) {
      await jobs.cancel(id);
      if (await jobs.remove(id)) erased++;
    }
    await untilGone(join(dataFolder, 'work'), ids);
  }
  await sql`DELETE FROM created_on WHERE owner = ${owner}`.execute(database.db);
  await emptyLog(database);
  audit.record('erasure.done', { who: owner, keyId, count: erased + removedUploads });
  return { jobs: erased, uploads: removedUploads };
}

/** Waits for the job folders of running children. */
async function untilGone(workFolder: string, ids: readonly string[]): Promise<void> {
  for (const endMs = performance.now() + endsWithinMs; performance.now() < endMs; await delay(50)) {
    const names = await namesIn(workFolder);
    if (!names.some((name) => ids.some((id) => name.startsWith(`${id}-`)))) return;
  }
  throw new TomaatError(
    'BUSY',
    'A cancelled prediction has not ended yet, and its files are still in the folder work. They are deleted when it ends or when the server is restarted.',
  );
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return [];
  }
}

/** Empties the log of a database, which would keep erased rows; waits for readers. */
export async function emptyLog(database: Pick<Database<unknown>, 'truncateWal'>): Promise<void> {
  for (const endMs = performance.now() + readsWithinMs; ; await delay(200)) {
    try {
      return await database.truncateWal();
    } catch (error) {
      if (!(error instanceof TomaatError && error.code === 'BUSY') || performance.now() > endMs) throw error;
    }
  }
}
