import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Job } from '@tomaat/client';
import { sql } from 'kysely';
import { openServerDatabase } from '../../packages/server/src/store/database/server-database.ts';
import { writeApp } from '../../packages/server/test/app-fixture.ts';
import {
  type Finding,
  finding,
  load,
  makeVolumes,
  openMortalServer,
  predictionUrl,
  quantile,
  settledJob,
  slowApp,
  submit,
} from './harness.ts';

const allowedCommits = 6;

/** What a job costs beside its prediction: the time until it starts, the commits, the rate at which tiny jobs settle. */
export async function overhead(folder: string, { jobs }: { jobs: number }): Promise<Finding[]> {
  const [bytes] = await makeVolumes();
  const server = await openMortalServer([await slowApp(folder, 'volume', 0), await tinyApp(folder)], {
    dataFolder: join(folder, 'overhead'),
  });
  const sendVolume = () => submit(server.url, 'volume', bytes);
  const sendTiny = () =>
    fetch(predictionUrl(server.url, 'tiny'), {
      method: 'POST',
      body: '{}',
      headers: { 'content-type': 'application/json', 'idempotency-key': randomUUID() },
    });
  try {
    const one = async () => {
      const job = (await (await sendVolume()).json()) as Job;
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

    // Jobs as fast as they are taken, against as many bare commits right after, five times, for nothing here is steady. The
    // first time compiles the code.
    const rounds: { tiny: number; volume: number; bare: number }[] = [];
    for (let i = 0; i <= 5; i++) {
      rounds.push({
        tiny: await burst(server.url, sendTiny, jobs),
        bare: (await bareCommits(join(folder, `bare-${i}`))) / allowedCommits,
        volume: await burst(server.url, sendVolume, jobs),
      });
    }
    rounds.shift();
    const middle = (of: (round: (typeof rounds)[number]) => number) => quantile(rounds.map(of), 0.5);
    const perJob = syncs === undefined ? undefined : syncs / counted;
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
        middle((round) => round.tiny / round.bare) >= 0.5,
        `tiny jobs settle at half the rate of ${allowedCommits} bare commits each, or more`,
        `${middle((round) => round.tiny / round.bare).toFixed(2)} of it: ${middle((round) => round.tiny).toFixed(0)} jobs/s (${middle((round) => round.volume).toFixed(0)} with a volume in and out) against ${middle((round) => round.bare).toFixed(0)}, medians of 5, ${load()}`,
      ),
    ];
  } finally {
    await server.close();
  }
}

/** The least that a job can be: no file in, a line of text out. */
const tinyApp = (folder: string): Promise<string> =>
  writeApp(folder, 'tiny', {
    inputs: { level: { type: 'slider', minimum: 0, maximum: 9, default: 3 } },
    outputs: { report: { type: 'PlainText' } },
    infer: 'return { report: String(inputs.level) };',
  });

/** The rate at which jobs settle that are sent eight at a time. */
async function burst(url: string, send: () => Promise<Response>, jobs: number): Promise<number> {
  const ids: string[] = [];
  let sent = 0;
  await Promise.all(
    Array.from({ length: 8 }, async () => {
      while (sent++ < jobs) ids.push(((await (await send()).json()) as Job).id);
    }),
  );
  // The last in the queue first, so that asking is not what is measured; the times are the server's.
  await settledJob(url, ids.at(-1)!);
  const settled = await Promise.all(ids.map((id) => settledJob(url, id)));
  const createdMs = settled.map((job) => Date.parse(job!.createdTime));
  const settledMs = settled.map((job) => Date.parse(job!.settledTime!));
  return ids.length / ((Math.max(...settledMs) - Math.min(...createdMs)) / 1000);
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
