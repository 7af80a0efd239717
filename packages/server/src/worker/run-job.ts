import { rm, rmdir } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { TomaatError } from '@tomaat/core';
import type { FastifyBaseLogger } from 'fastify';
import type { App } from '../apps.ts';
import { type ComputeDevice, isCard } from '../runtimes/devices.ts';
import { diskError } from '../store/files/disk.ts';
import type { ClaimedJob } from '../store/jobs/job-records.ts';
import type { ChildPool } from './child-pool.ts';
import type { ChildResult } from './child-process.ts';
import type { JobSource } from './job-source.ts';
import { firstPauseMs, longestPauseMs, patiently } from './patiently.ts';
import type { StopRequest } from './stop-request.ts';
import { attemptFolder, noteChild } from './survivors.ts';

/** Inputs of a job that are looked up, or fetched, together: a DICOM series has thousands. */
const inputsAtATime = 8;

export interface JobRunnerOptions {
  /** By id. */
  apps: ReadonlyMap<string, App>;
  source: JobSource;
  pool: ChildPool;
  stopRequest: StopRequest;
  /** Each attempt at a job has a folder in it. */
  workFolder: string;
  maxVoxels: number;
  logger: FastifyBaseLogger;
}

/** Takes jobs from their claim to their end, any number at a time. */
export interface JobRunner {
  /**
   * Computes a claimed job on a device and settles it at the source; `computed` is called when its child is free for the next one, if
   * that is before the end.
   */
  run(job: ClaimedJob, device: ComputeDevice, computed: () => void): Promise<void>;
  /** Ends what runs; those jobs are handed back. Nothing is run after this. */
  abort(): void;
}

export function createJobRunner(options: JobRunnerOptions): JobRunner {
  const { apps, source, pool, stopRequest, workFolder, maxVoxels, logger } = options;
  const closing = new AbortController();
  const running = new Map<string, AbortController>();
  const stopListening = source.onCancel((id) =>
    running.get(id)?.abort(new TomaatError('CANCELED', 'The job was cancelled.')),
  );

  async function run(job: ClaimedJob, device: ComputeDevice, computed: () => void): Promise<void> {
    const abort = new AbortController();
    running.set(job.id, abort);
    const folder = attemptFolder(workFolder, job);
    try {
      if (!(await patiently(abort.signal, () => source.isRunning(job)))) return;
      const app = apps.get(job.service);
      if (!app) throw new TomaatError('NOT_FOUND', `The service ${job.service} is no longer offered here.`);
      const { outputs, seconds, times, rewrites } = await compute(job, app, device, folder, abort);
      computed();
      const by = { device: device.device, rewrites };
      const accepted = await source.complete(job, outputs, seconds, by, abort.signal);
      const stages = Object.fromEntries(Object.entries(times).map(([name, ms]) => [name, Math.round(ms)]));
      logger.info(
        {
          job: job.id,
          service: job.service,
          seconds: Math.round(seconds * 1000) / 1000,
          ...by,
          stages,
          accepted,
        },
        'prediction done',
      );
    } catch (error) {
      await settleFailed(job, error, folder);
    } finally {
      // This worker may already have claimed the job's next attempt.
      if (running.get(job.id) === abort) running.delete(job.id);
      await clear(folder);
    }
  }

  /** Has a child compute the job's outputs, in its folder, within the app's time limit. */
  async function compute(
    job: ClaimedJob,
    app: App,
    device: ComputeDevice,
    folder: string,
    abort: AbortController,
  ): Promise<ChildResult> {
    let timer: NodeJS.Timeout | undefined;
    try {
      const files = await mapFew(job.inputs, inputsAtATime, async (input) => ({
        input: input.name,
        path: await patiently(abort.signal, () => source.inputPath(job, input, folder, abort.signal)),
        name: input.fileName,
        sizeBytes: input.sizeBytes,
      }));
      const child = await pool.take(app, device);
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
        const { parameters, frame, series, formats } = job.request;
        const request = { parameters, frame, series, formats, seed: job.id, keepsValues: true };
        return await child.predict(
          { type: 'predict', job: job.id, files, ...request, folder, maxVoxels },
          {
            signal: abort.signal,
            onProgress: (stage, fraction) => source.touch(job, stage, fraction),
            onLog: (text) => logger.debug({ job: job.id, app: job.service, text }, 'app'),
          },
        );
      } catch (error) {
        // After a fault of a card its context, or the memory that it holds, may be of no more use.
        if (isCard(device)) await child.stop();
        throw error;
      } finally {
        pool.giveBack(child);
        await note.remove();
      }
    } finally {
      clearTimeout(timer);
    }
  }

  /** The end of a job that `error` ended: handed back if this process stops, else failed, unless it was cancelled. */
  async function settleFailed(job: ClaimedJob, error: unknown, folder: string): Promise<void> {
    if (closing.signal.aborted || (await stopRequest.explains(error, apps.get(job.service)))) {
      logger.info({ job: job.id, service: job.service }, 'prediction handed back');
      await source.handBack(job);
      return;
    }
    const cause = diskError(error);
    const known =
      cause instanceof TomaatError
        ? cause
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
  }

  /** Settles a job as failed, retrying until that works or all is closed: otherwise it would count as running forever. */
  async function failPatiently(job: ClaimedJob, why: TomaatError): Promise<void> {
    for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(pauseMs * 2, longestPauseMs)) {
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

  /** Removes a job's folder. If the disk fails, the next start removes the rest: the job must not wait for it. */
  async function clear(folder: string): Promise<void> {
    try {
      // It is usually empty by now, so one call suffices.
      const isGone = await rmdir(folder).then(
        () => true,
        () => false,
      );
      if (!isGone) await rm(folder, { recursive: true, force: true, maxRetries: 2 });
    } catch (error) {
      logger.error({ err: error, folder }, 'the folder of a job could not be removed');
    }
  }

  return {
    run,
    abort() {
      closing.abort();
      for (const controller of running.values())
        controller.abort(new TomaatError('WORKER_DIED', 'The server is stopping.'));
      stopListening();
    },
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

/** What `work` gives for each item, in their order; so many at a time. After the first fault no other is begun. */
async function mapFew<T, R>(items: readonly T[], most: number, work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  const left = items.entries();
  let isOver = false;
  const run = async () => {
    for (const [i, item] of left) {
      if (isOver) return;
      results[i] = await work(item);
    }
  };
  try {
    await Promise.all(Array.from({ length: Math.min(most, items.length) }, run));
  } finally {
    isOver = true;
  }
  return results;
}
