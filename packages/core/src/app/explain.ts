import { spacingOf } from '../geometry/affine.ts';
import type { NetworkSession } from '../inferers/spec.ts';
import { isLabelTensor, type Tensor } from '../tensor.ts';
import { numericVoxels, type Size, type Volume } from '../volume.ts';
import { isNetworkSpec, type Manifest, volumeInputs } from './manifest.ts';
import type { LoadedModel } from './predict.ts';
import type { Trace } from './stages.ts';
import type { Step } from './step.ts';
import { leavesAxes } from './steps.ts';
import { stageOfInput } from './trace.ts';

/*
 * Why a label map is empty: what the network was given, and what it made of it. It is observed in a second prediction, so that the
 * first one costs nothing more.
 */

/** What is known of a volume without its voxels. */
export interface VolumeSummary {
  readonly size: Size;
  /** mm along x, y, z. */
  readonly spacing: readonly number[];
  /** The lowest and the highest finite value; both NaN if there is none. */
  readonly low: number;
  readonly high: number;
}

/** What was observed in a prediction by a network. */
export interface Observation {
  /** The volumes by the names of their inputs, as they are in the files. */
  readonly inputs: Readonly<Record<string, VolumeSummary>>;
  /** What the network is applied to, all channels together. */
  readonly prepared?: VolumeSummary;
  /** The highest score of each class in all windows; empty if the network gives label values. */
  readonly scores: readonly number[];
}

/** Observes a prediction: `trace` and `load` go into its context. */
export function observe(
  manifest: Manifest,
  load: (model: Manifest['model'][number]) => Promise<LoadedModel>,
): { trace: Trace; load: typeof load; seen(): Observation } {
  const inputs: Record<string, VolumeSummary> = {};
  let prepared: VolumeSummary | undefined;
  const scores: number[] = [];
  const names = new Map(volumeInputs(manifest).map((name) => [stageOfInput(name), name]));
  return {
    trace: {
      stages: [...names.keys(), 'input'],
      async take(stage, volume) {
        const name = names.get(stage);
        if (name === undefined) prepared = summarize(volume);
        else inputs[name] = summarize(volume);
      },
    },
    async load(spec) {
      const model = await load(spec);
      if (model.kind !== 'network') return model;
      return { kind: 'network', session: observedSession(model.session, scores) };
    },
    seen: () => ({ inputs, prepared, scores }),
  };
}

/** A network that notes the highest score of each class. It gives scores always: the labels alone say nothing. */
function observedSession(session: NetworkSession, highest: number[]): NetworkSession {
  return {
    inputDims: session.inputDims,
    async run(tensor) {
      const output = await session.run(tensor);
      if (!isLabelTensor(output)) noteHighest(output, tensor, highest);
      return output;
    },
  };
}

function noteHighest({ data, dims }: Tensor, given: Tensor, highest: number[]): void {
  // As many axes as the input, or [1, K]; a slice may be without batch.
  const classes = dims.length === 3 && given.dims.length === 3 ? dims[0] : dims[1];
  const count = data.length / classes;
  for (let k = 0; k < classes; k++) {
    let most = highest[k] ?? -Infinity;
    for (let i = k * count; i < (k + 1) * count; i++) if (data[i] > most) most = data[i];
    highest[k] = most;
  }
}

function summarize(volume: Volume): VolumeSummary {
  const voxels = numericVoxels(volume.voxels);
  let low = Infinity;
  let high = -Infinity;
  for (let i = 0; i < voxels.length; i++) {
    const value = voxels[i];
    if (!Number.isFinite(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) [low, high] = [Number.NaN, Number.NaN];
  return { size: volume.size, spacing: spacingOf(volume.affine), low, high };
}

/** An observation in lines, with the causes that fit it. */
export function explainEmpty(manifest: Manifest, seen: Observation): string[] {
  const show = ({ size, spacing, low, high }: VolumeSummary) =>
    `values ${brief(low)} … ${brief(high)}, ${size.join(' × ')} voxels of ${spacing.map(brief).join(' × ')} mm`;
  const lines = Object.entries(seen.inputs).map(([name, volume]) => `${name}: ${show(volume)}`);
  if (seen.prepared) lines.push(`after preprocess: ${show(seen.prepared)}`);
  if (seen.scores.length > 0)
    lines.push(
      `highest score of each class: ${seen.scores.map((score, k) => `${k}: ${brief(score)}`).join(', ')}`,
    );
  return [...lines, ...causesOf(manifest, seen)];
}

const brief = (value: number) => String(Number(value.toPrecision(4)));

function causesOf(manifest: Manifest, { inputs, prepared, scores }: Observation): string[] {
  const causes: string[] = [];
  const volumes = Object.entries(inputs);
  for (const [name, { low, high }] of volumes)
    if (!(low < high)) causes.push(`All voxels of ${name} have one value. Look at the file.`);
  for (const { step, of } of intensitySteps(manifest)) {
    const { aMin, aMax } = step.parameters as { aMin: unknown; aMax: unknown };
    if (typeof aMin !== 'number' || typeof aMax !== 'number') continue;
    for (const [name, { low, high }] of volumes) {
      if (of !== undefined && of !== name) continue;
      const within = Math.min(high, aMax) - Math.max(low, aMin);
      if (within >= leastShare * (aMax - aMin)) continue;
      causes.push(
        `scaleIntensityRange expects values of ${brief(aMin)} … ${brief(aMax)}, and those of ${name} are ${brief(low)} … ${brief(high)}. Compare the units (HU, rescaled or not) with those of the training.`,
      );
    }
  }
  if (prepared && !(prepared.low < prepared.high) && volumes.some(([, { low, high }]) => low < high))
    causes.push(
      'After preprocess all voxels have one value: its steps of intensities do not fit this volume.',
    );
  if (scores.some((score) => !Number.isFinite(score)))
    causes.push(
      'The network gives scores that are not finite. Compare the values after preprocess with those of the training.',
    );
  const names = new Set(
    [...manifest.preprocess, ...volumes.flatMap(([name]) => ownOf(manifest, name))]
      .filter((step) => !leavesAxes(step))
      .map(({ name }) => name),
  );
  if (!names.has('orientation'))
    causes.push(
      'No step of preprocess sets the orientation, so the network sees the axes as the file stores them.',
    );
  if (!names.has('spacing') && !names.has('resize'))
    causes.push(
      'No step of preprocess sets the spacing, so the network sees the voxels as the file has them.',
    );
  if (causes.length === 0)
    causes.push(
      'Compare these numbers with those of the training: values and spacing after preprocess, and the orientation.',
    );
  return causes;
}

/** The part of a range of intensities that a volume should reach at least. */
const leastShare = 0.05;

const ownOf = (manifest: Manifest, name: string): readonly Step[] => {
  const input = manifest.inputs[name];
  return ('preprocess' in input && input.preprocess) || [];
};

/** The first steps of intensities: what comes after them is not in the units of the file. */
function intensitySteps(manifest: Manifest): { step: Step; of?: string }[] {
  const first = (steps: readonly Step[], of?: string) => {
    const step = steps.find(({ name }) => name === 'scaleIntensityRange');
    return step ? [{ step, of }] : [];
  };
  const own = volumeInputs(manifest).flatMap((name) => first(ownOf(manifest, name), name));
  return own.length > 0 ? own : first(manifest.preprocess);
}

/** Whether an empty result of the app can be explained: by a network that core drives. */
export const isExplained = (manifest: Manifest): boolean => manifest.model.every(isNetworkSpec);
