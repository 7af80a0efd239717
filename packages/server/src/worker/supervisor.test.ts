import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type ErrorData, TomaatError } from '@tomaat/core';
import pino from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { writeApp } from '../../test/app-fixture.ts';
import { encode, obliqueAffine, phantom } from '../../test/phantom.ts';
import { type App, openApp } from '../apps.ts';
import type { ClaimedJob } from '../store/jobs/job-records.ts';
import type { JobSource } from './job-source.ts';
import { type Supervisor, type SupervisorOptions, startSupervisor } from './supervisor.ts';

let folder: string;
let input: string;
let supervisor: Supervisor | undefined;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-supervisor-'));
  input = join(folder, 'input');
  await writeFile(input, await encode(phantom(obliqueAffine, [5, 4, 3]), 'nii.gz'));
});
afterEach(async () => {
  await supervisor?.close();
  supervisor = undefined;
  await rm(folder, { recursive: true, force: true });
});

const jobOf = (id: string, parameters: Record<string, unknown> = {}): ClaimedJob => ({
  id,
  service: 'app',
  attempt: 1,
  request: { parameters, stem: 'x' },
  inputs: [{ name: 'volume', fileName: 'volume.nii.gz', digest: 'sha256:0', sizeBytes: 100 }],
});

/** A source of these jobs, one after the other, that takes down what becomes of each. */
function sourceOf(jobs: ClaimedJob[], more: Partial<JobSource> = {}) {
  const ends: { id: string; error?: ErrorData }[] = [];
  const source: JobSource = {
    async claim(_services, signal) {
      const job = jobs.shift();
      if (!job) await delay(1e6, undefined, { signal }).catch(() => {});
      return job;
    },
    inputPath: async () => input,
    isRunning: () => true,
    touch() {},
    async complete({ id }) {
      ends.push({ id });
      return true;
    },
    async fail({ id }, error) {
      ends.push({ id, error: error.toJSON() });
      return true;
    },
    async handBack() {},
    onCancel: () => () => {},
    ...more,
  };
  return { source, ends };
}

async function start(source: JobSource, infer: string, more: Partial<SupervisorOptions> = {}): Promise<App> {
  const inputs = { volume: { type: 'volume' }, how: { type: 'radiobutton', options: ['well', 'badly'] } };
  const app = await openApp(await writeApp(folder, 'app', { infer, inputs }));
  const workFolder = join(folder, 'work');
  const logger = pino({ level: 'silent' });
  supervisor = await startSupervisor({
    apps: [app],
    source,
    slots: 1,
    maxIdle: 1,
    workFolder,
    maxVoxels: 1e6,
    logger,
    ...more,
  });
  return app;
}

const limit = { timeout: 20_000, interval: 20 };

describe('startSupervisor()', { timeout: 30_000 }, () => {
  it('retries recording the end of a job, with its files deleted first', async () => {
    const tries: string[][] = [];
    const { source } = sourceOf([jobOf('a')], {
      async fail() {
        tries.push(await readdir(join(folder, 'work')));
        if (tries.length < 3) throw new Error('database or disk is full');
        return true;
      },
    });
    await start(source, `throw new Error('no');`);
    await expect.poll(() => tries, limit).toEqual([[], [], []]);
  });

  it('stops retrying when it is closed, and hands the job back', async () => {
    let tries = 0;
    const handedBack: string[] = [];
    const { source } = sourceOf([jobOf('a')], {
      async fail() {
        tries++;
        throw new Error('database or disk is full');
      },
      async handBack({ id }) {
        handedBack.push(id);
      },
    });
    await start(source, `throw new Error('no');`);
    await expect.poll(() => tries, limit).toBeGreaterThan(0);
    await supervisor!.close();
    expect(handedBack).toEqual(['a']);
  });

  it('does not compute a job that was cancelled before anyone listened for that', async () => {
    const looked: string[] = [];
    const { source, ends } = sourceOf([jobOf('canceled'), jobOf('b')], {
      isRunning: ({ id }) => id !== 'canceled',
      async inputPath({ id }) {
        looked.push(id);
        return input;
      },
    });
    await start(source, 'return { segmentation: bright(volume) };');
    await expect.poll(() => ends, limit).toEqual([{ id: 'b' }]);
    expect(looked).toEqual(['b']);
  });

  it('explains a child’s exit by output of that job, not earlier ones', async () => {
    const jobs = [jobOf('a', { how: 'well' }), jobOf('b', { how: 'badly' })];
    const { source, ends } = sourceOf(jobs);
    await start(
      source,
      `if (inputs.how === 'badly') { process.kill(process.pid, 'SIGSEGV'); await sleep(60000); }
       console.error('warning: cache: out of memory');
       await sleep(200);
       return { segmentation: bright(volume) };`,
    );
    await expect.poll(() => ends.length, limit).toBe(2);
    expect(ends[0]).toEqual({ id: 'a' });
    expect(ends[1].error).toMatchObject({ code: 'WORKER_DIED', message: expect.stringContaining('SIGSEGV') });
  });

  it('idle: ends after the time without a job, counted from the end of the last one', async () => {
    const jobs = [jobOf('a')];
    let completedMs = 0;
    const { source, ends } = sourceOf(jobs, {
      async claim() {
        const job = jobs.shift();
        if (!job) await delay(20);
        return job;
      },
      async complete({ id }) {
        // The child is free by now, the job is still held.
        await delay(400);
        completedMs = performance.now();
        ends.push({ id });
        return true;
      },
    });
    const infer = 'await sleep(400); return { segmentation: bright(volume) };';
    await start(source, infer, { slots: 2, idleExitMs: 200 });
    await supervisor!.idle;
    expect(ends).toEqual([{ id: 'a' }]);
    expect(performance.now() - completedMs).toBeGreaterThanOrEqual(199);
  });

  it('idle: rejects with the last fault if no job could be asked for', async () => {
    const { source } = sourceOf([], {
      async claim() {
        await delay(20);
        throw new TomaatError('UNREACHABLE', 'The network is down.');
      },
    });
    await start(source, '', { slots: 2, idleExitMs: 0 });
    await expect(supervisor!.idle).rejects.toMatchObject({ code: 'UNREACHABLE' });
  });
});
