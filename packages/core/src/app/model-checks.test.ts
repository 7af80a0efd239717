import { describe, expect, it } from 'vitest';
import { manifestSchema } from './manifest.ts';
import { crossFaults } from './manifest-checks.ts';

const onnx = { runtime: 'onnx', file: 'net.onnx', sha256: '0'.repeat(64) };
const program = { runtime: 'module', file: 'app.ts' };
const merge = [{ from: 1, to: 1 }];
const labels = [1, 2, 3].map((value) => ({ value, name: `label ${value}` }));
const low = { ...onnx, id: 'low' };
const takes = (id: string, values = [1]) => ({ ...onnx, channels: ['ct', { labelsOf: id, values }] });

const faultsOf = (keys: object) =>
  crossFaults(
    manifestSchema.parse({
      schemaVersion: 1,
      id: 'body',
      name: 'Body',
      description: 'A test.',
      version: '1.0.0',
      modality: 'CT',
      anatomy: 'body',
      task: 'segmentation',
      authors: ['Someone'],
      licence: 'MIT',
      intendedUse: 'Tests.',
      inputs: {
        ct: { type: 'volume' },
        mode: { type: 'radiobutton', options: ['fast', 'fine'] },
        ribs: { type: 'checkbox' },
      },
      outputs: { map: { type: 'LabelVolume' } },
      postprocess: ['argmax'],
      ...keys,
    }),
  ).map(({ path, message }) => `${path.join('.')}: ${message}`);

describe('crossFaults() of several models', () => {
  it('never merge the background', () => {
    const model = { ...onnx, merge: [{ from: 0, to: 1 }] };
    expect(() => faultsOf({ model })).toThrow('is the background, which stays what it is. Remove this rule');
  });

  it.each<[string, object]>([
    ['two that are merged', { model: [1, 2].map((to) => ({ ...onnx, merge: [{ from: 1, to }] })) }],
    ['one that is merged', { model: { ...onnx, merge } }],
    ['two values of one network to one label', { model: { ...onnx, merge: [...merge, { from: 2, to: 1 }] } }],
    [
      'merged ones, or one alone',
      {
        model: [
          { ...onnx, merge, when: { mode: 'fine' } },
          { ...onnx, when: { mode: 'fast' } },
        ],
      },
    ],
    ['labels of an earlier one', { model: [low, takes('low')] }],
    ['labels of one that is merged, too', { model: [{ ...low, merge }, { ...takes('low'), merge }] }],
    ['a source without merge', { model: [low, { ...takes('low'), merge }, { ...onnx, merge }] }],
    [
      'a source with a condition that the other has, too',
      {
        model: [
          { ...low, when: { mode: 'fine' } },
          { ...takes('low'), when: { mode: 'fine', ribs: true } },
          onnx,
        ],
      },
    ],
    [
      'names for all labels of each choice',
      {
        model: [
          { ...onnx, merge: [{ from: 1, to: 1 }], when: { mode: 'fast' } },
          { ...onnx, merge: [{ from: 1, to: 2 }], when: { ribs: true } },
        ],
        labels: labels.slice(0, 2),
      },
    ],
    [
      'labels that a later step makes of the merged ones',
      {
        model: { ...onnx, merge: [{ from: 1, to: 9 }, { from: 2, to: 8 }] },
        postprocess: ['argmax', { mapLabelValue: { origLabels: [9], targetLabels: [1] } }, { labelFilter: { appliedLabels: [1] } }],
        labels: labels.slice(0, 1),
      },
    ],
    [
      'steps that decide in the networks themselves',
      {
        model: [
          { ...onnx, merge, postprocess: ['softmax', 'restore', 'argmax'] },
          { ...onnx, merge, preprocess: ['normalizeIntensity'], postprocess: ['restore', { threshold: { above: 0 } }] },
        ],
        postprocess: ['fillHoles', 'check'],
      },
    ],
  ])('accepts %s', (_, keys) => {
    expect(faultsOf(keys)).toEqual([]);
  }); // biome-ignore format: one table

  it.each<[string, object, string[]]>([
    [
      'one without merge among those with it',
      { model: [{ ...onnx, merge }, onnx, { ...onnx, when: { ribs: true } }] },
      [
        'model.1: has no merge, and could run beside model.0, which has it. Add merge, or a when that excludes it',
        'model.2: has no merge, and could run beside model.0',
      ],
    ],
    ['a program among those with merge', { model: [{ ...onnx, merge }, program], postprocess: [] }, ['model.1: has no merge']],
    ['a value twice', { model: { ...onnx, merge: [...merge, { from: 1, to: 2 }] } }, ['model.merge.1.from: 1 occurs twice']],
    [
      'a value without a name',
      { model: [{ ...onnx, merge }, { ...onnx, merge: [{ from: 1, to: 2 }, { from: 2, to: 7 }] }], labels: labels.slice(0, 2) },
      ['model.1.merge.1.to: labels has no name for 7. Add it, or correct to'],
    ],
    [
      'a name that is missing with some parameters alone',
      { model: { ...onnx, merge }, labels: [{ ...labels[0], when: { ribs: true } }] },
      ['model.merge.0.to: labels has no name for 1'],
    ],
    [
      'a label that no network gives',
      { model: [{ ...onnx, merge }, { ...onnx, merge: [{ from: 5, to: 3 }] }], labels },
      ['labels.1.value: no merge gives 2. Add it to one, or remove the label'],
    ],
    [
      'a check before the labels are merged',
      { model: { ...onnx, merge }, postprocess: ['argmax', 'check', 'restore'] },
      ['postprocess.1: check comes after the steps of each network, which end with argmax, threshold, compose or restore'],
    ],
    ['two with one id', { model: [low, { ...low, when: { ribs: true } }] }, ['model.1.id: low occurs twice']],
    [
      'labels of an unknown one',
      { model: [low, takes('high')] },
      ['model.1.channels.1.labelsOf: high is not the id of a network. Available: low'],
    ],
    ['labels without any id', { model: [onnx, takes('low')] }, ['model.1.channels.1.labelsOf: low is not the id of a network. Give one an id']],
    ['labels of itself', { model: { ...takes('low'), id: 'low' } }, ['model.channels.1.labelsOf: names this network itself']],
    [
      'labels of each other',
      { model: [{ ...takes('b'), id: 'a' }, { ...takes('a'), id: 'b' }] },
      ['model.0.channels.1.labelsOf: b comes after this network. List it before'],
    ],
    [
      'labels of one that may not run',
      { model: [{ ...low, when: { mode: 'fine' } }, { ...takes('low'), when: { ribs: true } }] },
      ['model.1.channels.1.labelsOf: low runs only with mode: fine. Give this network the same condition in its when'],
    ],
    ['a value of a source twice', { model: [low, takes('low', [1, 2, 1])] }, ['model.1.channels.1.values: must name each value once']],
    [
      'labels alone',
      { model: [low, { ...onnx, channels: [{ labelsOf: 'low', values: [1] }] }] },
      ['model.1.channels: needs a volume input, whose grid the labels are brought to'],
    ],
    [
      'steps of a network that do not exist',
      { model: { ...onnx, preprocess: ['fillHoles'], postprocess: ['normalizeIntensity'] } },
      ['model.preprocess.0: fillHoles is not a preprocess step', 'model.postprocess.0: normalizeIntensity is not a postprocess step'],
    ],
    [
      'a decision in a network and for all',
      { model: [{ ...onnx, postprocess: ['argmax'] }, { ...onnx, postprocess: ['restore'], when: { ribs: true } }], postprocess: ['argmax', 'restore'] },
      ['postprocess: argmax, threshold or compose comes once', 'postprocess: restore comes once'],
    ],
    [
      'probabilities of a network that come too late',
      { model: { ...onnx, postprocess: ['restore', 'softmax'] } },
      ['model.postprocess.1: softmax comes before restore'],
    ],
    [
      'SUV and checks of one network',
      { model: { ...onnx, preprocess: ['standardUptakeValue'], postprocess: ['check'] } },
      ['model.preprocess.0: standardUptakeValue comes before', 'model.postprocess.0: check looks at the label map of the app'],
    ],
  ])('finds %s', (_, keys, expected) => {
    const found = faultsOf(keys);
    expect(found).toHaveLength(expected.length);
    for (const [i, message] of expected.entries()) expect(found[i].startsWith(message), found[i]).toBe(true);
  }); // biome-ignore format: one table

  it('is quick with many networks, parameters and values', () => {
    const many = Array.from({ length: 12 }, (_, i) => i);
    const inputs = {
      ct: { type: 'volume' },
      ...Object.fromEntries(many.map((i) => [`part${i}`, { type: 'checkbox' }])),
    };
    const model = many.map((i) => ({
      ...onnx,
      when: { [`part${i}`]: true },
      merge: Array.from({ length: 250 }, (_, k) => ({ from: k + 1, to: i * 250 + k + 1 })),
    }));
    const names = Array.from({ length: 3000 }, (_, k) => ({ value: k + 1, name: `label ${k + 1}` }));
    const start = performance.now();
    expect(faultsOf({ inputs, model, labels: names })).toEqual([]);
    expect(performance.now() - start).toBeLessThan(20_000);
  });
});
