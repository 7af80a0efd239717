import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Job } from '@tomaat/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createKey } from '../src/access/keys.ts';
import { openServerDatabase } from '../src/store/database/server-database.ts';
import { inferBright, writeApp } from './app-fixture.ts';
import { bin, endsWithTest } from './cli-fixture.ts';
import { encode, phantom } from './phantom.ts';
import { databaseOf } from './support/tested-database.ts';
import { temporaryFolder } from './test-server.ts';
import { nodeApp } from './warm-fixture.ts';

/*
 * A signal to every process of a service at once: what `systemctl stop` does with `KillMode=control-group` (the default of
 * systemd), and `scancel` on a Slurm job.
 */

let folder: string;
let bytes: Uint8Array<ArrayBuffer>;
const started = new Set<ChildProcess>();

const program = (script: string) => ({ model: { runtime: 'command', command: ['sh', '-c', script, 'sh'] } });
const copyResult = 'cp labels.nii.gz "$TOMAAT_OUTPUT/segmentation.nii.gz"';
const mark = `echo '{"fraction":0.5}'`;

beforeAll(async () => {
  folder = await temporaryFolder();
  const volume = phantom();
  const labels = { ...volume, voxels: Uint8Array.from(volume.voxels as Int16Array, (v) => (v > 10 ? 1 : 0)) };
  bytes = Uint8Array.from(await encode(volume, 'nii.gz'));
  const apps = [
    await writeApp(folder, 'module', {
      infer: `context.progress(0.5); await sleep(3000); ${inferBright}`,
    }),
    await writeApp(folder, 'program', program(`${mark}; sleep 4 && ${copyResult}`)),
    await writeApp(
      folder,
      'program-that-catches',
      program(`trap 'exit 1' TERM; ${mark}; sleep 4 & wait; ${copyResult}`),
    ),
    await writeApp(
      folder,
      'program-that-ends-well',
      program(`trap 'exit 0' TERM; ${mark}; sleep 4 & wait; ${copyResult}`),
    ),
  ];
  apps.push(
    await nodeApp(folder, `spawn('sleep', ['4']); say({ fraction: 0.5 }); await sleep(4000); finish();`, {
      id: 'program-that-is-kept',
    }),
  );
  for (const app of apps) await writeFile(join(app, 'labels.nii.gz'), await encode(labels, 'nii.gz'));
});
afterAll(async () => {
  for (const child of started) child.kill('SIGKILL');
  await rm(folder, { recursive: true, force: true });
});

interface Program {
  child: ChildProcess;
  exit: Promise<[number | null, NodeJS.Signals | null]>;
  firstLine: Record<string, unknown>;
}

/** The command line with a launcher process before it, as under a Node that cannot replace itself. */
async function start(args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Program> {
  const withLauncher = ['--import', 'data:text/javascript,process.execve=undefined'];
  const child = spawn(process.execPath, [...withLauncher, ...endsWithTest, bin, ...args, '--json'], {
    env: { ...process.env, XDG_DATA_HOME: join(folder, 'home'), ...env },
    stdio: ['pipe', 'pipe', process.env.TEST_LOG ? 'inherit' : 'ignore'],
  });
  started.add(child);
  const exit = once(child, 'exit') as Program['exit'];
  void exit.then(() => started.delete(child));
  const [line] = (await once(createInterface({ input: child.stdout! }), 'line')) as [string];
  return { child, exit, firstLine: JSON.parse(line) };
}

const foldersOf = (services: readonly string[]) => services.map((id) => join(folder, id));
/** With the services that the test asks alone: each costs a process at the start. */
const serve = (data: string, services: readonly string[], ...more: string[]) =>
  start(['serve', ...foldersOf(services), '--port', '0', '--tls-port', '0', '--data', data, ...more]);

/** A process and all that descend from it. */
async function tree(pid: number): Promise<number[]> {
  const parents = new Map<number, number>();
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const stat = await readFile(`/proc/${name}/stat`, 'utf8').catch(() => ''); // It has ended meanwhile.
    const parent = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
    if (stat !== '') parents.set(Number(name), parent);
  }
  const found = [pid];
  for (const one of found) for (const [child, parent] of parents) if (parent === one) found.push(child);
  return found;
}

async function signalAll(pids: readonly number[], signal: NodeJS.Signals): Promise<void> {
  for (const pid of pids) {
    try {
      process.kill(pid, signal);
    } catch {
      // It has ended by the signal to another one.
    }
  }
}

async function submit(url: string, service: string): Promise<string> {
  const response = await fetch(`${url}/api/services/${service}/predictions`, {
    method: 'POST',
    body: bytes,
    headers: { 'content-type': 'application/octet-stream' },
  });
  expect(response.status).toBe(202);
  return ((await response.json()) as Job).id;
}
const look = async (url: string, id: string) => (await (await fetch(`${url}/api/jobs/${id}`)).json()) as Job;
const computes = (url: string, id: string) =>
  expect
    .poll(async () => (await look(url, id)).fraction, { timeout: 20_000, interval: 50 })
    .toBeGreaterThan(0.4);
const succeeds = (url: string, id: string) =>
  expect.poll(async () => (await look(url, id)).state, { timeout: 30_000 }).toBe('succeeded');

describe.skipIf(!existsSync('/proc/self/stat'))('SIGTERM to every process', () => {
  it('lets the prediction of a child end within the drain time', async () => {
    const data = join(folder, 'drained');
    const first = await serve(data, ['module']);
    const { server } = first.firstLine as { server: string };
    const id = await submit(server, 'module');
    await computes(server, id);
    const pids = await tree(first.child.pid!);
    expect(pids.length).toBeGreaterThanOrEqual(3); // Launcher, server, child.
    await signalAll(pids, 'SIGTERM');
    expect(await first.exit).toEqual([0, null]);
    const second = await serve(data, ['module']);
    expect(await look(second.firstLine.server as string, id)).toMatchObject({
      state: 'succeeded',
      attempt: 1,
    });
    second.child.kill('SIGTERM');
    await second.exit;
  });

  it.each(['program', 'program-that-catches', 'program-that-ends-well', 'program-that-is-kept'])(
    'queues the job of a %s again, which the next start computes',
    async (service) => {
      const data = join(folder, `queued-${service}`);
      const first = await serve(data, [service]);
      const { server } = first.firstLine as { server: string };
      const id = await submit(server, service);
      await computes(server, id);
      const pids = await tree(first.child.pid!);
      expect(pids.length).toBeGreaterThanOrEqual(5); // Launcher, server, child, shell, sleep.
      await signalAll(pids.reverse(), 'SIGTERM');
      expect(await first.exit).toEqual([0, null]);
      const second = await serve(data, [service]);
      const url = second.firstLine.server as string;
      expect((await look(url, id)).error).toBeUndefined();
      await succeeds(url, id);
      expect((await look(url, id)).attempt).toBe(2);
      second.child.kill('SIGTERM');
      await second.exit;
    },
  );

  it('of a worker returns a program’s job to the server', async () => {
    const data = join(folder, 'remote');
    const services = ['program', 'module'];
    const server = await serve(data, services, '--workers', '0');
    const url = server.firstLine.server as string;
    const token = await makeKey(data);
    const args = ['worker', url, ...foldersOf(services)];
    const env = { TOMAAT_WORKER_TOKEN: token };
    const first = await start(args, env);
    const ids = [await submit(url, 'program')];
    await computes(url, ids[0]);
    await signalAll((await tree(first.child.pid!)).reverse(), 'SIGTERM');
    expect(await first.exit).toEqual([0, null]);
    expect(await look(url, ids[0])).toMatchObject({ state: 'queued', attempt: 1 });
    const second = await start(args, env);
    await succeeds(url, ids[0]);
    expect((await look(url, ids[0])).attempt).toBe(2);
    // A module goes on to its end.
    ids.push(await submit(url, 'module'));
    await computes(url, ids[1]);
    await signalAll(await tree(second.child.pid!), 'SIGTERM');
    expect(await second.exit).toEqual([0, null]);
    expect(await look(url, ids[1])).toMatchObject({ state: 'succeeded', attempt: 1 });
    server.child.kill('SIGTERM');
    await server.exit;
  });

  it('fails the job whose program was killed, while the server keeps running', async () => {
    const server = await serve(join(folder, 'alone'), ['program']);
    const url = server.firstLine.server as string;
    const id = await submit(url, 'program');
    await computes(url, id);
    const shell = (await tree(server.child.pid!)).slice(3);
    await signalAll(shell, 'SIGTERM');
    await expect.poll(async () => (await look(url, id)).state, { timeout: 10_000 }).toBe('failed');
    expect((await look(url, id)).error).toMatchObject({ code: 'APP_FAILED' });
    server.child.kill('SIGTERM');
    await server.exit;
  });
});

async function makeKey(dataFolder: string): Promise<string> {
  await using database = await openServerDatabase(dataFolder, await databaseOf(dataFolder));
  const { key } = await createKey(database.db as never, { label: 'worker', scopes: ['worker'] });
  return key;
}
