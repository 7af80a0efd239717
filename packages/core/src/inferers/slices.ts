import { TomaatError } from '../errors.ts';
import { cropGrid } from '../geometry/grid.ts';
import { volumeToTensor } from '../tensor.ts';
import { type Size, type Volume, voxelCount } from '../volume.ts';
import { checkCanceled } from './checks.ts';
import { allocate } from './kernels.ts';
import {
  type InfererSpec,
  type InferOptions,
  type InferResult,
  infererSchema,
  type NetworkSession,
  type SliceSpec,
} from './spec.ts';

/*
 * A 2-D network on every slice across an axis (MONAI's SliceInferer). A slice is a volume of one voxel along that axis, so the
 * other inferers do the work; its tensor [1, C, z, y, x] without that axis is what the network takes, in the same memory.
 */

type Axis = SliceSpec['axis'];
const indexOf = { x: 0, y: 1, z: 2 } as const;

/** Names of the last two dimensions of a slice's tensor. */
const planeOf = (axis: Axis): string => ['z', 'y', 'x'].filter((name) => name !== axis).join(' × ');

/** Dimensions of a volume's tensor as those of its slice: without the axis. */
export const sliceDims = <T>(dims: readonly T[], axis: Axis): T[] =>
  dims.filter((_, i) => i !== dims.length - 1 - indexOf[axis]);

/** The size of one slice as a volume. */
export const sliceSize = (size: Size, axis: Axis): Size => {
  const [x, y, z] = size.map((n, i) => (i === indexOf[axis] ? 1 : n));
  return [x, y, z];
};

/**
 * A 2-D network as one for volumes of one voxel along an axis. It takes [1, C, v, u], or [C, v, u] where its input has three
 * dimensions; u and v are x, y, z without the axis. Throws BAD_MANIFEST if it takes volumes.
 */
export function sliceSession(session: NetworkSession, axis: Axis): NetworkSession {
  const rank = session.inputDims?.length || 4;
  if (rank !== 3 && rank !== 4) {
    throw new TomaatError(
      'BAD_MANIFEST',
      `The inferer slice runs a 2-D network (batch × components × ${planeOf(axis)}), and this one takes a tensor of ${rank} dimensions. Use the inferer simple or slidingWindow, or export the network in 2-D.`,
      { field: 'model.inferer' },
    );
  }
  const flat = (dims: readonly number[]) => sliceDims(rank === 3 ? dims.slice(1) : dims, axis);
  const whole = <T>(dims: readonly T[], one: T): T[] => {
    const four = rank === 3 ? [one, ...dims] : [...dims];
    // One answer for the whole slice has no axis to come back.
    if (four.length === 4) four.splice(four.length - indexOf[axis], 0, one);
    return four;
  };
  const { runLabels, inputDims } = session;
  return {
    ...(inputDims?.length && { inputDims: whole<number | null>(inputDims, 1) }),
    async run({ data, dims }) {
      const output = await session.run({ data, dims: flat(dims) });
      return { ...output, dims: whole(output.dims, 1) };
    },
    ...(runLabels && {
      async runLabels({ data, dims }) {
        const output = await runLabels.call(session, { data, dims: flat(dims) });
        return { ...output, dims: whole(output.dims, 1) };
      },
    }),
  };
}

/** How each slice of a volume of this size is inferred: as a whole, or by windows of one voxel along the axis. */
export function withinSlice(spec: SliceSpec, size: Size): Exclude<InfererSpec, SliceSpec> {
  const { type: _, axis, roiSize, overlap, ...windows } = spec;
  if (!roiSize && !windows.mirrorAxes?.length) return { type: 'simple' };
  const insert = (plane: readonly number[], one: number): number[] => {
    const whole = [...plane];
    whole.splice(indexOf[axis], 0, one);
    return whole;
  };
  const parsed = infererSchema.parse({
    ...windows,
    type: 'slidingWindow',
    roiSize: roiSize ? insert(roiSize, 1) : sliceSize(size, axis),
    overlap: insert(typeof overlap === 'number' ? [overlap, overlap] : overlap, 0),
  });
  return parsed as Exclude<InfererSpec, SliceSpec>;
}

/**
 * The slice inferer; see `infer`. Holds one slice of scores at a time, unless all of them are the result.
 * @param inferSlice applies the network to a slice as a volume
 */
export async function inferSlices(
  input: Volume,
  session: NetworkSession,
  axis: Axis,
  inferSlice: (slice: Volume, flat: NetworkSession, options: InferOptions) => Promise<InferResult>,
  options: InferOptions,
): Promise<InferResult> {
  const { components } = input;
  const { data } = volumeToTensor(input);
  const flat = sliceSession(session, axis);
  const size = sliceSize(input.size, axis);
  const total = input.size[indexOf[axis]];
  const length = voxelCount({ size }) * components;
  const voxels = allocate(() => new Float32Array(length), length * 4);
  let result: InferResult | undefined;
  for (let index = 0; index < total; index++) {
    checkCanceled(options.signal);
    forEachRow(input.size, components, axis, index, (at, from, count, step) => {
      if (step === 1) voxels.set(data.subarray(at, at + count), from);
      else for (let i = 0; i < count; i++) voxels[from + i] = data[at + i * step];
    });
    const start: [number, number, number] = [0, 0, 0];
    start[indexOf[axis]] = index;
    const slice = { voxels, size, components, affine: cropGrid(input, start, size).affine };
    const answer = await inferSlice(slice, flat, {
      ...options,
      onProgress: (fraction) => options.onProgress?.((index + fraction) / total),
    });
    result = put(answer, result, input, axis, index);
  }
  if (result) return result;
  throw new TomaatError(
    'BAD_INPUT',
    'The volume is empty. Send one with at least one voxel along each axis.',
  );
}

type ResultVoxels = Float32Array | Uint8Array | Uint16Array;

/** The result so far with the answer for one slice in its place. */
function put(
  answer: InferResult,
  result: InferResult | undefined,
  { size, affine }: Volume,
  axis: Axis,
  index: number,
): InferResult {
  const isScores = 'scores' in answer;
  const slice = isScores ? answer.scores : answer.labels;
  const before = result && ('scores' in result ? result.scores : result.labels);
  if (slice.size.join() !== sliceSize(size, axis).join()) {
    throw new TomaatError(
      'BAD_MANIFEST',
      'The network gives one answer for a whole slice, and the inferer slice makes a label map of scores for each pixel. Export a network whose output has the size of its input.',
      { field: 'model.inferer' },
    );
  }
  if (before && before.components !== slice.components) {
    throw new TomaatError(
      'APP_OUTPUT',
      `The network gave ${before.components} classes for one slice and ${slice.components} for another. Export it so that it gives the same number for all.`,
    );
  }
  const { components } = slice;
  const values = slice.voxels as ResultVoxels;
  const target = roomFor(
    values,
    before?.voxels as ResultVoxels | undefined,
    voxelCount({ size }) * components,
  );
  forEachRow(size, components, axis, index, (at, from, count, step) => {
    if (step === 1) target.set(values.subarray(from, from + count), at);
    else for (let i = 0; i < count; i++) target[at + i * step] = values[from + i];
  });
  const volume = { voxels: target, size, components, affine };
  return isScores ? { scores: volume } : { labels: volume };
}

/** The array of the whole result: two bytes for each label once a slice needs them. */
function roomFor(values: ResultVoxels, before: ResultVoxels | undefined, length: number): ResultVoxels {
  const { BYTES_PER_ELEMENT: bytes } = values;
  if (before && before.BYTES_PER_ELEMENT >= bytes) return before;
  return allocate((): ResultVoxels => {
    if (values instanceof Float32Array) return new Float32Array(length);
    if (values instanceof Uint8Array) return new Uint8Array(length);
    return before ? Uint16Array.from(before) : new Uint16Array(length);
  }, length * bytes);
}

/**
 * The rows of a slice: where each begins in the voxels of the volume and in those of the slice, its length, and the step from
 * voxel to voxel in the volume.
 */
function forEachRow(
  size: Size,
  components: number,
  axis: Axis,
  index: number,
  each: (at: number, from: number, count: number, step: number) => void,
): void {
  const strides = [1, size[0], size[0] * size[1]];
  const count = strides[2] * size[2];
  const across = indexOf[axis];
  const [u, v] = [0, 1, 2].filter((k) => k !== across);
  let from = 0;
  for (let c = 0; c < components; c++)
    for (let row = 0; row < size[v]; row++, from += size[u])
      each(c * count + index * strides[across] + row * strides[v], from, size[u], strides[u]);
}
