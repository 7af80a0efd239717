import type { Manifest, ModelSpec, NetworkSpec } from './manifest.ts';
import { isNetworkSpec, volumeInputs } from './manifest.ts';
import type { Step } from './step.ts';
import { activationOf, applies, isScoreStep } from './steps.ts';
import type { Parameter } from './values.ts';

/*
 * The models of an app that lists several: which of them run with the caller's parameters, what each takes, and which steps are its own.
 */

type Models = Pick<Manifest, 'model'>;
type Parameters = Readonly<Record<string, Parameter>>;

/** The labels of another network among the channels of one. */
export type LabelChannels = Exclude<NonNullable<NetworkSpec['channels']>[number], string>;

/**
 * The models that run with these parameters, in the manifest's order: all with `merge`, otherwise the first one that none of
 * the others takes labels of; and the networks that these take labels of. Empty if there is none.
 */
export function modelsFor({ model }: Models, parameters: Parameters): ModelSpec[] {
  const usable = model.filter(({ when }) => applies(when, parameters));
  const merged = usable.filter(isMerged);
  const sources = new Set(usable.flatMap(sourcesOf));
  const results = merged.length > 0 ? merged : usable.filter((spec) => !isOneOf(spec, sources)).slice(0, 1);
  const needed = new Set(results);
  // A source comes before the networks that take its labels.
  for (const spec of usable.toReversed()) {
    if (!needed.has(spec)) continue;
    const ids = new Set(sourcesOf(spec));
    for (const other of usable) if (isOneOf(other, ids)) needed.add(other);
  }
  return usable.filter((spec) => needed.has(spec));
}

const isOneOf = (spec: ModelSpec, ids: ReadonlySet<string>): boolean =>
  isNetworkSpec(spec) && spec.id !== undefined && ids.has(spec.id);

/** Whether the labels of a model are merged with those of others. */
export const isMerged = (spec: ModelSpec): boolean => isNetworkSpec(spec) && spec.merge !== undefined;

/** The labels of other networks that a model takes. */
export const labelChannelsOf = (spec: ModelSpec): LabelChannels[] =>
  isNetworkSpec(spec) ? (spec.channels ?? []).filter((channel) => typeof channel !== 'string') : [];

const sourcesOf = (spec: ModelSpec): string[] => labelChannelsOf(spec).map(({ labelsOf }) => labelsOf);

/** The volumes that a network takes, in the order of its channels. */
export function volumeChannels(manifest: Pick<Manifest, 'inputs'>, { channels }: NetworkSpec): string[] {
  return channels
    ? channels.filter((channel) => typeof channel === 'string')
    : volumeInputs(manifest).slice(0, 1);
}

/** The components of a network's input, if each of its volumes has one. */
export const channelCount = (spec: NetworkSpec): number =>
  (spec.channels ?? ['']).reduce(
    (sum, channel) => sum + (typeof channel === 'string' ? 1 : channel.values.length),
    0,
  );

/** Whether a prediction may run several networks. */
export const runsSeveral = ({ model }: Models): boolean =>
  model.length > 1 && model.some((spec) => isMerged(spec) || labelChannelsOf(spec).length > 0);

/**
 * The postprocessing of one network, to its own label values: its own steps, then those of the manifest up to the last that decides on
 * labels or restores. The others are steps on the label map of the app.
 */
export function splitPostprocess(postprocess: readonly Step[]): { each: Step[]; all: Step[] } {
  const end =
    postprocess.findLastIndex((step) => isScoreStep(step) || isRestore(step) || activationOf(step)) + 1;
  return { each: postprocess.slice(0, end), all: postprocess.slice(end) };
}

export const isRestore = ({ name }: Step): boolean => name === 'restore';

/** The steps from the result of a network to its own label values, with these parameters. */
export function stepsOfResult(
  { postprocess }: Pick<Manifest, 'postprocess'>,
  spec: ModelSpec,
  parameters: Parameters,
): Step[] {
  const own = isNetworkSpec(spec) ? (spec.postprocess ?? []) : [];
  return [...own, ...splitPostprocess(postprocess).each].filter(({ when }) => applies(when, parameters));
}

/** The steps on the label map of the app, with these parameters. */
export function stepsOfLabels(
  { postprocess }: Pick<Manifest, 'postprocess'>,
  parameters: Parameters,
): Step[] {
  return splitPostprocess(postprocess).all.filter(({ when }) => applies(when, parameters));
}

/** The steps of the manifest that every volume goes through, and those of one network after them. */
export function stepsOfInput(
  { preprocess }: Pick<Manifest, 'preprocess'>,
  spec: ModelSpec,
  parameters: Parameters,
): { shared: Step[]; own: Step[] } {
  const isUsed = ({ when }: Step) => applies(when, parameters);
  const own = isNetworkSpec(spec) ? (spec.preprocess ?? []) : [];
  return { shared: preprocess.filter(isUsed), own: own.filter(isUsed) };
}

/** The name of a model in faults and stages: its place in the manifest. */
export const placeOf = ({ model }: Models, spec: ModelSpec): string => `model[${model.indexOf(spec)}]`;
