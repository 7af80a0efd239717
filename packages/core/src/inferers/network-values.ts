import { TomaatError } from '../errors.ts';
import type { LabelTensor, Tensor } from '../tensor.ts';

/** What networks take and give, whatever runs them: the checks of their inputs and outputs, and the numbers in them. */

/** An input or an output of a network, as its file or its server states it. */
export interface NetworkValue {
  readonly name: string;
  /** float32, uint8 and so on, as onnxruntime calls them. */
  readonly type: string;
  /** Free dimensions have a name, or an empty one; none at all: unknown. */
  readonly shape: readonly (number | string)[];
}

/** An input or an output as onnxruntime describes it, in Node and in a browser. */
export type EngineValue =
  | { readonly isTensor: false; readonly name: string }
  | (NetworkValue & { readonly isTensor: true });

export const networkValuesOf = (values: readonly EngineValue[]): NetworkValue[] =>
  values.map((value) =>
    value.isTensor
      ? { name: value.name, type: value.type, shape: value.shape }
      : { name: value.name, type: 'no tensor', shape: [] },
  );

/** onnxruntime's errors have no codes; these are its, the C++ library's, V8's, Emscripten's and the browsers' messages for out of memory. */
const noMemory =
  /bad_alloc|bad allocation|failed to allocate|allocation failed|out of memory|\(OOM\)|memory access out of bounds|cannot enlarge memory/i;

/** Whether an engine's message means that there was too little memory. */
export const saysOutOfMemory = (message: string): boolean => noMemory.test(message);

const maxListed = 20;
const maxNameLength = 100;

/** Names for a message: some of them, short and on one line, whatever a file or a server says. */
function list(values: readonly NetworkValue[]): string {
  const names = values.slice(0, maxListed).map(({ name }) => plain(name));
  return names.join(', ') + (values.length > maxListed ? ', …' : '');
}

const plain = (name: string) => name.slice(0, maxNameLength).replace(/\p{Cc}/gu, '');

/**
 * The input of a network that core can drive.
 * @param name the network, for messages
 * @param wanted the manifest's `model.input`
 * @throws {TomaatError} BAD_MANIFEST unless it takes one float tensor [1, C, z, y, x]; with `slices` [1, C, y, x] or [C, y, x]
 */
export function chooseInput(
  inputs: readonly NetworkValue[],
  name: string,
  wanted: string | undefined,
  slices = false,
): NetworkValue {
  const input = wanted === undefined ? inputs[0] : inputs.find((value) => value.name === wanted);
  if (!input)
    throw new TomaatError(
      'BAD_MANIFEST',
      `The network ${name} has no input ${wanted}; it has ${list(inputs)}. Correct \`model.input\`.`,
    );
  if (inputs.length > 1) {
    throw new TomaatError(
      'BAD_MANIFEST',
      `The network ${name} has ${inputs.length} inputs (${list(inputs)}), but only one is supported. Export it with one input whose channels are the volumes.`,
    );
  }
  if (input.type !== 'float32' && input.type !== 'float16') {
    throw new TomaatError(
      'BAD_MANIFEST',
      `The input ${plain(input.name)} of the network ${name} is ${plain(input.type)}; it must be float32 or float16. Export it with a cast at the input.`,
    );
  }
  const { shape } = input;
  if (shape.some((d) => typeof d === 'number' && d < 1)) {
    throw new TomaatError(
      'BAD_MANIFEST',
      `The input ${plain(input.name)} of the network ${name} is ${shape.join(' × ')}, which holds no voxels. Export it with the sizes of its input, or with free ones.`,
    );
  }
  const isOne = typeof shape[0] !== 'number' || shape[0] === 1;
  const takesOne = slices ? shape.length === 3 || (shape.length === 4 && isOne) : shape.length === 5 && isOne;
  if (shape.length > 0 && !takesOne) {
    const is = `The input ${plain(input.name)} of the network ${name} is ${shape.join(' × ')}`;
    throw new TomaatError(
      'BAD_MANIFEST',
      slices
        ? `${is}; the inferer slice expects 1 × components × rows × columns. Export it for one slice (batch 1 or a free batch), or use another inferer.`
        : `${is}; expected: 1 × components × z × y × x. Export it for one volume (batch 1 or a free batch)${shape.length === 4 && isOne ? ', or use the inferer slice for a 2-D network' : ''}.`,
    );
  }
  return input;
}

/**
 * The output that is used: the one of the manifest's `model.output`, or the first.
 * @throws {TomaatError} BAD_MANIFEST unless it is there and holds numbers
 */
export function chooseOutput(
  outputs: readonly NetworkValue[],
  name: string,
  wanted: string | undefined,
): NetworkValue {
  const output = wanted === undefined ? outputs[0] : outputs.find((value) => value.name === wanted);
  if (!output)
    throw new TomaatError(
      'BAD_MANIFEST',
      `The network ${name} has no output ${wanted}; it has ${list(outputs)}. Correct \`model.output\`.`,
    );
  if (!isNumberType(output.type)) {
    throw new TomaatError(
      'BAD_MANIFEST',
      `The output ${plain(output.name)} of the network ${name} is ${plain(output.type)}, not a tensor of numbers. Name another one of ${list(outputs)} in \`model.output\`.`,
    );
  }
  return output;
}

const integerTypes = ['uint8', 'int8', 'uint16', 'int16', 'uint32', 'int32', 'uint64', 'int64', 'bool'];
const isNumberType = (type: string) => ['float32', 'float16', 'float64', ...integerTypes].includes(type);

/** What a network gave: a type as in `NetworkValue`, and its numbers in the typed array for it (float16 as its bits). */
export interface RawTensor {
  readonly type: string;
  readonly data: unknown;
  readonly dims: readonly number[];
}

/** Scores as float32; a single channel of integers as labels. APP_OUTPUT if those cannot be labels. */
export function convertOutput({ type, data, dims }: RawTensor, name: string): Tensor | LabelTensor {
  if (type === 'float32') return { data: data as Float32Array, dims };
  if (type === 'float16') return { data: fromHalf(data as Uint16Array), dims };
  if (type === 'float64') return { data: Float32Array.from(data as Float64Array), dims };
  const integers = data as Uint8Array | Int32Array | BigInt64Array;
  const oneChannel = dims.length <= 4 || dims[1] === 1;
  if (!oneChannel) return { data: Float32Array.from(integers as ArrayLike<number | bigint>, Number), dims };
  return { data: toLabels(integers, name), dims, integer: true };
}

/** Integers as labels of one byte, or of two if any exceeds 255. */
function toLabels(values: Uint8Array | Int32Array | BigInt64Array, name: string): Uint8Array | Uint16Array {
  if (values instanceof Uint8Array) return values;
  let low = 0;
  let high = 0;
  const count = values.length;
  const labels = new Uint16Array(count);
  for (let i = 0; i < count; i++) {
    const value = Number(values[i]);
    if (value < low) low = value;
    if (value > high) high = value;
    labels[i] = value;
  }
  if (low < 0 || high > 65535) {
    throw new TomaatError(
      'APP_OUTPUT',
      `The network ${name} gave the label ${low < 0 ? low : high}. Labels must be between 0 and 65535.`,
    );
  }
  return high > 255 ? labels : Uint8Array.from(labels);
}

/** IEEE 754 half precision, an array type since Node 24 and the browsers of 2025; onnxruntime uses the same bits as Uint16Array. */
type HalfArrayConstructor = new (
  values: ArrayLike<number> | ArrayBufferLike,
  byteOffset?: number,
  length?: number,
) => Uint16Array;
function halfArray(): HalfArrayConstructor {
  const found = (globalThis as unknown as { Float16Array?: HalfArrayConstructor }).Float16Array;
  if (found) return found;
  throw new TomaatError(
    'APP_FAILED',
    'Networks in float16 need Node 24, or a browser of 2025, or newer. Update it, or export the network in float32.',
  );
}
export const toHalf = (data: Float32Array): Uint16Array => new (halfArray())(data);
function fromHalf(data: Uint16Array): Float32Array {
  const half =
    data.constructor === Uint16Array ? new (halfArray())(data.buffer, data.byteOffset, data.length) : data;
  return new Float32Array(half);
}
