import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { postgresBin, startPostgres } from '../../../test/support/postgres.ts';
import { type Blobs, openBlobs } from '../blobs/blobs.ts';
import type { Database } from '../database/database.ts';
import { openServerDatabase, type ServerSchema } from '../database/server-database.ts';
import type { NewJob } from './job-records.ts';
import { createJobs, type Jobs, type JobsOptions } from './jobs.ts';

/* What one of two servers does between two steps of the other. */

const request = { parameters: {}, stem: 'x' };
const failure = { code: 'APP_FAILED', message: '' } as const;
const dayMs = 86_400_000;

describe.skipIf(!postgresBin)('two servers of one PostgreSQL database', () => {
  let folder: string;
  let blobs: Blobs;
  let database: Database<ServerSchema>;
  const opened: Jobs[] = [];

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tomaat-races-'));
    blobs = await openBlobs(join(folder, 'blobs'));
    database = await openServerDatabase(folder, await (await startPostgres()).database());
  });
  afterAll(async () => {
    await database?.close();
    await blobs?.close();
    await rm(folder, { recursive: true, force: true });
  });
  beforeEach(async () => {
    for (const table of ['job', 'created_on'] as const) await database.db.deleteFrom(table).execute();
  });
  afterEach(async () => {
    for (const jobs of opened.splice(0)) await jobs.close();
  });

  function open(more: Partial<JobsOptions> = {}): Jobs {
    const jobs = createJobs({ database, blobs, resultTtlMs: 60_000, maxQueued: 100, ...more });
    opened.push(jobs);
    return jobs;
  }
  const add = (jobs: Jobs, more: Partial<NewJob> = {}) =>
    jobs.create({ service: 's', owner: 'a', request, inputs: [], ...more });

  it('delete no result that its owner keeps while another one sweeps', async () => {
    const second = open();
    const ids = await Promise.all([add(second), add(second)]);
    for (const { id } of ids) await second.settle(id, undefined, { state: 'failed', error: failure });
    await database.db.updateTable('job').set({ expires_ms: 1 }).execute();
    const kept: string[] = [];
    const first = open({
      witness: {
        async removed({ id }) {
          const other = ids.find((one) => one.id !== id)!.id;
          if (await second.keep(other)) kept.push(other);
        },
      },
    });
    await first.sweep();
    expect(kept).toHaveLength(1);
    expect(await second.idsOf('a')).toEqual(kept);
  });

  it('count the jobs of a day by one clock', async () => {
    const wrong = open({ now: () => Date.now() + dayMs, steadyMs: Date.now });
    const right = open();
    const limits = { perDay: 1 };
    await add(right, { limits });
    for (const jobs of [wrong, right])
      await expect(add(jobs, { limits })).rejects.toMatchObject({ code: 'LIMIT_REACHED' });
  });

  it('answer equal requests with one job, also one at the limit of its owner', async () => {
    const servers = [open(), open()];
    // Each has its connection before.
    await Promise.all(Array.from({ length: 8 }, () => servers[0].idsOf('a')));
    const made = await Promise.all(
      Array.from({ length: 8 }, (_, i) =>
        add(servers[i % 2], { idempotencyKey: 'k', fingerprint: 'f', limits: { maxJobs: 1 } }),
      ),
    );
    expect(new Set(made.map(({ id }) => id)).size).toBe(1);
    expect(made.filter(({ existed }) => !existed)).toHaveLength(1);
  });
});
