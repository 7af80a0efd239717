import { mkdir, readFile, rm, rmdir } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { TomaatError } from '@tomaat/core';
import type { FastifyBaseLogger } from 'fastify';
import type { App } from '../apps.ts';
import { EndedBySignal } from '../runtimes/ended-by-signal.ts';
import { diskError } from '../store/blobs.ts';
import type { ClaimedJob, InputFile, OutputFile } from '../store/job-records.ts';
import { type Child, type ChildResult, startChild } from './child-process.ts';
import { createMemoryPolicy, type MemoryPolicy, machineMemoryMb } from './memory-limit.ts';
import type { WrittenOutput } from './messages.ts';
import { attemptFolder, noteChild } from './survivors.ts';

/**
 * The communicating half of a worker: it claims jobs, passes them to children, reports progress, enforces time
 * limits and cancellation, and replaces children that died. The source of the jobs is its one dependency, so
 * the same supervisor works inside the server or on another machine.
 */
export interface JobSource {
  /** The next job for these services; waits for one. Undefined when `signal` aborts. */
  claim(services: readonly string[], signal: AbortSignal): Promise<ClaimedJob | undefined>;
  /** Path of an input on this machine; an input that must be fetched is put into `folder`, which is created if missing. */
  inputPath(job: ClaimedJob, input: InputFile, folder: string, signal: AbortSignal): Promise<string>;
  /** Whether this attempt is still wanted: it may be cancelled before a listener is registered. */
  isRunning(job: ClaimedJob): boolean;
  touch(job: ClaimedJob, stage: string, fraction: number): void;
  /** Takes the outputs over and settles the job; false if the job no longer runs this attempt. */
  complete(job: ClaimedJob, outputs: readonly WrittenOutput[], seconds: number): Promise<boolean>;
  fail(job: ClaimedJob, error: TomaatError): Promise<boolean>;
  /** Returns an unfinished job, for others to compute. */
  handBack(job: ClaimedJob): Promise<void>;
  /** Calls back with the id of each job that was cancelled or is no longer ours. */
  onCancel(listener: (id: string) => void): () => void;
}

export interface SupervisorOptions {
  apps: readonly App[];
  source: JobSource;
  /** Concurrent predictions. */
  slots: number;
  /** Children kept with their model loaded while they have nothing to do. */
  maxIdle: number;
  /** Memory that idle children may take together, MB (10^6 bytes); a quarter of the machine's if missing. */
  maxIdleMb?: number;
  /** Memory limit of each prediction; a share of the machine's memory if missing. */
  memory?: MemoryPolicy;
  /** Folder for the children's work, emptied at the start. */
  workFolder: string;
  maxVoxels: number;
  /** Aborts when this process is asked to stop, which may be some time before `drain()`. */
  stopSignal?: AbortSignal;
  logger: FastifyBaseLogger;
}

export interface Supervisor extends AsyncDisposable {
  /** Takes no more work, and resolves when the running jobs are done, or after this time. */
  drain(limitMs: number): Promise<void>;
  /** Takes no more work, ends the running jobs and hands them back. */
  close(): Promise<void>;
  readonly children: number;
}

/** Time between two attempts to record the end of a job. */
const longestPauseMs = 5_000;
/** Jobs of a slot whose outputs are being taken over while the next one is computed. */
const maxSettling = 2;
/** After a program ended by a signal: how long the same signal may take to reach this process. */
const signalDelayMs = 1000;
/** The same for a program that handles the signal: how long the failure of any program is held back. */
const programDelayMs = 500;
/** How long a program that is asked to stop may take to end. */
const signalledMs = 5000;
/** Time from the end of a prediction to the check of the idle children's memory. */
const budgetDelayMs = 250;

export async function startSupervisor(options: SupervisorOptions): Promise<Supervisor> {
  const { source, logger, workFolder } = options;
  const apps = new Map(options.apps.map((app) => [app.manifest.id, app]));
  await rm(workFolder, { recursive: true, force: true });
  await mkdir(workFolder, { recursive: true, mode: 0o700 });

  /** Takes no more work. */
  const stopping = new AbortController();
  const closing = new AbortController();
  const stopRequested = AbortSignal.any([
    stopping.signal,
    ...(options.stopSignal ? [options.stopSignal] : []),
  ]);
  let stopRequestedMs = Number.POSITIVE_INFINITY;
  stopRequested.addEventListener('abort', () => {
    stopRequestedMs = performance.now();
  });
  const maxIdleMb = options.maxIdleMb ?? machineMemoryMb() / 4;
  const memory = options.memory ?? createMemoryPolicy({ slots: options.slots });
  const all = new Set<Child>();
  const idle: Child[] = [];
  let budgetTimer: NodeJS.Timeout | undefined;
  const running = new Map<string, AbortController>();
  const stopListening = source.onCancel((id) =>
    running.get(id)?.abort(new TomaatError('CANCELED', 'The job was cancelled.')),
  );

  /** An idle child of the app, or a new one. */
  async function childFor(app: App): Promise<Child> {
    const index = idle.findIndex((child) => child.app === app && child.alive);
    if (index >= 0) return idle.splice(index, 1)[0];
    let child: Child | undefined;
    child = await startChild(app, memory, () => {
      if (!child) return;
      all.delete(child);
      const at = idle.indexOf(child);
      if (at >= 0) idle.splice(at, 1);
    });
    all.add(child);
    return child;
  }

  function keep(child: Child): void {
    if (!child.alive) return;
    idle.push(child);
    while (idle.length > options.maxIdle) void idle.shift()?.stop();
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
    for (const child of idle) sizes.set(child, await residentMb(child.pid));
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

  /** Takes a job from its claim to its end; `computed` is called when its child is free for the next one. */
  async function runJob(job: ClaimedJob, computed: () => void): Promise<void> {
    const abort = new AbortController();
    running.set(job.id, abort);
    if (!source.isRunning(job)) {
      running.delete(job.id);
      return;
    }
    const folder = attemptFolder(workFolder, job);
    const app = apps.get(job.service);
    try {
      if (!app) throw new TomaatError('NOT_FOUND', `The service ${job.service} is no longer offered here.`);
      const { outputs, seconds, times } = await compute(job, app, folder, abort);
      computed();
      const accepted = await source.complete(job, outputs, seconds);
      const stages = Object.fromEntries(Object.entries(times).map(([name, ms]) => [name, Math.round(ms)]));
      logger.info(
        { job: job.id, service: job.service, seconds: Math.round(seconds * 1000) / 1000, stages, accepted },
        'prediction done',
      );
    } catch (error) {
      if (closing.signal.aborted || (await isStopped(error, job.service))) {
        logger.info({ job: job.id, service: job.service }, 'prediction handed back');
        await source.handBack(job);
        return;
      }
      const told = diskError(error);
      const known =
        told instanceof TomaatError
          ? told
          : new TomaatError('INTERNAL', 'The prediction could not be run. The server’s log says why.', {
              cause: error,
            });
      if (known.code === 'INTERNAL') logger.error({ err: error, job: job.id }, 'prediction could not be run');
      else logger.info({ job: job.id, service: job.service, code: known.code }, 'prediction failed');
      if (known.code === 'CANCELED') return;
      const shown = known.code === 'BAD_MANIFEST' ? brokenService(known) : known;
      // First, because a full disk has no room to record the end of the job.
      await clear(folder);
      await failPatiently(job, shown);
    } finally {
      // This worker may already have claimed the job's next attempt.
      if (running.get(job.id) === abort) running.delete(job.id);
      await clear(folder);
    }
  }

  /**
   * Whether a job failed only because all processes of the service were asked to stop, its program among them. A program
   * that handles the signal may end with any exit code, or without its output.
   */
  async function isStopped(error: unknown, service: string): Promise<boolean> {
    if (!(error instanceof TomaatError)) return false;
    if (error instanceof EndedBySignal) {
      if (!stopRequested.aborted)
        await delay(signalDelayMs, undefined, { signal: stopRequested }).catch(() => {});
      return stopRequested.aborted;
    }
    const mayBeSignalled = error.code === 'APP_FAILED' || error.code === 'APP_OUTPUT';
    if (!mayBeSignalled) return false;
    // This process may learn of the program's end before it has handled its own signal.
    const isProgram = apps.get(service)?.manifest.model.some(({ runtime }) => runtime === 'command');
    if (isProgram && !stopRequested.aborted)
      await delay(programDelayMs, undefined, { signal: stopRequested }).catch(() => {});
    return stopRequested.aborted && performance.now() - stopRequestedMs < signalledMs;
  }

  /** Has a child compute the job's outputs, in its folder, within the app's time limit. */
  async function compute(
    job: ClaimedJob,
    app: App,
    folder: string,
    abort: AbortController,
  ): Promise<ChildResult> {
    let timer: NodeJS.Timeout | undefined;
    try {
      const files = await Promise.all(
        job.inputs.map(async (input) => ({
          input: input.name,
          path: await source.inputPath(job, input, folder, abort.signal),
          name: input.fileName,
          sizeBytes: input.sizeBytes,
        })),
      );
      const child = await childFor(app);
      const { seconds: limit } = app.manifest.limits;
      timer = setTimeout(() => {
        abort.abort(
          new TomaatError(
            'TIMEOUT',
            `The prediction took longer than the ${limit} s that the app allows. Send a smaller volume, or ask the operator.`,
          ),
        );
      }, limit * 1000);
      const note = noteChild(folder, child.pid);
      try {
        return await child.predict(
          {
            type: 'predict',
            job: job.id,
            files,
            parameters: job.request.parameters,
            frame: job.request.frame,
            formats: job.request.formats,
            folder,
            maxVoxels: options.maxVoxels,
          },
          {
            signal: abort.signal,
            onProgress: (stage, fraction) => source.touch(job, stage, fraction),
            onLog: (text) => logger.debug({ job: job.id, app: job.service, text }, 'app'),
          },
        );
      } finally {
        keep(child);
        await note.remove();
      }
    } finally {
      clearTimeout(timer);
    }
  }

  /** Removes a job's folder. If the disk fails, the next start removes the rest: the job must not wait for it. */
  async function clear(folder: string): Promise<void> {
    try {
      // It is usually empty by now, so one call suffices.
      if (
        await rmdir(folder).then(
          () => true,
          () => false,
        )
      )
        return;
      await rm(folder, { recursive: true, force: true, maxRetries: 2 });
    } catch (error) {
      logger.error({ err: error, folder }, 'the folder of a job could not be removed');
    }
  }

  /** Settles a job as failed, retrying until that works or all is closed: otherwise it would count as running forever. */
  async function failPatiently(job: ClaimedJob, why: TomaatError): Promise<void> {
    for (let pauseMs = 250; ; pauseMs = Math.min(pauseMs * 2, longestPauseMs)) {
      try {
        await source.fail(job, why);
        return;
      } catch (error) {
        logger.error({ err: error, job: job.id }, 'the end of a job could not be recorded; trying again');
      }
      await delay(pauseMs, undefined, { signal: closing.signal }).catch(() => {});
      if (closing.signal.aborted) return source.handBack(job);
    }
  }

  const services = [...apps.keys()];
  const slots = Array.from({ length: options.slots }, async () => {
    // While the outputs of a job are taken over, the child computes the next; but a slow disk must not fall ever
    // further behind.
    const settling: Promise<void>[] = [];
    while (!stopping.signal.aborted) {
      try {
        const job = await source.claim(services, stopping.signal);
        if (!job) continue;
        if (stopping.signal.aborted) {
          await source.handBack(job);
          continue;
        }
        await new Promise<void>((computed) => {
          settling.push(runJob(job, computed).catch(failed).finally(computed));
        });
        if (settling.length > maxSettling) await settling.shift();
      } catch (error) {
        await failed(error);
      }
    }
    await Promise.all(settling);
  });

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
    closing.abort();
    for (const controller of running.values())
      controller.abort(new TomaatError('WORKER_DIED', 'The server is stopping.'));
    await Promise.all([...all].map((child) => child.stop()));
    await Promise.all(slots);
    // A child that was being started meanwhile.
    await Promise.all([...all].map((child) => child.stop()));
    stopListening();
    clearTimeout(budgetTimer);
    await rm(workFolder, { recursive: true, force: true });
  }

  return {
    drain,
    close,
    get children() {
      return all.size;
    },
    [Symbol.asyncDispose]: close,
  };
}

/** A fault of the app itself, worded for callers who only sent a scan. */
function brokenService(fault: TomaatError): TomaatError {
  return new TomaatError(
    'BAD_MANIFEST',
    `The fault is in this service, not in your scan. Report it to the operator: ${fault.message}`,
    { cause: fault },
  );
}

/** Memory that a process has in RAM, MB; 0 if the system does not report it. */
async function residentMb(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => ''); // Gone, or not Linux.
  const line = status.split('\n').find((text) => text.startsWith('VmRSS:')) ?? '';
  return (Number(line.slice(6).replace('kB', '')) * 1024) / 1e6;
}

/** The outputs of a child in the form that a job stores. */
export function toOutputFile({ path: _, ...output }: WrittenOutput): OutputFile {
  return output;
}
