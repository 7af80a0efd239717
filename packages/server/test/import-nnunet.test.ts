import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseManifest, predict, traceStages } from '@tomaat/core';
import { afterAll, describe, expect, it } from 'vitest';
import { writeManifest } from '../src/import/card.ts';
import { type NnunetPlan, parsePlan } from '../src/import/plan.ts';
import { type AuthorDump, type ProvenCase, proveApp } from '../src/import/prove.ts';
import { translate } from '../src/import/translate.ts';
import type { Translation, WrittenStep } from '../src/import/translation.ts';
import { nodePlatform } from '../src/node-platform.ts';
import { openOnnxSession } from '../src/runtimes/onnx.ts';
import { hashFile } from '../src/store/files/hash-file.ts';
import { fileSource } from './run-files.ts';

/*
 * Folders of nnU-Net, from its plans to the proven app: two folds, mirrored windows, slices, and axes in another order than
 * those of the file. Plans, networks and label maps are nnU-Net's own (nnunetv2 2.8.1, import-fixtures/make.py); what a wrong
 * translation looks like is tried with one fault at a time.
 */

const fixtures = fileURLToPath(new URL('./import-fixtures/', import.meta.url));
const volume = join(fixtures, 'case.nii.gz');
const work = await mkdtemp(join(tmpdir(), 'tomaat-nnunet-'));
afterAll(() => rm(work, { recursive: true, force: true }));
let made = 0;

interface Options {
  mirror?: boolean;
  network?: string;
  /** What the translation gets wrong. */
  change?(right: Translation): Partial<Translation>;
}

async function planOf(name: string): Promise<NnunetPlan> {
  return parsePlan(JSON.parse(await readFile(join(fixtures, name, 'plan.json'), 'utf8'))) as NnunetPlan;
}

/** The app of a fixture, as `tomaat import` writes it, with the volume turned to `LAS`, the order of the case. */
async function appOf(
  name: string,
  { mirror = false, network = 'model', change }: Options = {},
): Promise<string> {
  const plan = await planOf(name);
  const right = translate(plan, { orientation: 'LAS', mirror });
  const folder = join(work, `app-${made++}`);
  await mkdir(folder);
  const file = join(folder, 'model.onnx');
  await copyFile(join(fixtures, name, `${network}.onnx`), file);
  const card = { task: 'segmentation', anatomy: 'phantom', licence: 'Apache-2.0', authors: ['Nobody'] };
  const weights = { file: 'model.onnx', sha256: await hashFile(file) };
  const translation = { ...right, ...change?.(right) };
  await writeFile(join(folder, 'tomaat.yaml'), writeManifest(plan, translation, weights, card));
  return folder;
}

/** The volumes between the steps of an app: of the right one they stand for nnU-Net's, whose labels it gives. */
async function dumpsOf(folder: string): Promise<AuthorDump[]> {
  const manifest = parseManifest(await readFile(join(folder, 'tomaat.yaml'), 'utf8'));
  const [spec] = manifest.model;
  const slices = 'inferer' in spec && spec.inferer.type === 'slice';
  const session = await openOnnxSession(join(folder, 'model.onnx'), { slices });
  const dumps: AuthorDump[] = [];
  await predict(
    manifest,
    { files: { volume: [fileSource(volume)] }, parameters: {} },
    {
      platform: nodePlatform,
      load: async () => ({ kind: 'network', session }),
      write: async () => {},
      trace: {
        stages: traceStages(manifest),
        async take(stage, { voxels, size: [x, y, z], components, affine }) {
          const file = join(work, `dump-${made++}.f32`);
          await writeFile(file, Buffer.from(Float32Array.from(voxels as Float32Array).buffer));
          dumps.push({ stage, file, dims: [components, z, y, x], ...(stage !== 'window' && { affine }) });
        },
      },
    },
  );
  await session.close();
  return dumps;
}

/** The proof of an app against nnU-Net with sums in float32; its sums in float16 are its noise. */
async function prove(appFolder: string, name: string, labels: string, right?: string): Promise<ProvenCase> {
  const given = {
    name: 'case',
    inputs: { volume },
    expected: join(fixtures, name, `${labels}-float32.nii.gz`),
    ...(right && { dumps: () => dumpsOf(right) }),
  };
  const noise = { case: join(fixtures, name, `${labels}.nii.gz`) };
  return (await proveApp({ appFolder, cases: [given], noise })).cases[0];
}

describe('an imported folder of nnU-Net gives its labels', () => {
  it.each([
    ['two folds as one network', 'folds', 'labels', false],
    ['two folds with mirrored windows', 'folds', 'labels-mirror', true],
    ['slices across y (2d, transpose_forward 1, 0, 2)', 'slices', 'labels', false],
    ['axes in another order (transpose_forward 2, 0, 1) and residual blocks', 'turned', 'labels', false],
  ] as const)('%s', async (_, name, labels, mirror) => {
    const { voxels, differ, labels: found } = await prove(await appOf(name, { mirror }), name, labels);
    expect(voxels).toBe(44 * 36 * 22);
    // One voxel between two labels may fall to either side on another processor.
    expect(differ).toBeLessThanOrEqual(1);
    expect(found.map(({ value }) => value)).toEqual([1, 2, 3]);
    for (const { expected } of found) expect(expected).toBeGreaterThan(1000);
  });
});

/** The translation with one step before the network replaced. */
const withStep =
  (name: string, change: (given: Record<string, unknown>) => Record<string, unknown>) =>
  ({ preprocess }: Translation): Partial<Translation> => ({
    preprocess: preprocess.map(
      (step): WrittenStep =>
        typeof step === 'object' && name in step
          ? { [name]: change(step[name] as Record<string, unknown>) }
          : step,
    ),
  });

describe('the proof finds, and names the stage of', () => {
  it.each<[what: string, name: string, wrong: Options, first: string]>([
    ['a fold left out', 'folds', { network: 'fold-0' }, 'window'],
    [
      'windows mirrored along one axis fewer',
      'folds',
      { mirror: true, change: ({ inferer }) => ({ inferer: { ...inferer, mirrorAxes: ['x', 'z'] } }) },
      'scores',
    ],
    [
      'windows not mirrored',
      'folds',
      { mirror: true, change: ({ inferer: { mirrorAxes: _, ...inferer } }) => ({ inferer }) },
      'scores',
    ],
    [
      'an axis that points to the other side',
      'folds',
      { change: withStep('orientation', () => ({ axcodes: 'RAS' })) },
      'preprocess[0]',
    ],
    [
      'axes in another order',
      'turned',
      { change: withStep('orientation', () => ({ axcodes: 'ASL' })) },
      'preprocess[0]',
    ],
    [
      'a wrong window of intensities',
      'folds',
      { change: withStep('scaleIntensityRange', (given) => ({ ...given, aMax: 160 })) },
      'preprocess[2]',
    ],
    [
      'a spacing with two axes exchanged',
      'turned',
      { change: withStep('spacing', (given) => ({ ...given, pixdim: [3, 2, 2.4] })) },
      'preprocess[3]',
    ],
    [
      'slices across another axis',
      'slices',
      { change: ({ inferer }) => ({ inferer: { ...inferer, axis: 'z' } }) },
      'window',
    ],
    [
      'labels in another order',
      'folds',
      {
        change: ({ postprocess }) => ({
          postprocess: [...postprocess, { mapLabelValue: { origLabels: [1, 2], targetLabels: [2, 1] } }],
        }),
      },
      'labels',
    ],
  ])('%s', async (_, name, wrong, first) => {
    const right = await appOf(name, { mirror: wrong.mirror });
    const labels = wrong.mirror ? 'labels-mirror' : 'labels';
    const { verdict, differ, bisection } = await prove(await appOf(name, wrong), name, labels, right);
    expect(['differs', 'close']).toContain(verdict);
    expect(differ).toBeGreaterThan(0);
    expect(bisection?.first).toBe(first);
  });
});
