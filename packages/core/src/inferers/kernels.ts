import { TomaatError } from '../errors.ts';
import { moduleBase64 } from './kernel-module.gen.ts';

/**
 * The loops over every voxel of every class, on one block of memory. Offsets count float32 elements from its start,
 * except `out`, which counts bytes. The block ends in unused `spareBytes`: argmax works in steps of 16 voxels and may
 * read and write past its end.
 */
export interface Kernels {
  readonly kind: 'simd' | 'plain';
  /** The block as numbers; views of it remain valid. */
  readonly floats: Float32Array;
  readonly bytes: Uint8Array;
  /** acc += weight · patch for `rows` rows of `width`, each operation rounded to float32. */
  accumulate(
    acc: number,
    accStride: number,
    patch: number,
    patchStride: number,
    weight: number,
    weightStride: number,
    width: number,
    rows: number,
  ): void;
  /** values /= weights */
  divide(values: number, weights: number, count: number): void;
  /**
   * The class with the largest of `classes` scores (`stride` apart) for each of `count` voxels, the first one on a
   * tie, at byte `out`: one byte each, or two if `wide`. NaN is never larger than anything.
   */
  argmax(scores: number, stride: number, classes: number, count: number, out: number, wide: boolean): void;
}

export const spareBytes = 64;
const pageBytes = 65536;
const wasmBytesMax = 65536 * pageBytes;

let compiled: WebAssembly.Module | null | undefined;

/** The WebAssembly module, or null if the engine has no SIMD. */
function compiledModule(): WebAssembly.Module | null {
  if (compiled !== undefined) return compiled;
  const bytes = Uint8Array.from(atob(moduleBase64), (c) => c.charCodeAt(0));
  compiled =
    typeof WebAssembly === 'object' && WebAssembly.validate(bytes) ? new WebAssembly.Module(bytes) : null;
  return compiled;
}

type Wasm = Pick<Kernels, 'accumulate' | 'divide'> & {
  argmax(scores: number, stride: number, classes: number, count: number, out: number, wide: number): void;
};

/**
 * Kernels over `sizeBytes` of zeros: WebAssembly SIMD if the engine has it and the block fits in 4 GiB, otherwise the
 * TypeScript versions below (about three times slower, bit-identical). Throws OUT_OF_MEMORY.
 */
export function openKernels(sizeBytes: number, kind: 'auto' | 'plain' = 'auto'): Kernels {
  const total = Math.ceil((sizeBytes + spareBytes) / pageBytes) * pageBytes;
  const module = kind === 'auto' && total <= wasmBytesMax ? compiledModule() : null;
  if (module) {
    const memory = createMemory(total / pageBytes);
    if (memory) {
      const { accumulate, divide, argmax } = new WebAssembly.Instance(module, { env: { memory } })
        .exports as unknown as Wasm;
      return {
        kind: 'simd',
        floats: new Float32Array(memory.buffer),
        bytes: new Uint8Array(memory.buffer),
        accumulate,
        divide,
        argmax: (scores, stride, classes, count, out, wide) =>
          argmax(scores, stride, classes, count, out, wide ? 1 : 0),
      };
    }
  }
  return plainKernels(allocate(() => new ArrayBuffer(total), total));
}

/** Runs an allocation of about `sizeBytes`; a failure becomes OUT_OF_MEMORY. */
export function allocate<T>(make: () => T, sizeBytes: number): T {
  try {
    return make();
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    const megabytes = Math.ceil(sizeBytes / 1e6);
    throw new TomaatError(
      'OUT_OF_MEMORY',
      `There is not enough memory for ${megabytes} MB of class scores. Send a smaller or coarser volume, or raise the memory limit of the worker.`,
      { cause },
    );
  }
}

function createMemory(pages: number): WebAssembly.Memory | undefined {
  try {
    return new WebAssembly.Memory({ initial: pages, maximum: pages });
  } catch (error) {
    if (error instanceof RangeError) return undefined; // no address space left: the plain block may still fit
    throw error;
  }
}

/** The same loops in TypeScript. */
function plainKernels(buffer: ArrayBuffer): Kernels {
  const floats = new Float32Array(buffer);
  const bytes = new Uint8Array(buffer);
  const words = new Uint16Array(buffer);
  return {
    kind: 'plain',
    floats,
    bytes,
    accumulate(acc, accStride, patch, patchStride, weight, weightStride, width, rows) {
      for (let row = 0; row < rows; row++) {
        const a = acc + row * accStride;
        const p = patch + row * patchStride;
        const w = weight + row * weightStride;
        // Storing rounds the sum; only the product needs explicit rounding.
        for (let i = 0; i < width; i++) floats[a + i] += Math.fround(floats[w + i] * floats[p + i]);
      }
    },
    divide(values, weights, count) {
      for (let i = 0; i < count; i++) floats[values + i] /= floats[weights + i];
    },
    argmax(scores, stride, classes, count, out, wide) {
      const target = wide ? words : bytes;
      const first = wide ? out / 2 : out;
      for (let i = 0; i < count; i++) {
        let best = floats[scores + i];
        let at = 0;
        for (let k = 1; k < classes; k++) {
          const value = floats[scores + k * stride + i];
          if (value > best) {
            best = value;
            at = k;
          }
        }
        target[first + i] = at;
      }
    },
  };
}

/** The largest number of classes whose labels fit in 16 bits. */
export const classesMax = 65536;

/** An array for labels 0 … classes − 1: one byte each if that is enough. */
export function createLabels(classes: number, count: number): Uint8Array | Uint16Array {
  if (classes > classesMax) {
    throw new TomaatError(
      'APP_OUTPUT',
      `The network gives ${classes} classes, but at most ${classesMax} can be labelled.`,
    );
  }
  return allocate(
    () => (classes > 256 ? new Uint16Array(count) : new Uint8Array(count)),
    classes > 256 ? 2 * count : count,
  );
}

/**
 * The class with the largest score of each voxel: `scores` contains `classes` planes of `count` numbers. Works block
 * by block in a small kernel memory, so that the scores are not duplicated.
 */
export function argmaxScores(
  scores: Float32Array,
  classes: number,
  count: number,
  kind: 'auto' | 'plain' = 'auto',
): Uint8Array | Uint16Array {
  const labels = createLabels(classes, count);
  const wide = labels instanceof Uint16Array;
  // About 256 KiB of scores per block: they stay in the second-level cache between the copy and the comparison.
  const block = Math.max(64, Math.min(16384, Math.floor(65536 / classes / 16) * 16));
  const kernels = openKernels(block * classes * 4 + block * 2, kind);
  const out = block * classes * 4;
  const result = wide
    ? new Uint16Array(kernels.bytes.buffer, out, block)
    : new Uint8Array(kernels.bytes.buffer, out, block);
  for (let from = 0; from < count; from += block) {
    const n = Math.min(block, count - from);
    for (let k = 0; k < classes; k++)
      kernels.floats.set(scores.subarray(k * count + from, k * count + from + n), k * block);
    kernels.argmax(0, block, classes, n, out, wide);
    labels.set(n === block ? result : result.subarray(0, n), from);
  }
  return labels;
}
