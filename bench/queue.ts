/**
 * The queue alone, without computing: jobs accepted, claimed and settled in a second, the time from acceptance to a waiting claim at
 * another server, and the time of a claim with 10,000 waiting; on SQLite, and on PostgreSQL where it is installed, over two servers.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openBlobs } from '../packages/server/src/store/blobs/blobs.ts';
import { openServerDatabase } from '../packages/server/src/store/database/server-database.ts';
import { createJobs, type Jobs } from '../packages/server/src/store/jobs/jobs.ts';
import { waitForJob } from '../packages/server/src/worker/local-source.ts';
import { postgresBin, startOwnPostgres } from '../packages/server/test/support/postgres.ts';
import { type BenchOptions, type BenchResult, type Line, median } from './report.ts';

const owners = 50;
const failure = { code: 'APP_FAILED', message: '' } as const;

export async function run({ quick }: BenchOptions): Promise<BenchResult> {
  const scale = quick ? 0.1 : 1;
  const lines: Line[] = [];
  await using opened = new AsyncDisposableStack();
  const postgres = postgresBin ? opened.use(await startOwnPostgres({ isDurable: true })) : undefined;
  const databases: [string, string | undefined][] = [['SQLite', undefined]];
  if (postgres) databases.push(['PostgreSQL', await postgres.database()]);
  for (const [name, url] of databases) {
    const measured = await measure(url, scale);
    for (const [point, value, unit] of measured) {
      console.log(`  ${name}: ${point} ${value.toFixed(1)} ${unit}`);
      lines.push({ point: `${name}: ${point}`, measured: value, unit });
    }
  }
  if (!postgres) console.log('  PostgreSQL is not installed: not measured');
  return { lines };
}

type Measured = [point: string, value: number, unit: string];

async function measure(url: string | undefined, scale: number): Promise<Measured[]> {
  const folder = await mkdtemp(join(tmpdir(), 'tomaat-bench-'));
  await using opened = new AsyncDisposableStack();
  opened.defer(() => rm(folder, { recursive: true, force: true }));
  const blobs = opened.use(await openBlobs(join(folder, 'blobs')));
  async function open(): Promise<Jobs> {
    const database = opened.use(await openServerDatabase(folder, url));
    return opened.use(createJobs({ database, blobs, resultTtlMs: 3_600_000, maxQueued: 20_000 }));
  }
  const first = await open();
  const second = url === undefined ? first : await open();
  const create = (n: number, jobs = first) =>
    jobs.create({
      service: 's',
      owner: `o${n % owners}`,
      request: { parameters: {}, stem: 'x' },
      inputs: [],
    });
  const end = (jobs: Jobs, { id, attempt }: { id: string; attempt: number }) =>
    jobs.settle(id, attempt, { state: 'failed', error: failure });

  const rounds = Math.round(400 * scale);
  for (let i = 0; i < rounds; i++) await create(i);
  const startMs = performance.now();
  await Promise.all(
    [first, second, first, second].map(async (jobs) => {
      for (let job = await jobs.claim(['s'], 'w'); job; job = await jobs.claim(['s'], 'w'))
        await end(jobs, job);
    }),
  );
  const perSecond = rounds / ((performance.now() - startMs) / 1000);

  const waitsMs: number[] = [];
  for (let i = 0; i < rounds / 4; i++) {
    const claimed = waitForJob(second, ['s'], AbortSignal.timeout(10_000), 'w').then((job) => ({
      job: job!,
      atMs: performance.now(),
    }));
    await create(i);
    const acceptedMs = performance.now();
    const { job, atMs } = await claimed;
    waitsMs.push(Math.max(0, atMs - acceptedMs));
    await end(second, job);
  }
  waitsMs.sort((a, b) => a - b);

  const eventsMs: number[] = [];
  const { id } = await create(0);
  await first.claim(['s'], 'w');
  for (let i = 0; i < 20; i++) {
    const heard = new Promise<void>((resolve) => {
      const stop = second.watch(id, () => {
        stop();
        resolve();
      });
    });
    const saidMs = performance.now();
    await first.touch(id, 1, { stage: `stage ${i}`, fraction: 0 });
    await heard;
    eventsMs.push(performance.now() - saidMs);
  }

  const many = Math.round(10_000 * scale);
  for (let i = 0; i < many; i += 50)
    await Promise.all(Array.from({ length: 50 }, (_, k) => create(i + k, k % 2 ? first : second)));
  const claimsMs: number[] = [];
  for (let i = 0; i < 30; i++) {
    const claimMs = performance.now();
    await first.claim(['s'], 'w');
    claimsMs.push(performance.now() - claimMs);
  }
  return [
    ['claimed and settled', perSecond, 'jobs/s'],
    ['accepted until claimed, p50', median(waitsMs), 'ms'],
    ['accepted until claimed, p95', waitsMs[Math.floor(0.95 * waitsMs.length)], 'ms'],
    ['progress until heard, p50', median(eventsMs), 'ms'],
    [`claim with ${many} waiting, p50`, median(claimsMs), 'ms'],
  ];
}
