import { existsSync } from 'node:fs';
import { readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Job } from '@tomaat/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { goodFile } from '../../core/test/bad-files.ts';
import { inferBright, writeApp } from './app-fixture.ts';
import { type RealServer, startRealServer } from './real-server.ts';
import { temporaryFolder } from './test-server.ts';

/* Which losses count against a job, when its server is killed again and again. */

let folder: string;
let bytes: Uint8Array<ArrayBuffer>;
let apps: string[];

beforeAll(async () => {
  folder = await temporaryFolder();
  bytes = Uint8Array.from(await goodFile('nii.gz'));
  const once = `if (Date.now() > Number(process.env.TEST_READY_MS ?? Infinity)) ${inferBright}`;
  apps = [
    await writeApp(folder, 'waiting', { infer: `${once}; context.progress(0.5); await sleep(60_000);` }),
    // Deaf while it computes, as a network is.
    await writeApp(folder, 'busy', {
      infer: `${once}; context.progress(0.5); await sleep(100); for (const end = Date.now() + 60_000; Date.now() < end; );`,
    }),
    // Speaks to the server that died while it computed.
    await writeApp(folder, 'speaking', {
      infer: `${once}; context.progress(0.5); await sleep(500);
        (await import('node:fs')).writeFileSync(${JSON.stringify(join(folder, 'computes'))}, '');
        for (const end = Date.now() + 1500; Date.now() < end; );
        context.progress(0.7); await sleep(60_000);`,
    }),
  ];
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function submit(server: RealServer, service: string): Promise<string> {
  const response = await fetch(`${server.url}/api/services/${service}/predictions`, {
    method: 'POST',
    body: bytes,
    headers: { 'content-type': 'application/octet-stream' },
  });
  expect(response.status).toBe(202);
  return ((await response.json()) as Job).id;
}
const look = async (server: RealServer, id: string) =>
  (await (await fetch(`${server.url}/api/jobs/${id}`)).json()) as Job;

/** The process that computes the job, once it has been at it for a moment. */
async function childOf(server: RealServer, id: string): Promise<number> {
  const { attempt } = await look(server, id);
  const file = join(server.dataFolder, 'work', `${id}-${attempt}`, 'child');
  await expect.poll(() => existsSync(file), { timeout: 20_000, interval: 50 }).toBe(true);
  return Number((await readFile(file, 'utf8')).split(' ')[0]);
}

const isAlive = (pid: number) => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

describe.skipIf(!existsSync('/proc/self/stat'))('a server that is killed in the middle of a job', () => {
  it.each(['waiting', 'busy', 'speaking'])('never fails a job whose child was well: %s', async (service) => {
    const dataFolder = join(folder, `healthy-${service}`);
    let server = await startRealServer(apps, { dataFolder });
    const id = await submit(server, service);
    for (let kill = 1; kill <= 3; kill++) {
      await expect.poll(async () => (await look(server, id)).attempt, { timeout: 20_000 }).toBe(kill);
      const child = await childOf(server, id);
      if (service === 'speaking') {
        await expect.poll(() => existsSync(join(folder, 'computes')), { timeout: 10_000 }).toBe(true);
        await rm(join(folder, 'computes'));
      }
      await server.kill('SIGKILL');
      if (service !== 'busy') await expect.poll(() => isAlive(child), { timeout: 10_000 }).toBe(false);
      if (kill === 3) process.env.TEST_READY_MS = '0';
      server = await startRealServer(apps, { dataFolder });
      // Nor does an abandoned child continue next to its successor.
      await expect.poll(() => isAlive(child), { timeout: 10_000 }).toBe(false);
    }
    delete process.env.TEST_READY_MS;
    await expect.poll(async () => (await look(server, id)).state, { timeout: 20_000 }).toBe('succeeded');
    expect((await look(server, id)).attempt).toBe(4);
    expect(await readdir(join(dataFolder, 'work'))).toEqual([]);
    await server.kill('SIGTERM');
  });

  it('fails a job whose child died with it three times', async () => {
    const dataFolder = join(folder, 'poison');
    let server = await startRealServer(apps, { dataFolder });
    const id = await submit(server, 'waiting');
    for (let kill = 1; kill <= 3; kill++) {
      await expect.poll(async () => (await look(server, id)).attempt, { timeout: 20_000 }).toBe(kill);
      const child = await childOf(server, id);
      // Stopped first, or it would see the other one end.
      for (const [pid, signal] of [
        [server.pid, 'SIGSTOP'],
        [child, 'SIGKILL'],
      ] as const)
        process.kill(pid, signal);
      await server.kill('SIGKILL');
      server = await startRealServer(apps, { dataFolder });
    }
    expect(await look(server, id)).toMatchObject({
      state: 'failed',
      attempt: 3,
      error: { code: 'WORKER_DIED', detail: expect.stringContaining('3 times') },
    });
    await server.kill('SIGTERM');
  });
});
