/**
 * The runs of a network that a request needs and nothing else, in a process like the server's child: the same graph, the same options of the
 * engine, the tensors in memory. What a whole request costs is measured against it.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cpuSeconds, endWithThis, nodeOptions, stopProcess } from './processes.ts';

export type Size = readonly [x: number, y: number, z: number];

export interface Cost {
  ms: number;
  /** CPU seconds; 0 where the system does not report them. */
  cpu: number;
}

/** What is to be run: the network on each window of a volume. */
export interface BareWork {
  readonly model: string;
  /** Names of the rewrites that the server used. */
  readonly rewrites: readonly string[];
  readonly size: Size;
  readonly roi: Size;
  /** Where the windows start, voxels, in the order in which they are run. */
  readonly windows: readonly Size[];
  readonly classes: number;
}

export interface BareNetwork extends AsyncDisposable {
  /** Runs the network on every window. */
  run(): Promise<Cost>;
  /** The labels of the volume: of each voxel the class with the largest sum of weighted scores, x fastest. */
  labels(): Promise<Uint8Array>;
}

/** Opens the network in a process of its own, warm. `voxels`: the volume as the network takes it, float32, x fastest. */
export async function startBare(work: BareWork, voxels: Float32Array, folder: string): Promise<BareNetwork> {
  const [input, output] = [join(folder, 'voxels'), join(folder, 'labels')];
  await writeFile(input, voxels);
  const child = spawn(
    process.execPath,
    [...nodeOptions, fileURLToPath(import.meta.url), JSON.stringify(work), input, output],
    { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] },
  );
  endWithThis(child);
  const gone = once(child, 'exit').then(([code]) => {
    throw new Error(`the process of the bare network ended (${code})`);
  });
  gone.catch(() => {});
  const answer = async () => (await Promise.race([once(child, 'message'), gone]))[0] as unknown;
  await answer();
  const usedCpu = () => cpuSeconds(child.pid as number) ?? 0;
  return {
    async run() {
      const cpu = usedCpu();
      child.send('run');
      const ms = (await answer()) as number;
      return { ms, cpu: usedCpu() - cpu };
    },
    async labels() {
      child.send('label');
      await answer();
      return readFile(output);
    },
    [Symbol.asyncDispose]: () => stopProcess(child),
  };
}

// ── In that process ─────────────────────────────────────────────────────────────────────────────────────────────

async function serveBare(work: BareWork, input: string, output: string): Promise<void> {
  const { InferenceSession, Tensor } = await import('onnxruntime-node');
  const { sessionOptions } = await import('../packages/server/src/runtimes/onnx.ts');
  const { rewriteGraph } = await import('../packages/server/src/runtimes/rewrite-graph.ts');
  const { rewrites } = await import('../packages/server/src/runtimes/rewrites/table.ts');
  const original = await readFile(work.model);
  const used = rewrites.filter(({ name }) => work.rewrites.includes(name));
  const graph = used.length > 0 ? rewriteGraph(original, used) : { bytes: original };
  if (!('bytes' in graph)) throw new Error(`the graph cannot be rewritten: ${graph.left}`);
  const session = await InferenceSession.create(graph.bytes, sessionOptions({}));
  const { buffer, byteOffset, byteLength } = await readFile(input);
  const voxels = new Float32Array(buffer.slice(byteOffset, byteOffset + byteLength));
  const tensors = work.windows.map((at) => cut(voxels, work, at));
  const [x, y, z] = work.roi;
  const compute = async (data: Float32Array) => {
    const results = await session.run({
      [session.inputNames[0]]: new Tensor('float32', data, [1, 1, z, y, x]),
    });
    return results[session.outputNames[0]].data as Float32Array;
  };
  await compute(tensors[0]);
  process.on('disconnect', () => process.exit(1));
  process.on('message', async (message) => {
    if (message === 'label') {
      await writeFile(output, await label(work, tensors, compute));
      process.send?.('done');
      return;
    }
    const start = performance.now();
    for (const tensor of tensors) await compute(tensor);
    process.send?.(performance.now() - start);
  });
  process.send?.('ready');
}

function cut(voxels: Float32Array, { size, roi }: BareWork, at: Size): Float32Array {
  const window = new Float32Array(roi[0] * roi[1] * roi[2]);
  for (let z = 0, to = 0; z < roi[2]; z++)
    for (let y = 0; y < roi[1]; y++, to += roi[0]) {
      const from = ((at[2] + z) * size[1] + at[1] + y) * size[0] + at[0];
      window.set(voxels.subarray(from, from + roi[0]), to);
    }
  return window;
}

/** The Gaussian weights of MONAI along one axis: σ an eighth of the window. */
const weightsAlong = (n: number): Float64Array =>
  Float64Array.from({ length: n }, (_, i) => Math.exp(-0.5 * ((i - (n - 1) / 2) / (n / 8)) ** 2));

async function label(
  { size, roi, windows, classes }: BareWork,
  tensors: readonly Float32Array[],
  compute: (window: Float32Array) => Promise<Float32Array>,
): Promise<Uint8Array> {
  const count = size[0] * size[1] * size[2];
  const window = roi[0] * roi[1] * roi[2];
  const sums = Array.from({ length: classes }, () => new Float32Array(count));
  const [wx, wy, wz] = roi.map(weightsAlong);
  for (const [i, at] of windows.entries()) {
    const scores = await compute(tensors[i]);
    for (let z = 0, from = 0; z < roi[2]; z++)
      for (let y = 0; y < roi[1]; y++)
        for (let x = 0; x < roi[0]; x++, from++) {
          const weight = windows.length === 1 ? 1 : Math.max(wx[x] * wy[y] * wz[z], 1e-3);
          const to = ((at[2] + z) * size[1] + at[1] + y) * size[0] + at[0] + x;
          for (let k = 0; k < classes; k++) sums[k][to] += weight * scores[k * window + from];
        }
  }
  const labels = new Uint8Array(count);
  for (let i = 0; i < count; i++)
    for (let k = 1; k < classes; k++) if (sums[k][i] > sums[labels[i]][i]) labels[i] = k;
  return labels;
}

if (import.meta.main)
  await serveBare(JSON.parse(process.argv[2]) as BareWork, process.argv[3], process.argv[4]);
