import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Job } from '@tomaat/client';
import { readVolume, sourceFromBytes } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { goodFile } from '../../core/test/bad-files.ts';
import { dicomFile, sliceElements } from '../../core/test/dicom-files.ts';
import { createKey } from '../src/access/keys.ts';
import { nodePlatform } from '../src/node-platform.ts';
import { ownNodeOptions } from '../src/source.ts';
import { openServerDatabase } from '../src/store/database/server-database.ts';
import { inferBright, writeApp } from './app-fixture.ts';
import { bin, deadAddress, endsWithTest, tomaat } from './cli-fixture.ts';
import { niftiFiles, niftiPlace } from './placed-files.ts';
import { type RealServer, startRealServer } from './real-server.ts';
import { createCuttableLink } from './support/cuttable-link.ts';
import { databaseOf } from './support/tested-database.ts';
import { temporaryFolder } from './test-server.ts';

/* `tomaat worker`: predictions on another machine, with nothing but the server's address and a key. */

const leaseMs = 3000;
let folder: string;
let apps: string[];
let server: RealServer;
let token: string;
let bytes: Uint8Array<ArrayBuffer>;
const running = new Set<ChildProcess>();

beforeAll(async () => {
  folder = await temporaryFolder();
  bytes = Uint8Array.from(await goodFile('nii.gz'));
  apps = [
    await writeApp(folder, 'good', { infer: inferBright }),
    await writeApp(folder, 'slow', {
      infer: `for (let i = 0; i < 40; i++) { context.progress(i / 40); await sleep(100); } ${inferBright}`,
    }),
  ];
  const dataFolder = join(folder, 'data');
  server = await startRealServer(apps, { workers: 0, leaseMs, dataFolder });
  token = await makeKey(dataFolder);
});
afterAll(async () => {
  for (const child of running) child.kill('SIGKILL');
  await server?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

async function makeKey(dataFolder: string): Promise<string> {
  await using database = await openServerDatabase(dataFolder, await databaseOf(dataFolder));
  const { key } = await createKey(database.db as never, { label: 'gpu', scopes: ['worker'] });
  return key;
}

interface Worker {
  child: ChildProcess;
  end(signal?: NodeJS.Signals): Promise<void>;
}

/** The real program; resolves when it works. */
async function startWorker(
  url = server.url,
  env: NodeJS.ProcessEnv = {},
  flags: readonly string[] = [],
): Promise<Worker> {
  const args = [...ownNodeOptions, ...endsWithTest, bin, 'worker', url, ...apps, '--json', ...flags];
  const none = join(tmpdir(), 'tomaat-none');
  const child = spawn(process.execPath, args, {
    env: { ...process.env, TOMAAT_WORKER_TOKEN: token, XDG_DATA_HOME: none, ...env },
    stdio: ['pipe', 'pipe', process.env.TEST_LOG ? 'inherit' : 'ignore'],
  });
  running.add(child);
  const exit = once(child, 'exit').then(() => running.delete(child));
  const [line] = (await once(createInterface({ input: child.stdout! }), 'line')) as [string];
  expect(JSON.parse(line).services).toEqual(['good', 'slow']);
  return {
    child,
    async end(signal = 'SIGKILL') {
      child.kill('SIGCONT');
      child.kill(signal);
      await exit;
    },
  };
}

async function submit(service: string): Promise<Job> {
  const response = await fetch(`${server.url}/api/services/${service}/predictions`, {
    method: 'POST',
    body: bytes,
    headers: { 'content-type': 'application/octet-stream' },
  });
  expect(response.status).toBe(202);
  return (await response.json()) as Job;
}
const look = async (id: string) => (await (await fetch(`${server.url}/api/jobs/${id}`)).json()) as Job;
/** Of /metrics, by which workers are started: service, state, number. */
const unsettled = async () =>
  [
    ...(await (await fetch(`${server.url}/metrics`)).text()).matchAll(
      /^tomaat_service_jobs\{service="(\w+)",state="(\w+)"\} (\d+)$/gm,
    ),
  ].map((found) => found.slice(1).join(' '));
const reaches = (id: string, state: string, timeout = 15_000) =>
  expect.poll(async () => (await look(id)).state, { timeout, interval: 50 }).toBe(state);

describe('tomaat worker', () => {
  it('computes accepted jobs with the same bytes as the server’s children', async () => {
    const worker = await startWorker();
    const job = await submit('good');
    await reaches(job.id, 'succeeded');
    const { outputs, attempt } = await look(job.id);
    expect(attempt).toBe(1);
    const result = Buffer.from(await (await fetch(`${server.url}${outputs[0].url}`)).arrayBuffer());
    expect(`sha256:${createHash('sha256').update(result).digest('hex')}`).toBe(outputs[0].digest);
    await using own = await startRealServer(apps);
    const there = await fetch(`${own.url}/good/any`, {
      method: 'POST',
      body: bytes,
      headers: { 'content-type': 'application/octet-stream' },
    });
    expect(result.equals(Buffer.from(await there.arrayBuffer()))).toBe(true);
    await worker.end('SIGTERM');
  });

  it('reports the grid of the input’s header for formats requested later', async () => {
    const worker = await startWorker();
    const { bytes: scan } = niftiFiles.find(({ name }) => name.includes('MNI'))!;
    const created = await fetch(`${server.url}/api/services/good/predictions?format=mha`, {
      method: 'POST',
      body: scan,
      headers: { 'content-type': 'application/octet-stream' },
    });
    const { id } = (await created.json()) as Job;
    await reaches(id, 'succeeded');
    const [output] = (await look(id)).outputs;
    expect([output.format, Object.keys(output)]).toEqual(['mha', expect.not.arrayContaining(['geometry'])]);
    const answer = await fetch(`${server.url}${output.url}?format=nii`);
    expect(niftiPlace(new Uint8Array(await answer.arrayBuffer()))).toEqual(niftiPlace(scan));
    await worker.end('SIGTERM');
  });

  it('fetches a DICOM series’ files concurrently, and computes the chosen one', async () => {
    const form = new FormData();
    for (const [series, slices] of [
      ['2', 40],
      ['3', 5],
    ] as const) {
      for (let instance = 1; instance <= slices; instance++) {
        const elements = sliceElements({
          series,
          instance,
          position: [0, 0, 2 * instance],
          orientation: [1, 0, 0, 0, 1, 0],
          values: Array.from({ length: 12 }, (_, i) => (i === instance % 12 ? 200 : 3)),
          more: { 2097169: ['IS', series] },
        });
        form.append('volume', new Blob([dicomFile(elements)]), `IM${instance}`);
      }
    }
    const worker = await startWorker();
    const ask = (query: string) =>
      fetch(`${server.url}/api/services/good/predictions?format=nii${query}`, { method: 'POST', body: form });
    expect((await ask('')).status).toBe(422);
    for (const [series, slices] of [
      ['2', 40],
      ['1.2.3.3', 5],
    ] as const) {
      const { id } = (await (await ask(`&series=${series}`)).json()) as Job;
      await reaches(id, 'succeeded');
      const [output] = (await look(id)).outputs;
      const answer = await fetch(`${server.url}${output.url}`);
      const file = sourceFromBytes('a.nii', new Uint8Array(await answer.arrayBuffer()));
      const { volume } = await readVolume([file], nodePlatform);
      expect(volume.size).toEqual([4, 3, slices]);
      const expected = Array.from({ length: 12 * slices }, (_, i) =>
        i % 12 === (Math.floor(i / 12) + 1) % 12 ? 1 : 0,
      );
      expect(Array.from(volume.voxels, Number)).toEqual(expected);
    }
    await worker.end('SIGTERM');
  });

  it('reports progress, and stops within a second of cancellation', async () => {
    const worker = await startWorker();
    const job = await submit('slow');
    await expect.poll(async () => (await look(job.id)).stage, { timeout: 10_000 }).toBe('infer');
    const { fraction } = await look(job.id);
    await expect
      .poll(async () => (await look(job.id)).fraction, { timeout: 20_000 })
      .toBeGreaterThan(fraction!);
    const start = performance.now();
    await fetch(`${server.url}/api/jobs/${job.id}`, { method: 'DELETE' });
    expect((await look(job.id)).state).toBe('canceled');
    // Its only slot is free again for the next job long before the 4 s would have been over.
    const next = await submit('good');
    await reaches(next.id, 'succeeded', 3000);
    expect(performance.now() - start).toBeLessThan(2500);
    await worker.end();
  });

  it('that is killed or disconnected loses its job; late answers are refused', async () => {
    const first = await startWorker();
    const job = await submit('slow');
    await reaches(job.id, 'running');
    await first.end('SIGKILL');
    await reaches(job.id, 'queued', leaseMs + 4000);
    // Cut off by the network: it computes on, and comes back when the job is another's.
    await using line = await createCuttableLink(server.port);
    const zombie = await startWorker(`http://127.0.0.1:${line.port}`);
    await reaches(job.id, 'running');
    expect((await look(job.id)).attempt).toBe(2);
    line.cut();
    await reaches(job.id, 'queued', leaseMs + 4000);
    const third = await startWorker();
    await reaches(job.id, 'running');
    line.mend();
    const stale = await fetch(`${server.url}/api/worker/jobs/${job.id}/complete`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: JSON.stringify({ attempt: 2, seconds: 1, outputs: [] }),
    });
    expect(stale.status).toBe(409);
    await reaches(job.id, 'succeeded');
    expect((await look(job.id)).attempt).toBe(3);
    await Promise.all([zombie.end(), third.end()]);
  });

  it.skipIf(process.platform === 'win32')(
    'that was killed leaves nothing once the next starts; others’ files stay',
    async () => {
      const env = { TMPDIR: await temporaryFolder() };
      const folders = async () => (await readdir(env.TMPDIR)).filter((name) => name.startsWith('tomaat-'));
      const killed = await startWorker(server.url, env);
      const job = await submit('slow');
      await reaches(job.id, 'running');
      const [left] = await folders();
      const inputs = join(env.TMPDIR, left, 'jobs');
      await expect
        .poll(
          async () => (await readdir(inputs, { recursive: true })).some((name) => name.includes('input-')),
          { timeout: 15_000, interval: 50 },
        )
        .toBe(true);
      await killed.end('SIGKILL');
      const second = await startWorker(server.url, env);
      const [own] = await folders();
      expect([await folders(), own === left]).toEqual([[own], false]);
      const third = await startWorker(server.url, env);
      expect(await folders()).toContain(own);
      await fetch(`${server.url}/api/jobs/${job.id}`, { method: 'DELETE' });
      await second.end('SIGTERM');
      await third.end('SIGTERM');
      expect(await folders()).toEqual([]);
      await rm(env.TMPDIR, { recursive: true, force: true });
    },
  );

  it('has the bundled apps when none is named', async () => {
    const other = await tomaat(['worker', server.url, '--token', token, '--data', join(folder, 'nowhere')]);
    expect([other.code, other.stderr]).toEqual([2, expect.stringContaining('ct-lung')]);
  });

  it('continues its job across a restart of the server', async () => {
    const before = { server, token };
    const dataFolder = join(folder, 'restarted');
    const options = { workers: 0, leaseMs: 30_000, dataFolder, strictPort: true };
    server = await startRealServer(apps, options);
    token = await makeKey(dataFolder);
    try {
      const worker = await startWorker();
      const job = await submit('slow');
      await expect
        .poll(async () => (await look(job.id)).fraction ?? 0, { timeout: 10_000 })
        .toBeGreaterThan(0.3);
      await server.kill('SIGKILL');
      server = await startRealServer(apps, { ...options, port: server.port });
      await reaches(job.id, 'succeeded', 30_000);
      expect((await look(job.id)).attempt).toBe(1);
      await worker.end();
    } finally {
      await server.kill('SIGKILL');
      ({ server, token } = before);
    }
  });

  it('gives up a job whose input is damaged on the server', async () => {
    const job = await submit('good');
    const digest = createHash('sha256').update(bytes).digest('hex');
    const file = join(server.dataFolder, 'blobs', 'sha256', digest);
    await writeFile(file, Buffer.alloc(bytes.length));
    const worker = await startWorker();
    await reaches(job.id, 'failed');
    expect((await look(job.id)).error).toMatchObject({ code: 'DAMAGED' });
    await worker.end('SIGTERM');
  });

  it('that a test has started ends with the test', async () => {
    const worker = await startWorker();
    const exit = once(worker.child, 'exit');
    // What the end of this process would do.
    worker.child.stdin!.destroy();
    expect(await exit).toEqual([1, null]);
  });

  it('may finish its current job when it is stopped', async () => {
    const worker = await startWorker();
    const job = await submit('slow');
    await reaches(job.id, 'running');
    const start = performance.now();
    await worker.end('SIGTERM');
    // It was given the time to end.
    expect((await look(job.id)).state).toBe('succeeded');
    expect(performance.now() - start).toBeLessThan(10_000);
  });

  it('hands its job back at once when it is stopped without time to drain', async () => {
    const worker = await startWorker(server.url, {}, ['--drain-seconds', '0']);
    const job = await submit('slow');
    await reaches(job.id, 'running');
    await worker.end('SIGTERM');
    const after = await look(job.id);
    expect([after.state, after.attempt, after.error]).toEqual(['queued', 1, undefined]);
    await fetch(`${server.url}/api/jobs/${job.id}`, { method: 'DELETE' });
  });

  it('with --idle-exit computes what waits, then ends with 0', async () => {
    const jobs = [await submit('good'), await submit('good')];
    expect(await unsettled()).toEqual(['good queued 2', 'good running 0', 'slow queued 0', 'slow running 0']);
    const args = ['worker', server.url, ...apps, '--token', token, '--idle-exit', '0'];
    const ended = await tomaat([...args, '--data', join(folder, 'nowhere')]);
    expect(ended.code, ended.stderr).toBe(0);
    expect(ended.stderr).toContain('there was nothing to do for 0 s');
    for (const { id } of jobs) expect((await look(id)).state).toBe('succeeded');
    expect(await unsettled()).toContain('good queued 0');
  });

  it('with --idle-exit ends with 1 if the server was never reached', async () => {
    const args = ['worker', await deadAddress(), ...apps, '--token', token, '--idle-exit', '0'];
    const ended = await tomaat([...args, '--data', join(folder, 'nowhere')]);
    expect([ended.code, ended.stderr]).toEqual([1, expect.stringContaining('cannot be reached')]);
  });

  it('is refused without a key of the scope or with mismatched apps', async () => {
    const flags = ['--data', join(folder, 'nowhere')];
    const none = await tomaat([
      'worker',
      server.url,
      ...apps,
      '--token',
      `tmt_aaaaaaaaaa_${'a'.repeat(43)}`,
      ...flags,
    ]);
    expect([none.code, none.stderr]).toEqual([2, expect.stringContaining('tomaat keys create')]);
    const bare = await tomaat(['worker', server.url, ...apps, ...flags]);
    expect([bare.code, bare.stderr]).toEqual([2, expect.stringContaining('--scope worker')]);
    await using database = await openServerDatabase(server.dataFolder, await databaseOf(server.dataFolder));
    const { key } = await createKey(database.db as never, { label: 'x', scopes: ['predict'] });
    const scope = await tomaat(['worker', server.url, ...apps, '--token', key, ...flags]);
    expect([scope.code, scope.stderr]).toEqual([2, expect.stringContaining('lacks the scope worker')]);
    const other = await writeApp(join(folder, 'other'), 'good', { infer: inferBright, version: '2.0.0' });
    const version = await tomaat(['worker', server.url, other, '--token', token, ...flags]);
    expect([version.code, version.stderr]).toEqual([2, expect.stringContaining('good 1.0.0')]);
  });
});
