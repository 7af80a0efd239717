import { describe, expect, it } from 'vitest';
import { decodeInfer, decodeMetadata, decodeReady, encodeInfer, encodeModelName } from './oip-messages.ts';

/* Against bytes that were written by hand after https://protobuf.dev/programming-guides/encoding/. */
const bytes = (...parts: (number | string)[]) =>
  Uint8Array.from(parts.flatMap((part) => (typeof part === 'string' ? [...Buffer.from(part)] : [part])));
const float = bytes(0, 0, 0x80, 0x3f);

describe('messages of the Open Inference Protocol', () => {
  it('encodes the name of a model, with and without its version', () => {
    expect(encodeModelName({ model: 'net' })).toEqual(bytes(0x0a, 3, 'net'));
    expect(encodeModelName({ model: 'net', version: '2' })).toEqual(bytes(0x0a, 3, 'net', 0x12, 1, '2'));
  });

  it('encodes a request with its numbers as they are in memory', () => {
    const input = { name: 'in', datatype: 'FP32', shape: [1, 300], bytes: float };
    expect(encodeInfer({ model: 'm', input, output: 'out' })).toEqual(
      bytes(
        ...[0x0a, 1, 'm', 0x2a, 15, 0x0a, 2, 'in', 0x12, 4, 'FP32', 0x1a, 3, 1, 0xac, 0x02],
        ...[0x32, 5, 0x0a, 3, 'out', 0x3a, 4, ...float],
      ),
    );
  });

  it('decodes whether a model is ready', () => {
    expect(decodeReady(bytes(0x08, 1))).toBe(true);
    // A field with its default value is left out.
    expect(decodeReady(bytes())).toBe(false);
  });

  it('decodes metadata; -1 is ten bytes, and lists may be packed or not', () => {
    const minus = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    const packed = bytes(0x22, 22, 0x0a, 1, 'i', 0x12, 4, 'FP16', 0x1a, 11, 1, ...minus);
    const single = bytes(0x2a, 13, 0x0a, 1, 'o', 0x12, 4, 'FP32', 0x18, 1, 0x18, 2);
    expect(decodeMetadata(bytes(0x0a, 1, 'm', ...packed, ...single))).toEqual({
      inputs: [{ name: 'i', datatype: 'FP16', shape: [1, -1] }],
      outputs: [{ name: 'o', datatype: 'FP32', shape: [1, 2] }],
    });
  });

  it('decodes an answer: raw numbers in the order of the outputs, else those in the outputs', () => {
    const a = bytes(0x2a, 12, 0x0a, 1, 'a', 0x12, 4, 'FP32', 0x1a, 1, 1);
    const b = bytes(0x2a, 12, 0x0a, 1, 'b', 0x12, 4, 'FP32', 0x1a, 1, 1);
    const raw = bytes(...a, ...b, 0x32, 4, ...float, 0x32, 4, 0, 0, 0, 0x40);
    expect(decodeInfer(raw).map(({ name, bytes }) => [name, [...bytes!]])).toEqual([
      ['a', [...float]],
      ['b', [0, 0, 0, 0x40]],
    ]);
    const typed = bytes(0x2a, 20, 0x0a, 1, 'a', 0x12, 4, 'FP32', 0x1a, 1, 1, 0x2a, 6, 0x32, 4, ...float);
    expect(decodeInfer(typed)).toEqual([{ name: 'a', datatype: 'FP32', shape: [1], bytes: float }]);
    expect(decodeInfer(a)[0].bytes).toBeUndefined();
  });

  it('throws a RangeError for what is no message, and for endless shapes', () => {
    expect(() => decodeInfer(bytes(0x2a, 200, 1))).toThrow(RangeError);
    expect(() => decodeMetadata(bytes(0x22, 4, 0x1a, 2, 0x80, 0x80))).toThrow(RangeError);
    const long = new Uint8Array(400).fill(1);
    expect(() => decodeMetadata(bytes(0x22, 0x93, 0x03, 0x1a, 0x90, 0x03, ...long))).toThrow(RangeError);
  });
});
