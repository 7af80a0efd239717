import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import type { FastifyBaseLogger } from 'fastify';
import type { App } from '../apps.ts';
import type { ClaimedJob, OutputFile } from '../store/jobs.ts';
import { type Child, startChild } from './child-process.ts';
import type { WrittenOutput } from './messages.ts';

/**
 * The half of a worker that talks: it claims jobs, hands them to children, reports progress, enforces time
 * limits and cancellation, replaces children that died. Where the jobs come from is its one dependency, so
 * that the same supervisor works inside the server or far from it.
 */
export interface JobSource {
  /** The next job for these services; waits for one. Undefined when `signal` aborts. */
  claim(services: readonly string[], signal: AbortSignal): Promise<ClaimedJob | undefined>;
  /** Where an input lies on this machine. */
  inputPath(digest: string): Promise<string>;
  touch(job: ClaimedJob, stage: string, fraction: number): void;
  /** Takes the outputs over and settles the job; false if it is not this attempt's any more. */
  complete(job: ClaimedJob, outputs: readonly WrittenOutput[], seconds: number): Promise<boolean>;
  fail(job: ClaimedJob, error: TomaatError): Promise<boolean>;
  /** Calls back with the id of each job that was cancelled. */
  onCancel(listener: (id: string) => void): () => void;
}

export interface SupervisorOptions {
  apps: readonly App[];
  source: JobSource;
  /** Predictions at a time. */
  slots: number;
  /** Children kept with their model loaded while they have nothing to do. */
  maxIdle: number;
  /** Folder for the children's work, emptied at the start. */
  workFolder: string;
  maxVoxels: number;
  logger: FastifyBaseLogger;
}

export interface Supervisor extends AsyncDisposable {
  /** Takes no more work, ends what runs (their jobs go back to the queue with the next start). */
  close(): Promise<void>;
  readonly children: number;
}

export async function startSupervisor(options: SupervisorOptions): Promise<Supervisor> {
  const { source, logger, workFolder } = options;
  const apps = new Map(options.apps.map((app) => [app.manifest.id, app]));
  await rm(workFolder, { recursive: true, force: true });
  await mkdir(workFolder, { recursive: true, mode: 0o700 });

  const closing = new AbortController();
  const all = new Set<Child>();
  const idle: Child[] = [];
  const running = new Map<string, AbortController>();
  const stopListening = source.onCancel((id) =>
    running.get(id)?.abort(new TomaatError('CANCELED', 'The job was cancelled.')),
  );

  /** An idle child of the app, or a new one; the one that was idle longest makes room. */
  async function childFor(app: App): Promise<Child> {
    const index = idle.findIndex((child) => child.app === app && child.alive);
    if (index >= 0) return idle.splice(index, 1)[0];
    let child: Child | undefined;
    child = await startChild(app, () => {
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
  }

  async function runJob(job: ClaimedJob): Promise<void> {
    const abort = new AbortController();
    running.set(job.id, abort);
    const folder = join(workFolder, `${job.id}-${job.attempt}`);
    const app = apps.get(job.service);
    let timer: NodeJS.Timeout | undefined;
    try {
      if (!app) throw new TomaatError('NOT_FOUND', `The service ${job.service} is not offered here any more.`);
      await mkdir(folder, { mode: 0o700 });
      const files = await Promise.all(
        job.inputs.map(async (input) => ({
          input: input.name,
          path: await source.inputPath(input.digest),
          name: input.fileName,
          sizeBytes: input.sizeBytes,
        })),
      );
      const child = await childFor(app);
      const { seconds: limit } = app.manifest.limits;
      timer = setTimeout(() => {
        abort.abort(new TomaatError('TIMEOUT', `The prediction took longer than the ${limit} s that the app allows. Send a smaller volume, or ask the operator.`));
      }, limit * 1000);
      try {
        const { outputs, seconds, times } = await child.predict(
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
        clearTimeout(timer);
        const accepted = await source.complete(job, outputs, seconds);
        const stages = Object.fromEntries(Object.entries(times).map(([name, ms]) => [name, Math.round(ms)]));
        logger.info({ job: job.id, service: job.service, seconds: Math.round(seconds * 1000) / 1000, stages, accepted }, 'prediction done');
      } finally {
        keep(child);
      }
    } catch (error) {
      // The server stops: the job stays as it is in the store and is queued again at the next start.
      if (closing.signal.aborted) return;
      const known =
        error instanceof TomaatError
          ? error
          : new TomaatError('INTERNAL', 'The prediction could not be run. The server’s log says why.', { cause: error });
      if (known.code === 'INTERNAL') logger.error({ err: error, job: job.id }, 'prediction could not be run');
      else logger.info({ job: job.id, service: job.service, code: known.code }, 'prediction failed');
      if (known.code !== 'CANCELED') await source.fail(job, known);
    } finally {
      clearTimeout(timer);
      running.delete(job.id);
      await rm(folder, { recursive: true, force: true });
    }
  }

  const services = [...apps.keys()];
  const slots = Array.from({ length: options.slots }, async () => {
    while (!closing.signal.aborted) {
      try {
        const job = await source.claim(services, closing.signal);
        if (job) await runJob(job);
      } catch (error) {
        if (closing.signal.aborted) return;
        logger.error({ err: error }, 'worker slot failed; it goes on in a second');
        await new Promise((resolve) => setTimeout(resolve, 1000));
      }
    }
  });

  async function close(): Promise<void> {
    stopListening();
    closing.abort();
    for (const controller of running.values()) controller.abort(new TomaatError('WORKER_DIED', 'The server stops.'));
    await Promise.all([...all].map((child) => child.stop()));
    await Promise.all(slots);
    await rm(workFolder, { recursive: true, force: true });
  }

  return {
    close,
    get children() {
      return all.size;
    },
    [Symbol.asyncDispose]: close,
  };
}

/** The outputs of a child as a job keeps them. */
export function toOutputFile({ path: _, ...output }: WrittenOutput): OutputFile {
  return output;
}
