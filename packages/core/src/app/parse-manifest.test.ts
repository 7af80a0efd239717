import { describe, expect, it } from 'vitest';
import { TomaatError } from '../errors.ts';
import { primaryOutput } from './manifest.ts';
import { type ManifestFault, parseManifest } from './parse-manifest.ts';
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
  it('refuses keys that are maps, with a short message', () => {
    const faults = faultsOf('? '.repeat(80));
    expect(faults[0]).toEqual({ path: '(YAML)', message: 'a key must be text', line: 1 });
    expect(faultsOf(`${'k'.repeat(5000)}: 1`).every(({ message }) => message.length < 200)).toBe(true);
  });

  it('refuses undefined aliases and those that expand too far', () => {
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

  it('lists the first faults of an invalid file and counts the rest', () => {
    let message = '';
    try {
      parseManifest('{'.repeat(5) + ': ]\n'.repeat(200));
    } catch (error) {
      message = (error as TomaatError).message;
    }
    expect(message).toMatch(/and \d+ more$/);
    expect(message.split('\n').length).toBeLessThan(40);
  });

  it('names every fault at once: of keys, and of keys against each other', () => {
    const faults = faultsOf(
      head.replace('name: Liver\n', '').replace('licence: MIT', 'licence: 5') +
        body
          .replace('axcodes: RAS', 'axcodes: XYZ')
          .replace('mode: fast', 'mode: quick')
          .replace('report: volumes', 'from: report')
          .replace('- argmax', '- argmix')
          .concat('labels: [{ value: 1, name: a }, { value: 1, name: b }]\n')
          .concat('acceptance: [{ input: other }]\nresultChecks: 7\n'),
    );
    expect(faults.map(({ path }) => path).sort()).toEqual(
      [
        'acceptance.0.input',
        'labels.1.value',
        'licence',
        'name',
        'outputs.report.from',
        'postprocess.0',
        'preprocess.0.orientation.axcodes',
        'preprocess.1.when.mode',
        'resultChecks',
      ].sort(),
    );
    expect(faults.every(({ path, line }) => path === 'name' || line !== undefined)).toBe(true);
  });

  it('does not call what needs a faulty key wrong', () => {
    const faults = faultsOf(head + body.replace('volume: { type: volume }', 'volume: { type: hologram }'));
    expect(faults.map(({ path }) => path)).toEqual(['inputs.volume.type']);
  });

  it('reads a manifest and fills in defaults', () => {
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
      { path: 'version', message: 'is missing (text)', line: undefined },
      { path: 'task', message: expect.stringContaining('reserved word'), line: 7 },
    ]);
  });

  it.each([
    ['an unknown step', '- argmax', '- argmin', 'postprocess.0', 'argmin is not a postprocess step'],
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
      '$cat is not a slider',
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
      ['with the same condition', fast, 'name: lobe, when: { mode: fast }', 'labels.1.value', 'occurs twice'],
      ['with a condition on one of them', fast, 'name: lobe', 'labels.1.value', 'occurs twice'],
      [
        'with conditions on different parameters',
        fast,
        'name: lobe, when: { cut: 3 }',
        'labels.1.value',
        'occurs twice',
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

  it('refuses invalid YAML and names the line', () => {
    expect(faultsOf('a: [1,\nb: {')[0].line).toBeGreaterThan(0);
  });

  it('reports YAML errors in the parser’s words, one line each', () => {
    const [fault] = faultsOf('name: a\nid: b\nname: c\n');
    expect(fault).toMatchObject({ path: '(YAML)', line: 3 });
    expect(fault.message).toMatch(/^Map keys must be unique/);
    expect(fault.message).not.toContain('\n');
    // A key over two lines: it begins in the first of them.
    expect(faultsOf('name: a\nid\nmore: b\n')[0].line).toBe(2);
    const [alias] = faultsOf('name: *nowhere');
    expect(alias).toEqual({ path: '(YAML)', line: 1, message: expect.stringContaining('nowhere') });
    expect(alias.message).not.toContain('\n');
  });

  it('resolves a node 20 times, its anchor included', () => {
    const label = (i: number) => `  - { value: ${i}, name: *name }\n`;
    const text = (labels: number) =>
      `${head.replace('name: Liver', 'name: &name Liver')}${body}labels:\n${Array.from({ length: labels }, (_, i) => label(i + 1)).join('')}`;
    expect(parseManifest(text(19)).labels[18]).toEqual({ value: 19, name: 'Liver' });
    expect(faultsOf(text(20))[0].message).toMatch(/alias/i);
  });

  it.each<[string, string, string, ManifestFault]>([
    ['a missing key', 'licence: MIT\n', '', { path: 'licence', message: 'is missing (text)' }],
    ['no text', 'licence: MIT', 'licence: 5', { path: 'licence', message: 'must be text', line: 10 }],
    [
      'no number',
      'maximum: 9',
      'maximum: many',
      { path: 'inputs.cut.maximum', message: 'must be a number', line: 14 },
    ],
    [
      'no truth',
      'licence: MIT',
      'licence: MIT\ndefault: maybe',
      { path: 'default', message: 'must be true or false', line: 11 },
    ],
    [
      'no list',
      'authors: [Someone]',
      'authors: Someone',
      { path: 'authors', message: 'must be a list', line: 9 },
    ],
    [
      'no map',
      'licence: MIT',
      'licence: MIT\nlimits: 5',
      { path: 'limits', message: 'must be object', line: 11 },
    ],
    [
      'another version of the schema',
      'schemaVersion: 1',
      'schemaVersion: 2',
      { path: 'schemaVersion', message: 'must be 1', line: 1 },
    ],
    [
      'a word that is none of two',
      'type: volume }',
      'type: volume, frames: some }',
      { path: 'inputs.volume.frames', message: 'must be one or all', line: 13 },
    ],
    [
      'two unknown keys',
      'type: volume }',
      'type: volume, shape: 1, colour: 2 }',
      { path: 'inputs.volume', message: 'has the unknown key shape, colour', line: 13 },
    ],
    [
      'a type that there is not',
      'type: volume }',
      'type: hologram }',
      {
        path: 'inputs.volume.type',
        message:
          "must be one of 'volume' | 'slider' | 'checkbox' | 'radiobutton' | 'fiducials' | 'transform'",
        line: 13,
      },
    ],
    [
      'a path below a list',
      '- spacing: { pixdim: [2, 2, 2] }',
      '- spacing:\n      pixdim:\n        - 2\n        - 2\n        - 1001',
      {
        path: 'preprocess.1.spacing.pixdim.2',
        message: expect.stringContaining('1000') as unknown as string,
        line: 22,
      },
    ],
    [
      'what lies outside of every key',
      'licence: MIT',
      'licence: MIT\nlicense: MIT',
      { path: '(whole file)', message: 'has the unknown key license', line: 11 },
    ],
  ])('describes %s', (_what, from, to, fault) => {
    expect(faultsOf((head + body).replace(from, to))).toEqual([fault]);
  });

  it('shows the first 100 characters of an unknown key', () => {
    const [{ message }] = faultsOf(`${'k'.repeat(101)}: 1\n${head}${body}`);
    expect(message).toBe(`has the unknown key ${'k'.repeat(100)}`);
  });

  it.each(['', '5', 'text', '[]', 'null'])('refuses %j, which is not a map', (text) => {
    expect(faultsOf(text)).toEqual([
      { path: '(whole file)', message: expect.stringMatching(/^must be object/) },
    ]);
  });

  describe('of a model', () => {
    const withModel = (model: string) => (head + body).replace(/^model: .*$/m, `model: ${model}`);
    const paths = (model: string) => faultsOf(withModel(model)).map(({ path }) => path);

    it('names the faults of the form that is meant: one model, or a list', () => {
      expect(paths('{ runtime: onnx }')).toEqual(['model.file', 'model.sha256']);
      expect(paths('[{ runtime: onnx }]')).toEqual(['model.0.file', 'model.0.sha256']);
      expect(paths("[{ runtime: onnx, file: a, sha256: 'b' }]")).toEqual(['model.0.sha256']);
      expect(faultsOf(withModel('{ runtime: julia }'))).toEqual([
        { path: 'model.runtime', message: "must be one of 'onnx' | 'oip' | 'module' | 'command'", line: 20 },
      ]);
    });

    it('chooses the fewer faults where both are as deep', () => {
      const sha = `${'0'.repeat(64)}`;
      expect(
        paths(
          `{ runtime: onnx, file: a, sha256: '${sha}', inferer: { type: slidingWindow, overlap: [0, 0, 2] } }`,
        ),
      ).toEqual(['model.inferer.roiSize', 'model.inferer.overlap.2']);
      expect(paths(`{ runtime: onnx, file: a, sha256: '${sha}', when: { mode: [] } }`)).toHaveLength(1);
    });
  });

  describe('message', () => {
    const messageOf = (text: string, fileName?: string) => {
      try {
        parseManifest(text, fileName);
      } catch (error) {
        return (error as TomaatError).message;
      }
      return '';
    };
    /** Labels of which so many have no name; the first is in line 29. */
    const withFaults = (count: number) =>
      `${head}${body}labels:\n${Array.from({ length: count }, (_, i) => `  - { value: ${i + 1} }\n`).join('')}`;

    it('names the file, each fault and its line', () => {
      expect(messageOf(withFaults(1))).toBe(
        'tomaat.yaml has a fault. Correct the following:\n  line 29: labels.0.name: is missing (text)',
      );
      expect(messageOf(withFaults(2), 'b.yaml')).toBe(
        'b.yaml has 2 faults. Correct the following:\n  line 29: labels.0.name: is missing (text)\n  line 30: labels.1.name: is missing (text)',
      );
      expect(messageOf((head + body).replace('licence: MIT\n', ''))).toMatch(/:\n {2}licence: is missing/);
    });

    it('shows 30 faults and counts the others', () => {
      const lines = (count: number) => messageOf(withFaults(count)).split('\n');
      expect(lines(30)).toHaveLength(31);
      expect(lines(30).at(-1)).toContain('labels.29.name');
      expect(lines(31)).toHaveLength(32);
      expect(lines(31).at(-2)).toContain('labels.29.name');
      expect(lines(31).at(-1)).toBe('  and 1 more');
      expect(lines(33).at(-1)).toBe('  and 3 more');
      expect(faultsOf(withFaults(33))).toHaveLength(33);
    });
  });
});
