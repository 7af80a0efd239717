/**
 * What a job costs besides its work: the time from acceptance (durable) to the first sign of life from the warm child
 * that runs it, with the real store and supervisor; and a whole HTTP request with a volume of 64 voxels.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Volume, writeVolume } from '@tomaat/core';
import { fastify } from 'fastify';
import { openApp } from '../packages/server/src/apps.ts';
import { createServerMetrics } from '../packages/server/src/http/metrics.ts';
import { nodePlatform } from '../packages/server/src/node-platform.ts';
import { openBlobs } from '../packages/server/src/store/blobs/blobs.ts';
import { openServerDatabase } from '../packages/server/src/store/database/server-database.ts';
import { createJobs } from '../packages/server/src/store/jobs/jobs.ts';
import type { JobSource } from '../packages/server/src/worker/job-source.ts';
import { localSource } from '../packages/server/src/worker/local-source.ts';
import { startSupervisor } from '../packages/server/src/worker/supervisor.ts';
import { repository, serveApps } from './processes.ts';
import { type BenchOptions, type BenchResult, median } from './report.ts';

export async function run({ quick }: BenchOptions): Promise<BenchResult> {
  const folder = await mkdtemp(join(tmpdir(), 'tomaat-bench-'));
  const rounds = quick ? 30 : 200;
  try {
    const image = await smallImage();
    const startMs = await measureStart(join(folder, 'store'), image, rounds);
    const requestMs = await measureRequests(join(folder, 'server'), image, rounds);
    print('accepted until started', startMs);
    print('whole small request', requestMs);
    return {
      lines: [
        { point: 'job accepted until started, p50', measured: median(startMs), target: 20, unit: 'ms' },
        { point: 'request of 64 voxels, p50', measured: median(requestMs), unit: 'ms' },
      ],
    };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const threshold = join(repository, 'apps/threshold');

async function smallImage(): Promise<Buffer> {
  const volume: Volume = {
    voxels: Float32Array.from({ length: 64 }, (_, i) => i),
    size: [4, 4, 4],
    components: 1,
    affine: [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1],
  };
  const parts: Uint8Array[] = [];
  for await (const part of writeVolume(volume, 'nii', nodePlatform)) parts.push(part.slice());
  return Buffer.concat(parts);
}

async function measureStart(folder: string, image: Buffer, rounds: number): Promise<number[]> {
  await using blobs = await openBlobs(join(folder, 'blobs'));
  await using database = await openServerDatabase(folder);
  const jobs = createJobs({ database, blobs, resultTtlMs: 3_600_000, maxQueued: 1000 });
  const http = fastify();
  const app = await openApp(threshold);
  let started = () => {};
  const local = localSource(jobs, blobs, createServerMetrics(http, jobs, [app.manifest.id]));
  const source: JobSource = {
    ...local,
    touch(job, stage, fraction) {
      started();
      local.touch(job, stage, fraction);
    },
  };
  await using _supervisor = await startSupervisor({
    apps: [app],
    source,
    slots: 1,
    maxIdle: 2,
    workFolder: join(folder, 'work'),
    maxVoxels: 2 ** 30,
    logger: http.log,
  });
  const ms: number[] = [];
  for (let round = -2; round < rounds; round++) {
    await using writer = await blobs.create();
    await writer.write(image);
    const { digest, sizeBytes } = await writer.commit((ref) => jobs.hold(ref.digest));
    const start = new Promise<void>((resolve) => {
      started = resolve;
    });
    const { id } = await jobs.create({
      service: app.manifest.id,
      owner: 'bench',
      request: { parameters: {}, formats: {}, stem: 'bench' },
      inputs: [{ name: 'volume', fileName: 'volume.nii', digest, sizeBytes }],
    });
    const acceptedMs = performance.now();
    await start;
    if (round >= 0) ms.push(performance.now() - acceptedMs);
    await jobs.release([digest]);
    const job = await jobs.settled(id);
    if (job?.state !== 'succeeded') throw new Error(`the job ended as ${job?.state}: ${job?.error?.message}`);
  }
  await http.close();
  return ms;
}

async function measureRequests(folder: string, image: Buffer, rounds: number): Promise<number[]> {
  await using server = await serveApps('serve', [threshold], folder);
  const ms: number[] = [];
  for (let round = -2; round < rounds; round++) {
    const start = performance.now();
    const response = await fetch(`${server.url}/threshold/any`, {
      method: 'POST',
      headers: { 'content-type': 'application/octet-stream' },
      body: new Uint8Array(image),
    });
    const body = await response.arrayBuffer();
    if (!response.ok) throw new Error(`the request failed: ${Buffer.from(body)}`);
    if (round >= 0) ms.push(performance.now() - start);
  }
  return ms;
}

function print(what: string, ms: readonly number[]): void {
  const sorted = [...ms].sort((a, b) => a - b);
  const p95 = sorted[Math.floor(0.95 * (sorted.length - 1))];
  console.log(`${what.padEnd(24)} p50 ${median(ms).toFixed(1)} ms, p95 ${p95.toFixed(1)} ms`);
}
