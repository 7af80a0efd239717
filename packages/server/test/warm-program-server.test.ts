import { readFile, rm } from 'node:fs/promises';
import type { Job } from '@tomaat/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { encode, phantom } from './phantom.ts';
import { type RealServer, startRealServer } from './real-server.ts';
import { temporaryFolder } from './test-server.ts';
import { isAlive, isGone, nodeApp } from './warm-fixture.ts';

/* Programs that a server keeps: its memory, its jobs, and that nothing is left behind however it ends. */

let folder: string;
let bytes: Uint8Array<ArrayBuffer>;
/** It holds 300 MB, in a process that the program has started, and both ignore SIGTERM. */
let large: string;
/** It computes until it is stopped if its parameter says b. */
let slow: string;

beforeAll(async () => {
  folder = await temporaryFolder();
  bytes = Uint8Array.from(await encode(phantom(), 'nii.gz'));
  const holder = `process.on("SIGTERM", () => {}); const all = Buffer.alloc(3e8, 1); console.log("ready"); setInterval(() => all, 1e6);`;
  large = await nodeApp(folder, `finish(String(holder.pid));`, {
    start: `process.on('SIGTERM', () => {});
      const holder = spawn(process.execPath, ['-e', ${JSON.stringify(holder)}], { stdio: ['ignore', 'pipe', 'inherit'] });
      await new Promise((resolve) => holder.stdout.once('data', resolve));`,
  });
  slow = await nodeApp(
    folder,
    `if (parameters.say === 'b') { say({ fraction: 0.5 }); await sleep(600_000); } finish();`,
  );
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function submit(server: RealServer, app: string, say = 'a', wait = 0): Promise<Job> {
  const service = app.slice(app.lastIndexOf('/') + 1);
  const response = await fetch(`${server.url}/api/services/${service}/predictions?say=${say}`, {
    method: 'POST',
    body: bytes,
    headers: { 'content-type': 'application/octet-stream', prefer: `wait=${wait}` },
  });
  return (await response.json()) as Job;
}

/** The pids in the report of a prediction. */
async function predict(server: RealServer, app: string): Promise<number[]> {
  const job = await submit(server, app, 'a', 60);
  expect([job.state, job.error?.detail]).toEqual(['succeeded', undefined]);
  const report = await fetch(`${server.url}/api/jobs/${job.id}/outputs/report`);
  const pids = (await report.text()).trim().split(' ').map(Number);
  expect(pids.every((pid) => pid > 0)).toBe(true);
  return pids;
}

async function childrenOf(pid: number): Promise<number[]> {
  const text = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8').catch(() => '');
  return text.split(' ').filter(Boolean).map(Number);
}

const isComputing = async (server: RealServer, { id }: Job) =>
  expect
    .poll(async () => ((await (await fetch(`${server.url}/api/jobs/${id}`)).json()) as Job).fraction, {
      timeout: 30_000,
    })
    .toBeGreaterThan(0.4);

describe.skipIf(process.platform !== 'linux')('a program that a server keeps', () => {
  it('counts with all its processes as the memory of its idle child', async () => {
    await using roomy = await startRealServer([large], { maxIdleMb: 2000 });
    const kept = await predict(roomy, large);
    expect(await predict(roomy, large)).toEqual(kept);
    await using narrow = await startRealServer([large, slow], { maxIdleMb: 320 });
    const pids = await predict(narrow, large);
    expect(pids).toHaveLength(2);
    for (const pid of pids) await isGone(pid);
    await expect.poll(() => childrenOf(narrow.pid), { timeout: 20_000 }).toEqual([]);
    // A small one stays.
    expect(await predict(narrow, slow)).toEqual(await predict(narrow, slow));
  });

  it('ends with the server, and with one that is killed', async () => {
    for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
      const server = await startRealServer([large, slow]);
      const pids = [...(await predict(server, large)), ...(await predict(server, slow))];
      expect(await Promise.all(pids.map(isAlive))).toEqual([true, true, true]);
      await server.kill(signal);
      for (const pid of pids) await isGone(pid);
    }
  });

  it('ends with a server that is killed in the middle of a prediction', async () => {
    const server = await startRealServer([slow]);
    const [pid] = await predict(server, slow);
    await isComputing(server, await submit(server, slow, 'b'));
    await server.kill('SIGKILL');
    await isGone(pid);
  });

  it('ends with its child, and the next prediction has another', async () => {
    await using server = await startRealServer([large]);
    const pids = await predict(server, large);
    const [child] = await childrenOf(server.pid);
    process.kill(child, 'SIGKILL');
    for (const pid of pids) await isGone(pid);
    const others = await predict(server, large);
    for (const pid of others) expect(pids).not.toContain(pid);
  });

  it('loses the cancelled prediction alone', async () => {
    await using server = await startRealServer([slow], { workers: 1 });
    const [pid] = await predict(server, slow);
    const job = await submit(server, slow, 'b');
    await isComputing(server, job);
    const waiting = await submit(server, slow);
    await fetch(`${server.url}/api/jobs/${job.id}/cancel`, { method: 'POST' });
    await isGone(pid);
    const done = async () =>
      ((await (await fetch(`${server.url}/api/jobs/${waiting.id}`)).json()) as Job).state;
    await expect.poll(done, { timeout: 30_000 }).toBe('succeeded');
    expect(await predict(server, slow)).not.toContain(pid);
  });

  it('may be killed between two predictions', async () => {
    await using server = await startRealServer([slow]);
    const [pid] = await predict(server, slow);
    process.kill(pid, 'SIGTERM');
    expect(await predict(server, slow)).not.toContain(pid);
  });

  it('that takes too long fails its job with the time limit', async () => {
    const limited = await nodeApp(folder, `say({ fraction: 0.5 }); await sleep(600_000);`, {
      limits: { seconds: 2 },
    });
    await using server = await startRealServer([limited]);
    const job = await submit(server, limited, 'a', 60);
    expect([job.state, job.error?.code]).toEqual(['failed', 'TIMEOUT']);
  });
});
