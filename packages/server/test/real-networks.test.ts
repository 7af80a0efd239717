import { copyFile, link, mkdir, rm, stat, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { dice, mapLabels, numericVoxels, readVolume, restore, type Volume } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { dataFolder, modelsFolder } from '../../../test/real-data.ts';
import { type App, openApp } from '../src/apps.ts';
import { nodePlatform } from '../src/node-platform.ts';
import { hashFile } from '../src/store/files/hash-file.ts';
import { runApp } from '../src/worker/run-app.ts';
import { fileSource } from './run-files.ts';
import { temporaryFolder } from './test-server.ts';

/*
 * Networks of other people, published by a manifest alone: each reaches the overlap with the truth that its weights
 * reach elsewhere. The quick ones run always; the others, minutes and gigabytes each, with TOMAAT_SLOW=1.
 */

const data = dataFolder();
const models = modelsFolder();
const slow = process.env.TOMAAT_SLOW === '1';
if (data && models && !slow)
  console.log('real-networks: the slow networks are left out; set TOMAAT_SLOW=1 to run them.');

let work: string;
beforeAll(async () => {
  work = await temporaryFolder();
});
afterAll(() => rm(work, { recursive: true, force: true }));

interface Network {
  id: string;
  file: string;
  preprocess: unknown[];
  postprocess: unknown[];
  inferer?: object;
}

/** FreeSurfer's "conform": 256³ voxels of 1 mm, stored left, inferior, anterior. */
const conform = [
  { orientation: { axcodes: 'LIA' } },
  { spacing: { pixdim: [1, 1, 1] } },
  { resizeWithPadOrCrop: { size: [256, 256, 256] } },
];
const quantile = { scaleIntensityRangePercentiles: { lower: 5, upper: 95 } };
const meshNet = (id: string, scaling: unknown): Network => ({
  id,
  file: `meshnet/${id}.onnx`,
  preprocess: [...conform, scaling],
  postprocess: ['argmax', 'restore'],
});
const torchio = (id: string, inferer?: object): Network => ({
  id,
  file: `torchio-unet/${id}.onnx`,
  preprocess: [
    { orientation: { axcodes: 'RAS' } },
    { spacing: { pixdim: [4, 4, 4], antiAlias: true } },
    { resizeWithPadOrCrop: { size: [48, 60, 48] } },
    { normalizeIntensity: { mask: 'aboveMean' } },
  ],
  postprocess: ['restore', { threshold: { channel: 1, above: 0.5 } }],
  inferer,
});
const niivueFile = 'meshnet/model5_gw_ae.niivue-original.onnx';
const deepbrain: Network = {
  id: 'deepbrain',
  file: 'deepbrain/deepbrain_extractor_v2.onnx',
  preprocess: [
    { orientation: { axcodes: 'LIA' } },
    { resize: { size: [128, 128, 128], antiAlias: true } },
    'divideByMax',
  ],
  postprocess: ['restore', { threshold: { channel: 0, above: 0.5 } }],
};

const apps = new Map<string, Promise<App>>();

/** An app folder of a manifest and the weights, nothing else. */
function appOf(network: Network): Promise<App> {
  const open = async () => {
    const folder = join(work, network.id);
    await mkdir(folder);
    const source = join(models!, network.file);
    const file = basename(source);
    await link(source, join(folder, file)).catch(() => copyFile(source, join(folder, file)));
    const manifest = {
      schemaVersion: 1,
      id: network.id.replaceAll('_', '-'),
      name: network.id,
      description: 'A network of other people, published by its manifest alone.',
      version: '1',
      modality: 'MRI',
      anatomy: 'brain',
      task: 'segmentation',
      authors: ['Others'],
      licence: 'MIT',
      intendedUse: 'Tests.',
      inputs: { volume: { type: 'volume' } },
      preprocess: network.preprocess,
      model: {
        runtime: 'onnx',
        file,
        sha256: await hashFile(source),
        inferer: network.inferer ?? { type: 'simple' },
      },
      postprocess: network.postprocess,
      outputs: { segmentation: { type: 'LabelVolume' } },
    };
    // JSON is YAML.
    await writeFile(join(folder, 'tomaat.yaml'), JSON.stringify(manifest));
    return openApp(folder);
  };
  const app = apps.get(network.id) ?? open();
  apps.set(network.id, app);
  return app;
}

const image = (name: string) => join(data!, 'brain', name);

async function read(name: string): Promise<Volume> {
  return (await readVolume([fileSource(image(name))], nodePlatform)).volume;
}

async function segment(network: Network, name: string): Promise<Volume> {
  const path = image(name);
  const files = { volume: [{ path, sizeBytes: (await stat(path)).size }] };
  await using result = await runApp({ app: await appOf(network), files, parameters: {} });
  const { volume } = await readVolume([fileSource(result.outputs[0].path)], nodePlatform);
  console.log(`real-networks: ${network.id} on ${name} took ${result.seconds.toFixed(1)} s`);
  return volume;
}

function where(volume: Volume, test: (value: number) => boolean): Volume {
  return { ...volume, voxels: Uint8Array.from(numericVoxels(volume.voxels), (v) => (test(v) ? 1 : 0)) };
}

function counts(volume: Volume): number[] {
  const found: number[] = [];
  for (const v of numericVoxels(volume.voxels)) found[v] = (found[v] ?? 0) + 1;
  return Array.from(found, (n) => n ?? 0);
}

function agreement(a: Volume, b: Volume): number {
  expect(a.size).toEqual(b.size);
  const [p, q] = [numericVoxels(a.voxels), numericVoxels(b.voxels)];
  let equal = 0;
  for (let i = 0; i < p.length; i++) if (p[i] === q[i]) equal++;
  return equal / p.length;
}

/** FreeSurfer's numbers as the 18 classes: cerebral white matter 1, cortex 2, … ventral diencephalon 17. */
function classes18(volume: Volume): Volume {
  const groups: number[][] = [
    [2, 41, 77, 78, 79, 251, 252, 253, 254, 255],
    [3, 42],
    [4, 43],
    [5, 44],
    [7, 46],
    [8, 47],
    [9, 10, 48, 49],
    [11, 50],
    [12, 51],
    [13, 52],
    [14],
    [15],
    [16],
    [17, 53],
    [18, 54],
    [26, 58],
    [28, 60],
  ];
  const classOf = new Map(groups.flatMap((values, i) => values.map((value) => [value, i + 1] as const)));
  const cortex = (v: number) => (v >= 1000 && v < 3000) || (v >= 11_100 && v < 13_000);
  return {
    ...volume,
    voxels: Uint8Array.from(numericVoxels(volume.voxels), (v) => classOf.get(v) ?? (cortex(v) ? 2 : 0)),
  };
}

/** The 18 classes as white (1) and grey (2) matter. */
function tissue(labels18: Volume): Volume {
  const white = [1, 5, 13, 17];
  const grey = [2, 6, 7, 8, 9, 10, 14, 15, 16];
  const from = Array.from({ length: 17 }, (_, i) => i + 1);
  return mapLabels(
    labels18,
    from,
    from.map((v) => (white.includes(v) ? 1 : grey.includes(v) ? 2 : 0)),
  );
}

const truths = {
  synthTissue: async () => tissue(await read('synth01_labels18.nii.gz')),
  synth18: () => read('synth01_labels18.nii.gz'),
  synthBrain: async () => where(await read('synth01_fslabels.nii.gz'), (v) => v > 0 && v < 100),
  vxmTissue: async () => tissue(classes18(await read('vxm_seg.nii.gz'))),
  vxm18: async () => classes18(await read('vxm_seg.nii.gz')),
  seg3dBrain: async () =>
    where(restore(await read('seg3d_Brain.nrrd'), await read('seg3d_MR.nii.gz')), (v) => v > 0),
  fernandoBrain: async () =>
    where(restore(await read('fernando_t1_seg_gif.nii.gz'), await read('fernando_t2.nii.gz')), (v) => v >= 4),
};

/** Dice of each value, or their mean. */
function overlaps(found: Volume, truth: Volume, values: readonly number[]): number[] {
  return values.map((value) => dice(found, truth, value));
}

interface Case {
  network: Network;
  image: string;
  truth: keyof typeof truths;
  values: readonly number[];
  /** Dice that the weights reach elsewhere, by value; one number for the mean over the values. */
  expected: readonly number[];
  slow: boolean;
}

const model5 = meshNet('model5_gw_ae', 'scaleIntensity');
const model11 = meshNet('model11_gw_ae', 'scaleIntensity');
const model20 = meshNet('model20chan3cls', quantile);
const model18 = meshNet('model18cls', 'scaleIntensity');
const model30 = meshNet('model30chan18cls', 'scaleIntensity');
const mindgrab = meshNet('mindgrab', 'scaleIntensity');
const whole = torchio('torchio_unet_whole_4mm');
// Trained for the same images in pieces; nobody published its overlap, so it has to be as good as the other.
const patches = torchio('torchio_unet_patches', {
  type: 'slidingWindow',
  roiSize: [24, 24, 24],
  overlap: 0.5,
  mode: 'gaussian',
});
const all17 = Array.from({ length: 17 }, (_, i) => i + 1);

const cases: Case[] = [
  {
    network: whole,
    image: 'seg3d_MR.nii.gz',
    truth: 'seg3dBrain',
    values: [1],
    expected: [0.937],
    slow: false,
  },
  {
    network: whole,
    image: 'synth01_t1.nii.gz',
    truth: 'synthBrain',
    values: [1],
    expected: [0.81],
    slow: false,
  },
  {
    network: patches,
    image: 'seg3d_MR.nii.gz',
    truth: 'seg3dBrain',
    values: [1],
    expected: [0.937],
    slow: false,
  },
  {
    network: deepbrain,
    image: 'seg3d_MR.nii.gz',
    truth: 'seg3dBrain',
    values: [1],
    expected: [0.925],
    slow: true,
  },
  {
    network: model5,
    image: 'synth01_t1.nii.gz',
    truth: 'synthTissue',
    values: [1, 2],
    expected: [0.884, 0.764],
    slow: true,
  },
  {
    network: model5,
    image: 'vxm_t1.nii.gz',
    truth: 'vxmTissue',
    values: [1, 2],
    expected: [0.82, 0.51],
    slow: true,
  },
  {
    network: model11,
    image: 'synth01_t1.nii.gz',
    truth: 'synthTissue',
    values: [1, 2],
    expected: [0.909, 0.81],
    slow: true,
  },
  {
    network: model11,
    image: 'vxm_t1.nii.gz',
    truth: 'vxmTissue',
    values: [1, 2],
    expected: [0.85, 0.61],
    slow: true,
  },
  {
    network: model18,
    image: 'synth01_t1.nii.gz',
    truth: 'synth18',
    values: all17,
    expected: [0.788],
    slow: true,
  },
  {
    network: model20,
    image: 'synth01_t1.nii.gz',
    truth: 'synthTissue',
    values: [1, 2],
    expected: [0.869, 0.801],
    slow: true,
  },
  {
    network: mindgrab,
    image: 'seg3d_MR.nii.gz',
    truth: 'seg3dBrain',
    values: [1],
    expected: [0.947],
    slow: true,
  },
  {
    network: mindgrab,
    image: 'fernando_t2.nii.gz',
    truth: 'fernandoBrain',
    values: [1],
    expected: [0.967],
    slow: true,
  },
  {
    network: model30,
    image: 'synth01_t1.nii.gz',
    truth: 'synth18',
    values: all17,
    expected: [0.831],
    slow: true,
  },
  { network: model18, image: 'vxm_t1.nii.gz', truth: 'vxm18', values: all17, expected: [0.72], slow: true },
  {
    network: mindgrab,
    image: 'synth01_t1.nii.gz',
    truth: 'synthBrain',
    values: [1],
    expected: [0.968],
    slow: true,
  },
];

const left = (isSlow: boolean) => !data || !models || (isSlow && !slow);
const minutes = (n: number) => n * 60_000;

describe('networks by manifest', () => {
  it.skipIf(left(false))(
    'model5_gw_ae gives the labels of the reference on 99.9 % of t1_crop',
    { timeout: minutes(10) },
    async () => {
      const labels = await segment(model5, 't1_crop.nii.gz');
      expect(agreement(labels, await read('t1_crop_ref_model5_gw_ae.nii.gz'))).toBeGreaterThanOrEqual(0.999);
    },
  );

  it.skipIf(left(false))(
    'deepbrain finds the brain of t1_crop: 1539 ml',
    { timeout: minutes(10) },
    async () => {
      const labels = await segment(deepbrain, 't1_crop.nii.gz');
      const ml = counts(labels)[1] / 1000;
      const overlap = dice(
        where(labels, (v) => v === 1),
        await read('t1_crop_ref_mindgrab.nii.gz'),
        1,
      );
      console.log(
        `real-networks: deepbrain on t1_crop ${ml.toFixed(0)} ml, Dice with mindgrab ${overlap.toFixed(3)}`,
      );
      expect(Math.abs(ml - 1539)).toBeLessThan(31);
      expect(Math.abs(overlap - 0.971)).toBeLessThan(0.02);
    },
  );

  it.skipIf(left(true)).each([
    [model18, 't1_crop_ref_model18cls.nii.gz'],
    [mindgrab, 't1_crop_ref_mindgrab.nii.gz'],
    // The same weights as somebody else exported them.
    [{ ...model5, id: 'model5-niivue', file: niivueFile }, 't1_crop_ref_model5_gw_ae.nii.gz'],
  ] as const)(
    '$id gives the labels of the reference on 99.9 % of t1_crop',
    { timeout: minutes(60) },
    async (network, reference) => {
      const found = agreement(await segment(network, 't1_crop.nii.gz'), await read(reference));
      console.log(`real-networks: ${network.id} agrees with ${reference} on ${(found * 100).toFixed(3)} %`);
      expect(found).toBeGreaterThanOrEqual(0.999);
    },
  );

  it.skipIf(left(true)).each([
    [meshNet('model11_gw_ae-quantile', quantile), [15_562_582, 518_879, 695_755]],
    [model20, [15_470_254, 595_943, 711_019]],
  ] as const)(
    '$id gives as many voxels of each label on t1_crop as elsewhere',
    { timeout: minutes(60) },
    async (network, expected) => {
      const file = network.file.replace('-quantile', '');
      const found = counts(await segment({ ...network, file }, 't1_crop.nii.gz'));
      console.log(`real-networks: ${network.id} counts ${found.join(', ')}`);
      for (const [label, n] of expected.entries()) {
        expect(Math.abs(found[label] - n) / n, `label ${label}`).toBeLessThan(0.001);
      }
    },
  );

  for (const { network, image, truth, values, expected, slow: isSlow } of cases) {
    it.skipIf(left(isSlow))(
      `${network.id} reaches Dice ${expected.join('/')} on ${image}`,
      { timeout: minutes(60) },
      async () => {
        const found = overlaps(await segment(network, image), await truths[truth](), values);
        const shown =
          expected.length === values.length ? found : [found.reduce((a, b) => a + b, 0) / found.length];
        console.log(
          `real-networks: ${network.id} on ${image}: Dice ${shown.map((d) => d.toFixed(3)).join('/')}`,
        );
        for (const [i, d] of expected.entries()) expect(shown[i]).toBeGreaterThan(d - 0.02);
      },
    );
  }
});
