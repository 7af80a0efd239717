import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { sql } from 'kysely';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createRandom } from '../../../test/onnx-fixture.ts';
import { type OwnPostgres, postgresBin, startOwnPostgres } from '../../../test/support/postgres.ts';
import { type Blobs, openBlobs } from '../blobs/blobs.ts';
import type { Database } from '../database/database.ts';
import { openServerDatabase, type ServerSchema } from '../database/server-database.ts';
import { createJobQueue } from './job-queue.ts';
import type { NewJob } from './job-records.ts';
import { createJobs, type Jobs } from './jobs.ts';

/* Two servers with one PostgreSQL database and one blob store. */

interface Server {
  jobs: Jobs;
  database: Database<ServerSchema>;
  clock: { aheadMs: number };
}

const leaseMs = 1000;
const limits: Record<string, number> = { one: 1, two: 2, three: 3 };
const failure = { code: 'APP_FAILED', message: '' } as const;
const request = { parameters: {}, stem: 'x' };

describe.skipIf(!postgresBin)('jobs of servers that share PostgreSQL', () => {
  let postgres: OwnPostgres;
  let folder: string;
  let blobs: Blobs;
  let first: Server;
  let second: Server;
  let url: string;

  beforeAll(async () => {
    postgres = await startOwnPostgres();
  }, 60_000);
  afterAll(() => postgres?.[Symbol.asyncDispose]());

  async function open(): Promise<Server> {
    const database = await openServerDatabase(folder, url);
    const clock = { aheadMs: 0 };
    const jobs = createJobs({
      database,
      blobs,
      resultTtlMs: 60_000,
      maxQueued: 100,
      leaseMs,
      concurrencyOf: (service) => limits[service],
      now: () => Date.now() + clock.aheadMs,
    });
    await jobs.recover(['s', ...Object.keys(limits)]);
    return { jobs, database, clock };
  }
  async function close(server: Server): Promise<void> {
    await server.jobs.close();
    await server.database.close();
  }

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tomaat-shared-'));
    url = await postgres.database();
    blobs = await openBlobs(join(folder, 'blobs'));
    first = await open();
    second = await open();
  });
  afterEach(async () => {
    await close(first);
    await close(second);
    await blobs.close();
    await rm(folder, { recursive: true, force: true });
  });

  const add = async (more: Partial<NewJob> = {}, { jobs } = first) =>
    (await jobs.create({ service: 's', owner: 'a', request, inputs: [], ...more })).id;
  const finish = ({ jobs }: Server, { id, attempt }: { id: string; attempt: number }) =>
    jobs.settle(id, attempt, { state: 'failed', error: failure });
  async function store(text: string): Promise<{ digest: string; sizeBytes: number }> {
    await using writer = await blobs.create();
    await writer.write(Buffer.from(text));
    return writer.commit();
  }
  /** Calls lapse() as the upkeep of a server does, for longer than a server is silent after its start. */
  async function lapseUntil(isOver: () => boolean | Promise<boolean>, servers = [first, second]) {
    const lapsed: string[] = [];
    for (const endMs = performance.now() + 15_000; performance.now() < endMs && !(await isOver()); ) {
      for (const { jobs } of servers) lapsed.push(...(await jobs.lapse()));
      await delay(100);
    }
    return lapsed;
  }

  it('gives each job once, and no service more places than it has', async () => {
    const services = ['one', 'two', 'three'];
    for (let i = 0; i < 12; i++) await add({ service: services[i % 3], owner: `o${i % 4}` });
    const atOnce = await Promise.all(
      Array.from({ length: 8 }, (_, i) => (i % 2 ? first : second).jobs.claim(services, 'worker')),
    );
    const counts = Object.groupBy(
      atOnce.filter((job) => job !== undefined),
      ({ service }) => service,
    );
    expect(services.map((service) => counts[service]?.length)).toEqual([1, 2, 3]);
    for (const job of atOnce) if (job) await finish(first, job);

    for (let i = 0; i < 18; i++) await add({ service: services[i % 3], owner: `o${i % 4}` });
    const running = new Map<string, number>();
    const most = new Map<string, number>();
    const given: string[] = [];
    async function lane(server: Server): Promise<void> {
      while (given.length < 24) {
        const job = await server.jobs.claim(services, 'worker');
        if (!job) {
          await delay(5);
          continue;
        }
        given.push(job.id);
        const now = (running.get(job.service) ?? 0) + 1;
        running.set(job.service, now);
        most.set(job.service, Math.max(now, most.get(job.service) ?? 0));
        await delay(20);
        running.set(job.service, running.get(job.service)! - 1);
        expect(await finish(server, job)).toBe(true);
      }
    }
    await Promise.all(Array.from({ length: 8 }, (_, i) => lane(i % 2 ? first : second)));
    expect(new Set(given).size).toBe(24);
    for (const service of services) expect(most.get(service)).toBeLessThanOrEqual(limits[service]);
  }, 30_000);

  it('leaves a job in the queue when its claim fails halfway', async () => {
    const { db } = first.database;
    const file = { name: 'volume', fileName: 'x.nrrd', ...(await store('input')) };
    const id = await add({ inputs: [file] });
    await sql`ALTER TABLE job_input RENAME TO hidden`.execute(db);
    await expect(first.jobs.claim(['s'])).rejects.toThrow('job_input');
    await sql`ALTER TABLE hidden RENAME TO job_input`.execute(db);
    // A server that took it for its own would keep its lease.
    await first.jobs.lapse();
    expect(await second.jobs.claim(['s'], 'w')).toMatchObject({ id, attempt: 1, inputs: [file] });
  });

  it('orders as the queue of one process does', async () => {
    const random = createRandom(5);
    const pick = <T>(list: readonly T[]) => list[Math.floor(random() * list.length)];
    const startMs = Date.now();
    for (let round = 0; round < 3; round++) {
      const queue = createJobQueue(
        (service) => limits[service],
        () => startMs,
      );
      await first.database.db.deleteFrom('job').execute();
      await first.database.db.deleteFrom('owner_turn').execute();
      for (let i = 0; i < 25; i++) {
        const job = {
          service: pick(['s', 'one', 'two']),
          owner: pick(['a', 'b', 'c']),
          urgency: pick([1, 3, 5]),
        };
        const id = await add(job);
        // Several of one millisecond, and some that have waited for minutes.
        const createdMs = startMs - 100_000 * Math.floor(random() * 12);
        await first.database.db
          .updateTable('job')
          .set({ created_ms: createdMs })
          .where('id', '=', id)
          .execute();
        queue.add({ ...job, id, createdMs, attempt: 0, order: i });
      }
      first.clock.aheadMs = startMs - Date.now();
      const running: { id: string; attempt: number }[] = [];
      for (;;) {
        first.clock.aheadMs = startMs - Date.now();
        const next = queue.next(['s', 'one', 'two']);
        if (next) expect(await first.jobs.positionOf(next.id)).toBe(queue.positionOf(next.id));
        const job = await first.jobs.claim(['s', 'one', 'two'], 'worker');
        expect(job?.id).toBe(next?.id);
        if (job) {
          queue.start(job.id, { service: next!.service, owner: next!.owner, attempt: 1 });
          running.push(job);
        }
        if (!job || random() < 0.4) {
          const ended = running.splice(Math.floor(random() * running.length), 1)[0];
          if (!ended) break;
          await finish(first, ended);
          queue.remove(ended.id);
        }
      }
    }
  }, 60_000);

  it('lets the second owner start within two starts', async () => {
    for (let i = 0; i < 20; i++) await add({ owner: 'first' });
    await first.jobs.claim(['s'], 'w');
    const late = await add({ owner: 'second' }, second);
    const started = [await second.jobs.claim(['s'], 'w'), await first.jobs.claim(['s'], 'w')];
    expect(started.map((job) => job?.id)).toContain(late);
  });

  it('keeps room and limits of owners under requests to both at once', async () => {
    const create = (server: Server, owner: string, more: Partial<NewJob> = {}) =>
      add({ owner, ...more }, server).then(
        () => 'ok',
        (error: { code: string }) => error.code,
      );
    const limited = await Promise.all(
      Array.from({ length: 12 }, (_, i) => create(i % 2 ? first : second, 'l', { limits: { maxJobs: 3 } })),
    );
    expect(limited.filter((one) => one === 'ok')).toHaveLength(3);
    const daily = await Promise.all(
      Array.from({ length: 12 }, (_, i) => create(i % 2 ? first : second, 'd', { limits: { perDay: 4 } })),
    );
    expect(daily.filter((one) => one === 'ok')).toHaveLength(4);
    const many = await Promise.all(
      Array.from({ length: 110 }, (_, i) => create(i % 2 ? first : second, 'm')),
    );
    expect(many.filter((one) => one === 'ok')).toHaveLength(93);
    expect(new Set(many)).toEqual(new Set(['ok', 'BUSY']));
    await expect(first.jobs.requireRoom('m')).rejects.toMatchObject({ code: 'BUSY' });
    await second.jobs.requireRoom('another');
  }, 30_000);

  it('gives concurrent requests with one key one job', async () => {
    const made = await Promise.all(
      Array.from({ length: 8 }, (_, i) =>
        (i % 2 ? first : second).jobs.create({
          service: 's',
          owner: 'a',
          request,
          inputs: [],
          idempotencyKey: 'k',
          fingerprint: 'f',
        }),
      ),
    );
    expect(new Set(made.map(({ id }) => id)).size).toBe(1);
    expect(made.filter(({ existed }) => !existed)).toHaveLength(1);
  });

  it('shows progress, the end and a cancel at the other server', async () => {
    const id = await add();
    const settled = second.jobs.settled(id, AbortSignal.timeout(10_000));
    const job = (await first.jobs.claim(['s']))!;
    expect(await first.jobs.touch(id, 1, { stage: 'infer', fraction: 0.25 })).toBe(true);
    expect(await second.jobs.get(id)).toMatchObject({ state: 'running', stage: 'infer', fraction: 0.25 });
    // The last of several, which are not all written.
    for (const fraction of [0.5, 0.75]) await first.jobs.touch(id, 1, { stage: 'infer', fraction });
    await expect.poll(() => second.jobs.get(id)).toMatchObject({ fraction: 0.75 });
    expect(await second.jobs.isRunning(id, 1)).toBe(true);
    await finish(first, job);
    expect(await settled).toMatchObject({ state: 'failed' });
    expect(await second.jobs.touch(id, 1)).toBe(false);

    const own = await add();
    const canceled = new Promise<string>((resolve) => first.jobs.on('cancel', resolve));
    await first.jobs.claim(['s']);
    await second.jobs.cancel(own);
    expect(await canceled).toBe(own);
  });

  it('wakes a server that waits for work, also after its connection was cut', async () => {
    const woken = () => new Promise<void>((resolve) => second.jobs.on('queued', () => resolve()));
    const waits = woken();
    await add();
    await waits;
    await sql`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
      WHERE datname = current_database() AND pid <> pg_backend_pid()`
      .execute(first.database.db)
      .catch(() => {});
    const again = woken();
    await expect.poll(() => add().catch(() => undefined), { timeout: 10_000 }).toBeDefined();
    await again;
  }, 30_000);

  it('takes a job from a silent worker once, and from a killed server', async () => {
    const byWorker = await add();
    await first.jobs.claim(['s'], 'w');
    const byServer = await add();
    const gone = await open();
    expect((await gone.jobs.claim(['s']))?.id).toBe(byServer);
    await close(gone);
    const kept = await add();
    expect((await second.jobs.claim(['s']))?.id).toBe(kept);

    const lapsed = await lapseUntil(async () => (await first.jobs.counts()).queued === 2);
    expect(lapsed.sort()).toEqual([byWorker, byServer].sort());
    // Its own server renews its lease.
    await lapseUntil(() => delay(2 * leaseMs, true));
    expect(await first.jobs.isRunning(kept, 1)).toBe(true);
    expect(await second.jobs.settle(byWorker, 1, { state: 'failed', error: failure })).toBe(false);
    expect((await first.jobs.claim(['s'], 'w'))?.attempt).toBe(2);
  }, 40_000);

  it('stops the child of an attempt that another server has taken', async () => {
    const id = await add();
    await first.jobs.claim(['s']);
    const stopped = new Promise<string>((resolve) => first.jobs.on('cancel', resolve));
    await second.jobs.requeue(id, 1, 'handed back');
    await first.jobs.lapse();
    expect(await stopped).toBe(id);
  });

  it('requeues nothing after an outage that is longer than the lease', async () => {
    const own = await add();
    const remote = await add();
    await first.jobs.claim(['s']);
    await second.jobs.claim(['s'], 'w');
    await lapseUntil(() => delay(2 * leaseMs, true));
    await second.jobs.touch(remote, 1);
    await postgres.kill();
    await expect(first.jobs.lapse()).rejects.toMatchObject({ code: 'BUSY' });
    await delay(2 * leaseMs);
    await postgres.start();
    // The worker was answered with an error meanwhile, and asks again.
    const alive = setInterval(() => void second.jobs.touch(remote, 1).catch(() => {}), 300);
    const lapsed: string[] = [];
    for (const endMs = performance.now() + 3 * leaseMs; performance.now() < endMs; await delay(100))
      for (const { jobs } of [first, second]) lapsed.push(...(await jobs.lapse().catch(() => [])));
    clearInterval(alive);
    expect(lapsed).toEqual([]);
    expect(await second.jobs.isRunning(own, 1)).toBe(true);
    expect(await first.jobs.isRunning(remote, 1)).toBe(true);
  }, 40_000);

  it('requeues nothing at once after a pause of the servers', async () => {
    const id = await add();
    await first.jobs.claim(['s'], 'w');
    const alive = setInterval(() => void second.jobs.touch(id, 1).catch(() => {}), 200);
    expect(await lapseUntil(() => delay(1.5 * leaseMs, true))).toEqual([]);
    clearInterval(alive);
    // Nobody could renew the lease meanwhile, so nobody may end it before it can be renewed.
    await delay(2 * leaseMs);
    for (const { jobs } of [first, second]) expect(await jobs.lapse()).toEqual([]);
    expect(await second.jobs.touch(id, 1)).toBe(true);
    expect(await first.jobs.isRunning(id, 1)).toBe(true);
  }, 20_000);

  it('keeps blobs that another server holds, and deletes others after the grace', async () => {
    const [held, free, again] = await Promise.all(['held', 'free', 'again'].map(store));
    await second.jobs.hold(held.digest);
    await first.jobs.drop([held, free, again].map(({ digest }) => digest));
    const sweep = async (agoMs: number) => {
      await sql`UPDATE blob_mark SET marked_ms = marked_ms - ${agoMs}::bigint`.execute(first.database.db);
      await first.jobs.sweep();
    };
    await sweep(0);
    expect(await Promise.all([held, free, again].map(({ digest }) => blobs.stat(digest)))).not.toContain(
      undefined,
    );
    await first.jobs.hold(again.digest);
    await sweep(61_000);
    expect(await blobs.stat(held.digest)).toBeDefined();
    expect(await blobs.stat(free.digest)).toBeUndefined();
    expect(await blobs.stat(again.digest)).toBeDefined();
    await expect(second.jobs.hold(free.digest)).rejects.toMatchObject({ code: 'BUSY' });
    // What an attempt delivers to one server is known to the other.
    await first.jobs.hold(held.digest, 'attempt 1 of x');
    expect(await second.jobs.heldFor('attempt 1 of x')).toEqual([held.digest]);
    await second.jobs.releaseAll('attempt 1 of x');
    expect(await first.jobs.heldFor('attempt 1 of x')).toEqual([]);
  });

  it('deletes at once what a request discards, unless another server holds it', async () => {
    const [one, shared] = await Promise.all(['one', 'shared'].map(store));
    for (const { digest } of [one, shared]) await first.jobs.hold(digest);
    await second.jobs.hold(shared.digest);
    await first.jobs.discard([one.digest, shared.digest]);
    expect(await blobs.stat(one.digest)).toBeUndefined();
    expect(await blobs.stat(shared.digest)).toBeDefined();
    await second.jobs.discard([shared.digest]);
    expect(await blobs.stat(shared.digest)).toBeUndefined();
  });

  it('never holds a file that another server discards meanwhile', async () => {
    for (let round = 0; round < 20; round++) {
      const { digest } = await store('discarded');
      await first.jobs.hold(digest);
      const [, held] = await Promise.allSettled([first.jobs.discard([digest]), second.jobs.hold(digest)]);
      expect(held.status === 'fulfilled').toBe((await blobs.stat(digest)) !== undefined);
      if (held.status === 'fulfilled') await second.jobs.discard([digest]);
    }
  });

  it('holds bytes that are stored again while a sweep is about to delete them', async () => {
    const { digest } = await store('stored twice');
    await first.jobs.drop([digest]);
    await sql`UPDATE blob_mark SET marked_ms = marked_ms - 61000`.execute(first.database.db);
    // The sweep is as far as it comes before the commit is over.
    const isDeleting = Promise.withResolvers<void>();
    const remove = blobs.delete.bind(blobs);
    blobs.delete = (...args) => {
      isDeleting.resolve();
      return remove(...args);
    };
    await using writer = await blobs.create();
    await writer.write(Buffer.from('stored twice'));
    let sweep: Promise<number> | undefined;
    await writer.commit(async (ref) => {
      sweep = first.jobs.sweep();
      await isDeleting.promise;
      await first.jobs.hold(ref.digest);
    });
    blobs.delete = remove;
    await sweep;
    expect(await blobs.stat(digest)).toBeDefined();
    expect(await second.jobs.isHeld(digest)).toBe(true);
  });

  it('finds once a day what was stored for a request that failed', async () => {
    let aheadMs = 0;
    const { database } = first;
    const jobs = createJobs({
      ...{ database, blobs, resultTtlMs: 60_000, maxQueued: 100, deleteAfterMs: 0 },
      monotonicMs: () => performance.now() + aheadMs,
    });
    const [left, held] = await Promise.all(['left', 'held'].map(store));
    await second.jobs.hold(held.digest);
    await jobs.sweep();
    expect(await blobs.stat(left.digest)).toBeDefined();
    aheadMs = 24 * 3_600_000;
    await jobs.sweep();
    expect(await blobs.stat(left.digest)).toBeUndefined();
    expect(await blobs.stat(held.digest)).toBeDefined();
    await jobs.close();
  });

  it('keeps a hold that is made while another of the same blob is released', async () => {
    const { digest } = await store('twice');
    await first.jobs.hold(digest);
    for (let round = 0; round < 30; round++) {
      await Promise.all([first.jobs.release([digest]), first.jobs.hold(digest)]);
      expect(await second.jobs.isHeld(digest)).toBe(true);
    }
    await first.jobs.release([digest]);
    expect(await second.jobs.isHeld(digest)).toBe(false);
  });

  it('fails jobs of services that no server has offered for an hour', async () => {
    await first.jobs.recover(['s', 'old']);
    const id = await add({ service: 'old' });
    await second.jobs.recover(['s']);
    expect((await first.jobs.get(id))?.state).toBe('queued');
    await sql`UPDATE offered SET heard_ms = heard_ms - 3600001 WHERE service = 'old'`.execute(
      first.database.db,
    );
    await second.jobs.recover(['s']);
    expect((await first.jobs.get(id))?.error).toMatchObject({ code: 'NOT_FOUND' });
  });
});
