import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import { sql } from 'kysely';
import { describe, expect, it } from 'vitest';
import {
  openTestJobs as openJobsAt,
  type TestJobs,
  type TestJobsOptions,
} from '../../../test/jobs-fixture.ts';
import { onEachDatabase } from '../../../test/support/each-database.ts';
import type { JobRequest, JobWitness, OutputFile, SettledJob } from './job-records.ts';
import { createJobs } from './jobs.ts';

const inputOf = async (test: TestJobs, name: string, received?: string) => ({
  name,
  fileName: `${name}.nii`,
  ...(await test.store(`input ${name}`)),
  ...(received !== undefined && { received }),
});
const outputOf = async (test: TestJobs, name: string, more: Partial<OutputFile> = {}) => ({
  name,
  type: 'LabelVolume',
  label: `The ${name}`,
  primary: false,
  format: 'nii.gz' as const,
  ...(await test.store(`output ${name}`)),
  ...more,
});
const stored = (test: TestJobs) => readdir(join(test.folder, 'blobs', 'sha256'));
const failure = { code: 'APP_FAILED', message: 'It broke.' } as const;

onEachDatabase(({ newDatabase, itAlone }) => {
  const openTestJobs = async (options?: TestJobsOptions) => openJobsAt(options, await newDatabase());

  describe('create()', () => {
    it('tells the witness about new jobs, not about repeated requests', async () => {
      const accepted: object[] = [];
      await using test = await openTestJobs({ witness: { accepted: (job) => void accepted.push(job) } });
      const inputs = [await inputOf(test, 'volume')];
      const job = { service: 's', owner: 'a', request: { parameters: {}, stem: 'x' }, inputs };
      // Without a fingerprint two requests of one key are the same.
      const first = await test.jobs.create({ ...job, idempotencyKey: 'k' });
      expect(first.existed).toBe(false);
      expect(await test.jobs.create({ ...job, idempotencyKey: 'k' })).toEqual({
        id: first.id,
        existed: true,
      });
      await expect(test.jobs.create({ ...job, idempotencyKey: 'k', fingerprint: 'f' })).rejects.toMatchObject(
        {
          code: 'CONFLICT',
          field: 'Idempotency-Key',
        },
      );
      expect(accepted).toEqual([{ id: first.id, service: 's', owner: 'a', inputs }]);
      // The same key of another owner, and no key, are other jobs.
      expect((await test.jobs.create({ ...job, owner: 'b', idempotencyKey: 'k' })).existed).toBe(false);
      expect((await test.jobs.create(job)).existed).toBe(false);
      expect((await test.jobs.create(job)).existed).toBe(false);
      expect(accepted).toHaveLength(4);
    });

    it('gives concurrent requests with one key one job, different requests CONFLICT', async () => {
      await using test = await openTestJobs();
      const made = await Promise.allSettled(
        ['f', 'f', 'g'].map((fingerprint) => test.add({ idempotencyKey: 'k', fingerprint })),
      );
      // Whichever is first makes the job.
      const statuses = made.map(({ status }) => status).join();
      expect(['fulfilled,fulfilled,rejected', 'rejected,rejected,fulfilled']).toContain(statuses);
      for (const one of made)
        if (one.status === 'rejected') expect(one.reason).toMatchObject({ code: 'CONFLICT' });
      expect(await test.jobs.counts()).toEqual({ queued: 1 });
    });

    it('takes no job whose inputs cannot be stored', async () => {
      await using test = await openTestJobs();
      const inputs = [{ name: 'volume', fileName: 'x.nii', digest: null as never, sizeBytes: 1 }];
      await expect(test.add({ inputs })).rejects.toThrow(/not[- ]null/i);
      await expect(test.add({ inputs, idempotencyKey: 'k' })).rejects.toThrow(/not[- ]null/i);
      expect(await test.jobs.isKnown('a', 'k')).toBe(false);
      expect(await test.jobs.idsOf('a')).toEqual([]);
    });
  });

  describe('get()', () => {
    it('gives a queued, running and succeeded job as it was stored', async () => {
      await using test = await openTestJobs();
      const request: JobRequest = {
        parameters: { factor: 5 },
        frame: 2,
        formats: { mask: 'mha' },
        stem: 'case',
        voxels: 60,
      };
      const id = await test.add({ request });
      const queued = { id, service: 's', owner: 'a', request, createdMs: 1_000_000, outputs: [] };
      expect(await test.jobs.get(id)).toEqual({ ...queued, state: 'queued', attempt: 0 });
      test.clock.wallMs = 1_000_500;
      await test.jobs.claim(['s']);
      const running = { ...queued, attempt: 1, startedMs: 1_000_500 };
      expect(await test.jobs.get(id)).toEqual({ ...running, state: 'running' });
      await test.jobs.touch(id, 1, { stage: 'infer', fraction: 0.25 });
      expect(await test.jobs.get(id)).toEqual({
        ...running,
        state: 'running',
        stage: 'infer',
        fraction: 0.25,
      });
      test.clock.wallMs = 1_000_700;
      const outputs = [
        await outputOf(test, 'text', { type: 'PlainText', format: 'txt' }),
        await outputOf(test, 'mask', { primary: true, geometry: { format: 'nifti' } as never }),
      ];
      await test.jobs.settle(id, 1, { state: 'succeeded', outputs, seconds: 1 });
      expect(await test.jobs.get(id)).toStrictEqual({
        ...running,
        state: 'succeeded',
        settledMs: 1_000_700,
        expiresMs: 2_001_000,
        error: undefined,
        outputs,
      });
      expect(await test.jobs.get('another')).toBeUndefined();
    });

    itAlone('gives the files that are kept besides outputs, and holds them as long', async () => {
      await using test = await openTestJobs();
      const id = await test.add();
      await test.jobs.claim(['s']);
      const outputs = [
        await outputOf(test, 'mask', {
          format: 'stl',
          primary: true,
          geometry: { format: 'nifti' } as never,
          kept: { format: 'nrrd', ...(await test.store('kept mask')) },
        }),
        await outputOf(test, 'table', {
          type: 'Measurements',
          format: 'sr.dcm' as never,
          kept: { format: 'json', ...(await test.store('kept table')) },
        }),
        await outputOf(test, 'text', { type: 'PlainText', format: 'txt' }),
      ];
      await test.jobs.settle(id, 1, { state: 'succeeded', outputs, seconds: 1 });
      expect((await test.jobs.get(id))?.outputs).toStrictEqual(outputs);
      await test.crash();
      expect((await test.jobs.get(id))?.outputs).toStrictEqual(outputs);
      await test.jobs.recover(['s']);
      expect(await stored(test)).toHaveLength(5);
      await test.jobs.remove(id);
      expect(await stored(test)).toEqual([]);
    });

    it('gives the error of a failed job, and no progress of an earlier attempt', async () => {
      await using test = await openTestJobs();
      const id = await test.add();
      await test.jobs.claim(['s']);
      await test.jobs.touch(id, 1, { stage: 'infer', fraction: 0.5 });
      await test.jobs.requeue(id, 1, 'handed back');
      expect(await test.jobs.get(id)).not.toHaveProperty('stage');
      expect((await test.jobs.get(id))?.startedMs).toBeUndefined();
      await test.jobs.claim(['s']);
      expect(await test.jobs.get(id)).not.toHaveProperty('stage');
      await test.jobs.settle(id, 2, { state: 'failed', error: failure });
      expect(await test.jobs.get(id)).toMatchObject({ state: 'failed', error: failure, outputs: [] });
    });
  });

  describe('settle()', () => {
    it('gives the witness the whole job, and stores its receipt', async () => {
      const settled: SettledJob[] = [];
      const asked: SettledJob[] = [];
      const witness: JobWitness = {
        settled: (job) => void settled.push(job),
        receiptOf(job) {
          asked.push(job);
          return job.state === 'succeeded' ? { of: job.id } : undefined;
        },
      };
      await using test = await openTestJobs({ witness });
      const inputs = [await inputOf(test, 'second', 'sha256:as-it-came'), await inputOf(test, 'first')];
      const id = await test.add({ inputs });
      expect(await test.jobs.inputsOf(id)).toStrictEqual(inputs);
      test.clock.wallMs = 1_000_100;
      expect((await test.jobs.claim(['s']))?.inputs).toStrictEqual(inputs);
      test.clock.wallMs = 1_000_300;
      const outputs = [await outputOf(test, 'mask')];
      const by = { device: 'cuda:1', rewrites: ['sub-pixel'] };
      expect(await test.jobs.settle(id, 1, { state: 'succeeded', outputs, seconds: 1, ...by })).toBe(true);
      const job = {
        id,
        service: 's',
        owner: 'a',
        request: { parameters: {}, stem: 'x' },
        state: 'succeeded',
        error: undefined,
        createdMs: 1_000_000,
        startedMs: 1_000_100,
        settledMs: 1_000_300,
        expiresMs: 2_001_000,
        inputs,
        outputs,
        ...by,
      };
      expect(settled).toStrictEqual([job]);
      expect(asked).toStrictEqual([job]);
      expect(await test.jobs.receipt(id)).toEqual({ of: id });
      expect(await test.jobs.inputsOf(id)).toEqual([]);
      const never = await test.add();
      expect(await test.jobs.receipt(never)).toBeUndefined();
      await test.jobs.cancel(never, 'Enough.');
      expect(settled[1]).toMatchObject({
        state: 'canceled',
        startedMs: undefined,
        error: { code: 'CANCELED', message: 'Enough.' },
        outputs: [],
      });
      expect(await test.jobs.receipt(never)).toBeUndefined();
      expect(await test.jobs.receipt('another')).toBeUndefined();
    });

    it('changes nothing when it cannot be written whole', async () => {
      const witness: JobWitness = {
        receiptOf: () => {
          throw new Error('no receipt');
        },
      };
      await using test = await openTestJobs({ witness });
      const id = await test.add({ inputs: [await inputOf(test, 'volume')] });
      await test.jobs.claim(['s']);
      await expect(test.jobs.settle(id, 1, { state: 'failed', error: failure })).rejects.toThrow(
        'no receipt',
      );
      expect(await test.jobs.isRunning(id, 1)).toBe(true);
      expect(await test.jobs.get(id)).toMatchObject({ state: 'running' });
      expect(await test.jobs.inputsOf(id)).toHaveLength(1);
      expect(await stored(test)).toHaveLength(1);
    });

    it('takes the end of the attempt that runs alone', async () => {
      await using test = await openTestJobs();
      const id = await test.add();
      const end = { state: 'failed', error: failure } as const;
      expect(await test.jobs.settle(id, 0, end)).toBe(false);
      await test.jobs.claim(['s']);
      for (const attempt of [0, 2]) expect(await test.jobs.settle(id, attempt, end)).toBe(false);
      expect(await test.jobs.settle(id, 1, end)).toBe(true);
      expect(await test.jobs.settle(id, 1, end)).toBe(false);
      expect(await test.jobs.cancel(id)).toBe(false);
      expect(await test.jobs.settle('another', undefined, end)).toBe(false);
      expect(await test.jobs.hasSucceeded(id, 1)).toBe(false);
      expect(await test.jobs.hasSucceeded('another', 1)).toBe(false);
    });
  });

  describe('remove()', () => {
    it('takes settled jobs alone, and tells the witness why', async () => {
      const removed: unknown[] = [];
      await using test = await openTestJobs({
        witness: { removed: (job, why) => void removed.push([job, why]) },
      });
      const [queued, running, deleted, expired] = await Promise.all([
        test.add({ urgency: 7 }),
        test.add({ service: 'running' }),
        test.add({ owner: 'b' }),
        test.add(),
      ]);
      await test.jobs.claim(['running']);
      await test.jobs.cancel(deleted);
      test.clock.steadyMs += 10;
      await test.jobs.cancel(expired);
      for (const id of [queued, running, 'another']) expect(await test.jobs.remove(id)).toBe(false);
      expect(removed).toEqual([]);
      expect(await test.jobs.remove(deleted)).toBe(true);
      expect(await test.jobs.remove(deleted)).toBe(false);
      test.clock.steadyMs += 999;
      expect(await test.jobs.sweep()).toBe(0);
      test.clock.steadyMs += 1;
      expect(await test.jobs.sweep()).toBe(1);
      expect(removed).toEqual([
        [{ id: deleted, service: 's', owner: 'b' }, 'deleted'],
        [{ id: expired, service: 's', owner: 'a' }, 'expired'],
      ]);
      expect((await test.jobs.idsOf('a')).sort()).toEqual([queued, running].sort());
      expect(await test.jobs.idsOf('b')).toEqual([]);
    });
  });

  itAlone('dropOutputs() deletes the results, and leaves the job and its receipt', async () => {
    await using test = await openTestJobs({ witness: { receiptOf: ({ id }) => ({ of: id }) } });
    const [id, other] = [await test.add(), await test.add()];
    for (const name of ['mask', 'other']) {
      const claimed = (await test.jobs.claim(['s']))!;
      const outputs = [await outputOf(test, name)];
      await test.jobs.settle(claimed.id, 1, { state: 'succeeded', outputs, seconds: 1 });
    }
    let changes = 0;
    test.jobs.watch(id, () => changes++);
    await test.jobs.dropOutputs(id);
    expect(changes).toBe(1);
    expect(await test.jobs.get(id)).toMatchObject({ state: 'succeeded', outputs: [] });
    expect(await test.jobs.receipt(id)).toEqual({ of: id });
    const kept = (await test.jobs.get(other))!.outputs;
    expect(await stored(test)).toEqual(kept.map(({ digest }) => digest.slice(7)));
  });

  describe('sweep()', () => {
    it('truncates the database log, or retries while another program reads it', async () => {
      let fault: unknown;
      let emptied = 0;
      await using test = await openTestJobs((database) => ({
        database: {
          ...database,
          async truncateWal() {
            emptied++;
            if (fault) throw fault;
          },
        },
      }));
      expect(await test.jobs.sweep()).toBe(0);
      fault = new TomaatError('BUSY', '');
      expect(await test.jobs.sweep()).toBe(0);
      expect(emptied).toBe(2);
      for (fault of [new TomaatError('DISK_FULL', ''), new Error('the disk fails')])
        await expect(test.jobs.sweep()).rejects.toBe(fault);
    });
  });

  itAlone('isHeld() knows inputs, outputs, requests that come in, and other keepers', async () => {
    await using test = await openTestJobs();
    const [input, output, held, uploaded, loose] = await Promise.all(
      ['in', 'out', 'held', 'uploaded', 'loose'].map((text) => test.store(text)),
    );
    const named = { name: 'volume', fileName: 'x.nii' };
    const done = await test.add();
    await test.jobs.claim(['s']);
    const outputs = [{ ...(await outputOf(test, 'mask')), ...output }];
    await test.jobs.settle(done, 1, { state: 'succeeded', outputs, seconds: 1 });
    await test.add({ inputs: [{ ...named, ...input }] });
    await test.jobs.hold(held.digest);
    test.jobs.keepAlso(async () => false);
    test.jobs.keepAlso(async (digest) => digest === uploaded.digest);
    const all = [input, output, held, uploaded, loose].map(({ digest }) => digest);
    expect(await Promise.all(all.map((digest) => test.jobs.isHeld(digest)))).toEqual([
      ...[true, true, true, true, false],
    ]);
    await test.jobs.drop(all);
    expect(await Promise.all(all.map((digest) => test.blobs.stat(digest)))).toMatchObject([
      ...[input, output, held, uploaded, undefined],
    ]);
    await test.jobs.hold(held.digest);
    await test.jobs.release([held.digest]);
    expect(await test.blobs.stat(held.digest)).toEqual(held);
    await test.jobs.release([held.digest]);
    expect(await test.blobs.stat(held.digest)).toBeUndefined();
    // Nothing is owed by one release too many.
    const again = await test.store('held');
    await test.jobs.release(['sha256:'.padEnd(71, '0')]);
    await test.jobs.hold(again.digest);
    expect(await test.jobs.isHeld(again.digest)).toBe(true);
  });

  describe('typicalSeconds()', () => {
    it('is the upper middle of the last 25 predictions of a service', async () => {
      await using test = await openTestJobs();
      expect(await test.jobs.typicalSeconds('s')).toBeUndefined();
      const seconds = async (service = 's') =>
        (
          await test.database.db
            .selectFrom('duration')
            .select('seconds')
            .where('service', '=', service)
            .orderBy('id')
            .execute()
        ).map((row) => row.seconds);
      const predict = async (took: number, service = 's') => {
        const id = await test.add({ service });
        await test.jobs.claim([service]);
        await test.jobs.settle(id, 1, { state: 'succeeded', outputs: [], seconds: took });
      };
      await predict(0.5, 'other');
      await predict(8);
      await predict(1);
      expect(await test.jobs.typicalSeconds('s')).toBe(8);
      await predict(2);
      expect(await test.jobs.typicalSeconds('s')).toBe(2);
      await predict(4);
      expect(await test.jobs.typicalSeconds('s')).toBe(4);
      for (let took = 101; took <= 125; took++) await predict(took);
      expect(await seconds()).toEqual(Array.from({ length: 25 }, (_, at) => 101 + at));
      expect(await seconds('other')).toEqual([0.5]);
      expect(await test.jobs.typicalSeconds('s')).toBe(113);
      // What failed says nothing of how long one takes.
      const id = await test.add();
      await test.jobs.claim(['s']);
      await test.jobs.settle(id, 1, { state: 'failed', error: failure });
      expect((await seconds()).at(-1)).toBe(125);
    });
  });

  describe('expectedSeconds()', () => {
    it('uses the seconds per voxel, or without those the total seconds', async () => {
      await using test = await openTestJobs();
      const predict = async (seconds: number, voxels?: number) => {
        const id = await test.add({ request: { parameters: {}, stem: 'x', voxels } });
        await test.jobs.claim(['s']);
        await test.jobs.settle(id, 1, { state: 'succeeded', outputs: [], seconds });
      };
      expect(await test.jobs.expectedSeconds('s', 100)).toBeUndefined();
      await predict(7);
      expect(await test.jobs.expectedSeconds('s', 100)).toBe(7);
      await predict(40, 80);
      expect(await test.jobs.expectedSeconds('s', 100)).toBe(50);
      expect(await test.jobs.expectedSeconds('s', 1)).toBe(0.5);
      expect(await test.jobs.expectedSeconds('s', 0)).toBe(40);
      await predict(2, 8);
      await predict(6, 8);
      // 0.25, 0.5 and 0.75 seconds for each voxel.
      expect(await test.jobs.expectedSeconds('s', 1000)).toBe(500);
    });
  });

  describe('expectedWaitSeconds()', () => {
    it('shares the jobs before it among the slots', async () => {
      await using test = await openTestJobs();
      expect(await test.jobs.expectedWaitSeconds(undefined, 's', 1)).toBeUndefined();
      const done = await test.add();
      await test.jobs.claim(['s']);
      await test.jobs.settle(done, 1, { state: 'succeeded', outputs: [], seconds: 6 });
      expect(await test.jobs.expectedWaitSeconds(undefined, 's', 1)).toBe(0);
      const ids = [await test.add(), await test.add(), await test.add()];
      expect(await test.jobs.expectedWaitSeconds(ids[0], 's', 2)).toBe(0);
      expect(await test.jobs.expectedWaitSeconds(ids[2], 's', 2)).toBe(6);
      expect(await test.jobs.expectedWaitSeconds(ids[2], 's', 1)).toBe(12);
      expect(await test.jobs.expectedWaitSeconds(ids[2], 's', 0)).toBe(12);
      expect(await test.jobs.expectedWaitSeconds(undefined, 's', 1)).toBe(18);
      expect(await test.jobs.expectedWaitSeconds(undefined, 'other', 1)).toBeUndefined();
      // It runs, and waits no more.
      await test.jobs.claim(['s']);
      expect(await test.jobs.expectedWaitSeconds(ids[0], 's', 1)).toBeUndefined();
    });
  });

  describe('createJobs()', () => {
    it('uses a lease of 15 s and the wall clock by default', async () => {
      await using test = await openTestJobs();
      const { database, blobs } = test;
      const jobs = createJobs({ database, blobs, resultTtlMs: 60_000, maxQueued: 1 });
      expect(jobs.leaseMs).toBe(15_000);
      const beforeMs = Date.now();
      const request = { parameters: {}, stem: 'x' };
      const { id } = await jobs.create({ service: 's', owner: 'a', request, inputs: [] });
      expect((await jobs.claim(['s'], 'gpu-1'))?.id).toBe(id);
      expect(await jobs.lapse()).toEqual([]);
      await jobs.cancel(id);
      const job = (await jobs.get(id))!;
      expect(job.createdMs).toBeGreaterThanOrEqual(beforeMs);
      expect(job.expiresMs! - job.settledMs!).toBeGreaterThanOrEqual(60_000);
      expect(job.expiresMs! - job.settledMs!).toBeLessThan(70_000);
    });

    it('has a database that takes no state that is not one', async () => {
      await using test = await openTestJobs();
      const id = await test.add();
      await expect(
        sql`UPDATE job SET state = 'lost' WHERE id = ${id}`.execute(test.database.db),
      ).rejects.toThrow(/check constraint/i);
    });
  });
});
