import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isSettled, type Job } from '@tomaat/client';
import {
  callersFiles,
  type Finding,
  finding,
  integrityOf,
  type MortalServer,
  makeVolumes,
  octets,
  openMortalServer,
  predictionUrl,
  quantile,
  resultOf,
  settledJob,
  slowApp,
  submit,
} from './harness.ts';

/**
 * SIGKILL, ENOSPC, EIO and EROFS at each of the file operations of a job, by strace. Those of the database are made by the
 * main thread, those of blobs by the (here only) thread of libuv's pool; each is counted from the moment at which a job is
 * sent. Afterwards the job is one of: never accepted, queued, settled; never half. Then the same in the child that computes:
 * the job succeeds or fails with that as its reason, the next one succeeds, and both are so after kill -9 of the server.
 */

const operations = {
  database: ['pwrite64', 'pread64', 'fdatasync', 'ftruncate'],
  blobs: [
    'openat',
    'write',
    'pwrite64',
    'pread64',
    'read',
    'fdatasync',
    'fsync',
    'link',
    'linkat',
    'unlink',
    'rename',
    'chmod',
    'mkdir',
    'rmdir',
    'getdents64',
    'statfs',
    'statx',
    'close',
  ],
} as const;
type Thread = keyof typeof operations;
/** What a child does with files: it reads inputs and writes outputs, in the thread of its pool. */
const childOperations = ['openat', 'read', 'pread64', 'write', 'pwrite64', 'fsync', 'close'] as const;
const faults = ['signal=SIGKILL', 'error=ENOSPC', 'error=EIO', 'error=EROFS'] as const;

interface Tally {
  points: number;
  hit: number;
  refused: number;
  kept: number;
  died: number;
  half: string[];
}

export async function crashPoints(
  folder: string,
  { perCall, only }: { perCall: number; only?: readonly string[] },
): Promise<Finding[]> {
  const [bytes] = await makeVolumes();
  // One thread in the pool, so that its operations come in one order and can be counted.
  process.env.UV_THREADPOOL_SIZE = '1';
  const server = await openMortalServer([await slowApp(folder, 'good', 5)], {
    dataFolder: join(folder, 'points'),
  });
  const readyBefore = server.readyMs.length;
  try {
    const first = (await (await submit(server.url, 'good', bytes)).json()) as Job;
    const expected = await resultOf(server.url, (await settledJob(server.url, first.id))!);
    await fetch(`${server.url}/api/jobs/${first.id}`, { method: 'DELETE' });
    if (!(await canTrace(server.pid))) {
      return [
        finding(true, 'faults at each file operation', 'not tried: strace cannot attach to a process here'),
      ];
    }
    const found: Finding[] = [];
    for (const fault of faults) {
      const tally: Tally = { points: 0, hit: 0, refused: 0, kept: 0, died: 0, half: [] };
      for (const thread of Object.keys(operations) as Thread[]) {
        for (const call of operations[thread]) {
          // Nobody outlives a failed write to an eventfd, by which libuv wakes its threads; files are written by pwrite64.
          if (call === 'write' && fault !== 'signal=SIGKILL') continue;
          // A close that fails has closed all the same, and says so of what was synced before.
          if (call === 'close' && fault !== 'signal=SIGKILL') continue;
          if (only && !only.includes(`${fault} ${call}`)) continue;
          for (let when = 1; when <= perCall; when++) {
            tally.points++;
            const isHit = await tryPoint(server, bytes, expected, { thread, call, when, fault }, tally);
            // The job has fewer such operations than that.
            if (!isHit) break;
          }
        }
      }
      const seen = `${tally.hit} points: ${tally.refused} refused, ${tally.kept} accepted and settled right, ${tally.died} deaths of the server`;
      found.push(
        finding(
          tally.half.length === 0,
          `${fault} at each file operation leaves nothing half`,
          `${seen}${tally.half.length > 0 ? `; ${tally.half.slice(0, 5).join(' | ')}` : ''}`,
        ),
      );
    }
    found.push(...(await childPoints(server, bytes, expected, { perCall, only })));
    const ready = server.readyMs.slice(readyBefore);
    if (ready.length > 0)
      found.push(
        finding(
          true,
          'starts after such a death',
          `p50 ${Math.round(quantile(ready, 0.5))} ms, max ${Math.round(Math.max(...ready))} ms`,
        ),
      );
    return found;
  } finally {
    delete process.env.UV_THREADPOOL_SIZE;
    await server.close();
  }
}

async function tryPoint(
  server: MortalServer,
  bytes: Uint8Array<ArrayBuffer>,
  expected: string,
  { thread, call, when, fault }: { thread: Thread; call: string; when: number; fault: string },
  tally: Tally,
): Promise<boolean> {
  const point = `${fault} at ${call} ${when} of ${thread}`;
  const half = (why: string) => tally.half.push(`${point}: ${why}`);
  const tid = thread === 'database' ? server.pid : await poolThread(server.pid);
  const tracer = await inject(tid, call, `${fault}:when=${when}`);
  const key = randomUUID();
  const headers = { ...octets, 'idempotency-key': key };
  let acknowledged: string | undefined;
  let refused: number | undefined;
  try {
    const response = await fetch(predictionUrl(server.url, 'good'), {
      method: 'POST',
      body: bytes,
      headers,
      signal: AbortSignal.timeout(20_000),
    });
    if (response.status === 202) {
      acknowledged = ((await response.json()) as Job).id;
      for (const end = Date.now() + 20_000; Date.now() < end; await sleep(20)) {
        const job = (await (await fetch(`${server.url}/api/jobs/${acknowledged}`)).json()) as Job;
        if (isSettled(job)) break;
      }
    } else {
      refused = response.status;
      const problem = (await response.json()) as { code?: string };
      if (!problem.code || (refused !== 507 && refused !== 500 && refused !== 503))
        half(`refused with ${refused} ${problem.code}`);
    }
  } catch {
    // The server died under it.
  }
  const log = await tracer.end();
  const isDead = !(await fetch(`${server.url}/health/live`, { signal: AbortSignal.timeout(10_000) }).then(
    (answer) => answer.ok,
    () => false,
  ));
  const isHit = wasHit(log) || (isDead && fault === 'signal=SIGKILL');
  if (isDead) {
    tally.died++;
    if (fault !== 'signal=SIGKILL') half('the server died of it');
    await server.kill();
    await server.start();
  }
  if (!isHit) {
    await tidy(server, acknowledged);
    return false;
  }
  tally.hit++;
  if (refused !== undefined) tally.refused++;
  // The same request again gives the job that was acknowledged, or makes it now; either ends well.
  const again = await fetch(predictionUrl(server.url, 'good'), { method: 'POST', body: bytes, headers });
  const job = again.status === 202 ? ((await again.json()) as Job) : undefined;
  if (!job) half(`the repeated request gets ${again.status}`);
  else {
    if (acknowledged !== undefined && job.id !== acknowledged) half('an acknowledged job is gone');
    const settled = await settledJob(server.url, job.id, 30_000);
    const result = settled ? await resultOf(server.url, settled) : 'none';
    // A fault of the disk while it ran may fail a job; it says so then, and is no result.
    const isClean =
      settled?.state === 'failed' &&
      ['DISK_FULL', 'INTERNAL'].includes(settled.error?.code ?? '') &&
      fault !== 'signal=SIGKILL';
    if (result !== expected && !isClean) half(`the job ends as ${result}`);
    else tally.kept++;
    await tidy(server, job.id);
  }
  const left = await callersFiles(server.dataFolder);
  if (left.length > 0) {
    // A fault may leave a file to the sweep of the next start; an acknowledged one it never is.
    await server.kill();
    await server.start();
    const still = await callersFiles(server.dataFolder);
    if (still.length > 0) half(`${still.map(({ name }) => name).join(', ')} is left`);
  }
  const integrity = await integrityOf(server.dataFolder);
  if (integrity !== 'ok') half(`the database: ${integrity}`);
  return true;
}

const wasHit = (log: string) => log.includes('INJECTED') || log.includes('+++ killed by SIGKILL');

/** Codes with which a job may fail when this happened to its child. */
const reasons: Record<(typeof faults)[number], readonly string[]> = {
  'signal=SIGKILL': ['OUT_OF_MEMORY', 'WORKER_DIED'],
  'error=ENOSPC': ['DISK_FULL'],
  'error=EIO': ['INTERNAL'],
  'error=EROFS': ['DISK_FULL'],
};

/** The same faults in the child of the app. */
async function childPoints(
  server: MortalServer,
  bytes: Uint8Array<ArrayBuffer>,
  expected: string,
  { perCall, only }: { perCall: number; only?: readonly string[] },
): Promise<Finding[]> {
  const found: Finding[] = [];
  const run = async () => {
    const { id } = (await (await submit(server.url, 'good', bytes)).json()) as Job;
    return (await settledJob(server.url, id, 30_000))!;
  };
  for (const fault of faults) {
    let points = 0;
    const half: string[] = [];
    const ends = new Map<string, number>();
    const known: { id: string; end: string }[] = [];
    const endOf = async (job: Job) => (await resultOf(server.url, job)).trim();
    const remember = async (job: Job) => {
      const end = await endOf(job);
      known.push({ id: job.id, end });
      return end;
    };
    for (const call of childOperations) {
      if ((call === 'write' || call === 'close') && fault !== 'signal=SIGKILL') continue;
      if (only && !only.includes(`${fault} child ${call}`)) continue;
      for (let when = 1; when <= perCall; when++) {
        const point = `${fault} at ${call} ${when} of the child`;
        // The one before may have died: a new child takes its place, and is warm after this.
        const good = await remember(await run());
        if (good !== expected) half.push(`before ${point}: the next job ends as ${good}`);
        const tracer = await inject(
          await poolThread(await childOf(server.pid)),
          call,
          `${fault}:when=${when}`,
        );
        const job = await run();
        if (!wasHit(await tracer.end())) {
          await tidy(server, job.id);
          break;
        }
        points++;
        const end = await remember(job);
        const right = end === expected || reasons[fault].includes(job.error?.code ?? '');
        if (!right) half.push(`${point}: the job ends as ${end}`);
        const name = end === expected ? 'the right result' : (job.error?.code ?? end);
        ends.set(name, (ends.get(name) ?? 0) + 1);
      }
    }
    if (known.length > 0) {
      await server.kill();
      await server.start();
    }
    for (const { id, end } of known) {
      const after = (await (await fetch(`${server.url}/api/jobs/${id}`)).json()) as Job;
      const now = isSettled(after) ? await endOf(after) : after.state;
      if (now !== end) half.push(`a job that ended as ${end} is ${now} after kill -9`);
      await tidy(server, id);
    }
    const left = await callersFiles(server.dataFolder);
    if (left.length > 0) half.push(`${left.map(({ name }) => name).join(', ')} is left`);
    if (only && points === 0) continue;
    const told = [...ends].map(([end, n]) => `${n} × ${end}`).join(', ');
    found.push(
      finding(
        half.length === 0 && points > 0,
        `${fault} at each file operation of the child fails one job with the reason`,
        `${points} points: ${told}${half.length > 0 ? `; ${half.slice(0, 5).join(' | ')}` : ''}`,
      ),
    );
  }
  return found;
}

/** The process that computes. */
async function childOf(pid: number): Promise<number> {
  const children = (await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')).trim().split(' ');
  for (const child of children) {
    const command = await readFile(`/proc/${child}/cmdline`, 'utf8').catch(() => '');
    if (/worker\/child\.[jt]s/.test(command)) return Number(child);
  }
  throw new Error('the server has no child');
}

async function tidy(server: MortalServer, id: string | undefined): Promise<void> {
  if (id === undefined) return;
  const answer = await fetch(`${server.url}/api/jobs/${id}`, { method: 'DELETE' });
  if (answer.status === 200) await fetch(`${server.url}/api/jobs/${id}`, { method: 'DELETE' });
}

/** The thread of libuv's pool. */
async function poolThread(pid: number): Promise<number> {
  for (const tid of await readdir(`/proc/${pid}/task`)) {
    const name = await readFile(`/proc/${pid}/task/${tid}/comm`, 'utf8').catch(() => '');
    if (name.startsWith('libuv-worker')) return Number(tid);
  }
  throw new Error(`process ${pid} has no libuv-worker thread`);
}

async function inject(tid: number, call: string, what: string) {
  const tracer: ChildProcess = spawn(
    'strace',
    ['-p', String(tid), '-e', `trace=${call}`, '-e', `inject=${call}:${what}`],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  );
  let log = '';
  const attached = new Promise<void>((resolve, reject) => {
    tracer.on('error', reject);
    tracer.on('exit', () => reject(new Error(`strace: ${log.slice(0, 300)}`)));
    tracer.stderr?.on('data', (chunk: Buffer) => {
      log += chunk.toString('latin1');
      if (log.includes('attached')) resolve();
    });
  });
  // When all that it said was read.
  const exit = new Promise<void>((resolve) => tracer.on('close', () => resolve()));
  await attached;
  return {
    async end() {
      if (tracer.exitCode === null) tracer.kill('SIGINT');
      await exit;
      return log;
    },
  };
}

async function canTrace(pid: number): Promise<boolean> {
  try {
    const tracer = await inject(pid, 'fdatasync', 'delay_enter=0:when=65535');
    await tracer.end();
    return true;
  } catch {
    return false;
  }
}
