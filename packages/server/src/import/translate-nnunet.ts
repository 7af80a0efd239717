import { requestWords } from '@tomaat/core';
import type { NnunetPlan } from './plan.ts';
import {
  inputNames,
  storedNote,
  type Translation,
  type TranslationFault,
  type WrittenStep,
} from './translation.ts';

/** What the folder does not say. */
export interface NnunetChoices {
  /**
   * Where the axes of the training files point to, such as `LPS`: neither plans nor fingerprint hold it, and nnU-Net does not
   * reorient. `stored` turns nothing, as nnU-Net.
   */
  readonly orientation: string;
  /** Whether windows are mirrored, as nnU-Net does by default: 8 times the work. */
  readonly mirror: boolean;
}

const axisNames = ['z', 'y', 'x'] as const;
const where = (plan: NnunetPlan, key: string) => `plans.json: ${plan.configuration}: ${key}`;

/**
 * A folder of nnU-Net v2 as parts of a manifest. Its order: crop to what is not 0, normalise, resample; then windows, scores
 * resampled, decision (nnunetv2 2.8.1, `DefaultPreprocessor`, `convert_predicted_logits_to_segmentation_with_correct_shape`).
 */
export function translateNnunet(plan: NnunetPlan, choices: NnunetChoices): Translation {
  const faults: TranslationFault[] = [];
  const fault = (key: string, choice: TranslationFault['choice'], text: string) =>
    faults.push({ path: where(plan, key), choice, text });
  if (plan.previousStage)
    fault(
      'previous_stage',
      'impossible',
      `the network takes the result of ${plan.previousStage}, too: a cascade. The import translates single networks alone`,
    );
  if (plan.preprocessor !== 'DefaultPreprocessor')
    fault('preprocessor_name', 'impossible', `${plan.preprocessor} is own code`);
  const steps: [step: WrittenStep, path: string][] = [];
  const orientation = plan.reader === 'NibabelIOWithReorient' ? 'RAS' : choices.orientation;
  steps.push([{ orientation: { axcodes: orientation } }, 'image_reader_writer']);
  const normalised = normalisation(plan, fault);
  steps.push(...normalised.steps);
  const spaced = resampling(plan, fault);
  if (spaced) steps.push([spaced, 'spacing']);
  const decided = decision(plan, fault);
  return {
    inputs: inputsOf(plan, normalised.ofInputs),
    preprocess: steps.map(([step]) => step),
    inferer: infererOf(plan, choices.mirror),
    postprocess: ['restore', decided.step],
    labels: decided.labels,
    faults,
    notes: notesOf(plan, choices, orientation),
    ...(leavesMirroring(plan, choices) && {
      conditions: 'Both were computed without mirroring, which nnUNetv2_predict does by default.',
    }),
    sources: steps.map(([, key], i) => ({ stage: `preprocess[${i}]`, path: where(plan, key) })),
  };
}

const leavesMirroring = (plan: NnunetPlan, { mirror }: NnunetChoices): boolean =>
  !mirror && Boolean(plan.mirrorAxes?.length);

function notesOf(plan: NnunetPlan, choices: NnunetChoices, orientation: string): string[] {
  const notes = [
    orientation === 'stored'
      ? storedNote
      : `The app turns every volume to ${orientation}, as nnU-Net does not. The training files must have been stored so.`,
  ];
  if (leavesMirroring(plan, choices))
    notes.push(
      'nnUNetv2_predict mirrors the windows by default; the app does not, and takes an eighth of the time. --mirror does it.',
    );
  if (plan.folds.length > 1)
    notes.push(`The folds ${plan.folds.join(', ')} are one network, which gives the mean of their scores.`);
  return notes;
}

function inputsOf(plan: NnunetPlan, steps: readonly (WrittenStep | undefined)[]): Translation['inputs'] {
  const { channelNames } = plan;
  const names = channelNames.length === 1 ? ['volume'] : inputNames(channelNames, requestWords);
  return Object.fromEntries(
    names.map((name, i) => {
      const own = steps[i];
      return [
        name,
        { label: channelNames[i].slice(0, 200), ...(own !== undefined && { preprocess: [own] }) },
      ];
    }),
  );
}

type Fault = (key: string, choice: TranslationFault['choice'], text: string) => void;

/** Crop and normalisation: one step for all channels, or each input's own where the schemes differ. */
function normalisation(plan: NnunetPlan, fault: Fault) {
  const channels = plan.channelNames.map((_, i) => ({
    scheme: plan.normalization[i] ?? plan.normalization[0],
    isMasked: plan.useMaskForNorm[i] ?? false,
  }));
  const written = channels.map(({ scheme, isMasked }, i) => schemeStep(plan, scheme, isMasked, i, fault));
  const isMasked = channels.some((channel) => channel.isMasked);
  const crop: [WrittenStep, string] = [
    { cropForeground: { nonzero: true, ...(isMasked && { fillHoles: true }) } },
    'crop_to_nonzero',
  ];
  const texts = new Set(written.map((step) => JSON.stringify(step)));
  if (texts.size === 1) {
    const steps: [WrittenStep, string][] =
      written[0] === undefined ? [crop] : [crop, [written[0], 'normalization_schemes']];
    return { steps, ofInputs: [] };
  }
  fault(
    'normalization_schemes',
    isMasked ? 'impossible' : 'approximated',
    'the channels are normalised by different schemes. The app does so before it stacks them, without the crop to what is not 0',
  );
  return { steps: [], ofInputs: written };
}

function schemeStep(
  plan: NnunetPlan,
  scheme: string,
  isMasked: boolean,
  channel: number,
  fault: Fault,
): WrittenStep | undefined {
  switch (scheme) {
    case 'NoNormalization':
      return undefined;
    case 'ZScoreNormalization':
      return { normalizeIntensity: { ...(isMasked && { foreground: true }), channelWise: true } };
    case 'RescaleTo01Normalization':
      return { scaleIntensity: { channelWise: true } };
    case 'RGBTo01Normalization':
      return { scaleIntensityRange: { aMin: 0, aMax: 255 } };
    case 'CTNormalization': {
      const of = plan.intensity[String(channel)];
      if (of) {
        const { mean, percentile_00_5: aMin, percentile_99_5: aMax } = of;
        const std = Math.max(of.std, 1e-8);
        const [bMin, bMax] = [(aMin - mean) / std, (aMax - mean) / std];
        return { scaleIntensityRange: { aMin, aMax, bMin, bMax, clip: true } };
      }
      fault(
        'foreground_intensity_properties_per_channel',
        'impossible',
        `the values of channel ${channel} are missing`,
      );
      return undefined;
    }
    default:
      fault('normalization_schemes', 'impossible', `${scheme} has no step in a manifest`);
      return undefined;
  }
}

const resamplingFunction = 'resample_data_or_seg_to_shape';

function resampling(plan: NnunetPlan, fault: Fault): WrittenStep | undefined {
  const { data, probabilities } = plan.resampling;
  for (const [part, { function: name }] of Object.entries({ data, probabilities })) {
    if (name !== resamplingFunction)
      fault(
        `resampling_fn_${part}`,
        'impossible',
        `${name} resamples otherwise than the steps of a manifest`,
      );
  }
  const mode = { 0: 'nearest', 1: 'linear', 3: 'cubic' }[Number(data.arguments.order ?? 3)];
  if (!mode)
    fault('resampling_fn_data_kwargs', 'impossible', `order ${data.arguments.order} is not 0, 1 or 3`);
  if (Number(data.arguments.order_z ?? 0) !== 0 || Number(probabilities.arguments.order_z ?? 0) !== 0)
    fault('resampling_fn_data_kwargs', 'impossible', 'order_z is not 0');
  if (Number(probabilities.arguments.order ?? 1) !== 1)
    fault('resampling_fn_probabilities_kwargs', 'impossible', 'order is not 1');
  // mm along x, y, z of the volume; 2d keeps the spacing across its slices.
  const spacing = plan.spacing.length === 2 ? [-1, ...plan.spacing] : plan.spacing;
  const pixdim = axisNames.map((_, i) => spacing[plan.transposeForward.indexOf(i as 0 | 1 | 2)]).reverse();
  const separate = separation(data.arguments.force_separate_z, pixdim, fault);
  return { spacing: { pixdim, mode, fit: true, ...(separate && { separate }) } };
}

function separation(force: unknown, pixdim: readonly number[], fault: Fault): string | undefined {
  if (force === null || force === undefined) return 'auto';
  if (force === false) return undefined;
  const coarsest = Math.max(...pixdim);
  const axis = 'xyz'[pixdim.indexOf(coarsest)];
  fault(
    'resampling_fn_data_kwargs',
    'approximated',
    `force_separate_z takes the axis of the largest spacing of each volume. The app takes ${axis}`,
  );
  return axis;
}

function infererOf(plan: NnunetPlan, mirror: boolean): Record<string, unknown> {
  const { transposeForward: order, patchSize } = plan;
  const isSlice = patchSize.length === 2;
  // The names of the network's axes in its order.
  const axes = (isSlice ? order.slice(1) : order).map((axis) => axisNames[axis]);
  const size = (name: string) => patchSize[axes.indexOf(name as 'x' | 'y' | 'z')];
  const inPlace = ['x', 'y', 'z'].filter((name) => axes.includes(name as 'x' | 'y' | 'z'));
  const mirrored = inPlace.filter((name) => plan.mirrorAxes?.includes(axes.indexOf(name as 'x' | 'y' | 'z')));
  return {
    ...(isSlice ? { type: 'slice', axis: axisNames[order[0]] } : { type: 'slidingWindow' }),
    roiSize: inPlace.map(size),
    overlap: 0.5,
    mode: 'gaussian',
    stepping: 'nnunet',
    ...(mirror && mirrored.length > 0 && { mirrorAxes: mirrored }),
  };
}

function decision(plan: NnunetPlan, fault: Fault): { step: WrittenStep; labels: Translation['labels'] } {
  const names = Object.entries(plan.labels).filter(([name]) => name !== 'background' && name !== 'ignore');
  const order = plan.regionsClassOrder;
  if (!order) {
    const labels = names.flatMap(([name, value]) =>
      typeof value === 'number' && value > 0 ? [{ value, name: name.slice(0, 100) }] : [],
    );
    return { step: 'argmax', labels };
  }
  // A score above 0 is a sigmoid above a half.
  const rules = order.map((value, channel) => ({ channel, above: 0, value }));
  if (order.length !== plan.classes || names.length !== order.length)
    fault(
      'regions_class_order',
      'impossible',
      `has ${order.length} values for ${names.length} regions and ${plan.classes} channels`,
    );
  const labels = order
    .map((value, i) => ({ value, name: (names[i]?.[0] ?? `label ${value}`).slice(0, 100) }))
    .filter(({ value }, i) => order.lastIndexOf(value) === i)
    .sort((a, b) => a.value - b.value);
  return { step: { compose: rules }, labels };
}
