import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Job } from '@tomaat/client';
import {
  type Finding,
  finding,
  load,
  makeVolumes,
  openMortalServer,
  quantile,
  rssMb,
  settledJob,
  slowApp,
  submit,
} from './harness.ts';

const serviceMs = 100;

/** Ten times as many requests as can be served: those that are served are as many as ever, the others are told at once. */
export async function overload(
  folder: string,
  { seconds, share = 0.9 }: { seconds: number; share?: number },
): Promise<Finding[]> {
  const [bytes] = await makeVolumes();
  const server = await openMortalServer([await slowApp(folder, 'timed', serviceMs)], {
    dataFolder: join(folder, 'overload'),
    maxQueued: 20,
  });
  try {
    /** Keeps the queue full without pressing, and counts what succeeds. */
    const undisturbed = async (ms: number) => {
      const end = performance.now() + ms;
      const ids: string[] = [];
      await Promise.all(
        [0, 1, 2].map(async () => {
          while (performance.now() < end) {
            const job = (await (await submit(server.url, 'timed', bytes)).json()) as Job;
            await settledJob(server.url, job.id);
            ids.push(job.id);
          }
        }),
      );
      return ids.length / (ms / 1000);
    };
    await undisturbed(1500);
    const before = await rssMb(server.pid);
    const capacity = await undisturbed(Math.min(10_000, seconds * 500));

    const accepted: string[] = [];
    const statuses = new Map<string, number>();
    const health: number[] = [];
    const requests = new Set<Promise<void>>();
    const count = (what: string) => statuses.set(what, (statuses.get(what) ?? 0) + 1);
    let peak = 0;
    const end = performance.now() + seconds * 1000;
    const started = Date.now();
    const everyMs = 1000 / (capacity * 10);
    const ask = async () => {
      try {
        const response = await submit(server.url, 'timed', bytes);
        if (response.status === 202) {
          accepted.push(((await response.json()) as Job).id);
          count('202');
          return;
        }
        await response.arrayBuffer();
        count(`${response.status}${response.headers.has('retry-after') ? '' : ' without Retry-After'}`);
      } catch (error) {
        count(`no answer: ${(error as Error).cause ?? error}`);
      }
    };
    const watch = (async () => {
      while (performance.now() < end) {
        const at = performance.now();
        await (await fetch(`${server.url}/health/live`)).arrayBuffer();
        health.push(performance.now() - at);
        peak = Math.max(peak, await rssMb(server.pid));
        await sleep(100);
      }
    })();
    for (let next = performance.now(); next < end; next += everyMs) {
      const waitMs = next - performance.now();
      if (waitMs > 1) await sleep(waitMs);
      const request: Promise<void> = ask().finally(() => requests.delete(request));
      requests.add(request);
    }
    await Promise.all(requests);
    await watch;
    const finished: number[] = [];
    let lost = 0;
    for (const id of accepted) {
      const job = await settledJob(server.url, id);
      if (job?.state === 'succeeded') finished.push(Date.parse(job.settledTime!));
      else lost++;
    }
    const inTime = finished.filter((ms) => ms <= started + seconds * 1000).length / seconds;
    const others = [...statuses].filter(
      ([status]) => status !== '202' && status !== '503' && status !== '429',
    );
    const told = [...statuses].map(([status, n]) => `${n} × ${status}`).join(', ');
    return [
      finding(
        inTime >= share * capacity,
        `at least ${share * 100} % of the undisturbed throughput is served`,
        `${inTime.toFixed(1)}/s against ${capacity.toFixed(1)}/s over ${seconds} s, ${load()}`,
      ),
      finding(others.length === 0, 'every other request is told 429 or 503, with Retry-After', told),
      finding(lost === 0, 'every accepted job succeeds', `${lost} of ${accepted.length} did not`),
      finding(
        quantile(health, 0.99) < 100,
        'health under 100 ms at p99',
        `p50 ${quantile(health, 0.5).toFixed(1)} ms, p99 ${quantile(health, 0.99).toFixed(1)} ms, ${load()}`,
      ),
      finding(
        peak <= before + 256,
        'memory is bounded',
        `${before.toFixed(0)} MB before, at most ${peak.toFixed(0)} MB`,
      ),
    ];
  } finally {
    await server.close();
  }
}
