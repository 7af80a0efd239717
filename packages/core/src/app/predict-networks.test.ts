import { setFlagsFromString } from 'node:v8';
import { describe, expect, it } from 'vitest';
import type { Vec3 } from '../geometry/affine.ts';
import { voxelAt } from '../geometry/fixtures.ts';
import type { Tensor } from '../tensor.ts';
import type { Volume } from '../volume.ts';
import {
  app,
  forEachVoxel,
  type Given,
  network,
  networkOf,
  type Output,
  onnx,
  run,
  scan,
  textIn,
  volumeIn,
} from './fixtures.ts';
import type { FileSpec, Manifest, ModelSpec } from './manifest.ts';
import type { LoadedModel } from './predict.ts';

/** A class score of 1 for the label of each value, 0 for the other classes. */
const labelling = (classes: number, labelOf: (value: number) => number, seen: Tensor[] = []) =>
  network(([v]) => Array.from({ length: classes }, (_, k) => Number(labelOf(v) === k)), seen);

const net = (file: string, more: object = {}) => ({ ...onnx, file, ...more });
const merge = (table: Record<number, number>) =>
  Object.entries(table).map(([from, to]) => ({ from: Number(from), to }));
const times = (factor: number) => ({ scaleIntensityRange: { aMin: 0, aMax: 1, bMax: factor } });

/** Runs a manifest with a model for each file, and says which were asked for, in order. */
async function runWith(manifest: Manifest, models: Record<string, LoadedModel>, given: Given = {}) {
  const loaded: string[] = [];
  const load = async (spec: ModelSpec) => {
    loaded.push((spec as FileSpec).file);
    return models[(spec as FileSpec).file];
  };
  return { ...(await run(manifest, models.a, { load, ...given })), loaded };
}

/** The labels lie on the grid of the scan, each of them where the value is that it stands for. */
async function expectLabels(output: Output, labelOf: (value: number, at: Vec3) => number) {
  const labels = await volumeIn(output);
  expect(labels.size).toEqual(scan.size);
  labels.affine.forEach((v, i) => void expect(v).toBeCloseTo(scan.affine[i], 4));
  forEachVoxel(scan.size, (at) => {
    expect([at, voxelAt(labels, at)]).toEqual([at, labelOf(voxelAt(scan, at), at)]);
  });
}

describe('predict(): labels of several networks', () => {
  // The values of the scan are 0 … 30; the networks overlap in 14 … 24, and b and c give the label 2, which their tables do not list.
  const models = {
    a: labelling(3, (v) => (v > 20 ? 1 : v > 10 ? 2 : 0)),
    b: labelling(3, (v) => (v >= 14 && v <= 24 ? 1 : v > 27 ? 2 : 0)),
    c: labelling(4, (v) => (v === 22 ? 3 : v < 4 ? 1 : v > 24 ? 2 : 0)),
  };
  const tables = { a: merge({ 1: 5, 2: 3 }), b: merge({ 1: 300 }), c: merge({ 3: 7, 1: 2 }) };
  const [a, b, c] = (['a', 'b', 'c'] as const).map((name) => net(name, { merge: tables[name] }));

  it.each([
    ['the labels decided window by window', ['argmax']],
    ['scores brought back first', ['restore', 'argmax']],
    ['labels brought back', ['argmax', 'restore']],
  ])('are merged by their tables, a later one over an earlier one (%s)', async (_, postprocess) => {
    const preprocess = [{ orientation: { axcodes: 'PIR' } }];
    const manifest = networkOf({ model: [a, b, c], preprocess, postprocess });
    const { outputs, loaded } = await runWith(manifest, models);
    expect(loaded).toEqual(['a', 'b', 'c']);
    // The zeros of b and c leave what is there, and so does what they drop: 25 to 30 stay with a.
    await expectLabels(outputs.segmentation, (v) =>
      v < 4 ? 2 : v === 22 ? 7 : v >= 14 && v <= 24 ? 300 : v > 20 ? 5 : v > 10 ? 3 : 0,
    );
    const other = networkOf({ model: [c, b, a], preprocess, postprocess });
    await expectLabels((await runWith(other, models)).outputs.segmentation, (v) =>
      v > 20 ? 5 : v > 10 ? 3 : v < 4 ? 2 : 0,
    );
  });

  it('are dropped by rules to 0, which leave what is there', async () => {
    const model = [a, net('b', { merge: merge({ 1: 0, 2: 9 }) })];
    const labels = [3, 5, 9].map((value) => ({ value, name: `label ${value}` }));
    const { outputs } = await runWith(networkOf({ model, labels }), models);
    await expectLabels(outputs.segmentation, (v) => (v > 27 ? 9 : v > 20 ? 5 : v > 10 ? 3 : 0));
  });

  it('come from networks with steps of their own, on grids of their own', async () => {
    const seen: Record<string, Tensor[]> = { a: [], b: [], c: [] };
    const manifest = networkOf({
      preprocess: [{ flip: { axes: ['y'] } }, times(2)],
      model: [
        net('a', { merge: tables.a }),
        net('b', { merge: tables.b, preprocess: [{ orientation: { axcodes: 'SAL' } }, times(10)] }),
        net('c', {
          merge: tables.c,
          preprocess: [{ centerSpatialCrop: { roiSize: [3, 2, 2] } }],
          postprocess: [{ threshold: { channel: 0, above: 10, value: 3 } }],
        }),
      ],
      postprocess: [],
    });
    const { outputs } = await runWith(manifest, {
      a: labelling(3, (v) => (v > 40 ? 1 : v > 20 ? 2 : 0), seen.a),
      b: labelling(3, (v) => (v >= 280 && v <= 480 ? 1 : 0), seen.b),
      c: network(([v]) => [v], seen.c),
    });
    expect([seen.a[0].dims, seen.b[0].dims, seen.c[0].dims]).toEqual([
      [1, 1, 3, 4, 5],
      [1, 1, 5, 4, 3],
      [1, 1, 2, 2, 3],
    ]);
    // Of 5, 4, 3 voxels the middle 3, 2, 2 begin at 1, 1, 0.
    const inCrop = ([x, y, z]: Vec3) => x >= 1 && x <= 3 && y >= 1 && y <= 2 && z <= 1;
    await expectLabels(outputs.segmentation, (v, at) =>
      inCrop(at) && 2 * v > 10 ? 7 : v >= 14 && v <= 24 ? 300 : v > 20 ? 5 : v > 10 ? 3 : 0,
    );
  });

  it('are merged before the steps that come after the decision, and the checks', async () => {
    const postprocess = [
      'argmax',
      { labelFilter: { appliedLabels: [300, 5] } },
      { mapLabelValue: { origLabels: [300], targetLabels: [9] } },
    ];
    const labels = [
      { value: 9, name: 'nine' },
      { value: 5, name: 'five' },
    ];
    const outputs = { ...app.outputs, table: { type: 'Measurements' } };
    const more = { model: [a, b], postprocess, labels, outputs };
    const result = await runWith(networkOf(more), models);
    await expectLabels(result.outputs.segmentation, (v) => (v >= 14 && v <= 24 ? 9 : v > 20 ? 5 : 0));
    for (const name of ['nine', 'five']) expect(textIn(result.outputs.table)).toContain(name);
    const check = { labels: [9], minimumMl: 1000, message: 'Too little.' };
    await expect(runWith(networkOf({ ...more, resultChecks: [check] }), models)).rejects.toMatchObject({
      code: 'NOT_ACCEPTED',
    });
  });

  it('come from those networks alone that the parameters choose', async () => {
    const inputs = { ...app.inputs, ribs: { type: 'checkbox' }, organs: { type: 'checkbox', default: true } };
    const manifest = networkOf({
      inputs,
      model: [
        { ...a, when: { organs: true } },
        { ...b, when: { ribs: true } },
      ],
    });
    const organs = await runWith(manifest, models);
    expect(organs.loaded).toEqual(['a']);
    await expectLabels(organs.outputs.segmentation, (v) => (v > 20 ? 5 : v > 10 ? 3 : 0));
    const ribs = await runWith(manifest, models, { parameters: { ribs: true, organs: false } });
    expect(ribs.loaded).toEqual(['b']);
    await expectLabels(ribs.outputs.segmentation, (v) => (v >= 14 && v <= 24 ? 300 : 0));
    await expect(runWith(manifest, models, { parameters: { organs: false } })).rejects.toMatchObject({
      code: 'BAD_INPUT',
    });
  });

  describe('need little memory', () => {
    // The collector of garbage tells whether anything still holds a volume.
    setFlagsFromString('--expose-gc');
    const runInNewContext = import('node:vm').then((vm) => vm.runInNewContext);
    const countAlive = async (held: readonly WeakRef<object>[]) => {
      // What is referred to weakly lives to the end of the current task.
      await new Promise((done) => setImmediate(done));
      ((await runInNewContext)('gc') as () => void)();
      return held.filter((one) => one.deref()).length;
    };
    /** A network that calls a function before and after each run. */
    const watched = (model: LoadedModel, before: () => unknown, after = (_: object) => {}): LoadedModel => {
      if (model.kind !== 'network') throw new Error('no network');
      const { session } = model;
      const run = async (tensor: Tensor) => {
        await before();
        const output = await session.run(tensor);
        after(output.data);
        return output;
      };
      return { kind: 'network', session: { run } };
    };

    it('for the scores of one at a time', async () => {
      const scores: WeakRef<object>[] = [];
      const alive: number[] = [];
      const watch = (model: LoadedModel) =>
        watched(
          model,
          async () => alive.push(await countAlive(scores)),
          (data) => scores.push(new WeakRef(data)),
        );
      const manifest = networkOf({ model: [a, b, c], postprocess: ['restore', 'argmax'] });
      await runWith(manifest, { a: watch(models.a), b: watch(models.b), c: watch(models.c) });
      expect(alive).toEqual([0, 0, 0]);
    });

    it('for what they share: it is prepared once, and kept until the last one has it', async () => {
      const own = { preprocess: [times(1)] };
      const model = [a, b, { ...c, preprocess: [times(2)] }].map((spec) => ({ ...own, ...spec }));
      const shared: WeakRef<object>[] = [];
      const alive: number[] = [];
      const watch = (one: LoadedModel) => watched(one, async () => alive.push(await countAlive(shared)));
      const take = async (_: string, volume: Volume) => void shared.push(new WeakRef(volume.voxels));
      await runWith(
        networkOf({ model, preprocess: [times(1)] }),
        { a: watch(models.a), b: watch(models.b), c: watch(models.c) },
        { trace: { stages: ['preprocess[0]'], take } },
      );
      expect(shared).toHaveLength(1);
      expect(alive).toEqual([1, 1, 0]);
    });
  });

  it('report one progress, each network in proportion to the voxels of its windows', async () => {
    // 60 voxels at once, and two windows of 40: 3/7 and 4/7 of the work between 0.05 and 0.96.
    const inferer = { type: 'slidingWindow', roiSize: [5, 4, 2], overlap: 0 };
    const manifest = networkOf({ model: [a, { ...b, inferer }] });
    const { progress } = await runWith(manifest, models);
    const fractions = progress.map(([, fraction]) => fraction);
    expect(fractions).toEqual(fractions.toSorted((x, y) => x - y));
    const [first, second] = [
      progress.findIndex(([stage]) => stage === 'infer'),
      progress.findLastIndex(([stage]) => stage === 'preprocess'),
    ];
    expect(progress[first][1]).toBeCloseTo(0.05 + (0.05 * 3) / 7, 5);
    expect(progress[second][1]).toBeCloseTo(0.05 + (0.91 * 3) / 7 + (0.05 * 4) / 7, 5);
    expect(fractions.at(-1)).toBe(1);
  });

  it('end between two networks if the prediction is cancelled', async () => {
    const controller = new AbortController();
    const reason = new Error('cancelled');
    const onProgress = (stage: string) => void (stage === 'postprocess' && controller.abort(reason));
    const loaded: string[] = [];
    const load = async (spec: ModelSpec) => {
      loaded.push((spec as FileSpec).file);
      return models.a;
    };
    const given = { load, onProgress, signal: controller.signal };
    await expect(run(networkOf({ model: [a, b, c] }), models.a, given)).rejects.toBe(reason);
    expect(loaded).toEqual(['a']);
  });

  it('name the network that failed', async () => {
    const failing = network(() => {
      throw new Error('no such layer');
    });
    const manifest = networkOf({ model: [a, { ...b, id: 'ribs' }] });
    await expect(runWith(manifest, { ...models, b: failing })).rejects.toThrow(
      'The app failed in its infer stage (model[1], ribs): no such layer',
    );
    const invalid = network(() => [Number.NaN, 0]);
    await expect(runWith(manifest, { ...models, b: invalid })).rejects.toMatchObject({
      code: 'APP_OUTPUT',
      message: expect.stringMatching(/^model\[1\], ribs: The network gave NaN/),
    });
  });

  it('may come from one network: its table alone', async () => {
    const { outputs } = await runWith(networkOf({ model: a }), models);
    await expectLabels(outputs.segmentation, (v) => (v > 20 ? 5 : v > 10 ? 3 : 0));
  });
});
