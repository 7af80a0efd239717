import { type Kysely, sql, type Transaction } from 'kysely';
import type { JobRow, JobsSchema } from '../database/job-schema.ts';
import { lockAlone } from '../database/locks.ts';
import { requireRoomAmong } from './job-limits.ts';
import * as rows from './job-rows.ts';
import { nextQueued, queuePositions } from './shared-order.ts';
import type { Progress, UnsettledJobs, UnsettledJobsOptions } from './unsettled-jobs.ts';

/**
 * The unsettled jobs of servers that share a database: nothing of them is known to one process alone. What has to be one step is
 * done under an advisory lock; leases go by the database's clock; each running job has one, also those of a server's own children.
 */

export interface SharedJobsOptions extends UnsettledJobsOptions {
  /** What is renewed whenever the leases are, such as holds of blobs. */
  renewed(): Promise<void>;
}

type Trx = Transaction<JobsSchema>;

/** What was last written of a running attempt. */
interface Touched {
  readonly attempt: number;
  readonly stage?: string;
  readonly atMs: number;
  /** Progress since then, which is written when it is time. */
  later?: Progress;
}

/** An attempt that reports progress more often than this does not write each time. */
const touchEveryMs = 500;
/** How often a server says what it offers, and how long that counts: as long as a restart of all servers may take. */
const offerEveryMs = 30_000;
const offerCountsMs = 3_600_000;

export function createSharedJobs(options: SharedJobsOptions): UnsettledJobs {
  const { database, events, maxQueued, leaseMs, concurrencyOf, now, monotonicMs } = options;
  const { db, nowMs } = database;
  const leaseEnd = sql<number>`${nowMs} + ${leaseMs}`;
  /** Attempts that this process itself computes, by job: it renews their leases. */
  const own = new Map<string, number>();
  const touched = new Map<string, Touched>();
  const outages = watchOutages(leaseMs, monotonicMs);
  const positions = cached(() => queuePositions(db, now()), monotonicMs);
  events.on('queue', positions.forget);
  let offered: readonly string[] = [];
  let offeredMs = Number.NEGATIVE_INFINITY;

  async function waitingByOwner(at: Kysely<JobsSchema>): Promise<Map<string, number>> {
    const counts = await at
      .selectFrom('job')
      .select(['owner', (e) => e.fn.countAll<number>().as('count')])
      .where('state', '=', 'queued')
      .groupBy('owner')
      .execute();
    return new Map(counts.map(({ owner, count }) => [owner, count]));
  }

  async function sayOffered(): Promise<void> {
    offeredMs = monotonicMs();
    for (const service of offered) {
      const concurrency = concurrencyOf(service) ?? null;
      await sql`INSERT INTO offered (service, concurrency, heard_ms) VALUES (${service}, ${concurrency}, ${nowMs})
        ON CONFLICT (service) DO UPDATE SET heard_ms = excluded.heard_ms`.execute(db);
    }
  }

  /** Renews the leases of this server's own attempts; those that are no longer its own are stopped. */
  async function renewOwn(): Promise<void> {
    if (own.size === 0) return;
    const renewed = await db
      .updateTable('job')
      .set({ lease_until_ms: leaseEnd })
      .where('state', '=', 'running')
      .where((e) =>
        e.or([...own].map(([id, attempt]) => e.and([e('id', '=', id), e('attempt', '=', attempt)]))),
      )
      .returning('id')
      .execute();
    const held = new Set(renewed.map(({ id }) => id));
    for (const id of own.keys())
      if (!held.has(id)) {
        own.delete(id);
        events.canceled(id);
      }
  }

  async function start(trx: Trx, id: string, attempt: number, worker?: string): Promise<JobRow | undefined> {
    const row = await rows.startAttempt(trx, { id, attempt, startedMs: now(), worker });
    if (!row) return undefined;
    await trx.updateTable('job').set({ lease_until_ms: leaseEnd }).where('id', '=', id).execute();
    await sql`INSERT INTO owner_turn (owner, turn)
      VALUES (${row.owner}, (SELECT coalesce(max(turn), 0) + 1 FROM owner_turn))
      ON CONFLICT (owner) DO UPDATE SET turn = excluded.turn`.execute(trx);
    return row;
  }

  async function write(id: string, attempt: number, at?: Progress): Promise<boolean> {
    const stage = at?.stage ?? touched.get(id)?.stage;
    touched.set(id, { attempt, stage, atMs: monotonicMs() });
    const touchedRow = await database.unsynced((query) => touchRow(query, { id, attempt, at, leaseEnd }));
    if (!touchedRow) {
      touched.delete(id);
      return false;
    }
    if (at) events.changed(id);
    return true;
  }

  /** The last progress of several in a short time is written, too: there may be no other for long. */
  function touchLater(id: string, last: Touched, at: Progress): void {
    const isWaiting = last.later !== undefined;
    last.later = at;
    if (isWaiting) return;
    setTimeout(() => {
      // If it fails, the next one writes.
      if (touched.get(id) === last) void write(id, last.attempt, last.later).catch(() => {});
    }, touchEveryMs).unref();
  }

  return {
    load: async () => {},
    async requireRoom(owner) {
      requireRoomAmong(await waitingByOwner(db), owner, maxQueued);
    },
    async admit(job, insert) {
      await database.transaction(async (trx) => {
        await lockAlone(trx, 'admission');
        requireRoomAmong(await waitingByOwner(trx), job.owner, maxQueued);
        await insert(trx);
        await sql`UPDATE job SET arrival = (SELECT coalesce(max(arrival), 0) + 1 FROM job WHERE state = 'queued')
          WHERE id = ${job.id}`.execute(trx);
      });
      events.queued();
      events.moved();
    },
    async claim(services, worker) {
      if (services.length === 0) return undefined;
      const claimed = await database.transaction(async (trx) => {
        await lockAlone(trx, 'claim');
        for (;;) {
          const next = await nextQueued(trx, services, now());
          if (!next) return undefined;
          const row = await start(trx, next.id, next.attempt + 1, worker);
          // Otherwise it was cancelled meanwhile.
          if (row) return { row, inputs: await rows.readInputs(trx, row.id) };
        }
      });
      if (claimed && worker === undefined) own.set(claimed.row.id, claimed.row.attempt);
      return claimed;
    },
    requeued({ id }) {
      own.delete(id);
      touched.delete(id);
      events.queued();
      events.moved();
    },
    settled(id) {
      own.delete(id);
      touched.delete(id);
      events.moved();
      events.queued();
    },
    async waiting() {
      let all = 0;
      for (const count of (await waitingByOwner(db)).values()) all += count;
      return all;
    },
    positionOf: async (id) => (await positions.get()).get(id),
    async isRunning(id, attempt) {
      const row = await db
        .selectFrom('job')
        .select('state')
        .where('id', '=', id)
        .where('attempt', '=', attempt)
        .executeTakeFirst();
      return row?.state === 'running';
    },
    async touch(id, attempt, at) {
      const last = touched.get(id);
      const isNews = last?.attempt !== attempt || (at !== undefined && at.stage !== last.stage);
      if (!isNews && monotonicMs() - last.atMs < touchEveryMs) {
        if (at) touchLater(id, last, at);
        return true;
      }
      return write(id, attempt, at);
    },
    // It is in the row.
    progressOf: () => undefined,
    async ownAttempts(left) {
      if (left.length === 0) return [];
      const ids = left.map(({ id }) => id);
      const found = await db
        .selectFrom('job')
        .select(['id', 'attempt'])
        .where('id', 'in', ids)
        .where('state', '=', 'running')
        .where('worker', 'is', null)
        .execute();
      return found.filter((row) => left.some(({ id, attempt }) => id === row.id && attempt === row.attempt));
    },
    async offer(services) {
      offered = services;
      for (const service of services) {
        const concurrency = concurrencyOf(service) ?? null;
        // The server that started last has the newest app: its limit is that of all.
        await sql`INSERT INTO offered (service, concurrency, heard_ms) VALUES (${service}, ${concurrency}, ${nowMs})
          ON CONFLICT (service) DO UPDATE SET concurrency = excluded.concurrency, heard_ms = excluded.heard_ms`.execute(
          db,
        );
      }
      offeredMs = monotonicMs();
    },
    async unserved() {
      const { rows: found } = await sql<{ id: string; service: string }>`SELECT id, service FROM job
        WHERE state IN ('queued', 'running') AND NOT EXISTS (SELECT 1 FROM offered
          WHERE offered.service = job.service AND heard_ms > ${nowMs} - ${offerCountsMs}::bigint)`.execute(
        db,
      );
      return found;
    },
    async takeLapsed() {
      await renewOwn();
      if (monotonicMs() - offeredMs > offerEveryMs) await sayOffered();
      await options.renewed();
      const { rows: found } = await sql<{ id: string; attempt: number; until: number; since: number }>`
        SELECT id, attempt, lease_until_ms AS until,
          (extract(epoch FROM pg_postmaster_start_time()) * 1000)::bigint AS since
        FROM job WHERE state = 'running' AND lease_until_ms < ${nowMs}
          AND clock_timestamp() > pg_postmaster_start_time() + ${leaseMs}::bigint * interval '1 millisecond'`.execute(
        db,
      );
      if (!outages.mayEnd()) return [];
      // A worker that could not reach the database before it went is not held against the job.
      return found.map(({ id, attempt, until, since }) => ({ id, attempt, heard: until - leaseMs > since }));
    },
  };
}

/** Renews the lease of a running attempt and writes where it is; undefined if it does not run. */
async function touchRow(
  db: Kysely<JobsSchema>,
  {
    id,
    attempt,
    at,
    leaseEnd,
  }: { id: string; attempt: number; at?: Progress; leaseEnd: ReturnType<typeof sql<number>> },
): Promise<object | undefined> {
  return db
    .updateTable('job')
    .set({ lease_until_ms: leaseEnd, ...(at && { stage: at.stage, fraction: at.fraction }) })
    .where('id', '=', id)
    .where('state', '=', 'running')
    .where('attempt', '=', attempt)
    .returning('id')
    .executeTakeFirst();
}

/**
 * When leases may not be ended: for the time of one after a while in which the database did not answer this process, or this process did
 * not run. Workers that lived on could not renew theirs meanwhile, and do so first.
 */
function watchOutages(leaseMs: number, monotonicMs: () => number) {
  // A server that starts cannot know how long the others were away.
  let quietUntilMs = monotonicMs() + leaseMs;
  let answeredMs = monotonicMs();
  return {
    /** The database has answered; whether leases may be ended. */
    mayEnd(): boolean {
      const nowMs = monotonicMs();
      if (nowMs - answeredMs > leaseMs / 2) quietUntilMs = nowMs + leaseMs;
      answeredMs = nowMs;
      return nowMs >= quietUntilMs;
    },
  };
}

/** Keeps what `read` gives until it is told to forget it, or a second has passed. */
function cached<T>(read: () => Promise<T>, monotonicMs: () => number) {
  let kept: { value: Promise<T>; atMs: number } | undefined;
  return {
    get(): Promise<T> {
      if (!kept || monotonicMs() - kept.atMs > 1000) {
        const value = read();
        value.catch(() => {
          kept = undefined;
        });
        kept = { value, atMs: monotonicMs() };
      }
      return kept.value;
    },
    forget(): void {
      kept = undefined;
    },
  };
}
