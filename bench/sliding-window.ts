/**
 * The cost of the sliding window beyond the network: a 3-D U-Net with 14 classes (95 GFLOP a window) on 96³ windows
 * of a 160³ volume, overlap 0.5, Gaussian weights, 27 windows. Each window is run twice, bare and for the inferer, in
 * alternation, so that a busy machine slows both alike. Then the recorded scores are replayed to compare the
 * accumulators: their labels must have the same hash. Takes 1-2 minutes and 2.5 GB; quick: a volume of 128³, 8
 * windows.
 */
import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  type InferOptions,
  infer,
  infererSchema,
  type NetworkSession,
  type Tensor,
  type Volume,
} from '@tomaat/core';
import { InferenceSession, Tensor as OrtTensor } from 'onnxruntime-node';
import { openOnnxSession } from '../packages/server/src/runtimes/onnx.ts';
import { unetNetwork, writeModel } from '../packages/server/test/onnx-fixture.ts';
import { type BenchOptions, type BenchResult, median } from './report.ts';

const threads = 2;
const spec = infererSchema.parse({
  type: 'slidingWindow',
  roiSize: [96, 96, 96],
  overlap: 0.5,
  mode: 'gaussian',
});
const replays = 3;

function volume(n: number): Volume {
  const voxels = Float32Array.from(
    { length: n ** 3 },
    (_, i) => Math.sin(i * 0.013) + Math.sin((i % n) * 0.2),
  );
  return { voxels, size: [n, n, n], components: 1, affine: [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1] };
}

async function labels(
  input: Volume,
  session: NetworkSession,
  options: InferOptions,
): Promise<{ hash: string; ms: number }> {
  const start = performance.now();
  const result = await infer(input, session, spec, { type: 'argmax' }, options);
  const ms = performance.now() - start;
  if (!('labels' in result)) throw new Error('the inferer gave no labels');
  const { buffer, byteOffset, byteLength } = result.labels.voxels;
  return {
    ms,
    hash: createHash('sha256')
      .update(new Uint8Array(buffer, byteOffset, byteLength))
      .digest('hex')
      .slice(0, 10),
  };
}

/** CPU time of this process, including the engine's threads. */
function cpuMsSince(before: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

export async function run({ quick }: BenchOptions): Promise<BenchResult> {
  const folder = await mkdtemp(join(tmpdir(), 'bench-'));
  try {
    const model = await writeModel(folder, 'unet.onnx', unetNetwork());
    const session = await openOnnxSession(model, {
      threads,
      warmUpDims: [1, 1, 96, 96, 96],
      rewrite: false, // Both run the same graph.
    });
    const bare = await InferenceSession.create(model, {
      intraOpNumThreads: threads,
      enableMemPattern: false,
      extra: { session: { 'intra_op.allow_spinning': '0' } },
    });
    const input = volume(quick ? 128 : 160);
    const recorded: Tensor[] = [];
    const bareMs: number[] = [];
    const ownMs: number[] = [];
    let bareCpuMs = 0;
    const measured: NetworkSession = {
      async run(window) {
        const runs = [
          async () => {
            const cpu = process.cpuUsage();
            const start = performance.now();
            await bare.run({ image: new OrtTensor('float32', window.data, window.dims) });
            bareMs.push(performance.now() - start);
            bareCpuMs += cpuMsSince(cpu);
          },
          async () => {
            const start = performance.now();
            recorded.push((await session.run(window)) as Tensor);
            ownMs.push(performance.now() - start);
          },
        ];
        if (recorded.length % 2 === 1) runs.reverse();
        for (const one of runs) await one();
        return recorded[recorded.length - 1];
      },
    };
    await bare.run({ image: new OrtTensor('float32', new Float32Array(96 ** 3), [1, 1, 96, 96, 96]) });
    const cpu = process.cpuUsage();
    const first = await labels(input, measured, {});
    const cpuRatio = (cpuMsSince(cpu) - bareCpuMs) / bareCpuMs;
    const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);
    const around = (first.ms - sum(bareMs) - sum(ownMs)) / sum(ownMs);
    // Compared window by window, so that one during which the machine was otherwise busy does not weigh more.
    const ratio = median(ownMs.map((own, i) => own / bareMs[i])) * (1 + around);
    console.log(`sliding window: ${recorded.length} windows of 96³, ${threads} threads`);
    console.log(`  bare session.run  median ${median(bareMs).toFixed(0)} ms a window`);
    console.log(`  infer() in whole  ${ratio.toFixed(4)} of bare, of its CPU ${cpuRatio.toFixed(4)}`);
    console.log(`  infer() around its own runs  ${(100 * around).toFixed(2)} %`);

    const variants: [string, InferOptions][] = [
      ['ring, SIMD', {}],
      ['full, SIMD', { accumulator: 'full' }],
      ['ring, plain', { kernels: 'plain' }],
    ];
    const times = variants.map((): number[] => []);
    const hashes = variants.map(() => '');
    for (let round = 0; round < replays; round++) {
      for (const [i, [, options]] of variants.entries()) {
        let next = 0;
        const replayed = await labels(input, { run: async () => recorded[next++] }, options);
        times[i].push(replayed.ms);
        hashes[i] = replayed.hash;
      }
    }
    const shares = times.map((ms) => (100 * median(ms)) / sum(ownMs));
    for (const [i, [name]] of variants.entries()) {
      console.log(
        `  ${name.padEnd(14)} ${median(times[i]).toFixed(0).padStart(6)} ms without the network = ${shares[i].toFixed(2)} %, labels ${hashes[i]}`,
      );
    }
    if (new Set([first.hash, ...hashes]).size !== 1)
      throw new Error('the accumulators gave different labels');
    await bare.release();
    await session.close();
    return {
      lines: [
        { point: 'sliding window over its bare runs, time', measured: ratio, target: 1.05 },
        { point: 'sliding window over its bare runs, CPU', measured: cpuRatio, target: 1.05 },
        { point: 'sliding window beside the network', measured: shares[0], target: 2, unit: '%' },
        { point: 'the same without WebAssembly', measured: shares[2], target: 5, unit: '%' },
      ],
    };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
