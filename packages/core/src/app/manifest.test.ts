import { describe, expect, it } from 'vitest';
import { manifestSchema, primaryOutput, requestWords, reservedWords, volumeInputs } from './manifest.ts';

const text = (length: number) => 'x'.repeat(length);
const sha256 = '0123456789abcdef'.repeat(4);
const onnx = { runtime: 'onnx', file: 'net.onnx', sha256 };
const served = { runtime: 'oip', url: 'grpc://triton:8001', model: 'liver.v2' };
const program = { runtime: 'module', file: 'app.ts' };
const selftest = { inputs: { ct: 'ct.nii' }, expected: 'labels.nii' };
const parity = { verdict: 'exact', agree: 1, cases: 3, tool: 'tomaat 0.2.0' };

/** No more than what is required. */
const least = {
  schemaVersion: 1,
  id: 'liver',
  name: 'Liver',
  description: 'A test.',
  version: '1.0.0',
  modality: 'CT',
  anatomy: 'liver',
  task: 'segmentation',
  authors: ['Someone'],
  licence: 'MIT',
  intendedUse: 'Tests.',
  inputs: {},
  model: program,
  outputs: {},
};

/** The paths of what is wrong with a manifest that has these keys besides the required ones. */
const faultyPaths = (keys: object) =>
  (manifestSchema.safeParse({ ...least, ...keys }).error?.issues ?? []).map(({ path }) => path.join('.'));
/** The paths below `model` of what is wrong with one model; a list of models is the other branch of the union. */
const modelFaults = (model: object) => faultsBelow({ model });
const faultsBelow = (keys: object, branch = 0) =>
  (manifestSchema.safeParse({ ...least, ...keys }).error?.issues ?? []).flatMap((issue) =>
    issue.code === 'invalid_union'
      ? issue.errors[branch].map(({ path }) => path.join('.'))
      : [issue.path.slice(1).join('.')],
  );

describe('manifestSchema', () => {
  it('fills in the defaults', () => {
    expect(manifestSchema.parse(least)).toEqual({
      ...least,
      default: false,
      compute: 'server',
      preprocess: [],
      model: [program],
      postprocess: [],
      labels: [],
      acceptance: [],
      resultChecks: [],
      limits: { seconds: 1800 },
    });
    const { selftest: tried } = manifestSchema.parse({ ...least, selftest });
    expect(tried).toEqual([{ ...selftest, parameters: {}, dice: 0.99 }]);
  });

  it.each(Object.keys(least))('requires %s', (key) => {
    expect(faultyPaths({ [key]: undefined })).toEqual([key]);
  });

  it.each([
    { name: 'n' },
    { name: text(200) },
    { description: text(4000) },
    { version: text(40) },
    { modality: text(40) },
    { default: true },
    { licence: 'L' },
    { citation: 'A paper.' },
    { homepage: 'https://example.org/app' },
    { intendedUse: text(4000) },
    { limitations: text(4000) },
    { sample: 'ct.nii.gz' },
    { model: [program, onnx].map((model) => ({ ...model, when: { fast: true } })) },
    { selftest: [{ ...selftest, parameters: { level: 1 }, dice: 0 }] },
    { selftest: [{ ...selftest, dice: 1, agree: 1 }] },
    { parity: { ...parity, agree: 0, versions: { monai: '1.6.1' } } },
    { limits: { seconds: 0.001, concurrency: 1, memoryMb: 256 } },
    { limits: { seconds: 86_400 } },
  ])('takes %j', (keys) => {
    expect(manifestSchema.parse({ ...least, ...keys })).toMatchObject(keys);
  });

  it.each<[object, string]>([
    [{ schemaVersion: 2 }, 'schemaVersion'],
    [{ schemaVersion: 0 }, 'schemaVersion'],
    [{ name: '' }, 'name'],
    [{ name: text(201) }, 'name'],
    [{ description: '' }, 'description'],
    [{ description: text(4001) }, 'description'],
    [{ version: '' }, 'version'],
    [{ version: text(41) }, 'version'],
    [{ modality: '' }, 'modality'],
    [{ modality: text(41) }, 'modality'],
    [{ default: 'yes' }, 'default'],
    [{ authors: [] }, 'authors'],
    [{ authors: [''] }, 'authors.0'],
    [{ licence: '' }, 'licence'],
    [{ homepage: 'example' }, 'homepage'],
    [{ intendedUse: '' }, 'intendedUse'],
    [{ intendedUse: text(4001) }, 'intendedUse'],
    [{ limitations: text(4001) }, 'limitations'],
    [{ inputs: { '1st': { type: 'volume' } } }, 'inputs.1st'],
    [{ outputs: { 'a b': { type: 'LabelVolume' } } }, 'outputs.a b'],
    [{ labels: [{ value: 0, name: 'a' }] }, 'labels.0.value'],
    [{ acceptance: [{ shape: 1 }] }, 'acceptance.0'],
    [{ resultChecks: [{}] }, 'resultChecks.0.message'],
    [{ sample: '../ct.nii' }, 'sample'],
    [{ parity: { ...parity, verdict: 'good' } }, 'parity.verdict'],
    [{ parity: { ...parity, agree: 1.01 } }, 'parity.agree'],
    [{ parity: { ...parity, conditions: '' } }, 'parity.conditions'],
    [{ parity: { ...parity, cases: 0 } }, 'parity.cases'],
    [{ parity: { ...parity, tool: '' } }, 'parity.tool'],
    [{ parity: { ...parity, versions: { monai: 1 } } }, 'parity.versions.monai'],
    [{ limits: { seconds: 0 } }, 'limits.seconds'],
    [{ limits: { seconds: 86_400.5 } }, 'limits.seconds'],
    [{ limits: { concurrency: 0 } }, 'limits.concurrency'],
    [{ limits: { concurrency: 1.5 } }, 'limits.concurrency'],
    [{ limits: { memoryMb: 255 } }, 'limits.memoryMb'],
    [{ limits: { memoryMb: 256.5 } }, 'limits.memoryMb'],
    [{ limits: { minutes: 1 } }, 'limits'],
    [{ license: 'MIT' }, ''],
  ])('refuses %j at "%s"', (keys, path) => {
    expect(faultyPaths(keys)).toEqual([path]);
  });
});

describe('slugs', () => {
  it.each(['id', 'anatomy', 'task'])('%s is one lower-case word of at most 40 characters', (key) => {
    for (const good of ['a', '7t', 'a-b', text(40)]) expect(faultyPaths({ [key]: good })).toEqual([]);
    for (const bad of ['', 'A', '-a', 'a_b', 'a b', 'a/b', text(41)])
      expect(faultyPaths({ [key]: bad })).toEqual([key]);
  });

  it.each(
    'api services health metrics auth infer session datastore train info interface predict responses announce discover dicom-web assets monailabel auto3dseg gateway hooks'.split(
      ' ',
    ),
  )('%s is reserved from tasks alone', (word) => {
    const result = manifestSchema.safeParse({ ...least, task: word });
    expect(result.error?.issues).toEqual([
      expect.objectContaining({ path: ['task'], message: expect.stringContaining(word) }),
    ]);
    expect(faultyPaths({ id: word, anatomy: word })).toEqual([]);
  });

  it('reserves these words and no others', () => {
    expect(reservedWords).toHaveLength(21);
    expect(requestWords).toEqual(['frame', 'series', 'service', 'format', 'formats', 'output']);
  });
});

describe('paths', () => {
  it.each(['a', 'models/net.onnx', 'a..b', '..a/b', 'a/b..', './a', text(200)])('%s is inside', (path) => {
    expect(faultyPaths({ sample: path })).toEqual([]);
  });

  it.each(['', '/a', '\\a', 'c:\\a', 'C:a', '..', '../a', 'a/..', 'a/../b', 'a\\..\\b', '..\\a', text(201)])(
    '%j is not inside the folder of the app',
    (path) => {
      expect(faultyPaths({ sample: path })).toEqual(['sample']);
    },
  );
});

describe('model', () => {
  it('runs a network as a whole where no inferer is named', () => {
    const { model } = manifestSchema.parse({ ...least, model: onnx });
    expect(model).toEqual([{ ...onnx, inferer: expect.objectContaining({ type: 'simple' }) }]);
  });

  it.each([
    { ...onnx, input: 'x', output: 'y', channels: ['t1', 't2'], threads: 1 },
    { ...onnx, threads: 256 },
    { ...program, sha256 },
    served,
    {
      ...served,
      url: 'https://triton',
      version: '2',
      input: 'x',
      output: 'y',
      channels: ['t1'],
      timeoutSeconds: 0.5,
    },
    { ...served, input: 'image:0', output: '/head/Conv_output_0' },
    { runtime: 'command', command: ['p'] },
    { runtime: 'command', command: ['python', 'app.py'], environment: { OMP_NUM_THREADS: '1' } },
  ])('takes %j', (model) => {
    expect(manifestSchema.parse({ ...least, model }).model).toEqual([expect.objectContaining(model)]);
  });

  it.each<[object, string]>([
    [{ runtime: 'python', file: 'app.py' }, 'runtime'],
    [{ ...onnx, file: '/net.onnx' }, 'file'],
    [{ ...onnx, sha256: undefined }, 'sha256'],
    [{ ...onnx, sha256: sha256.slice(1) }, 'sha256'],
    [{ ...onnx, sha256: `${sha256}0` }, 'sha256'],
    [{ ...onnx, sha256: sha256.toUpperCase() }, 'sha256'],
    [{ ...onnx, sha256: sha256.replace('f', 'g') }, 'sha256'],
    [{ ...onnx, channels: [] }, 'channels'],
    [{ ...onnx, channels: ['1st'] }, 'channels.0'],
    [{ ...onnx, threads: 0 }, 'threads'],
    [{ ...onnx, threads: 257 }, 'threads'],
    [{ ...onnx, threads: 1.5 }, 'threads'],
    [{ ...onnx, when: 'fast' }, 'when'],
    [{ ...served, url: 'triton:8001' }, 'url'],
    [{ ...served, url: 'grpc://user:key@triton:8001' }, 'url'],
    [{ ...served, model: '' }, 'model'],
    [{ ...served, model: '../other' }, 'model'],
    [{ ...served, model: '..' }, 'model'],
    [{ ...served, version: 2 }, 'version'],
    [{ ...served, output: 'a\nb' }, 'output'],
    [{ ...served, output: 'x'.repeat(201) }, 'output'],
    [{ ...served, timeoutSeconds: 0 }, 'timeoutSeconds'],
    [{ ...served, file: 'a.onnx' }, ''],
    [{ ...program, file: '' }, 'file'],
    [{ ...program, sha256: '' }, 'sha256'],
    [{ ...program, channels: ['t1'] }, ''],
    [{ runtime: 'command', command: [] }, 'command'],
    [{ runtime: 'command', command: [''] }, 'command.0'],
    [{ runtime: 'command', command: ['p'], environment: { A: 1 } }, 'environment.A'],
    [{ runtime: 'command', command: ['p'], file: 'a' }, ''],
  ])('refuses %j at "%s"', (model, path) => {
    expect(modelFaults(model)).toEqual([path]);
  });

  it('is at least one', () => {
    expect(manifestSchema.safeParse({ ...least, model: [] }).success).toBe(false);
  });
});

describe('primaryOutput()', () => {
  it('is the first label map, else the first output', () => {
    const [text, one, two] = [
      { type: 'PlainText' },
      { type: 'LabelVolume' },
      { type: 'LabelVolume' },
    ] as const;
    expect(primaryOutput({ outputs: { text, one, two } })).toBe('one');
    expect(primaryOutput({ outputs: { two, text, one } })).toBe('two');
    expect(primaryOutput({ outputs: { text, more: { type: 'Measurements' } } })).toBe('text');
  });
});

describe('volumeInputs()', () => {
  it('names the volumes in order', () => {
    const { inputs } = manifestSchema.parse({
      ...least,
      inputs: {
        t2: { type: 'volume' },
        warp: { type: 'transform' },
        fast: { type: 'checkbox' },
        t1: { type: 'volume' },
      },
    });
    expect(volumeInputs({ inputs })).toEqual(['t2', 't1']);
  });

  it.each([
    [{ ...selftest, inputs: { ct: '/ct.nii' } }, 'inputs.ct'],
    [{ ...selftest, expected: '' }, 'expected'],
    [{ ...selftest, dice: -0.01 }, 'dice'],
    [{ ...selftest, dice: 1.01 }, 'dice'],
    [{ ...selftest, agree: -0.01 }, 'agree'],
    [{ ...selftest, agree: 1.01 }, 'agree'],
    [{ ...selftest, inputs: undefined }, 'inputs'],
    [{ ...selftest, tolerance: 1 }, ''],
  ])('refuses the self-test %j at "%s", alone and in a list', (test, path) => {
    expect(faultsBelow({ selftest: test })).toEqual([path]);
    const below = path === '' ? '' : `.${path}`;
    expect(faultsBelow({ selftest: [selftest, test] }, 1)).toEqual([`1${below}`]);
  });

  it('takes a list of self-tests, but not an empty one', () => {
    const strict = { ...selftest, agree: 1, dice: 0 };
    expect(manifestSchema.parse({ ...least, selftest: [selftest, strict] }).selftest).toEqual([
      { ...selftest, parameters: {}, dice: 0.99 },
      { ...strict, parameters: {} },
    ]);
    expect(faultsBelow({ selftest: [] }, 1)).toEqual(['']);
  });
});
