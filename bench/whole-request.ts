/**
 * The cost of a whole request beyond its network: a volume is posted to a real `tomaat serve`, and the label map is read back. It is
 * compared, in alternation, with the bare runs of the same network on the same tensors in a separate process: the graph that the server
 * runs (rewritten, where it is), the same options of the engine, both warm. The labels must be those of the bare runs.
 * - windows: a CT of 192 × 192 × 160 voxels (int16, gzip, 0.8 × 0.8 × 1.5 mm, not resampled), turned to RAS, its intensities scaled; 27 windows
 *   of 96³, overlap 0.5, Gaussian, 14 classes, on a U-Net as tests use it and on one as MONAI builds it, for which a window takes half of
 *   the time. More than one session may run windows at the same time, as in every request that is long enough.
 * - whole: a head of 256³ voxels (uint8, not compressed) on a small network (MeshNet, three classes) that takes all of it at once. The target of
 *   1.02 is that of windows: here one short run stands against 16.8 MB each way, which server and client copy and hash, and passes over 16.8
 *   million voxels.
 * Takes 2 GB for each process, and some minutes.
 */
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { type Volume, writeVolume } from '@tomaat/core';
import { nodePlatform } from '../packages/server/src/node-platform.ts';
import { createRandom, unetNetwork } from '../packages/server/test/onnx-fixture.ts';
import { dataFolder, modelsFolder } from '../test/real-data.ts';
import { type BareWork, type Cost, type Size, startBare } from './bare-network.ts';
import { monaiNetwork } from './engine-networks.ts';
import { cpuSeconds, type ServedApps, serveApps } from './processes.ts';
import { type BenchOptions, type BenchResult, inTurn, type Line, median } from './report.ts';

const headerBytes = 352;

/** A request, and the runs of a network that it needs. */
interface Case {
  readonly name: string;
  readonly network: Uint8Array;
  /** Of the manifest: its steps, its inferer, and the number of labels. */
  readonly preprocess: string;
  readonly inferer: string;
  readonly body: Uint8Array;
  readonly work: Omit<BareWork, 'model' | 'rewrites'>;
  /** The volume as the network takes it, x fastest. */
  readonly tensor: Float32Array;
  /** The label map of an answer, on the grid of `tensor`. */
  labelsOf(answer: Buffer): Uint8Array;
  /** The most that a request may take over its bare runs. */
  readonly target: number;
}

const manifest = ({ preprocess, inferer, work }: Case, sha256: string) => `schemaVersion: 1
id: scan
name: Scan
description: Labels of a scan
version: 1.0.0
modality: CT
anatomy: scan
task: segmentation
authors: [The TOMAAT authors]
licence: MIT
intendedUse: Measuring what a request costs.
inputs:
  volume: { type: volume, label: Scan }
preprocess: ${preprocess}
model: { runtime: onnx, file: model.onnx, sha256: ${sha256}, inferer: ${inferer} }
postprocess: [argmax, restore]
outputs:
  segmentation: { type: LabelVolume, label: Labels }
labels: [${Array.from({ length: work.classes - 1 }, (_, i) => `{ value: ${i + 1}, name: label ${i + 1} }`).join(', ')}]
`;

// ── The requests ────────────────────────────────────────────────────────────────────────────────────────────────

/** A CT of a body: air around an ellipsoid of soft tissue with organs, and the noise of the detector. Axes to the left and back. */
function bodyCt(size: Size): Volume {
  const random = createRandom(7);
  const [nx, ny, nz] = size;
  const voxels = new Int16Array(nx * ny * nz);
  for (let z = 0, i = 0; z < nz; z++)
    for (let y = 0; y < ny; y++)
      for (let x = 0; x < nx; x++, i++) {
        const [u, v, w] = [(2 * x) / nx - 1, (2 * y) / ny - 1, (2 * z) / nz - 1];
        const noise = (random() + random() + random() - 1.5) * 40;
        const organs = 60 * Math.sin(5 * u + 2 * w) * Math.cos(4 * v - w);
        voxels[i] = Math.round((u / 0.8) ** 2 + (v / 0.6) ** 2 < 1 ? 40 + organs + noise : -1000 + noise / 4);
      }
  const affine = [-0.8, 0, 0, 70, 0, -0.8, 0, 90, 0, 0, 1.5, -300, 0, 0, 0, 1] as const;
  return { voxels, size, components: 1, affine: [...affine] };
}

/** The same voxels with the first two axes turned around. */
function turned<T extends Float32Array | Uint8Array>(values: T, [nx, ny, nz]: Size): T {
  const result = values.slice() as T;
  for (let z = 0; z < nz; z++) result.subarray(z * nx * ny, (z + 1) * nx * ny).reverse();
  return result;
}

async function windowCase(name: string, network: Uint8Array, size: Size): Promise<Case> {
  const volume = bodyCt(size);
  const parts: Uint8Array[] = [];
  for await (const part of writeVolume(volume, 'nii.gz', nodePlatform)) parts.push(part.slice());
  const scaled = Float32Array.from(volume.voxels as Int16Array, (value) =>
    Math.min(1, Math.max(0, (value + 160) / 400)),
  );
  const roi = [96, 96, 96] as const;
  const starts = (n: number) =>
    Array.from({ length: Math.ceil(n / 48) - 1 }, (_, i) => Math.min(48 * i, n - 96));
  const windows = starts(size[2]).flatMap((z) =>
    starts(size[1]).flatMap((y) => starts(size[0]).map((x) => [x, y, z] as const)),
  );
  return {
    name,
    network,
    preprocess: '[orientation: { axcodes: RAS }, scaleIntensityRange: { aMin: -160, aMax: 240, clip: true }]',
    inferer: '{ type: slidingWindow, roiSize: [96, 96, 96], overlap: 0.5, mode: gaussian }',
    body: Buffer.concat(parts),
    work: { size, roi, windows, classes: 14 },
    tensor: turned(scaled, size),
    labelsOf: (answer) => turned(new Uint8Array(gunzipSync(answer).subarray(headerBytes)), size),
    target: 1.02,
  };
}

/** A T1 in the orientation that the network wants. */
async function headCase(models: string, data: string): Promise<Case> {
  const size = [256, 256, 256] as const;
  const body = gunzipSync(await readFile(join(data, 'brain/t1_crop.nii.gz')));
  const voxels = body.subarray(headerBytes);
  if (voxels.length !== 256 ** 3) throw new Error('the head is not 256³ uint8');
  let [low, high] = [Infinity, -Infinity];
  for (const value of voxels) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return {
    name: 'whole volume, MeshNet',
    network: await readFile(join(models, 'meshnet/model5_gw_ae.onnx')),
    preprocess: '[orientation: { axcodes: LIA }, scaleIntensity]',
    inferer: '{ type: simple }',
    body,
    work: { size, roi: size, windows: [[0, 0, 0]], classes: 3 },
    tensor: Float32Array.from(voxels, (value) => (value - low) / (high - low)),
    labelsOf: (answer) => answer.subarray(headerBytes),
    target: 1.05,
  };
}

// ── What they cost ──────────────────────────────────────────────────────────────────────────────────────────────

export async function run({ quick }: BenchOptions): Promise<BenchResult> {
  const size: Size = quick ? [144, 144, 96] : [192, 192, 160];
  const lines = [
    ...(await measure(await windowCase('windows, U-Net', unetNetwork(), size), quick)),
    ...(await measure(await windowCase('windows, MONAI’s U-Net', monaiNetwork(), size), quick)),
  ];
  const [models, data] = [modelsFolder(), dataFolder()];
  if (models && data) lines.push(...(await measure(await headCase(models, data), quick)));
  else console.log('whole volume: the folder of real networks or images is not there');
  return { lines };
}

async function measure(one: Case, quick: boolean): Promise<Line[]> {
  const folder = await mkdtemp(join(tmpdir(), 'tomaat-bench-'));
  try {
    const app = join(folder, 'scan');
    await mkdir(app);
    const model = join(app, 'model.onnx');
    await writeFile(model, one.network);
    await writeFile(
      join(app, 'tomaat.yaml'),
      manifest(one, createHash('sha256').update(one.network).digest('hex')),
    );
    await using server = await serveApps('serve', [app], join(folder, 'data'));
    const request = () => post(server, one.body);
    // The first request loads the network; the second is the first that finds it warm.
    const first = await request();
    if (!quick) await request();
    const rewrites = (server.logged('prediction done').at(-1)?.rewrites ?? []) as string[];
    await using bare = await startBare({ ...one.work, model, rewrites }, one.tensor, folder);
    requireSame(one.labelsOf(first.body), await bare.labels());
    const pairs = await inTurn(quick ? 2 : 7, request, bare.run, quick ? 0 : 240_000);
    print(one, server, rewrites, pairs);
    const ratio = (pick: (cost: Cost) => number) => median(pairs.map(([a, b]) => pick(a) / pick(b)));
    const point = `request over its bare runs, ${one.name}`;
    const lines: Line[] = [{ point, measured: ratio(({ ms }) => ms), target: one.target }];
    if (cpuSeconds(process.pid) !== undefined)
      lines.push({ point: '  the same, CPU', measured: ratio(({ cpu }) => cpu), target: one.target });
    return lines;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function post(server: ServedApps, body: Uint8Array): Promise<Cost & { body: Buffer }> {
  const cpu = cpuSeconds(server.pid) ?? 0;
  const start = performance.now();
  const response = await fetch(`${server.url}/segmentation/scan`, {
    method: 'POST',
    headers: { 'content-type': 'application/octet-stream' },
    body: body as Uint8Array<ArrayBuffer>,
  });
  const answer = Buffer.from(await response.arrayBuffer());
  const ms = performance.now() - start;
  if (!response.ok) throw new Error(`the request failed: ${answer}`);
  return { ms, cpu: (cpuSeconds(server.pid) ?? 0) - cpu, body: answer };
}

/** Sums of floats in another order may turn a tie. */
function requireSame(labels: Uint8Array, expected: Uint8Array): void {
  if (labels.length !== expected.length) throw new Error(`${labels.length} labels, not ${expected.length}`);
  let differ = 0;
  for (let i = 0; i < labels.length; i++) if (labels[i] !== expected[i]) differ++;
  if (differ > labels.length * 1e-4)
    throw new Error(`${differ} of ${labels.length} labels of the server are not those of the bare network`);
}

function print(
  { name, work }: Case,
  server: ServedApps,
  rewrites: readonly string[],
  pairs: readonly [Cost, Cost][],
): void {
  const list = (values: readonly number[], digits: number) =>
    values.map((value) => value.toFixed(digits)).join(' ');
  const costs = (of: readonly Cost[]) =>
    `${list(
      of.map(({ ms }) => ms),
      0,
    )} ms; CPU ${list(
      of.map(({ cpu }) => cpu),
      2,
    )} s`;
  console.log(
    `${name}: ${work.size.join(' × ')}, ${work.windows.length} runs; rewritten: ${rewrites.join(', ') || 'nothing'}`,
  );
  console.log(`  request    ${costs(pairs.map(([a]) => a))}`);
  console.log(`  bare runs  ${costs(pairs.map(([, b]) => b))}`);
  const logged = server.logged('prediction done').slice(-pairs.length);
  const stageMs = new Map<string, number[]>();
  for (const { stages } of logged) {
    for (const [stage, ms] of Object.entries(stages as Record<string, number>))
      stageMs.set(stage, [...(stageMs.get(stage) ?? []), ms]);
  }
  const stages = [...stageMs].map(([stage, values]) => `${stage} ${median(values).toFixed(0)}`);
  const inChild = median(logged.map(({ seconds }) => Number(seconds) * 1000));
  const outside = median(pairs.map(([a]) => a.ms)) - inChild;
  console.log(`  of which   ${stages.join(', ')} ms in the child; ${outside.toFixed(0)} ms outside of it`);
}
