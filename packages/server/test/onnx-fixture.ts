/**
 * ONNX networks made in the test itself: no Python, no files of other people, no dependency.
 *
 *   pointwiseNetwork({ weights, bias })   a 1×1×1 convolution: the scores of every voxel are known by hand
 *   thresholdNetwork(level)               class 1 where the input is above `level`, else class 0
 *   unetNetwork({ classes, seed })        a 3-D U-Net (16-32-64-128) with random, reproducible weights
 *   labelNetwork(level)                   like thresholdNetwork, but its output is an integer label map
 *   encodeModel({ nodes, … })             anything else: Conv, ConvTranspose, Relu, Concat, MaxPool, Softmax …
 *
 * All return the bytes of an `.onnx` file; `writeModel(folder, name, bytes)` puts them on disk. The networks take
 * `image` [1, C, z, y, x] with free sizes and return `scores` [1, K, z, y, x] unless said otherwise.
 * Format: onnx.proto of https://github.com/onnx/onnx (field numbers are given in the code), opset 17.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { encodeNode, encodeTensor, type WrittenNode } from '../src/runtimes/graph-messages.ts';
import { bytesField, integerField, joinParts, type Parts } from '../src/runtimes/protobuf.ts';

/** ONNX element types by name (TensorProto.DataType). */
export const elementTypes = {
  float32: 1,
  uint8: 2,
  int8: 3,
  uint16: 4,
  int16: 5,
  int32: 6,
  int64: 7,
  bool: 9,
  float16: 10,
  float64: 11,
} as const;
export type ElementType = keyof typeof elementTypes;

export interface NodeSpec {
  op: string;
  inputs: readonly string[];
  outputs: readonly string[];
  attributes?: WrittenNode['attributes'];
}

/** Weights: float32 or int64 data, or the place of external data beside the model file. */
export interface InitializerSpec {
  name: string;
  dims: readonly number[];
  data?: Float32Array | BigInt64Array;
  external?: { location: string; offset?: number; length: number };
}

/** An input or output; a dimension given by name is free. */
export interface ValueSpec {
  name: string;
  type?: ElementType;
  dims: readonly (number | string)[];
}

export interface ModelSpec {
  nodes: readonly NodeSpec[];
  initializers?: readonly InitializerSpec[];
  inputs: readonly ValueSpec[];
  outputs: readonly ValueSpec[];
  opset?: number;
}

function encodeInitializer({ name, dims, data, external }: InitializerSpec): Parts {
  if (data) return encodeTensor(name, dims, data);
  const head = [
    ...dims.flatMap((d) => integerField(1, d)),
    ...integerField(2, elementTypes.float32),
    ...bytesField(8, name),
  ];
  if (!external) throw new Error(`the initializer ${name} has neither data nor a place`);
  const entries = {
    location: external.location,
    offset: `${external.offset ?? 0}`,
    length: `${external.length}`,
  };
  return [
    ...head,
    ...Object.entries(entries).flatMap(([key, value]) =>
      bytesField(13, [...bytesField(1, key), ...bytesField(2, value)]),
    ),
    ...integerField(14, 1),
  ];
}

function encodeValue({ name, type = 'float32', dims }: ValueSpec): Parts {
  const shape = dims.flatMap((d) =>
    bytesField(1, typeof d === 'number' ? integerField(1, d) : bytesField(2, d)),
  );
  const tensor = [...integerField(1, elementTypes[type]), ...bytesField(2, shape)];
  return [...bytesField(1, name), ...bytesField(2, bytesField(1, tensor))];
}

/** The bytes of an ONNX file (ModelProto). */
export function encodeModel(spec: ModelSpec): Uint8Array {
  const graph = [
    ...spec.nodes.flatMap((node) => bytesField(1, encodeNode({ operator: node.op, ...node }))),
    ...bytesField(2, 'fixture'),
    ...(spec.initializers ?? []).flatMap((initializer) => bytesField(5, encodeInitializer(initializer))),
    ...spec.inputs.flatMap((value) => bytesField(11, encodeValue(value))),
    ...spec.outputs.flatMap((value) => bytesField(12, encodeValue(value))),
  ];
  const opset = [...bytesField(1, ''), ...integerField(2, spec.opset ?? 17)];
  return joinParts([
    ...integerField(1, 8),
    ...bytesField(2, 'tomaat-fixture'),
    ...bytesField(7, graph),
    ...bytesField(8, opset),
  ]);
}

/** Writes a network to `folder/name` (folders are made) and returns its path. */
export async function writeModel(folder: string, name: string, model: Uint8Array): Promise<string> {
  const path = join(folder, name);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, model);
  return path;
}

/** Reproducible numbers in [0, 1) (mulberry32). */
export function createRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const freeSizes = ['z', 'y', 'x'] as const;

export interface PointwiseOptions {
  /** One row for each class, one number for each input component. */
  weights: readonly (readonly number[])[];
  /** One number for each class; zeros unless given. */
  bias?: readonly number[];
  /** Sizes along x, y and z that the network insists on; free unless given. */
  size?: readonly [number, number, number];
  inputName?: string;
  outputName?: string;
  /** Ends in a softmax over the classes. */
  softmax?: boolean;
}

/** A network whose scores at a voxel are `weights · input + bias`: every result can be worked out by hand. */
export function pointwiseNetwork(options: PointwiseOptions): Uint8Array {
  const { weights, bias = weights.map(() => 0), inputName = 'image', outputName = 'scores' } = options;
  const classes = weights.length;
  const components = weights[0].length;
  const sizes = options.size ? [options.size[2], options.size[1], options.size[0]] : freeSizes;
  const last: NodeSpec = options.softmax
    ? { op: 'Softmax', inputs: ['logits'], outputs: [outputName], attributes: { axis: 1 } }
    : { op: 'Identity', inputs: ['logits'], outputs: [outputName] };
  return encodeModel({
    nodes: [
      {
        op: 'Conv',
        inputs: [inputName, 'w', 'b'],
        outputs: ['logits'],
        attributes: { kernel_shape: [1, 1, 1] },
      },
      last,
    ],
    initializers: [
      { name: 'w', dims: [classes, components, 1, 1, 1], data: Float32Array.from(weights.flat()) },
      { name: 'b', dims: [classes], data: Float32Array.from(bias) },
    ],
    inputs: [{ name: inputName, dims: [1, components, ...sizes] }],
    outputs: [{ name: outputName, dims: [1, classes, ...sizes] }],
  });
}

/** Two classes: 1 where the input is above `level`, else 0 (scores 0 and input − level). */
export function thresholdNetwork(level: number): Uint8Array {
  return pointwiseNetwork({ weights: [[0], [1]], bias: [0, -level] });
}

/** An integer label map as output (`labels`, [1, 1, z, y, x]): 1 where the input is above `level`, else 0. */
export function labelNetwork(level: number, type: 'uint8' | 'int64' | 'int32' = 'int64'): Uint8Array {
  return encodeModel({
    nodes: [
      { op: 'Greater', inputs: ['image', 'level'], outputs: ['above'] },
      { op: 'Cast', inputs: ['above'], outputs: ['labels'], attributes: { to: elementTypes[type] } },
    ],
    initializers: [{ name: 'level', dims: [1], data: Float32Array.of(level) }],
    inputs: [{ name: 'image', dims: [1, 1, ...freeSizes] }],
    outputs: [{ name: 'labels', type, dims: [1, 1, ...freeSizes] }],
  });
}

export interface UnetOptions {
  classes?: number;
  components?: number;
  /** Channels of each level; every level halves the size, so sizes must be multiples of 2^(levels − 1). */
  channels?: readonly number[];
  seed?: number;
  /** Taps of the transposed convolutions along each axis: 2 as nnU-Net has them, or 3 as MONAI has. */
  upKernel?: 2 | 3;
  /** `prelu`: with one slope, MONAI's default. */
  activation?: 'leaky-relu' | 'prelu';
}

/**
 * A 3-D U-Net: each level is two of 3×3×3 convolution, instance normalisation and leaky ReLU; 2×2×2 max pooling
 * down, transposed convolution (kernel 2) and concatenation up, a 1×1×1 convolution to the classes. He-uniform weights from a
 * fixed seed: the labels mean nothing, but the work is that of a real network (95 GFLOP at 96³ with the defaults).
 */
export function unetNetwork(options: UnetOptions = {}): Uint8Array {
  const { classes = 14, components = 1, channels = [16, 32, 64, 128], seed = 1 } = options;
  const { upKernel = 2, activation = 'leaky-relu' } = options;
  const random = createRandom(seed);
  const nodes: NodeSpec[] = [];
  const initializers: InitializerSpec[] = [];

  const weights = (name: string, dims: readonly number[], fanIn: number) => {
    const bound = Math.sqrt(6 / fanIn);
    const data = Float32Array.from(
      { length: dims.reduce((a, b) => a * b, 1) },
      () => (random() * 2 - 1) * bound,
    );
    initializers.push({ name, dims, data });
    return name;
  };
  const constant = (name: string, length: number, value: number) => {
    initializers.push({ name, dims: [length], data: new Float32Array(length).fill(value) });
    return name;
  };
  const slope = (name: string) => {
    initializers.push({ name, dims: [1, 1, 1, 1], data: Float32Array.of(0.25) });
    return name;
  };
  const block = (input: string, from: number, to: number, name: string): string => {
    let at = input;
    for (const [i, width] of [from, to].entries()) {
      const id = `${name}${i}`;
      const w = weights(`${id}_w`, [to, width, 3, 3, 3], width * 27);
      nodes.push(
        {
          op: 'Conv',
          inputs: [at, w],
          outputs: [`${id}_conv`],
          attributes: { kernel_shape: [3, 3, 3], pads: [1, 1, 1, 1, 1, 1] },
        },
        {
          op: 'InstanceNormalization',
          inputs: [`${id}_conv`, constant(`${id}_scale`, to, 1), constant(`${id}_shift`, to, 0)],
          outputs: [`${id}_norm`],
          attributes: { epsilon: { float: 1e-5 } },
        },
        activation === 'prelu'
          ? { op: 'PRelu', inputs: [`${id}_norm`, slope(`${id}_slope`)], outputs: [`${id}_out`] }
          : {
              op: 'LeakyRelu',
              inputs: [`${id}_norm`],
              outputs: [`${id}_out`],
              attributes: { alpha: { float: 0.01 } },
            },
      );
      at = `${id}_out`;
    }
    return at;
  };

  const halving = { kernel_shape: [2, 2, 2], strides: [2, 2, 2] };
  const doubling =
    upKernel === 2
      ? halving
      : {
          kernel_shape: [3, 3, 3],
          strides: [2, 2, 2],
          pads: [1, 1, 1, 1, 1, 1],
          output_padding: [1, 1, 1],
        };
  const skips: string[] = [];
  let at = 'image';
  let width = components;
  for (const [level, to] of channels.entries()) {
    if (level > 0) {
      nodes.push({ op: 'MaxPool', inputs: [at], outputs: [`pool${level}`], attributes: halving });
      at = `pool${level}`;
    }
    at = block(at, width, to, `down${level}`);
    width = to;
    skips.push(at);
  }
  for (let level = channels.length - 2; level >= 0; level--) {
    const to = channels[level];
    const w = weights(`up${level}_w`, [width, to, upKernel, upKernel, upKernel], width);
    nodes.push(
      { op: 'ConvTranspose', inputs: [at, w], outputs: [`up${level}`], attributes: doubling },
      {
        op: 'Concat',
        inputs: [`up${level}`, skips[level]],
        outputs: [`cat${level}`],
        attributes: { axis: 1 },
      },
    );
    at = block(`cat${level}`, 2 * to, to, `merge${level}`);
    width = to;
  }
  nodes.push({
    op: 'Conv',
    inputs: [at, weights('head_w', [classes, width, 1, 1, 1], width), constant('head_b', classes, 0)],
    outputs: ['scores'],
    attributes: { kernel_shape: [1, 1, 1] },
  });
  return encodeModel({
    nodes,
    initializers,
    inputs: [{ name: 'image', dims: [1, components, ...freeSizes] }],
    outputs: [{ name: 'scores', dims: [1, classes, ...freeSizes] }],
  });
}
