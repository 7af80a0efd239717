import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isSettled, type Job } from '@tomaat/client';
import {
  countJobs,
  type Finding,
  finding,
  insist,
  integrityOf,
  load,
  makeVolumes,
  makeWorkerKey,
  octets,
  openMortalServer,
  predictionUrl,
  quantile,
  resultOf,
  settledJob,
  slowApp,
  startWorkerProcess,
  submit,
  type WorkerProcess,
} from './harness.ts';

const tus = { 'tus-resumable': '1.0.0' };

/**
 * kill -9 of the server, of a worker, of both, at random moments under a stream of jobs and uploads: nothing that was
 * acknowledged is lost, every result is that of an undisturbed run, no request makes two jobs.
 */
export async function killLoop(folder: string, { kills }: { kills: number }): Promise<Finding[]> {
  const volumes = await makeVolumes();
  const apps = [await slowApp(folder, 'good', 40)];
  const server = await openMortalServer(apps, {
    dataFolder: join(folder, 'kills'),
    leaseMs: 3000,
    maxQueued: 200,
  });
  const token = await makeWorkerKey(server.dataFolder);
  let worker: WorkerProcess | undefined;
  const counts = { server: 0, worker: 0, both: 0 };
  const acknowledged = new Map<string, number>();
  const stop = new AbortController();
  try {
    const expected: string[] = [];
    for (const bytes of volumes) {
      const job = (await (await submit(server.url, 'good', bytes)).json()) as Job;
      expected.push(await resultOf(server.url, (await settledJob(server.url, job.id))!));
    }
    worker = await startWorkerProcess(server.url, token, apps);

    const send = async (which: number) => {
      const init = {
        method: 'POST',
        body: volumes[which],
        headers: { ...octets, 'idempotency-key': randomUUID() },
      };
      const response = await insist(predictionUrl(server.url, 'good'), init, stop.signal);
      if (response.status === 202) acknowledged.set(((await response.json()) as Job).id, which);
      else await response.arrayBuffer();
    };
    const sendUpload = async (which: number) => {
      const bytes = volumes[which];
      const begun = await insist(
        `${server.url}/api/uploads`,
        { method: 'POST', headers: { ...tus, 'upload-length': String(bytes.length) } },
        stop.signal,
      );
      const url = `${server.url}${begun.headers.get('location')}`;
      let offset = 0;
      while (offset < bytes.length) {
        const part = bytes.subarray(offset, offset + Math.ceil(bytes.length / 3));
        const headers = {
          ...tus,
          'upload-offset': String(offset),
          'content-type': 'application/offset+octet-stream',
        };
        await fetch(url, { method: 'PATCH', headers, body: part, signal: stop.signal }).catch(() => {});
        const now = await insist(url, { method: 'HEAD', headers: tus }, stop.signal);
        if (!now.ok) throw new Error(`an upload was lost: ${now.status}`);
        offset = Number(now.headers.get('upload-offset'));
      }
      const body = JSON.stringify({ inputs: { volume: { upload: url.slice(url.lastIndexOf('/') + 1) } } });
      const headers = { 'content-type': 'application/json', 'idempotency-key': randomUUID() };
      const response = await insist(
        predictionUrl(server.url, 'good'),
        { method: 'POST', body, headers },
        stop.signal,
      );
      if (response.status !== 202) throw new Error(`a whole upload was refused: ${await response.text()}`);
      acknowledged.set(((await response.json()) as Job).id, which);
    };
    const faults: unknown[] = [];
    const streams = [send, send, sendUpload].map(async (one, index) => {
      while (!stop.signal.aborted) {
        await one((acknowledged.size + index) % volumes.length).catch((error: unknown) => {
          if (!stop.signal.aborted) faults.push(error);
        });
        await sleep(60);
      }
    });

    for (let kill = 0; kill < kills; kill++) {
      await sleep(100 + Math.random() * 900);
      const target = (['server', 'worker', 'both'] as const)[Math.floor(Math.random() * 3)];
      counts[target]++;
      if (target !== 'worker') await server.kill();
      if (target !== 'server') await worker.kill();
      if (target !== 'worker') await server.start();
      if (target !== 'server') worker = await startWorkerProcess(server.url, token, apps);
    }
    stop.abort();
    await Promise.all(streams);

    let lost = 0;
    let wrong = 0;
    let givenUp = 0;
    const attempts: number[] = [];
    for (const [id, which] of acknowledged) {
      const job = await settledJob(server.url, id, 120_000);
      if (!job || !isSettled(job)) lost++;
      else if (job.error?.code === 'WORKER_DIED' && job.attempt >= 3) givenUp++;
      else if ((await resultOf(server.url, job)) !== expected[which]) wrong++;
      if (job) attempts.push(job.attempt);
    }
    await server.kill();
    const jobs = await countJobs(server.dataFolder);
    const integrity = await integrityOf(server.dataFolder);
    const seen = `${kills} kills (${counts.server} server, ${counts.worker} worker, ${counts.both} both), ${acknowledged.size} jobs acknowledged`;
    const ready = server.readyMs;
    return [
      finding(lost === 0, 'no acknowledged job is lost', `${seen}, ${lost} lost`),
      finding(
        wrong === 0,
        'no result is wrong or torn',
        `${wrong} of ${acknowledged.size} differ from the undisturbed ones`,
      ),
      finding(
        faults.length === 0,
        'no upload is lost',
        `${faults.length} faults${faults.length > 0 ? `: ${String(faults[0])}` : ''}`,
      ),
      finding(
        // Three undisturbed ones came first; a request that was cut when the streams ended may have made one more each.
        jobs - 3 - acknowledged.size <= 3 && jobs - 3 >= acknowledged.size,
        'no request makes two jobs',
        `${jobs - 3} rows for ${acknowledged.size} acknowledged`,
      ),
      finding(
        givenUp <= acknowledged.size / 20,
        'few jobs are given up after three losses',
        `${givenUp}; ${attempts.filter((n) => n > 1).length} took more than one attempt, at most ${Math.max(...attempts)}`,
      ),
      finding(integrity === 'ok', 'the database is whole', integrity),
      finding(
        quantile(ready, 0.5) < 2000,
        'ready again within 2 s',
        `p50 ${Math.round(quantile(ready, 0.5))} ms, max ${Math.round(Math.max(0, ...ready))} ms from the start of the process (${Math.round(quantile(server.readyCpuMs, 0.5))} ms of processor time), ${load()}`,
      ),
    ];
  } finally {
    stop.abort();
    await worker?.kill();
    await server.close();
  }
}
