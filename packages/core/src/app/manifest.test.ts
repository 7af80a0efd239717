import { describe, expect, it } from 'vitest';
import { TomaatError } from '../errors.ts';
import { type ManifestFault, parseManifest, primaryOutput } from './manifest.ts';
import { labelsWith } from './steps.ts';

const head = `schemaVersion: 1
id: liver
name: Liver
description: A test.
version: 1.0.0
modality: CT
anatomy: liver
task: segmentation
authors: [Someone]
licence: MIT
intendedUse: Tests.
`;
const body = `inputs:
  volume: { type: volume }
  cut: { type: slider, minimum: 0, maximum: 9 }
  mode: { type: radiobutton, options: [fast, fine] }
preprocess:
  - orientation: { axcodes: RAS }
  - spacing: { pixdim: [2, 2, 2] }
    when: { mode: fast }
model: { runtime: onnx, file: model.onnx, sha256: '${'0'.repeat(64)}' }
postprocess:
  - argmax
  - keepLargestConnectedComponent
  - restore
outputs:
  report: { type: PlainText, report: volumes }
  segmentation: { type: LabelVolume }
`;

function faultsOf(text: string): ManifestFault[] {
  try {
    parseManifest(text);
    return [];
  } catch (error) {
    expect(error).toBeInstanceOf(TomaatError);
    expect((error as TomaatError).code).toBe('BAD_MANIFEST');
    return (error as TomaatError).detail?.faults as ManifestFault[];
  }
}

describe('parseManifest()', () => {
  it('refuses keys that are maps, each of which would be named by all that is in it', () => {
    const faults = faultsOf('? '.repeat(80));
    expect(faults[0]).toEqual({ path: '(YAML)', message: 'a key has to be text', line: 1 });
    expect(faultsOf(`${'k'.repeat(5000)}: 1`).every(({ message }) => message.length < 200)).toBe(true);
  });

  it('refuses aliases that lead nowhere or unfold into too much, as any other fault', () => {
    for (const text of [
      'name: *nowhere',
      'e: {[]}\nr: {*a}\n}',
      `a: &a [1, 1]\n${'b: [*a, *a, *a, *a]\n'.repeat(9)}`,
    ])
      expect(faultsOf(text).length).toBeGreaterThan(0);
    const bomb = Array.from(
      { length: 12 },
      (_, i) => `k${i}: &k${i} [${`*k${i - 1}, `.repeat(i === 0 ? 0 : 9)} 1]`,
    ).join('\n');
    expect(faultsOf(bomb)[0].message).toMatch(/alias/i);
  });

  it('lists the first faults of a file that is none, and says how many more there are', () => {
    let message = '';
    try {
      parseManifest('{'.repeat(5) + ': ]\n'.repeat(200));
    } catch (error) {
      message = (error as TomaatError).message;
    }
    expect(message).toMatch(/and \d+ more$/);
    expect(message.split('\n').length).toBeLessThan(40);
  });

  it('reads a manifest and fills in what is left out', () => {
    const manifest = parseManifest(head + body);
    expect(manifest.model[0]).toMatchObject({ runtime: 'onnx', inferer: { type: 'simple' } });
    expect(manifest.postprocess.map((step) => step.name)).toEqual([
      'argmax',
      'keepLargestConnectedComponent',
      'restore',
    ]);
    expect(manifest.preprocess[1].when).toEqual({ mode: 'fast' });
    expect(manifest.limits.seconds).toBe(1800);
    expect(primaryOutput(manifest)).toBe('segmentation');
  });

  it('reports every fault with its path and line', () => {
    const faults = faultsOf(
      head.replace('version: 1.0.0\n', '').replace('task: segmentation', 'task: predict') + body,
    );
    expect(faults).toEqual([
      { path: 'version', message: 'is missing: it is text', line: undefined },
      { path: 'task', message: expect.stringContaining('reserved word'), line: 7 },
    ]);
  });

  it.each([
    ['an unknown step', '- argmax', '- argmin', 'postprocess.0', 'argmin is no postprocess step'],
    [
      'a parameter of the wrong type',
      'axcodes: RAS',
      'axcodes: RAT',
      'preprocess.0.orientation.axcodes',
      'three letters',
    ],
    ['an unknown parameter', 'axcodes: RAS', 'axcode: RAS', 'preprocess.0.orientation', 'axcode'],
    [
      'a reference to no input',
      'pixdim: [2, 2, 2]',
      'pixdim: [$cat, 2, 2]',
      'preprocess.1.spacing',
      '$cat names no slider',
    ],
    [
      'a value that no input has',
      'when: { mode: fast }',
      'when: { mode: slow }',
      'preprocess.1.when.mode',
      'one of: fast, fine',
    ],
    ['a path out of the folder', 'model.onnx', '../model.onnx', 'model.file', 'inside the app'],
    ['a path to the root', 'model.onnx', '/model.onnx', 'model.file', 'inside the app'],
    ['an output with the name of an input', 'report:', 'volume:', 'outputs.volume', 'name of an input'],
    ['an unknown key', 'licence: MIT', 'licence: MIT\nlicense: MIT', '(whole file)', 'license'],
    ['a default out of bounds', 'maximum: 9', 'maximum: 9, default: 10', 'inputs.cut.default', 'between'],
  ])('refuses %s', (_what, from, to, path, message) => {
    const faults = faultsOf((head + body).replace(from, to));
    expect(faults.map((fault) => fault.path)).toContain(path);
    expect(faults.find((fault) => fault.path === path)?.message).toContain(message);
  });

  describe('labels of one value', () => {
    const withLabels = (...labels: string[]) =>
      `${head}${body}labels:\n${labels.map((label) => `  - { value: 1, ${label} }\n`).join('')}`;
    const fast = 'name: liver, when: { mode: fast }';

    it('are fine where a parameter keeps them apart; labelsWith() gives those that count', () => {
      const { labels } = parseManifest(withLabels(fast, 'name: left lobe, when: { mode: fine }'));
      expect(labelsWith(labels, { mode: 'fast', cut: 1 }).map(({ name }) => name)).toEqual(['liver']);
      expect(labelsWith(labels, { mode: 'fine', cut: 1 }).map(({ name }) => name)).toEqual(['left lobe']);
    });

    it.each([
      ['with the same condition', fast, 'name: lobe, when: { mode: fast }', 'labels.1.value', 'there twice'],
      ['with a condition on one of them', fast, 'name: lobe', 'labels.1.value', 'there twice'],
      [
        'with conditions on different parameters',
        fast,
        'name: lobe, when: { cut: 3 }',
        'labels.1.value',
        'there twice',
      ],
      [
        'with a value that no input has',
        fast,
        'name: lobe, when: { mode: slow }',
        'labels.1.when.mode',
        'one of: fast, fine',
      ],
    ])('are refused %s', (_what, first, second, path, message) => {
      const faults = faultsOf(withLabels(first, second));
      expect(faults.find((fault) => fault.path === path)?.message).toContain(message);
    });
  });

  it('tries a $reference with every bound of its input', () => {
    const faults = faultsOf(
      (head + body)
        .replace('maximum: 9', 'maximum: 5000')
        .replace('pixdim: [2, 2, 2]', 'pixdim: [$cut, 2, 2]'),
    );
    expect(faults[0]).toMatchObject({ path: 'preprocess.1.spacing.pixdim.0' });
  });

  it('refuses YAML that is none, naming the line', () => {
    expect(faultsOf('a: [1,\nb: {')[0].line).toBeGreaterThan(0);
  });
});
