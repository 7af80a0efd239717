/**
 * Windows of a volume at the same time: N sessions of one thread each against one session of N threads, on the same windows of 64³ voxels,
 * in alternation. A U-Net with 14 classes. The labels must be the same. Takes half a minute; quick: fewer rounds.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { type InferResult, infer, infererSchema, type NetworkSession, type Volume } from '@tomaat/core';
import { openOnnxSession } from '../packages/server/src/runtimes/onnx.ts';
import { withLanes } from '../packages/server/src/runtimes/onnx-lanes.ts';
import { unetNetwork, writeModel } from '../packages/server/test/onnx-fixture.ts';
import { type BenchOptions, type BenchResult, median } from './report.ts';

const spec = infererSchema.parse({
  type: 'slidingWindow',
  roiSize: [64, 64, 64],
  overlap: 0.5,
  mode: 'gaussian',
});
const size = [96, 96, 128] as const;
const volume: Volume = {
  voxels: Float32Array.from(
    { length: size[0] * size[1] * size[2] },
    (_, i) => Math.sin(i * 0.013) + Math.sin((i % 96) * 0.2),
  ),
  size,
  components: 1,
  affine: [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1],
};

async function timed(session: NetworkSession) {
  const cpu = process.cpuUsage();
  const startMs = performance.now();
  const result = (await infer(volume, session, spec, { type: 'argmax' })) as Extract<
    InferResult,
    { labels: unknown }
  >;
  const ms = performance.now() - startMs;
  const { user, system } = process.cpuUsage(cpu);
  return { ms, cpuMs: (user + system) / 1000, labels: result.labels.voxels };
}

export async function run({ quick }: BenchOptions): Promise<BenchResult> {
  const threads = availableParallelism();
  if (threads < 2) return { skipped: 'one processor has one thread' };
  const folder = await mkdtemp(join(tmpdir(), 'bench-'));
  try {
    const modelFile = await writeModel(folder, 'unet.onnx', unetNetwork());
    const options = { threads };
    const one = await openOnnxSession(modelFile, { ...options, warmUpDims: [1, 1, 64, 64, 64] });
    const several = withLanes(await openOnnxSession(modelFile, options), {
      modelFile,
      options,
      freeMemory: () => ({ resident: 64e9, data: 64e9 }),
      residentBefore: process.memoryUsage.rss(),
      leastWorkMs: 0,
    });
    await timed(several); // Opens the sessions.
    const ratios: { ms: number[]; cpuMs: number[] } = { ms: [], cpuMs: [] };
    for (let round = 0; round < (quick ? 3 : 7); round++) {
      const order = round % 2 === 0 ? [one, several] : [several, one];
      const first = await timed(order[0]);
      const second = await timed(order[1]);
      const [alone, together] = round % 2 === 0 ? [first, second] : [second, first];
      let differ = 0;
      for (let i = 0; i < alone.labels.length; i++) if (alone.labels[i] !== together.labels[i]) differ++;
      if (differ > 0) throw new Error(`${differ} of ${alone.labels.length} labels differ`);
      ratios.ms.push(together.ms / alone.ms);
      ratios.cpuMs.push(together.cpuMs / alone.cpuMs);
      console.log(
        `  1 × ${threads} threads ${alone.ms.toFixed(0)} ms, ${threads} × 1 thread ${together.ms.toFixed(0)} ms`,
      );
    }
    await several.close();
    await one.close();
    return {
      lines: [
        {
          point: 'windows in several sessions over one session, time',
          measured: median(ratios.ms),
          target: 1,
        },
        { point: 'the same, CPU', measured: median(ratios.cpuMs), target: 1.05 },
      ],
    };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
