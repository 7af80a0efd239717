import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isSettled, type Job } from '@tomaat/client';
import pg from 'pg';
import { createKey } from '../../packages/server/src/access/keys.ts';
import { openServerDatabase } from '../../packages/server/src/store/server-database.ts';
import {
  postgresBin,
  startPostgres,
  type TestPostgres,
} from '../../packages/server/test/support/postgres.ts';
import { type CuttableLink, createCuttableLink } from './cuttable-link.ts';
import {
  type Finding,
  finding,
  load,
  type MortalServer,
  makeVolumes,
  openMortalServer,
  quantile,
  resultOf,
  settledJob,
  slowApp,
  startWorkerProcess,
  submit,
  type WorkerProcess,
} from './harness.ts';

/**
 * Two servers over one PostgreSQL and one folder of blobs, three workers, three callers, and at random moments kill -9 of a server, a
 * worker, a child, the whole PostgreSQL or one of its connections, SIGSTOP of a server or a worker, and a cut of the network to the
 * database: nothing accepted is lost, nothing ends twice, no service gets more places than it has, each stream of events
 * ends with the end.
 */

const limits = { one: 1, two: 2, three: 3 } as const;
type Service = keyof typeof limits;
const services = Object.keys(limits) as Service[];
const leaseMs = 4000;

interface Cluster {
  postgres: TestPostgres;
  database: string;
  servers: { server: MortalServer; link: CuttableLink }[];
  workers: (WorkerProcess & { at: number })[];
  startWorker(at: number): Promise<WorkerProcess & { at: number }>;
}

export async function cluster(
  folder: string,
  { seconds, seed }: { seconds: number; seed: number },
): Promise<Finding[]> {
  if (!postgresBin)
    return [finding(true, 'servers over one PostgreSQL', 'not tried: PostgreSQL is not here')];
  await using opened = new AsyncDisposableStack();
  const world = await openCluster(folder, opened);
  const [bytes] = await makeVolumes();
  const expected = await warmUp(world, bytes);

  const stop = new AbortController();
  const callers = services.map((_service, i) => startCaller(world, i, bytes, stop.signal));
  const watch = watchLimits(world.database, stop.signal);
  const done = await doHarm(world, seconds, seed);
  stop.abort();
  const accepted = (await Promise.all(callers)).flat();
  const most = await watch;
  return await judge(world, { accepted, expected, done, most });
}

async function openCluster(folder: string, opened: AsyncDisposableStack): Promise<Cluster> {
  const postgres = opened.use(await startPostgres({ isDurable: true }));
  const database = await postgres.database();
  const apps = [
    await slowApp(folder, 'one', 60, { limits: { concurrency: 1 } }),
    await slowApp(folder, 'two', 120, { limits: { concurrency: 2 } }),
    await slowApp(folder, 'three', 200, { limits: { concurrency: 3 } }),
  ];
  const servers: Cluster['servers'] = [];
  for (const name of ['first', 'second']) {
    const link = opened.use(await createCuttableLink(Number(new URL(database).port)));
    const throughLink = new URL(database);
    throughLink.port = String(link.port);
    const server = await openMortalServer(apps, {
      dataFolder: join(folder, name),
      database: throughLink.href,
      blobs: join(folder, 'blobs'),
      workers: 0,
      leaseMs,
      maxQueued: 300,
    });
    opened.defer(() => server.close());
    servers.push({ server, link });
  }
  const { db, close } = await openServerDatabase(join(folder, 'first'), database);
  const { key } = await createKey(db as never, { label: 'torture', scopes: ['worker', 'predict'] });
  await close();
  const startWorker = async (at: number) => ({
    ...(await startWorkerProcess(servers[at].server.url, key, apps, [], ['--workers', '2'])),
    at,
  });
  const workers = await Promise.all([0, 1, 0].map(startWorker));
  const world = { postgres, database, servers, workers, startWorker };
  opened.defer(async () => {
    for (const worker of world.workers) await worker.kill();
  });
  return world;
}

async function warmUp({ servers }: Cluster, bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const results = new Set<string>();
  for (const service of services) {
    const { url } = servers[0].server;
    const job = (await (await submit(url, service, bytes)).json()) as Job;
    const settled = await settledJob(servers[1].server.url, job.id);
    results.add(await resultOf(servers[1].server.url, settled!));
  }
  if (results.size !== 1) throw new Error(`the services differ: ${[...results].join(', ')}`);
  return [...results][0];
}

interface Accepted {
  id: string;
  /** The last state that a stream of events told; undefined if it was never asked. */
  streamed?: string;
}

/** Sends to each server in turn, each request with its key until it is answered, and reads the events of every third at the other. */
async function startCaller(
  { servers }: Cluster,
  index: number,
  bytes: Uint8Array<ArrayBuffer>,
  stop: AbortSignal,
): Promise<Accepted[]> {
  const accepted: Accepted[] = [];
  const streams: Promise<void>[] = [];
  for (let n = index; !stop.aborted; n++) {
    const key = randomUUID();
    let job: Job | undefined;
    for (let turn = n; !job; turn++) {
      const response = await submit(servers[turn % 2].server.url, services[n % 3], bytes, key).catch(
        () => undefined,
      );
      if (response?.status === 202 || response?.status === 200) job = (await response.json()) as Job;
      else await response?.arrayBuffer().catch(() => {});
      if (!job) await sleep(100);
    }
    const one: Accepted = { id: job.id };
    accepted.push(one);
    if (n % 3 === index) streams.push(followEvents(servers, one));
    await sleep(80);
  }
  await Promise.all(streams);
  return accepted;
}

/** Reads the events of a job until its end, from the other server after each break, as a page does. */
async function followEvents(servers: Cluster['servers'], one: Accepted): Promise<void> {
  for (let turn = 0; turn < 200; turn++) {
    try {
      const { url } = servers[turn % 2].server;
      const response = await fetch(`${url}/api/jobs/${one.id}/events`, {
        signal: AbortSignal.timeout(60_000),
      });
      const text = await response.text();
      const last = [...text.matchAll(/^data: (\{.*\})$/gm)].at(-1)?.[1];
      if (last) one.streamed = (JSON.parse(last) as Job).state;
      if (one.streamed && isSettled({ state: one.streamed } as Job)) return;
    } catch {
      // Its server was killed.
    }
    await sleep(200);
  }
}

/** The most predictions of each service that the database has seen at a time. */
async function watchLimits(database: string, stop: AbortSignal): Promise<Record<string, number>> {
  const most: Record<string, number> = {};
  while (!stop.aborted) {
    const client = new pg.Client({ connectionString: database });
    client.on('error', () => {});
    try {
      await client.connect();
      while (!stop.aborted) {
        const { rows } = await client.query(
          "SELECT service, count(*)::int AS running FROM tomaat.job WHERE state = 'running' GROUP BY service",
        );
        for (const { service, running } of rows) most[service] = Math.max(most[service] ?? 0, running);
        await sleep(25);
      }
    } catch {
      await sleep(200);
    } finally {
      await client.end().catch(() => {});
    }
  }
  return most;
}

const harms = [
  'server',
  'worker',
  'child',
  'postgres',
  'backend',
  'pause server',
  'pause worker',
  'cut',
] as const;
type Harm = (typeof harms)[number];

/** Does harm at random moments; each kind is done at least once. What was done, by kind. */
async function doHarm(world: Cluster, seconds: number, seed: number): Promise<Record<string, number>> {
  const random = seededRandom(seed);
  const done: Record<string, number> = {};
  const endMs = performance.now() + seconds * 1000;
  for (let n = 0; performance.now() < endMs || n < harms.length; n++) {
    await sleep(300 + random() * 1500);
    const harm = n < harms.length ? harms[n] : weighted(random());
    done[harm] = (done[harm] ?? 0) + 1;
    await inflict(world, harm, random);
  }
  return done;
}

/** Losing the whole database takes seconds: it is rarer. */
function weighted(random: number): Harm {
  const shares: [Harm, number][] = [
    ['server', 0.2],
    ['worker', 0.25],
    ['child', 0.2],
    ['backend', 0.15],
    ['pause server', 0.05],
    ['pause worker', 0.05],
    ['cut', 0.06],
    ['postgres', 0.04],
  ];
  let sum = 0;
  return shares.find(([, share]) => (sum += share) > random)?.[0] ?? 'worker';
}

async function inflict(world: Cluster, harm: Harm, random: () => number): Promise<void> {
  const { server, link } = world.servers[Math.floor(random() * 2)];
  const which = Math.floor(random() * world.workers.length);
  const worker = world.workers[which];
  if (harm === 'server') {
    await server.kill();
    await sleep(random() * 500);
    await server.start();
  } else if (harm === 'worker') {
    await worker.kill();
    world.workers[which] = await world.startWorker(worker.at);
  } else if (harm === 'child') {
    for (const pid of await childrenOf(worker.child.pid!)) tryKill(pid, 'SIGKILL');
  } else if (harm === 'postgres') {
    await world.postgres.kill();
    // Longer than a lease: who lives must keep what it has.
    await sleep(leaseMs + 2000);
    await world.postgres.start();
  } else if (harm === 'backend') {
    await endBackend(world.database);
  } else if (harm === 'cut') {
    link.cut();
    await sleep(leaseMs / 2);
    link.mend();
  } else {
    const pid = harm === 'pause server' ? server.pid : worker.child.pid!;
    tryKill(pid, 'SIGSTOP');
    await sleep(leaseMs + 1500);
    tryKill(pid, 'SIGCONT');
  }
}

async function endBackend(database: string): Promise<void> {
  const client = new pg.Client({ connectionString: database });
  client.on('error', () => {});
  try {
    await client.connect();
    await client.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
      WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1`);
  } catch {
    // It is away.
  } finally {
    await client.end().catch(() => {});
  }
}

function tryKill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has ended.
  }
}

/** The children of a process that compute. */
async function childrenOf(pid: number): Promise<number[]> {
  const list = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8').catch(() => '');
  return list.split(' ').filter(Boolean).map(Number);
}

function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

async function judge(
  { servers, database }: Cluster,
  {
    accepted,
    expected,
    done,
    most,
  }: { accepted: Accepted[]; expected: string; done: Record<string, number>; most: Record<string, number> },
): Promise<Finding[]> {
  let lost = 0;
  const wrong: string[] = [];
  let givenUp = 0;
  let killed = 0;
  for (const [i, { id }] of accepted.entries()) {
    const { url } = servers[i % 2].server;
    const job = await settledJob(url, id, 120_000);
    if (!job || !isSettled(job)) lost++;
    else if (job.error?.code === 'WORKER_DIED' && job.attempt >= 3) givenUp++;
    // What kills a child from outside is, for its server, the system that is short of memory.
    else if (job.error?.code === 'OUT_OF_MEMORY' && killed++ < (done.child ?? 0) * 2) continue;
    else {
      const result = await resultOf(url, job);
      if (result !== expected) wrong.push(`${result}, attempt ${job.attempt}: ${job.error?.detail}`);
    }
  }
  const client = new pg.Client({ connectionString: database });
  await client.connect();
  const count = async (text: string) =>
    Number((await client.query(`SELECT count(*) AS n FROM ${text}`)).rows[0].n);
  const rows = await count('tomaat.job');
  const ends = `FROM (SELECT line::json->>'job' AS job FROM tomaat.audit_line
    WHERE line::json->>'event' IN ('prediction.succeeded', 'prediction.failed', 'prediction.canceled')) AS told`;
  const ended = await count(`(SELECT DISTINCT job ${ends}) AS jobs`);
  const endedTwice = await count(`(SELECT job ${ends} GROUP BY job HAVING count(*) > 1) AS jobs`);
  const running = await count("tomaat.job WHERE state = 'running'");
  await client.end();
  const streams = accepted.filter(({ streamed }) => streamed !== undefined);
  const unfinished = streams.filter(({ streamed }) => !isSettled({ state: streamed } as Job));
  const harm = Object.entries(done)
    .map(([kind, times]) => `${times} ${kind}`)
    .join(', ');
  const ready = servers.flatMap(({ server }) => server.readyMs);
  return [
    finding(
      lost === 0,
      'nothing accepted is lost',
      `${accepted.length} accepted, ${lost} lost; ${harm}; ${load()}`,
    ),
    finding(
      wrong.length === 0,
      'no result is wrong or torn',
      `${wrong.length} differ${wrong.length > 0 ? `, such as ${wrong[0]}` : ''}; ${givenUp} lost their process three times, the child of ${killed} was killed`,
    ),
    finding(
      rows - services.length >= accepted.length && rows - services.length - accepted.length <= 3,
      'no request makes two jobs',
      `${rows - services.length} rows for ${accepted.length} accepted`,
    ),
    finding(
      endedTwice === 0 && ended === rows,
      'each job ends once',
      `${ended} with an end in the audit log, ${endedTwice} with two`,
    ),
    finding(
      services.every((service) => (most[service] ?? 0) <= limits[service]),
      'no service gets more places than it has',
      services.map((service) => `${service} ${most[service] ?? 0} of ${limits[service]}`).join(', '),
    ),
    finding(
      unfinished.length === 0 && streams.length > 0,
      'each stream of events ends with the end',
      `${streams.length} streams, ${unfinished.length} without`,
    ),
    finding(running === 0, 'nothing is left running', `${running} rows`),
    finding(true, 'a killed server is ready again', `p50 ${Math.round(quantile(ready, 0.5))} ms`),
  ];
}
