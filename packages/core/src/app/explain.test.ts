import { describe, expect, it } from 'vitest';
import { explainEmpty, type Observation, observe } from './explain.ts';
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

describe('observe()', () => {
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
