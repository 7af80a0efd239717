import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Job } from '@tomaat/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { goodFile } from '../../core/test/bad-files.ts';
import { ownNodeOptions } from '../src/source.ts';
import { inferBright, writeApp } from './app-fixture.ts';
import { bin, tomaat } from './cli-fixture.ts';
import { databaseEnv } from './support/tested-database.ts';
import { temporaryFolder } from './test-server.ts';

let folder: string;
let app: string;
let bytes: Uint8Array<ArrayBuffer>;
beforeAll(async () => {
  folder = await temporaryFolder();
  app = await writeApp(folder, 'slow', { infer: `await sleep(3000); ${inferBright}` });
  bytes = Uint8Array.from(await goodFile('nii.gz'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function serve(data: string, ...more: string[]) {
  const args = ['serve', app, '--port', '0', '--tls-port', '0', '--data', data, '--json', ...more];
  const child = spawn(process.execPath, [...ownNodeOptions, bin, ...args], {
    env: { ...process.env, XDG_DATA_HOME: join(tmpdir(), 'tomaat-none'), ...(await databaseEnv(args)) },
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const exit = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>;
  const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
  return { url: (JSON.parse(line) as { server: string }).server, child, exit };
}

const headers = { 'content-type': 'application/octet-stream' };
const submit = async (url: string) => {
  const response = await fetch(`${url}/api/services/slow/predictions`, {
    method: 'POST',
    body: bytes,
    headers,
  });
  return (await response.json()) as Job;
};
const look = async (url: string, id: string) => (await (await fetch(`${url}/api/jobs/${id}`)).json()) as Job;

describe('tomaat serve, stopped', () => {
  it('finishes running jobs, refuses new ones with Retry-After, keeps the queue', async () => {
    const data = join(folder, 'drained');
    const first = await serve(data);
    const running = await submit(first.url);
    const waiting = await submit(first.url);
    await expect.poll(async () => (await look(first.url, running.id)).state).toBe('running');
    // Somebody who waits on the line for a job that does not run yet.
    const promise = fetch(`${first.url}/slow/any`, { method: 'POST', body: bytes, headers });
    await expect
      .poll(async () =>
        (await (await fetch(`${first.url}/metrics`)).text()).includes('tomaat_jobs{state="queued"} 2'),
      )
      .toBe(true);
    first.child.kill('SIGTERM');
    await expect
      .poll(async () => (await fetch(`${first.url}/health/ready`)).status, { interval: 20 })
      .toBe(503);
    const refused = await fetch(`${first.url}/api/services/slow/predictions`, {
      method: 'POST',
      body: bytes,
      headers,
    });
    expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '5']);
    await refused.arrayBuffer();
    const told = await promise;
    expect([told.status, told.headers.get('retry-after')]).toEqual([503, '5']);
    expect(await first.exit).toEqual([0, null]);
    const second = await serve(data);
    expect(await look(second.url, running.id)).toMatchObject({ state: 'succeeded', attempt: 1 });
    await expect
      .poll(async () => (await look(second.url, waiting.id)).state, { timeout: 15_000 })
      .toBe('succeeded');
    expect((await look(second.url, waiting.id)).attempt).toBe(1);
    second.child.kill('SIGKILL');
    await second.exit;
  });

  it('hands back what takes too long, which is not held against it', async () => {
    const data = join(folder, 'handed-back');
    const first = await serve(data, '--drain-seconds', '0');
    const job = await submit(first.url);
    await expect.poll(async () => (await look(first.url, job.id)).state).toBe('running');
    const start = performance.now();
    first.child.kill('SIGTERM');
    expect(await first.exit).toEqual([0, null]);
    expect(performance.now() - start).toBeLessThan(5000);
    const second = await serve(data);
    await expect
      .poll(async () => (await look(second.url, job.id)).state, { timeout: 15_000 })
      .toBe('succeeded');
    expect((await look(second.url, job.id)).attempt).toBe(2);
    second.child.kill('SIGKILL');
    await second.exit;
  });

  it('a second server on the same data folder is refused, naming the first', async () => {
    const data = join(folder, 'shared');
    const first = await serve(data);
    const second = await tomaat(['serve', app, '--port', '0', '--tls-port', '0', '--data', data]);
    expect(second.code).not.toBe(0);
    expect(second.stderr).toContain(`pid ${first.child.pid}`);
    first.child.kill('SIGKILL');
    await first.exit;
  });
});
