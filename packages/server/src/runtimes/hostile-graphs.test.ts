import { InferenceSession, Tensor as OrtTensor } from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import {
  createRandom,
  encodeModel,
  type ModelSpec,
  type NodeSpec,
  writeModel,
} from '../../test/onnx-fixture.ts';
import { temporaryFolder } from '../../test/test-server.ts';
import { encodeNode, encodeTensor, type WrittenNode } from './graph-messages.ts';
import { openOnnxSession, sessionOptions } from './onnx.ts';
import { inspectGraph, operatorsOf } from './onnx-graph.ts';
import { bytesField, integerField, joinParts, type Parts, readFields } from './protobuf.ts';
import { rewriteGraph } from './rewrite-graph.ts';

/* Graphs made to mislead the rewriter: it leaves them alone or keeps their results, in bounded time and memory. */

const free = ['n', 'c', 'z', 'y', 'x'];
const image = { name: 'image', dims: free };
const scores = { name: 'scores', dims: free };
const noForm = { left: 'no operator has a faster form that is known' };

function numbers(count: number, seed: number): Float32Array {
  const random = createRandom(seed);
  return Float32Array.from({ length: count }, () => random() * 2 - 1);
}

/** 3 channels to 3, so that it can stand behind itself. */
const weights = { name: 'w', dims: [3, 3, 2, 2, 2], data: numbers(72, 3) };
const slope = { name: 'a', dims: [1, 1, 1, 1], data: Float32Array.of(0.25) };
const double = { strides: [2, 2, 2] };
const up = (more: Partial<NodeSpec> = {}): NodeSpec => ({
  op: 'ConvTranspose',
  inputs: ['image', 'w'],
  outputs: ['scores'],
  attributes: double,
  ...more,
});
const model = (more: Partial<ModelSpec> = {}) =>
  encodeModel({ nodes: [up()], initializers: [weights], inputs: [image], outputs: [scores], ...more });
const activation = (more: Partial<ModelSpec> = {}) =>
  model({
    nodes: [{ op: 'PRelu', inputs: ['image', 'a'], outputs: ['scores'] }],
    initializers: [slope],
    ...more,
  });

/** The model with more fields in its graph. */
const inGraph = (of: Uint8Array, fields: Parts): Uint8Array =>
  joinParts(
    [...readFields(of)].flatMap((field) =>
      field.number === 7 && field.kind === 'bytes'
        ? bytesField(7, [...fields, field.value])
        : [of.subarray(field.start, field.end)],
    ),
  );
const node = (written: WrittenNode, more: Parts = []) => bytesField(1, [...encodeNode(written), ...more]);

function repeated(parts: Parts, count: number): Uint8Array {
  const one = joinParts(parts);
  const all = new Uint8Array(one.length * count);
  for (let i = 0; i < count; i++) all.set(one, i * one.length);
  return all;
}

/** All outputs of a model, on a volume without symmetry. */
async function outputsOf(of: Uint8Array, dims: readonly number[]) {
  const session = await InferenceSession.create(of, sessionOptions({ threads: 1 }));
  try {
    const data = numbers(
      dims.reduce((a, b) => a * b, 1),
      7,
    );
    const found = await session.run({ image: new OrtTensor('float32', data, dims) });
    return Object.entries(found).map(([name, { data, dims }]) => ({
      name,
      dims,
      data: data as Float32Array,
    }));
  } finally {
    await session.release();
  }
}

async function expectSame(of: Uint8Array, applied: Record<string, number>): Promise<void> {
  const found = rewriteGraph(of);
  if ('left' in found) throw new Error(found.left);
  expect(found.applied).toEqual(applied);
  const dims = [1, 3, 4, 3, 5];
  const [before, after] = [await outputsOf(of, dims), await outputsOf(found.bytes, dims)];
  expect(after.map(({ name, dims }) => [name, dims])).toEqual(before.map(({ name, dims }) => [name, dims]));
  for (const [i, { data }] of before.entries()) {
    expect(data.some((value) => Math.abs(value) > 0.1)).toBe(true);
    const furthest = data.reduce((most, value, at) => Math.max(most, Math.abs(value - after[i].data[at])), 0);
    expect(furthest).toBeLessThan(1e-5);
  }
}

describe('rewriteGraph() keeps the results of', () => {
  const listed = { inputs: [image, { name: 'w', dims: weights.dims }, { name: 'a', dims: slope.dims }] };
  const chain: Partial<ModelSpec> = {
    nodes: [up({ outputs: ['u'] }), { op: 'PRelu', inputs: ['u', 'a'], outputs: ['scores'] }],
    initializers: [weights, slope],
  };
  it.each<[string, Uint8Array, Record<string, number>]>([
    [
      'weights that are listed among the inputs',
      model({ ...chain, ...listed }),
      { 'sub-pixel': 1, 'leaky-relu': 1 },
    ],
    [
      'weights that are inputs in a file of 2018',
      ofVersion3(model({ ...chain, ...listed })),
      { 'sub-pixel': 1, 'leaky-relu': 1 },
    ],
    [
      'weights that another operator uses, too',
      model({
        nodes: [up({ outputs: ['u'] }), up({ inputs: ['u', 'w'], attributes: { strides: [3, 3, 3] } })],
      }),
      { 'sub-pixel': 1 },
    ],
    [
      'weights that are an output',
      model({ outputs: [scores, { name: 'w', dims: weights.dims }] }),
      { 'sub-pixel': 1 },
    ],
    [
      'an output that is used again',
      model({ ...chain, outputs: [scores, { name: 'u', dims: free }] }),
      { 'sub-pixel': 1, 'leaky-relu': 1 },
    ],
    [
      'an operator beside a list of 2000 numbers',
      activation({
        nodes: [
          {
            op: 'Constant',
            inputs: [],
            outputs: ['list'],
            attributes: { value_ints: Array.from({ length: 2000 }, (_, i) => i) },
          },
          { op: 'PRelu', inputs: ['image', 'a'], outputs: ['scores'] },
        ],
      }),
      { 'leaky-relu': 1 },
    ],
    [
      'a constant that is listed among the values',
      inGraph(activation(), bytesField(13, bytesField(1, 'a'))),
      { 'leaky-relu': 1 },
    ],
  ])('%s', async (_, of, applied) => expectSame(of, applied));
});

describe('rewriteGraph() leaves alone', () => {
  const huge = 2 ** 62;
  const sizes = (dims: readonly number[]) => model({ initializers: [{ ...weights, dims }] });
  const attribute = (attributes: NodeSpec['attributes']) =>
    model({ nodes: [up({ attributes: { ...double, ...attributes } })] });
  it.each<[string, Uint8Array]>([
    ['weights of negative size', sizes([-3, -3, 2, 2, 2])],
    ['weights of no size', sizes([0, 3, 2, 2, 2])],
    ['weights whose size overflows', sizes([huge, huge, 2, 2, 2])],
    ['weights of 2000 axes', sizes(new Array<number>(2000).fill(1))],
    ['another kernel than that of the weights', attribute({ kernel_shape: [3, 3, 3] })],
    ['strides beyond 2^53', attribute({ strides: [huge + 2, 2, 2] })],
    ['negative strides', attribute({ strides: [-2, 2, 2] })],
    ['strides for another number of axes', attribute({ strides: [2, 2] })],
    ['2^32 + 1 groups', attribute({ group: 2 ** 32 + 1 })],
    ['huge pads', attribute({ pads: [huge, 0, 0, 0, 0, 0] })],
    ['a huge output padding', attribute({ output_padding: [huge, 0, 0] })],
    ['a negative output padding', attribute({ output_padding: [-1, 0, 0] })],
    [
      'a bias of too few numbers',
      model({
        nodes: [up({ inputs: ['image', 'w', 'b'] })],
        initializers: [weights, { ...slope, name: 'b', dims: [1] }],
      }),
    ],
    ['slopes along x', activation({ initializers: [{ ...slope, dims: [3], data: new Float32Array(3) }] })],
    [
      'slopes of more axes than a volume',
      activation({ initializers: [{ ...slope, dims: [1, 1, 1, 1, 1, 1] }] }),
    ],
    [
      'slopes without a name',
      activation({
        initializers: [{ ...slope, name: '' }],
        nodes: [{ op: 'PRelu', inputs: ['image', ''], outputs: ['scores'] }],
      }),
    ],
  ])('%s', (_, of) => {
    expect(rewriteGraph(of)).toEqual(noForm);
  });

  const plain = model();
  const constant = (attribute: Parts) =>
    inGraph(plain, node({ operator: 'Constant', inputs: [], outputs: ['k'] }, bytesField(5, attribute)));
  const external = [
    ...encodeTensor('', [1], Float32Array.of(1)),
    ...bytesField(13, [...bytesField(1, 'location'), ...bytesField(2, 'secret')]),
    ...integerField(14, 1),
  ];
  const loop = node(
    { operator: 'Loop', inputs: ['n', 'go', 'w'], outputs: ['o'] },
    bytesField(5, [
      ...bytesField(1, 'body'),
      ...bytesField(6, node({ operator: 'Neg', inputs: ['w'], outputs: ['v'] })),
    ]),
  );
  const named = (output: Uint8Array) =>
    node({ operator: 'Neg', inputs: ['image'], outputs: ['o'] }, bytesField(2, output));
  it.each<[string, Uint8Array, string]>([
    [
      'a constant in another file',
      constant([...bytesField(1, 'value'), ...bytesField(5, external)]),
      'in other files',
    ],
    ['a list of tensors', constant([...bytesField(1, 'value'), ...bytesField(10, external)]), 'sparse'],
    [
      'a sparse constant',
      constant([...bytesField(1, 'sparse_value'), ...bytesField(22, bytesField(1, external))]),
      'sparse',
    ],
    ['a loop that uses its weights', inGraph(plain, loop), 'graphs inside'],
    [
      'an attribute that is there twice',
      inGraph(
        plain,
        node({ operator: 'Neg', inputs: ['image'], outputs: ['o'] }, [
          ...bytesField(5, integerField(3, 1)),
          ...bytesField(5, integerField(3, 2)),
        ]),
      ),
      'attribute twice',
    ],
    [
      'two versions of the operators',
      joinParts([plain, ...bytesField(8, [...bytesField(1, 'ai.onnx'), ...integerField(2, 6)])]),
      'twice',
    ],
    ['no version of the operators', withoutField(plain, 8), 'does not state'],
    ['operators of version -1', model({ opset: -1 }), 'version -1'],
    ['a name that is no UTF-8', inGraph(plain, named(Uint8Array.of(0x61, 0xff))), 'UTF-8'],
    [
      'a field that parsers read differently',
      inGraph(plain, [Uint8Array.of(0xaa, 0x80, 0x80, 0x80, 0x10, 0)]),
      'number 5368',
    ],
    ['a group of fields', inGraph(plain, [Uint8Array.of(0xa3, 0x38, 0xa4, 0x38)]), 'wire type 3'],
    [
      'an operator of 2000 inputs',
      inGraph(
        plain,
        node({ operator: 'Sum', inputs: new Array<string>(2000).fill('image'), outputs: ['s'] }),
      ),
      'more than 1000',
    ],
    [
      'a million operators',
      inGraph(plain, [repeated(node({ operator: 'Neg', inputs: ['a'], outputs: ['a'] }), 1e6)]),
      'more than 20000 operators',
    ],
    ['a million inputs', inGraph(plain, [repeated(bytesField(11, ''), 1e6)]), 'more than 200000 fields'],
    ['a million notes', joinParts([plain, repeated(bytesField(14, ''), 1e6)]), 'more than 200000 fields'],
  ])('%s', (_, of, why) => {
    expect(rewriteGraph(of)).toEqual({ left: expect.stringContaining(why) });
  });
});

describe('openOnnxSession() refuses in words', () => {
  const open = async (of: Uint8Array, roiSize?: [number, number, number]) =>
    openOnnxSession(await writeModel(await temporaryFolder(), 'model.onnx', of), { roiSize });
  it('operators that can be rewritten and form a circle', async () => {
    const circle = model({
      nodes: [up({ inputs: ['b', 'w'], outputs: ['a'] }), up({ inputs: ['a', 'w'], outputs: ['b'] }), up()],
    });
    expect(rewriteGraph(circle)).toMatchObject({ applied: { 'sub-pixel': 3 } });
    await expect(open(circle)).rejects.toMatchObject({ code: 'BAD_MANIFEST' });
  });

  it('a network of no channels', async () => {
    const none = activation({ inputs: [{ name: 'image', dims: [1, 0, 'z', 'y', 'x'] }] });
    await expect(open(none, [8, 8, 8])).rejects.toMatchObject({
      code: 'BAD_MANIFEST',
      message: expect.stringContaining('1 × 0 × z × y × x'),
    });
  });

  it('a network of 10^9 channels', async () => {
    const many = activation({ inputs: [{ name: 'image', dims: [1, 1e9, 'z', 'y', 'x'] }] });
    await expect(open(many, [96, 96, 96])).rejects.toMatchObject({ code: 'OUT_OF_MEMORY' });
  });
});

it('inspectGraph() tells apart names of files that a lenient reader takes for one', () => {
  const at = (location: string) =>
    model({ initializers: [{ name: 'w', dims: weights.dims, external: { location, length: 288 } }] });
  expect(inspectGraph(at('\ufeffw.bin')).externalFiles).toEqual(['\ufeffw.bin']);
  const broken = at('w?.bin');
  broken[Buffer.from(broken).indexOf('w?.bin') + 1] = 0xff;
  expect(() => inspectGraph(broken)).toThrow(new RangeError('a text is not UTF-8'));
});

describe('operatorsOf()', () => {
  it('passes over what only names, casts or turns the scores', () => {
    const nodes = ['Softmax', 'Identity', 'Cast', 'Transpose'].map((op, i) => ({
      op,
      inputs: [i === 0 ? 'image' : `v${i}`],
      outputs: [i === 3 ? 'scores' : `v${i + 1}`],
    }));
    const operatorOf = operatorsOf(model({ nodes, initializers: [] }));
    expect(['scores', 'v1', 'image'].map(operatorOf)).toEqual(['Softmax', 'Softmax', undefined]);
  });

  it('does not say what computes the output of a model of 10^6 fields, wherever they are', () => {
    const million = repeated(bytesField(1, 'a'), 1e6);
    const sum = { operator: 'Sum', inputs: ['image'], outputs: ['scores'] };
    const files = [
      inGraph(model({ nodes: [] }), node(sum, [million])),
      inGraph(model({ nodes: [] }), [...node(sum), repeated(bytesField(13, ''), 1e6)]),
      joinParts([inGraph(model({ nodes: [] }), node(sum)), repeated(bytesField(14, ''), 1e6)]),
    ];
    expect(files.map((file) => operatorsOf(file)('scores'))).toEqual([undefined, undefined, undefined]);
    expect(operatorsOf(inGraph(model({ nodes: [] }), node(sum)))('scores')).toBe('Sum');
  });

  it('ends where names lead back to themselves', () => {
    const circle = node({ operator: 'Identity', inputs: ['scores'], outputs: ['scores'] });
    expect(operatorsOf(inGraph(model({ nodes: [] }), circle))('scores')).toBe('Identity');
  });
});

/** The model as a file of the format's version 3, which lists all weights among the inputs. */
function ofVersion3(of: Uint8Array): Uint8Array {
  const rest = withoutField(of, 1);
  return joinParts([...integerField(1, 3), rest]);
}

const withoutField = (of: Uint8Array, number: number): Uint8Array =>
  joinParts(
    [...readFields(of)]
      .filter((field) => field.number !== number)
      .map(({ start, end }) => of.subarray(start, end)),
  );
