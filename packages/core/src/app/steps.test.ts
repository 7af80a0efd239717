import { describe, expect, it } from 'vitest';
import type { Volume } from '../volume.ts';
import { type Input, inputSchema, labelSchema } from './elements.ts';
import { type Step, stepSchema } from './step.ts';
import {
  applies,
  applyTransform,
  checkConditions,
  checkSteps,
  labelsWith,
  parameterTrials,
  pipelineSteps,
  resolveParameters,
  stepNames,
  valuesAfterStep,
} from './steps.ts';

const steps = (...raw: unknown[]) => raw.map((step) => stepSchema.parse(step));
const slider = (minimum: number, maximum: number, standard = minimum): Input =>
  inputSchema.parse({ type: 'slider', minimum, maximum, default: standard });
const radio = (...options: string[]): Input => ({ type: 'radiobutton', options });
const checkbox = inputSchema.parse({ type: 'checkbox' });
const volume = inputSchema.parse({ type: 'volume' });
const fiducials = inputSchema.parse({ type: 'fiducials' });

describe('pipelineSteps', () => {
  it('has the steps that the tables of transforms do not have', () => {
    expect(Object.keys(pipelineSteps)).toEqual([
      'softmax',
      'sigmoid',
      'argmax',
      'threshold',
      'compose',
      'restore',
      'check',
    ]);
  });

  it.each(['softmax', 'sigmoid', 'argmax', 'restore', 'check'] as const)('%s takes no parameters', (name) => {
    expect(pipelineSteps[name].parse({})).toEqual({});
    expect(pipelineSteps[name].safeParse({ channel: 0 }).success).toBe(false);
  });

  it('threshold takes the first channel above 0.5 for label 1', () => {
    expect(pipelineSteps.threshold.parse({})).toEqual({ channel: 0, above: 0.5, value: 1 });
    for (const good of [{ channel: 7 }, { above: -2.5 }, { value: 65_535 }])
      expect(pipelineSteps.threshold.parse(good)).toMatchObject(good);
    for (const bad of [
      { channel: -1 },
      { channel: 0.5 },
      { above: '1' },
      { value: 0 },
      { value: 65_536 },
      { value: 1.5 },
      { below: 1 },
    ])
      expect(pipelineSteps.threshold.safeParse(bad).success).toBe(false);
  });

  it('compose takes a list of rules, each above 0.5 unless it says otherwise', () => {
    expect(pipelineSteps.compose.parse([{ channel: 1, value: 2 }])).toEqual([
      { channel: 1, above: 0.5, value: 2 },
    ]);
    const rule = { channel: 0, above: -3, value: 0 };
    expect(pipelineSteps.compose.parse([rule, rule])).toEqual([rule, rule]);
    const bad = [{ channel: 0 }, { value: 1 }, { ...rule, channel: -1 }, { ...rule, value: 65_536 }];
    for (const one of bad) expect(pipelineSteps.compose.safeParse([one]).success).toBe(false);
    expect(pipelineSteps.compose.safeParse([]).success).toBe(false);
    expect(pipelineSteps.compose.safeParse([{ ...rule, below: 1 }]).success).toBe(false);
  });

  it('argmax takes the score that background does not exceed', () => {
    expect(pipelineSteps.argmax.parse({ backgroundAtMost: -1.5 })).toEqual({ backgroundAtMost: -1.5 });
    expect(pipelineSteps.argmax.safeParse({ backgroundAtMost: '0' }).success).toBe(false);
  });
});

describe('stepSchema', () => {
  it.each<[unknown, Step]>([
    ['argmax', { name: 'argmax', parameters: {} }],
    [{ argmax: null }, { name: 'argmax', parameters: {} }],
    [{ spacing: { pixdim: [1, 2, 3] } }, { name: 'spacing', parameters: { pixdim: [1, 2, 3] } }],
    [
      { flip: { axes: ['x'] }, when: { mode: 'fast', level: 2, smooth: true } },
      {
        name: 'flip',
        parameters: { axes: ['x'] },
        when: { mode: 'fast', level: 2, smooth: true },
      },
    ],
    [{ compose: [{ channel: 1 }] }, { name: 'compose', parameters: [{ channel: 1 }] }],
  ])('reads %j', (raw, step) => {
    expect(stepSchema.parse(raw)).toEqual(step);
  });

  it.each<[unknown, string[], string]>([
    [{}, [], 'not nothing'],
    [{ when: { mode: 'fast' } }, [], 'not nothing'],
    [{ flip: {}, resize: {} }, [], 'not flip and resize'],
    [{ flip: ['x'] }, ['flip'], 'parameters by name'],
    [{ flip: 'x' }, ['flip'], 'parameters by name'],
    [{ flip: 0 }, ['flip'], 'parameters by name'],
    [{ compose: { channel: 1 } }, ['compose'], 'must be a list'],
    [{ compose: null }, ['compose'], 'must be a list'],
    [{ flip: {}, when: 'fast' }, ['when'], 'values by the names of inputs'],
    [{ flip: {}, when: { mode: ['fast'] } }, ['when'], 'values by the names of inputs'],
  ])('refuses %j', (raw, path, message) => {
    expect(stepSchema.safeParse(raw).error?.issues).toEqual([
      { code: 'custom', path, message: expect.stringContaining(message) },
    ]);
  });

  it.each(['', 5, null, ['flip']])('refuses %j, which names no step', (raw) => {
    expect(stepSchema.safeParse(raw).success).toBe(false);
  });
});

describe('stepNames()', () => {
  it('lists the steps of each kind in order', () => {
    expect(stepNames('preprocess')).toEqual(expect.arrayContaining(['flip', 'spacing', 'resize']));
    expect(stepNames('preprocess')).not.toContain('argmax');
    expect(stepNames('preprocess')).not.toContain('labelFilter');
    const after = stepNames('postprocess');
    expect(after).toEqual(expect.arrayContaining(['argmax', 'check', 'labelFilter', 'restore', 'threshold']));
    expect(after).not.toContain('flip');
    expect(after).toEqual([...after].sort());
  });
});

describe('checkSteps()', () => {
  const before = (inputs: Record<string, Input>, ...raw: unknown[]) =>
    checkSteps(steps(...raw), 'preprocess', inputs);
  const after = (inputs: Record<string, Input>, ...raw: unknown[]) =>
    checkSteps(steps(...raw), 'postprocess', inputs);

  it('takes steps that fit', () => {
    const inputs = { size: slider(1, 5), axis: radio('x', 'y'), each: checkbox };
    expect(
      before(
        inputs,
        { flip: { axes: ['$axis', 'z'] } },
        { gaussianSmooth: { sigma: ['$size', 2, '$size'] } },
        { divideByMax: { channelWise: '$each' }, when: { axis: 'y' } },
      ),
    ).toEqual([]);
    expect(after({}, 'argmax', { labelFilter: { appliedLabels: [1] } }, 'restore')).toEqual([]);
  });

  it.each(['argmax', 'labelFilter', 'toString'])('has no preprocess step %s', (name) => {
    const [fault, ...more] = before({}, 'divideByMax', name);
    expect(fault.path).toEqual([1]);
    expect(fault.message).toContain(
      `${name} is not a preprocess step. Available: castToType, centerSpatialCrop, `,
    );
    expect(more).toEqual([]);
  });

  it.each(['flip', 'toString'])('has no postprocess step %s', (name) => {
    expect(after({}, name)[0].message).toContain(`${name} is not a postprocess step. Available: argmax, `);
  });

  it('names each parameter that is wrong by its path', () => {
    const faults = before({}, 'divideByMax', { spacing: { pixdim: [1, 1001, 1002], mode: 'sinc' } });
    expect(faults.map(({ path }) => path)).toEqual([
      [1, 'spacing', 'pixdim', 1],
      [1, 'spacing', 'pixdim', 2],
      [1, 'spacing', 'mode'],
    ]);
    expect(before({}, { spacing: { pixdim: null } }).map(({ path }) => path)).toEqual([
      [0, 'spacing', 'pixdim'],
    ]);
    expect(after({}, { threshold: { value: 0 } }).map(({ path }) => path)).toEqual([
      [0, 'threshold', 'value'],
    ]);
  });

  it('continues after a faulty step', () => {
    const faults = before({}, 'nothing', { flip: { axes: ['$axis'] } }, { flip: { axes: ['w'] } });
    expect(faults.map(({ path }) => path)).toEqual([[0], [1, 'flip'], [2, 'flip', 'axes', 0]]);
  });

  it('names the condition of a step that is wrong', () => {
    const when = { axis: 'w', each: true, size: 99 };
    const inputs = { size: slider(1, 5), axis: radio('x', 'y') };
    expect(before(inputs, 'divideByMax', { divideByMax: null, when })).toEqual([
      { path: [1, 'when', 'axis'], message: 'must be one of: x, y' },
      { path: [1, 'when', 'each'], message: expect.stringContaining('is not a parameter') },
    ]);
  });

  it.each([
    ['a file', 'ct'],
    ['points', 'seeds'],
    ['nothing', 'other'],
    ['a method of objects', 'toString'],
  ])('refuses a reference to %s', (_what, name) => {
    const inputs = { ct: volume, seeds: fiducials };
    expect(before(inputs, { flip: { axes: ['x', `$${name}`] } })).toEqual([
      { path: [0, 'flip'], message: expect.stringContaining(`$${name} is not a slider`) },
    ]);
  });

  it.each<[string, Input, boolean]>([
    ['that all fit', slider(6, 26, 18), true],
    ['of which the minimum does not', slider(5, 26, 18), false],
    ['of which the maximum does not', slider(6, 27, 18), false],
    ['of which the default does not', slider(6, 26, 7), false],
  ])('tries the values of a slider %s', (_what, input, fits) => {
    const faults = after({ touch: input }, { fillHoles: { connectivity: '$touch' } });
    expect(faults.map(({ path }) => path)).toEqual(fits ? [] : [[0, 'fillHoles', 'connectivity']]);
  });

  it('tries both values of a checkbox and every option', () => {
    expect(before({ each: checkbox }, { divideByMax: { channelWise: '$each' } })).toEqual([]);
    expect(before({ each: checkbox }, { gaussianSmooth: { sigma: '$each' } })).toHaveLength(1);
    for (const options of [
      ['x', 'y', 'w'],
      ['w', 'x', 'y'],
    ])
      expect(before({ axis: radio(...options) }, { flip: { axes: ['$axis'] } })).toHaveLength(1);
  });

  it('tries values together', () => {
    const clip = { clipIntensityPercentiles: { lower: '$low', upper: '$high' } };
    expect(before({ low: slider(0, 40, 10), high: slider(50, 100, 90) }, clip)).toEqual([]);
    expect(before({ low: slider(0, 60, 10), high: slider(50, 100, 90) }, clip)).toEqual([
      expect.objectContaining({ path: [0, 'clipIntensityPercentiles', 'upper'] }),
    ]);
    expect(before({ low: slider(0, 40, 10), high: slider(30, 100, 90) }, clip)).toHaveLength(1);
  });

  it('tries at most 256 combinations', () => {
    const wrongAt = (index: number) =>
      before(
        { axis: radio(...Array.from({ length: 300 }, (_, i) => (i === index ? 'w' : 'x'))) },
        { flip: { axes: ['$axis'] } },
      );
    expect(wrongAt(255)).toHaveLength(1);
    expect(wrongAt(256)).toEqual([]);
  });
});

describe('checkConditions()', () => {
  const inputs = { level: slider(1, 5), each: checkbox, axis: radio('x', 'y'), ct: volume, seeds: fiducials };

  it.each<[Step['when']]>([
    [undefined],
    [{}],
    [{ each: true }],
    [{ each: false }],
    [{ axis: 'y' }],
    [{ level: 3 }],
  ])('takes %j', (when) => {
    expect(checkConditions(when, inputs)).toEqual([]);
  });

  it.each<[Record<string, string | number>, string]>([
    [{ each: 'true' }, 'must be one of: true, false'],
    [{ axis: 'w' }, 'must be one of: x, y'],
    [{ ct: 'a' }, 'is not a parameter among the inputs'],
    [{ seeds: 1 }, 'is not a parameter among the inputs'],
    [{ toString: 1 }, 'is not a parameter among the inputs'],
  ])('refuses %j', (when, message) => {
    expect(checkConditions(when, inputs)).toEqual([{ path: ['when', Object.keys(when)[0]], message }]);
  });
});

describe('applies()', () => {
  it.each<[Record<string, string | number> | undefined, boolean]>([
    [undefined, true],
    [{}, true],
    [{ mode: 'fast' }, true],
    [{ mode: 'fast', level: 2 }, true],
    [{ mode: 'fast', level: 3 }, false],
    [{ mode: 'fine', level: 2 }, false],
    [{ other: 'fast' }, false],
    [{ level: '2' }, false],
  ])('with %j is %j', (when, expected) => {
    expect(applies(when, { mode: 'fast', level: 2 })).toBe(expected);
  });
});

describe('labelsWith()', () => {
  it('leaves out labels whose condition is not met', () => {
    const labels = [
      { value: 1, name: 'a' },
      { value: 2, name: 'b', when: { mode: 'fine' } },
      { value: 3, name: 'c', when: { mode: 'fast' } },
    ].map((label) => labelSchema.parse(label));
    expect(labelsWith(labels, { mode: 'fast' }).map(({ name }) => name)).toEqual(['a', 'c']);
  });
});

describe('resolveParameters()', () => {
  const [clip, flip] = steps(
    { clipIntensityPercentiles: { lower: '$low', upper: 90 } },
    { flip: { axes: ['z', '$axis'] } },
  );

  it('puts in the values of the caller and defaults', () => {
    expect(resolveParameters(clip, 'preprocess', { low: 5 })).toEqual({
      lower: 5,
      upper: 90,
      channelWise: false,
    });
    expect(resolveParameters(flip, 'preprocess', { axis: 'x', low: 5 })).toEqual({ axes: ['z', 'x'] });
    expect(resolveParameters(steps('threshold')[0], 'postprocess', {})).toEqual({
      channel: 0,
      above: 0.5,
      value: 1,
    });
  });

  it('refuses null and what the step does not know', () => {
    const [step] = steps({ flip: { axes: null } });
    expect(() => resolveParameters(step, 'preprocess', {})).toThrow('axes');
    const [deep] = steps({ flip: { axes: ['x'], more: { a: '$axis' } } });
    expect(() => resolveParameters(deep, 'preprocess', {})).toThrow('more');
  });

  it('refuses values that a step does not take together', () => {
    expect(() => resolveParameters(clip, 'preprocess', { low: 95 })).toThrow(
      expect.objectContaining({
        code: 'BAD_INPUT',
        message: expect.stringMatching(/step clipIntensityPercentiles .* upper must be greater than lower/),
      }),
    );
    expect(() => resolveParameters(flip, 'preprocess', { axis: 'w' })).toThrow(/ axes\.1 /);
  });
});

describe('applyTransform()', () => {
  const labelMap: Volume = {
    voxels: Uint8Array.of(1, 2, 3, 1, 2, 3),
    size: [3, 2, 1],
    components: 1,
    affine: [2, 0, 0, 0, 0, 3, 0, 0, 0, 0, 5, 0, 0, 0, 0, 1],
  };

  it('runs the transform of the kind with the values of the caller', async () => {
    const context = { parameters: { axis: 'x', kept: 2 }, log: () => undefined };
    const [flip, filter] = steps(
      { flip: { axes: ['$axis'] } },
      { labelFilter: { appliedLabels: ['$kept'] } },
    );
    const flipped = await applyTransform(flip, 'preprocess', labelMap, context);
    expect([...flipped.voxels]).toEqual([3, 2, 1, 3, 2, 1]);
    const filtered = await applyTransform(filter, 'postprocess', labelMap, context);
    expect([...filtered.voxels]).toEqual([0, 2, 0, 0, 2, 0]);
  });
});

describe('valuesAfterStep()', () => {
  it.each<[unknown, number[]]>([
    [{ labelFilter: { appliedLabels: [1, '$kept'] } }, [0, 1, 3]],
    [{ mapLabelValue: { origLabels: [1, 2], targetLabels: ['$kept', 0] } }, [0, 3, 0, 3]],
    ['fillHoles', [0, 1, 2, 3]],
    ['restore', [0, 1, 2, 3]],
  ])('with %j is %j', (raw, expected) => {
    expect(valuesAfterStep([0, 1, 2, 3], steps(raw)[0], { kept: 3 })).toEqual(expected);
  });
});

describe('parameterTrials()', () => {
  const inputs: Record<string, Input> = {
    ct: volume,
    level: slider(1, 5, 2),
    each: inputSchema.parse({ type: 'checkbox', default: true }),
    axis: radio('x', 'y'),
    seeds: fiducials,
    marks: inputSchema.parse({ type: 'fiducials', optional: true }),
  };
  const standard = { level: 2, each: true, axis: 'x', marks: [] };
  type Parts = Partial<Parameters<typeof parameterTrials>[0]>;
  const trialsOf = (parts: Parts) =>
    parameterTrials({ inputs, preprocess: [], postprocess: [], model: [], labels: [], ...parts });
  /** The different values that one parameter has in the trials; the others have to have their defaults. */
  const valuesOf = (name: string, parts: Parts) => {
    const trials = trialsOf(parts);
    for (const trial of trials) expect({ ...trial, [name]: null }).toEqual({ ...standard, [name]: null });
    return [...new Set(trials.map((trial) => trial[name]))];
  };

  it('is the defaults where nothing depends on a parameter', () => {
    expect(trialsOf({ preprocess: steps('divideByMax') })).toEqual([standard]);
    expect(trialsOf({ inputs: {} })).toEqual([{}]);
  });

  const label = (when: Step['when']) => [
    { value: 1, name: 'a', when } as ReturnType<typeof labelSchema.parse>,
  ];
  it.each<[string, Parts]>([
    [
      'a step of one input',
      {
        inputs: {
          ...inputs,
          ct: { ...volume, preprocess: steps({ divideByMax: null, when: { axis: 'y' } }) },
        },
      },
    ],
    [
      'a reference in one input',
      { inputs: { ...inputs, ct: { ...volume, preprocess: steps({ flip: { axes: ['z', '$axis'] } }) } } },
    ],
    ['a preprocess step', { preprocess: steps({ divideByMax: null, when: { axis: 'y' } }) }],
    ['a postprocess step', { postprocess: steps({ argmax: null, when: { axis: 'y' } }) }],
    ['a model', { model: [{}, { when: { axis: 'y' } }] }],
    ['a label', { labels: label({ axis: 'y' }) }],
    ['a reference before', { preprocess: steps({ flip: { axes: ['z', '$axis'] } }) }],
    ['a reference after', { postprocess: steps({ fillHoles: { slicewise: '$axis' } }) }],
  ])('tries the options in the condition of %s', (_where, parts) => {
    expect(valuesOf('axis', parts)).toEqual(['x', 'y']);
  });

  it('tries both of a checkbox, and the ends and the default of a slider', () => {
    expect(valuesOf('each', { labels: label({ each: true }) }).sort()).toEqual([false, true]);
    expect(valuesOf('level', { labels: label({ level: 4 }) }).sort()).toEqual([1, 2, 5]);
  });

  it('tries values together', () => {
    const trials = trialsOf({ labels: label({ axis: 'x', each: true }) });
    expect(trials.map(({ axis, each }) => `${axis} ${each}`).sort()).toEqual([
      'x false',
      'x true',
      'y false',
      'y true',
    ]);
  });

  it('ignores conditions on unknown parameters', () => {
    expect(trialsOf({ labels: label({ ct: 1, seeds: 1, other: 1 }) })).toEqual([standard]);
  });

  it('stops at 256', () => {
    const flags = (count: number) => {
      const names = Array.from({ length: count }, (_, i) => `flag${i}`);
      return trialsOf({
        inputs: Object.fromEntries(names.map((name) => [name, checkbox])),
        labels: label(Object.fromEntries(names.map((name) => [name, true]))),
      });
    };
    expect(flags(3)).toHaveLength(8);
    expect(flags(9)).toHaveLength(256);
    expect(Object.keys(flags(9)[255])).toHaveLength(9);
  });
});
