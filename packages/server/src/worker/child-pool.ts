import { hasOwnNetworks } from '@tomaat/core';
import type { FastifyBaseLogger } from 'fastify';
import type { App } from '../apps.ts';
import { type ComputeDevice, isCard, processor } from '../runtimes/devices.ts';
import type { ModelServers } from '../trust/model-servers.ts';
import { type Child, startChild } from './child-process.ts';
import { type MemoryPolicy, machineMemoryMb } from './memory-limit.ts';
import { residentMb } from './resident-memory.ts';

/** Time from the end of a prediction to the check of the idle children's memory. */
const budgetDelayMs = 250;

export interface ChildPoolOptions {
  memory: MemoryPolicy;
  /** What apps may use of model servers; only those of this machine if missing. */
  modelServers?: ModelServers;
  /** Children kept with their model loaded while they have nothing to do. */
  maxIdle: number;
  /** Memory that idle children and their programs may take together, MB (10^6 bytes); a quarter of the machine's if missing. */
  maxIdleMb?: number;
  logger: FastifyBaseLogger;
}

/** The children of a supervisor: those that compute, and those that wait with their model loaded. */
export interface ChildPool {
  /**
   * An idle child of the app on this device, or a new one. On a card one child at a time has networks: another app's idle one ends first.
   * Throws what the app's manifest deserves.
   */
  take(app: App, device?: ComputeDevice): Promise<Child>;
  /** Keeps a child for the next job of its app, as far as the limits allow. */
  giveBack(child: Child): void;
  /** Ends all children, those that compute too. */
  stop(): Promise<void>;
  readonly size: number;
}

export function createChildPool({
  memory,
  modelServers,
  maxIdle,
  logger,
  ...options
}: ChildPoolOptions): ChildPool {
  const maxIdleMb = options.maxIdleMb ?? machineMemoryMb() / 4;
  const all = new Set<Child>();
  /** The one that was idle longest comes first. */
  const idle: Child[] = [];
  let budgetTimer: NodeJS.Timeout | undefined;

  async function take(app: App, device = processor): Promise<Child> {
    const index = idle.findIndex((child) => child.app === app && child.device === device && child.alive);
    if (index >= 0) return idle.splice(index, 1)[0];
    if (isCard(device) && hasOwnNetworks(app.manifest)) await clear(device);
    let child: Child | undefined;
    const forget = () => {
      if (!child) return;
      all.delete(child);
      const at = idle.indexOf(child);
      if (at >= 0) idle.splice(at, 1);
    };
    child = await startChild(app, memory, forget, { permitted: modelServers, device });
    all.add(child);
    return child;
  }

  /** Ends the idle children that hold memory of a card. */
  async function clear(device: ComputeDevice): Promise<void> {
    const holders = idle.filter((child) => child.device === device && hasOwnNetworks(child.app.manifest));
    for (const child of holders) idle.splice(idle.indexOf(child), 1);
    await Promise.all(holders.map((child) => child.stop()));
  }

  function giveBack(child: Child): void {
    if (!child.alive) return;
    idle.push(child);
    while (idle.length > maxIdle) void idle.shift()?.stop();
    // Not at once: it may get work again in a moment.
    budgetTimer ??= setTimeout(() => {
      budgetTimer = undefined;
      void unloadBeyondBudget().catch((error: unknown) =>
        logger.error({ err: error }, 'idle models could not be unloaded'),
      );
    }, budgetDelayMs).unref();
  }

  /** Ends the longest idle children until the others fit into the budget. */
  async function unloadBeyondBudget(): Promise<void> {
    const sizes = new Map<Child, number>();
    for (const child of idle) sizes.set(child, await residentMb(child.pid, child.programs));
    let sum = idle.reduce((total, child) => total + (sizes.get(child) ?? 0), 0);
    while (sum > maxIdleMb && idle.length > 0) {
      const [oldest] = idle.splice(0, 1);
      sum -= sizes.get(oldest) ?? 0;
      logger.info(
        { app: oldest.app.manifest.id, mb: Math.round(sizes.get(oldest) ?? 0) },
        'idle model unloaded',
      );
      void oldest.stop();
    }
  }

  return {
    take,
    giveBack,
    async stop() {
      clearTimeout(budgetTimer);
      budgetTimer = undefined;
      await Promise.all([...all].map((child) => child.stop()));
    },
    get size() {
      return all.size;
    },
  };
}
