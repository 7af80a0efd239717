/**
 * The cost of a whole request beyond the network: a head of 256³ voxels (uint8, not compressed) is posted to a real
 * `tomaat serve` with a small network (MeshNet, three classes), and the label map is read back. It is compared, in
 * alternation, with the bare run of the same network on the same tensor in a separate process with the same engine
 * options. Both are warm. Takes 1.5 GB for each process.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { dataFolder, modelsFolder } from '../test/real-data.ts';
import { cpuSeconds, endWithThis, nodeOptions, serveApps, stopProcess } from './processes.ts';
import { type BenchOptions, type BenchResult, inTurn, type Line, median } from './report.ts';

const side = 256;
const headerBytes = 352;

const manifest = (sha256: string) => `schemaVersion: 1
id: head
name: Head
description: White and grey matter on a T1 of the head
version: 1.0.0
modality: MRI
anatomy: head
task: segmentation
authors: [The TOMAAT authors]
licence: MIT
intendedUse: Measuring what a request costs.
inputs:
  volume: { type: volume, label: T1 }
preprocess:
  - orientation: { axcodes: LIA }
  - scaleIntensity
model: { runtime: onnx, file: model.onnx, sha256: ${sha256}, inferer: { type: simple } }
postprocess: [argmax, restore]
outputs:
  segmentation: { type: LabelVolume, label: Matter }
labels:
  - { value: 1, name: white matter, color: '#ffffff' }
  - { value: 2, name: grey matter, color: '#808080' }
`;

interface Cost {
  ms: number;
  cpu: number;
}

export async function run({ quick }: BenchOptions): Promise<BenchResult> {
  const models = modelsFolder();
  const data = dataFolder();
  if (!models || !data) return { skipped: 'the folder of real networks or images is not there' };
  const folder = await mkdtemp(join(tmpdir(), 'tomaat-bench-'));
  try {
    const app = join(folder, 'head');
    await mkdir(app);
    const model = join(app, 'model.onnx');
    const network = await readFile(join(models, 'meshnet/model5_gw_ae.onnx'));
    await writeFile(model, network);
    await writeFile(join(app, 'tomaat.yaml'), manifest(createHash('sha256').update(network).digest('hex')));
    const image = gunzipSync(await readFile(join(data, 'brain/t1_crop.nii.gz')));
    if (image.length !== headerBytes + side ** 3) throw new Error('the head is not 256³ uint8');

    await using server = await serveApps('serve', [app], join(folder, 'data'));
    await using bare = await startBare(model, image.subarray(headerBytes), folder);
    const request = async (): Promise<Cost & { body: Buffer }> => {
      const cpu = cpuSeconds(server.pid) ?? 0;
      const start = performance.now();
      const response = await fetch(`${server.url}/segmentation/head`, {
        method: 'POST',
        headers: { 'content-type': 'application/octet-stream' },
        body: image,
      });
      const body = Buffer.from(await response.arrayBuffer());
      const ms = performance.now() - start;
      if (!response.ok) throw new Error(`the request failed: ${body}`);
      return { ms, cpu: (cpuSeconds(server.pid) ?? 0) - cpu, body };
    };

    // The first request loads the network; the second is the first that finds it warm.
    const first = await request();
    if (!quick) await request();
    const counts = countLabels(first.body.subarray(-(side ** 3)));
    const expected = await bare.countLabels();
    if (counts.join() !== expected.join()) {
      throw new Error(`the server’s labels (${counts}) are not the network’s (${expected})`);
    }
    const pairs = await inTurn(quick ? 2 : 7, request, bare.run, quick ? 0 : 240_000);
    const ratio = (pick: (cost: Cost) => number) => median(pairs.map(([a, b]) => pick(a) / pick(b)));
    console.log(`whole request: ${side}³ uint8, ${pairs.length} pairs`);
    console.log(
      `  request   ${pairs.map(([a]) => a.ms.toFixed(0)).join(' ')} ms; CPU ${pairs.map(([a]) => a.cpu.toFixed(2)).join(' ')} s`,
    );
    console.log(
      `  bare run  ${pairs.map(([, b]) => b.ms.toFixed(0)).join(' ')} ms; CPU ${pairs.map(([, b]) => b.cpu.toFixed(2)).join(' ')} s`,
    );
    const logged = server.logged('prediction done').slice(-pairs.length);
    const stageMs = new Map<string, number[]>();
    for (const { stages } of logged) {
      for (const [name, ms] of Object.entries(stages as Record<string, number>)) {
        stageMs.set(name, [...(stageMs.get(name) ?? []), ms]);
      }
    }
    const stages = [...stageMs].map(([name, values]) => `${name} ${median(values).toFixed(0)}`);
    const inChild = median(logged.map(({ seconds }) => Number(seconds) * 1000));
    const outside = median(pairs.map(([a]) => a.ms)) - inChild;
    console.log(`  of which  ${stages.join(', ')} ms in the child; ${outside.toFixed(0)} ms outside of it`);
    const lines: Line[] = [
      { point: 'whole request over its bare network, time', measured: ratio((c) => c.ms), target: 1.05 },
    ];
    if (cpuSeconds(process.pid) !== undefined) {
      lines.push({
        point: 'whole request over its bare network, CPU',
        measured: ratio((c) => c.cpu),
        target: 1.05,
      });
    }
    return { lines };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function countLabels(labels: Uint8Array): number[] {
  const counts = [0, 0, 0];
  for (const label of labels) counts[label]++;
  return counts;
}

// ── The bare network, in a process like the server's child ──────────────────────────────────────────────────────

interface BareNetwork extends AsyncDisposable {
  run(): Promise<Cost>;
  /** From the last run: the number of voxels of each label. */
  countLabels(): Promise<number[]>;
}

async function startBare(model: string, voxels: Uint8Array, folder: string): Promise<BareNetwork> {
  const file = join(folder, 'voxels');
  await writeFile(file, voxels);
  const child = spawn(process.execPath, [...nodeOptions, fileURLToPath(import.meta.url), model, file], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  endWithThis(child);
  const gone = once(child, 'exit').then(([code]) => {
    throw new Error(`the process of the bare network ended (${code})`);
  });
  gone.catch(() => {});
  const answer = async () => (await Promise.race([once(child, 'message'), gone]))[0] as unknown;
  await answer();
  return {
    async run() {
      const cpu = cpuSeconds(child.pid as number) ?? 0;
      child.send('run');
      const ms = (await answer()) as number;
      return { ms, cpu: (cpuSeconds(child.pid as number) ?? 0) - cpu };
    },
    async countLabels() {
      child.send('count');
      return (await answer()) as number[];
    },
    [Symbol.asyncDispose]: () => stopProcess(child),
  };
}

async function serveBare(model: string, file: string): Promise<void> {
  const { InferenceSession, Tensor } = await import('onnxruntime-node');
  const { sessionOptions } = await import('../packages/server/src/runtimes/onnx.ts');
  const session = await InferenceSession.create(model, sessionOptions({}));
  const bytes = await readFile(file);
  let [low, high] = [Infinity, -Infinity];
  for (const value of bytes) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  const input = Float32Array.from(bytes, (value) => (value - low) / (high - low));
  const name = session.inputNames[0];
  const compute = async () => {
    const results = await session.run({ [name]: new Tensor('float32', input, [1, 1, side, side, side]) });
    return results[session.outputNames[0]].data as Float32Array;
  };
  let scores = await compute();
  process.on('disconnect', () => process.exit(1));
  process.on('message', async (message) => {
    if (message === 'count') {
      process.send?.(countLabels(argmax(scores)));
      return;
    }
    const start = performance.now();
    scores = await compute();
    process.send?.(performance.now() - start);
  });
  process.send?.('ready');
}

function argmax(scores: Float32Array): Uint8Array {
  const n = scores.length / 3;
  const labels = new Uint8Array(n);
  for (let i = 0; i < n; i++) {
    const [a, b, c] = [scores[i], scores[n + i], scores[2 * n + i]];
    labels[i] = b > a ? (c > b ? 2 : 1) : c > a ? 2 : 0;
  }
  return labels;
}

if (import.meta.main) await serveBare(process.argv[2], process.argv[3]);
