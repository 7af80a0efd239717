import type { FloatTensor, GraphNode, WrittenNode } from '../graph-messages.ts';
import { readConvolution } from './convolution.ts';
import { createNodeWriter } from './node-writer.ts';
import type { GraphContext, Rewrite } from './rewrite.ts';

/**
 * ConvTranspose with stride 2 → convolutions at the input's resolution that give the 8 voxels of each 2 × 2 × 2 block as channels, and a
 * shuffle that puts them in their places (sub-pixel convolution: Shi et al., https://arxiv.org/abs/1609.05158).
 *
 * Along one axis, with stride s, kernel w of k taps and p voxels cut off at the start,
 *
 *     y[o] = Σ x[i]·w[j]   over all i, j with o = s·i + j − p.
 *
 * Write o = s·q + r with the phase 0 ≤ r < s. Then j ≡ r + p (mod s), so j = t + s·m with t = (r + p) mod s, and i = q + c − m with
 * c = ⌊(r + p) / s⌋:
 *
 *     y[s·q + r] = Σ x[q + c − m]·w[t + s·m]   over all m ≥ 0 with t + s·m < k.
 *
 * For each phase this is a convolution of x with the offsets c − m. The kernel of several phases together reaches from the least offset to
 * the greatest, with zeros where a phase has none. Axes are independent, so the kernels of a volume are products of these. The
 * output has s·n + e voxels for n of the input, e = output_padding + k − pads − s: there are ⌈e / s⌋ more of q, and what that is too many
 * is cut off at the end. Only the order of sums differs, so results are the same but for rounding.
 *
 * Phases of z and y are channels of one convolution; those of x are two convolutions, because then kernel 3 takes 48 products
 * for the 27 of ConvTranspose instead of 64, and because of the shuffle (see `write`). Kernel 2 takes the same 8 as before.
 *
 * Gain, layers of U-Nets at 96³ (AMD EPYC, 2 threads, onnxruntime 1.30), measured with one convolution and one Transpose, which takes 1.1 times the
 * CPU of this form for the whole U-Net: kernel 3 takes 0.30 to 0.36 of the time, kernel 2 0.55 to 0.68.
 */
export const subPixel: Rewrite = {
  name: 'sub-pixel',
  about: 'ConvTranspose of stride 2 as a sub-pixel convolution',
  operator: 'ConvTranspose',
  apply(node, graph) {
    const form = readForm(node, graph);
    return form && write(node, form, graph);
  },
};

/** One axis of an upsampling. */
interface Axis {
  readonly stride: number;
  /** For each phase: the tap of w at each offset from the least to the greatest; undefined for a zero. */
  readonly taps: readonly (readonly (number | undefined)[])[];
  readonly pads: readonly [start: number, end: number];
  /** Voxels too many at the end of the output. */
  readonly crop: number;
}

interface Form {
  /** [C, O, k …]. */
  readonly weights: FloatTensor;
  readonly bias?: Float32Array;
  readonly axes: readonly Axis[];
}

function readForm(node: GraphNode, graph: GraphContext): Form | undefined {
  const found = readConvolution(node, graph);
  if (!found?.strides.includes(2) || found.dilations.some((step) => step !== 1)) return undefined;
  const { weights, bias, kernel, strides, pads, outputPadding } = found;
  const axes: Axis[] = [];
  for (const [i, k] of kernel.entries()) {
    const axis = axisOf(k, strides[i], pads[i], pads[kernel.length + i], outputPadding[i]);
    if (!axis) return undefined;
    axes.push(axis);
  }
  return { weights, bias, axes };
}

/** One axis; undefined for forms whose gain was not measured, or that a convolution cannot have. */
function axisOf(
  kernel: number,
  stride: number,
  padStart: number,
  padEnd: number,
  outputPadding: number,
): Axis | undefined {
  const isKnown = (stride === 2 && (kernel === 2 || kernel === 3)) || (stride === 1 && kernel <= 3);
  const isWithin = [padStart, padEnd].every((pad) => pad >= 0 && pad < kernel);
  if (!isKnown || !isWithin || outputPadding < 0 || outputPadding >= stride) return undefined;
  const phases = Array.from({ length: stride }, (_, r) => {
    const [c, t] = [Math.floor((r + padStart) / stride), (r + padStart) % stride];
    const taps = new Map<number, number>();
    for (let m = 0; t + stride * m < kernel; m++) taps.set(c - m, t + stride * m);
    return taps;
  });
  const offsets = phases.flatMap((taps) => [...taps.keys()]);
  const [least, greatest] = [Math.min(...offsets), Math.max(...offsets)];
  const extra = outputPadding + kernel - padStart - padEnd - stride;
  const more = Math.ceil(extra / stride);
  const pads = [-least, more + greatest] as const;
  if (pads.some((pad) => pad < 0)) return undefined;
  return {
    stride,
    taps: phases.map((taps) => Array.from({ length: greatest - least + 1 }, (_, at) => taps.get(least + at))),
    pads,
    crop: more * stride - extra,
  };
}

function write({ inputs, outputs }: GraphNode, form: Form, graph: GraphContext): readonly WrittenNode[] {
  const { nodes, add, integers } = createNodeWriter(graph);
  const out = form.weights.dims[1];
  const [strideZ, strideY, strideX] = form.axes.map(({ stride }) => stride);
  const spatial = integers('spatial', [2, 3, 4]);

  const blocks = Array.from({ length: strideX }, (_, phaseX) => {
    const { dims, weights, bias, pads } = convolutionOf(form, phaseX);
    const constants = [graph.addConstant(`weights-${phaseX}`, dims, weights)];
    if (bias) constants.push(graph.addConstant(`bias-${phaseX}`, [bias.length], bias));
    const attributes = { kernel_shape: dims.slice(2), pads };
    return add('Conv', `blocks-${phaseX}`, [inputs[0], ...constants], attributes);
  });
  // Sizes are known only when it runs. In the shape of a Reshape, 0 is the dimension at the same place of its input.
  const size = add('Gather', 'size', [add('Shape', 'shape', [blocks[0]]), spatial], { axis: 0 });
  const head = integers('split-head', [0, strideZ, strideY, out]);
  const split = add('Concat', 'split', [head, size], { axis: 0 });
  const rowSize = add('Mul', 'row-size', [size, integers('factors', [strideZ, strideY, 1])]);
  const [start, end] = [integers('rows-head', [0, 0]), integers('rows-tail', [1])];
  const rowShape = add('Concat', 'row-shape', [start, rowSize, end], { axis: 0 });
  // The engine moves whole rows quickly and single voxels slowly: Transpose does z and y, and Concat x.
  const rows = blocks.map((block, phaseX) => {
    const phases = add('Reshape', `phases-${phaseX}`, [block, split]);
    const perm = [0, 3, 4, 1, 5, 2, 6]; // [N, sz, sy, O, z, y, x] → [N, O, z, sz, y, sy, x]
    const placed = add('Transpose', `placed-${phaseX}`, [phases], { perm });
    return add('Reshape', `rows-${phaseX}`, [placed, rowShape]);
  });
  const pairs = rows.length === 1 ? rows[0] : add('Concat', 'pairs', rows, { axis: 5 });
  const volumeShape = integers('volume-shape', [0, 0, 0, 0, -1]);
  const crops = form.axes.map(({ crop }) => crop);
  if (!crops.some((crop) => crop > 0)) {
    add('Reshape', 'volume', [pairs, volumeShape], undefined, outputs[0]);
    return nodes;
  }
  const volume = add('Reshape', 'volume', [pairs, volumeShape]);
  const first = integers('crop-start', [0, 0, 0]);
  const last = integers(
    'crop-end',
    crops.map((crop) => (crop > 0 ? -crop : 2 ** 31)), // A large number is the end of any axis.
  );
  add('Slice', 'cropped', [volume, first, last, spatial], undefined, outputs[0]);
  return nodes;
}

/**
 * The convolution that gives the voxels of one phase of x: for each phase of z, then of y, the O channels of the output.
 * Weights [phases · O, C, kernel …].
 */
function convolutionOf({ weights: { dims, data }, bias, axes: [z, y, x] }: Form, phaseX: number) {
  const [channels, out, depth, height, width] = dims;
  const row = withoutZeros(x, phaseX);
  const kernel = [z.taps[0].length, y.taps[0].length, row.taps.length];
  const phases = z.stride * y.stride;
  const weights = new Float32Array(phases * out * channels * kernel[0] * kernel[1] * kernel[2]);
  let at = 0;
  for (const tapsZ of z.taps) {
    for (const tapsY of y.taps) {
      for (let o = 0; o < out; o++) {
        for (let c = 0; c < channels; c++) {
          const from = (c * out + o) * depth * height * width;
          for (const i of tapsZ)
            for (const j of tapsY)
              for (const k of row.taps) {
                if (i !== undefined && j !== undefined && k !== undefined)
                  weights[at] = data[from + (i * height + j) * width + k];
                at++;
              }
        }
      }
    }
  }
  return {
    dims: [phases * out, channels, ...kernel],
    weights,
    bias: bias && Float32Array.from({ length: phases * out }, (_, i) => bias[i % out]),
    pads: [z, y, row].map(({ pads }) => pads[0]).concat([z, y, row].map(({ pads }) => pads[1])),
  };
}

/** The kernel of one phase, without zeros at its ends as far as there is padding that goes with them. */
function withoutZeros({ taps, pads: [start, end] }: Axis, phase: number) {
  const kept = [...taps[phase]];
  const pads = [start, end];
  for (; pads[0] > 0 && kept.length > 1 && kept[0] === undefined; pads[0]--) kept.shift();
  for (; pads[1] > 0 && kept.length > 1 && kept.at(-1) === undefined; pads[1]--) kept.pop();
  return { taps: kept, pads };
}
