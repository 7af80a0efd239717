/**
 * The messages inside an ONNX graph, as far as a rewrite reads and writes them: operators, attributes and tensors. Field numbers are
 * those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
 */
import { bytesField, floatField, integerField, type Parts, readFields, readVarints } from './protobuf.ts';

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

/** `other`: a kind that no rewrite reads; `graph`: a graph inside the graph, or a reference to an attribute of a function. */
export type AttributeValue =
  | { readonly kind: 'float'; readonly value: number }
  | { readonly kind: 'integer'; readonly value: number }
  | { readonly kind: 'integers'; readonly value: readonly number[] }
  | { readonly kind: 'text'; readonly value: string }
  | { readonly kind: 'tensor'; readonly value: Uint8Array }
  | { readonly kind: 'graph' | 'other' };

/** A constant of float32 numbers, the last axis fastest. */
export interface FloatTensor {
  readonly dims: readonly number[];
  readonly data: Float32Array;
}

const text = new TextDecoder();
const attributeTypes = { float: 1, integer: 2, text: 3, tensor: 4, integers: 7 } as const;
const float32 = 1;
const int64 = 7;
/** Elements of a list, or axes of a tensor, that a rewrite may have to read. */
const maxLength = 1000;

/** Reads an operator. Throws a RangeError if the bytes are none, or an attribute is there twice. */
export function readNode(bytes: Uint8Array): GraphNode {
  const [inputs, outputs]: [string[], string[]] = [[], []];
  const attributes = new Map<string, AttributeValue>();
  let [operator, domain] = ['', ''];
  for (const field of readFields(bytes)) {
    if (field.kind !== 'bytes') continue;
    if (field.number === 1) inputs.push(text.decode(field.value));
    else if (field.number === 2) outputs.push(text.decode(field.value));
    else if (field.number === 4) operator = text.decode(field.value);
    else if (field.number === 7) domain = text.decode(field.value);
    else if (field.number === 5) {
      const { name, value } = readAttribute(field.value);
      if (attributes.has(name)) throw new RangeError('an operator has an attribute twice');
      attributes.set(name, value);
    }
  }
  return { operator, domain: domain === 'ai.onnx' ? '' : domain, inputs, outputs, attributes };
}

function readAttribute(bytes: Uint8Array): { name: string; value: AttributeValue } {
  let name = '';
  let type = 0;
  let value: AttributeValue = { kind: 'other' };
  const integers: number[] = [];
  for (const field of readFields(bytes)) {
    const { number } = field;
    if (number === 6 || number === 11 || number === 21) value = { kind: 'graph' };
    else if (field.kind === 'fixed') {
      if (number === 2 && field.value.length === 4)
        value = { kind: 'float', value: viewOf(field.value).getFloat32(0, true) };
    } else if (field.kind === 'varint') {
      if (number === 3) value = { kind: 'integer', value: signed(field.value) };
      else if (number === 8) integers.push(signed(field.value));
      else if (number === 20) type = Number(field.value);
    } else if (number === 1) name = text.decode(field.value);
    else if (number === 4) value = { kind: 'text', value: text.decode(field.value) };
    else if (number === 5) value = { kind: 'tensor', value: field.value };
    else if (number === 8) integers.push(...readPacked(field.value));
    if (integers.length > maxLength) throw new RangeError('an attribute has too many numbers');
  }
  if (value.kind === 'graph') return { name, value };
  // Old files state no type, and an empty list or a zero may be left out.
  if (type === attributeTypes.integers || integers.length > 0) value = { kind: 'integers', value: integers };
  else if (type === attributeTypes.integer && value.kind === 'other') value = { kind: 'integer', value: 0 };
  else if (type === attributeTypes.float && value.kind === 'other') value = { kind: 'float', value: 0 };
  return { name, value };
}

const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const signed = (value: bigint): number => Number(BigInt.asIntN(64, value));

/** Whole numbers of a list that is written as one field. */
const readPacked = (bytes: Uint8Array): number[] => readVarints(bytes, maxLength).map(signed);

/** The name of a tensor of the graph, such as weights. */
export function tensorName(tensor: Uint8Array): string {
  for (const field of readFields(tensor))
    if (field.number === 8 && field.kind === 'bytes') return text.decode(field.value);
  return '';
}

/** The name of an input or an output of the graph. */
export function valueName(value: Uint8Array): string {
  for (const field of readFields(value))
    if (field.number === 1 && field.kind === 'bytes') return text.decode(field.value);
  return '';
}

/**
 * Reads a constant of float32 numbers. Undefined if it has another type, lies in another file, or has not as many numbers as its
 * dimensions say.
 */
export function readFloats(tensor: Uint8Array): FloatTensor | undefined {
  const dims: number[] = [];
  const numbers: Uint8Array[] = [];
  let type = 0;
  for (const field of readFields(tensor)) {
    const { number } = field;
    if (field.kind === 'varint') {
      if (number === 1) dims.push(signed(field.value));
      else if (number === 2) type = Number(field.value);
      else if (number === 14 && field.value !== 0n) return undefined;
    } else if (number === 1) dims.push(...readPacked(field.value));
    else if (number === 13 || number === 3) return undefined;
    else if (number === 4 || number === 9) numbers.push(field.value);
    if (dims.length > maxLength) return undefined;
  }
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
