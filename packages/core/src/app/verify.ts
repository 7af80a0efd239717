import { TomaatError } from '../errors.ts';
import { identity } from '../geometry/affine.ts';
import { checkScoresShape } from '../inferers/checks.ts';
import { rulesOf } from '../inferers/reduce.ts';
import { sliceDims, sliceSession, sliceSize, withinSlice } from '../inferers/slices.ts';
import type { NetworkSession } from '../inferers/spec.ts';
import { isLabelTensor, type LabelTensor, type Tensor } from '../tensor.ts';
import type { Grid, Size } from '../volume.ts';
import type { Manifest, NetworkSpec } from './manifest.ts';
import {
  channelCount,
  labelChannelsOf,
  modelsFor,
  placeOf,
  stepsOfInput,
  stepsOfLabels,
  stepsOfResult,
  volumeChannels,
} from './networks.ts';
import { reductionBy, reductionOf, thresholdValue } from './postprocess.ts';
import type { Step } from './step.ts';
import {
  activationOf,
  gridAfter,
  isScoreStep,
  labelsWith,
  ownSteps,
  parameterTrials,
  valuesAfterStep,
} from './steps.ts';
import type { Parameter } from './values.ts';

/** The result of trying a network: every fault, and a summary in one line. */
export interface NetworkReport {
  /** Each says what is wrong and what to do; empty if network and manifest match. */
  readonly faults: readonly string[];
  /** Such as “1 × 2 × 96 × 96 × 96 (batch × components × z × y × x) → 4 classes”. */
  readonly summary: string;
}

/**
 * Tries a network as the manifest uses it, on one window of zeros: its input against the volumes and steps of the
 * manifest, its output against the labels. Never throws for a fault of network or manifest.
 */
export async function verifyNetwork(
  manifest: Manifest,
  spec: NetworkSpec,
  session: NetworkSession,
): Promise<NetworkReport> {
  const faults = new Set<string>();
  const { inferer } = spec;
  let tried = session;
  if (inferer.type === 'slice') {
    try {
      tried = sliceSession(session, inferer.axis);
    } catch (error) {
      return { faults: [(error as TomaatError).message], summary: '' };
    }
  }
  const fixed = tried.inputDims ?? [null, null, null, null, null];
  const names = volumeChannels(manifest, spec);
  const given = componentsOf(manifest, spec);
  const taken = fixed[1] ?? null;
  if (given !== undefined && taken !== null && given !== taken) {
    faults.add(
      `The network takes ${count(taken, 'component')}, and the manifest gives it ${given} (${channelNames(manifest, spec)}). List ${count(taken, 'volume input')} in model.channels; if one file contains all of them, write frames: all at its input.`,
    );
  }
  const trials = parameterTrials(manifest).filter((parameters) =>
    modelsFor(manifest, parameters).includes(spec),
  );
  const size = windowSize(manifest, spec, names[0], fixed.slice(2), trials[0] ?? {}, faults);
  const dims = [1, taken ?? given ?? 1, size[2], size[1], size[0]];
  const shape = (inferer.type === 'slice' ? sliceDims(dims, inferer.axis) : dims).join(' × ');
  let output: Tensor | LabelTensor;
  try {
    output = await tried.run({ data: new Float32Array(dims.reduce((a, b) => a * b, 1)), dims });
  } catch (error) {
    if (!(error instanceof TomaatError)) throw error;
    return { faults: [...faults, error.message], summary: shape };
  }
  if (isLabelTensor(output)) {
    for (const parameters of trials) {
      const steps = stepsOfResult(manifest, spec, parameters);
      const { type } = reductionOf(steps, parameters);
      if (type === 'threshold' || type === 'compose')
        faults.add(`The network gives label values, not scores. Remove the ${type} step.`);
      if (type === 'foreground')
        faults.add('The network gives label values, not scores. Remove backgroundAtMost of argmax.');
      const activation = steps.find(activationOf);
      if (activation)
        faults.add(`The network gives label values, not scores. Remove the ${activation.name} step.`);
    }
    return { faults: [...faults], summary: `${shape} → label values` };
  }
  try {
    const classes = checkScoresShape(output, dims);
    for (const parameters of trials) compareLabels(manifest, spec, parameters, classes, faults);
    return { faults: [...faults], summary: `${shape} → ${count(classes, 'class', 'classes')}` };
  } catch (error) {
    if (!(error instanceof TomaatError)) throw error;
    return { faults: [...faults, error.message], summary: shape };
  }
}

const count = (n: number, one: string, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;

/** Components of the tensor; undefined if it depends on the volume. */
function componentsOf(manifest: Manifest, spec: NetworkSpec): number | undefined {
  const names = volumeChannels(manifest, spec);
  const known = names.every((name) => {
    const input = manifest.inputs[name];
    return input?.type === 'volume' && input.frames === 'one';
  });
  return known ? channelCount(spec) : undefined;
}

/** What the network takes, in words. */
function channelNames(manifest: Manifest, spec: NetworkSpec): string {
  const labels = labelChannelsOf(spec).map(
    ({ labelsOf, values }) => `${count(values.length, 'label')} of ${labelsOf}`,
  );
  return [...volumeChannels(manifest, spec), ...labels].join(', ');
}

/** Voxels of a small volume along each axis, before the preprocessing. */
const smallVoxels = 32;

/** The window to try, x, y, z: as fixed by network and manifest, otherwise a small volume after its preprocessing. */
function windowSize(
  manifest: Manifest,
  spec: NetworkSpec,
  first: string,
  fixed: readonly (number | null)[],
  parameters: Readonly<Record<string, Parameter>>,
  faults: Set<string>,
): Size {
  const { inferer } = spec;
  const wanted = [fixed[2], fixed[1], fixed[0]].map((n) => n ?? null);
  const preparedFrom = (n: number): Size => {
    let grid: Grid = { size: [n, n, n], affine: identity };
    const { shared, own } = stepsOfInput(manifest, spec, parameters);
    for (const step of [...ownSteps(manifest.inputs, first, parameters), ...shared, ...own])
      grid = gridAfter(grid, step, parameters);
    return grid.size;
  };
  const windowFrom = (n: number): Size => {
    const prepared = preparedFrom(n);
    const within = inferer.type === 'slice' ? withinSlice(inferer, prepared) : inferer;
    if (within.type === 'slidingWindow') return within.roiSize;
    return inferer.type === 'slice' ? sliceSize(prepared, inferer.axis) : prepared;
  };
  const small = windowFrom(smallVoxels);
  const other = windowFrom(smallVoxels * 2 + 6);
  const differs = wanted.some((n, axis) => n !== null && (n !== small[axis] || n !== other[axis]));
  if (differs) {
    const across = inferer.type === 'slice' ? 'xyz'.indexOf(inferer.axis) : -1;
    const shown = <T>(values: readonly T[]) => values.filter((_, axis) => axis !== across).join(' × ');
    const size = shown(wanted.map((n) => n ?? 'any'));
    const axes = shown(['x', 'y', 'z']);
    faults.add(
      inferer.type !== 'simple' && inferer.roiSize
        ? `The network takes windows of ${size} (${axes}), and roiSize is ${shown(small)}. Correct roiSize.`
        : `The network takes ${across < 0 ? 'volumes' : 'slices'} of ${size} voxels (${axes}) only, and the preprocess steps do not give every volume that size. Add resize or resizeWithPadOrCrop, or export the network with free axes.`,
    );
  }
  return [0, 1, 2].map((axis) => wanted[axis] ?? small[axis]) as unknown as Size;
}

/** The classes that the network gives against the values that the manifest names, with these parameters. */
function compareLabels(
  manifest: Manifest,
  spec: NetworkSpec,
  parameters: Readonly<Record<string, Parameter>>,
  classes: number,
  faults: Set<string>,
): void {
  const given = valuesOf(stepsOfResult(manifest, spec, parameters), parameters, classes, faults);
  if (!given) return;
  const gives = `The network gives ${count(classes, 'class', 'classes')}`;
  const lacks = (values: readonly number[], where: string) => {
    const missing = values.filter((value) => !given.includes(value));
    if (missing.length > 0)
      faults.add(`${gives}, so it never gives the value ${listed(missing)} of ${where}. Correct ${where}.`);
  };
  if (spec.merge)
    lacks(
      spec.merge.map(({ from }) => from),
      'merge',
    );
  for (const other of modelsFor(manifest, parameters))
    for (const { labelsOf, values } of labelChannelsOf(other))
      if (labelsOf === spec.id)
        lacks(values, `labelsOf: ${labelsOf} in ${placeOf(manifest, other)}.channels`);
  if (spec.merge || modelsFor(manifest, parameters).at(-1) !== spec) return;
  let values = given;
  for (const step of stepsOfLabels(manifest, parameters)) values = valuesAfterStep(values, step, parameters);
  const found = new Set(values.filter((value) => value !== 0));
  const labels = new Map(labelsWith(manifest.labels, parameters).map(({ value, name }) => [value, name]));
  // Labels are optional: values without a name are allowed.
  if (labels.size === 0) return;
  const unnamed = [...found].filter((value) => !labels.has(value));
  const absent = [...labels].filter(([value]) => !found.has(value));
  if (unnamed.length > 0) {
    faults.add(
      `${gives}, and labels names ${count(labels.size, 'value')}: ${listed(unnamed)} ${unnamed.length === 1 ? 'has' : 'have'} no name. Add ${unnamed.length === 1 ? 'it' : 'them'} to labels, or remove ${unnamed.length === 1 ? 'it' : 'them'} with labelFilter or mapLabelValue.`,
    );
  }
  if (absent.length > 0) {
    const named = absent.slice(0, 20).map(([value, name]) => `${value} (${name})`);
    faults.add(
      `${gives}, so it never gives the label ${named.join(', ')}. Correct labels, or name the right output of the network in model.output.`,
    );
  }
}

const listed = (values: readonly number[]): string =>
  `${values.slice(0, 20).join(', ')}${values.length > 20 ? ' …' : ''}`;

/** The values that a network gives after its steps; undefined if the steps do not fit it. */
function valuesOf(
  steps: readonly Step[],
  parameters: Readonly<Record<string, Parameter>>,
  classes: number,
  faults: Set<string>,
): readonly number[] | undefined {
  const index = steps.findIndex(isScoreStep);
  const reduction = index < 0 ? undefined : reductionBy(steps[index], parameters);
  let values: readonly number[];
  if (reduction?.type === 'threshold' || reduction?.type === 'compose') {
    const channels = rulesOf(reduction).map(({ channel }) => channel);
    for (const channel of channels.filter((channel) => channel >= classes)) {
      faults.add(
        `The step ${reduction.type} names channel ${channel}, and the network gives ${count(classes, 'channel')} (0 … ${classes - 1}). Correct the channel.`,
      );
    }
    values =
      reduction.type === 'threshold'
        ? [thresholdValue(steps[index], parameters)]
        : reduction.rules.map(({ value }) => value);
  } else if (reduction?.type === 'foreground') {
    values = Array.from({ length: classes }, (_, channel) => channel + 1);
  } else {
    if (classes === 1) {
      faults.add(
        'The network gives one score for each voxel, and the largest of one is always class 0. Use threshold instead of argmax.',
      );
      return undefined;
    }
    values = Array.from({ length: classes }, (_, value) => value);
  }
  for (const step of steps.slice(index + 1)) values = valuesAfterStep(values, step, parameters);
  return values;
}
