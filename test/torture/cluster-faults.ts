import { execFileSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { sql } from 'kysely';
import { type Cluster, insistOn, leaseMs } from './cluster-world.ts';

/** What is done to a cluster, by name. Each resolves when what was ended has been started again. */

type Fault = (cluster: Cluster, random: () => number) => Promise<void>;

const pick = <T>(values: readonly T[], random: () => number): T =>
  values[Math.floor(random() * values.length)];
/** Shorter than a lease, or longer. */
const pause = (random: () => number) => sleep(leaseMs * (0.2 + 1.2 * random()));

function childrenOf(pid: number): number[] {
  try {
    return execFileSync('pgrep', ['-P', String(pid)], { encoding: 'utf8' })
      .split('\n')
      .filter(Boolean)
      .map(Number);
  } catch {
    return [];
  }
}

function signal(pids: readonly (number | undefined)[], name: NodeJS.Signals): void {
  for (const pid of pids) {
    try {
      if (pid !== undefined) process.kill(pid, name);
    } catch {
      // It has ended by itself.
    }
  }
}

async function backendsOf({ database: { db } }: Cluster): Promise<number[]> {
  const { rows } = await insistOn(() =>
    sql<{ pid: number }>`SELECT pid FROM pg_stat_activity
      WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()`.execute(db),
  );
  return rows.map(({ pid }) => pid);
}

async function paused(pids: readonly (number | undefined)[], random: () => number): Promise<void> {
  signal(pids, 'SIGSTOP');
  try {
    await pause(random);
  } finally {
    signal(pids, 'SIGCONT');
  }
}

export const faults = {
  async replica(cluster, random) {
    const replica = pick(cluster.replicas, random);
    await replica.kill();
    await cluster.restart(replica);
  },
  async bothReplicas(cluster) {
    await Promise.all(cluster.replicas.map((replica) => replica.kill()));
    await Promise.all(cluster.replicas.map((replica) => cluster.restart(replica)));
  },
  async worker(cluster, random) {
    const index = Math.floor(random() * cluster.workers.length);
    await cluster.workers[index].kill();
    await cluster.startWorker(index);
  },
  async child(cluster, random) {
    const children = childrenOf(pick(cluster.workers, random).child.pid!);
    if (children.length > 0) signal([pick(children, random)], 'SIGKILL');
  },
  async connection(cluster, random) {
    const backends = await backendsOf(cluster);
    if (backends.length > 0) signal([pick(backends, random)], 'SIGTERM');
  },
  async allConnections(cluster) {
    signal(await backendsOf(cluster), 'SIGTERM');
  },
  /** PostgreSQL ends all others, and recovers. */
  async backend(cluster, random) {
    const backends = await backendsOf(cluster);
    if (backends.length > 0) signal([pick(backends, random)], 'SIGKILL');
  },
  async postgres(cluster, random) {
    await cluster.postgres.kill();
    await pause(random);
    await cluster.postgres.start();
  },
  async pausedPostgres(cluster, random) {
    const [backend] = await backendsOf(cluster);
    if (backend === undefined) return;
    const status = await readFile(`/proc/${backend}/status`, 'utf8').catch(() => '');
    const postmaster = Number(/^PPid:\s+(\d+)/m.exec(status)?.[1] ?? 0);
    if (postmaster > 1) await paused([postmaster, ...childrenOf(postmaster)], random);
  },
  pausedReplica: (cluster, random) => paused([pick(cluster.replicas, random).pid], random),
  pausedWorker: (cluster, random) => paused([pick(cluster.workers, random).child.pid], random),
  /** Nothing passes between a server and the database, and neither is told. */
  async cutDatabase(cluster, random) {
    const link = pick(cluster.links, random);
    link.cut();
    await pause(random);
    link.mend();
  },
  cutNetwork: (cluster, random) => cluster.balancer.cut(leaseMs * (0.2 + 1.2 * random())),
} satisfies Record<string, Fault>;

export type FaultName = keyof typeof faults;
export const faultNames = Object.keys(faults) as FaultName[];
