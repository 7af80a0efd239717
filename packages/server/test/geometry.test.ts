import { createHash } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import {
  type Affine,
  applyAffine,
  collectBytes,
  dice,
  invert,
  type LoadedModel,
  type ModelSpec,
  measureLabels,
  parseManifest,
  predict,
  reorient,
  restore,
  sourceFromBytes,
  type Vec3,
  type Volume,
} from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findPython } from '../../../test/programs.ts';
import { type App, openApp } from '../src/apps.ts';
import { nodePlatform } from '../src/node-platform.ts';
import { openModel } from '../src/runtimes/runtimes.ts';
import { pointwiseNetwork, writeModel } from './onnx-fixture.ts';
import { encode, phantom } from './phantom.ts';
import { decode } from './run-files.ts';
import { appFolder, repository, temporaryFolder } from './test-server.ts';

/*
 * Left stays left: one scan stored in each of the 48 orders and directions of axes goes through every pipeline, and the
 * labels lie at one place of the world. In this process, so that hundreds of predictions take seconds.
 */

/** The 48 orders: every permutation of axes with every choice of directions. */
const storageOrders = ['012', '021', '102', '120', '201', '210'].flatMap((order) =>
  [0, 1, 2, 3, 4, 5, 6, 7].map((flips) =>
    [...order].map((digit, k) => ['LR', 'PA', 'IS'][Number(digit)][(flips >> k) & 1]).join(''),
  ),
);

let work: string;
beforeAll(async () => {
  work = await temporaryFolder();
});
afterAll(() => rm(work, { recursive: true, force: true }));

/** The primary label map that an app gives for a volume, through the bytes of files on both ways. */
async function labelsOf(app: App, volume: Volume, parameters: Record<string, unknown> = {}): Promise<Volume> {
  const models = new Map<ModelSpec, Promise<LoadedModel>>();
  const closing = new AbortController().signal;
  const folder = join(work, `job-${jobs++}`);
  let result: Uint8Array | undefined;
  await predict(
    app.manifest,
    { files: { volume: [sourceFromBytes('scan.nii', await encode(volume, 'nii'))] }, parameters },
    {
      platform: nodePlatform,
      load: (spec) => {
        const kept = loaded.get(app) ?? models;
        loaded.set(app, kept);
        const open = () => openModel(app, spec, { folder, closing, onSpawn: () => {}, onExit: () => {} });
        if (spec.runtime === 'command') return open();
        const model = kept.get(spec) ?? open();
        kept.set(spec, model);
        return model;
      },
      async write(output) {
        const bytes = await collectBytes(output.bytes);
        if (output.primary) result = bytes;
      },
    },
  );
  return decode(result!);
}
const loaded = new Map<App, Map<ModelSpec, Promise<LoadedModel>>>();
let jobs = 0;

/** The centre of a label in voxels of a grid. */
function centreOf(labels: Volume, value: number, affine: Affine): Vec3 {
  const found = measureLabels(labels).find((row) => row.value === value);
  if (!found?.centroidMm) throw new Error(`label ${value} is gone`);
  return applyAffine(invert(affine), found.centroidMm);
}

interface Demand {
  /** The least Dice of each label with its truth; 1 asks for the same voxels. */
  dice: number;
  /** How far a label's centre may move along each axis, in voxels of the input; half of one unless given. */
  withinVoxels?: number;
}

/** Runs the volume in each storage order and compares what comes out with the truth. */
async function expectInPlace(
  app: App,
  volume: Volume,
  truth: Volume,
  demand: Demand,
  options: { orders?: readonly string[]; parameters?: Record<string, unknown> } = {},
): Promise<void> {
  const values = [...new Set(Array.from(truth.voxels as Uint8Array))].filter((v) => v > 0);
  expect(values.length).toBeGreaterThan(0);
  for (const order of options.orders ?? storageOrders) {
    const stored = reorient(volume, order);
    const labels = await labelsOf(app, stored, options.parameters);
    expect(labels.size, order).toEqual(stored.size);
    for (const [i, v] of stored.affine.entries()) expect(labels.affine[i], order).toBeCloseTo(v, 3);
    const back = restore(labels, truth);
    for (const value of values) {
      const overlap = dice(back, truth, value);
      expect(overlap, `Dice of label ${value}, stored ${order}`).toBeGreaterThanOrEqual(demand.dice);
      const expected = centreOf(truth, value, volume.affine);
      const found = centreOf(labels, value, volume.affine);
      for (const axis of [0, 1, 2]) {
        expect(
          Math.abs(found[axis] - expected[axis]),
          `label ${value}, axis ${axis}, stored ${order}`,
        ).toBeLessThan(demand.withinVoxels ?? 0.5);
      }
    }
  }
}

const labelled = (volume: Volume, labelAt: (v: number) => number): Volume => ({
  ...volume,
  voxels: Uint8Array.from(volume.voxels as Int16Array, labelAt),
});

describe('the phantom', () => {
  it('differs from itself in every other storage order', () => {
    const volume = phantom();
    const seen = new Set(
      storageOrders.map((order) => {
        const { voxels, size } = reorient(volume, order);
        return `${size} ${createHash('sha256')
          .update(new Uint8Array(voxels.buffer, voxels.byteOffset, voxels.byteLength))
          .digest('hex')}`;
      }),
    );
    expect(seen.size).toBe(48);
    // The large block lies to the left of the small one, in front or behind, above or below: never beside.
    const truth = labelled(volume, (v) => (v > 600 ? 2 : v > 200 ? 1 : 0));
    const [a, b] = measureLabels(truth).map((row) => row.centroidMm!);
    for (const axis of [0, 1, 2]) expect(Math.abs(a[axis] - b[axis])).toBeGreaterThan(5);
  });
});

/**
 * The phantom, its three classes, and the network that tells them after a scaling to 0 … 1. In the opposite one the small
 * block is dark: between it and the background lies no value of the other class when voxels are interpolated.
 */
const scans = {
  bright: {
    volume: phantom(),
    labelAt: (v: number) => (v > 655 ? 2 : v > 205 ? 1 : 0),
    network: pointwiseNetwork({ weights: [[0], [1], [2]], bias: [0, -195 / 890, -(195 + 645) / 890] }),
  },
  opposite: {
    volume: (() => {
      const volume = phantom();
      return { ...volume, voxels: (volume.voxels as Int16Array).map((v) => (v === 900 ? -380 : v)) };
    })(),
    labelAt: (v: number) => (v > 205 ? 1 : v < -185 ? 2 : 0),
    network: pointwiseNetwork({ weights: [[0], [1], [-1]], bias: [0, -0.75, 0.25] }),
  },
};

interface Pipeline {
  name: string;
  preprocess: unknown[];
  postprocess: unknown[];
  inferer?: object;
  scan?: keyof typeof scans;
  dice: number;
  withinVoxels?: number;
}

const window = { type: 'slidingWindow', roiSize: [8, 12, 6], overlap: 0.5, mode: 'gaussian' };
const pipelines: Pipeline[] = [
  { name: 'nothing but the network', preprocess: ['scaleIntensity'], postprocess: [], dice: 1 },
  {
    name: 'orientation, crop and pad: nothing is interpolated',
    preprocess: [
      { orientation: { axcodes: 'LIA' } },
      { cropForeground: { above: 50, margin: 2 } },
      'scaleIntensity',
      { divisiblePad: { k: [4, 8, 16] } },
    ],
    postprocess: ['argmax', 'restore'],
    inferer: window,
    dice: 1,
  },
  {
    name: 'orientation, flip, centred crop and pad, scores restored',
    preprocess: [
      { orientation: { axcodes: 'PSR' } },
      { flip: { axes: ['x', 'z'] } },
      'scaleIntensity',
      { resizeWithPadOrCrop: { size: [19, 9, 27] } },
    ],
    postprocess: ['restore', 'argmax'],
    dice: 1,
  },
  {
    name: 'orientation and a coarser spacing, argmax before restore',
    scan: 'opposite',
    preprocess: ['scaleIntensity', { orientation: { axcodes: 'RAS' } }, { spacing: { pixdim: [2, 2, 2] } }],
    postprocess: ['argmax', 'restore'],
    inferer: window,
    dice: 0.75,
    // Half of one of its voxels of 2 mm, which are the larger ones along x.
    withinVoxels: 0.5 * (2 / 1.47),
  },
  {
    name: 'orientation and a coarser spacing, restore before argmax',
    scan: 'opposite',
    preprocess: ['scaleIntensity', { orientation: { axcodes: 'RAS' } }, { spacing: { pixdim: [2, 2, 2] } }],
    postprocess: ['restore', 'argmax'],
    inferer: window,
    dice: 0.75,
  },
  {
    name: 'a finer spacing with smoothing, from its outer edge',
    scan: 'opposite',
    preprocess: [
      'scaleIntensity',
      { orientation: { axcodes: 'SAL' } },
      { spacing: { pixdim: [1, 1, 1], antiAlias: true, scaleExtent: true } },
    ],
    postprocess: ['argmax', 'restore', { keepLargestConnectedComponent: { connectivity: 6 } }],
    dice: 0.85,
  },
  {
    name: 'resize in whatever order the axes come',
    scan: 'opposite',
    preprocess: ['scaleIntensity', { resize: { size: [24, 24, 24] } }],
    postprocess: ['restore', 'argmax'],
    inferer: window,
    dice: 0.7,
  },
  {
    name: 'a crop to the head of the queue: pad at the end, a window larger than the volume',
    preprocess: [
      { cropForeground: { aboveFraction: 0.2, margin: [3, 2, 1] } },
      'scaleIntensity',
      { spatialPad: { size: [30, 8, 8], method: 'end' } },
    ],
    postprocess: ['argmax', 'restore'],
    inferer: { ...window, roiSize: [64, 16, 16], stepping: 'nnunet', mirrorAxes: ['x', 'z'] },
    dice: 1,
  },
];

/** A manifest and a network of three classes. */
async function openPipeline({
  name,
  preprocess,
  postprocess,
  inferer,
  scan = 'bright',
}: Pipeline): Promise<App> {
  const { network } = scans[scan];
  await writeModel(work, `${scan}.onnx`, network);
  const sha256 = createHash('sha256').update(network).digest('hex');
  const manifest = {
    schemaVersion: 1,
    id: 'pipeline',
    name,
    description: name,
    version: '1',
    modality: 'any',
    anatomy: 'any',
    task: 'test',
    authors: ['Nobody'],
    licence: 'Apache-2.0',
    intendedUse: 'Tests.',
    inputs: { volume: { type: 'volume' } },
    preprocess,
    model: {
      runtime: 'onnx',
      file: `${scan}.onnx`,
      sha256,
      inferer: inferer ?? { type: 'simple' },
      threads: 1,
    },
    postprocess,
    outputs: { segmentation: { type: 'LabelVolume' } },
  };
  const manifestText = JSON.stringify(manifest);
  return {
    folder: work,
    manifest: parseManifest(manifestText),
    manifestText,
    manifestSha256: '0'.repeat(64),
  };
}

describe('manifests with a network', () => {
  it.each(pipelines)('$name', async (pipeline) => {
    const { volume, labelAt } = scans[pipeline.scan ?? 'bright'];
    await expectInPlace(await openPipeline(pipeline), volume, labelled(volume, labelAt), pipeline);
  });

  it('thresholds one channel of scores on the input’s and the network’s grid', async () => {
    const volume = phantom();
    const steps = [
      'scaleIntensity',
      { orientation: { axcodes: 'RAS' } },
      { spacing: { pixdim: [1.5, 1.5, 1.5] } },
    ];
    // Channel 1 is the scaled value less that of 205.
    const threshold = { threshold: { channel: 1, above: 0, value: 7 } };
    for (const postprocess of [
      ['restore', threshold],
      [threshold, 'restore'],
    ]) {
      const app = await openPipeline({
        name: 'threshold',
        preprocess: steps,
        postprocess,
        inferer: window,
        dice: 0.8,
      });
      await expectInPlace(
        app,
        volume,
        labelled(volume, (v) => (v > 205 ? 7 : 0)),
        { dice: 0.8 },
      );
    }
  });
});

describe('examples', () => {
  const volume = phantom();

  it('image keeps its labels in place', async () => {
    const parameters = { smoothing: 0, level: 0.2, largest: false };
    const app = await openApp(appFolder('examples/image'));
    await expectInPlace(
      app,
      volume,
      labelled(volume, (v) => (v > 10 ? 1 : 0)),
      { dice: 1 },
      { parameters },
    );
  });

  it('onnx-smooth keeps its labels in place', async () => {
    const app = await openApp(appFolder('examples/onnx-smooth'));
    // A block that is three voxels wide vanishes under the smoothing: the egg of the sample is larger.
    const sample = await decode(await readFile(join(app.folder, 'sample.nii.gz')));
    await expectInPlace(
      app,
      sample,
      labelled(sample, (v) => (v > 500 ? 1 : 0)),
      { dice: 0.9 },
    );
  });

  it.skipIf(!findPython())('command-python keeps its labels in place', async () => {
    const app = await openApp(appFolder('examples/command-python'));
    const orders = ['RAS', 'LPI', 'SAR', 'PIR', 'ASL', 'ILP'];
    await expectInPlace(
      app,
      volume,
      labelled(volume, (v) => (v > 10 ? 1 : 0)),
      { dice: 1 },
      { orders },
    );
  });
});

/** A chest in Hounsfield units: body, two lungs of different sizes, a spine, a table; oblique and anisotropic. */
function chest(): Volume {
  const size = [44, 36, 24] as const;
  const turned = [0.98, -0.17, 0.05, 0.16, 0.97, 0.16, -0.07, -0.15, 0.98];
  const spacing = [5.5, 5, 7];
  const affine = [0, 1, 2].flatMap((r) => [
    ...[0, 1, 2].map((c) => (c === 0 ? -1 : 1) * turned[r * 3 + c] * spacing[c]),
    [110, -95, -70][r],
  ]);
  const voxels = new Int16Array(size[0] * size[1] * size[2]).fill(-1000);
  const inside = (p: number[], c: number[], r: number[]) =>
    p.reduce((sum, v, i) => sum + ((v - c[i]) / r[i]) ** 2, 0) < 1;
  for (let z = 0, i = 0; z < size[2]; z++) {
    for (let y = 0; y < size[1]; y++) {
      for (let x = 0; x < size[0]; x++, i++) {
        const p = [x, y, z];
        if (inside(p, [21, 18, 12], [18, 13, 60])) voxels[i] = 40;
        if (inside(p, [13, 18, 13], [6, 8, 9])) voxels[i] = -820;
        if (inside(p, [30, 19, 11], [5, 7, 7])) voxels[i] = -850;
        if (inside(p, [21, 8, 12], [3, 2.5, 60])) voxels[i] = 500;
        if (y === 2 && x > 6 && x < 38) voxels[i] = 100;
      }
    }
  }
  return { voxels, size, components: 1, affine: [...affine, 0, 0, 0, 1] };
}

describe('bundled apps', () => {
  const names = readdirSync(join(repository, 'apps'));

  it('threshold keeps its labels in place', async () => {
    const volume = phantom();
    const app = await openApp(appFolder('threshold'));
    await expectInPlace(
      app,
      volume,
      labelled(volume, (v) => (v > 31 ? 1 : 0)),
      { dice: 1 },
    );
  });

  it.each(names.filter((name) => name.startsWith('ct-')))(
    '%s gives the same in every storage order',
    async (name) => {
      const volume = chest();
      const app = await openApp(appFolder(name));
      const truth = await labelsOf(app, volume);
      await expectInPlace(app, volume, truth, { dice: 0.995 });
    },
  );

  it('ct-lung finds both lungs, ct-body all but the table', async () => {
    const volume = chest();
    const lungs = await labelsOf(await openApp(appFolder('ct-lung')), volume);
    expect(
      dice(
        lungs,
        labelled(volume, (v) => (v > -900 && v < -800 ? 1 : 0)),
        1,
      ),
    ).toBeGreaterThan(0.9);
    const body = await labelsOf(await openApp(appFolder('ct-body')), volume);
    const table = labelled(volume, (v) => (v === 100 ? 1 : 0));
    let taken = 0;
    for (let i = 0; i < table.voxels.length; i++) if (table.voxels[i] && body.voxels[i]) taken++;
    expect(taken).toBe(0);
  });
});
