import { checkChannel } from './checks.ts';
import { allocate, argmaxScores, createLabels } from './kernels.ts';
import type { ComposeRule, InferOptions, Reduction } from './spec.ts';

/** A reduction other than `none`: class scores become labels. */
export type LabelReduction = Exclude<Reduction, { type: 'none' }>;
type Labels = Uint8Array | Uint16Array;

/** Throws BAD_MANIFEST if the reduction names a channel that the network does not give. */
export function checkChannels(reduction: Reduction, classes: number): void {
  if (reduction.type === 'threshold') checkChannel(reduction.channel, classes, 'threshold');
  if (reduction.type === 'compose')
    for (const { channel } of reduction.rules) checkChannel(channel, classes, 'compose');
}

/** Labels for every voxel: `scores` contains `classes` planes of `count` numbers. Throws BAD_MANIFEST, OUT_OF_MEMORY. */
export function reduceScores(
  scores: Float32Array,
  classes: number,
  count: number,
  reduction: LabelReduction,
  kernels: InferOptions['kernels'],
): Labels {
  checkChannels(reduction, classes);
  if (reduction.type === 'argmax') return argmaxScores(scores, classes, count, kernels);
  if (reduction.type === 'foreground') {
    const winners = argmaxScores(scores, classes, count, kernels);
    const labels = classes === 256 ? Uint16Array.from(winners) : winners;
    keepAbove(labels, scores, 0, count, reduction.atMost);
    return labels;
  }
  const rules = rulesOf(reduction);
  const labels = createComposed(rules, count);
  compose(labels, scores, 0, count, rules);
  return labels;
}

/** A threshold is the composition of one rule. */
export const rulesOf = (
  reduction: Extract<LabelReduction, { type: 'threshold' | 'compose' }>,
): readonly ComposeRule[] =>
  reduction.type === 'compose'
    ? reduction.rules
    : [{ channel: reduction.channel, above: reduction.above, value: 1 }];

/** Labels for the values of these rules: one byte each if that is enough. */
export function createComposed(rules: readonly ComposeRule[], count: number): Labels {
  const wide = rules.some(({ value }) => value > 255);
  return allocate(() => (wide ? new Uint16Array(count) : new Uint8Array(count)), wide ? 2 * count : count);
}

/** Labels for `foreground`, whose values are 0 … classes. */
export const createForeground = (classes: number, count: number): Labels => createLabels(classes + 1, count);

/** Fills `labels` with the values of the rules; the scores of channel k begin at `first` + k · `stride`. */
export function compose(
  labels: Labels,
  scores: Float32Array,
  first: number,
  stride: number,
  rules: readonly ComposeRule[],
): void {
  labels.fill(0);
  for (const { channel, above, value } of rules) {
    const at = first + channel * stride;
    for (let i = 0; i < labels.length; i++) if (scores[at + i] > above) labels[i] = value;
  }
}

/** Winning classes as values of a network without background: 1 + the class, or 0 where its score is not above `atMost`. */
export function keepAbove(
  labels: Labels,
  scores: Float32Array,
  first: number,
  stride: number,
  atMost: number,
): void {
  for (let i = 0; i < labels.length; i++) {
    const winner = labels[i];
    labels[i] = scores[first + winner * stride + i] > atMost ? winner + 1 : 0;
  }
}
