import { describe, expect, it } from 'vitest';
import { openTestJobs as openJobsAt, type TestJobsOptions } from '../../../test/jobs-fixture.ts';
import { onEachDatabase } from '../../../test/support/each-database.ts';

const dayMs = 86_400_000;
/** 2024-10-04 00:00 UTC: 20,000 days after 1970. */
const midnightMs = 20_000 * dayMs;

onEachDatabase(({ newDatabase }) => {
  const openTestJobs = async (options?: TestJobsOptions) => openJobsAt(options, await newDatabase());

  describe('create() with a full queue', () => {
    it('takes as many as may wait, then refuses with their number', async () => {
      await using test = await openTestJobs({ maxQueued: 3 });
      for (let i = 0; i < 3; i++) await test.add();
      await expect(test.add()).rejects.toMatchObject({
        code: 'BUSY',
        message: expect.stringMatching(/^3 jobs are already waiting/),
      });
      await expect(test.jobs.requireRoom('a')).rejects.toMatchObject({ code: 'BUSY' });
      await test.jobs.claim(['s']);
      await test.jobs.requireRoom('a');
      await test.add();
    });

    it('counts those that are about to be queued, until they are', async () => {
      await using test = await openTestJobs({ maxQueued: 3 });
      for (let round = 0; round < 3; round++) {
        const made = await Promise.allSettled(Array.from({ length: 5 }, () => test.add()));
        expect(made.map(({ status }) => status).sort()).toEqual([
          ...['fulfilled', 'fulfilled', 'fulfilled', 'rejected', 'rejected'],
        ]);
        expect(await test.jobs.counts()).toMatchObject({ queued: 3 });
        for (let i = 0; i < 3; i++) expect(await test.jobs.claim(['s'])).toBeDefined();
      }
    });

    it('leaves another owner a fair share of it', async () => {
      await using test = await openTestJobs({ maxQueued: 4 });
      for (let i = 0; i < 4; i++) await test.add();
      await test.add({ owner: 'b' });
      await test.add({ owner: 'b' });
      await expect(test.add({ owner: 'b' })).rejects.toMatchObject({ code: 'BUSY' });
      await expect(test.add({ owner: 'a' })).rejects.toMatchObject({ code: 'BUSY' });
      await test.add({ owner: 'c' });
    });
  });

  describe('create() with maxJobs', () => {
    const limits = { maxJobs: 2 };

    it('counts the owner’s queued and running jobs, not those of others', async () => {
      await using test = await openTestJobs();
      await test.add({ owner: 'b' });
      const first = await test.add({ limits });
      expect((await test.jobs.claim(['s']))?.id).not.toBe(first);
      expect((await test.jobs.claim(['s']))?.id).toBe(first);
      await test.add({ limits });
      await expect(test.add({ limits })).rejects.toMatchObject({
        code: 'LIMIT_REACHED',
        message: expect.stringMatching(/2 predictions .* limit is 2\./),
        detail: { maxJobs: 2, retryAfterSeconds: 10 },
      });
      await expect(test.jobs.requireLimits('a', limits)).rejects.toMatchObject({ code: 'LIMIT_REACHED' });
      await test.jobs.requireLimits('b', limits);
      await test.jobs.requireLimits('a');
      // One that is settled does not count.
      await test.jobs.cancel(first);
      await test.jobs.requireLimits('a', limits);
      await test.add({ limits });
    });

    it('holds for requests at the same time', async () => {
      await using test = await openTestJobs();
      const made = await Promise.allSettled(Array.from({ length: 4 }, () => test.add({ limits })));
      expect(made.filter(({ status }) => status === 'fulfilled')).toHaveLength(2);
      expect(await test.jobs.counts()).toEqual({ queued: 2 });
      // What was refused does not take a place in the queue.
      expect(await test.jobs.claim(['s'])).toBeDefined();
      expect(await test.jobs.claim(['s'])).toBeDefined();
      expect(await test.jobs.claim(['s'])).toBeUndefined();
    });
  });

  describe('create() with perDay', () => {
    const limits = { perDay: 2 };

    it('refuses the next one until 00:00 UTC, deleted ones included', async () => {
      await using test = await openTestJobs();
      test.clock.steadyMs = midnightMs;
      const id = await test.add({ limits });
      await test.jobs.cancel(id);
      await test.jobs.remove(id);
      test.clock.steadyMs = midnightMs + 6 * 3_600_000 + 250;
      await test.add({ limits });
      await expect(test.add({ limits })).rejects.toMatchObject({
        code: 'LIMIT_REACHED',
        message: expect.stringContaining('2 predictions per day'),
        detail: { perDay: 2, retryAfterSeconds: 18 * 3600 },
      });
      test.clock.steadyMs = midnightMs + dayMs - 1;
      await expect(test.jobs.requireLimits('a', limits)).rejects.toMatchObject({
        detail: { perDay: 2, retryAfterSeconds: 1 },
      });
      test.clock.steadyMs = midnightMs + dayMs;
      await test.jobs.requireLimits('a', limits);
      await test.add({ limits });
      await test.add({ limits });
      await expect(test.add({ limits })).rejects.toMatchObject({
        detail: { retryAfterSeconds: 24 * 3600 },
      });
    });

    it('counts each limited owner separately, and forgets past days', async () => {
      await using test = await openTestJobs();
      const counted = () => test.database.db.selectFrom('created_on').selectAll().orderBy('owner').execute();
      test.clock.steadyMs = midnightMs + 1;
      await test.add({ limits });
      await test.add({ limits });
      await test.add({ owner: 'b', limits });
      await test.add({ owner: 'c' });
      await test.add({ owner: 'd', limits: { maxJobs: 9 } });
      expect(await counted()).toEqual([
        { owner: 'a', day: 20_000, jobs: 2 },
        { owner: 'b', day: 20_000, jobs: 1 },
      ]);
      test.clock.steadyMs += dayMs;
      await test.add({ owner: 'b', limits });
      expect(await counted()).toEqual([{ owner: 'b', day: 20_001, jobs: 1 }]);
    });

    it('takes none back for a job that could not be made', async () => {
      await using test = await openTestJobs();
      const broken = { name: 'volume', fileName: 'x.nii', digest: null as never, sizeBytes: 1 };
      await expect(test.add({ limits, inputs: [broken] })).rejects.toThrow(/not[- ]null/i);
      expect(await test.database.db.selectFrom('created_on').selectAll().execute()).toEqual([]);
      expect(await test.jobs.counts()).toEqual({});
      expect(await test.jobs.claim(['s'])).toBeUndefined();
    });
  });
});
