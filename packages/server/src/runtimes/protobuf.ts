/**
 * The wire format of protocol buffers, as far as ONNX files need it: varints, 32-bit values and nested bytes.
 * Source: https://protobuf.dev/programming-guides/encoding/
 */

/** The largest number of a field. Parsers differ in what they read from a larger one. */
const maxFieldNumber = 2 ** 29 - 1;

/** One field of a message: its number and its value (bytes are views of the message). */
export type Field =
  | { readonly number: number; readonly kind: 'varint'; readonly value: bigint }
  | { readonly number: number; readonly kind: 'bytes'; readonly value: Uint8Array }
  | { readonly number: number; readonly kind: 'fixed'; readonly value: Uint8Array };

/** Reads numbers and bytes one after the other. */
function createReader(message: Uint8Array) {
  let at = 0;
  return {
    at: () => at,
    /** Of a key or a length; rounded above 2^53, which neither can be. */
    number(): number {
      let value = 0;
      for (let factor = 1; factor < 2 ** 70; factor *= 128) {
        if (at >= message.length) throw new RangeError('the message ends inside a number');
        const byte = message[at++];
        value += (byte & 0x7f) * factor;
        if (byte < 0x80) return value;
      }
      throw new RangeError('a number has more than 10 bytes');
    },
    varint(): bigint {
      if (message[at] < 0x80) return BigInt(message[at++]);
      let value = 0n;
      for (let shift = 0n; shift < 70n; shift += 7n) {
        if (at >= message.length) throw new RangeError('the message ends inside a number');
        const byte = message[at++];
        value |= BigInt(byte & 0x7f) << shift;
        if (byte < 0x80) return BigInt.asUintN(64, value);
      }
      throw new RangeError('a number has more than 10 bytes');
    },
    take(length: number): Uint8Array {
      if (length > message.length - at) throw new RangeError('the message ends inside a field');
      const bytes = message.subarray(at, at + length);
      at += length;
      return bytes;
    },
  };
}

/** The fields of a message, in file order. Throws a RangeError if the bytes are not a message. */
export function* readFields(
  message: Uint8Array,
): Generator<Field & { readonly start: number; readonly end: number }> {
  const { at, number: readNumber, varint, take } = createReader(message);
  while (at() < message.length) {
    const start = at();
    const key = readNumber();
    const number = Math.floor(key / 8);
    const wireType = key % 8;
    if (number === 0 || number > maxFieldNumber) throw new RangeError(`a field has the number ${number}`);
    if (wireType === 0) yield { number, kind: 'varint', value: varint(), start, end: at() };
    else if (wireType === 1) yield { number, kind: 'fixed', value: take(8), start, end: at() };
    else if (wireType === 2) yield { number, kind: 'bytes', value: take(readNumber()), start, end: at() };
    else if (wireType === 5) yield { number, kind: 'fixed', value: take(4), start, end: at() };
    else throw new RangeError(`a field has the wire type ${wireType}`);
  }
}

/**
 * The numbers of a list that is written as one field; undefined if there are more than `most`. Throws a RangeError if the bytes are
 * not a list.
 */
export function readVarints(bytes: Uint8Array, most: number): bigint[] | undefined {
  const { at, varint } = createReader(bytes);
  const values: bigint[] = [];
  while (at() < bytes.length) {
    if (values.length >= most) return undefined;
    values.push(varint());
  }
  return values;
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** A text of a message: different bytes give different texts. Throws a RangeError if it is not UTF-8. */
export function textOf(bytes: Uint8Array): string {
  try {
    return utf8.decode(bytes);
  } catch (cause) {
    throw new RangeError('a text is not UTF-8', { cause });
  }
}

/** A message written so far: pieces to be joined. */
export type Parts = readonly Uint8Array[];

function varintBytes(value: number | bigint): Uint8Array {
  let rest = BigInt.asUintN(64, BigInt(value));
  const out: number[] = [];
  do {
    const low = Number(rest & 0x7fn);
    rest >>= 7n;
    out.push(rest > 0n ? low | 0x80 : low);
  } while (rest > 0n);
  return Uint8Array.from(out);
}

/** An integer field; negative values take ten bytes, as protobuf's int64 does. */
export function integerField(number: number, value: number | bigint): Parts {
  return [varintBytes(number * 8), varintBytes(value)];
}

/** A 32-bit float field. */
export function floatField(number: number, value: number): Parts {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setFloat32(0, value, true);
  return [varintBytes(number * 8 + 5), bytes];
}

/** A nested message, a string or raw bytes. */
export function bytesField(number: number, value: Parts | Uint8Array | string): Parts {
  const parts =
    typeof value === 'string'
      ? [new TextEncoder().encode(value)]
      : value instanceof Uint8Array
        ? [value]
        : value;
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  return [varintBytes(number * 8 + 2), varintBytes(length), ...parts];
}

/** The pieces of a message as one array. */
export function joinParts(parts: Parts): Uint8Array {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
