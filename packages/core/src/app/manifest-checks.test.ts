import { describe, expect, it } from 'vitest';
import { manifestSchema } from './manifest.ts';
import { crossFaults } from './manifest-checks.ts';

const sha256 = '0'.repeat(64);
const onnx = { runtime: 'onnx', file: 'net.onnx', sha256 };
const program = { runtime: 'module', file: 'app.ts' };
const inputs = {
  t1: { type: 'volume' },
  t2: { type: 'volume' },
  warp: { type: 'transform' },
  level: { type: 'slider', minimum: 0, maximum: 9 },
  mode: { type: 'radiobutton', options: ['fast', 'fine'] },
};
const outputs = { map: { type: 'LabelVolume' } };
const selftest = { inputs: { t1: 't1.nii' }, expected: 'labels.nii' };

/** A manifest without faults but for the keys that are given. */
const manifestWith = (keys: object) =>
  manifestSchema.parse({
    schemaVersion: 1,
    id: 'brain',
    name: 'Brain',
    description: 'A test.',
    version: '1.0.0',
    modality: 'MRI',
    anatomy: 'brain',
    task: 'segmentation',
    authors: ['Someone'],
    licence: 'MIT',
    intendedUse: 'Tests.',
    inputs,
    model: onnx,
    outputs,
    ...keys,
  });

/** The faults of a manifest as 'path: message'. */
const faultsOf = (keys: object) =>
  crossFaults(manifestWith(keys)).map(({ path, message }) => `${path.join('.')}: ${message}`);

describe('crossFaults()', () => {
  it.each<[string, object]>([
    ['a network on one of two volumes', {}],
    ['channels that are volumes', { model: { ...onnx, channels: ['t2', 't1'] } }],
    [
      'a model for each choice',
      { model: [onnx, onnx].map((m, i) => ({ ...m, when: { mode: ['fast', 'fine'][i] } })) },
    ],
    ['a program without volumes', { inputs: { level: inputs.level }, model: program }],
    ['a program with steps that need no scores', { model: program, postprocess: ['fillHoles', 'restore'] }],
    ['argmax, then restore', { postprocess: ['argmax', 'restore', 'check'] }],
    ['threshold', { postprocess: ['threshold'] }],
    ['an output from a label map', { outputs: { mesh: { type: 'VTKMesh', from: 'map' }, ...outputs } }],
    ['an output from the primary label map', { outputs: { ...outputs, mesh: { type: 'VTKMesh' } } }],
    ['rules for one volume and for all', { acceptance: [{ input: 't2' }, {}] }],
    ['a self-test', { selftest: { ...selftest, parameters: { mode: 'fine', level: 9 } } }],
    [
      'labels with different values',
      {
        labels: [
          { value: 1, name: 'a' },
          { value: 2, name: 'b' },
        ],
      },
    ],
    [
      'SUV after steps that move the values, and before those that change them',
      { preprocess: [{ flip: { axes: ['x'] } }, 'standardUptakeValue', 'divideByMax'] },
    ],
    [
      'SUV and another step under conditions',
      {
        preprocess: [
          { divideByMax: {}, when: { mode: 'fast' } },
          { standardUptakeValue: {}, when: { mode: 'fine' } },
        ],
      },
    ],
    [
      'one value under conditions that exclude each other',
      {
        labels: [
          { value: 1, name: 'a', when: { mode: 'fast', level: 1 } },
          { value: 1, name: 'b', when: { mode: 'fine', level: 1 } },
        ],
      },
    ],
  ])('takes %s', (_what, keys) => {
    expect(faultsOf(keys)).toEqual([]);
  });

  it.each<[string, object, string[]]>([
    [
      'steps of the wrong list',
      { preprocess: ['divideByMax', 'argmax'], postprocess: ['orientation'] },
      ['preprocess.1: argmax is not a preprocess', 'postprocess.0: orientation is not a postprocess'],
    ],
    [
      'conditions of steps',
      { preprocess: [{ divisiblePad: { k: 8 }, when: { mode: 'slow' } }] },
      ['preprocess.0.when.mode: must be one of: fast, fine'],
    ],
    [
      'SUV of values that were changed before',
      { preprocess: ['divideByMax', { flip: { axes: ['x'] } }, 'standardUptakeValue'] },
      ['preprocess.2: standardUptakeValue must come before divideByMax, which changes the values'],
    ],
    [
      'a program that callers may compute',
      { compute: 'anywhere', model: [{ runtime: 'command', command: ['true'] }] },
      [
        'compute: anywhere needs networks in ONNX files, and a model has the runtime command. Write server, or remove this key',
      ],
    ],
    ['no outputs', { outputs: {} }, ['outputs: an app has at least one output']],
    [
      'a network without volumes',
      { inputs: { level: inputs.level } },
      ['inputs: the runtime onnx needs a volume'],
    ],
    [
      'channels that are no volumes',
      { model: { ...onnx, channels: ['t1', 'level', 't3', 'warp'] } },
      [
        'model.channels: level is not a volume',
        'model.channels: t3 is not a volume',
        'model.channels: warp is not',
      ],
    ],
    [
      'the second of two models',
      { model: [onnx, { ...onnx, channels: ['level'], when: { speed: 1 } }] },
      ['model.1.when.speed: is not a parameter', 'model.1.channels: level is not a volume'],
    ],
    [
      'the condition of the only model',
      { model: { ...program, when: { mode: 'slow' } } },
      ['model.when.mode: must be one of'],
    ],
    [
      'argmax after a program',
      { model: program, postprocess: ['argmax'] },
      ['postprocess: argmax needs the class scores of a network'],
    ],
    [
      'threshold where one of the models is a program',
      { model: [onnx, program], postprocess: ['threshold'] },
      ['postprocess: threshold needs the class scores of a network'],
    ],
    [
      'argmax and threshold',
      { postprocess: ['argmax', 'threshold'] },
      ['postprocess: argmax, threshold or compose comes once'],
    ],
    [
      'softmax after a program',
      { model: program, postprocess: ['softmax'] },
      [
        'postprocess: softmax needs the class scores of a network',
        'postprocess.0: softmax needs argmax, threshold or',
      ],
    ],
    [
      'softmax and sigmoid',
      { postprocess: ['softmax', 'sigmoid', 'argmax'] },
      ['postprocess: softmax or sigmoid comes once'],
    ],
    [
      'softmax after argmax',
      { postprocess: ['argmax', 'softmax', 'restore'] },
      ['postprocess.1: softmax comes before restore, argmax, threshold and compose. Move it to the front'],
    ],
    [
      'sigmoid between restore and threshold',
      { postprocess: ['restore', 'sigmoid', 'threshold'] },
      ['postprocess.1: sigmoid comes before restore'],
    ],
    [
      'softmax before nothing that decides',
      { postprocess: ['softmax', 'restore'] },
      ['postprocess.0: softmax needs argmax, threshold or compose after it. Add one of them'],
    ],
    [
      'separate without fit',
      { preprocess: [{ spacing: { pixdim: [1, 1, 1], separate: 'auto' } }] },
      ['preprocess.0.spacing.separate: needs fit: true'],
    ],
    [
      'restore and restore',
      { postprocess: ['argmax', 'restore', 'restore'] },
      ['postprocess: restore comes once'],
    ],
    [
      'an output with the name of an input',
      { outputs: { ...outputs, t2: { type: 'LabelVolume' } } },
      ['outputs.t2: has the name of an input'],
    ],
    [
      'an output from no label map',
      {
        outputs: {
          ...outputs,
          mesh: { type: 'VTKMesh', from: 'text' },
          text: { type: 'PlainText', from: 'maps' },
        },
      },
      ['outputs.mesh.from: text is not an output', 'outputs.text.from: maps is not an output'],
    ],
    [
      'the condition of a label',
      {
        labels: [
          { value: 1, name: 'a' },
          { value: 2, name: 'b', when: { t1: 1 } },
        ],
      },
      ['labels.1.when.t1: is not a parameter'],
    ],
    [
      'a value that occurs twice',
      {
        labels: [
          { value: 7, name: 'a' },
          { value: 2, name: 'b' },
          { value: 7, name: 'c' },
        ],
      },
      ['labels.2.value: 7 occurs twice'],
    ],
    [
      'a value that one of three labels excludes',
      {
        labels: [
          { value: 7, name: 'a', when: { mode: 'fast' } },
          { value: 7, name: 'b', when: { mode: 'fine' } },
          { value: 7, name: 'c', when: { mode: 'fine' } },
        ],
      },
      ['labels.2.value: 7 occurs twice'],
    ],
    [
      'a rule for no volume',
      { acceptance: [{ input: 't1' }, { input: 'warp' }, { input: 't3' }] },
      ['acceptance.1.input: warp is not a volume', 'acceptance.2.input: t3 is not a volume'],
    ],
    [
      'an input with a word of requests',
      { inputs: { ...inputs, frame: { type: 'checkbox' } } },
      ['inputs.frame: is a word of requests (frame, series, service, format, formats, output)'],
    ],
    [
      'steps of one input',
      {
        inputs: {
          ...inputs,
          t2: { type: 'volume', preprocess: ['argmax', { flip: { axes: ['$nobody'] } }, { resize: {} }] },
        },
      },
      [
        'inputs.t2.preprocess.0: argmax is not a preprocess step',
        'inputs.t2.preprocess.1.flip: $nobody is not',
        'inputs.t2.preprocess.2.resize.size: ',
      ],
    ],
    [
      'a condition of a step of one input',
      { inputs: { ...inputs, t2: { type: 'volume', preprocess: [{ divideByMax: {}, when: { no: 1 } }] } } },
      ['inputs.t2.preprocess.0.when.no: is not a parameter'],
    ],
    [
      'two steps that make labels',
      { postprocess: ['argmax', { compose: [{ channel: 0, value: 1 }] }] },
      ['postprocess: argmax, threshold or compose comes once'],
    ],
    [
      'a rule of compose',
      {
        postprocess: [
          {
            compose: [
              { channel: 0, value: 1 },
              { channel: '$nobody', value: 2 },
            ],
          },
        ],
      },
      ['postprocess.0.compose: $nobody is not a slider'],
    ],
    [
      'a rule of compose without a value',
      { postprocess: [{ compose: [{ channel: 0, value: 1 }, { channel: 1 }] }] },
      ['postprocess.0.compose.1.value: '],
    ],
    [
      'a self-test without a label map',
      { outputs: { text: { type: 'PlainText' } }, selftest },
      ['selftest: needs a primary output of type LabelVolume'],
    ],
    [
      'a self-test of other inputs',
      { selftest: { ...selftest, inputs: { t1: 't1.nii', t3: 't3.nii', toString: 'a.nii' } } },
      ['selftest.inputs.t3: names no input', 'selftest.inputs.toString: names no input'],
    ],
    [
      'a self-test with a wrong parameter',
      { selftest: { ...selftest, parameters: { level: 10 } } },
      ['selftest.parameters: level is 10, but it must be a number from 0 to 9'],
    ],
    [
      'the second self-test',
      { selftest: [selftest, { ...selftest, inputs: { t3: 't3.nii' }, parameters: { level: 10 } }] },
      [
        'selftest.1.inputs.t3: names no input',
        'selftest.1.parameters: level is 10, but it must be a number from 0 to 9',
      ],
    ],
  ])('finds the faults of %s', (_what, keys, expected) => {
    expect(faultsOf(keys)).toEqual(expected.map((start) => expect.stringContaining(start)));
  });

  it('skips checks that depend on a missing key', () => {
    const { outputs: given, ...rest } = manifestWith({
      outputs: {},
      acceptance: [{ input: 't3' }],
      selftest,
    });
    expect(crossFaults({})).toEqual([]);
    expect(crossFaults({ outputs: given })).toHaveLength(1);
    expect(crossFaults(rest).map(({ path }) => path)).toEqual([['acceptance', 0, 'input']]);
    const { inputs: _inputs, ...without } = manifestWith({ acceptance: [{ input: 't3' }], outputs: {} });
    expect(crossFaults(without).map(({ path }) => path)).toEqual([['outputs']]);
  });
});
