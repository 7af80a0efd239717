import { describe, expect, it } from 'vitest';
import { explainEmpty, type Observation, observe } from './explain.ts';
import { network, networkOf, run } from './fixtures.ts';
import { parseManifest } from './parse-manifest.ts';

const manifestWith = (preprocess: readonly object[], own: readonly object[] = []) =>
  parseManifest(
    JSON.stringify({
      schemaVersion: 1,
      id: 'liver',
      name: 'Liver',
      description: 'Liver.',
      version: '1.0.0',
      modality: 'CT',
      anatomy: 'liver',
      task: 'segmentation',
      authors: ['A'],
      licence: 'MIT',
      intendedUse: 'Tests.',
      inputs: { ct: { type: 'volume', ...(own.length > 0 && { preprocess: own }) } },
      preprocess,
      model: { runtime: 'onnx', file: 'a.onnx', sha256: 'ab'.repeat(32) },
      postprocess: ['argmax'],
      outputs: { segmentation: { type: 'LabelVolume' } },
    }),
  );
const placed = [{ orientation: { axcodes: 'RAS' } }, { spacing: { pixdim: [1, 1, 2] } }];
const window = { scaleIntensityRange: { aMin: -175, aMax: 250, clip: true } };
const summary = (low: number, high: number) =>
  ({ size: [9, 8, 7], spacing: [1, 1.5, 2.25], low, high }) as const;
const seen = (low: number, high: number, more: Partial<Observation> = {}): Observation => ({
  inputs: { ct: summary(low, high) },
  prepared: summary(0, 1),
  scores: [3.25, -1],
  ...more,
});

describe('explainEmpty()', () => {
  it('states values, sizes, spacing and the highest score of each class', () => {
    expect(explainEmpty(manifestWith([...placed, window]), seen(-1024, 1500)).slice(0, 3)).toEqual([
      'ct: values -1024 … 1500, 9 × 8 × 7 voxels of 1 × 1.5 × 2.25 mm',
      'after preprocess: values 0 … 1, 9 × 8 × 7 voxels of 1 × 1.5 × 2.25 mm',
      'highest score of each class: 0: 3.25, 1: -1',
    ]);
  });

  const only = /^Compare these numbers with those of the training/;
  it.each([
    ['a window that fits has no cause', manifestWith([...placed, window]), seen(-1024, 1500), [only]],
    ['values that begin above the window', manifestWith([...placed, window]), seen(900, 4095), [/expects values of -175 … 250, and those of ct are 900 … 4095/]],
    ['values that fill a small part of it', manifestWith([...placed, window]), seen(0, 1), [/expects values/]],
    ['a window of the input itself', manifestWith(placed, [window]), seen(0, 1), [/expects values/]],
    ['one value before', manifestWith(placed), seen(4, 4, { prepared: summary(0, 0) }), [/^All voxels of ct have one value/]],
    ['one value after', manifestWith(placed), seen(0, 9, { prepared: summary(2, 2) }), [/^After preprocess all voxels/]],
    ['no finite value', manifestWith(placed), seen(Number.NaN, Number.NaN), [/^All voxels of ct/]],
    ['scores that are not finite', manifestWith(placed), seen(0, 9, { scores: [-Infinity, 1] }), [/not finite/]],
    ['steps that leave the place alone', manifestWith([]), seen(0, 9), [/sets the orientation/, /sets the spacing/]],
    ['axes as they are stored', manifestWith([{ orientation: { axcodes: 'stored' } }, placed[1]]), seen(0, 9), [/sets the orientation/]],
  ])('%s', (_, manifest, observed, causes) => {
    const said = explainEmpty(manifest, observed).slice(3);
    expect(said).toHaveLength(causes.length);
    for (const [i, cause] of causes.entries()) expect(said[i]).toMatch(cause);
  }); // biome-ignore format: one table
});

describe('explainEmpty() of several networks', () => {
  it('states what each was given and gave, by its place in the manifest', () => {
    const networks = [
      { name: 'model[0]', prepared: summary(0, 1), scores: [2, 1] },
      { name: 'model[1]', prepared: summary(3, 3), scores: [-Infinity, 1] },
    ];
    expect(explainEmpty(manifestWith(placed), seen(0, 9, { networks })).slice(1)).toEqual([
      'model[0], after preprocess: values 0 … 1, 9 × 8 × 7 voxels of 1 × 1.5 × 2.25 mm',
      'model[0], highest score of each class: 0: 2, 1: 1',
      'model[1], after preprocess: values 3 … 3, 9 × 8 × 7 voxels of 1 × 1.5 × 2.25 mm',
      'model[1], highest score of each class: 0: -Infinity, 1: 1',
      'After preprocess of model[1] all voxels have one value: its steps of intensities do not fit this volume.',
      'The network model[1] gives scores that are not finite. Compare the values after preprocess with those of the training.',
    ]);
  });
});

describe('observe()', () => {
  it('keeps several networks apart', async () => {
    const merge = [{ from: 1, to: 1 }];
    const onnx = { runtime: 'onnx', file: 'a.onnx', sha256: 'ab'.repeat(32), merge };
    const manifest = networkOf({
      model: [onnx, { ...onnx, preprocess: [{ flip: { axes: ['x'] } }, window] }],
    });
    const models = [network(([v]) => [0, v - 40]), network(([v]) => [0, v - 50])];
    const { trace, load, seen } = observe(manifest, async (spec) => models[manifest.model.indexOf(spec)]);
    await run(manifest, models[0], { trace, load });
    const { inputs, networks, ...first } = seen();
    expect([inputs.volume.low, inputs.volume.high]).toEqual([0, 30]);
    expect(networks?.map(({ name, scores }) => [name, scores])).toEqual([
      ['model[0]', [0, -10]],
      ['model[1]', [0, expect.closeTo((30 + 175) / 425 - 50, 4)]],
    ]);
    expect(networks?.[1].prepared?.low).toBeCloseTo(175 / 425, 5);
    expect(first).toEqual({ prepared: networks?.[0].prepared, scores: [0, -10] });
  });

  it('keeps the highest score of each class over all windows, and leaves label values out', async () => {
    const outputs = [
      { data: Float32Array.of(1, 5, -3, -2), dims: [1, 2, 1, 1, 2] },
      { data: Float32Array.of(4, 2, -7, -1), dims: [1, 2, 1, 1, 2] },
      { data: Uint8Array.of(9, 9), dims: [1, 1, 1, 1, 2], integer: true as const },
    ];
    const manifest = manifestWith(placed);
    const run = async () => outputs.shift()!;
    const { load, seen } = observe(manifest, async () => ({ kind: 'network', session: { run } }));
    const model = await load(manifest.model[0]);
    if (model.kind !== 'network') throw new Error('no network');
    const given = { data: new Float32Array(2), dims: [1, 1, 1, 1, 2] };
    for (let i = 0; i < 3; i++) await model.session.run(given);
    expect(seen().scores).toEqual([5, -1]);
  });
});
