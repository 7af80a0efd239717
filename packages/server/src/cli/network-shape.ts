import { TomaatError } from '@tomaat/core';
import type { OnnxSignature } from '../runtimes/onnx-signature.ts';

/** What the manifest of an app has to know of its network. */
export interface NetworkShape {
  /** Whether it is a 2-D network, for slices. */
  readonly isFlat: boolean;
  /** Components of its input; null if any number is taken. */
  readonly components: number | null;
  /** Voxels that it takes along x, y and z, or columns and rows of a slice; null where any number is taken. */
  readonly size: readonly (number | null)[];
  /** Whether it gives label values instead of a score for each class. */
  readonly givesLabels: boolean;
  /** Scores for each voxel; null if the file does not say, or if it gives label values. */
  readonly classes: number | null;
  /** The operator that computes the output, such as Softmax or Sigmoid. */
  readonly operator?: string;
  /** The name of the output, if it is not the first one. */
  readonly output?: string;
  /** Names of its outputs that are not used. */
  readonly unused: readonly string[];
}

const show = (dims: readonly (number | string)[]) => dims.map((n) => (n === '' ? '?' : n)).join(' × ');
const numberOrNull = (n: number | string) => (typeof n === 'number' ? n : null);

/**
 * The shape of a network as an app can use it.
 * @param wanted the name of its output; the first one if missing
 * @throws {TomaatError} BAD_MANIFEST if an app cannot use it; BAD_INPUT if it has no such output
 */
export function shapeOfNetwork(
  { inputs, outputs }: OnnxSignature,
  file: string,
  wanted?: string,
): NetworkShape {
  const refuse = (message: string) => new TomaatError('BAD_MANIFEST', `The network ${file} ${message}`);
  const [input] = inputs;
  if (inputs.length !== 1) {
    const names = inputs.map(({ name }) => name).join(', ');
    throw refuse(
      `has ${inputs.length} inputs${names && ` (${names})`}, and an app’s network takes one. Export it with one input whose channels are the volumes.`,
    );
  }
  if (input.type !== 'float32' && input.type !== 'float16')
    throw refuse(`takes ${input.type} (${input.name}), not float32 or float16. Export it with a cast.`);
  const { shape } = input;
  if (shape.length < 3 || shape.length > 5) {
    throw refuse(
      `takes ${shape.length === 0 ? 'a tensor of unknown shape' : show(shape)} (${input.name}). Export it to take 1 × components × z × y × x, or 1 × components × rows × columns for slices.`,
    );
  }
  if (shape.length > 3 && typeof shape[0] === 'number' && shape[0] !== 1)
    throw refuse(`takes batches of ${shape[0]} (${show(shape)}). Export it with the batch 1, or a free one.`);
  const output = wanted === undefined ? outputs[0] : outputs.find(({ name }) => name === wanted);
  const names = outputs.map(({ name }) => name);
  if (!output) {
    throw new TomaatError(
      'BAD_INPUT',
      `The network ${file} has no output ${wanted}. Available: ${names.join(', ')}.`,
      { field: 'output' },
    );
  }
  const at = shape.length === 3 ? 0 : 1;
  const isFloat = output.type.startsWith('float');
  const channels = output.shape[at];
  const givesLabels =
    !isFloat && (output.shape.length < shape.length || typeof channels !== 'number' || channels === 1);
  if (!givesLabels && output.shape.length > 0 && output.shape.length !== shape.length) {
    throw refuse(
      `takes ${show(shape)} and gives ${show(output.shape)} (${output.name}), not a score for each class and voxel. Name another output with --output${names.length > 1 ? ` (${names.join(', ')})` : ''}, or export it for segmentation.`,
    );
  }
  return {
    isFlat: shape.length < 5,
    components: numberOrNull(shape[at]),
    size: shape
      .slice(at + 1)
      .map(numberOrNull)
      .reverse(),
    givesLabels,
    classes: givesLabels || typeof channels !== 'number' ? null : channels,
    operator: output.operator,
    ...(output !== outputs[0] && { output: output.name }),
    unused: names.filter((name) => name !== output.name),
  };
}
