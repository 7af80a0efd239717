/**
 * What is read from an ONNX file before the engine gets it, and the one change made to it. Field numbers
 * are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
 */
import { encodeNode } from './graph-messages.ts';
import { bytesField, integerField, joinParts, readFields, textOf } from './protobuf.ts';

export interface GraphFacts {
  /** Files with weights next to the model, as named in the model. */
  readonly externalFiles: readonly string[];
  /** Version of the standard operators, 0 if the model names none. */
  readonly opset: number;
}

/** Branches and loops are graphs inside graphs; exporters nest a handful. */
const maxDepth = 64;

/** Reads what a model refers to. Throws a RangeError if the bytes are not a protocol buffer with a graph. */
export function inspectGraph(model: Uint8Array): GraphFacts {
  const externalFiles = new Set<string>();
  let opset = 0;
  let graphs = 0;

  const tensor = (bytes: Uint8Array) => {
    for (const field of readFields(bytes)) {
      if (field.number !== 13 || field.kind !== 'bytes') continue; // external_data: key, value
      let key = '';
      let value = '';
      for (const entry of readFields(field.value)) {
        if (entry.kind !== 'bytes') continue;
        if (entry.number === 1) key = textOf(entry.value);
        if (entry.number === 2) value = textOf(entry.value);
      }
      if (key === 'location') externalFiles.add(value);
    }
  };
  const sparseTensor = (bytes: Uint8Array) => each(bytes, { 1: tensor, 2: tensor });
  const attribute = (bytes: Uint8Array) =>
    each(bytes, { 5: tensor, 6: graph, 10: tensor, 11: graph, 22: sparseTensor, 23: sparseTensor });
  const node = (bytes: Uint8Array) => each(bytes, { 5: attribute });
  let depth = 0;
  const graph = (bytes: Uint8Array) => {
    if (++depth > maxDepth)
      throw new RangeError(`the file has graphs inside graphs, more than ${maxDepth} deep`);
    each(bytes, { 1: node, 5: tensor, 15: sparseTensor });
    depth--;
  };

  each(model, {
    7: (bytes) => {
      graphs++;
      graph(bytes);
    },
    8: (bytes) => {
      let domain = '';
      let version = 0;
      for (const field of readFields(bytes)) {
        if (field.number === 1 && field.kind === 'bytes') domain = textOf(field.value);
        if (field.number === 2 && field.kind === 'varint') version = Number(field.value);
      }
      if (domain === '' || domain === 'ai.onnx') opset = version;
    },
    25: (bytes) => each(bytes, { 7: node, 11: attribute }),
  });
  if (graphs !== 1) throw new RangeError(`the file holds ${graphs} graphs instead of one`);
  return { externalFiles: [...externalFiles], opset };
}

function each(message: Uint8Array, visit: Readonly<Record<number, (bytes: Uint8Array) => void>>): void {
  for (const field of readFields(message)) if (field.kind === 'bytes') visit[field.number]?.(field.value);
}

/** The output that `withLabelOutput` adds. */
export const labelOutputName = 'tomaat:labels';

/**
 * The same model with one more output: the class with the largest of the scores in `output` ([1, K, z, y, x], K ≤ 256)
 * at each voxel, uint8 [1, 1, z, y, x]. Fetching only that output avoids copying K float32 planes. Fields of a
 * protocol buffer may come in any order, so nodes and output are put at the end of the graph.
 */
export function withLabelOutput(model: Uint8Array, output: string): Uint8Array {
  const index = `${labelOutputName}:index`;
  const uint8 = 2;
  const argmax = encodeNode({
    operator: 'ArgMax',
    inputs: [output],
    outputs: [index],
    attributes: { axis: 1, keepdims: 1 },
  });
  const cast = encodeNode({
    operator: 'Cast',
    inputs: [index],
    outputs: [labelOutputName],
    attributes: { to: uint8 },
  });
  const value = [...bytesField(1, labelOutputName), ...bytesField(2, bytesField(1, integerField(1, uint8)))];
  const added = [...bytesField(1, argmax), ...bytesField(1, cast), ...bytesField(12, value)];

  for (const { number, kind, value: graph, start, end } of readFields(model))
    if (number === 7 && kind === 'bytes')
      return joinParts([model.subarray(0, start), ...bytesField(7, [graph, ...added]), model.subarray(end)]);
  throw new RangeError('the file has no graph');
}

/** Names that are only compared with each other. */
const lenient = new TextDecoder('utf-8', { ignoreBOM: true });

/** Fields of a model, its graph and its operators that `operatorsOf` reads; the largest networks of the field have some ten thousand. */
const maxFields = 500_000;

/**
 * Of each output of the graph the operator that computes it, such as Softmax; Identity and casts before the output are passed over.
 * Undefined for one that is not there, and for all outputs of a model with more fields than any network has, or that cannot be read.
 */
export function operatorsOf(model: Uint8Array): (output: string) => string | undefined {
  /** Of each value: the operator that gives it, and the first input of that. */
  const made = new Map<string, { operator: string; from: string }>();
  try {
    readOperators(model, (operator, from, outputs) => {
      for (const name of outputs) made.set(name, { operator, from });
    });
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return () => undefined;
  }
  return (output) => {
    let found = made.get(output);
    // A name that leads back to itself is refused by the engine; here it must only end.
    for (let i = 0; found && ['Identity', 'Cast', 'Transpose'].includes(found.operator) && i < 20; i++)
      found = made.get(found.from);
    return found?.operator;
  };
}

/** Calls back with each operator of the graph. Throws a RangeError if there are too many fields, or the bytes are not a model. */
function readOperators(
  model: Uint8Array,
  found: (operator: string, firstInput: string, outputs: readonly string[]) => void,
): void {
  let fields = 0;
  function* read(message: Uint8Array) {
    for (const field of readFields(message)) {
      if (++fields > maxFields) throw new RangeError(`the file has more than ${maxFields} fields`);
      if (field.kind === 'bytes') yield field;
    }
  }
  for (const { number, value: graph } of read(model)) {
    if (number !== 7) continue;
    for (const { number, value: node } of read(graph)) {
      if (number !== 1) continue;
      let [operator, input] = ['', undefined as string | undefined];
      const outputs: string[] = [];
      for (const { number, value } of read(node)) {
        if (number === 1) input ??= lenient.decode(value);
        else if (number === 2) outputs.push(lenient.decode(value));
        else if (number === 4) operator = lenient.decode(value);
      }
      found(operator, input ?? '', outputs);
    }
  }
}
