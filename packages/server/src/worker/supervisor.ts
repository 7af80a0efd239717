import { mkdir, rm } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import type { FastifyBaseLogger } from 'fastify';
import type { App } from '../apps.ts';
import { type ComputeDevice, isCard, processor } from '../runtimes/devices.ts';
import { type ChildPoolOptions, createChildPool } from './child-pool.ts';
import { createIdleWatch } from './idle-watch.ts';
import type { JobSource } from './job-source.ts';
import { createMemoryPolicy, type MemoryPolicy } from './memory-limit.ts';
import { createJobRunner } from './run-job.ts';
import { createSpareTime, type SpareTime } from './spare-time.ts';
import { watchStopRequest } from './stop-request.ts';

export interface SupervisorOptions extends Pick<ChildPoolOptions, 'maxIdle' | 'maxIdleMb' | 'modelServers'> {
  apps: readonly App[];
  source: JobSource;
  /** Concurrent predictions; on cards one for each of them. */
  slots: number;
  /** What computes networks: the processor, for all slots, if missing; otherwise a card for each slot. */
  devices?: readonly ComputeDevice[];
  /** Memory limit of each prediction; a share of the machine's memory if missing. */
  memory?: MemoryPolicy;
  /** Folder for the children's work, emptied at the start. */
  workFolder: string;
  maxVoxels: number;
  /** Ends when there was no job for this time, ms; never if missing. */
  idleExitMs?: number;
  /** Aborts when this process is asked to stop, which may be some time before `drain()`. */
  stopSignal?: AbortSignal;
  logger: FastifyBaseLogger;
}

export interface Supervisor extends AsyncDisposable {
  /** Takes no more work, and resolves when the running jobs are done, or after this time. */
  drain(limitMs: number): Promise<void>;
  /** Takes no more work, ends the running jobs and hands them back. */
  close(): Promise<void>;
  /**
   * Resolves when it has ended because there was no job for `idleExitMs`, which never happens while a job is held. Rejects instead
   * if it could not ask for one: with the fault of the last request.
   */
  readonly idle: Promise<void>;
  readonly children: number;
  /** While it computes nothing. */
  readonly spare: Pick<SpareTime, 'run'>;
}

/** Jobs of a slot whose outputs are being taken over while the next one is computed. */
const maxSettling = 2;

/**
 * Starts the half of a worker that communicates. Each of its slots claims one job after the other from the source and has it run
 * (run-job.ts) by a child of the job's app (child-pool.ts). Where the jobs come from is its one dependency, so that the same
 * supervisor works inside the server or far from it.
 */
export async function startSupervisor(options: SupervisorOptions): Promise<Supervisor> {
  const { source, logger, workFolder, maxVoxels, maxIdle, maxIdleMb, modelServers, stopSignal } = options;
  await rm(workFolder, { recursive: true, force: true });
  await mkdir(workFolder, { recursive: true, mode: 0o700 });

  const apps = new Map(options.apps.map((app) => [app.manifest.id, app]));
  /** Takes no more work. */
  const stopping = new AbortController();
  const memory = options.memory ?? createMemoryPolicy({ slots: options.slots });
  const pool = createChildPool({ memory, modelServers, maxIdle, maxIdleMb, logger });
  const stopRequest = watchStopRequest(
    AbortSignal.any([stopping.signal, ...(stopSignal ? [stopSignal] : [])]),
  );
  const jobs = createJobRunner({ apps, source, pool, stopRequest, workFolder, maxVoxels, logger });

  const services = [...apps.keys()];
  const [first = processor, ...others] = options.devices ?? [];
  const slotDevices =
    isCard(first) && options.slots > 0
      ? [first, ...others]
      : Array.from({ length: options.slots }, () => first);
  const spare = createSpareTime(stopping.signal);
  const idleWatch = createIdleWatch(slotDevices.length, options.idleExitMs ?? Number.POSITIVE_INFINITY);

  /** Resolves with true when this slot ends because there was no job. */
  async function runSlot(device: ComputeDevice): Promise<boolean> {
    // While the outputs of a job are taken over, the child computes the next; but a slow disk must not fall ever
    // further behind.
    const settling: Promise<void>[] = [];
    let isIdle = false;
    while (!stopping.signal.aborted && !isIdle) {
      try {
        const job = await source.claim(services, stopping.signal);
        claimFault = undefined;
        if (!job) {
          isIdle = await idleWatch.mayEnd(stopping.signal);
          continue;
        }
        const holds = [idleWatch.hold(), spare.hold()];
        const letGo = () => holds.forEach((end) => void end());
        if (stopping.signal.aborted) {
          await source.handBack(job).finally(letGo);
          continue;
        }
        await new Promise<void>((computed) => {
          settling.push(
            jobs
              .run(job, device, computed)
              .catch(failed)
              .finally(() => {
                letGo();
                computed();
              }),
          );
        });
        if (settling.length > maxSettling) await settling.shift();
      } catch (error) {
        claimFault = error;
        isIdle = await idleWatch.mayEnd(stopping.signal);
        if (!isIdle) await failed(error);
      }
    }
    await Promise.all(settling);
    return isIdle;
  }

  /** Why the last request for a job failed. */
  let claimFault: unknown;
  const slots = slotDevices.map(runSlot);
  const idle = Promise.all(slots).then((areIdle) => {
    if (areIdle.length === 0 || areIdle.includes(false)) return new Promise<void>(() => {});
    if (claimFault) throw claimFault;
  });
  // It may be awaited later, or never.
  idle.catch(() => {});

  /** No error may end a slot. */
  async function failed(error: unknown): Promise<void> {
    if (stopping.signal.aborted) return;
    logger.error({ err: error }, 'worker slot failed; it continues in a second');
    await delay(1000, undefined, { signal: stopping.signal }).catch(() => {});
  }

  async function drain(limitMs: number): Promise<void> {
    stopping.abort();
    let timer: NodeJS.Timeout | undefined;
    const limit = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, limitMs);
    });
    await Promise.race([Promise.all(slots), limit]);
    clearTimeout(timer);
  }

  async function close(): Promise<void> {
    stopping.abort();
    jobs.abort();
    await pool.stop();
    await Promise.all(slots);
    // A child that was being started meanwhile.
    await pool.stop();
    await rm(workFolder, { recursive: true, force: true });
  }

  return {
    drain,
    close,
    idle,
    spare,
    get children() {
      return pool.size;
    },
    [Symbol.asyncDispose]: close,
  };
}
