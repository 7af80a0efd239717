import { requestWords } from '@tomaat/core';
import { rulesOf } from './compose-rules.ts';
import { type Arguments, imageSteps, isTrue, labelSteps, UnknownValue } from './monai-steps.ts';
import type { MonaiPlan, MonaiStep } from './plan.ts';
import {
  type Choice,
  inputNames,
  storedNote,
  type Translation,
  type TranslationFault,
  type WrittenStep,
} from './translation.ts';

/** Transforms that a manifest does by itself: they read, write and convert. */
const withoutEffect: ReadonlySet<string> = new Set([
  'LoadImage',
  'SaveImage',
  'EnsureChannelFirst',
  'AddChannel',
  'AsChannelFirst',
  'EnsureType',
  'CastToType',
  'ToTensor',
  'ToDevice',
  'Identity',
  'SqueezeDim',
  'SelectItems',
  'DeleteItems',
  'FlattenSubKeys',
]);

/** Of those, the ones that cut images off to whole numbers if their type is one. */
const changesType: ReadonlySet<string> = new Set(['CastToType', 'EnsureType']);

const listOf = (value: unknown): unknown[] => (Array.isArray(value) ? value : [value]);
const textsOf = (value: unknown): string[] => listOf(value).filter((entry) => typeof entry === 'string');

/** The name of a transform without the suffix of its form for dictionaries. */
function nameOf({ target }: MonaiStep): string {
  const name = target.split('.').at(-1) ?? target;
  return target.includes('.dictionary.') ? name.replace(/(d|D|Dict)$/, '') : name;
}

const isMonai = ({ target }: MonaiStep) => target.startsWith('monai.');

interface Report {
  readonly faults: TranslationFault[];
  readonly notes: string[];
  fault(path: string, choice: Choice, text: string): void;
}

function createReport(): Report {
  const faults: TranslationFault[] = [];
  return { faults, notes: [], fault: (path, choice, text) => void faults.push({ path, choice, text }) };
}

/**
 * A MONAI bundle as parts of a manifest: transforms and inferer by a table, the order of activation, inversion and decision as the
 * author has it.
 */
export function translateMonai(plan: MonaiPlan): Translation {
  const report = createReport();
  const images = translateImages(plan, report);
  const inferer = translateInferer(plan.inferer, report);
  const labels = translateLabels(plan, report);
  if (plan.amp)
    report.notes.push(
      'amp is on: on a GPU the author’s own result is computed in half precision. The app computes in float32, as MONAI does on a CPU.',
    );
  return {
    ...images,
    inferer,
    postprocess: labels.steps,
    labels: labels.labels,
    faults: report.faults,
    notes: report.notes,
    ...(labels.isProbabilities && { isProbabilities: true }),
    sources: [...images.sources, ...labels.sources],
  };
}

function translateImages(plan: MonaiPlan, report: Report) {
  const loads = plan.preprocessing.filter((step) => nameOf(step) === 'LoadImage');
  const loaded = [...new Set(loads.flatMap(({ arguments: given }) => textsOf(given?.keys)))];
  const keys = loaded.filter((key) => !/label|mask|seg/i.test(key));
  const own = keys.length > 1;
  /** The key of all channels: the only one, or that of the concatenation. */
  let stacked = own ? undefined : (keys[0] ?? 'image');
  let channels = keys;
  const unturned: WrittenStep[] = plan.preprocessing.some((step) => nameOf(step) === 'Orientation')
    ? []
    : [{ orientation: { axcodes: 'stored' } }];
  if (unturned.length > 0) report.notes.push(storedNote);
  const preprocess: WrittenStep[] = own ? [] : [...unturned];
  const sources: { stage: string; path: string }[] = [];
  const ofInput = new Map<string, WrittenStep[]>(keys.map((key) => [key, [...unturned]]));
  for (const step of plan.preprocessing) {
    const given = step.arguments;
    if (given && nameOf(step) === 'ConcatItems' && own) {
      channels = textsOf(given.keys);
      stacked = String(given.name);
      continue;
    }
    const written = translateImage(step, report);
    if (written === undefined) continue;
    const on = textsOf(given?.keys);
    if (stacked !== undefined) {
      if (on.length > 0 && !on.includes(stacked)) continue;
      sources.push({ stage: `preprocess[${preprocess.length}]`, path: step.path });
      preprocess.push(written);
    } else for (const key of on) ofInput.get(key)?.push(written);
  }
  if (own && stacked === undefined)
    report.fault(
      'preprocessing',
      'impossible',
      `loads ${keys.join(', ')} without ConcatItemsd. The network of an app takes all channels in one tensor`,
    );
  return { inputs: own ? separateInputs(channels, ofInput, plan) : stackedInputs(plan), preprocess, sources };
}

function translateImage(step: MonaiStep, report: Report): WrittenStep | undefined {
  const name = nameOf(step);
  if (!isMonai(step)) {
    report.fault(step.path, 'impossible', `${step.target} is own code, which a manifest cannot hold`);
    return undefined;
  }
  if (withoutEffect.has(name) && !(changesType.has(name) && step.arguments)) return undefined;
  return byTable(imageSteps, name, step, report);
}

function byTable(
  table: typeof imageSteps,
  name: string,
  step: MonaiStep,
  report: Report,
): WrittenStep | undefined {
  const entry = Object.hasOwn(table, name) ? table[name] : undefined;
  if (!entry) {
    report.fault(step.path, 'impossible', `${name} has no step in a manifest`);
    return undefined;
  }
  if (!step.arguments) {
    report.fault(
      step.path,
      'impossible',
      `${name} is made by an expression, so its arguments cannot be read`,
    );
    return undefined;
  }
  try {
    return entry(step.arguments, (text) => report.fault(step.path, 'approximated', `${name}: ${text}`));
  } catch (error) {
    if (!(error instanceof UnknownValue)) throw error;
    report.fault(step.path, 'impossible', `${name}: ${error.message}`);
    return undefined;
  }
}

const inputFormat = (plan: MonaiPlan) => Object.values(plan.metadata.network_data_format?.inputs ?? {})[0];
const outputFormat = (plan: MonaiPlan) => Object.values(plan.metadata.network_data_format?.outputs ?? {})[0];

/** One volume for each channel of the network, named as the metadata names the channels. */
function stackedInputs(plan: MonaiPlan): Translation['inputs'] {
  if (plan.channels === 1) return { volume: {} };
  const names = inputFormat(plan)?.channel_def ?? {};
  const labels = Array.from({ length: plan.channels }, (_, i) => String(names[i] ?? `channel ${i + 1}`));
  const keys = inputNames(labels, requestWords);
  return Object.fromEntries(keys.map((key, i) => [key, { label: labels[i].slice(0, 200) }]));
}

function separateInputs(
  channels: readonly string[],
  steps: ReadonlyMap<string, readonly WrittenStep[]>,
  plan: MonaiPlan,
): Translation['inputs'] {
  const names = inputNames(channels, requestWords);
  const labels = inputFormat(plan)?.channel_def ?? {};
  return Object.fromEntries(
    names.map((name, i) => {
      const preprocess = steps.get(channels[i]) ?? [];
      const label = String(labels[i] ?? channels[i]).slice(0, 200);
      return [name, { label, ...(preprocess.length > 0 && { preprocess }) }];
    }),
  );
}

const paddings: Readonly<Record<string, string>> = {
  constant: 'constant',
  reflect: 'reflect',
  replicate: 'replicate',
};

function translateInferer(step: MonaiStep | null, report: Report): Record<string, unknown> {
  const name = step ? nameOf(step) : 'SimpleInferer';
  if (name === 'SimpleInferer') return { type: 'simple' };
  const known = ['SlidingWindowInferer', 'SlidingWindowInfererAdapt', 'SliceInferer'];
  if (!step?.arguments || !isMonai(step) || !known.includes(name)) {
    report.fault(step?.path ?? 'inferer', 'impossible', `${name} has no inferer in a manifest`);
    return { type: 'simple' };
  }
  const { arguments: given, path } = step;
  const isSlice = name === 'SliceInferer';
  const dimensions = isSlice ? 2 : 3;
  const sizes = listOf(given.roi_size).map(Number);
  const roiSize = sizes.length === 1 ? Array<number>(dimensions).fill(sizes[0]) : sizes;
  if (roiSize.length !== dimensions || !roiSize.every((n) => Number.isInteger(n) && n > 0))
    report.fault(
      path,
      'impossible',
      `roi_size is ${JSON.stringify(given.roi_size)}. A manifest needs a number for each axis`,
    );
  const padding = paddings[String(given.padding_mode ?? 'constant')];
  if (!padding)
    report.fault(path, 'impossible', `padding_mode ${given.padding_mode} is not one of a manifest`);
  const sigma = [...new Set(listOf(given.sigma_scale ?? 0.125).map(Number))];
  if (sigma.length > 1) report.fault(path, 'impossible', 'sigma_scale differs between the axes');
  return {
    ...(isSlice ? { type: 'slice', axis: 'xyz'[Number(given.spatial_dim ?? 0)] } : { type: 'slidingWindow' }),
    roiSize,
    overlap: given.overlap ?? 0.25,
    mode: String(given.mode ?? 'constant'),
    ...(sigma[0] !== 0.125 && { sigmaScale: sigma[0] }),
    ...(padding && padding !== 'constant' && { paddingMode: padding }),
    ...(Number(given.cval ?? 0) !== 0 && { paddingValue: Number(given.cval) }),
  };
}

type Label = Translation['labels'][number];

interface Post {
  readonly plan: MonaiPlan;
  readonly report: Report;
  readonly steps: WrittenStep[];
  readonly sources: { stage: string; path: string }[];
  labels: Label[];
  activation?: { name: 'softmax' | 'sigmoid'; isRestored: boolean; path: string };
  threshold?: { above: number; path: string };
  /** How the result came back to the author's grid: `scores` by linear interpolation, `labels` by the nearest voxel. */
  restored?: 'scores' | 'labels';
  /** Where scores are taken over by the nearest voxel: the same as labels by the nearest voxel, after the decision. */
  restoresLabels?: string;
  isDecided: boolean;
  /** Whether the author's result is probabilities. */
  isProbabilities?: boolean;
  /** Whether the step that decides is one that no manifest can say. */
  isRefused: boolean;
}

/** The steps from scores to labels. Their order decides: what stands before the inversion is interpolated. */
function translateLabels(plan: MonaiPlan, report: Report): Post {
  const post: Post = { plan, report, steps: [], sources: [], labels: [], isDecided: false, isRefused: false };
  for (const step of post.plan.postprocessing) takeStep(post, step);
  if (!post.isDecided && !post.isRefused) decideLate(post);
  if (post.restored === undefined)
    post.report.notes.push(
      'The author’s pipeline leaves its result on the network’s grid; the app returns it on the grid of the input.',
    );
  return post;
}

function pushStep(post: Post, step: WrittenStep, path: string): void {
  post.sources.push({ stage: `postprocess[${post.steps.length}]`, path });
  post.steps.push(step);
}

function takeStep(post: Post, step: MonaiStep): void {
  const name = nameOf(step);
  const given = step.arguments ?? {};
  const on = textsOf(given.keys);
  // Bundles evaluate with the same steps: those of the reference are not ours.
  if (on.length > 0 && !on.includes('pred')) return;
  if (step.table !== undefined) takeOwnCode(post, step, name);
  else if (name === 'Activations') activate(post, given, step.path);
  else if (name === 'Invert') invert(post, given, step.path);
  else if (name === 'AsDiscrete') discretise(post, given, step.path);
  else if (withoutEffect.has(name)) return;
  else if (!post.isDecided && Object.hasOwn(labelSteps, name))
    post.report.fault(step.path, 'impossible', `${name} comes before the scores are labels`);
  else {
    const written = byTable(labelSteps, name, step, post.report);
    if (written !== undefined) pushStep(post, written, step.path);
  }
}

function activate(post: Post, given: Arguments, path: string): void {
  const isRestored = post.restored === 'scores';
  if (isTrue(given.softmax)) post.activation = { name: 'softmax', isRestored, path };
  else if (isTrue(given.sigmoid)) post.activation = { name: 'sigmoid', isRestored, path };
  else if (given.other) post.report.fault(path, 'impossible', 'Activations has a function of its own');
}

function invert(post: Post, given: Arguments, path: string): void {
  const isNearest = isTrue(given.nearest_interp);
  if (post.isDecided) {
    if (!isNearest)
      post.report.fault(
        path,
        'approximated',
        'Invert interpolates label numbers linearly (nearest_interp: false), which makes labels that are between two others. The app takes the nearest voxel; set nearest_interp to true',
      );
    post.restored = 'labels';
    pushStep(post, 'restore', path);
    return;
  }
  if (isNearest) {
    post.restored = 'labels';
    post.restoresLabels = path;
    return;
  }
  post.restored = 'scores';
  if (post.activation) pushStep(post, post.activation.name, post.activation.path);
  pushStep(post, 'restore', path);
}

function discretise(post: Post, given: Arguments, path: string): void {
  if (given.to_onehot || post.isDecided) {
    const what = post.isDecided ? 'comes twice' : 'makes channels of labels (to_onehot)';
    post.report.fault(path, 'impossible', `AsDiscrete ${what}`);
    post.isRefused = true;
    return;
  }
  if (isTrue(given.argmax)) {
    const { classes } = post.plan;
    post.labels = Array.from({ length: classes - 1 }, (_, i) => labelOf(post, i + 1, i + 1));
    decide(post, 'argmax', path);
    return;
  }
  const above = Number(given.threshold ?? Number.NaN);
  if (!Number.isFinite(above)) return;
  post.threshold = { above: scoreOf(post, above, path), path };
  if (post.plan.classes > 1) return;
  post.labels = [labelOf(post, 1, 0)];
  decide(post, { threshold: { above: post.threshold.above } }, path);
}

/** A threshold of probabilities that are made after the inversion is one of the interpolated scores. */
function scoreOf(post: Post, above: number, path: string): number {
  if (!post.activation || !(post.activation.isRestored && post.restored === 'scores')) return above;
  if (post.activation.name === 'sigmoid' && above > 0 && above < 1) return Math.log(above / (1 - above));
  post.report.fault(
    path,
    'impossible',
    `${post.activation.name} after Invert, before a threshold of ${above}`,
  );
  return above;
}

function takeOwnCode(post: Post, step: MonaiStep, name: string): void {
  const { classes } = post.plan;
  const above = post.threshold?.above;
  const rules = step.table && above !== undefined ? rulesOf(step.table, classes, above) : undefined;
  if (!rules || post.isDecided) {
    const what = isMonai(step) ? `${name} with a function of its own` : `${step.target} is own code`;
    post.report.fault(
      step.path,
      'impossible',
      `${what}, which is not a choice between channels in a fixed order`,
    );
    post.isRefused = true;
    return;
  }
  post.labels = rules
    .filter(({ value }, i) => value > 0 && rules.findIndex((rule) => rule.value === value) === i)
    .map(({ channel, value }) => labelOf(post, value, channel))
    .sort((a, b) => a.value - b.value);
  decide(post, { compose: rules }, step.path);
}

const oneLabelMap =
  'Add AsDiscreted(argmax=True), or a step that composes one label map of them, to the postprocessing';

/** The author's result is scores, or several masks: only of one channel of probabilities there is a label map to compare. */
function decideLate(post: Post): void {
  const { classes } = post.plan;
  const path = post.threshold?.path ?? 'postprocessing';
  if (post.threshold) {
    const text = `the author’s result is ${classes} masks, which may overlap, and not one label map. ${oneLabelMap}`;
    post.report.fault(path, 'impossible', text);
  } else if (classes > 1 || post.activation?.name !== 'sigmoid') {
    const advice =
      classes > 1 ? oneLabelMap : 'Add Activationsd(sigmoid=True) and AsDiscreted(threshold=0.5)';
    post.report.fault(path, 'impossible', `the author’s result is scores, and not labels. ${advice}`);
  } else {
    post.report.fault(
      path,
      'approximated',
      'the author’s result is probabilities. The app returns where they are above 0.5',
    );
    post.isProbabilities = true;
    post.labels = [labelOf(post, 1, 0)];
    decide(post, { threshold: { above: scoreOf(post, 0.5, path) } }, path);
  }
}

function decide(post: Post, step: WrittenStep, path: string): void {
  const { name, isRestored, path: activationPath = path } = post.activation ?? {};
  // Before argmax softmax changes nothing, unless the probabilities are interpolated; a threshold is one of probabilities.
  if (name && !isRestored && post.restored !== 'scores' && step !== 'argmax')
    pushStep(post, name, activationPath);
  pushStep(post, step, path);
  post.isDecided = true;
  if (post.restoresLabels !== undefined) pushStep(post, 'restore', post.restoresLabels);
}

function labelOf(post: Post, value: number, channel: number): Label {
  const name = outputFormat(post.plan)?.channel_def?.[channel];
  if (typeof name === 'string' && name.trim() !== '') return { value, name: name.trim().slice(0, 100) };
  return { value, name: `label ${value}` };
}
