/**
 * The rewrites of graphs: what a rewritten network takes of the time of the same network as its file has it, in the same engine. Both
 * sessions run in turn in this process. The networks are written here, as MONAI and nnU-Net export theirs; with the folder of real networks,
 * those that are rewritten are measured, too; where Python has torch and onnx, PyTorch computes the first two from the same files. Labels must be the
 * same. Each rewrite is measured alone, too: one that gains nothing with a newer engine is named, to be deleted.
 */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { canaryTensor } from '@tomaat/core';
import { InferenceSession, Tensor as OrtTensor } from 'onnxruntime-node';
import { differenceOf } from '../packages/server/src/runtimes/canary.ts';
import { sessionOptions } from '../packages/server/src/runtimes/onnx.ts';
import { rewriteGraph } from '../packages/server/src/runtimes/rewrite-graph.ts';
import { rewrites } from '../packages/server/src/runtimes/rewrites/table.ts';
import { modelsFolder } from '../test/real-data.ts';
import { monaiNetwork, nnunetNetwork } from './engine-networks.ts';
import { openTorch } from './engine-torch.ts';
import { type BenchOptions, type BenchResult, inTurn, type Line, median } from './report.ts';

const threads = 2;
const brainFile = fileURLToPath(new URL('../apps/brain/brain.onnx', import.meta.url));
const limitMs = 120_000;

interface Subject {
  readonly name: string;
  readonly model: Uint8Array;
  readonly dims: readonly number[];
  readonly target: number;
  /** The same over PyTorch, where that is installed. */
  readonly torchTarget?: number;
}

export async function run({ quick }: BenchOptions): Promise<BenchResult> {
  const edge = quick ? 64 : 96;
  const dims = [1, 1, edge, edge, edge];
  const subjects: Subject[] = [
    { name: 'MONAI U-Net', model: monaiNetwork(), dims, target: 0.5, torchTarget: 0.85 },
    { name: 'nnU-Net', model: nnunetNetwork(), dims, target: 0.85, torchTarget: 0.85 },
    { name: 'apps/brain', model: await readFile(brainFile), dims: [1, 1, 96, 112, 96], target: 1 },
    ...(await realNetworks()),
  ];
  const lines: Line[] = [];
  for (const subject of subjects) lines.push(...(await measure(subject, quick)));
  reportNeedless();
  return { lines };
}

/** Networks of others; the size of those that take any is that of a window. */
async function realNetworks(): Promise<Subject[]> {
  const folder = modelsFolder();
  if (!folder) {
    console.log('engine: the folder of real networks is not there.');
    return [];
  }
  const sizes: Record<string, readonly number[]> = {
    deepbrain: [1, 1, 128, 128, 128],
    'torchio-unet': [1, 1, 48, 60, 48],
    meshnet: [1, 1, 64, 64, 64],
  };
  const subjects: Subject[] = [];
  for (const [name, dims] of Object.entries(sizes))
    for (const file of await readdir(join(folder, name)))
      if (file.endsWith('.onnx')) {
        const model = await readFile(join(folder, name, file));
        subjects.push({ name: file.replace('.onnx', ''), model, dims, target: 1 });
      }
  return subjects;
}

async function measure({ name, model, dims, target, torchTarget }: Subject, quick: boolean): Promise<Line[]> {
  const startMs = performance.now();
  const rewritten = rewriteGraph(model);
  const rewriteMs = performance.now() - startMs;
  if ('left' in rewritten) {
    console.log(`  ${name}: left alone, ${rewritten.left}`);
    return [];
  }
  const stock = await open(model);
  const single = await measureEach(model, stock, dims, quick);
  const faster = await open(rewritten.bytes);
  const expected = (await stock.run(dims)).result;
  const difference = differenceOf(expected, (await faster.run(dims)).result);
  if (difference !== undefined) throw new Error(`${name}: ${difference}`);
  const pairs = await inTurn(
    quick ? 3 : 9,
    () => stock.run(dims),
    () => faster.run(dims),
    limitMs,
  );
  await stock.release();
  const torch =
    torchTarget === undefined
      ? []
      : await measureTorch({ name, model, dims, torchTarget }, faster, expected, quick);
  await faster.release();
  const applied = Object.entries(rewritten.applied).map((pair) => pair.join(' × '));
  console.log(
    `  ${name} ${dims.slice(2).join(' × ')}: as it is ${median(pairs.map(([a]) => a.ms)).toFixed(0)} ms, rewritten (${applied.join(', ')}) ${median(pairs.map(([, b]) => b.ms)).toFixed(0)} ms`,
  );
  return [
    { point: `${name}, rewritten over as it is`, measured: ratioOf(pairs, 'ms'), target },
    { point: `${name}, the same, CPU`, measured: ratioOf(pairs, 'cpuMs'), target },
    ...torch,
    ...[...single].map(([rewrite, ratio]) => ({
      point: `${name}, ${rewrite} alone over as it is`,
      measured: ratio,
      target: 1,
    })),
    { point: `${name}, rewriting`, measured: rewriteMs, unit: 'ms' },
  ];
}

/** What the network takes with each of the rewrites alone, of its time as it is. */
async function measureEach(
  model: Uint8Array,
  stock: Awaited<ReturnType<typeof open>>,
  dims: readonly number[],
  quick: boolean,
): Promise<Map<string, number>> {
  const ratios = new Map<string, number>();
  for (const rewrite of rewrites) {
    const alone = rewriteGraph(model, [rewrite]);
    if ('left' in alone) continue;
    const session = await open(alone.bytes);
    await session.run(dims);
    const pairs = await inTurn(
      quick ? 2 : 5,
      () => stock.run(dims),
      () => session.run(dims),
      limitMs,
    );
    await session.release();
    const ratio = ratioOf(pairs, 'ms');
    ratios.set(rewrite.name, ratio);
    best.set(rewrite.name, Math.min(ratio, best.get(rewrite.name) ?? Number.POSITIVE_INFINITY));
  }
  return ratios;
}

/** Of each rewrite: the least that a network takes with it alone. */
const best = new Map<string, number>();

/** Names the rewrites that this engine does not need: none of the networks gains by them. */
function reportNeedless(): void {
  for (const [name, ratio] of best) {
    const gain = `${name}: at best ${ratio.toFixed(2)} of the time without it`;
    console.log(
      ratio < 0.97
        ? `  ${gain}`
        : `  ${gain}. This engine does not need it: delete it from rewrites/table.ts.`,
    );
  }
}

async function measureTorch(
  { name, model, dims, torchTarget }: Pick<Subject, 'name' | 'model' | 'dims' | 'torchTarget'>,
  faster: Awaited<ReturnType<typeof open>>,
  expected: { data: Float32Array; dims: readonly number[] },
  quick: boolean,
): Promise<Line[]> {
  await using torch = await openTorch(model, canaryTensor(dims), threads);
  if (!torch) return [];
  const difference = differenceOf(expected, { data: torch.scores, dims: expected.dims });
  if (difference !== undefined) throw new Error(`${name} in PyTorch: ${difference}`);
  const pairs = await inTurn(
    quick ? 3 : 9,
    () => torch.run(),
    () => faster.run(dims),
    limitMs,
  );
  console.log(`  ${name} in PyTorch ${torch.version}: ${median(pairs.map(([ms]) => ms)).toFixed(0)} ms`);
  return [
    {
      point: `${name}, rewritten over PyTorch`,
      measured: median(pairs.map(([ms, own]) => own.ms / ms)),
      target: torchTarget,
    },
  ];
}

interface Run {
  readonly ms: number;
  /** Of all threads of the engine. */
  readonly cpuMs: number;
}

/** Pairs are compared, so that one during which the machine was otherwise busy does not weigh more. */
const ratioOf = (pairs: readonly [Run, Run][], key: keyof Run): number =>
  median(pairs.map(([a, b]) => b[key] / a[key]));

async function open(model: Uint8Array) {
  const session = await InferenceSession.create(model, sessionOptions({ threads }));
  const [input, output] = [session.inputNames[0], session.outputNames[0]];
  return {
    async run(
      dims: readonly number[],
    ): Promise<Run & { result: { data: Float32Array; dims: readonly number[] } }> {
      const feed = new OrtTensor('float32', canaryTensor(dims).data, dims);
      const before = process.cpuUsage();
      const start = performance.now();
      const found = (await session.run({ [input]: feed }, [output]))[output];
      const ms = performance.now() - start;
      const { user, system } = process.cpuUsage(before);
      const result = { data: found.data as Float32Array, dims: found.dims };
      return { ms, cpuMs: (user + system) / 1000, result };
    },
    release: () => session.release(),
  };
}
