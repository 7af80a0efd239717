/** The graph of an ONNX file, rewritten into a faster one. */
import { TomaatError } from '@tomaat/core';
import { readNode, tensorName, valueName } from '../../packages/server/src/runtimes/graph-messages.ts';
import { inspectGraph } from '../../packages/server/src/runtimes/onnx-graph.ts';
import { readFields } from '../../packages/server/src/runtimes/protobuf.ts';
import { rewriteGraph } from '../../packages/server/src/runtimes/rewrite-graph.ts';
import { encodeModel, type NodeSpec } from '../../packages/server/test/onnx-fixture.ts';
import { equal, must, type Target } from '../target.ts';

const image = { name: 'a', dims: [1, 1, 'z', 'y', 'x'] };
const scores = { name: 's', dims: [1, 1, 'z', 'y', 'x'] };

/** As short as graphs can be that are rewritten. */
const model = (kernel: 2 | 3, first: NodeSpec[] = [], slope = 'p', inputs = [image]) =>
  encodeModel({
    nodes: [
      ...first,
      {
        op: 'ConvTranspose',
        inputs: ['a', 'w', 'b'],
        outputs: ['u'],
        attributes: {
          strides: [2, 2, 2],
          ...(kernel === 3 && { pads: [1, 1, 1, 1, 1, 1], output_padding: [1, 1, 1] }),
        },
      },
      { op: 'PRelu', inputs: ['u', slope], outputs: ['s'] },
    ],
    initializers: [
      { name: 'w', dims: [1, 1, kernel, kernel, kernel], data: new Float32Array(kernel ** 3).fill(1) },
      { name: 'b', dims: [1], data: Float32Array.of(1) },
      { name: 'p', dims: [1, 1, 1, 1], data: Float32Array.of(0.25) },
    ],
    inputs,
    outputs: [scores],
  });

/** The least that is computed in tiles: the engine's kernels take 16 channels. */
const convolution = encodeModel({
  nodes: [{ op: 'Conv', inputs: ['a', 'w', 'b'], outputs: ['s'], attributes: { pads: [1, 1, 1, 1, 1, 1] } }],
  initializers: [
    { name: 'w', dims: [16, 16, 3, 3, 3], data: new Float32Array(16 * 16 * 27).fill(1) },
    { name: 'b', dims: [16], data: new Float32Array(16).fill(1) },
  ],
  inputs: [{ ...image, dims: [1, 16, 'z', 'y', 'x'] }],
  outputs: [{ ...scores, dims: [1, 16, 'z', 'y', 'x'] }],
});

interface Names {
  readonly defined: ReadonlySet<string>;
  readonly used: ReadonlySet<string>;
  /** Inputs and outputs of the graph, as bytes, without inputs that have a constant value. */
  readonly ends: readonly Uint8Array[];
}

function namesOf(bytes: Uint8Array): Names {
  const defined = new Set(['']);
  const used = new Set<string>();
  const [inputs, outputs]: Uint8Array[][] = [[], []];
  const constants = new Set<string>();
  const graphs = [...readFields(bytes)].filter(({ number }) => number === 7);
  for (const graph of graphs) {
    if (graph.kind !== 'bytes') continue;
    for (const field of readFields(graph.value)) {
      if (field.kind !== 'bytes') continue;
      if (field.number === 1) {
        const { inputs, outputs } = readNode(field.value);
        for (const name of inputs) used.add(name);
        for (const name of outputs) defined.add(name);
      } else if (field.number === 5) constants.add(tensorName(field.value));
      else if (field.number === 11) {
        inputs.push(field.value);
        defined.add(valueName(field.value));
      } else if (field.number === 12) {
        outputs.push(field.value);
        used.add(valueName(field.value));
      }
    }
  }
  for (const name of constants) defined.add(name);
  return { defined, used, ends: [...inputs.filter((input) => !constants.has(valueName(input))), ...outputs] };
}

export const graphTargets = {
  'onnx-graph': {
    description: 'An ONNX graph that is rewritten into a faster one',
    async seeds() {
      const again: NodeSpec = { op: 'Identity', inputs: ['p'], outputs: ['q'] };
      const listed = [image, { name: 'p', dims: [1, 1, 1, 1] }];
      return [model(3), model(2), model(2, [again], 'q'), model(2, [], 'p', listed), convolution];
    },
    words: [
      'ConvTranspose',
      'PRelu',
      'Conv',
      'Constant',
      'Identity',
      'kernel_shape',
      'strides',
      'pads',
      'output_padding',
      'dilations',
      'group',
      'auto_pad',
      '\x40\x02',
      '\x40\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01',
      '\x08\x03',
      '\x2a\x04\x32\x02',
      '\xff\xff\xff\xff\x7f',
      'tomaat:rewrite:0:size',
    ],
    maxBytes: 40_000,
    run(input) {
      let facts: ReturnType<typeof inspectGraph>;
      try {
        facts = inspectGraph(input);
      } catch (error) {
        if (error instanceof RangeError && /^(the|a|an) /.test(error.message))
          throw new TomaatError('BAD_MANIFEST', error.message);
        throw error;
      }
      const found = rewriteGraph(input);
      if ('left' in found) {
        const [, fault] = found.left.split('as a whole: ');
        must(fault === undefined || /^(the|a|an) /.test(fault), 'what it cannot read is named');
        return;
      }
      const { bytes } = found;
      must(bytes.length <= 20 * input.length + 20_000, 'it adds a bounded number of constants');
      must(JSON.stringify(inspectGraph(bytes)) === JSON.stringify(facts), 'it keeps its references');
      const [before, after] = [namesOf(input), namesOf(bytes)];
      must(
        before.ends.length === after.ends.length && before.ends.every((end, i) => equal(end, after.ends[i])),
        'it keeps its inputs and outputs',
      );
      for (const name of after.used)
        must(after.defined.has(name) || !before.defined.has(name), 'what is used is there');
      must('left' in rewriteGraph(bytes), 'it is rewritten once');
    },
  },
} satisfies Record<string, Target>;
