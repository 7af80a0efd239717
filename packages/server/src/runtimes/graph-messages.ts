/**
 * The messages inside an ONNX graph, as far as a rewrite reads and writes them: operators, attributes and tensors. Field numbers are
 * those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
 */
import {
  bytesField,
  floatField,
  integerField,
  type Parts,
  readFields,
  readVarints,
  textOf,
} from './protobuf.ts';

/** An operator of a graph. */
export interface GraphNode {
  readonly operator: string;
  /** Of the operator; empty for the standard ones. */
  readonly domain: string;
  /** Names of values; empty for an optional one that is left out. */
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: ReadonlyMap<string, AttributeValue>;
}

/**
 * `other`: a kind that no rewrite reads; `graph`: a graph inside the graph, or a reference to an attribute of a function; `tensors`: several,
 * or sparse ones.
 */
export type AttributeValue =
  | { readonly kind: 'float'; readonly value: number }
  | { readonly kind: 'integer'; readonly value: number }
  | { readonly kind: 'integers'; readonly value: readonly number[] }
  | { readonly kind: 'text'; readonly value: string }
  | { readonly kind: 'tensor'; readonly value: Uint8Array }
  | { readonly kind: 'graph' | 'tensors' | 'other' };

/** A constant of float32 numbers, the last axis fastest. */
export interface FloatTensor {
  readonly dims: readonly number[];
  readonly data: Float32Array;
}

/** Of a text that is compared with others, and that need not be one. */
const lenient = new TextDecoder('utf-8', { ignoreBOM: true });
const attributeTypes = { float: 1, integer: 2, text: 3, tensor: 4, integers: 7 } as const;
const float32 = 1;
const int64 = 7;
/** Inputs or outputs of an operator, elements of a list, or axes of a tensor, that a rewrite may have to read. */
const maxLength = 1000;

/** Reads an operator. Throws a RangeError if the bytes are none, or it has an attribute twice, or too many inputs or outputs. */
export function readNode(bytes: Uint8Array): GraphNode {
  const [inputs, outputs]: [string[], string[]] = [[], []];
  const attributes = new Map<string, AttributeValue>();
  let [operator, domain] = ['', ''];
  for (const field of readFields(bytes)) {
    if (field.kind !== 'bytes') continue;
    if (field.number === 1) inputs.push(textOf(field.value));
    else if (field.number === 2) outputs.push(textOf(field.value));
    else if (field.number === 4) operator = textOf(field.value);
    else if (field.number === 7) domain = textOf(field.value);
    else if (field.number === 5) {
      const { name, value } = readAttribute(field.value);
      if (attributes.has(name)) throw new RangeError('an operator has an attribute twice');
      attributes.set(name, value);
    }
    if (inputs.length > maxLength || outputs.length > maxLength)
      throw new RangeError(`an operator has more than ${maxLength} inputs or outputs`);
  }
  return { operator, domain: domain === 'ai.onnx' ? '' : domain, inputs, outputs, attributes };
}

function readAttribute(bytes: Uint8Array): { name: string; value: AttributeValue } {
  let name = '';
  let type = 0;
  let value: AttributeValue = { kind: 'other' };
  const integers = createList();
  for (const field of readFields(bytes)) {
    const { number } = field;
    if (number === 6 || number === 11 || number === 21) return { name, value: { kind: 'graph' } };
    if (number === 10 || number === 22 || number === 23) return { name, value: { kind: 'tensors' } };
    if (field.kind === 'fixed') {
      if (number === 2 && field.value.length === 4)
        value = { kind: 'float', value: viewOf(field.value).getFloat32(0, true) };
    } else if (field.kind === 'varint') {
      if (number === 3) value = { kind: 'integer', value: signed(field.value) };
      else if (number === 8) integers.add(field.value);
      else if (number === 20) type = Number(field.value);
    } else if (number === 1) name = textOf(field.value);
    else if (number === 4) value = { kind: 'text', value: lenient.decode(field.value) };
    else if (number === 5) value = { kind: 'tensor', value: field.value };
    else if (number === 8) integers.addPacked(field.value);
  }
  const list = integers.read();
  if (!list) return { name, value: { kind: 'other' } };
  // Old files state no type, and an empty list or a zero may be left out.
  if (type === attributeTypes.integers || list.length > 0) value = { kind: 'integers', value: list };
  else if (type === attributeTypes.integer && value.kind === 'other') value = { kind: 'integer', value: 0 };
  else if (type === attributeTypes.float && value.kind === 'other') value = { kind: 'float', value: 0 };
  return { name, value };
}

const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const signed = (value: bigint): number => Number(BigInt.asIntN(64, value));

/** Collects whole numbers, written as a field each or as one field. `read` gives undefined for more than `maxLength`. */
function createList() {
  const numbers: number[] = [];
  let isLong = false;
  const add = (value: bigint) => {
    if (numbers.length < maxLength) numbers.push(signed(value));
    else isLong = true;
  };
  return {
    add,
    addPacked(bytes: Uint8Array) {
      const values = readVarints(bytes, maxLength);
      if (values) values.forEach(add);
      else isLong = true;
    },
    read: () => (isLong ? undefined : numbers),
  };
}

/** The name of a tensor of the graph, such as weights. */
export const tensorName = (tensor: Uint8Array): string => lastText(tensor, 8);

/** The name of an input or an output of the graph. */
export const valueName = (value: Uint8Array): string => lastText(value, 1);

/** A text of a message; where it is there twice, the last counts. */
function lastText(message: Uint8Array, number: number): string {
  let last: Uint8Array | undefined;
  for (const field of readFields(message))
    if (field.number === number && field.kind === 'bytes') last = field.value;
  return last ? textOf(last) : '';
}

/**
 * Reads a constant of float32 numbers. Undefined if it has another type, lies in another file, or has not as many numbers as its
 * dimensions say.
 */
export function readFloats(tensor: Uint8Array): FloatTensor | undefined {
  const axes = createList();
  const numbers: Uint8Array[] = [];
  let type = 0;
  for (const field of readFields(tensor)) {
    const { number } = field;
    if (field.kind === 'varint') {
      if (number === 1) axes.add(field.value);
      else if (number === 2) type = Number(field.value);
      else if (number === 14 && field.value !== 0n) return undefined;
    } else if (number === 1) axes.addPacked(field.value);
    else if (number === 13 || number === 3) return undefined;
    else if (number === 4 || number === 9) numbers.push(field.value);
  }
  const dims = axes.read();
  if (!dims) return undefined;
  const count = dims.reduce((product, d) => product * d, 1);
  const length = numbers.reduce((sum, { length }) => sum + length, 0);
  if (type !== float32 || dims.some((d) => d < 1) || length !== count * 4) return undefined;
  const data = new Float32Array(count);
  const bytes = new Uint8Array(data.buffer);
  let at = 0;
  for (const part of numbers) {
    bytes.set(part, at);
    at += part.length;
  }
  return { dims, data };
}

/** A whole number is an INT, `{ float }` a FLOAT, a list of numbers INTS, a string STRING. */
export type WrittenAttribute = number | { readonly float: number } | readonly number[] | string;

export interface WrittenNode {
  readonly operator: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes?: Readonly<Record<string, WrittenAttribute>>;
}

/** An operator as a message (NodeProto), named after its first output. */
export function encodeNode({ operator, inputs, outputs, attributes = {} }: WrittenNode): Parts {
  return [
    ...inputs.flatMap((name) => bytesField(1, name)),
    ...outputs.flatMap((name) => bytesField(2, name)),
    ...bytesField(3, outputs[0]),
    ...bytesField(4, operator),
    ...Object.entries(attributes).flatMap(([name, value]) => bytesField(5, encodeAttribute(name, value))),
  ];
}

function encodeAttribute(name: string, value: WrittenAttribute): Parts {
  const named = bytesField(1, name);
  const type = (kind: keyof typeof attributeTypes) => integerField(20, attributeTypes[kind]);
  if (typeof value === 'number') return [...named, ...integerField(3, value), ...type('integer')];
  if (typeof value === 'string') return [...named, ...bytesField(4, value), ...type('text')];
  if ('float' in value) return [...named, ...floatField(2, value.float), ...type('float')];
  return [...named, ...value.flatMap((i) => integerField(8, i)), ...type('integers')];
}

/** A constant as a message (TensorProto): float32 or int64. */
export function encodeTensor(
  name: string,
  dims: readonly number[],
  data: Float32Array | BigInt64Array,
): Parts {
  return [
    ...dims.flatMap((d) => integerField(1, d)),
    ...integerField(2, data instanceof BigInt64Array ? int64 : float32),
    ...bytesField(8, name),
    ...bytesField(9, new Uint8Array(data.buffer, data.byteOffset, data.byteLength)),
  ];
}
