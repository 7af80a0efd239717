import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { sql } from 'kysely';
import { afterEach, describe, expect, it, vi } from 'vitest';
import {
  openTestJobs as openJobsAt,
  type TestJobs,
  type TestJobsOptions,
} from '../../../test/jobs-fixture.ts';
import { onEachDatabase } from '../../../test/support/each-database.ts';

afterEach(() => vi.useRealTimers());

const failure = { code: 'APP_FAILED', message: '' } as const;
const claimAll = async (test: TestJobs, services = ['s']) => {
  const ids: string[] = [];
  for (let job = await test.jobs.claim(services); job; job = await test.jobs.claim(services))
    ids.push(job.id);
  return ids;
};

onEachDatabase(({ dialect, newDatabase, itAlone }) => {
  const openTestJobs = async (options?: TestJobsOptions) => openJobsAt(options, await newDatabase());

  describe('claim()', () => {
    it('goes by urgency, then by arrival, within one millisecond too', async () => {
      await using test = await openTestJobs();
      const ids = {
        first: await test.add(),
        last: await test.add({ urgency: 4 }),
        urgent: await test.add({ urgency: 2 }),
        second: await test.add({ urgency: 3 }),
        third: await test.add(),
      };
      const { urgent, first, second, third, last } = ids;
      const order = [urgent, first, second, third, last];
      expect(await Promise.all(order.map((id) => test.jobs.positionOf(id)))).toEqual([0, 1, 2, 3, 4]);
      expect(await claimAll(test)).toEqual(order);
      expect(await test.jobs.positionOf(first)).toBeUndefined();
    });

    it('goes by the same order after a restart', async () => {
      await using test = await openTestJobs();
      const ids: string[] = [];
      for (const [at, urgency] of [4, 3, 2, 3].entries()) {
        test.clock.wallMs = 1_000_000 - at;
        ids.push(await test.add({ urgency }));
      }
      await test.crash();
      expect(await test.jobs.positionOf(ids[0])).toBe(3);
      expect(await claimAll(test)).toEqual([ids[2], ids[3], ids[1], ids[0]]);
    });

    it('gives the job and its claim time to workers of its service', async () => {
      await using test = await openTestJobs();
      const request = { parameters: { factor: 2 }, stem: 'case' };
      const id = await test.add({ request });
      test.clock.wallMs += 70;
      expect(await test.jobs.claim([])).toBeUndefined();
      expect(await test.jobs.claim(['t'])).toBeUndefined();
      expect(await test.jobs.claim(['t', 's'], 'gpu-1')).toEqual({
        id,
        service: 's',
        attempt: 1,
        request,
        inputs: [],
      });
      const row = await test.database.db.selectFrom('job').selectAll().executeTakeFirstOrThrow();
      expect(row).toMatchObject({ state: 'running', attempt: 1, worker: 'gpu-1', started_ms: 1_000_070 });
      await test.jobs.requeue(id, 1, 'handed back');
      expect(await test.database.db.selectFrom('job').selectAll().executeTakeFirstOrThrow()).toMatchObject({
        state: 'queued',
        attempt: 1,
        worker: null,
        started_ms: null,
        lost: 0,
      });
      expect((await test.jobs.claim(['s']))?.attempt).toBe(2);
    });

    it('keeps the job queued when the database refuses the claim', async () => {
      await using test = await openTestJobs({ concurrencyOf: () => 1 });
      const id = await test.add();
      const { db } = test.database;
      if (dialect === 'postgres')
        await sql`CREATE FUNCTION refuse() RETURNS trigger AS $$ BEGIN RAISE 'no room'; END $$ LANGUAGE plpgsql`.execute(
          db,
        );
      await (dialect === 'postgres'
        ? sql`CREATE TRIGGER "full" BEFORE UPDATE ON job FOR EACH ROW EXECUTE FUNCTION refuse()`
        : sql`CREATE TRIGGER "full" BEFORE UPDATE ON job BEGIN SELECT RAISE(ABORT, 'no room'); END`
      ).execute(db);
      await expect(test.jobs.claim(['s'])).rejects.toThrow('no room');
      expect(await test.jobs.isRunning(id, 1)).toBe(false);
      expect(await test.jobs.positionOf(id)).toBe(0);
      await sql.raw(`DROP TRIGGER "full" ${dialect === 'postgres' ? 'ON job' : ''}`).execute(db);
      expect(await test.jobs.claim(['s'])).toMatchObject({ id, attempt: 1 });
    });

    it('skips a job that was cancelled in the meantime', async () => {
      await using test = await openTestJobs({ concurrencyOf: () => 1 });
      const gone = await test.add();
      const id = await test.add({ owner: 'b' });
      await test.database.db.updateTable('job').set({ state: 'canceled' }).where('id', '=', gone).execute();
      expect((await test.jobs.claim(['s']))?.id).toBe(id);
      expect(await test.jobs.isRunning(gone, 1)).toBe(false);
    });

    itAlone('waits for the disk for workers elsewhere, and a second later for its own', async () => {
      let unsynced = 0;
      await using test = await openTestJobs((database) => ({
        database: {
          ...database,
          unsynced(query) {
            unsynced++;
            return database.unsynced(query);
          },
        },
      }));
      const { db } = test.database;
      await sql`CREATE TABLE written (job TEXT)`.execute(db);
      await sql`CREATE TRIGGER writes AFTER UPDATE OF attempt ON job WHEN NEW.attempt = OLD.attempt
      BEGIN INSERT INTO written VALUES (NEW.id); END`.execute(db);
      const written = async () =>
        (await sql<{ job: string }>`SELECT job FROM written`.execute(db)).rows.map(({ job }) => job);
      vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
      const elsewhere = await test.add();
      await test.jobs.claim(['s'], 'gpu-1');
      expect(unsynced).toBe(0);
      const [done, again, own] = [await test.add(), await test.add(), await test.add()];
      for (let i = 0; i < 3; i++) await test.jobs.claim(['s']);
      expect(unsynced).toBe(3);
      await test.jobs.settle(done, 1, { state: 'failed', error: failure });
      await test.jobs.requeue(again, 1, 'handed back');
      await vi.advanceTimersByTimeAsync(999);
      await test.jobs.counts();
      expect(await written()).toEqual([]);
      // Of another attempt than the one that was claimed then.
      await test.jobs.claim(['s'], 'gpu-1');
      await vi.advanceTimersByTimeAsync(1);
      await test.jobs.counts();
      expect(await written()).toEqual([own]);
      expect(await test.jobs.get(own)).toMatchObject({ state: 'running', attempt: 1 });
      expect(await test.jobs.isRunning(elsewhere, 1)).toBe(true);
    });
  });

  itAlone('touch() reports changed progress of the running attempt', async () => {
    await using test = await openTestJobs();
    const id = await test.add();
    await test.jobs.claim(['s']);
    let changes = 0;
    const stop = test.jobs.watch(id, () => changes++);
    for (const [at, expected] of [
      [{ stage: 'read', fraction: 0 }, 1],
      [{ stage: 'read', fraction: 0 }, 1],
      [{ stage: 'read', fraction: 0.5 }, 2],
      [{ stage: 'infer', fraction: 0.5 }, 3],
      [undefined, 3],
    ] as const) {
      expect(await test.jobs.touch(id, 1, at)).toBe(true);
      expect(changes).toBe(expected);
    }
    expect(await test.jobs.get(id)).toMatchObject({ stage: 'infer', fraction: 0.5 });
    for (const attempt of [0, 2])
      expect(await test.jobs.touch(id, attempt, { stage: 'late', fraction: 1 })).toBe(false);
    expect(await test.jobs.get(id)).toMatchObject({ stage: 'infer', fraction: 0.5 });
    stop();
    await test.jobs.touch(id, 1, { stage: 'write', fraction: 0.5 });
    expect(changes).toBe(3);
  });

  itAlone('on() announces work, changed positions and cancelled jobs', async () => {
    await using test = await openTestJobs();
    let seen: string[] = [];
    const stops = (['queued', 'queue', 'cancel'] as const).map((event) =>
      test.jobs.on(event, (id) => void seen.push(event === 'cancel' ? `cancel ${id}` : event)),
    );
    const after = async (work: () => Promise<unknown>) => {
      seen = [];
      await work();
      return seen;
    };
    let [first, second] = ['', ''];
    expect(await after(async () => (first = await test.add()))).toEqual(['queued', 'queue']);
    test.clock.wallMs += 1;
    expect(await after(async () => (second = await test.add()))).toEqual(['queued', 'queue']);
    const stop = test.jobs.watch(first, () => void seen.push('change'));
    expect(await after(() => test.jobs.claim(['s']))).toEqual(['queue', 'change']);
    expect(await after(() => test.jobs.requeue(first, 1, 'handed back'))).toEqual([
      ...['queued', 'queue', 'change'],
    ]);
    await test.jobs.claim(['s']);
    // Another one waits, whom a limit may have held back.
    expect(await after(() => test.jobs.settle(first, 2, { state: 'failed', error: failure }))).toEqual([
      'queue',
      'queued',
      'change',
    ]);
    expect(await after(() => test.jobs.cancel(second))).toEqual(['queue', `cancel ${second}`]);
    expect(await after(() => test.jobs.remove(first))).toEqual(['change']);
    stop();
    for (const each of stops) each();
    expect(await after(() => test.add())).toEqual([]);
  });

  describe('settled()', () => {
    it('waits through the states of a job, and gives it once it is settled', async () => {
      await using test = await openTestJobs();
      const id = await test.add();
      const waiting = test.jobs.settled(id);
      await test.jobs.claim(['s']);
      await test.jobs.requeue(id, 1, 'handed back');
      await test.jobs.claim(['s']);
      await test.jobs.settle(id, 2, { state: 'failed', error: failure });
      expect(await waiting).toMatchObject({ id, state: 'failed' });
      expect(await test.jobs.settled(id)).toMatchObject({ state: 'failed' });
      await test.jobs.remove(id);
      expect(await test.jobs.settled(id)).toBeUndefined();
    });

    it('rejects when the caller gives up, before or while it waits', async () => {
      await using test = await openTestJobs();
      const id = await test.add();
      const reason = new Error('gone');
      await expect(test.jobs.settled(id, AbortSignal.abort(reason))).rejects.toBe(reason);
      const caller = new AbortController();
      const waiting = test.jobs.settled(id, caller.signal);
      await test.jobs.get(id);
      caller.abort(reason);
      await expect(waiting).rejects.toBe(reason);
      await test.jobs.claim(['s']);
      const running = test.jobs.settled(id, new AbortController().signal);
      await test.jobs.cancel(id);
      expect((await running)?.state).toBe('canceled');
    });
  });

  describe('requeue()', () => {
    it('counts losses alone, and says how often at the third', async () => {
      await using test = await openTestJobs();
      const id = await test.add();
      const whys = ['lost', 'handed back', 'lost', 'handed back', 'lost'] as const;
      const outcomes: unknown[] = [];
      for (const [at, why] of whys.entries()) {
        await test.jobs.claim(['s']);
        outcomes.push(await test.jobs.requeue(id, at + 1, why));
      }
      expect(outcomes).toEqual(['queued', 'queued', 'queued', 'queued', 'failed']);
      expect((await test.jobs.get(id))?.error).toMatchObject({
        code: 'WORKER_DIED',
        message: expect.stringContaining('lost 3 times'),
      });
      expect(await test.jobs.requeue(id, 5, 'lost')).toBeUndefined();
    });

    it('ends the lease of the worker that had it', async () => {
      await using test = await openTestJobs();
      const id = await test.add();
      await test.jobs.claim(['s'], 'gpu-1');
      await test.jobs.requeue(id, 1, 'handed back');
      test.clock.monotonicMs += 10_000;
      expect(await test.jobs.lapse()).toEqual([]);
      await test.jobs.claim(['s'], 'gpu-1');
      await test.jobs.cancel(id);
      test.clock.monotonicMs += 10_000;
      expect(await test.jobs.lapse()).toEqual([]);
    });
  });

  describe('recover()', () => {
    itAlone('deletes and counts unreferenced blobs and incomplete files', async () => {
      await using test = await openTestJobs();
      const [input, output, uploaded, ...loose] = await Promise.all(
        ['in', 'out', 'uploaded', 'loose', 'looser'].map((text) => test.store(text)),
      );
      const done = await test.add();
      await test.jobs.claim(['s']);
      const result = { name: 'mask', type: 'LabelVolume', label: '', primary: true, format: 'nii' as const };
      await test.jobs.settle(done, 1, {
        state: 'succeeded',
        outputs: [{ ...result, ...output }],
        seconds: 1,
      });
      await test.add({ inputs: [{ name: 'volume', fileName: 'x.nii', ...input }] });
      await writeFile(join(test.folder, 'blobs', 'tmp', 'half'), 'x');
      await test.crash();
      test.jobs.keepAlso(async (digest) => digest === uploaded.digest);
      expect(await test.jobs.recover(['s'])).toEqual({ requeued: 0, failed: 0, orphans: 3 });
      const stats = [input, output, uploaded, ...loose].map(({ digest }) => test.blobs.stat(digest));
      expect(await Promise.all(stats)).toEqual([input, output, uploaded, undefined, undefined]);
      expect(await test.jobs.recover(['s'])).toEqual({ requeued: 0, failed: 0, orphans: 0 });
    });

    it('fails and counts all unsettled jobs where no service remains', async () => {
      await using test = await openTestJobs();
      const [settled, queued, running] = [
        await test.add(),
        await test.add(),
        await test.add({ service: 't' }),
      ];
      await test.jobs.cancel(settled);
      await test.jobs.claim(['t']);
      await test.crash();
      expect(await test.jobs.recover([])).toMatchObject({ requeued: 0, failed: 2 });
      expect(await test.jobs.counts()).toEqual({ canceled: 1, failed: 2 });
      expect((await test.jobs.get(queued))?.error).toMatchObject({ code: 'NOT_FOUND' });
      expect((await test.jobs.get(running))?.error?.message).toContain('The service t ');
    });

    itAlone('keeps jobs of remote workers in place, and requeues its own', async () => {
      await using test = await openTestJobs({
        concurrencyOf: (service) => (service === 'one' ? 1 : undefined),
      });
      const [elsewhere, own] = [await test.add({ service: 'one' }), await test.add()];
      await test.jobs.claim(['one'], 'gpu-1');
      await test.jobs.claim(['s']);
      await test.add({ service: 'one' });
      await test.crash();
      expect(await test.jobs.recover(['s', 'one'])).toEqual({ requeued: 1, failed: 0, orphans: 0 });
      expect(await test.jobs.isRunning(elsewhere, 1)).toBe(true);
      expect(await test.jobs.isRunning(own, 1)).toBe(false);
      expect(await test.jobs.claim(['one'])).toBeUndefined();
      expect(await test.jobs.claim(['s'])).toMatchObject({ id: own, attempt: 2 });
    });
  });
});
