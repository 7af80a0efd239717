import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  type Affine,
  applyAffine,
  closeLabels,
  collectBytes,
  dice,
  type LabelMeasurement,
  type LabelTensor,
  type LoadedModel,
  mapLabels,
  numericVoxels,
  predict,
  reorient,
  resample,
  restore,
  sourceFromBytes,
  type Tensor,
  type Volume,
} from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { findPython } from '../../../test/programs.ts';
import { dataFolder, isSlowWanted } from '../../../test/real-data.ts';
import { type App, openApp } from '../src/apps.ts';
import { nodePlatform } from '../src/node-platform.ts';
import { openModel } from '../src/runtimes/runtimes.ts';
import { tomaat } from './cli-fixture.ts';
import { encode, phantom } from './phantom.ts';
import { decode, fileSource, runFiles } from './run-files.ts';
import { appFolder, repository, temporaryFolder } from './test-server.ts';

/*
 * The brain app with the bundled weights: what it gives with each parameter, that left stays left, and that it
 * refuses what is no head. How good its labels are is measured by training/brain/evaluate.py.
 */

// Seconds each where the machine has nothing else to do.
vi.setConfig({ testTimeout: 600_000 });

const folder = appFolder('brain');
const data = dataFolder();
if (!data) console.log('brain: the folder of real images is not there; what needs it is left out.');

/** A Python that can do what training/brain/pipeline.py does; no test but one needs it. */
const python = findPython('nibabel', 'numpy', 'scipy');

let app: App;
let sample: Volume;
let truth: Volume;
let work: string;
beforeAll(async () => {
  work = await temporaryFolder();
  app = await openApp(folder);
  sample = await decode(await readFile(join(folder, 'sample.nii.gz')));
  truth = await decode(await readFile(join(folder, 'sample-expected.nii.gz')));
});
afterAll(() => rm(work, { recursive: true, force: true }));

/** The true brain as one, closed as `detail: mask` closes it. */
const trueMask = (): Volume =>
  closeLabels(
    { ...truth, voxels: Uint8Array.from(numericVoxels(truth.voxels), (v) => (v > 0 ? 1 : 0)) },
    { radiusMm: 5 },
  );
const tissues = () => app.manifest.labels.filter(({ when }) => when?.detail === 'tissues');

describe('the card', () => {
  // The texts that training/brain/card.py puts beside the figures.
  const chosenBy =
    'The recipe was chosen by two heads that were not trained on, so figures measured on them are optimistic.';
  const singleScans =
    'Each figure on real images is that of a single scan, and the crop was chosen while looking at these scans.';
  const read = async (name: string) =>
    (await readFile(join(repository, name), 'utf8')).replaceAll(/\s+/g, ' ');

  it('says which heads chose the recipe, and that real figures are single scans', async () => {
    const limitations = app.manifest.limitations!;
    expect(limitations).toContain(chosenBy);
    expect(limitations).toContain(singleScans);
    expect(limitations.indexOf(chosenBy)).toBeLessThan(limitations.indexOf('Mean Dice'));
    expect(limitations.indexOf(singleScans)).toBeLessThan(limitations.indexOf('against FreeSurfer'));
    expect(await read('apps/brain/README.md')).toContain(`<!-- summary --> ${limitations.trim()} <!--`);
    for (const sentence of [chosenBy, singleScans])
      expect(await read('training/brain/card.py')).toContain(`"${sentence}"`);
  });

  it('calls no head unseen that the recipe was chosen by', async () => {
    for (const name of ['apps/brain/tomaat.yaml', 'apps/brain/README.md', 'training/brain/card.py'])
      expect(await read(name)).not.toMatch(/never s[ae][ew]n?|unseen/i);
    expect(await read('training/brain/README.md')).toContain('there is no third set for a test');
  });
});

// ── In this process, so that many storage orders take seconds ────────────────────────────────────────────────────

let model: Promise<LoadedModel> | undefined;
/** What the network was given and what it said: equal tensors are answered once, all others by the network. */
const said = new Map<string, { input: Tensor; answer: Tensor | LabelTensor }>();

async function openNetwork(): Promise<LoadedModel> {
  const closing = new AbortController().signal;
  model ??= openModel(app, app.manifest.model[0], {
    folder: work,
    closing,
    onSpawn: () => {},
    onExit: () => {},
  });
  const opened = await model;
  if (opened.kind !== 'network') throw new Error('the brain app has a network');
  const { session } = opened;
  return {
    kind: 'network',
    session: {
      inputDims: session.inputDims,
      async run(input) {
        const hash = createHash('sha256').update(input.dims.join());
        hash.update(new Uint8Array(input.data.buffer, input.data.byteOffset, input.data.byteLength));
        const key = hash.digest('hex');
        let known = said.get(key);
        if (!known) {
          known = { input: { ...input, data: input.data.slice() }, answer: await session.run(input) };
          said.set(key, known);
        }
        return known.answer;
      },
    },
  };
}

async function labelsOf(volume: Volume, parameters: Record<string, unknown> = {}): Promise<Volume> {
  let result: Uint8Array | undefined;
  // Without the mesh, which takes longer than all the rest.
  const { segmentation } = app.manifest.outputs;
  await predict(
    { ...app.manifest, outputs: { segmentation } },
    { files: { volume: [sourceFromBytes('scan.nii', await encode(volume, 'nii'))] }, parameters },
    {
      platform: nodePlatform,
      load: openNetwork,
      async write(output) {
        const bytes = await collectBytes(output.bytes);
        if (output.primary) result = bytes;
      },
    },
  );
  return decode(result!);
}

/** Left and right exchanged in name. */
function exchanged(labels: Volume): Volume {
  const all = tissues();
  const other = (name: string) =>
    name.startsWith('left') ? name.replace('left', 'right') : name.replace('right', 'left');
  return mapLabels(
    labels,
    all.map(({ value }) => value),
    all.map(({ name }) => all.find((label) => label.name === other(name))!.value),
  );
}

/** 24 of the 48 ways to store a scan: every order of the axes, with four choices of directions each, both hands. */
const allOrders = ['012', '021', '102', '120', '201', '210'].flatMap((order, i) =>
  [0, 3, 5, 6].map((flips) =>
    [...order]
      .map((digit, k) => ['LR', 'PA', 'IS'][Number(digit)][((i % 2 ? flips : 7 - flips) >> k) & 1])
      .join(''),
  ),
);
/** Every order of the axes and both hands; all of the 24 take half a minute: TOMAAT_SLOW=1 runs them. */
const orders = isSlowWanted() ? allOrders : allOrders.filter((_, i) => i % 3 === 0);

describe('the brain app', () => {
  it('its labels are those of the network, in the order of its scores', async () => {
    const [spec] = app.manifest.model;
    const text = (await readFile(join(folder, 'file' in spec ? spec.file : ''))).toString('latin1');
    const names = tissues().map(({ name }) => name);
    expect(tissues().map(({ value }) => value)).toEqual(names.map((_, i) => i + 1));
    expect(text).toContain(['background', ...names].join('|'));
  });

  /** The least Dice of a label between any two of the results for a scan that is stored in each of the orders. */
  async function leastAgreement(volume: Volume, storedIn: readonly string[]): Promise<number> {
    const results: Volume[] = [];
    for (const order of storedIn) results.push(restore(await labelsOf(reorient(volume, order)), volume));
    for (const { value } of tissues())
      expect(numericVoxels(results[0].voxels).filter((v) => v === value).length).toBeGreaterThan(100);
    let least = 1;
    for (const [i, a] of results.entries()) {
      for (const b of results.slice(i + 1)) {
        // Maps that are equal voxel by voxel have a Dice of 1 in every label.
        if (Buffer.from(a.voxels.buffer).equals(Buffer.from(b.voxels.buffer))) continue;
        for (const { value } of tissues()) least = Math.min(least, dice(a, b, value));
      }
    }
    return least;
  }

  it('gives agreeing label maps for a scan in every order of its axes: Dice ≥ 0.99', async () => {
    const axesOf = (order: string) => order.replace(/[LR]/, 'x').replace(/[AP]/, 'y').replace(/[IS]/, 'z');
    expect(new Set(orders.map(axesOf)).size).toBe(6);
    expect(await leastAgreement(sample, orders)).toBeGreaterThanOrEqual(0.99);
  });

  it.skipIf(!data)('does so for an oblique scan of a real head', async () => {
    const head = await decode(await readFile(join(data!, 'brain', 'hippodeep_t1.nii.gz')));
    const others = allOrders.filter((_, i) => i % 8 === 0);
    expect(await leastAgreement(head, others)).toBeGreaterThanOrEqual(0.99);
  });

  it('gives for a mirrored scan the mirrored result, left and right exchanged in name', async () => {
    // The same voxels, said to run from left to right where they ran from right to left: a head mirrored in the world.
    const mirror = (affine: Affine): Affine => affine.map((v, i) => (i < 4 ? -v : v)) as unknown as Affine;
    const mirrored = { ...sample, affine: mirror(sample.affine) };
    const [plain, other] = [await labelsOf(sample), await labelsOf(mirrored)];
    const back = { ...other, affine: mirror(other.affine) };
    const expected = exchanged(plain);
    for (const { value, name } of tissues()) {
      expect(dice(back, expected, value), name).toBeGreaterThan(0.85);
      if (/left|right/.test(name))
        expect(dice(back, plain, value), `${name}, not exchanged`).toBeLessThan(0.1);
    }
    expect(dice(back, plain)).toBeGreaterThan(0.96);
  });

  it('finds the same on an oblique, left-handed grid of other spacing', async () => {
    const turn = [0.966, -0.215, 0.143, 0.192, 0.968, 0.161, -0.173, -0.128, 0.977];
    const spacing = [1.6, 2.3, 1.9];
    const size = [130, 100, 110] as const;
    const columns = [0, 1, 2].map((r) =>
      [0, 1, 2].map((c) => (c === 1 ? -1 : 1) * turn[r * 3 + c] * spacing[c]),
    );
    const middle = applyAffine(
      sample.affine,
      sample.size.map((n) => (n - 1) / 2) as unknown as [number, number, number],
    );
    const affine = columns.flatMap((row, r) => [
      ...row,
      middle[r] - row.reduce((sum, v, c) => sum + (v * (size[c] - 1)) / 2, 0),
    ]);
    const grid = { size, affine: [...affine, 0, 0, 0, 1] as unknown as Affine };
    const found = restore(await labelsOf(resample(sample, grid, { mode: 'linear' })), sample);
    const direct = await labelsOf(sample);
    // The network sees a turned head and does not say quite the same of it; a swapped axis or side would leave nothing.
    expect(dice(found, direct)).toBeGreaterThan(0.88);
    for (const { value, name } of tissues()) expect(dice(found, direct, value), name).toBeGreaterThan(0.5);
  });

  it.skipIf(!python)('does what training/brain/pipeline.py does before and after the network', async () => {
    for (const resolution of ['fast', 'fine']) {
      said.clear();
      const labels = await labelsOf(sample, { resolution });
      const [{ input, answer }] = said.values();
      for (const [name, { data: numbers, dims }] of Object.entries({ input, answer })) {
        await writeFile(
          join(work, `${name}.f32`),
          new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength),
        );
        await writeFile(join(work, `${name}.json`), JSON.stringify(dims));
      }
      await writeFile(join(work, 'labels.nii'), await encode(labels, 'nii'));
      const code = `
import json, sys
sys.path.insert(0, ${JSON.stringify(join(repository, 'training/brain'))})
sys.dont_write_bytecode = True
import nibabel, numpy as np
import pipeline
tensor = lambda name: np.fromfile(name + '.f32', np.float32).reshape(json.load(open(name + '.json')))
scan = nibabel.load(${JSON.stringify(join(folder, 'sample.nii.gz'))})
prepared = pipeline.prepare(scan.get_fdata(dtype=np.float32), scan.affine, pipeline.RESOLUTIONS['${resolution}'])
given, scores = tensor('input')[0, 0], tensor('answer')[0]
assert given.shape == prepared.image.shape, (given.shape, prepared.image.shape)
found = pipeline.restore(scores, prepared)
labels = np.asarray(nibabel.load('labels.nii').dataobj)
print(json.dumps({'difference': float(np.abs(given - prepared.image).max()), 'equal': float((found == labels).mean())}))
`;
      const ended = spawnSync(python!, ['-c', code], { cwd: work, encoding: 'utf8' });
      expect(ended.stderr).toBe('');
      const { difference, equal } = JSON.parse(ended.stdout) as Record<string, number>;
      expect(difference).toBeLessThan(1e-4);
      expect(equal).toBeGreaterThan(0.9999);
    }
  });
});

describe('the brain app in a child', () => {
  const sampleBytes = () => readFile(join(folder, 'sample.nii.gz'));

  it.each([
    ['tissues', 'fast'],
    ['mask', 'fast'],
    ['tissues', 'fine'],
  ])('gives each output with detail %s, resolution %s', async (detail, resolution) => {
    const { outputs, formats } = await runFiles(
      app,
      { volume: ['scan.nii.gz', await sampleBytes()] },
      { parameters: { detail, resolution }, formats: { segmentation: 'nrrd' } },
    );
    expect(formats).toEqual({ segmentation: 'nrrd', mesh: 'vtk', report: 'txt', volumes: 'json' });
    const labels = app.manifest.labels.filter(({ when }) => when?.detail === detail);
    const names = labels.map(({ name }) => name);
    const found = await decode(outputs.segmentation);
    const values = new Set(numericVoxels(found.voxels));
    expect([...values].sort((a, b) => a - b)).toEqual([0, ...labels.map(({ value }) => value)]);
    if (detail === 'mask') expect(dice(found, trueMask())).toBeGreaterThan(0.94);
    else for (const { value, name } of labels) expect(dice(found, truth, value), name).toBeGreaterThan(0.7);
    // The names go with the file, the report and the measurements; of the other detail's none.
    const head = outputs.segmentation.subarray(0, 6000).toString('latin1');
    const { labels: measured } = JSON.parse(outputs.volumes.toString()) as { labels: LabelMeasurement[] };
    expect(measured.map(({ name }) => name)).toEqual(names);
    const ml = measured.reduce((sum, { volumeMl }) => sum + volumeMl, 0);
    expect(ml).toBeGreaterThan(900);
    expect(ml).toBeLessThan(2000);
    for (const { name } of app.manifest.labels) {
      expect(new RegExp(`Name:=${name}$`, 'm').test(head), `${name} in the file`).toBe(names.includes(name));
      expect(new RegExp(`^${name} +\\d`, 'm').test(outputs.report.toString()), `${name} in the report`).toBe(
        names.includes(name),
      );
    }
    expect(outputs.mesh.subarray(0, 26).toString()).toBe('# vtk DataFile Version 3.0');
    expect(outputs.mesh.length).toBeGreaterThan(100_000);
  });

  const noise = (): Volume => {
    const size = [90, 100, 80] as const;
    let seed = 7;
    const random = () => {
      seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31;
      return seed / 2 ** 31;
    };
    const voxels = Int16Array.from({ length: 90 * 100 * 80 }, () => 1000 * random());
    return { voxels, size, components: 1, affine: [2, 0, 0, -90, 0, 2, 0, -100, 0, 0, 2, -80, 0, 0, 0, 1] };
  };
  const ball = (): Volume => {
    const volume = noise();
    const [nx, ny] = volume.size;
    const voxels = Int16Array.from(numericVoxels(volume.voxels), (v, i) => {
      const p = [i % nx, Math.floor(i / nx) % ny, Math.floor(i / nx / ny)];
      const r = Math.hypot((p[0] - 45) / 36, (p[1] - 50) / 42, (p[2] - 40) / 33);
      return r < 1 ? 800 + v / 20 : v / 50;
    });
    return { ...volume, voxels };
  };
  const made: Record<string, () => Volume> = {
    zeros: () => ({ ...noise(), voxels: new Int16Array(90 * 100 * 80) }),
    noise,
    'a ball': ball,
    'two blocks': () => phantom([9, 0, 0, -100, 0, 9, 0, -90, 0, 0, 11, -60, 0, 0, 0, 1]),
  };
  const real = ['ct/abdomen.nii.gz', 'ct/lung_small.mha', 'mr/abdomen_mr.nii.gz', 'spine/t2.nii.gz'];

  it.each(Object.keys(made))('refuses %s', async (name) => {
    const scan = await encode(made[name](), 'nii');
    await expect(runFiles(app, { volume: ['scan.nii', scan] })).rejects.toMatchObject({
      code: 'NOT_ACCEPTED',
      message: expect.stringMatching(/head/),
    });
  });

  it.skipIf(!data).each(real)('refuses %s', async (name) => {
    const path = join(data!, name);
    const bytes = await collectBytes(fileSource(path).open());
    await expect(runFiles(app, { volume: [path.split('/').pop()!, bytes] })).rejects.toMatchObject({
      code: 'NOT_ACCEPTED',
      message: expect.stringMatching(/head/),
    });
  });

  it('goes through the command line: a mask, with its volume on stdout', async () => {
    const out = join(work, 'mask.nii.gz');
    const ended = await tomaat([
      ...['run', folder, '--volume', join(folder, 'sample.nii.gz'), '--param', 'detail=mask', '-o', out],
    ]);
    expect(ended.code).toBe(0);
    expect(ended.stdout).toMatch(/^ {2}brain +1[0-9]{3}(\.[0-9]+)? ml$/m);
    expect(dice(await decode(await readFile(out)), trueMask())).toBeGreaterThan(0.94);
  });
});
