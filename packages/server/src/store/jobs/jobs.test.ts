import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Blobs, openBlobs } from '../blobs/blobs.ts';
import { openServerDatabase } from '../database/server-database.ts';
import type { NewJob, SettledJob } from './job-records.ts';
import { createJobs, type Jobs } from './jobs.ts';

let folder: string;
let clockMs: number;
/** How far the wall clock was set forward. */
let wallAheadMs: number;
let opened: AsyncDisposableStack;
let jobs: Jobs;
let blobs: Blobs;
let settled: SettledJob[];

async function open(): Promise<void> {
  opened = new AsyncDisposableStack();
  const database = opened.use(await openServerDatabase(folder));
  blobs = opened.use(await openBlobs(join(folder, 'blobs')));
  jobs = createJobs({
    database,
    blobs,
    resultTtlMs: 1000,
    maxQueued: 3,
    leaseMs: 5000,
    now: () => clockMs + wallAheadMs,
    steadyMs: () => clockMs,
    monotonicMs: () => clockMs,
    witness: { settled: (job) => void settled.push(job) },
    concurrencyOf: (service) => (service === 'one' ? 1 : undefined),
  });
}
/** What a crash leaves: the files, and nothing of the memory. */
async function crash(): Promise<void> {
  await opened.disposeAsync();
  await open();
}

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-jobs-'));
  clockMs = 1_000_000;
  wallAheadMs = 0;
  settled = [];
  await open();
});
afterEach(async () => {
  await opened.disposeAsync();
  await rm(folder, { recursive: true, force: true });
});

const request = { parameters: {}, stem: 'x' };
const add = async (more: Partial<NewJob> = {}) =>
  (await jobs.create({ service: 's', owner: 'a', request, inputs: [], ...more })).id;
const stateOf = async (id: string) => (await jobs.get(id))?.state;

describe('createJobs()', () => {
  it('claim() gives each job once, with a new attempt number', async () => {
    const id = await add();
    const claims = await Promise.all([jobs.claim(['s']), jobs.claim(['s']), jobs.claim(['s'])]);
    expect(claims.filter(Boolean).map((claim) => [claim?.id, claim?.attempt])).toEqual([[id, 1]]);
  });

  it('keeps a service to its limit under claims at the same time', async () => {
    for (let i = 0; i < 3; i++) await add({ service: 'one' });
    const claims = await Promise.all(Array.from({ length: 8 }, () => jobs.claim(['one'])));
    expect(claims.filter(Boolean)).toHaveLength(1);
  });

  it('recover() requeues interrupted jobs, and fails them after three losses', async () => {
    const id = await add();
    for (let loss = 1; loss <= 3; loss++) {
      expect((await jobs.claim(['s']))?.attempt).toBe(loss);
      await crash();
      const recovered = await jobs.recover(['s']);
      expect(recovered).toMatchObject(loss < 3 ? { requeued: 1, failed: 0 } : { requeued: 0, failed: 1 });
    }
    expect((await jobs.get(id))?.error).toMatchObject({
      code: 'WORKER_DIED',
      message: expect.stringContaining('3 times'),
    });
  });

  it('recover() fails jobs of removed services, with the reason, and drops inputs', async () => {
    const writer = await blobs.create({ expectedBytes: 3 });
    await writer.write(Buffer.from('abc'));
    const { digest, sizeBytes } = await writer.commit();
    const input = { name: 'volume', fileName: 'volume.nii', digest, sizeBytes };
    const queued = await add({ service: 'retired', inputs: [input] });
    const elsewhere = await add({ service: 'retired too' });
    await jobs.claim(['retired too'], 'gpu-1');
    const kept = await add();
    await crash();
    expect(await jobs.recover(['s', 'one'])).toMatchObject({ requeued: 0, failed: 2 });
    for (const [id, service] of [
      [queued, 'retired'],
      [elsewhere, 'retired too'],
    ]) {
      expect((await jobs.get(id))?.error).toMatchObject({
        code: 'NOT_FOUND',
        message: expect.stringContaining(`The service ${service} is no longer offered here`),
      });
    }
    expect(await blobs.stat(digest)).toBeUndefined();
    expect(await jobs.isRunning(elsewhere, 1)).toBe(false);
    expect(await stateOf(kept)).toBe('queued');
    expect(await jobs.positionOf(kept)).toBe(0);
  });

  it('requeue() of what was handed back is not held against the job', async () => {
    const id = await add();
    for (let attempt = 1; attempt <= 5; attempt++) {
      expect((await jobs.claim(['s']))?.attempt).toBe(attempt);
      expect(await jobs.requeue(id, attempt, 'handed back')).toBe('queued');
    }
    expect(await jobs.requeue(id, 5, 'lost')).toBeUndefined();
  });

  it('lapse() takes a job from a silent worker; its late answer is ignored', async () => {
    const id = await add();
    const first = (await jobs.claim(['s'], 'gpu-1'))!;
    clockMs += 4000;
    expect(await jobs.touch(id, first.attempt, { stage: 'infer', fraction: 0.5 })).toBe(true);
    clockMs += 4000;
    expect(await jobs.lapse()).toEqual([]);
    clockMs += 1001;
    expect(await jobs.lapse()).toEqual([id]);
    expect(await jobs.touch(id, first.attempt)).toBe(false);
    expect(await jobs.settle(id, first.attempt, { state: 'succeeded', outputs: [], seconds: 1 })).toBe(false);
    const second = (await jobs.claim(['s'], 'gpu-2'))!;
    expect(second.attempt).toBe(2);
    expect(
      await jobs.settle(id, first.attempt, { state: 'failed', error: { code: 'INTERNAL', message: '' } }),
    ).toBe(false);
    expect(await jobs.settle(id, second.attempt, { state: 'succeeded', outputs: [], seconds: 1 })).toBe(true);
    expect(await jobs.hasSucceeded(id, 2)).toBe(true);
  });

  it.each([7_200_000, -3_600_000])(
    'lapse() measures elapsed time when the clock is set by %d ms',
    async (ms) => {
      const id = await add();
      await jobs.claim(['s'], 'gpu-1');
      wallAheadMs = ms;
      clockMs += 4999;
      expect(await jobs.lapse()).toEqual([]);
      clockMs += 1;
      expect(await jobs.lapse()).toEqual([id]);
      await jobs.claim(['s'], 'gpu-2');
      wallAheadMs = 0;
      clockMs += 4000;
      expect(await jobs.touch(id, 2)).toBe(true);
      wallAheadMs = ms;
      clockMs += 4000;
      expect(await jobs.lapse()).toEqual([]);
    },
  );

  it('lapse() does not count a worker that gave up while the server was away', async () => {
    const id = await add();
    for (let attempt = 1; attempt <= 4; attempt++) {
      expect((await jobs.claim(['s'], 'gpu-1'))?.attempt).toBe(attempt);
      await crash();
      await jobs.recover(['s']);
      clockMs += 5000;
      expect(await jobs.lapse()).toEqual([id]);
      expect(await stateOf(id)).toBe('queued');
    }
    // One that falls silent under the server's eyes does.
    for (let attempt = 5; attempt <= 7; attempt++) {
      await jobs.claim(['s'], 'gpu-1');
      clockMs += 5000;
      await jobs.lapse();
    }
    expect(await stateOf(id)).toBe('failed');
  });

  it('recover() does not count a loss that the child outlived', async () => {
    const id = await add();
    for (let attempt = 1; attempt <= 4; attempt++) {
      expect((await jobs.claim(['s']))?.attempt).toBe(attempt);
      await crash();
      const seen: object[] = [];
      await jobs.recover(['s'], { attempts: [], isLost: (job) => seen.push(job) === 0 });
      expect(seen).toEqual([{ id, attempt }]);
      expect(await stateOf(id)).toBe('queued');
    }
  });

  it('recover() leaves a job to a worker elsewhere for the time of a lease', async () => {
    const id = await add();
    await jobs.claim(['s'], 'gpu-1');
    await crash();
    expect(await jobs.recover(['s'])).toMatchObject({ requeued: 0, failed: 0 });
    expect(await jobs.touch(id, 1)).toBe(true);
    clockMs += 5001;
    await jobs.lapse();
    expect(await stateOf(id)).toBe('queued');
  });

  it('create() refuses with BUSY when full, but repeats known keys’ answers', async () => {
    const id = await add({ idempotencyKey: 'k', fingerprint: 'f' });
    await add();
    await add();
    await expect(add()).rejects.toMatchObject({ code: 'BUSY' });
    expect(await add({ idempotencyKey: 'k', fingerprint: 'f' })).toBe(id);
    await expect(add({ idempotencyKey: 'k', fingerprint: 'g' })).rejects.toMatchObject({ code: 'CONFLICT' });
    expect(await jobs.isKnown('a', 'k')).toBe(true);
    expect(await jobs.isKnown('b', 'k')).toBe(false);
  });

  it('several concurrent requests with one key make one job', async () => {
    const ids = await Promise.all(
      Array.from({ length: 3 }, () => add({ idempotencyKey: 'k', fingerprint: 'f' })),
    );
    expect(new Set(ids).size).toBe(1);
    expect(await jobs.counts()).toEqual({ queued: 1 });
  });

  it('cancel() during a claim leaves no queued or running job behind', async () => {
    for (let round = 0; round < 30; round++) {
      const id = await add();
      const [claimed] = await Promise.all([jobs.claim(['s']), jobs.cancel(id)]);
      expect(await stateOf(id)).toBe('canceled');
      if (claimed) expect(await jobs.isRunning(id, claimed.attempt)).toBe(false);
      expect(await jobs.positionOf(id)).toBeUndefined();
    }
    expect(await jobs.claim(['s'])).toBeUndefined();
  });

  it.each(['handed back', 'lost'] as const)(
    'requeue() of an attempt that runs no more changes nothing: %s',
    async (why) => {
      const id = await add();
      await jobs.claim(['s']);
      await jobs.requeue(id, 1, 'handed back');
      expect((await jobs.claim(['s']))?.attempt).toBe(2);
      expect(await jobs.requeue(id, 1, why)).toBeUndefined();
      expect(await jobs.isRunning(id, 2)).toBe(true);
      expect(await jobs.get(id)).toMatchObject({ state: 'running', attempt: 2 });
      expect(await jobs.claim(['s'])).toBeUndefined();
      expect(await jobs.hasSucceeded(id, 2)).toBe(false);
      expect(await jobs.settle(id, 2, { state: 'succeeded', outputs: [], seconds: 1 })).toBe(true);
      expect(await jobs.requeue(id, 2, why)).toBeUndefined();
      expect(await stateOf(id)).toBe('succeeded');
      expect(await jobs.hasSucceeded(id, 1)).toBe(false);
    },
  );

  it.each(['succeeded', 'failed', 'canceled'] as const)(
    'keeps a job that has %s for the time of a result',
    async (state) => {
      const id = await add();
      await jobs.claim(['s']);
      clockMs += 333;
      const error = { code: 'APP_FAILED', message: '' } as const;
      if (state === 'succeeded') await jobs.settle(id, 1, { state, outputs: [], seconds: 1 });
      else await jobs.settle(id, 1, { state, error });
      const { settledMs, expiresMs } = (await jobs.get(id))!;
      expect(settledMs).toBe(clockMs);
      expect(expiresMs! - settledMs!).toBe(1000);
      expect(settled.at(-1)).toMatchObject({ id, settledMs, expiresMs });
      clockMs += 999;
      expect(await jobs.sweep()).toBe(0);
      expect(await stateOf(id)).toBe(state);
      clockMs += 1;
      expect(await jobs.sweep()).toBe(1);
      expect(await stateOf(id)).toBeUndefined();
    },
  );

  it('keeps a settled job longer when asked, up to seven periods', async () => {
    const id = await add();
    await expect(jobs.keep(id)).rejects.toMatchObject({ code: 'NOT_READY' });
    await jobs.cancel(id);
    const { settledMs } = (await jobs.get(id))!;
    for (let periods = 1; periods < 7; periods++) {
      clockMs += 900;
      expect(await jobs.keep(id)).toBe(true);
      expect((await jobs.get(id))!.expiresMs).toBe(clockMs + 1000);
    }
    clockMs += 900;
    expect(await jobs.keep(id)).toBe(true);
    expect((await jobs.get(id))!.expiresMs).toBe(settledMs! + 7000);
    await expect(jobs.keep(id)).rejects.toMatchObject({ code: 'CONFLICT' });
    clockMs += 700;
    expect(await jobs.sweep()).toBe(1);
    expect(await jobs.keep(id)).toBe(false);
  });

  describe('blobs of jobs', () => {
    async function store(text: string) {
      const writer = await blobs.create();
      await writer.write(Buffer.from(text));
      const { digest, sizeBytes } = await writer.commit();
      return { digest, sizeBytes };
    }
    const input = async (text: string) => ({
      name: 'volume',
      fileName: 'volume.nii',
      ...(await store(text)),
    });
    const output = async (text: string) => ({
      name: 'segmentation',
      type: 'LabelVolume',
      label: 'segmentation',
      primary: true,
      format: 'nii.gz' as const,
      ...(await store(text)),
    });
    const stored = () => readdir(join(folder, 'blobs', 'sha256'));

    it.each(['remove()', 'sweep()'])('are gone with %s: nothing of a result is left', async (how) => {
      const id = await add({ inputs: [await input('in')] });
      await jobs.claim(['s']);
      expect(await stored()).toHaveLength(1);
      const outputs = [await output('out')];
      await jobs.settle(id, 1, { state: 'succeeded', outputs, seconds: 1 });
      // The input goes at once.
      expect(await stored()).toEqual([outputs[0].digest.slice(7)]);
      clockMs += 1000;
      if (how === 'remove()') expect(await jobs.remove(id)).toBe(true);
      else expect(await jobs.sweep()).toBe(1);
      expect(await stored()).toEqual([]);
    });

    it.each(['failed', 'canceled'] as const)('are gone when the job has %s', async (state) => {
      const id = await add({ inputs: [await input('in')] });
      await jobs.claim(['s']);
      await jobs.settle(id, 1, { state, error: { code: 'CANCELED', message: '' } });
      expect(await stored()).toEqual([]);
    });

    it('stay while another job has an equal one', async () => {
      const first = await add({ inputs: [await input('same')] });
      const second = await add({ inputs: [await input('same')] });
      await jobs.cancel(first);
      expect(await stored()).toHaveLength(1);
      await jobs.claim(['s']);
      await jobs.settle(second, 1, { state: 'succeeded', outputs: [await output('same')], seconds: 1 });
      await jobs.remove(first);
      expect(await stored()).toHaveLength(1);
      await jobs.remove(second);
      expect(await stored()).toEqual([]);
    });

    it('held by requests are deleted with the last holder', async () => {
      const { digest } = await store('held');
      await jobs.hold(digest);
      await jobs.hold(digest);
      await jobs.release([digest]);
      expect(await stored()).toHaveLength(1);
      await jobs.release([digest]);
      expect(await stored()).toEqual([]);
    });
  });

  it('estimates a queued job’s wait from its position and service history', async () => {
    const done = await add();
    await jobs.claim(['s']);
    await jobs.settle(done, 1, { state: 'succeeded', outputs: [], seconds: 6 });
    await add();
    const id = await add();
    expect(await jobs.positionOf(id)).toBe(1);
    expect(await jobs.expectedWaitSeconds(id, 's', 2)).toBe(3);
  });
});
