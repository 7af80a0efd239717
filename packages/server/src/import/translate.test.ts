import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { type MonaiPlan, type NnunetPlan, type Plan, parsePlan } from './plan.ts';
import { translate } from './translate.ts';

/*
 * Plans as `exporter.py plan` wrote them with monai 1.6.1 and nnunetv2 2.8.1. The steps expected of them are those with which
 * test/import-fixtures.test.ts reaches the authors' label maps voxel by voxel.
 */

const recorded = (name: string): Plan =>
  parsePlan(
    JSON.parse(readFileSync(new URL(`../../test/import-plans/${name}.json`, import.meta.url), 'utf8')),
  );
const monai = (name: string) => recorded(name) as MonaiPlan;
const nnunet = recorded('nnunet') as NnunetPlan;
const choices = { orientation: 'stored', mirror: false };

/** A plan with other values of an argument of a step, by the end of its target. */
function withArguments(plan: MonaiPlan, target: string, changes: Record<string, unknown>): MonaiPlan {
  const change = (steps: MonaiPlan['preprocessing']) =>
    steps.map((step) =>
      step.target.endsWith(target) ? { ...step, arguments: { ...step.arguments, ...changes } } : step,
    );
  return {
    ...plan,
    preprocessing: change(plan.preprocessing),
    postprocessing: change(plan.postprocessing),
    inferer: plan.inferer && change([plan.inferer])[0],
  };
}

/** A plan whose steps after the network are these of its own, by the end of their target. */
function withOrder(plan: MonaiPlan, ...targets: string[]): MonaiPlan {
  const find = (target: string) => plan.postprocessing.find((step) => step.target.endsWith(target))!;
  return { ...plan, postprocessing: targets.map(find) };
}

describe('translate() of a bundle of MONAI', () => {
  it('has the author’s order of softmax, inversion and argmax', () => {
    const { preprocess, inferer, postprocess, labels, inputs, faults } = translate(
      recorded('spleen'),
      choices,
    );
    expect(preprocess).toEqual([
      { orientation: { axcodes: 'RAS' } },
      { spacing: { pixdim: [1.5, 1.5, 2] } },
      { scaleIntensityRange: { aMin: -57, aMax: 164, bMin: 0, bMax: 1, clip: true } },
    ]);
    expect(inferer).toEqual({ type: 'slidingWindow', roiSize: [48, 48, 32], overlap: 0.5, mode: 'constant' });
    expect(postprocess).toEqual(['softmax', 'restore', 'argmax']);
    expect(labels).toEqual([{ value: 1, name: 'spleen' }]);
    expect(inputs).toEqual({ volume: {} });
    expect(faults).toEqual([]);
  });

  it('takes evaluated expressions, texts for booleans, and labels by the nearest voxel', () => {
    const plan = withArguments(monai('whole-body'), 'NormalizeIntensityd', { nonzero: 'True' });
    const { preprocess, inferer, postprocess, labels } = translate(plan, choices);
    expect(preprocess).toEqual([
      { orientation: { axcodes: 'RAS' } },
      { spacing: { pixdim: [1.5, 1.5, 1.5] } },
      { normalizeIntensity: { nonzero: true } },
      { scaleIntensity: { minv: -1, maxv: 1 } },
    ]);
    expect(inferer).toEqual({
      type: 'slidingWindow',
      roiSize: [48, 48, 32],
      overlap: 0.25,
      mode: 'gaussian',
      paddingMode: 'replicate',
    });
    expect(postprocess).toEqual(['argmax', 'restore']);
    expect(labels.map(({ name }) => name)).toEqual([
      'spleen',
      'kidney_right',
      'kidney_left',
      'liver',
      'stomach',
      'aorta',
      'vertebrae',
    ]);
  });

  it('makes rules of a lambda over overlapping channels, and an input of each channel', () => {
    const { inputs, preprocess, postprocess, labels, faults, notes } = translate(recorded('brats'), choices);
    expect(Object.entries(inputs)).toEqual([
      ['t1c', { label: 'T1c' }],
      ['t1', { label: 'T1' }],
      ['t2', { label: 'T2' }],
      ['flair', { label: 'FLAIR' }],
    ]);
    expect(preprocess).toEqual([
      { orientation: { axcodes: 'stored' } },
      { normalizeIntensity: { nonzero: true, channelWise: true } },
    ]);
    expect(notes).toContainEqual(expect.stringContaining('the order of axes in which they are stored'));
    expect(postprocess).toEqual([
      'sigmoid',
      'restore',
      {
        compose: [
          { channel: 1, above: 0.5, value: 2 },
          { channel: 0, above: 0.5, value: 1 },
          { channel: 2, above: 0.5, value: 4 },
        ],
      },
    ]);
    expect(labels).toEqual([
      { value: 1, name: 'Tumor core' },
      { value: 2, name: 'Whole tumor' },
      { value: 4, name: 'Enhancing tumor' },
    ]);
    expect(faults).toEqual([]);
  });

  it.each([
    ['torch.int16', { object: 'torch.int16' }, 'int16'],
    ['a type of numpy', { function: 'int32' }, 'int32'],
    ['an object of numpy’s', { object: 'Int16DType' }, 'int16'],
    ['Python’s int, one for each key', [{ function: 'int' }, { object: 'torch.uint8' }], 'int32'],
  ])('cuts values off to whole numbers: %s', (_, dtype, expected) => {
    const plan = withArguments(monai('spleen'), 'EnsureTyped', { dtype });
    const { preprocess, faults } = translate(plan, choices);
    expect(preprocess.at(-1)).toEqual({ castToType: { dtype: expected } });
    expect(faults).toEqual([]);
  });

  it('has no step for fractions, and names the types that it does not follow', () => {
    const of = (dtype: unknown) =>
      translate(withArguments(monai('spleen'), 'EnsureTyped', { dtype }), choices);
    expect(of({ object: 'torch.float16' })).toEqual(of(null));
    expect(of('uint8').faults).toMatchObject([
      { choice: 'approximated', text: expect.stringContaining('EnsureType: makes values of uint8') },
    ]);
  });

  it('names the linear inversion of label numbers, which the app does not follow', () => {
    const { postprocess, faults } = translate(recorded('prostate'), choices);
    expect(postprocess).toEqual([
      'argmax',
      { keepLargestConnectedComponent: { appliedLabels: [1, 2] } },
      'restore',
    ]);
    expect(faults).toEqual([
      expect.objectContaining({ path: 'postprocessing#transforms#2', choice: 'approximated' }),
    ]);
    expect(faults[0].text).toContain('nearest_interp');
  });

  it('turns a probability after the inversion into a score', () => {
    const brats = withArguments(monai('brats'), 'AsDiscreted', { threshold: 0.8 });
    const { postprocess } = translate(
      withOrder(brats, 'Invertd', 'Activationsd', 'AsDiscreted', 'Lambdad'),
      choices,
    );
    // ln(0.8 / 0.2) = ln 4
    expect(postprocess).toEqual([
      'restore',
      {
        compose: [1, 0, 2].map((channel) =>
          expect.objectContaining({ channel, above: expect.closeTo(1.386294, 6) }),
        ),
      },
    ]);
  });

  it('makes scores by the nearest voxel labels by the nearest voxel', () => {
    const plan = withArguments(monai('spleen'), 'Invertd', { nearest_interp: true });
    expect(translate(plan, choices).postprocess).toEqual(['argmax', 'restore']);
    const brats = withArguments(monai('brats'), 'Invertd', { nearest_interp: true });
    const { postprocess } = translate(brats, choices);
    expect(postprocess[0]).toBe('sigmoid');
    expect(postprocess.at(-1)).toBe('restore');
  });

  it('takes half of a probability where the author does not decide', () => {
    const brats = { ...withOrder(monai('brats'), 'Activationsd', 'Invertd'), classes: 1 };
    const { postprocess, labels, faults } = translate(brats, choices);
    expect(postprocess).toEqual(['sigmoid', 'restore', { threshold: { above: 0.5 } }]);
    expect(labels).toEqual([expect.objectContaining({ value: 1 })]);
    expect(faults).toEqual([expect.objectContaining({ path: 'postprocessing', choice: 'approximated' })]);
    expect(translate(brats, choices).isProbabilities).toBe(true);
    expect(translate(recorded('brats'), choices)).not.toHaveProperty('isProbabilities');
    const late = translate(withOrder(brats, 'Invertd', 'Activationsd'), choices);
    // ln(0.5 / 0.5)
    expect(late.postprocess).toEqual(['restore', { threshold: { above: 0 } }]);
  });

  it('takes several files loaded by themselves as inputs with steps of their own', () => {
    const spleen = monai('spleen');
    const concat = {
      path: 'preprocessing#transforms#9',
      target: 'monai.transforms.utility.dictionary.ConcatItemsd',
      arguments: { keys: ['late', 'early'], name: 'image' },
    };
    const both = spleen.preprocessing.map((step) => ({
      ...step,
      arguments: { ...step.arguments, keys: ['early', 'late'] },
    }));
    const last = {
      ...spleen.preprocessing[4],
      arguments: { ...spleen.preprocessing[4].arguments, keys: 'image' },
    };
    const plan = { ...spleen, channels: 2, preprocessing: [...both.slice(0, 4), concat, last] };
    const { inputs, preprocess, faults } = translate(plan, choices);
    const steps = [{ orientation: { axcodes: 'RAS' } }, { spacing: { pixdim: [1.5, 1.5, 2] } }];
    expect(Object.keys(inputs)).toEqual(['late', 'early']);
    expect(Object.values(inputs).map((input) => input.preprocess)).toEqual([steps, steps]);
    expect(preprocess).toHaveLength(1);
    expect(faults).toEqual([]);
  });

  it.each<[string, MonaiPlan, string, string]>([
    [
      'own code',
      {
        ...monai('spleen'),
        preprocessing: [{ path: 'preprocessing#0', target: 'scripts.own.Shift', arguments: {} }],
      },
      'preprocessing#0',
      'scripts.own.Shift',
    ],
    [
      'a lambda that is a sum',
      {
        ...monai('brats'),
        postprocessing: monai('brats').postprocessing.map((step) => ({
          ...step,
          ...(step.table && { table: [0, 1, 2, 3, 4, 5, 6, 7] }),
        })),
      },
      'postprocessing#transforms#3',
      'order',
    ],
    [
      'an inferer of its own',
      withArguments(
        { ...monai('spleen'), inferer: { path: 'inferer', target: 'scripts.Own', arguments: {} } },
        'x',
        {},
      ),
      'inferer',
      'Own',
    ],
    [
      'another size of windows',
      withArguments(monai('spleen'), 'SlidingWindowInferer', { roi_size: [48, -1, 32] }),
      'inferer',
      'roi_size',
    ],
    [
      'a turned grid',
      withArguments(monai('spleen'), 'Spacingd', { diagonal: true }),
      'preprocessing#transforms#3',
      'diagonal',
    ],
    [
      'an unknown transform',
      {
        ...monai('spleen'),
        preprocessing: [
          {
            path: 'preprocessing#0',
            target: 'monai.transforms.intensity.dictionary.RandGibbsNoised',
            arguments: {},
          },
        ],
      },
      'preprocessing#0',
      'RandGibbsNoise',
    ],
    [
      'scores of several classes',
      withOrder(monai('spleen'), 'Activationsd', 'Invertd'),
      'postprocessing',
      'AsDiscreted(argmax=True)',
    ],
    [
      'masks that may overlap',
      withOrder(monai('brats'), 'Activationsd', 'Invertd', 'AsDiscreted'),
      'postprocessing#transforms#2',
      'is 3 masks',
    ],
    [
      'scores of one channel without an activation',
      { ...withOrder(monai('brats'), 'Invertd'), classes: 1 },
      'postprocessing',
      'Activationsd(sigmoid=True)',
    ],
    [
      'arguments that an expression hides',
      {
        ...monai('spleen'),
        preprocessing: [
          { path: '', target: 'monai.transforms.spatial.dictionary.Spacingd', arguments: null },
        ],
      },
      '',
      'expression',
    ],
  ])('names %s as impossible, with its place', (_, plan, path, text) => {
    const impossible = translate(plan, choices).faults.filter(({ choice }) => choice === 'impossible');
    expect(impossible).toEqual([expect.objectContaining({ path })]);
    expect(impossible[0].text).toContain(text);
  });
});

describe('translate() of a folder of nnU-Net', () => {
  it('has nnU-Net’s order: crop, normalise, resample with fit', () => {
    const { preprocess, inferer, postprocess, labels, inputs, faults } = translate(nnunet, choices);
    expect(preprocess).toEqual([
      { orientation: { axcodes: 'stored' } },
      { cropForeground: { nonzero: true } },
      {
        scaleIntensityRange: {
          aMin: -42,
          aMax: 74,
          // (−42 − 41.136573791503906) / 17.63341522216797, and of 74
          bMin: expect.closeTo(-4.714717639, 9),
          bMax: expect.closeTo(1.863701716, 9),
          clip: true,
        },
      },
      { spacing: { pixdim: [3, 3, 3.5], mode: 'cubic', fit: true, separate: 'auto' } },
    ]);
    expect(inferer).toEqual({
      type: 'slidingWindow',
      roiSize: [64, 56, 24],
      overlap: 0.5,
      mode: 'gaussian',
      stepping: 'nnunet',
    });
    expect(postprocess).toEqual(['restore', 'argmax']);
    expect(labels.map(({ value, name }) => `${value} ${name}`)).toEqual(['1 liver', '2 spleen', '3 aorta']);
    expect(inputs).toEqual({ volume: { label: 'CT' } });
    expect(faults).toEqual([]);
  });

  it('turns volumes to the order of the training files, and mirrors if asked to', () => {
    const { preprocess, inferer } = translate(nnunet, { orientation: 'LPS', mirror: true });
    expect(preprocess[0]).toEqual({ orientation: { axcodes: 'LPS' } });
    expect(inferer).toMatchObject({ mirrorAxes: ['x', 'y', 'z'] });
  });

  it('states that windows are not mirrored, unless they are or never were', () => {
    expect(translate(nnunet, choices).conditions).toContain('without mirroring');
    expect(translate(nnunet, { ...choices, mirror: true })).not.toHaveProperty('conditions');
    expect(translate({ ...nnunet, mirrorAxes: null }, choices)).not.toHaveProperty('conditions');
  });

  it('undoes the order of the network’s axes', () => {
    // The network's axes are x, z, y: spacing and patch are in that order.
    const plan: NnunetPlan = {
      ...nnunet,
      transposeForward: [2, 0, 1],
      spacing: [4, 1.5, 0.8],
      patchSize: [20, 96, 128],
      mirrorAxes: [0, 2],
    };
    const { preprocess, inferer } = translate(plan, { orientation: 'stored', mirror: true });
    expect(preprocess.at(-1)).toMatchObject({ spacing: { pixdim: [4, 0.8, 1.5] } });
    expect(inferer).toMatchObject({ roiSize: [20, 128, 96], mirrorAxes: ['x', 'y'] });
    const flat: NnunetPlan = { ...plan, spacing: [1.5, 0.8], patchSize: [96, 128], mirrorAxes: [0, 1] };
    const slices = translate(flat, { orientation: 'stored', mirror: true });
    expect(slices.preprocess.at(-1)).toMatchObject({ spacing: { pixdim: [-1, 0.8, 1.5] } });
    expect(slices.inferer).toMatchObject({
      type: 'slice',
      axis: 'x',
      roiSize: [128, 96],
      mirrorAxes: ['y', 'z'],
    });
  });

  it('makes rules of regions, and takes the mask of what is not 0', () => {
    const plan: NnunetPlan = {
      ...nnunet,
      channelNames: ['T2', 'ADC'],
      normalization: ['ZScoreNormalization', 'ZScoreNormalization'],
      useMaskForNorm: [true, true],
      labels: { background: 0, whole: [1, 2], core: [2] },
      classes: 2,
      regionsClassOrder: [1, 2],
    };
    const { inputs, preprocess, postprocess, labels, faults } = translate(plan, choices);
    expect(Object.keys(inputs)).toEqual(['t2', 'adc']);
    expect(preprocess.slice(1, 3)).toEqual([
      { cropForeground: { nonzero: true, fillHoles: true } },
      { normalizeIntensity: { foreground: true, channelWise: true } },
    ]);
    expect(postprocess[1]).toEqual({
      compose: [
        { channel: 0, above: 0, value: 1 },
        { channel: 1, above: 0, value: 2 },
      ],
    });
    expect(labels).toEqual([
      { value: 1, name: 'whole' },
      { value: 2, name: 'core' },
    ]);
    expect(faults).toEqual([]);
  });

  it('normalises channels by their own schemes, and says what that leaves out', () => {
    const plan: NnunetPlan = {
      ...nnunet,
      channelNames: ['CT', 'PET'],
      normalization: ['CTNormalization', 'ZScoreNormalization'],
      useMaskForNorm: [false, false],
    };
    const { inputs, preprocess, faults } = translate(plan, choices);
    expect(inputs.ct.preprocess).toEqual([{ scaleIntensityRange: expect.objectContaining({ aMin: -42 }) }]);
    expect(inputs.pet.preprocess).toEqual([{ normalizeIntensity: { channelWise: true } }]);
    expect(preprocess).toHaveLength(2);
    expect(faults).toEqual([
      expect.objectContaining({
        path: 'plans.json: 3d_fullres: normalization_schemes',
        choice: 'approximated',
      }),
    ]);
  });

  it.each<[string, Partial<NnunetPlan>, string]>([
    ['a cascade', { previousStage: '3d_lowres' }, 'previous_stage'],
    ['an own preprocessor', { preprocessor: 'Own' }, 'preprocessor_name'],
    ['an own scheme', { normalization: ['OwnNormalization'] }, 'normalization_schemes'],
    [
      'another resampling',
      { resampling: { ...nnunet.resampling, data: { function: 'resample_torch_fornnunet', arguments: {} } } },
      'resampling_fn_data',
    ],
  ])('names %s as impossible, with its place', (_, changes, key) => {
    const { faults } = translate({ ...nnunet, ...changes }, choices);
    expect(faults).toEqual([
      expect.objectContaining({ path: `plans.json: 3d_fullres: ${key}`, choice: 'impossible' }),
    ]);
  });
});

describe('parsePlan()', () => {
  it('names the key of a plan that is not as expected', () => {
    expect(() => parsePlan({ ...nnunet, patchSize: ['a', 2] })).toThrow(/patchSize/);
    expect(() => parsePlan({ kind: 'other' })).toThrow(/kind/);
  });
});
