import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Blobs, openBlobs } from './blobs.ts';
import { createJobs, type Jobs, type NewJob } from './jobs.ts';
import { openServerDatabase } from './server-database.ts';

let folder: string;
let clockMs: number;
let opened: AsyncDisposableStack;
let jobs: Jobs;
let blobs: Blobs;

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
    now: () => clockMs,
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

  it('recover() queues what ran here again, and fails it after three losses with the reason', async () => {
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

  it('recover() fails what no service is there for any more, with the reason and without its input', async () => {
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
        message: expect.stringContaining(`The service ${service} is not offered here any more`),
      });
    }
    expect(await blobs.stat(digest)).toBeUndefined();
    expect(jobs.isRunning(elsewhere, 1)).toBe(false);
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

  it('lapse() takes a job from a worker that is not heard of; its late answer changes nothing', async () => {
    const id = await add();
    const first = (await jobs.claim(['s'], 'gpu-1'))!;
    clockMs += 4000;
    expect(jobs.touch(id, first.attempt, { stage: 'infer', fraction: 0.5 })).toBe(true);
    clockMs += 4000;
    expect(await jobs.lapse()).toEqual([]);
    clockMs += 1001;
    expect(await jobs.lapse()).toEqual([id]);
    expect(jobs.touch(id, first.attempt)).toBe(false);
    expect(await jobs.settle(id, first.attempt, { state: 'succeeded', outputs: [], seconds: 1 })).toBe(false);
    const second = (await jobs.claim(['s'], 'gpu-2'))!;
    expect(second.attempt).toBe(2);
    expect(
      await jobs.settle(id, first.attempt, { state: 'failed', error: { code: 'INTERNAL', message: '' } }),
    ).toBe(false);
    expect(await jobs.settle(id, second.attempt, { state: 'succeeded', outputs: [], seconds: 1 })).toBe(true);
    expect(await jobs.hasSucceeded(id, 2)).toBe(true);
  });

  it('recover() leaves a job to a worker elsewhere for the time of a lease', async () => {
    const id = await add();
    await jobs.claim(['s'], 'gpu-1');
    await crash();
    expect(await jobs.recover(['s'])).toMatchObject({ requeued: 0, failed: 0 });
    expect(jobs.touch(id, 1)).toBe(true);
    clockMs += 5001;
    await jobs.lapse();
    expect(await stateOf(id)).toBe('queued');
  });

  it('create() refuses a full queue with BUSY, but repeats the answer to a key that it knows', async () => {
    const id = await add({ idempotencyKey: 'k', fingerprint: 'f' });
    await add();
    await add();
    await expect(add()).rejects.toMatchObject({ code: 'BUSY' });
    expect(await add({ idempotencyKey: 'k', fingerprint: 'f' })).toBe(id);
    await expect(add({ idempotencyKey: 'k', fingerprint: 'g' })).rejects.toMatchObject({ code: 'CONFLICT' });
    expect(await jobs.isKnown('a', 'k')).toBe(true);
    expect(await jobs.isKnown('b', 'k')).toBe(false);
  });

  it('several requests with one key at a time make one job', async () => {
    const ids = await Promise.all(
      Array.from({ length: 3 }, () => add({ idempotencyKey: 'k', fingerprint: 'f' })),
    );
    expect(new Set(ids).size).toBe(1);
    expect(await jobs.counts()).toEqual({ queued: 1 });
  });

  it('cancel() in the moment of a claim leaves neither a ghost in the queue nor a running one', async () => {
    for (let round = 0; round < 30; round++) {
      const id = await add();
      const [claimed] = await Promise.all([jobs.claim(['s']), jobs.cancel(id)]);
      expect(await stateOf(id)).toBe('canceled');
      if (claimed) expect(jobs.isRunning(id, claimed.attempt)).toBe(false);
      expect(await jobs.positionOf(id)).toBeUndefined();
    }
    expect(await jobs.claim(['s'])).toBeUndefined();
  });

  it('tells the wait of a queued job from its position and the service’s history', async () => {
    const done = await add();
    await jobs.claim(['s']);
    await jobs.settle(done, 1, { state: 'succeeded', outputs: [], seconds: 6 });
    await add();
    const id = await add();
    expect(await jobs.positionOf(id)).toBe(1);
    expect(await jobs.expectedWaitSeconds(id, 's', 2)).toBe(3);
  });
});
