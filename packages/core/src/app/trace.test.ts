import { describe, expect, it } from 'vitest';
import { webPlatform } from '../formats/web-platform.ts';
import { sameGrid } from '../geometry/grid.ts';
import type { Volume } from '../volume.ts';
import {
  answer,
  levels,
  networkOf,
  onnx,
  program,
  programOf,
  run,
  scan,
  scanFiles,
  size,
} from './fixtures.ts';
import type { Manifest } from './manifest.ts';
import { type LoadedModel, predict } from './predict.ts';
import { traceStages } from './trace.ts';

const flipped = { flip: { axes: ['x'] } };
const steps = {
  preprocess: [flipped, { scaleIntensityRange: { aMin: 0, aMax: 30, bMin: 0, bMax: 30 } }],
  postprocess: ['softmax', 'restore', 'argmax', { keepLargestConnectedComponent: { appliedLabels: [1] } }],
};

async function trace(manifest: Manifest, model: LoadedModel, stages = traceStages(manifest)) {
  const taken = new Map<string, Volume>();
  const request = { files: await scanFiles(), parameters: {} };
  await predict(manifest, request, {
    platform: webPlatform,
    load: async () => model,
    write: async () => {},
    trace: {
      stages,
      async take(stage, volume) {
        expect(taken.has(stage)).toBe(false);
        taken.set(stage, { ...volume, voxels: volume.voxels.slice() as Volume['voxels'] });
      },
    },
  });
  return taken;
}

describe('traceStages()', () => {
  it('names steps of single inputs, of all, the network’s and those of labels, in order', () => {
    const inputs = {
      t1: { type: 'volume', preprocess: ['normalizeIntensity', flipped] },
      t2: { type: 'volume' },
    };
    expect(traceStages(networkOf({ ...steps, inputs }))).toEqual([
      'inputs.t1.preprocess[0]',
      'inputs.t1.preprocess[1]',
      'preprocess[0]',
      'preprocess[1]',
      'input',
      'window',
      'scores',
      'activation',
      'postprocess[2]',
      'postprocess[3]',
      'labels',
    ]);
  });

  it('knows only the own steps of inputs and the labels of a program', () => {
    const inputs = { volume: { type: 'volume', preprocess: [flipped] } };
    expect(traceStages(programOf({ inputs, preprocess: [flipped] }))).toEqual([
      'inputs.volume.preprocess[0]',
      'labels',
    ]);
  });
});

describe('predict() with a trace', () => {
  it('takes every stage once, in the order of traceStages()', async () => {
    const manifest = networkOf(steps);
    const taken = await trace(manifest, levels);
    expect([...taken.keys()]).toEqual(traceStages(manifest));
  });

  it('takes volumes where the stages have them', async () => {
    const taken = await trace(networkOf(steps), levels);
    const [nx] = size;
    const first = taken.get('preprocess[0]')!;
    // The x axis is reversed: its first voxel is the last of the scan.
    expect(first.voxels[0]).toBe(scan.voxels[nx - 1]);
    expect(taken.get('input')!.voxels).toBeInstanceOf(Float32Array);
    const [scores, probabilities] = [taken.get('scores')!, taken.get('activation')!];
    expect(taken.get('window')!.voxels).toEqual(scores.voxels);
    expect(scores.components).toBe(3);
    expect(scores.affine).toEqual(first.affine);
    // Scores of 1 for a class and 0 for the two others: e / (e + 2) by hand.
    const count = scores.voxels.length / 3;
    const chosen = [0, 1, 2].find((k) => scores.voxels[k * count] === 1)!;
    expect(probabilities.voxels[chosen * count]).toBeCloseTo(Math.E / (Math.E + 2), 6);
    expect(sameGrid(taken.get('labels')!, scan)).toBe(true);
  });

  it('has the labels of a prediction without a trace', async () => {
    for (const postprocess of [['argmax'], ['restore', 'argmax'], ['argmax', 'restore']]) {
      const manifest = networkOf({ ...steps, postprocess });
      const { outputs } = await run(manifest, levels, { formats: { segmentation: 'nii' } });
      const bytes = outputs.segmentation.data;
      const voxels = bytes.slice(bytes.length - scan.voxels.length);
      expect((await trace(manifest, levels)).get('labels')!.voxels).toEqual(voxels);
    }
  });

  it('takes only what is wanted, and lets the network reduce its scores if none is', async () => {
    const manifest = networkOf({ postprocess: ['argmax'] });
    const session = {
      run: () => Promise.reject(new Error('scores are not wanted')),
      runLabels: async () => ({
        data: Uint8Array.from({ length: 60 }, (_, i) => i % 3),
        dims: [1, 1, 3, 4, 5],
        integer: true as const,
      }),
    };
    const taken = await trace(manifest, { kind: 'network', session }, ['input', 'labels']);
    expect([...taken.keys()]).toEqual(['input', 'labels']);
  });

  it('takes every stage of several networks once, with the place of each', async () => {
    const merge = [{ from: 1, to: 4 }];
    const own = { preprocess: [flipped], postprocess: ['softmax', 'restore', 'argmax', 'fillHoles'] };
    const manifest = networkOf({
      preprocess: [flipped],
      model: [
        { ...onnx, merge, ...own },
        { ...onnx, merge, postprocess: ['argmax'] },
      ],
      postprocess: [{ labelFilter: { appliedLabels: [4] } }],
    });
    const stages = [
      'preprocess[0]',
      'model[0].preprocess[0]',
      ...['input', 'window', 'scores', 'activation'].map((stage) => `model[0].${stage}`),
      'model[0].postprocess[2]',
      'model[0].postprocess[3]',
      'model[0].labels',
      ...['input', 'window', 'scores', 'activation'].map((stage) => `model[1].${stage}`),
      'model[1].postprocess[0]',
      'model[1].labels',
      'postprocess[0]',
      'labels',
    ];
    expect(traceStages(manifest)).toEqual(stages);
    const taken = await trace(manifest, levels);
    expect([...taken.keys()]).toEqual(stages);
    // The network has flipped it back.
    expect(taken.get('model[0].input')!.voxels).toEqual(Float32Array.from(scan.voxels as Int16Array));
    expect(sameGrid(taken.get('model[1].labels')!, scan)).toBe(true);
    // Its own values, and those of the app.
    expect(new Set(taken.get('model[1].labels')!.voxels as Uint8Array)).toEqual(new Set([0, 1, 2]));
    expect(new Set(taken.get('labels')!.voxels as Uint8Array)).toEqual(new Set([0, 4]));
  });

  it('takes the labels of a program', async () => {
    const taken = await trace(programOf({ preprocess: [flipped] }), program(answer));
    expect([...taken.keys()]).toEqual(['labels']);
  });
});
