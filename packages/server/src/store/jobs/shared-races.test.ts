import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sql } from 'kysely';
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
  async function store(text: string): Promise<{ digest: string }> {
    await using writer = await blobs.create();
    await writer.write(Buffer.from(text));
    return writer.commit();
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

  it('leave a file its whole grace when it is stored again, and released, during a sweep', async () => {
    const [first, second] = [open(), open()];
    const { digest } = await store('twice');
    await first.drop([digest]);
    await sql`UPDATE blob_mark SET marked_ms = marked_ms - 61000`.execute(database.db);
    const remove = blobs.delete.bind(blobs);
    blobs.delete = async (...args) => {
      await second.hold(digest);
      await second.release([digest]);
      return remove(...args);
    };
    await first.sweep().finally(() => {
      blobs.delete = remove;
    });
    expect(await blobs.stat(digest)).toBeDefined();
    await sql`UPDATE blob_mark SET marked_ms = marked_ms - 61000`.execute(database.db);
    await first.sweep();
    expect(await blobs.stat(digest)).toBeUndefined();
  });

  it('delete a file whose release the database did not take', async () => {
    let aheadMs = 0;
    const first = open({ monotonicMs: () => performance.now() + aheadMs });
    const { digest } = await store('left');
    await first.hold(digest);
    await sql`ALTER TABLE blob_hold RENAME TO hidden`.execute(database.db);
    await expect(first.release([digest])).rejects.toThrow('blob_hold');
    await sql`ALTER TABLE hidden RENAME TO blob_hold`.execute(database.db);
    expect(await first.isHeld(digest)).toBe(true);
    aheadMs = 21_000;
    await first.lapse();
    expect(await first.isHeld(digest)).toBe(false);
    await sql`UPDATE blob_mark SET marked_ms = marked_ms - 61000`.execute(database.db);
    await first.sweep();
    expect(await blobs.stat(digest)).toBeUndefined();
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
