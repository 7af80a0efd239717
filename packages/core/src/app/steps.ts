import { z } from 'zod';
import { TomaatError } from '../errors.ts';
import { type Activation, activations } from '../geometry/activation.ts';
import type { Fit } from '../geometry/fit.ts';
import { labelTransforms } from '../labels/table.ts';
import { suvAfter } from '../transforms/intensity.ts';
import { storedOrder } from '../transforms/spatial.ts';
import { imageTransforms } from '../transforms/table.ts';
import type { TransformContext, VolumeTransform } from '../transforms/transform.ts';
import type { Grid, Volume } from '../volume.ts';
import type { Input, Label } from './elements.ts';
import type { Trace } from './stages.ts';
import type { ManifestInput, Step } from './step.ts';
import { defaultValue, type Parameter } from './values.ts';

/** The steps of a pipeline: their table, their checks, and how one is done. See step.ts for how a manifest writes them. */

/** Steps that predict() itself does, between the transforms of the table. */
export const pipelineSteps = {
  softmax: z
    .strictObject({})
    .describe(
      'Class scores to probabilities: exp(s) over the sum for all classes, before restore interpolates them, as a pipeline of MONAI with softmax before Invertd does',
    ),
  sigmoid: z
    .strictObject({})
    .describe(
      'Each channel of the scores to a probability, 1 / (1 + exp(−s)), before restore interpolates it and threshold decides',
    ),
  argmax: z
    .strictObject({
      backgroundAtMost: z
        .number()
        .optional()
        .describe(
          'For a network without a background channel: channel k gives the value k + 1, and a voxel none of whose scores is above this gives 0. If missing, channel k gives the value k',
        ),
    })
    .describe('Class scores to a label map: the class with the highest score'),
  threshold: z
    .strictObject({
      channel: z.int().min(0).default(0).describe('Which channel of the scores'),
      above: z.number().default(0.5).describe('Voxels with a score above this get the value'),
      value: z.int().min(1).max(65_535).default(1),
    })
    .describe('One channel of the scores to a label map'),
  compose: z
    .array(
      z.strictObject({
        channel: z.int().min(0).describe('Which channel of the scores'),
        above: z.number().default(0.5).describe('Voxels with a score above this get the value'),
        value: z.int().min(0).max(65_535),
      }),
    )
    .min(1)
    .max(1000)
    .describe(
      'Channels that overlap to a label map, by a list of rules: each is a threshold of its own, and a later rule overwrites those before',
    ),
  restore: z
    .strictObject({})
    .describe(
      'Back onto the grid of the input: scores by linear interpolation, label maps by the nearest voxel. By default it comes last',
    ),
  check: z
    .strictObject({})
    .describe(
      'The resultChecks of the manifest, on the label map as it is here: before steps that change the meaning of the values. By default they come last',
    ),
} as const;

/** The steps that turn class scores into a label map; a pipeline has one at most. */
export const isScoreStep = ({ name }: Pick<Step, 'name'>): boolean =>
  name === 'argmax' || name === 'threshold' || name === 'compose';

/** The activation of the scores that a step is, if it is one. */
export const activationOf = ({ name }: Step): Activation | undefined =>
  activations.find((activation) => activation === name);

export interface StepFault {
  path: (string | number)[];
  message: string;
}

/**
 * What is wrong with the steps of a list: unknown names, wrong parameters, `$name` or `when` of an unknown
 * input. A step with `$name` is tried with every value that its input's bounds and options name.
 */
export function checkSteps(
  steps: readonly Step[],
  kind: 'preprocess' | 'postprocess',
  inputs: Readonly<Record<string, Input>>,
): StepFault[] {
  const faults: StepFault[] = [];
  const known = stepNames(kind);
  steps.forEach((step, index) => {
    const schema = parametersOf(step.name, kind);
    if (!schema) {
      faults.push({
        path: [index],
        message: `${step.name} is not a ${kind} step. Available: ${known.join(', ')}`,
      });
      return;
    }
    for (const { path, message } of checkConditions(step.when, inputs))
      faults.push({ path: [index, ...path], message });
    const names = new Set<string>();
    findReferences(step.parameters, names);
    const trials: Record<string, Parameter>[] = [{}];
    for (const name of names) {
      const input = Object.hasOwn(inputs, name) ? inputs[name] : undefined;
      const values = input && trialValues(input);
      if (!values) {
        faults.push({
          path: [index, step.name],
          message: `$${name} is not a slider, checkbox or radiobutton`,
        });
        return;
      }
      const before = trials.splice(0);
      for (const value of values) for (const trial of before) trials.push({ ...trial, [name]: value });
    }
    const messages = new Map<string, StepFault>();
    for (const trial of trials.slice(0, maxTrials)) {
      const result = schema.safeParse(substitute(step.parameters, trial));
      for (const issue of result.error?.issues ?? []) {
        const path = [
          index,
          step.name,
          ...issue.path.map((key) => (typeof key === 'symbol' ? String(key) : key)),
        ];
        messages.set(path.join('.'), { path, message: issue.message });
      }
    }
    faults.push(...messages.values());
  });
  return faults;
}

/** What is wrong with a condition: a name that is not a parameter, a value that the parameter cannot have. */
export function checkConditions(when: Step['when'], inputs: Readonly<Record<string, Input>>): StepFault[] {
  return Object.entries(when ?? {}).flatMap(([name, value]): StepFault[] => {
    const input = Object.hasOwn(inputs, name) ? inputs[name] : undefined;
    const possible = input && trialValues(input);
    if (!possible) return [{ path: ['when', name], message: 'is not a parameter among the inputs' }];
    if (input.type === 'slider' || possible.includes(value)) return [];
    return [{ path: ['when', name], message: `must be one of: ${possible.join(', ')}` }];
  });
}

/** The steps that a volume goes through by itself with these parameters, before those of all volumes. */
export function ownSteps(
  inputs: Readonly<Record<string, ManifestInput>>,
  name: string,
  parameters: Readonly<Record<string, Parameter>>,
): Step[] {
  return (inputs[name]?.preprocess ?? []).filter((step) => applies(step.when, parameters));
}

/** Whether a step states that the axes of volumes stay as files store them. */
export const leavesAxes = ({ name, parameters }: Step): boolean =>
  name === 'orientation' && 'axcodes' in parameters && parameters.axcodes === storedOrder;

/** Whether a manifest states that its network sees the axes as files store them: another order of storage is another input. */
export const keepsStoredOrder = (manifest: {
  readonly inputs: Readonly<Record<string, ManifestInput>>;
  readonly preprocess: readonly Step[];
}): boolean =>
  [...manifest.preprocess, ...Object.values(manifest.inputs).flatMap((input) => input.preprocess ?? [])].some(
    leavesAxes,
  );

/** The labels that a label map made with these parameters can contain. */
export function labelsWith(labels: readonly Label[], parameters: Readonly<Record<string, unknown>>): Label[] {
  return labels.filter((label) => applies(label.when, parameters));
}

/** Whether what has this condition (a step, a model, a label) is used with these parameters. */
export function applies(
  when: Readonly<Record<string, Parameter>> | undefined,
  parameters: Readonly<Record<string, unknown>>,
): boolean {
  return Object.entries(when ?? {}).every(([name, value]) => parameters[name] === value);
}

/** A step's parameters with the caller's values in place of `$name`, checked and with defaults. */
export function resolveParameters(
  step: Step,
  kind: 'preprocess' | 'postprocess',
  parameters: Readonly<Record<string, Parameter>>,
): Record<string, unknown> {
  const result = parametersOf(step.name, kind)!.safeParse(substitute(step.parameters, parameters));
  if (result.success) return result.data as Record<string, unknown>;
  // The manifest was checked with the bounds of its inputs; a step may still refuse a value between them.
  const { path, message } = result.error.issues[0];
  throw new TomaatError(
    'BAD_INPUT',
    `The step ${step.name} of the app does not take these parameters: ${path.map(String).join('.')} ${message}. Choose other values.`,
  );
}

/** What a step may use besides its volume and its own parameters. */
export interface StepContext extends TransformContext {
  parameters: Readonly<Record<string, Parameter>>;
  trace?: Trace;
}

/** Runs one transform of the tables on a volume. */
export async function applyTransform(
  step: Step,
  kind: 'preprocess' | 'postprocess',
  volume: Volume,
  context: StepContext,
): Promise<Volume> {
  const parameters = resolveParameters(step, kind, context.parameters);
  const transform = transformNamed(step.name, kind)!;
  const result = await transform.apply(volume, parameters, context);
  const suv = suvAfter(transform, volume, result);
  return suv ? { ...result, suv } : result;
}

/** The grid after a step of the preprocessing, by that before; an upper bound where it depends on the voxels. */
export function gridAfter(grid: Grid, step: Step, parameters: Readonly<Record<string, Parameter>>): Grid {
  const given = resolveParameters(step, 'preprocess', parameters);
  return transformNamed(step.name, 'preprocess')!.gridOf(grid, given);
}

/** How many volumes, each as large as the larger of both, a step of the preprocessing holds at once. */
export function volumesHeldBy(step: Step, parameters: Readonly<Record<string, Parameter>>): number {
  const transform = transformNamed(step.name, 'preprocess')!;
  return transform.volumesHeld?.(resolveParameters(step, 'preprocess', parameters)) ?? 2;
}

/** How scores go back through a step of the preprocessing, where that is not by their place in the world. */
export function fitOfStep(
  grid: Grid,
  step: Step,
  parameters: Readonly<Record<string, Parameter>>,
): Fit | undefined {
  const transform = transformNamed(step.name, 'preprocess')!;
  return transform.fitOf?.(grid, resolveParameters(step, 'preprocess', parameters));
}

/** The values that a label map may hold after a step of the postprocessing, by those before. */
export function valuesAfterStep(
  values: readonly number[],
  step: Step,
  parameters: Readonly<Record<string, Parameter>>,
): readonly number[] {
  const transform = transformNamed(step.name, 'postprocess');
  if (!transform?.valuesAfter) return values;
  return transform.valuesAfter(values, resolveParameters(step, 'postprocess', parameters));
}

/** The most combinations of parameters that are checked. */
const maxTrials = 256;

/**
 * Sets of parameters that together meet every condition (`when`) and value (`$name`) of a manifest: each
 * option of a choice, both of a checkbox, the ends of a slider. Other parameters have their defaults.
 */
export function parameterTrials(manifest: {
  inputs: Readonly<Record<string, ManifestInput>>;
  preprocess: readonly Step[];
  postprocess: readonly Step[];
  model: readonly { when?: Step['when'] }[];
  labels: readonly Label[];
}): Record<string, Parameter>[] {
  const names = new Set<string>();
  const own = Object.values(manifest.inputs).flatMap((input) => input.preprocess ?? []);
  const steps = [...own, ...manifest.preprocess, ...manifest.postprocess];
  for (const { when } of [...steps, ...manifest.model, ...manifest.labels])
    for (const name of Object.keys(when ?? {})) names.add(name);
  for (const { parameters } of steps) findReferences(parameters, names);
  let trials: Record<string, Parameter>[] = [{}];
  for (const [name, input] of Object.entries(manifest.inputs)) {
    const standard = defaultValue(input);
    const values = (names.has(name) && trialValues(input)) || (standard === undefined ? [] : [standard]);
    if (values.length > 0)
      trials = values
        .flatMap((value) => trials.map((trial) => ({ ...trial, [name]: value })))
        .slice(0, maxTrials);
  }
  return trials;
}

/** Names and descriptions of every step of a kind, for docs and error messages. */
export function stepNames(kind: 'preprocess' | 'postprocess'): string[] {
  const own = kind === 'postprocess' ? Object.keys(pipelineSteps) : [];
  return [...own, ...tableOf(kind).map((transform) => transform.name)].sort();
}

function tableOf(kind: 'preprocess' | 'postprocess'): readonly VolumeTransform[] {
  return kind === 'preprocess' ? imageTransforms : labelTransforms;
}

function transformNamed(name: string, kind: 'preprocess' | 'postprocess'): VolumeTransform | undefined {
  return tableOf(kind).find((transform) => transform.name === name);
}

function parametersOf(name: string, kind: 'preprocess' | 'postprocess'): z.ZodType | undefined {
  if (kind === 'postprocess' && Object.hasOwn(pipelineSteps, name)) {
    return pipelineSteps[name as keyof typeof pipelineSteps];
  }
  return transformNamed(name, kind)?.parameters;
}

function trialValues(input: Input): Parameter[] | undefined {
  if (input.type === 'slider') return [input.minimum, input.maximum, defaultValue(input)!];
  if (input.type === 'checkbox') return [true, false];
  if (input.type === 'radiobutton') return input.options;
  return undefined;
}

function findReferences(value: unknown, names: Set<string>): void {
  if (typeof value === 'string' && value.startsWith('$')) names.add(value.slice(1));
  else if (Array.isArray(value)) for (const item of value) findReferences(item, names);
  else if (value && typeof value === 'object')
    for (const item of Object.values(value)) findReferences(item, names);
}

function substitute(value: unknown, parameters: Readonly<Record<string, Parameter>>): unknown {
  if (typeof value === 'string' && value.startsWith('$')) return parameters[value.slice(1)];
  if (Array.isArray(value)) return value.map((item) => substitute(item, parameters));
  if (value && typeof value === 'object') {
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [key, substitute(item, parameters)]),
    );
  }
  return value;
}
