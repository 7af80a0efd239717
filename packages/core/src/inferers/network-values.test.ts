import { describe, expect, it } from 'vitest';
import { networkValuesOf, saysOutOfMemory } from './network-values.ts';

describe('saysOutOfMemory()', () => {
  it.each([
    // As V8, glibc, onnxruntime and Emscripten have said it.
    'Array buffer allocation failed',
    'std::bad_alloc',
    'Non-zero status code returned while running Conv node. Failed to allocate memory for requested buffer of size 34359738368',
    'WebAssembly.Memory(): could not allocate memory: out of memory',
    'Aborted(OOM). Build with -sASSERTIONS for more info.',
    'RuntimeError: memory access out of bounds',
  ])('is true of “%s”', (message) => {
    expect(saysOutOfMemory(message)).toBe(true);
  });

  it.each(['Got invalid dimensions for input: x', 'Broadcast error in node Add_12', ''])(
    'is false of “%s”',
    (message) => {
      expect(saysOutOfMemory(message)).toBe(false);
    },
  );
});

describe('networkValuesOf()', () => {
  it('keeps name, type and free dimensions, and marks what is no tensor', () => {
    const tensor = { isTensor: true, name: 'x', type: 'float32', shape: [1, 1, 'z', 8, ''] } as const;
    expect(networkValuesOf([tensor, { isTensor: false, name: 'list' }])).toEqual([
      { name: 'x', type: 'float32', shape: [1, 1, 'z', 8, ''] },
      { name: 'list', type: 'no tensor', shape: [] },
    ]);
  });
});
