import { TomaatError } from '../errors.ts';
import { bytesPerVoxel, createVoxels, type Voxels, type VoxelType, voxelCount } from '../volume.ts';
import {
  type ExtraAxis,
  latin1,
  longestNumber,
  machineIsBigEndian,
  type ParsedHeader,
  parseDecimal,
  type StoredAxis,
  shownValue,
} from './header.ts';

export interface VoxelSink {
  readonly voxels: Voxels;
  readonly components: number;
  /** Takes the next decoded bytes, never more than `storedBytes` in all. */
  push(chunk: Uint8Array): void;
  /** Call it after the last byte. */
  finish(): void;
}

/**
 * The type that voxels of `stored` become under value = slope × stored + intercept: float32 where its rounding
 * stays below 1/16 of a step between stored values (which holds for 8 and 16 bits unless the intercept is huge)
 * or if the stored type is float32; otherwise float64.
 */
export function scaledType(stored: VoxelType, slope: number, intercept: number): VoxelType {
  const ranges: Partial<Record<VoxelType, [number, number]>> = {
    uint8: [0, 255],
    int8: [-128, 127],
    uint16: [0, 65535],
    int16: [-32768, 32767],
  };
  if (stored === 'float32')
    return Math.abs(slope) < 2 ** 64 && Math.abs(intercept) < 2 ** 64 ? 'float32' : 'float64';
  const range = ranges[stored];
  if (!range) return 'float64';
  const largest = Math.max(...range.map((v) => Math.abs(v * slope + intercept)));
  const rounding = largest * 2 ** -24;
  return largest < 3e38 && Math.abs(slope) > 1e-30 && rounding <= Math.abs(slope) / 16
    ? 'float32'
    : 'float64';
}

/**
 * Collects the decoded bytes of a file into voxels of the machine's byte order, x fastest and the component
 * slowest, scaled if the header says so. Of a 4-D file only `frame` is kept; with 'all' the component index is
 * frame × components + component. This is the only allocation of the file's size.
 */
export function createVoxelSink({ header, layout }: ParsedHeader, frame: number | 'all'): VoxelSink {
  const type = header.voxelType;
  const width = bytesPerVoxel(type);
  const planeVoxels = voxelCount(header);
  const components = header.components * (frame === 'all' ? header.frames : 1);
  const outputType = header.scale ? scaledType(type, header.scale.slope, header.scale.intercept) : type;
  let voxels: Voxels;
  try {
    voxels = createVoxels(outputType, planeVoxels * components);
  } catch (cause) {
    throw new TomaatError(
      'TOO_MANY_VOXELS',
      `There is not enough memory for ${planeVoxels * components} voxels of ${outputType}. Crop or resample the volume`,
      { cause },
    );
  }
  const swap = layout.encoding !== 'text' && layout.bigEndian !== machineIsBigEndian;
  const innerCount = layout.inner.reduce((n, axis) => n * axis.count, 1);

  /** The destination of the values at an inner and an outer index, or -1 if they are not kept. */
  function planeOf(inner: number, outer: number): number {
    const index = { component: 0, frame: 0 };
    const split = (axes: readonly ExtraAxis[], rest: number) => {
      for (const axis of axes) {
        if (axis.count === 1) continue;
        index[axis.role] = rest % axis.count;
        rest = Math.floor(rest / axis.count);
      }
    };
    split(layout.inner, inner);
    split(layout.outer, outer);
    if (frame === 'all') return index.frame * header.components + index.component;
    return index.frame === frame ? index.component : -1;
  }

  if (innerCount === 1 && !header.scale && !layout.order) {
    const target = new Uint8Array(voxels.buffer, voxels.byteOffset, voxels.byteLength);
    const planeBytes = planeVoxels * width;
    let done = 0;
    return {
      voxels,
      components,
      push(chunk) {
        for (let at = 0; at < chunk.length; ) {
          const outer = Math.floor(done / planeBytes);
          const within = done - outer * planeBytes;
          const length = Math.min(chunk.length - at, planeBytes - within);
          const plane = planeOf(0, outer);
          if (plane >= 0) target.set(chunk.subarray(at, at + length), plane * planeBytes + within);
          at += length;
          done += length;
        }
      },
      finish() {
        if (swap) swapBytes(target, width);
      },
    };
  }

  const stage = new Uint8Array(Math.max(innerCount, Math.floor(65536 / innerCount) * innerCount) * width);
  let staged = 0;
  let elementsDone = 0;
  const store = header.scale
    ? scaledStore(stage.buffer, type, voxels, header.scale.slope, header.scale.intercept)
    : exactStore(stage.buffer, width, voxels);

  const placeOf = layout.order && placesOf(layout.order, frame, planeVoxels, header.components);

  function flush(): void {
    const bytes = stage.subarray(0, staged);
    if (swap) swapBytes(bytes, width);
    const count = staged / width;
    if (placeOf) {
      for (let at = 0; at < count; at++) {
        const place = placeOf(elementsDone++);
        if (place >= 0) store(at, at + 1, 1, place);
      }
      staged = 0;
      return;
    }
    for (let at = 0; at < count; ) {
      const outer = Math.floor(elementsDone / (innerCount * planeVoxels));
      const within = elementsDone - outer * innerCount * planeVoxels;
      const run = Math.min(count - at, innerCount * planeVoxels - within);
      for (let inner = 0; inner < innerCount; inner++) {
        const plane = planeOf(inner, outer);
        if (plane >= 0) store(at + inner, at + run, innerCount, plane * planeVoxels + within / innerCount);
      }
      at += run;
      elementsDone += run;
    }
    staged = 0;
  }

  return {
    voxels,
    components,
    push(chunk) {
      for (let at = 0; at < chunk.length; ) {
        const length = Math.min(chunk.length - at, stage.length - staged);
        stage.set(chunk.subarray(at, at + length), staged);
        staged += length;
        at += length;
        if (staged === stage.length) flush();
      }
    },
    finish: flush,
  };
}

/**
 * The destination of the value at a position of a stored array, or -1 if it is not kept: for arrays with another axis
 * between spatial ones. */
function placesOf(
  order: readonly StoredAxis[],
  frame: number | 'all',
  planeVoxels: number,
  components: number,
): (stored: number) => number {
  let voxels = 1;
  const axes = order.map(({ role, count }) => {
    const step = role === 'space' ? voxels : role === 'component' ? planeVoxels : planeVoxels * components;
    if (role === 'space') voxels *= count;
    // In the chosen frame the position is that of its component.
    return { count, step: role === 'frame' && frame !== 'all' ? 0 : step, isFrame: role === 'frame' };
  });
  return (stored) => {
    let rest = stored;
    let place = 0;
    for (const { count, step, isFrame } of axes) {
      const index = rest % count;
      rest = (rest - index) / count;
      if (isFrame && frame !== 'all' && index !== frame && count > 1) return -1;
      place += index * step;
    }
    return place;
  };
}

/** Copies every `step`-th value from `from` up to `end` to consecutive positions from `to`. */
type Store = (from: number, end: number, step: number, to: number) => void;

/** Values as bit patterns, so that no NaN changes. */
function exactStore(stage: ArrayBuffer, width: number, voxels: Voxels): Store {
  const view = { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array, 8: Uint32Array }[width as 1 | 2 | 4 | 8];
  const source = new view(stage);
  const target = new view(voxels.buffer as ArrayBuffer);
  if (width < 8) {
    return (from, end, step, to) => {
      for (let i = from; i < end; i += step) target[to++] = source[i];
    };
  }
  return (from, end, step, to) => {
    for (let i = from; i < end; i += step, to++) {
      target[2 * to] = source[2 * i];
      target[2 * to + 1] = source[2 * i + 1];
    }
  };
}

function scaledStore(
  stage: ArrayBuffer,
  type: VoxelType,
  voxels: Voxels,
  slope: number,
  intercept: number,
): Store {
  const target = voxels as Float32Array | Float64Array;
  const source = createVoxels(type, stage.byteLength / bytesPerVoxel(type), stage);
  if (source instanceof BigInt64Array || source instanceof BigUint64Array) {
    return (from, end, step, to) => {
      for (let i = from; i < end; i += step) target[to++] = Number(source[i]) * slope + intercept;
    };
  }
  return (from, end, step, to) => {
    for (let i = from; i < end; i += step) target[to++] = source[i] * slope + intercept;
  };
}

/** Reverses the bytes of each value in place; `bytes` begin at a multiple of the width. */
export function swapBytes(bytes: Uint8Array, width: number): void {
  const { buffer, byteOffset, length } = bytes;
  if (width === 2) {
    const values = new Uint16Array(buffer, byteOffset, length / 2);
    for (let i = 0; i < values.length; i++) values[i] = (values[i] << 8) | (values[i] >>> 8);
  } else if (width === 4 || width === 8) {
    const values = new Uint32Array(buffer, byteOffset, length / 4);
    for (let i = 0; i < values.length; i++) {
      const v = values[i];
      values[i] = (v << 24) | ((v & 0xff00) << 8) | ((v >>> 8) & 0xff00) | (v >>> 24);
    }
    if (width === 8) {
      for (let i = 0; i < values.length; i += 2) {
        const v = values[i];
        values[i] = values[i + 1];
        values[i + 1] = v;
      }
    }
  }
}

const integerRanges: Partial<Record<VoxelType, [bigint, bigint]>> = {
  uint8: [0n, 255n],
  int8: [-128n, 127n],
  uint16: [0n, 65535n],
  int16: [-32768n, 32767n],
  uint32: [0n, 2n ** 32n - 1n],
  int32: [-(2n ** 31n), 2n ** 31n - 1n],
  uint64: [0n, 2n ** 64n - 1n],
  int64: [-(2n ** 63n), 2n ** 63n - 1n],
};

/** Voxels written as decimal numbers, turned into the bytes that a raw file would hold on this machine. */
export async function* textToBytes(
  source: AsyncIterable<Uint8Array>,
  type: VoxelType,
): AsyncIterable<Uint8Array> {
  let rest = '';
  for await (const chunk of source) {
    const text = rest + latin1(chunk);
    let end = text.length;
    while (end > 0 && !/[\s,]/.test(text[end - 1])) end--;
    rest = text.slice(end);
    if (rest.length > 1000) throw badNumber(rest, type);
    yield encodeNumbers(text.slice(0, end), type);
  }
  yield encodeNumbers(rest, type);
}

function encodeNumbers(text: string, type: VoxelType): Uint8Array {
  const words = text.split(/[\s,]+/).filter(Boolean);
  const values = createVoxels(type, words.length);
  const range = integerRanges[type];
  words.forEach((word, i) => {
    if (range) {
      const isInteger = word.length <= longestNumber && /^[+-]?\d+$/.test(word);
      const value = isInteger ? BigInt(word.replace('+', '')) : undefined;
      if (value === undefined || value < range[0] || value > range[1]) throw badNumber(word, type);
      if (values instanceof BigInt64Array || values instanceof BigUint64Array) values[i] = value;
      else values[i] = Number(value);
    } else {
      // The C standard also allows NaN with something in brackets after it, and old compilers write 1.#QNAN.
      const isSpecial = /^[+-]?(nan(\(\w*\))?|1\.#[qs]nan|inf(inity)?)$/i.test(word);
      const value = isSpecial ? specialNumber(word) : parseDecimal(word);
      if (Number.isNaN(value) && !isSpecial) throw badNumber(word, type);
      (values as Float32Array | Float64Array)[i] = value;
    }
  });
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

function specialNumber(word: string): number {
  if (/nan/i.test(word)) return Number.NaN;
  return word.startsWith('-') ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY;
}

function badNumber(word: string, type: VoxelType): TomaatError {
  return new TomaatError(
    'BAD_VOXELS',
    `One of the voxels is ${shownValue(word)}, which is not a valid ${type}. Write the file again`,
  );
}
