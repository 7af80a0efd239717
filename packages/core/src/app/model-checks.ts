import type { Label } from './elements.ts';
import { isNetworkSpec, type Manifest, type ModelSpec, type NetworkSpec, volumeInputs } from './manifest.ts';
import {
  isMerged,
  isRestore,
  labelChannelsOf,
  modelsFor,
  splitPostprocess,
  stepsOfLabels,
} from './networks.ts';
import type { Step } from './step.ts';
import {
  activationOf,
  checkConditions,
  checkSteps,
  isScoreStep,
  labelsWith,
  parameterTrials,
  valuesAfterStep,
} from './steps.ts';
import type { Parameter } from './values.ts';

/* What is wrong with the models of a manifest against its other keys, and against each other. */

/** A fault of one key of a manifest against another. */
export interface CrossFault {
  path: (string | number)[];
  message: string;
}

export const within = (path: (string | number)[], faults: readonly CrossFault[]): CrossFault[] =>
  faults.map((fault) => ({ ...fault, path: [...path, ...fault.path] }));

/** The path of a model: a manifest may have one without a list. */
export const placeIn = (model: readonly ModelSpec[], index: number): (string | number)[] =>
  model.length > 1 ? ['model', index] : ['model'];

/** Whether both count with some values of the parameters: no parameter keeps them apart. */
export function canMeet(a: Pick<Label, 'when'>, b: Pick<Label, 'when'>): boolean {
  return Object.entries(a.when ?? {}).every(([name, value]) => (b.when?.[name] ?? value) === value);
}

/** One model against the inputs. */
export function checkModel(spec: ModelSpec, inputs: Manifest['inputs']): CrossFault[] {
  const volumes = volumeInputs({ inputs });
  const faults: CrossFault[] = checkConditions(spec.when, inputs);
  if (!isNetworkSpec(spec)) return faults;
  if (volumes.length === 0)
    faults.push({ path: ['inputs'], message: `the runtime ${spec.runtime} needs a volume` });
  const names = (spec.channels ?? volumes).filter((channel) => typeof channel === 'string');
  for (const name of spec.channels ? names : [])
    if (!volumes.includes(name))
      faults.push({ path: ['channels'], message: `${name} is not a volume input` });
  if (spec.channels && names.length === 0)
    faults.push({
      path: ['channels'],
      message: 'needs a volume input, whose grid the labels are brought to',
    });
  const { preprocess = [], postprocess = [], merge = [] } = spec;
  for (const [kind, steps] of Object.entries({ preprocess, postprocess }) as [
    'preprocess' | 'postprocess',
    Step[],
  ][])
    faults.push(...within([kind], checkSteps(steps, kind, inputs)));
  for (const [index, { name }] of preprocess.entries())
    if (name === 'standardUptakeValue')
      faults.push({
        path: ['preprocess', index],
        message:
          'standardUptakeValue comes before the steps of one network. Move it to the preprocess of the manifest or of its input',
      });
  for (const [index, { name }] of postprocess.entries())
    if (name === 'check')
      faults.push({
        path: ['postprocess', index],
        message: 'check looks at the label map of the app. Move it to the postprocess of the manifest',
      });
  for (const [index, { from }] of merge.entries())
    if (merge.findIndex((rule) => rule.from === from) < index)
      faults.push({ path: ['merge', index, 'from'], message: `${from} occurs twice` });
  return faults;
}

/** The steps that decide on labels: each network goes through one list of them, its own and then that of all. */
export function checkDecisions({
  model,
  postprocess,
}: Pick<Manifest, 'model' | 'postprocess'>): CrossFault[] {
  const faults: CrossFault[] = [];
  const [first] = [...postprocess.filter(activationOf), ...postprocess.filter(isScoreStep)];
  if (first && !model.every(isNetworkSpec)) {
    const message = `${first.name} needs the class scores of a network (runtime: onnx or oip)`;
    faults.push({ path: ['postprocess'], message });
  }
  const shared = postprocess.map((step, index) => ({ step, path: ['postprocess', index] }));
  const found = model.flatMap((spec, index) => {
    const own = (isNetworkSpec(spec) && spec.postprocess) || [];
    const at = placeIn(model, index);
    return checkOrder([...own.map((step, i) => ({ step, path: [...at, 'postprocess', i] })), ...shared]);
  });
  // Several networks share the steps of the manifest, and with them their faults.
  return [...faults, ...new Map(found.map((fault) => [JSON.stringify(fault), fault])).values()];
}

interface PlacedStep {
  readonly step: Step;
  readonly path: (string | number)[];
}

function checkOrder(listed: readonly PlacedStep[]): CrossFault[] {
  const steps = listed.map(({ step }) => step);
  const faults: CrossFault[] = [];
  // The list that the second of two is in.
  const twice = (is: (step: Step) => unknown, message: string) => {
    const [, second] = listed.filter(({ step }) => is(step));
    if (second) faults.push({ path: second.path.slice(0, -1), message });
  };
  twice(isScoreStep, 'argmax, threshold or compose comes once');
  twice(activationOf, 'softmax or sigmoid comes once');
  const [decided, restored] = [isScoreStep, isRestore].map((is) => steps.findIndex(is));
  for (const [index, { step, path }] of listed.entries()) {
    if (!activationOf(step)) continue;
    const late = [decided, restored].some((at) => at >= 0 && at < index);
    const message = late
      ? `${step.name} comes before restore, argmax, threshold and compose. Move it to the front, or leave it out`
      : `${step.name} needs argmax, threshold or compose after it. Add one of them, or leave it out`;
    if (late || decided < 0) faults.push({ path, message });
  }
  twice(isRestore, 'restore comes once');
  return faults;
}

/** The ids of networks, and the labels that others take of them. */
export function checkSources({ model }: Pick<Manifest, 'model'>): CrossFault[] {
  return model.flatMap((spec, index) => {
    if (!isNetworkSpec(spec)) return [];
    const at = placeIn(model, index);
    const faults: CrossFault[] = [];
    const isFirst = model.findIndex((other) => isNetworkSpec(other) && other.id === spec.id) === index;
    if (spec.id !== undefined && !isFirst)
      faults.push({ path: [...at, 'id'], message: `${spec.id} occurs twice` });
    for (const [place, channel] of (spec.channels ?? []).entries()) {
      if (typeof channel === 'string') continue;
      const message = faultOfSource(model, index, channel.labelsOf);
      if (message) faults.push({ path: [...at, 'channels', place, 'labelsOf'], message });
      if (new Set(channel.values).size < channel.values.length)
        faults.push({ path: [...at, 'channels', place, 'values'], message: 'must name each value once' });
    }
    return faults;
  });
}

/** What is wrong with taking the labels of the network `id` for the one at `index`. */
function faultOfSource(model: readonly ModelSpec[], index: number, id: string): string | undefined {
  const at = model.findIndex((spec) => isNetworkSpec(spec) && spec.id === id);
  if (at < 0) {
    const ids = model.flatMap((spec) => (isNetworkSpec(spec) && spec.id) || []);
    return `${id} is not the id of a network. ${ids.length > 0 ? `Available: ${ids.join(', ')}` : 'Give one an id'}`;
  }
  if (at === index) return 'names this network itself. Name one that is listed before it';
  if (at > index) return `${id} comes after this network. List it before`;
  const { when = {} } = model[at];
  const missing = Object.entries(when).find(([name, value]) => model[index].when?.[name] !== value);
  return (
    missing &&
    `${id} runs only with ${missing[0]}: ${missing[1]}. Give this network the same condition in its when`
  );
}

/** Whether it is clear whose labels are merged, and which steps come before. */
export function checkMerging({ model, postprocess }: Pick<Manifest, 'model' | 'postprocess'>): CrossFault[] {
  const merging = model.filter(isMerged);
  if (merging.length === 0) return [];
  const faults = model.flatMap((spec, index): CrossFault[] => {
    if (isMerged(spec) || isSource(model, spec)) return [];
    const other = merging.find((one) => canMeet(one, spec));
    if (!other) return [];
    const place = `model.${model.indexOf(other)}`;
    const message = `has no merge, and could run beside ${place}, which has it. Add merge, or a when that excludes it`;
    return [{ path: ['model', index], message }];
  });
  const early = splitPostprocess(postprocess).each.findIndex(({ name }) => name === 'check');
  if (early >= 0)
    faults.push({
      path: ['postprocess', early],
      message:
        'check comes after the steps of each network, which end with argmax, threshold, compose or restore',
    });
  return faults;
}

/** The values that networks are merged to, against the labels. */
export function checkMergedLabels(
  manifest: Pick<Manifest, 'inputs' | 'preprocess' | 'model' | 'postprocess' | 'labels'>,
): CrossFault[] {
  const { model, labels } = manifest;
  const merging = model.filter(isMerged) as NetworkSpec[];
  if (labels.length === 0 || merging.length === 0) return [];
  const faults = new Map<string, CrossFault>();
  const given = new Set<Label>();
  for (const parameters of parameterTrials(manifest)) {
    const running = modelsFor(manifest, parameters);
    const named = new Set(labelsWith(labels, parameters).map(({ value }) => value));
    const steps = stepsOfLabels(manifest, parameters);
    for (const spec of merging) {
      const at = [...placeIn(model, model.indexOf(spec)), 'merge'];
      const values = valuesAfter(
        spec.merge!.map(({ to }) => to),
        steps,
        parameters,
      );
      const known = new Set(values);
      // Usually the first parameters show all of them.
      const open = given.size < labels.length ? labels : [];
      for (const label of open) if (known.has(label.value) && canMeet(label, spec)) given.add(label);
      if (!running.includes(spec)) continue;
      for (const [index, value] of values.entries()) {
        if (value === 0 || named.has(value)) continue;
        const path = [...at, index, 'to'];
        faults.set(path.join('.'), {
          path,
          message: `labels has no name for ${value}. Add it, or correct to`,
        });
      }
    }
  }
  // A model that merges nothing and is no source may give the others, with other parameters.
  if (model.some((spec) => !isMerged(spec) && !isSource(model, spec))) return [...faults.values()];
  const never = labels.flatMap((label, index): CrossFault[] => {
    const message = `no merge gives ${label.value}. Add it to one, or remove the label`;
    return given.has(label) ? [] : [{ path: ['labels', index, 'value'], message }];
  });
  return [...faults.values(), ...never];
}

/** What values of the merged label map become by the steps that come then; 0 if they are removed. */
function valuesAfter(
  values: readonly number[],
  steps: readonly Step[],
  parameters: Readonly<Record<string, Parameter>>,
): readonly number[] {
  const after = (some: readonly number[]) =>
    steps.reduce((now, step) => valuesAfterStep(now, step, parameters), some);
  const together = after(values);
  const isUnchanged = together.length === values.length && together.every((value, i) => value === values[i]);
  return isUnchanged ? values : values.map((value) => after([value])[0] ?? 0);
}

/** Whether another network takes labels of this model. */
const isSource = (model: readonly ModelSpec[], spec: ModelSpec): boolean =>
  isNetworkSpec(spec) &&
  spec.id !== undefined &&
  model.flatMap(labelChannelsOf).some(({ labelsOf }) => labelsOf === spec.id);
