import { addTo } from '../../fair-share.ts';

/**
 * Which job comes next. The queued jobs of the database, held in memory by the one process that owns them: the queue is
 * filled from the rows at the start and follows every change.
 *
 * Order: urgency (0 first; a waiting job rises by one every few minutes, so that none starves); then the owner with
 * the fewest jobs running; then the owner whose turn was longest ago; then first come, first served.
 */

export interface QueuedJob {
  readonly id: string;
  readonly service: string;
  readonly owner: string;
  /** 0 (most urgent) to 7, as in RFC 9218. */
  readonly urgency: number;
  readonly createdMs: number;
  /** Attempts so far. */
  readonly attempt: number;
  /** Order of arrival within one millisecond. */
  readonly order: number;
}

export interface RunningJob {
  readonly service: string;
  readonly owner: string;
  readonly attempt: number;
}

/** A waiting job becomes more urgent by one each time that it has waited so long. */
export const risesEveryMs = 300_000;

export function createJobQueue(concurrencyOf: (service: string) => number | undefined, now: () => number) {
  const queued = new Map<string, QueuedJob>();
  const running = new Map<string, RunningJob>();
  const runningOf = { service: new Map<string, number>(), owner: new Map<string, number>() };
  const lastTurn = new Map<string, number>();
  let turn = 0;
  let version = 0;
  let order: { version: number; positions: Map<string, number> } | undefined;

  const classOf = (job: QueuedJob, nowMs: number) =>
    Math.max(0, job.urgency - Math.floor(Math.max(0, nowMs - job.createdMs) / risesEveryMs));
  const isFree = (service: string) =>
    (runningOf.service.get(service) ?? 0) < (concurrencyOf(service) ?? Number.POSITIVE_INFINITY);

  /** The sort key, compared part by part; `before` is the number of the owner's earlier jobs. */
  const rankOf = (job: QueuedJob, nowMs: number, before: number) => [
    classOf(job, nowMs),
    (runningOf.owner.get(job.owner) ?? 0) + before,
    lastTurn.get(job.owner) ?? 0,
    job.createdMs,
    job.order,
  ];

  return {
    get length() {
      return queued.size;
    },
    /** The owner of each job that waits. */
    ownersWaiting: (): string[] => [...queued.values()].map(({ owner }) => owner),
    add(job: QueuedJob): void {
      queued.set(job.id, job);
      version++;
    },
    /** Removes a job, queued or running; true if it was running. */
    remove(id: string): boolean {
      if (queued.delete(id)) version++;
      const job = running.get(id);
      if (!job) return false;
      running.delete(id);
      addTo(runningOf.service, job.service, -1);
      addTo(runningOf.owner, job.owner, -1);
      version++;
      return true;
    },
    /** Marks a job as running: one taken from the queue, or one that a remote worker kept across a restart. */
    start(id: string, job: RunningJob): void {
      queued.delete(id);
      running.set(id, job);
      addTo(runningOf.service, job.service, 1);
      addTo(runningOf.owner, job.owner, 1);
      lastTurn.set(job.owner, ++turn);
      version++;
    },
    attemptOf: (id: string): number | undefined => running.get(id)?.attempt,
    running: (): IterableIterator<[string, RunningJob]> => running.entries(),
    /** The next job of these services; it stays in the queue. */
    next(services: readonly string[]): QueuedJob | undefined {
      const nowMs = now();
      const free = new Set(services.filter(isFree));
      let best: QueuedJob | undefined;
      let bestRank: number[] = [];
      for (const job of queued.values()) {
        if (!free.has(job.service)) continue;
        const rank = rankOf(job, nowMs, 0);
        if (best && compare(rank, bestRank) >= 0) continue;
        best = job;
        bestRank = rank;
      }
      return best;
    },
    /** How many jobs are likely to come before this one; undefined unless it is queued. */
    positionOf(id: string): number | undefined {
      if (!queued.has(id)) return undefined;
      if (order?.version !== version) {
        const nowMs = now();
        const before = new Map<string, number>();
        // Within an owner and an urgency, arrival decides; owners take turns.
        const arrivals = [...queued.values()].sort((a, b) => a.createdMs - b.createdMs || a.order - b.order);
        const ranked = arrivals.map((job) => {
          const key = `${classOf(job, nowMs)} ${job.owner}`;
          const ahead = before.get(key) ?? 0;
          before.set(key, ahead + 1);
          return { id: job.id, rank: rankOf(job, nowMs, ahead) };
        });
        ranked.sort((a, b) => compare(a.rank, b.rank));
        order = { version, positions: new Map(ranked.map((job, position) => [job.id, position])) };
      }
      return order.positions.get(id);
    },
  };
}

function compare(a: readonly number[], b: readonly number[]): number {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return a[i] - b[i];
  return 0;
}
