/**
 * The messages of the Open Inference Protocol, version 2, as far as one tensor in and one out need them. Names and field numbers are
 * those of https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/open_inference_grpc.proto
 */
import { bytesField, integerField, joinParts, type Parts, readFields } from './protobuf.ts';

/** A tensor as the protocol states it: the last dimension fastest, -1 where a model takes any. */
export interface TensorFacts {
  readonly name: string;
  /** FP32, INT64, BYTES and so on. */
  readonly datatype: string;
  readonly shape: readonly number[];
}

/** The inputs and outputs of a model; servers may list none. */
export interface ModelFacts {
  readonly inputs: readonly TensorFacts[];
  readonly outputs: readonly TensorFacts[];
}

export interface InferRequest {
  readonly model: string;
  readonly version?: string;
  readonly input: TensorFacts & { readonly bytes: Uint8Array };
  /** The output to send; all if missing. */
  readonly output?: string;
}

/** A tensor of an answer, with its numbers in little-endian order. */
export type AnsweredTensor = TensorFacts & { readonly bytes: Uint8Array };

const text = new TextDecoder();

/** `ModelReadyRequest` and `ModelMetadataRequest`. */
export const encodeModelName = ({ model, version }: Pick<InferRequest, 'model' | 'version'>): Uint8Array =>
  joinParts([...bytesField(1, model), ...optional(2, version)]);

const optional = (number: number, value: string | undefined): Parts =>
  value === undefined ? [] : bytesField(number, value);

/** `ModelReadyResponse`. */
export function decodeReady(message: Uint8Array): boolean {
  for (const field of readFields(message))
    if (field.number === 1 && field.kind === 'varint') return field.value !== 0n;
  return false;
}

/** `ModelMetadataResponse`. Throws a RangeError if the bytes are not a message. */
export function decodeMetadata(message: Uint8Array): ModelFacts {
  const inputs: TensorFacts[] = [];
  const outputs: TensorFacts[] = [];
  for (const field of readFields(message)) {
    if (field.kind !== 'bytes') continue;
    if (field.number === 4) inputs.push(decodeTensor(field.value));
    if (field.number === 5) outputs.push(decodeTensor(field.value));
  }
  return { inputs, outputs };
}

/** `ModelInferRequest` with the numbers in `raw_input_contents`. */
export function encodeInfer({ model, version, input, output }: InferRequest): Uint8Array {
  const tensor = [
    ...bytesField(1, input.name),
    ...bytesField(2, input.datatype),
    ...bytesField(3, input.shape.flatMap(varint)),
  ];
  return joinParts([
    ...bytesField(1, model),
    ...optional(2, version),
    ...bytesField(5, tensor),
    ...(output === undefined ? [] : bytesField(6, bytesField(1, output))),
    ...bytesField(7, input.bytes),
  ]);
}

/** The number alone, as in a packed list. */
const varint = (value: number): Uint8Array => integerField(1, value)[1];

/** Lists of a message `InferTensorContents` whose packed bytes are those of the raw form: bool, FP32, FP64. */
const plainContents: Readonly<Record<number, string>> = { 1: 'BOOL', 6: 'FP32', 7: 'FP64' };

/**
 * `ModelInferResponse`: its outputs with their bytes, which are views of the message; without the bytes where a server sends the numbers
 * one by one in a form that is not read. Throws a RangeError if the bytes are not a message.
 */
export function decodeInfer(message: Uint8Array): (TensorFacts & { bytes?: Uint8Array })[] {
  const outputs: (TensorFacts & { bytes?: Uint8Array })[] = [];
  const raw: Uint8Array[] = [];
  for (const field of readFields(message)) {
    if (field.kind !== 'bytes') continue;
    if (field.number === 5) outputs.push(decodeTensor(field.value));
    if (field.number === 6) raw.push(field.value);
  }
  if (raw.length === 0) return outputs;
  return outputs.map((output, index) => ({ ...output, bytes: raw[index] }));
}

/** `TensorMetadata`, and `InferOutputTensor` with the contents that have the raw form. */
function decodeTensor(message: Uint8Array): TensorFacts & { bytes?: Uint8Array } {
  let name = '';
  let datatype = '';
  const shape: number[] = [];
  let contents: Uint8Array | undefined;
  for (const field of readFields(message)) {
    if (field.number === 3 && field.kind === 'varint') shape.push(signed(field.value));
    if (field.kind !== 'bytes') continue;
    if (field.number === 1) name = text.decode(field.value);
    if (field.number === 2) datatype = text.decode(field.value);
    if (field.number === 3) shape.push(...unpack(field.value));
    if (field.number === 5) contents = field.value;
    if (shape.length > maxDimensions)
      throw new RangeError(`a tensor has more than ${maxDimensions} dimensions`);
  }
  if (!contents) return { name, datatype, shape };
  for (const field of readFields(contents))
    if (field.kind === 'bytes' && plainContents[field.number] === datatype)
      return { name, datatype, shape, bytes: field.value };
  return { name, datatype, shape };
}

const maxDimensions = 32;
const signed = (value: bigint): number => Number(BigInt.asIntN(64, value));

/** A packed list of int64. */
function unpack(bytes: Uint8Array): number[] {
  if (bytes.length > maxDimensions * 10) throw new RangeError('a shape is too long');
  const values: number[] = [];
  let value = 0n;
  let shift = 0n;
  for (const byte of bytes) {
    value |= BigInt(byte & 0x7f) << shift;
    shift += 7n;
    if (byte < 0x80) {
      values.push(signed(BigInt.asUintN(64, value)));
      [value, shift] = [0n, 0n];
    }
  }
  if (shift !== 0n) throw new RangeError('the message ends inside a number');
  return values;
}
