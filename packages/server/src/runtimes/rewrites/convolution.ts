import type { FloatTensor, GraphNode } from '../graph-messages.ts';
import type { GraphContext } from './rewrite.ts';

/** A convolution of volumes, plain or transposed, whose weights are constants. Lists are along z, y and x. */
export interface Convolution {
  /** [O, C, k …]; of a transposed one [C, O, k …]. */
  readonly weights: FloatTensor;
  /** One number for each channel of the output. */
  readonly bias?: Float32Array;
  readonly kernel: readonly number[];
  readonly strides: readonly number[];
  readonly dilations: readonly number[];
  /** Voxels before the first and after the last, in this order. */
  readonly pads: readonly number[];
  readonly outputPadding: readonly number[];
}

/** Attributes whose meaning is known here. */
const known: readonly string[] = [
  'kernel_shape',
  'strides',
  'pads',
  'output_padding',
  'dilations',
  'group',
  'auto_pad',
];

/** Reads a Conv or a ConvTranspose of volumes, in one group, with stated padding; undefined for another form. */
export function readConvolution(
  { operator, inputs, outputs, attributes }: GraphNode,
  graph: GraphContext,
): Convolution | undefined {
  if (outputs.length !== 1 || inputs.length < 2 || inputs.length > 3) return undefined;
  for (const name of attributes.keys()) if (!known.includes(name)) return undefined;
  const weights = graph.floats(inputs[1]);
  const bias = inputs[2] ? graph.floats(inputs[2]) : undefined;
  // Volumes: in 2-D the engine has other kernels.
  if (weights?.dims.length !== 5 || (inputs[2] && !bias)) return undefined;
  const kernel = weights.dims.slice(2);
  const out = weights.dims[operator === 'Conv' ? 0 : 1];
  if (bias && (bias.dims.length !== 1 || bias.data.length !== out)) return undefined;

  const list = (name: string, missing: number, length: number): readonly number[] | undefined => {
    const value = attributes.get(name);
    if (value === undefined) return new Array<number>(length).fill(missing);
    return value.kind === 'integers' && value.value.length === length ? value.value : undefined;
  };
  const group = attributes.get('group') ?? { kind: 'integer', value: 1 };
  const autoPad = attributes.get('auto_pad') ?? { kind: 'text', value: 'NOTSET' };
  if (group.kind !== 'integer' || group.value !== 1) return undefined;
  if (autoPad.kind !== 'text' || autoPad.value !== 'NOTSET') return undefined;
  if (attributes.has('kernel_shape') && list('kernel_shape', 0, 3)?.join() !== kernel.join())
    return undefined;
  const strides = list('strides', 1, 3);
  const dilations = list('dilations', 1, 3);
  const pads = list('pads', 0, 6);
  const outputPadding = list('output_padding', 0, 3);
  if (!strides || !dilations || !pads || !outputPadding) return undefined;
  return { weights, bias: bias?.data, kernel, strides, dilations, pads, outputPadding };
}
