import { TomaatError } from '../errors.ts';
import type { Activation } from '../geometry/activation.ts';
import {
  resampleArgmax,
  resampleComposed,
  resampleForeground,
  resampleThreshold,
} from '../geometry/resample.ts';
import { type Decide, type GridPath, restore, restoreScores } from '../geometry/restore.ts';
import type { LabelReduction } from '../inferers/reduce.ts';
import type { ComposeRule, InferResult, Reduction } from '../inferers/spec.ts';
import { type Grid, numericVoxels, type Volume } from '../volume.ts';
import { checkResult } from './acceptance.ts';
import { type Manifest, type NetworkSpec, primaryOutput } from './manifest.ts';
import { runsSeveral, stepsOfLabels, stepsOfResult } from './networks.ts';
import {
  asLabels,
  checkPlace,
  checkType,
  derive,
  fromOf,
  hasLabel,
  isVolume,
  missingOutput,
} from './results.ts';
import { traceVolume } from './stages.ts';
import type { Step } from './step.ts';
import {
  activationOf,
  applies,
  applyTransform,
  isScoreStep,
  labelsWith,
  resolveParameters,
  type StepContext,
} from './steps.ts';
import { stageOfModelStep, stageOfStep } from './trace.ts';
import type { OutputValue, Parameter } from './values.ts';

/*
 * From the results of a model to the outputs of the manifest: label maps are processed, put back on the grid of the input and
 * checked, and other outputs are derived from them.
 */

/** Values by the names of outputs. */
export type Outputs = Record<string, OutputValue>;

/**
 * How scores become labels. `argmax` before `restore` lets the inferer reduce tile by tile; `restore` before
 * `argmax` keeps the scores on the model's grid and interpolates them onto the input's, fused with the argmax. So does a
 * `sigmoid`, and a `softmax` before `threshold`.
 */
export function reductionOf(
  steps: readonly Step[],
  parameters: Readonly<Record<string, Parameter>>,
): Reduction {
  const index = steps.findIndex(isScoreStep);
  if (index < 0) return { type: 'argmax' };
  const before = steps.slice(0, index);
  if (before.some((step) => step.name === 'restore')) return { type: 'none' };
  const reduction = reductionBy(steps[index], parameters);
  // Window by window only what is the same without probabilities: the class with the highest one of a softmax.
  const same = (step: Step) => step.name === 'softmax' && reduction.type === 'argmax';
  return before.some((step) => activationOf(step) && !same(step)) ? { type: 'none' } : reduction;
}

/** The reduction that an argmax, threshold or compose is. */
export function reductionBy(step: Step, parameters: Readonly<Record<string, Parameter>>): LabelReduction {
  const resolved: unknown = resolveParameters(step, 'postprocess', parameters);
  if (step.name === 'argmax') {
    const { backgroundAtMost: atMost } = resolved as { backgroundAtMost?: number };
    return atMost === undefined ? { type: 'argmax' } : { type: 'foreground', atMost };
  }
  if (step.name === 'compose') return { type: 'compose', rules: resolved as ComposeRule[] };
  const { channel, above } = resolved as { channel: number; above: number };
  return { type: 'threshold', channel, above };
}

/**
 * The labels that one network found, in its own values, on its own grid or wherever a `restore` put them.
 * @param path from the grid of the first volume, onto which label maps are put back, to that of the network's input
 */
export async function labelsOfNetwork(
  manifest: Manifest,
  spec: NetworkSpec,
  answer: InferResult,
  path: GridPath,
  context: StepContext,
): Promise<Volume> {
  const name = labelOutput(manifest);
  const steps = stepsOfResult(manifest, spec, context.parameters);
  // What is common to several networks has no stage of its own for each of them.
  const own = (step: Step) => spec.postprocess?.includes(step) || !runsSeveral(manifest);
  const stageOf = (step: Step) =>
    own(step) ? stageOfModelStep(manifest, spec, 'postprocess', step) : undefined;
  return finishLabels(manifest, name, answer, { steps, path, stageOf }, context);
}

/**
 * The outputs of an app with networks: they give only the primary label map and the outputs derived from it.
 * @param labels in the values of the app
 * @param path as for `labelsOfNetwork()`
 */
export async function finishNetworks(
  manifest: Manifest,
  labels: Volume,
  path: GridPath,
  context: StepContext,
): Promise<Outputs> {
  const primary = labelOutput(manifest);
  const steps = stepsOfLabels(manifest, context.parameters);
  const stageOf = (step: Step) => stageOfStep(manifest, 'postprocess', step);
  const finished = restore(
    await finishLabels(manifest, primary, { labels }, { steps, path, stageOf }, context),
    path.start,
  );
  await traceVolume(context.trace, 'labels', finished);
  checkAtEnd(manifest, primary, finished, context);
  const [, missing] = labelMapsOf(manifest);
  if (missing !== undefined) throw missingOutput(missing);
  return complete(manifest, { [primary]: finished }, context);
}

/** The output that the labels of networks become. */
function labelOutput(manifest: Manifest): string {
  const [primary] = labelMapsOf(manifest);
  if (primary !== undefined) return primary;
  throw new TomaatError(
    'BAD_MANIFEST',
    'The app has a network as its model but no output of type LabelVolume. Add one to outputs.',
    {
      field: 'outputs',
    },
  );
}

/**
 * The outputs of an app whose code does the inference: its label maps, and for the others its own results or those derived from label maps.
 * @param given the grids that the program may have used for its label maps: those of its volumes, and those of the caller's
 * @param grid of the first volume, onto which label maps are put back
 */
export async function finishProgram(
  manifest: Manifest,
  outputs: Readonly<Outputs>,
  given: readonly Volume[],
  grid: Grid | undefined,
  context: StepContext,
): Promise<Outputs> {
  const labelMaps = labelMapsOf(manifest);
  for (const name of labelMaps) checkPlace(name, outputs[name], given);
  const results = { ...outputs };
  for (const name of Object.keys(results)) {
    if (!Object.hasOwn(manifest.outputs, name)) {
      throw new TomaatError(
        'APP_OUTPUT',
        `The app returned ${name}, which is not an output in its manifest. Add it to outputs, or do not return it.`,
        { field: name },
      );
    }
  }
  for (const name of labelMaps) {
    if (!outputs[name]) throw missingOutput(name);
    const labels = await finishProgramLabels(manifest, name, outputs[name], grid, context);
    if (hasLabel(outputs[name] as Volume) && !hasLabel(labels) && manifest.postprocess.length === 0) {
      throw new TomaatError(
        'APP_OUTPUT',
        `None of the labels of ${name} lie inside the caller’s volume. Write the label map with the affine (spacing, directions, origin) of the volume that the app was given.`,
        { field: name },
      );
    }
    checkAtEnd(manifest, name, labels, context);
    results[name] = labels;
  }
  return complete(manifest, results, context);
}

const labelMapsOf = (manifest: Manifest): string[] =>
  Object.keys(manifest.outputs).filter((name) => manifest.outputs[name].type === 'LabelVolume');

/** A label map of a program after the steps of the postprocessing, on the input's grid. */
async function finishProgramLabels(
  manifest: Manifest,
  name: string,
  labels: OutputValue,
  grid: Grid | undefined,
  context: StepContext,
): Promise<Volume> {
  const isTraced = name === primaryOutput(manifest);
  const steps = manifest.postprocess.filter(({ when }) => applies(when, context.parameters));
  const path = grid && { start: grid, fits: [] };
  const stageOf = (step: Step) => (isTraced ? stageOfStep(manifest, 'postprocess', step) : undefined);
  let finished = await finishLabels(manifest, name, { labels }, { steps, path, stageOf }, context);
  if (grid) finished = restore(finished, grid);
  if (isTraced) await traceVolume(context.trace, 'labels', finished);
  return finished;
}

/** Steps of the postprocessing, in order. */
interface LabelSteps {
  readonly steps: readonly Step[];
  /** Where `restore` leads. */
  readonly path: GridPath | undefined;
  /** The stage after a step, if it has one. */
  stageOf(step: Step): string | undefined;
}

/** A model's result after steps of the postprocessing, as labels. */
async function finishLabels(
  manifest: Manifest,
  name: string,
  answer: { readonly labels: OutputValue } | { readonly scores: Volume },
  { steps, path, stageOf }: LabelSteps,
  context: StepContext,
): Promise<Volume> {
  let labels = 'labels' in answer ? asLabels(name, answer.labels) : undefined;
  const scores = 'scores' in answer ? answer.scores : undefined;
  // Where the labels of scores will lie: on their own grid, unless a restore comes before.
  let target: GridPath | undefined = scores && { start: scores, fits: [] };
  let activation: Activation | undefined;
  for (const step of steps) {
    context.signal?.throwIfAborted();
    if (step.name === 'restore') {
      if (!path)
        throw new TomaatError('BAD_MANIFEST', 'restore needs a volume among the inputs.', {
          field: 'postprocess',
        });
      if (labels) labels = restore(labels, path.start);
      target = path;
    } else if (activationOf(step)) {
      activation = activationOf(step);
    } else if (isScoreStep(step)) {
      // Without a restore before it, the inferer has done this window by window.
      if (!labels && scores && target)
        labels = labelsFrom(scores, reductionBy(step, context.parameters), target, activation);
      if (labels && step.name === 'threshold') labels = withValue(labels, step, context.parameters);
    } else if (!labels) {
      throw new TomaatError('BAD_MANIFEST', `${step.name} comes after argmax, threshold or compose.`, {
        field: 'postprocess',
      });
    } else if (step.name === 'check') {
      checkLabels(manifest, name, labels);
    } else {
      labels = await applyTransform(step, 'postprocess', labels, context);
    }
    const stage = stageOf(step);
    if (labels && stage) await traceVolume(context.trace, stage, labels);
  }
  if (!labels) throw missingOutput(name);
  return asLabels(name, labels);
}

/** Scores as probabilities, if so, interpolated along the path back, and reduced to labels at its start. */
function labelsFrom(
  scores: Volume,
  reduction: LabelReduction,
  path: GridPath,
  activation?: Activation,
): Volume {
  const decide: Decide = (volume, grid, options) => {
    if (reduction.type === 'argmax') return resampleArgmax(volume, grid, options);
    if (reduction.type === 'foreground') return resampleForeground(volume, reduction.atMost, grid, options);
    if (reduction.type === 'compose') return resampleComposed(volume, reduction.rules, grid, options);
    return resampleThreshold(volume, reduction.channel, reduction.above, grid, options);
  };
  return restoreScores(scores, path, decide, activation);
}

/** The result of a threshold, 0 and 1, with the value of its step. */
function withValue(labels: Volume, step: Step, parameters: StepContext['parameters']): Volume {
  const value = thresholdValue(step, parameters);
  if (value === 1) return labels;
  return { ...labels, voxels: Uint16Array.from(numericVoxels(labels.voxels), (v) => v * value) };
}

/** The value of the voxels above a threshold. */
export function thresholdValue(step: Step, parameters: StepContext['parameters']): number {
  return (resolveParameters(step, 'postprocess', parameters) as { value: number }).value;
}

/** The checks of the results come last, unless a step places them. */
function checkAtEnd(manifest: Manifest, name: string, labels: Volume, context: StepContext): void {
  const isStep = manifest.postprocess.some(
    (step) => step.name === 'check' && applies(step.when, context.parameters),
  );
  if (!isStep) checkLabels(manifest, name, labels);
}

/** The checks that the label map of an output must pass. */
function checkLabels(manifest: Manifest, name: string, labels: Volume): void {
  for (const check of manifest.resultChecks)
    if ((check.output ?? primaryOutput(manifest)) === name) checkResult(check, labels);
}

/** Every output of the manifest, of its type; missing ones are derived from the label maps. */
async function complete(
  manifest: Manifest,
  given: Readonly<Outputs>,
  context: StepContext,
): Promise<Outputs> {
  const results = { ...given };
  const labels = labelsWith(manifest.labels, context.parameters);
  for (const [name, output] of Object.entries(manifest.outputs)) {
    if (results[name] === undefined) {
      const source = results[fromOf(output) ?? primaryOutput(manifest)];
      const derived = isVolume(source) ? await derive(output, source, labels) : undefined;
      if (derived === undefined) throw missingOutput(name);
      results[name] = derived;
    }
    checkType(name, output, results[name]);
  }
  return results;
}
