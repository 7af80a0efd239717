import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Blobs, openBlobs } from '../src/store/blobs/blobs.ts';
import type { Database } from '../src/store/database/database.ts';
import { openServerDatabase, type ServerSchema } from '../src/store/database/server-database.ts';
import type { NewJob } from '../src/store/jobs/job-records.ts';
import { createJobs, type Jobs, type JobsOptions } from '../src/store/jobs/jobs.ts';

/**
 * Jobs of a temporary folder, by clocks that stand still unless they are set; what only PostgreSQL has, leases and holds of several
 * servers, goes by its own clock.
 */
export interface TestJobs extends AsyncDisposable {
  readonly folder: string;
  readonly database: Database<ServerSchema>;
  readonly blobs: Blobs;
  readonly jobs: Jobs;
  readonly clock: { wallMs: number; steadyMs: number; monotonicMs: number };
  /** Queues a job of the service `s` for the owner `a` unless something else is said; its id. */
  add(more?: Partial<NewJob>): Promise<string>;
  /** Stores a text as a blob. */
  store(text: string): Promise<{ digest: string; sizeBytes: number }>;
  /** What a crash leaves: the files, and nothing of the memory. */
  crash(): Promise<void>;
}

export type TestJobsOptions =
  | Partial<JobsOptions>
  | ((database: Database<ServerSchema>) => Partial<JobsOptions>);

/** `url`: of a PostgreSQL database; otherwise it is SQLite's, in the folder. */
export async function openTestJobs(options: TestJobsOptions = {}, url?: string): Promise<TestJobs> {
  const folder = await mkdtemp(join(tmpdir(), 'tomaat-jobs-'));
  const clock = { wallMs: 1_000_000, steadyMs: 2_000_000, monotonicMs: 3_000_000 };
  async function open() {
    const database = await openServerDatabase(folder, url);
    const blobs = await openBlobs(join(folder, 'blobs'));
    const jobs = createJobs({
      database,
      blobs,
      resultTtlMs: 1000,
      maxQueued: 100,
      leaseMs: 5000,
      now: () => clock.wallMs,
      steadyMs: () => clock.steadyMs,
      monotonicMs: () => clock.monotonicMs,
      ...(typeof options === 'function' ? options(database) : options),
    });
    return { database, blobs, jobs };
  }
  const close = async () => {
    await test.jobs.close();
    await test.blobs.close();
    await test.database.close();
  };
  const test = {
    folder,
    clock,
    ...(await open()),
    add: async (more: Partial<NewJob> = {}) =>
      (
        await test.jobs.create({
          service: 's',
          owner: 'a',
          request: { parameters: {}, stem: 'x' },
          inputs: [],
          ...more,
        })
      ).id,
    async store(text: string) {
      await using writer = await test.blobs.create();
      await writer.write(Buffer.from(text));
      return writer.commit();
    },
    async crash() {
      await close();
      Object.assign(test, await open());
    },
    async [Symbol.asyncDispose]() {
      await close();
      await rm(folder, { recursive: true, force: true });
    },
  };
  return test;
}
