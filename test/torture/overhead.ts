import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Job } from '@tomaat/client';
import { sql } from 'kysely';
import { openServerDatabase } from '../../packages/server/src/store/server-database.ts';
import {
  type Finding,
  finding,
  load,
  makeVolumes,
  openMortalServer,
  quantile,
  settledJob,
  slowApp,
  submit,
} from './harness.ts';

const allowedCommits = 6;

/** What a job costs beside its prediction: the time until it starts, the commits, the rate at which tiny jobs settle. */
export async function overhead(folder: string, { jobs }: { jobs: number }): Promise<Finding[]> {
  const [bytes] = await makeVolumes();
  const server = await openMortalServer([await slowApp(folder, 'tiny', 0)], {
    dataFolder: join(folder, 'overhead'),
  });
  try {
    const one = async () => {
      const job = (await (await submit(server.url, 'tiny', bytes)).json()) as Job;
      return (await settledJob(server.url, job.id))!;
    };
    await one();
    const waits: number[] = [];
    for (let i = 0; i < Math.min(jobs, 100); i++) {
      const job = await one();
      waits.push(Date.parse(job.startedTime!) - Date.parse(job.createdTime));
    }
    // Commits are what makes the database's file safe: its own thread is the one that calls fdatasync for it.
    const counted = 20;
    const syncs = await countSyncs(server.pid, async () => {
      for (let i = 0; i < counted; i++) await one();
    });

    // A queue of tiny jobs that is never empty, against as many bare commits in the same minute.
    const start = performance.now();
    const ids: string[] = [];
    let sent = 0;
    await Promise.all(
      Array.from({ length: 8 }, async () => {
        while (sent++ < jobs) ids.push(((await (await submit(server.url, 'tiny', bytes)).json()) as Job).id);
      }),
    );
    for (const id of ids) await settledJob(server.url, id);
    const jobsPerSecond = ids.length / ((performance.now() - start) / 1000);
    const perJob = syncs === undefined ? undefined : syncs / counted;
    const commitsPerSecond = await bareCommits(join(folder, 'bare'));
    const bare = commitsPerSecond / allowedCommits;
    return [
      finding(
        quantile(waits, 0.5) < 20,
        'from accepted to started, p50 under 20 ms',
        `p50 ${quantile(waits, 0.5)} ms, p95 ${quantile(waits, 0.95)} ms, ${load()}`,
      ),
      finding(
        perJob === undefined || perJob <= allowedCommits,
        `at most ${allowedCommits} commits a job`,
        perJob === undefined
          ? 'not counted: strace cannot attach here'
          : `${perJob.toFixed(1)} fdatasync of the database a job`,
      ),
      finding(
        jobsPerSecond >= bare / 2,
        `tiny jobs settle at half the rate of ${allowedCommits} bare commits each, or more`,
        `${jobsPerSecond.toFixed(0)} jobs/s; bare commits ${commitsPerSecond.toFixed(0)}/s make ${bare.toFixed(0)} jobs/s, ${load()}`,
      ),
    ];
  } finally {
    await server.close();
  }
}

/** How often the main thread calls fdatasync meanwhile; undefined where strace may not attach. */
async function countSyncs(pid: number, work: () => Promise<void>): Promise<number | undefined> {
  const log = `/tmp/tomaat-torture-${pid}.strace`;
  // Without -f: SQLite runs in the main thread, files of blobs are synced by others.
  const tracer = spawn('strace', ['-p', String(pid), '-e', 'trace=fdatasync,fsync', '-o', log], {
    stdio: 'ignore',
  });
  const failed = await Promise.race([
    once(tracer, 'exit').then(
      () => true,
      () => true,
    ),
    once(tracer, 'error').then(() => true),
    sleep(1500).then(() => false),
  ]);
  if (failed) return undefined;
  await work();
  tracer.kill('SIGINT');
  await once(tracer, 'exit');
  return (await readFile(log, 'utf8')).split('\n').filter((line) => /^f(data)?sync\(/.test(line)).length;
}

/** Commits a second of a database that is opened as the server opens its own, one small row each. */
async function bareCommits(folder: string): Promise<number> {
  await mkdir(folder, { recursive: true });
  await using database = await openServerDatabase(folder);
  const count = 400;
  const start = performance.now();
  for (let i = 0; i < count; i++) {
    await database.transaction((trx) =>
      sql`INSERT INTO duration (service, seconds) VALUES ('x', ${i})`.execute(trx),
    );
  }
  return count / ((performance.now() - start) / 1000);
}
