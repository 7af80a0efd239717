import type { Blobs } from '../store/blobs/blobs.ts';
import type { ClaimedJob, OutputFile } from '../store/jobs/job-records.ts';
import type { Jobs } from '../store/jobs/jobs.ts';
import { type JobSource, toOutputFile } from './job-source.ts';
import type { WrittenFile } from './messages.ts';

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
    async complete(job, outputs, seconds, { device, rewrites }) {
      const held: string[] = [];
      const keep = async ({ digest }: { digest: string }) => {
        await jobs.hold(digest);
        held.push(digest);
      };
      // The child has hashed and synced what it wrote.
      const adopt = async ({ path, digest }: WrittenFile) =>
        (await blobs.adopt(path, { digest, isSynced: true, keep })).digest;
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
        const accepted = await jobs.settle(job.id, job.attempt, {
          state: 'succeeded',
          outputs: files,
          seconds,
          device,
          rewrites,
        });
        if (accepted) metrics.predictionSettled(job.service, 'succeeded', seconds);
        return accepted;
      } finally {
        await jobs.release(held);
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
