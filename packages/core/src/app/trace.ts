import { activate } from '../geometry/activation.ts';
import type { InferResult, NetworkSession, Reduction } from '../inferers/spec.ts';
import { isLabelTensor, sizeOfDims, type Tensor } from '../tensor.ts';
import { type Volume, voxelCount } from '../volume.ts';
import { isNetworkSpec, type Manifest, type NetworkSpec, volumeInputs } from './manifest.ts';
import { placeOf, runsSeveral, splitPostprocess } from './networks.ts';
import { type Trace, traceVolume } from './stages.ts';
import type { Step } from './step.ts';
import { activationOf, isScoreStep } from './steps.ts';

/*
 * The volumes between the steps of a prediction: compared with those of another implementation, they show the first step
 * in which the two differ.
 */

const scoreStages = ['window', 'scores', 'activation'];

/**
 * The stages of an app, in order; for one with a network: `inputs.NAME.preprocess[i]` and `preprocess[i]`, the volume after that step of
 * the manifest; `input`, what the network is given; `window`, its scores of the first window; `scores`, those of all windows,
 * blended; `activation`, the same as probabilities if a step makes them; `postprocess[i]`, the labels after that step;
 * `labels`, the primary result on the grid of the first volume. The steps of a network alone have the stages
 * `model[k].preprocess[i]` and `model[k].postprocess[i]`. If several networks run in one prediction, each has stages of its own,
 * `model[k].input` to `model[k].labels`, its values on the grid of the first volume.
 */
export function traceStages(manifest: Manifest): string[] {
  const own = volumeInputs(manifest).flatMap((name) => {
    const input = manifest.inputs[name];
    const steps = 'preprocess' in input ? (input.preprocess ?? []) : [];
    return steps.map((_, index) => `inputs.${name}.preprocess[${index}]`);
  });
  // A program gets each of its volumes through the steps.
  if (!manifest.model.every(isNetworkSpec)) return [...own, 'labels'];
  const shared = manifest.preprocess.map((_, index) => `preprocess[${index}]`);
  const before = manifest.model.map((spec) => ownStages(manifest, spec, 'preprocess'));
  const behind = manifest.model.map((spec) => ownStages(manifest, spec, 'postprocess'));
  const network = ['input', ...scoreStages];
  const severally = runsSeveral(manifest);
  const each = manifest.model.flatMap((spec, index) => {
    const named = [...network, 'labels'].map((stage) => stageOfNetwork(manifest, spec, stage));
    return [...before[index], ...named.slice(0, -1), ...behind[index], ...named.slice(-1)];
  });
  const alone = [...before.flat(), ...network, ...behind.flat()];
  const first = severally
    ? splitPostprocess(manifest.postprocess).each.length
    : manifest.postprocess.findIndex(isScoreStep);
  const after = manifest.postprocess.flatMap((step, index) =>
    index >= first && step.name !== 'check' ? [`postprocess[${index}]`] : [],
  );
  return [...own, ...shared, ...(severally ? each : alone), ...after, 'labels'];
}

/** The stages after the steps of one network alone: volumes, and labels once they are decided. */
function ownStages(manifest: Manifest, spec: NetworkSpec, kind: 'preprocess' | 'postprocess'): string[] {
  const steps = spec[kind] ?? [];
  const decided = kind === 'preprocess' ? 0 : steps.findIndex(isScoreStep);
  return steps.flatMap((_, index) =>
    decided >= 0 && index >= decided ? [`${placeOf(manifest, spec)}.${kind}[${index}]`] : [],
  );
}

/** The name of a stage of one network: with its place in the manifest, if several run in one prediction. */
export const stageOfNetwork = (manifest: Manifest, spec: NetworkSpec, stage: string): string =>
  runsSeveral(manifest) ? `${placeOf(manifest, spec)}.${stage}` : stage;

/** The name of the stage after a step of one network: of its own list, or of the manifest’s. */
export function stageOfModelStep(
  manifest: Manifest,
  spec: NetworkSpec,
  kind: 'preprocess' | 'postprocess',
  step: Step,
): string {
  const index = spec[kind]?.indexOf(step) ?? -1;
  return index < 0 ? stageOfStep(manifest, kind, step) : `${placeOf(manifest, spec)}.${kind}[${index}]`;
}

/** The name of the stage after a step; `input` for a step of one volume alone. */
export function stageOfStep(
  manifest: Manifest,
  kind: 'preprocess' | 'postprocess',
  step: Step,
  input?: string,
): string {
  if (input === undefined) return `${kind}[${manifest[kind].indexOf(step)}]`;
  const given = manifest.inputs[input];
  const steps = 'preprocess' in given ? (given.preprocess ?? []) : [];
  return `inputs.${input}.${kind}[${steps.indexOf(step)}]`;
}

/** The stage before all steps: the volume of an input as it is in its file. It is not in the list of `traceStages()`. */
export const stageOfInput = (name: string): string => `inputs.${name}`;

/** The network, reporting its scores of the first window; and no reduction, so that all scores are there to be compared. */
export function tracedNetwork(
  input: Volume,
  { session, reduction }: { session: NetworkSession; reduction: Reduction },
  trace: Trace,
  nameOf: (stage: string) => string,
): { session: NetworkSession; reduction: Reduction } {
  if (!scoreStages.some((stage) => trace.stages.includes(nameOf(stage)))) return { session, reduction };
  let isFirst = true;
  const recorded: NetworkSession = {
    inputDims: session.inputDims,
    async run(tensor) {
      const output = await session.run(tensor);
      if (isFirst && !isLabelTensor(output)) {
        isFirst = false;
        await traceVolume(trace, nameOf('window'), volumeOf(output, input));
      }
      return output;
    },
  };
  return { session: recorded, reduction: { type: 'none' } };
}

/** Scores [1, K, z, y, x], or [1, K, y, x] of a slice, as a volume whose first voxel is that of the input. */
function volumeOf({ data, dims }: Tensor, input: Volume): Volume {
  const size = sizeOfDims(dims.length === 4 ? [1, ...dims.slice(2)] : dims);
  const components = data.length / voxelCount({ size });
  return { voxels: data, size, components, affine: input.affine };
}

/** Reports the blended scores, and the probabilities of them if one of the steps makes some. */
export async function traceScores(
  steps: readonly Step[],
  result: InferResult,
  trace: Trace,
  nameOf: (stage: string) => string,
): Promise<void> {
  if (!('scores' in result)) return;
  const { scores } = result;
  await traceVolume(trace, nameOf('scores'), scores);
  if (!trace.stages.includes(nameOf('activation'))) return;
  const step = steps.find(activationOf);
  const activation = step && activationOf(step);
  const voxels = Float32Array.from(scores.voxels as Float32Array);
  if (activation) activate(voxels, voxelCount(scores), activation);
  await traceVolume(trace, nameOf('activation'), { ...scores, voxels });
}
