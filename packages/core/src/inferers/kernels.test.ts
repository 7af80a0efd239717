import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { noise } from './fixtures.ts';
import { sourceSha256 } from './kernel-module.gen.ts';
import { allocate, argmaxScores, classesMax, createLabels, openKernels, spareBytes } from './kernels.ts';

describe('kernels', () => {
  it('come from the source that lies in scripts/kernels', () => {
    const source = readFileSync(new URL('../../../../scripts/kernels/kernels.as.txt', import.meta.url));
    expect(createHash('sha256').update(source).digest('hex')).toBe(sourceSha256);
  });
  it('give the bits of their twins in TypeScript', () => {
    for (const [classes, plane] of [
      [1, 5],
      [3, 37],
      [14, 160],
      [300, 51],
    ]) {
      const values = noise(classes * plane + 3 * plane, classes);
      const outputs = (['auto', 'plain'] as const).map((kind) => {
        const kernels = openKernels((values.length + plane) * 4, kind);
        expect(kernels.kind).toBe(kind === 'auto' ? 'simd' : 'plain');
        kernels.floats.set(values);
        const [a, b, out] = [classes * plane, (classes + 1) * plane, values.length * 4];
        // Two rows of uneven width, from uneven places.
        kernels.accumulate(1, plane >> 1, a, plane >> 1, b, 0, (plane >> 1) - 1, 2);
        kernels.divide(0, b, plane);
        kernels.argmax(0, plane, classes, plane, out, classes > 256);
        return Buffer.from(kernels.bytes.slice(0, out + plane * (classes > 256 ? 2 : 1))).toString('hex');
      });
      expect(outputs[0]).toBe(outputs[1]);
    }
  });
  it('argmax takes the first of equals and never NaN', () => {
    const scores = Float32Array.of(1, 5, 0, Number.NEGATIVE_INFINITY, 1, 5, Number.NaN, -2, 0, 6, 0.5, -2);
    for (const kind of ['auto', 'plain'] as const)
      expect([...argmaxScores(scores, 3, 4, kind)]).toEqual([0, 2, 2, 1]);
  });
  it('argmaxScores() works across blocks and in two bytes', () => {
    const count = 70001;
    const scores = noise(3 * count);
    const expected = Array.from({ length: count }, (_, i) => {
      const values = [0, 1, 2].map((k) => scores[k * count + i]);
      return values.indexOf(Math.max(...values));
    });
    expect(Buffer.from(argmaxScores(scores, 3, count)).equals(Buffer.from(expected))).toBe(true);
    const many = new Float32Array(400 * 5);
    for (let i = 0; i < 5; i++) many[(i * 90 + 7) * 5 + i] = 1;
    expect(argmaxScores(many, 400, 5)).toEqual(Uint16Array.of(7, 97, 187, 277, 367));
  });
  it.each(['auto', 'plain'] as const)('argmaxScores() takes many classes in blocks of 64 (%s)', (kind) => {
    // 5000 classes: 65536 / 5000 numbers would be less than a block. 130 voxels: two blocks and two voxels.
    const scores = new Float32Array(5000 * 130).fill(-1);
    const expected = Uint16Array.from({ length: 130 }, (_, i) => (i * 38 + 60) % 5000);
    for (const [i, label] of expected.entries()) scores[label * 130 + i] = -0.5;
    expect(argmaxScores(scores, 5000, 130, kind)).toEqual(expected);
  });
  it.each(['auto', 'plain'] as const)('argmaxScores() fills whole pages and whole blocks (%s)', (kind) => {
    // 512 classes in blocks of 128 voxels take 256 KiB, four pages: the labels need a fifth. 300 is no multiple of 128, 256 is.
    for (const count of [300, 256]) {
      const scores = new Float32Array(512 * count);
      const expected = Uint16Array.from({ length: count }, (_, i) => (i * 7 + 3) % 512);
      for (const [i, label] of expected.entries()) scores[label * count + i] = 1;
      expect(argmaxScores(scores, 512, count, kind)).toEqual(expected);
    }
  });
});

describe.each(['auto', 'plain'] as const)('openKernels() %s', (kind) => {
  it('gives whole pages of zeros with 64 bytes to spare', () => {
    expect(spareBytes).toBe(64);
    for (const [sizeBytes, bytes] of [
      [0, 65536],
      [65536 - 64, 65536],
      [65536 - 63, 131072],
      [131072 - 64, 131072],
    ]) {
      const kernels = openKernels(sizeBytes, kind);
      expect([kernels.bytes.length, kernels.floats.length]).toEqual([bytes, bytes / 4]);
      expect(kernels.bytes.every((byte) => byte === 0)).toBe(true);
      kernels.floats[1] = 1;
      expect([...kernels.bytes.subarray(4, 8)]).toEqual([0, 0, 128, 63]);
    }
  });

  it('adds weight times patch, each with its own row stride', () => {
    const { floats, accumulate } = openKernels(400, kind);
    floats.fill(100, 0, 20);
    floats.set([1, 2, -9, 3, 4, -9, 5, 6, -9], 20); // patch, 3 apart
    floats.set([10, 20, -9, -9, 30, 40, -9, -9, 50, 60], 40); // weights, 4 apart
    const before = floats.slice(20);
    accumulate(2, 5, 20, 3, 40, 4, 2, 3);
    expect([...floats.subarray(0, 20)]).toEqual([
      ...[100, 100, 110, 140, 100],
      ...[100, 100, 190, 260, 100],
      ...[100, 100, 350, 460, 100],
      ...[100, 100, 100, 100, 100],
    ]);
    expect(floats.slice(20)).toEqual(before);
  });

  it('rounds the product and the sum to float32', () => {
    const { floats, accumulate } = openKernels(64, kind);
    // (1 + 2^-23)² = 1 + 2^-22 + 2^-46: rounded it loses the last part, and −1 − 2^-22 leaves 0.
    floats.set([-1 - 2 ** -22, 1 + 2 ** -23]);
    accumulate(0, 0, 1, 0, 1, 0, 1, 1);
    expect(floats[0]).toBe(0);
    // 2^24 + 1 is no float32: ties go to the even 2^24.
    floats.set([2 ** 24, 1]);
    accumulate(0, 0, 1, 0, 1, 0, 1, 1);
    expect(floats[0]).toBe(2 ** 24);
  });

  it('divides a range by another and leaves its neighbours', () => {
    const { floats, divide } = openKernels(400, kind);
    floats.fill(12, 0, 40);
    floats.set([1, 2, 3, 4, 5, 8], 50);
    divide(3, 50, 6);
    expect([...floats.subarray(2, 10)]).toEqual([12, 12, 6, 4, 3, Math.fround(2.4), 1.5, 12]);
  });

  it('writes the labels from a byte on, in one byte or two', () => {
    // Three classes, 20 apart, for 18 voxels from number 5 on: the class is i mod 3.
    for (const wide of [false, true]) {
      const { floats, bytes, argmax } = openKernels(1000, kind);
      for (let i = 0; i < 18; i++) for (let k = 0; k < 3; k++) floats[5 + 20 * k + i] = k === i % 3 ? -1 : -2;
      argmax(5, 20, 3, 18, 600, wide);
      const labels = wide ? new Uint16Array(bytes.buffer, 600, 18) : bytes.subarray(600, 618);
      expect([...labels]).toEqual(Array.from({ length: 18 }, (_, i) => i % 3));
      expect([...bytes.subarray(596, 600)]).toEqual([0, 0, 0, 0]);
    }
  });

  it('keeps the first class where its score is NaN', () => {
    const { floats, bytes, argmax } = openKernels(1000, kind);
    floats.set([Number.NaN, 1, 5, Number.NaN]);
    argmax(0, 2, 2, 2, 100, false);
    expect([...bytes.subarray(100, 102)]).toEqual([0, 0]);
  });
});

describe('openKernels() where memory or SIMD is missing', () => {
  afterEach(() => {
    vi.restoreAllMocks();
    vi.unstubAllGlobals();
  });

  it('takes the plain loops where WebAssembly gets no memory', () => {
    vi.spyOn(WebAssembly, 'Memory').mockImplementation(function fail() {
      throw new RangeError('could not allocate memory');
    });
    const kernels = openKernels(100);
    expect([kernels.kind, kernels.bytes.length]).toEqual(['plain', 65536]);
  });

  it('passes other errors on', () => {
    vi.spyOn(WebAssembly, 'Memory').mockImplementation(function fail() {
      throw new TypeError('no such descriptor');
    });
    expect(() => openKernels(100)).toThrow('no such descriptor');
  });

  it('takes the plain loops where the engine cannot run the module', async () => {
    const opened = async () => {
      vi.resetModules();
      return (await import('./kernels.ts')).openKernels(100).kind;
    };
    expect(await opened()).toBe('simd');
    vi.spyOn(WebAssembly, 'validate').mockReturnValue(false);
    expect(await opened()).toBe('plain');
    vi.stubGlobal('WebAssembly', undefined);
    expect(await opened()).toBe('plain');
  });

  it('requests up to 4 GiB, and reports how many MB did not fit', () => {
    const asked: unknown[] = [];
    function full(size: unknown): never {
      asked.push(size);
      throw new RangeError('full');
    }
    vi.spyOn(WebAssembly, 'Memory').mockImplementation(full);
    vi.stubGlobal('ArrayBuffer', full);
    const noRoom = (megabytes: string) =>
      expect.objectContaining({ code: 'OUT_OF_MEMORY', message: expect.stringContaining(megabytes) });
    expect(() => openKernels(2 ** 32 - 64)).toThrow(noRoom('memory for 4295 MB'));
    expect(asked).toEqual([{ initial: 65536, maximum: 65536 }, 2 ** 32]);
    asked.length = 0;
    expect(() => openKernels(2 ** 32 - 63)).toThrow(noRoom('memory for 4296 MB'));
    expect(asked).toEqual([2 ** 32 + 65536]);
  });
});

describe('createLabels()', () => {
  it('takes one byte up to 256 classes, two up to 65536', () => {
    expect(createLabels(1, 3)).toEqual(new Uint8Array(3));
    expect(createLabels(256, 3)).toEqual(new Uint8Array(3));
    expect(createLabels(257, 3)).toEqual(new Uint16Array(3));
    expect(classesMax).toBe(65536);
    expect(createLabels(65536, 2)).toEqual(new Uint16Array(2));
    expect(() => createLabels(65537, 2)).toThrow(
      expect.objectContaining({ code: 'APP_OUTPUT', message: expect.stringMatching(/65537 .* 65536/) }),
    );
  });

  it.each([
    [256, 2_000_000, '2 MB'],
    [256, 2_000_001, '3 MB'],
    [257, 1_000_000, '2 MB'],
    [257, 1_000_001, '3 MB'],
  ])('reports %i classes of %i voxels as too much memory for %s', (classes, count, megabytes) => {
    const construct = () => {
      throw new RangeError('Array buffer allocation failed');
    };
    vi.stubGlobal('Uint8Array', new Proxy(Uint8Array, { construct }));
    vi.stubGlobal('Uint16Array', new Proxy(Uint16Array, { construct }));
    let error: unknown;
    try {
      createLabels(classes, count);
    } catch (caught) {
      error = caught;
    }
    vi.unstubAllGlobals();
    expect(error).toMatchObject({
      code: 'OUT_OF_MEMORY',
      message: expect.stringContaining(`memory for ${megabytes} `),
    });
  });
});

describe('allocate()', () => {
  it('gives what is made', () => {
    const made = new Float32Array(3);
    expect(allocate(() => made, 12)).toBe(made);
  });

  it('turns a RangeError into OUT_OF_MEMORY, rounded up to MB', () => {
    const cause = new RangeError('Array buffer allocation failed');
    const fail = () => {
      throw cause;
    };
    expect(() => allocate(fail, 2_000_000)).toThrow(
      expect.objectContaining({ code: 'OUT_OF_MEMORY', cause, message: expect.stringContaining(' 2 MB ') }),
    );
    expect(() => allocate(fail, 2_000_001)).toThrow(/ 3 MB .*smaller or coarser volume/);
  });

  it('passes other errors on as they are', () => {
    const error = new TypeError('something else');
    const fail = () => {
      throw error;
    };
    expect(() => allocate(fail, 1)).toThrow(error);
  });
});
