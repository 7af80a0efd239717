import type { ServerMetrics } from '../http/metrics.ts';
import type { Blobs } from '../store/blobs.ts';
import type { Jobs, OutputFile } from '../store/jobs.ts';
import { type JobSource, toOutputFile } from './supervisor.ts';

/** The jobs of the server that the supervisor lives in: it calls the store directly. */
export function localSource(jobs: Jobs, blobs: Blobs, metrics: ServerMetrics): JobSource {
  return {
    async claim(services, signal) {
      while (!signal.aborted) {
        let wake = () => {};
        const queued = new Promise<void>((resolve) => {
          wake = resolve;
        });
        const stop = jobs.on('queued', wake);
        signal.addEventListener('abort', wake, { once: true });
        try {
          const job = await jobs.claim(services);
          if (job) return job;
          await queued;
        } finally {
          stop();
          signal.removeEventListener('abort', wake);
        }
      }
      return undefined;
    },
    inputPath: async (digest) => blobs.path(digest),
    touch: (job, stage, fraction) => void jobs.touch(job.id, job.attempt, { stage, fraction }),
    async complete(job, outputs, seconds) {
      const files: OutputFile[] = [];
      try {
        for (const output of outputs) {
          const keep = ({ digest }: { digest: string }) => jobs.hold(digest);
          const { digest } = await blobs.adopt(output.path, { digest: output.digest, keep });
          files.push({ ...toOutputFile(output), digest });
        }
        const accepted = await jobs.settle(job.id, job.attempt, { state: 'succeeded', outputs: files, seconds });
        if (accepted) metrics.predictionSettled(job.service, 'succeeded', seconds);
        return accepted;
      } finally {
        await jobs.release(files.map((file) => file.digest));
      }
    },
    async fail(job, error) {
      const failed = await jobs.settle(job.id, job.attempt, { state: 'failed', error: error.toJSON() });
      if (failed) metrics.predictionSettled(job.service, error.code);
      return failed;
    },
    onCancel: (listener) => jobs.on('cancel', listener),
  };
}
