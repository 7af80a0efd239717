import { type ChildProcess, spawn } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { readdir, readFile } from 'node:fs/promises';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import { isSettled, type Job } from '@tomaat/client';
import { createKey } from '../../packages/server/src/access/keys.ts';
import { ownNodeOptions } from '../../packages/server/src/source.ts';
import { openServerDatabase } from '../../packages/server/src/store/database/server-database.ts';
import { inferBright, writeApp } from '../../packages/server/test/app-fixture.ts';
import { bin, endsWithTest } from '../../packages/server/test/cli-fixture.ts';
import { leftFiles } from '../../packages/server/test/left-files.ts';
import { encode, obliqueAffine, phantom } from '../../packages/server/test/phantom.ts';
import { type RealServer, startRealServer } from '../../packages/server/test/real-server.ts';
import { knownDatabaseOf, onPostgres } from '../../packages/server/test/support/tested-database.ts';

/** What the parts of the torture have in common: servers and workers to kill, jobs to send, results to compare. */

/** One finding: what was asked for, what was seen. */
export interface Finding {
  readonly what: string;
  readonly seen: string;
  readonly ok: boolean;
}

export const finding = (ok: boolean, what: string, seen: string): Finding => ({ ok, what, seen });

export const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
export const octets = { 'content-type': 'application/octet-stream' };

/** Three volumes of different sizes, as .nii.gz. */
export async function makeVolumes(): Promise<Uint8Array<ArrayBuffer>[]> {
  const sizes = [
    [23, 17, 11],
    [31, 19, 13],
    [40, 30, 20],
  ] as const;
  return Promise.all(
    sizes.map(async (size) => Uint8Array.from(await encode(phantom(obliqueAffine, size), 'nii.gz'))),
  );
}

/** An app that marks what is bright, and takes at least this long. */
export const slowApp = (
  folder: string,
  id: string,
  ms: number,
  more: Record<string, unknown> = {},
): Promise<string> =>
  writeApp(folder, id, { infer: ms > 0 ? `await sleep(${ms}); ${inferBright}` : inferBright, ...more });

export async function makeWorkerKey(dataFolder: string): Promise<string> {
  await using database = await openServerDatabase(dataFolder, await knownDatabaseOf(dataFolder));
  return (await createKey(database.db as never, { label: 'torture', scopes: ['worker', 'predict'] })).key;
}

/** How many jobs the database of a data folder has. */
export async function countJobs(dataFolder: string): Promise<number> {
  await using database = await openServerDatabase(dataFolder, await knownDatabaseOf(dataFolder));
  const query = database.db.selectFrom('job').select((e) => e.fn.countAll<number>().as('count'));
  return (await query.executeTakeFirstOrThrow()).count;
}

/** `ok` if the database of a data folder is whole; PostgreSQL looks after its own. */
export async function integrityOf(dataFolder: string): Promise<string> {
  if ((await knownDatabaseOf(dataFolder)) !== undefined) return 'ok';
  using database = new DatabaseSync(join(dataFolder, 'server.db'), { readOnly: true });
  return (database.prepare('PRAGMA integrity_check').get() as { integrity_check: string }).integrity_check;
}

export interface WorkerProcess {
  readonly child: ChildProcess;
  kill(): Promise<void>;
}

/** `tomaat worker` as it is; resolves when it has reached the server. */
export async function startWorkerProcess(
  url: string,
  token: string,
  apps: readonly string[],
  prefix: readonly string[] = [],
  more: readonly string[] = [],
): Promise<WorkerProcess> {
  const [file, ...args] = [
    ...prefix,
    process.execPath,
    ...ownNodeOptions,
    ...endsWithTest,
    bin,
    'worker',
    url,
    ...apps,
    '--json',
    ...more,
  ];
  const child = spawn(file, args, {
    env: { ...process.env, TOMAAT_WORKER_TOKEN: token, XDG_DATA_HOME: join(tmpdir(), 'tomaat-none') },
    stdio: ['pipe', 'pipe', process.env.TEST_LOG ? 'inherit' : 'ignore'],
  });
  const exit = once(child, 'exit');
  await Promise.race([once(createInterface({ input: child.stdout! }), 'line'), exit]);
  return {
    child,
    async kill() {
      child.kill('SIGKILL');
      await exit;
    },
  };
}

/** A server that can be killed and started anew on its folder and port; who asks for it waits until it is there. */
export async function openMortalServer(
  apps: readonly string[],
  options: Parameters<typeof startRealServer>[1] & { dataFolder: string },
) {
  let server: RealServer = await startRealServer(apps, options);
  const { port, url } = server;
  const readyMs: number[] = [];
  const readyCpuMs: number[] = [];
  return {
    url,
    port,
    dataFolder: options.dataFolder,
    readyMs,
    readyCpuMs,
    get pid() {
      return server.pid;
    },
    get process() {
      return server;
    },
    async kill() {
      await server.kill('SIGKILL');
    },
    async start() {
      const start = performance.now();
      server = await startRealServer(apps, { ...options, port, strictPort: true });
      const ready = await fetch(`${url}/health/ready`);
      if (!ready.ok) throw new Error('the server is not ready');
      readyMs.push(performance.now() - start);
      readyCpuMs.push(await cpuMs(server.pid));
    },
    close: () => server[Symbol.asyncDispose](),
  };
}
export type MortalServer = Awaited<ReturnType<typeof openMortalServer>>;

/** Does something until the network and the server let it; answers below 500 are answers. */
export async function insist(url: string, init: RequestInit, until: AbortSignal): Promise<Response> {
  for (;;) {
    until.throwIfAborted();
    try {
      const response = await fetch(url, {
        ...init,
        signal: AbortSignal.any([until, AbortSignal.timeout(30_000)]),
      });
      if (response.status < 500) return response;
      await response.arrayBuffer();
    } catch {
      until.throwIfAborted();
    }
    await sleep(50);
  }
}

export const predictionUrl = (url: string, service: string): string =>
  `${url}/api/services/${service}/predictions`;

export async function submit(
  url: string,
  service: string,
  bytes: Uint8Array<ArrayBuffer>,
  key: string = randomUUID(),
): Promise<Response> {
  return fetch(predictionUrl(url, service), {
    method: 'POST',
    body: bytes,
    headers: { ...octets, 'idempotency-key': key },
  });
}

export async function settledJob(url: string, id: string, limitMs = 60_000): Promise<Job | undefined> {
  const end = performance.now() + limitMs;
  for (;;) {
    const response = await insist(`${url}/api/jobs/${id}`, {}, AbortSignal.timeout(limitMs));
    if (response.status === 404) return undefined;
    const job = (await response.json()) as Job;
    if (isSettled(job) || performance.now() > end) return job;
    await sleep(50);
  }
}

/** Digest of a job's primary output, as the job says and as the bytes are. */
export async function resultOf(url: string, job: Job): Promise<string> {
  const primary = job.outputs.find((output) => output.primary);
  if (!primary) return `${job.state} ${job.error?.code ?? ''}`;
  const bytes = new Uint8Array(await (await fetch(`${url}${primary.url}`)).arrayBuffer());
  const digest = `sha256:${sha256(bytes)}`;
  return digest === primary.digest ? digest : 'torn';
}

/**
 * Files under a data folder that hold what callers sent or got, with their sizes. Of servers that share a database they go with the
 * next sweep, which is waited for.
 */
export async function callersFiles(dataFolder: string): Promise<{ name: string; sizeBytes: number }[]> {
  for (let left = onPostgres ? 40 : 0; ; left--) {
    const found = await callersFilesNow(dataFolder);
    if (found.length === 0 || left === 0) return found;
    await sleep(250);
  }
}

async function callersFilesNow(dataFolder: string): Promise<{ name: string; sizeBytes: number }[]> {
  const found: { name: string; sizeBytes: number }[] = [];
  for (const path of leftFiles(dataFolder)) {
    const bytes = await readFile(path).catch(() => undefined);
    if (bytes) found.push({ name: path.slice(dataFolder.length + 1), sizeBytes: bytes.length });
  }
  return found;
}

/** Numbers from 0 to 1, the same for the same seed (mulberry32). */
export function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? Number.NaN;
}

/** What else this machine did, without which no time means anything. */
export const load = (): string => `load ${loadavg()[0].toFixed(1)}`;

export async function rssMb(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
  return (Number(/VmRSS:\s+(\d+)/.exec(text)?.[1] ?? 0) * 1024) / 1e6;
}

/** Processor time that a process has taken so far, in all its threads. */
async function cpuMs(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  const [user, system] = text
    .slice(text.lastIndexOf(')') + 2)
    .split(' ')
    .slice(11, 13);
  // In hundredths of a second, on every Linux that Node runs on.
  return (Number(user) + Number(system)) * 10;
}

export async function openFiles(pid: number): Promise<number> {
  return (await readdir(`/proc/${pid}/fd`).catch(() => [])).length;
}
