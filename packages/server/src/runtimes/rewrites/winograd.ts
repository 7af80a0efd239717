import type { WrittenNode } from '../graph-messages.ts';
import { type Convolution, readConvolution } from './convolution.ts';
import { createNodeWriter, type NodeWriter } from './node-writer.ts';
import type { GraphContext, Rewrite } from './rewrite.ts';
import { toomCook } from './toom-cook.ts';

/** Planes of a tile that are computed together. */
const outputs = 4;
/** Of the sets that were tried, the one that rounds least: two thirds of what 0, ±1, ±2 loses, see below. */
const points = [0, 1, -1, 0.5, -2];
const { ofInput, ofKernel, ofProducts } = toomCook(outputs, 3, points);
/** Planes of a tile: of its input, and of the products. */
const planes = ofInput.length;
/** Where all outputs take a product once: the row of `ofProducts` for the point 1. */
const once = points.indexOf(1);

/** Channels that the engine's 2-D kernels take at once, on processors with AVX-512; 8 with AVX2. */
const block = 16;
/** The first with Range. */
const leastOpset = 11;

/**
 * Conv of 3 × 3 × 3 → 2-D convolutions of tiles along z: 6 products for 4 planes of the output instead of 12 (Winograd's form, along one axis).
 *
 * With w_k the plane k of the kernel and * a 2-D convolution, the plane d of the output is y_d = Σ x_(d+k)*w_k, a convolution along z whose
 * products are 2-D convolutions. `toomCook` gives 4 such planes by 6 products: each of a sum of planes of x with a sum of planes of w, which is
 * computed here. Only sums are made besides, so the results are the same but for rounding: with scores up to 11 the largest difference in a U-Net
 * of nnU-Net's size is 4e-5, and with its random weights 4 labels of 884,736 differ. A score that is not a finite number reaches up to 4 more planes.
 *
 * The 6 products are one convolution in 6 groups, with the tiles as its batch: 2-D convolutions have kernels of their own in the engine, faster
 * than those of volumes (200 against 150 GFLOP/s). They take channels by 16.
 *
 * Gain (AMD EPYC with AVX-512, 2 threads, onnxruntime 1.30): layers of 16 to 320 channels take 0.38 to 0.63 of the time. Memory: 3 times that
 * of the input and output of the layer. So it is used only where a run on this machine was faster, and where it fits; see ../faster-form.ts.
 */
export const winograd: Rewrite = {
  name: 'winograd',
  about: 'Conv of 3 × 3 × 3 as 2-D convolutions of tiles along z',
  operator: 'Conv',
  isTimed: true,
  apply(node, graph) {
    const form = readConvolution(node, graph);
    if (!form || !isKnown(form) || graph.opset < leastOpset) return undefined;
    return write(node.inputs[0], node.outputs[0], form, graph);
  },
};

function isKnown({
  weights: { dims },
  kernel,
  strides,
  dilations,
  pads,
  outputPadding,
}: Convolution): boolean {
  const [out, channels] = dims;
  return (
    kernel.join() === '3,3,3' &&
    [...strides, ...dilations].every((step) => step === 1) &&
    [...outputPadding, ...pads].every((pad) => pad >= 0 && pad < 3) &&
    outputPadding.every((pad) => pad === 0) &&
    out % block === 0 &&
    channels % block === 0
  );
}

function write(
  input: string,
  output: string,
  { weights, bias, pads }: Convolution,
  graph: GraphContext,
): readonly WrittenNode[] {
  const [out, channels] = weights.dims;
  const writer = createNodeWriter(graph);
  const slices = writeTiles(writer, graph, { input, channels, pads });
  const constants = [
    graph.addConstant('weights', [planes * out, channels, 3, 3], productWeights(weights.data)),
  ];
  if (bias) {
    const added = new Float32Array(planes * out);
    added.set(bias, once * out);
    constants.push(graph.addConstant('bias', [planes * out], added));
  }
  const [, top, left, , bottom, right] = pads;
  const attributes = { kernel_shape: [3, 3], pads: [top, left, bottom, right], group: planes };
  const products = writer.add('Conv', 'products', [slices, ...constants], attributes);
  writeVolume(writer, graph, { input, products, out, more: pads[0] + pads[3] - 2, output });
  return writer.nodes;
}

/** The transformed tiles of a volume [N, C, z, y, x], as a batch of slices: [N · tiles, planes · C, y, x]. */
function writeTiles(
  { add, integers }: NodeWriter,
  graph: GraphContext,
  { input, channels, pads }: { input: string; channels: number; pads: readonly number[] },
): string {
  const volumes = add('Reshape', 'volumes', [input, integers('volumes-shape', [-1, 1, 0, 0, 0])]);
  const matrix = Float32Array.from(ofInput.flat());
  // Padded at the end for ⌈depth / 4⌋ tiles: where there is no plane, the output is cut off.
  const tiles = add(
    'Conv',
    'tiles',
    [volumes, graph.addConstant('to-tiles', [planes, 1, planes, 1, 1], matrix)],
    {
      kernel_shape: [planes, 1, 1],
      strides: [outputs, 1, 1],
      pads: [pads[0], 0, 0, pads[3] + outputs - 1, 0, 0],
    },
  );
  const shape = add('Shape', 'tiles-shape', [tiles]);
  const count = add('Gather', 'tiles-count', [shape, integers('third', [2])], { axis: 0 });
  const { rows, numbers } = writeRows({ add, integers }, graph, 'tile', tiles);
  // The engine moves whole slices quickly, so their numbers are put into the new order, and the slices taken by them.
  const head = integers('tiles-head', [-1, channels, planes]);
  const grid = add('Reshape', 'tile-grid', [
    numbers,
    add('Concat', 'tile-grid-shape', [head, count], { axis: 0 }),
  ]);
  const turned = add('Transpose', 'tile-order', [grid], { perm: [0, 3, 2, 1] });
  const order = add('Reshape', 'tile-rows', [turned, integers('tile-rows-shape', [-1, planes * channels])]);
  return add('Gather', 'slices', [rows, order], { axis: 0 });
}

/** The volume [N, O, z, y, x] of products [N · tiles, planes · O, y, x]; z is that of `input` and `more`. */
function writeVolume(
  { add, integers }: NodeWriter,
  graph: GraphContext,
  of: { input: string; products: string; out: number; more: number; output: string },
): void {
  const matrix = graph.addConstant('to-planes', [outputs, planes], Float32Array.from(ofProducts.flat()));
  const tiles = add('Reshape', 'product-tiles', [of.products, integers('product-shape', [0, planes, -1])]);
  const sums = add('MatMul', 'sums', [matrix, tiles]);
  const { rows, numbers } = writeRows({ add, integers }, graph, 'plane', sums, of.products);
  const shape = add('Shape', 'input-shape', [of.input]);
  const one = (name: string, axis: number) =>
    add('Gather', name, [shape, integers(`${name}-axis`, [axis])], { axis: 0 });
  const tail = integers('grid-tail', [-1, of.out]);
  const grid = add('Reshape', 'plane-grid', [
    numbers,
    add('Concat', 'plane-grid-shape', [one('batch', 0), tail], { axis: 0 }),
  ]);
  const depth = add('Add', 'depth', [one('input-depth', 2), integers('more', [of.more])]);
  const cropped = add('Slice', 'plane-rows', [grid, integers('from', [0]), depth, integers('second', [1])]);
  const order = add('Transpose', 'plane-order', [cropped], { perm: [0, 2, 1] });
  add('Gather', 'volume', [rows, order], { axis: 0 }, of.output);
}

/** A tensor as a list of its slices, [n, y, x], and their numbers from 0. `like` has the slices' size in its last two axes. */
function writeRows(
  { add, integers }: Pick<NodeWriter, 'add' | 'integers'>,
  graph: GraphContext,
  of: string,
  from: string,
  like = from,
): { rows: string; numbers: string } {
  const scalar = (name: string, value: bigint) =>
    graph.addConstant(`${of}-${name}`, [], BigInt64Array.of(value));
  const size = add('Slice', `${of}-size`, [
    add('Shape', `${of}-shape`, [like]),
    integers(`${of}-first`, [-2]),
    integers(`${of}-last`, [2 ** 31]),
  ]);
  const shape = add('Concat', `${of}-slices-shape`, [integers(`${of}-all`, [-1]), size], { axis: 0 });
  const rows = add('Reshape', `${of}-slices`, [from, shape]);
  const count = add('Gather', `${of}-count`, [add('Shape', `${of}-counts`, [rows]), scalar('zeroth', 0n)], {
    axis: 0,
  });
  const numbers = add('Range', `${of}-numbers`, [scalar('zero', 0n), count, scalar('one', 1n)]);
  return { rows, numbers };
}

/** The kernels of the products, [planes, O, C, 3, 3], of weights [O, C, 3, 3, 3]. */
function productWeights(data: Float32Array): Float32Array {
  const pairs = data.length / 27;
  const weights = new Float32Array(planes * pairs * 9);
  for (const [j, [a, b, c]] of ofKernel.entries())
    for (let pair = 0; pair < pairs; pair++)
      for (let k = 0; k < 9; k++) {
        const at = pair * 27 + k;
        weights[(j * pairs + pair) * 9 + k] = a * data[at] + b * data[at + 9] + c * data[at + 18];
      }
  return weights;
}
