/**
 * Measures the cost of the brain app on a head of 256³ voxels of 1 mm, through `tomaat run` as a user starts it,
 * alongside another brain network with a similar purpose (mindgrab, a MeshNet at 1 mm) that is published by its
 * manifest alone. The two alternate on the same machine. Reported: wall time of the whole command, CPU time, and the
 * peak memory of its largest process.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { dataFolder, modelsFolder } from '../test/real-data.ts';
import { cli, cpuSeconds, endWithThis, peakMemoryMb, repository } from './processes.ts';
import { type BenchOptions, type BenchResult, type Line, median } from './report.ts';

interface Cost {
  seconds: number;
  cpuSeconds: number;
  peakMb: number;
}

export async function run({ quick }: BenchOptions): Promise<BenchResult> {
  const data = dataFolder();
  if (!data || process.platform !== 'linux')
    return { skipped: 'the folder of real images is not there, or this is no Linux' };
  const models = modelsFolder();
  const folder = await mkdtemp(join(tmpdir(), 'tomaat-bench-'));
  try {
    const volume = join(data, 'brain/t1_crop.nii.gz');
    const brain = join(repository, 'apps/brain');
    const runs: [name: string, args: string[]][] = [
      ['brain, fast', [brain]],
      ['brain, fine', [brain, '--param', 'resolution=fine']],
    ];
    if (models) runs.push(['mindgrab', [await mindgrab(models, folder)]]);
    else console.log('brain: the folder of real networks is not there, so there is nothing to compare with.');
    const costs = new Map<string, Cost[]>(runs.map(([name]) => [name, []]));
    for (let round = 0; round < (quick ? 1 : 3); round++) {
      for (const [name, args] of round % 2 ? [...runs].reverse() : runs) {
        if (name === 'mindgrab' && round > 0) continue; // minutes
        const out = join(folder, `${name.replace(/\W+/g, '-')}-${round}.nii.gz`);
        const cost = await measure(['run', ...args, '--volume', volume, '-o', out]);
        costs.get(name)!.push(cost);
        console.log(
          `  ${name.padEnd(12)} ${cost.seconds.toFixed(1)} s, CPU ${cost.cpuSeconds.toFixed(1)} s, ${cost.peakMb.toFixed(0)} MB`,
        );
      }
    }
    const of = (name: string, key: keyof Cost) => median((costs.get(name) ?? []).map((cost) => cost[key]));
    const lines = runs.flatMap(([name]): Line[] => {
      const own = name !== 'mindgrab';
      return [
        { point: `${name}, 256³`, measured: of(name, 'seconds'), target: own ? 20 : undefined, unit: 's' },
        { point: `${name}, 256³, CPU`, measured: of(name, 'cpuSeconds'), unit: 's' },
        {
          point: `${name}, 256³, memory`,
          measured: of(name, 'peakMb'),
          target: own ? 2000 : undefined,
          unit: 'MB',
        },
      ];
    });
    if (models) {
      for (const [key, what] of [
        ['seconds', 'time'],
        ['cpuSeconds', 'CPU'],
        ['peakMb', 'memory'],
      ] as const) {
        lines.push({
          point: `brain, fast, over mindgrab, ${what}`,
          measured: of('brain, fast', key) / of('mindgrab', key),
          target: 1,
        });
      }
    }
    return { lines };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Runs the command line and samples its processes ten times a second. */
async function measure(args: readonly string[]): Promise<Cost> {
  const start = performance.now();
  const child = spawn(process.execPath, [cli, ...args], { stdio: ['ignore', 'ignore', 'pipe'] });
  endWithThis(child);
  let said = '';
  child.stderr.on('data', (text) => {
    said += text;
  });
  const cost: Cost = { seconds: 0, cpuSeconds: 0, peakMb: 0 };
  const look = setInterval(() => {
    cost.cpuSeconds = Math.max(cost.cpuSeconds, cpuSeconds(child.pid!) ?? 0);
    cost.peakMb = Math.max(cost.peakMb, peakMemoryMb(child.pid!) ?? 0);
  }, 100);
  const [code] = (await once(child, 'exit')) as [number | null];
  clearInterval(look);
  if (code !== 0) throw new Error(`tomaat ${args.join(' ')} ended with ${code}: ${said}`);
  return { ...cost, seconds: (performance.now() - start) / 1000 };
}

/** An app folder for mindgrab: its weights and a manifest. */
async function mindgrab(models: string, folder: string): Promise<string> {
  const app = join(folder, 'mindgrab');
  await mkdir(app);
  const weights = join(models, 'meshnet/mindgrab.onnx');
  await copyFile(weights, join(app, 'mindgrab.onnx'));
  const manifest = {
    schemaVersion: 1,
    id: 'mindgrab',
    name: 'mindgrab',
    description: 'A brain mask.',
    version: '1',
    modality: 'MRI',
    anatomy: 'brain',
    task: 'segmentation',
    authors: ['neuroneural/brainchop'],
    licence: 'MIT',
    intendedUse: 'Measuring what a prediction costs.',
    inputs: { volume: { type: 'volume' } },
    preprocess: [
      { orientation: { axcodes: 'LIA' } },
      { spacing: { pixdim: [1, 1, 1] } },
      { resizeWithPadOrCrop: { size: [256, 256, 256] } },
      'scaleIntensity',
    ],
    model: {
      runtime: 'onnx',
      file: 'mindgrab.onnx',
      sha256: createHash('sha256')
        .update(await readFile(weights))
        .digest('hex'),
    },
    postprocess: ['argmax', 'restore'],
    outputs: { segmentation: { type: 'LabelVolume' } },
    limits: { seconds: 3600 },
  };
  // JSON is YAML.
  await writeFile(join(app, 'tomaat.yaml'), JSON.stringify(manifest));
  return app;
}
