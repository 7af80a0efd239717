import type { Blobs } from '../store/blobs/blobs.ts';
import type { ClaimedJob, OutputFile } from '../store/jobs/job-records.ts';
import type { Jobs } from '../store/jobs/jobs.ts';
import { type JobSource, toOutputFile } from './job-source.ts';
import type { WrittenFile } from './messages.ts';
import { isAway, patiently } from './patiently.ts';

/** The next job of these services, as soon as there is one; undefined if `signal` aborts first. */
export async function waitForJob(
  jobs: Jobs,
  services: readonly string[],
  signal: AbortSignal,
  worker?: string,
): Promise<ClaimedJob | undefined> {
  while (!signal.aborted) {
    let wake = () => {};
    const queued = new Promise<void>((resolve) => {
      wake = resolve;
    });
    const stop = jobs.on('queued', wake);
    signal.addEventListener('abort', wake, { once: true });
    try {
      const job = await jobs.claim(services, worker);
      if (job) return job;
      await queued;
    } finally {
      stop();
      signal.removeEventListener('abort', wake);
    }
  }
  return undefined;
}

/** Where settled predictions are counted. */
interface PredictionMetrics {
  predictionSettled(service: string, outcome: string, seconds?: number): void;
}

/** The jobs of the supervisor's own server: it calls the store directly. */
export function localSource(jobs: Jobs, blobs: Blobs, metrics: PredictionMetrics): JobSource {
  return {
    claim: (services, signal) => waitForJob(jobs, services, signal),
    async inputPath(_job, input) {
      await blobs.check(input);
      return blobs.fetch(input);
    },
    isRunning: (job) => jobs.isRunning(job.id, job.attempt),
    touch: (job, stage, fraction) =>
      void jobs.touch(job.id, job.attempt, { stage, fraction }).catch(() => {}),
    async complete(job, outputs, seconds, { device, rewrites }, signal) {
      const held: string[] = [];
      let isGone = false;
      const hold = async (digest: string) => {
        try {
          await jobs.hold(digest);
        } catch (error) {
          isGone = isAway(error) && !(await blobs.stat(digest));
          throw isGone ? new Error('an output was deleted while it was stored', { cause: error }) : error;
        }
      };
      const keep = async ({ digest }: { digest: string }) => {
        await patiently(signal, () => hold(digest));
        held.push(digest);
      };
      // The child has hashed and synced what it wrote.
      const adopt = async ({ path, digest }: WrittenFile) =>
        (await blobs.adopt(path, { digest, isSynced: true, keep })).digest;
      const settle = async (files: readonly OutputFile[]) =>
        (await jobs.settle(job.id, job.attempt, {
          state: 'succeeded',
          outputs: files,
          seconds,
          device,
          rewrites,
        })) ||
        // The answer to the first of two equal transactions may have been lost.
        jobs.hasSucceeded(job.id, job.attempt);
      try {
        const files: OutputFile[] = [];
        for (const output of outputs) {
          const { kept, ...file } = toOutputFile(output);
          files.push({
            ...file,
            digest: await adopt(output),
            ...(kept && { kept: { ...kept, digest: await adopt(output.kept!) } }),
          });
        }
        const accepted = await patiently(signal, () => settle(files));
        if (accepted) metrics.predictionSettled(job.service, 'succeeded', seconds);
        return accepted;
      } catch (error) {
        // The store has taken the child's file and does not have it: the job is computed again.
        if (!isGone && !isAway(error)) throw error;
        await patiently(signal, () => jobs.requeue(job.id, job.attempt, 'handed back'));
        return false;
      } finally {
        // What is not released now is found by the next renewal of holds.
        await jobs.release(held).catch((error: unknown) => {
          if (!isAway(error)) throw error;
        });
      }
    },
    async fail(job, error) {
      const failed = await jobs.settle(job.id, job.attempt, { state: 'failed', error: error.toJSON() });
      if (failed) metrics.predictionSettled(job.service, error.code);
      return failed;
    },
    async handBack(job) {
      await jobs.requeue(job.id, job.attempt, 'handed back');
    },
    onCancel: (listener) => jobs.on('cancel', listener),
  };
}
