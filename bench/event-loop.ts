/**
 * Whether the server responds while a model computes: a 3-D U-Net over a volume keeps every core busy in its child,
 * while clients poll the state of the job continuously. Measured: how late the server process's timers fire
 * (perf_hooks' monitorEventLoopDelay in that process), and how long responses take. An idle process alongside shows
 * how late timers fire on this machine anyway.
 */
import { fork } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';
import { collectBytes, type Volume, writeVolume } from '@tomaat/core';
import { nodePlatform } from '../packages/server/src/node-platform.ts';
import { writeApp } from '../packages/server/test/app-fixture.ts';
import { unetNetwork, writeModel } from '../packages/server/test/onnx-fixture.ts';
import { startRealServer } from '../packages/server/test/real-server.ts';
import type { BenchOptions, BenchResult } from './report.ts';

const clients = 4;
const pollEveryMs = 20;

export async function run({ quick }: BenchOptions): Promise<BenchResult> {
  const folder = await mkdtemp(join(tmpdir(), 'tomaat-bench-'));
  try {
    const model = unetNetwork({ classes: 4 });
    const sha256 = createHash('sha256').update(model).digest('hex');
    const app = await writeApp(folder, 'unet', {
      model: {
        runtime: 'onnx',
        file: 'model.onnx',
        sha256,
        inferer: { type: 'slidingWindow', roiSize: [64, 64, 64], overlap: 0.25 },
      },
      postprocess: ['argmax', 'restore'],
    });
    await writeModel(app, 'model.onnx', model);
    await using server = await startRealServer([app], { dataFolder: join(folder, 'data') });
    const create = async (size: readonly [number, number, number]) => {
      const voxels = Int16Array.from({ length: size[0] * size[1] * size[2] }, (_, i) => (i * 7919) % 1000);
      const volume: Volume = {
        voxels,
        size,
        components: 1,
        affine: [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1],
      };
      const response = await fetch(`${server.url}/api/services/unet/predictions`, {
        method: 'POST',
        body: Uint8Array.from(await collectBytes(writeVolume(volume, 'nii', nodePlatform))),
        headers: { 'content-type': 'application/octet-stream' },
      });
      if (response.status !== 202) throw new Error(await response.text());
      return ((await response.json()) as { id: string }).id;
    };
    const latencies: number[] = [];
    /** Polls the job's state until it is settled. */
    const follow = async (id: string): Promise<void> => {
      for (;;) {
        const start = performance.now();
        const job = (await (await fetch(`${server.url}/api/jobs/${id}`)).json()) as {
          state: string;
          error?: unknown;
        };
        latencies.push(performance.now() - start);
        if (job.state === 'succeeded') return;
        if (job.error) throw new Error(JSON.stringify(job.error));
        await delay(pollEveryMs);
      }
    };
    // The first job starts the child and loads the network; it is not measured.
    await follow(await create([64, 64, 64]));
    latencies.length = 0;
    const id = await create(quick ? [96, 80, 64] : [192, 160, 128]);
    const idle = fork(import.meta.filename, ['--idle']);
    await once(idle, 'message');
    server.tell('watch');
    await Promise.all(Array.from({ length: clients }, () => follow(id)));
    const { p99Ms, maxMs, resolutionMs } = await server.ask<{
      p99Ms: number;
      maxMs: number;
      resolutionMs: number;
    }>('delay');
    idle.send('delay');
    const [idleP99Ms] = (await once(idle, 'message')) as [number];
    idle.disconnect();
    latencies.sort((a, b) => a - b);
    return {
      lines: [
        {
          point: 'event loop while a model runs, p99',
          measured: Math.max(0, p99Ms - resolutionMs),
          target: 25,
          unit: 'ms',
        },
        { point: 'event loop of an idle process meanwhile, p99', measured: idleP99Ms, unit: 'ms' },
        {
          point: 'event loop while a model runs, most',
          measured: Math.max(0, maxMs - resolutionMs),
          unit: 'ms',
        },
        {
          point: 'state of a job while it runs, p99',
          measured: latencies[Math.floor(latencies.length * 0.99)],
          unit: 'ms',
        },
      ],
    };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** An idle process that only measures its own timers. */
function watchIdle(): void {
  const resolutionMs = 5;
  const monitor = monitorEventLoopDelay({ resolution: resolutionMs });
  process.on('message', () => process.send?.(Math.max(0, monitor.percentile(99) / 1e6 - resolutionMs)));
  monitor.enable();
  process.send?.('ready');
}

if (import.meta.main) {
  if (process.argv.includes('--idle')) watchIdle();
  else
    console.table(
      await run({ quick: process.argv.includes('--quick') }).then((result) =>
        'lines' in result ? result.lines : result,
      ),
    );
}
