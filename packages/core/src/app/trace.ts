import { activate } from '../geometry/activation.ts';
import type { InferResult, NetworkSession, Reduction } from '../inferers/spec.ts';
import { isLabelTensor, sizeOfDims, type Tensor } from '../tensor.ts';
import { type Volume, voxelCount } from '../volume.ts';
import { isNetworkSpec, type Manifest, volumeInputs } from './manifest.ts';
import { type Trace, traceVolume } from './stages.ts';
import type { Step } from './step.ts';
import { activationOf, applies, isScoreStep, type StepContext } from './steps.ts';

/*
 * The volumes between the steps of a prediction: compared with those of another implementation, they show the first step
 * in which the two differ.
 */

/**
 * The stages of an app, in order; for one with a network: `inputs.NAME.preprocess[i]` and `preprocess[i]`, the volume after that step of
 * the manifest; `input`, what the network is given; `window`, its scores of the first window; `scores`, those of all windows,
 * blended; `activation`, the same as probabilities if a step makes them; `postprocess[i]`, the labels after that step;
 * `labels`, the primary result on the grid of the first volume.
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
  const decided = manifest.postprocess.findIndex(isScoreStep);
  const after = manifest.postprocess.flatMap((step, index) =>
    index >= decided && step.name !== 'check' ? [`postprocess[${index}]`] : [],
  );
  return [...own, ...shared, 'input', 'window', 'scores', 'activation', ...after, 'labels'];
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

const scoreStages = ['window', 'scores', 'activation'];

/** The network, reporting its scores of the first window; and no reduction, so that all scores are there to be compared. */
export function tracedNetwork(
  input: Volume,
  { session, reduction }: { session: NetworkSession; reduction: Reduction },
  trace: Trace,
): { session: NetworkSession; reduction: Reduction } {
  if (!scoreStages.some((stage) => trace.stages.includes(stage))) return { session, reduction };
  let isFirst = true;
  const recorded: NetworkSession = {
    inputDims: session.inputDims,
    async run(tensor) {
      const output = await session.run(tensor);
      if (isFirst && !isLabelTensor(output)) {
        isFirst = false;
        await traceVolume(trace, 'window', volumeOf(output, input));
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

/** Reports the blended scores, and the probabilities of them if a step makes some. */
export async function traceScores(
  manifest: Manifest,
  result: InferResult,
  { parameters }: StepContext,
  trace: Trace,
): Promise<void> {
  if (!('scores' in result)) return;
  const { scores } = result;
  await traceVolume(trace, 'scores', scores);
  if (!trace.stages.includes('activation')) return;
  const step = manifest.postprocess.find((one) => activationOf(one) && applies(one.when, parameters));
  const activation = step && activationOf(step);
  const voxels = Float32Array.from(scores.voxels as Float32Array);
  if (activation) activate(voxels, voxelCount(scores), activation);
  await traceVolume(trace, 'activation', { ...scores, voxels });
}
