import { TomaatError } from '../errors.ts';
import { isLabelTensor, type Tensor } from '../tensor.ts';
import { type Size, type Volume, voxelCount } from '../volume.ts';
import { checkCanceled, checkInputDims, checkScores } from './checks.ts';
import { allocate, createLabels, type Kernels, openKernels } from './kernels.ts';
import {
  checkChannels,
  compose,
  createComposed,
  createForeground,
  keepAbove,
  type LabelReduction,
  rulesOf,
} from './reduce.ts';
import type { InferOptions, InferResult, NetworkSession, Reduction, SlidingWindowSpec } from './spec.ts';
import { extractWindow, importanceMap, mirror, mirrorings, sourceIndices, windowsAlong } from './windows.ts';

/**
 * Where blended scores are stored while windows advance: a ring of planes across one axis, as deep as a window. Once
 * the next windows start behind a plane, that plane is final: it is reduced and reset to zero for its next use. Along
 * z a plane is [y, x], along y it is [z, x]; the axis is the one with the smaller ring. All sizes in float32
 * elements, except `totalBytes`.
 */
export interface RingPlan {
  readonly axis: 'z' | 'y';
  readonly depth: number;
  readonly plane: number;
  /** Class planes kept: all, or the one that a threshold needs. */
  readonly channels: number;
  /** Whether the sum of the weights is kept as well; argmax does not need it. */
  readonly weighted: boolean;
  readonly offsets: {
    readonly importance: number;
    readonly patch: number;
    readonly ones: number;
    readonly labels: number;
    readonly weights: number;
    readonly scores: number;
  };
  readonly totalBytes: number;
}

/** Computes the ring for a volume; nothing is allocated. */
export function ringPlan(
  size: Size,
  spec: SlidingWindowSpec,
  classes: number,
  reduction: Reduction['type'],
  accumulator: 'ring' | 'full' = 'ring',
): RingPlan {
  const [x, y, z] = size;
  const [rx, ry, rz] = spec.roiSize;
  const axis = z * Math.min(ry, y) < y * Math.min(rz, z) ? 'y' : 'z';
  const [extent, roi] = axis === 'z' ? [z, rz] : [y, ry];
  const depth = accumulator === 'full' ? extent : Math.min(extent, roi);
  const plane = axis === 'z' ? x * y : x * z;
  const channels = reduction === 'threshold' ? 1 : classes;
  const weighted = reduction !== 'argmax';
  const window = voxelCount({ size: spec.roiSize });
  let next = 0;
  const place = (length: number) => {
    const at = next;
    next += Math.ceil(length / 4) * 4; // 16-byte steps, for the vector unit
    return at;
  };
  const offsets = {
    importance: place(window),
    patch: place(window),
    ones: place(rx),
    labels: place(Math.ceil(plane / 2) + 8),
    weights: place(weighted ? depth * plane : 0),
    scores: place(channels * depth * plane),
  };
  return { axis, depth, plane, channels, weighted, offsets, totalBytes: next * 4 };
}

/** The sliding-window inferer; see `infer`. */
export async function slideWindows(
  input: Volume,
  session: NetworkSession,
  spec: SlidingWindowSpec,
  reduction: Reduction,
  options: InferOptions,
): Promise<InferResult> {
  const { voxels, size, components } = input;
  if (!(voxels instanceof Float32Array)) {
    throw new TomaatError(
      'APP_FAILED',
      'The sliding window takes only float32 voxels. End the preprocessing with a step that scales or normalises the intensities.',
    );
  }
  const { roiSize: roi } = spec;
  const dims = [1, components, roi[2], roi[1], roi[0]];
  checkInputDims(session, dims, 'the sliding window (roiSize) makes');

  const overlap =
    typeof spec.overlap === 'number' ? [spec.overlap, spec.overlap, spec.overlap] : spec.overlap;
  const along = roi.map((n, i) => windowsAlong(size[i], n, overlap[i], spec.stepping));
  const total = along[0].count * along[1].count * along[2].count;
  /** The position of a window along one axis, and the voxels that it reads there. */
  const place = (i: number, index: number) => {
    const start = along[i].start(index);
    return { start, sources: sourceIndices(start, roi[i], size[i], spec.paddingMode) };
  };

  // The ring's axis is the outermost loop. It does not depend on the number of classes.
  const { axis } = ringPlan(size, spec, 1, 'argmax');
  const [outer, middle] = axis === 'z' ? [2, 1] : [1, 2];
  /** The windows in their order, with the voxels that they read. */
  function* positions() {
    for (let o = 0; o < along[outer].count; o++) {
      const atOuter = place(outer, o);
      for (let m = 0; m < along[middle].count; m++) {
        const atMiddle = place(middle, m);
        const [y, z] = axis === 'z' ? [atMiddle, atOuter] : [atOuter, atMiddle];
        for (let index = 0; index < along[0].count; index++) {
          const x = place(0, index);
          const at: Size = [x.start, y.start, z.start];
          yield { at, row: atOuter.start, sources: [x.sources, y.sources, z.sources] as const };
        }
      }
    }
  }

  let blend: Blend | undefined;
  let done = 0;
  const take = (scores: Tensor, { at, row }: { at: Size; row: number }) => {
    blend ??= createBlend(input, spec, scores.dims[1], reduction, options);
    // Behind the start of a row of windows all planes are final.
    blend.finish(row);
    blend.add(scores, at);
    done++;
    options.onProgress?.(done / total);
  };
  const length = voxelCount({ size: roi }) * components;
  const createLane = (own: NetworkSession) => {
    const predict = createPredictor(own, spec, components, dims);
    const window = allocate(() => new Float32Array(length), length * 4);
    return async (sources: readonly [x: Int32Array, y: Int32Array, z: Int32Array]) => {
      checkCanceled(options.signal);
      extractWindow(voxels, size, components, sources, spec.paddingValue, window);
      return predict(window);
    };
  };

  const queue = positions();
  const alone = createLane(session);
  const next = queue.next();
  if (!next.done) {
    const startMs = performance.now();
    const scores = await alone(next.value.sources);
    take(scores, next.value);
    const windows = total - 1;
    const sessions =
      windows > 1
        ? await session.spread?.({
            windows,
            windowMs: performance.now() - startMs,
            windowBytes: (length + scores.data.length) * 4,
            otherBytes:
              ringPlan(size, spec, scores.dims[1], reduction.type).totalBytes +
              resultBytes(input, scores.dims[1], reduction),
          })
        : undefined;
    const lanes = sessions && sessions.length > 1 ? sessions.map(createLane) : [alone];
    // A last round of a few sessions would take as long as a full one: the session that has all threads is faster.
    const over = windows % lanes.length;
    const together = over * 2 <= lanes.length ? windows - over : windows;
    await inOrder(someOf(queue, together), lanes, take);
    await inOrder(queue, [alone], take);
  }
  if (!blend)
    throw new TomaatError(
      'BAD_INPUT',
      'The volume is empty. Send one with at least one voxel along each axis.',
    );
  blend.finish(Number.POSITIVE_INFINITY);
  return blend.result;
}

/** The next `count` of them; the others are left. */
function* someOf<T>(all: Iterator<T, unknown>, count: number): Generator<T> {
  for (let left = count; left > 0; left--) {
    const next = all.next();
    if (next.done) return;
    yield next.value;
  }
}

/**
 * Runs one window on each lane at a time, and takes the scores in the order of the windows whichever is done first: sums of floats
 * depend on their order.
 */
async function inOrder<P extends { readonly sources: unknown }>(
  positions: Iterable<P>,
  lanes: readonly ((sources: P['sources']) => Promise<Tensor>)[],
  take: (scores: Tensor, position: P) => void,
): Promise<void> {
  const running: { position: P; scores: Promise<Tensor> }[] = [];
  let started = 0;
  for (const position of positions) {
    // The oldest run is on the lane that is next, whose scores may be overwritten by the next run.
    const oldest = running.length === lanes.length ? running.shift() : undefined;
    if (oldest) take(await oldest.scores, oldest.position);
    const run = lanes[started++ % lanes.length](position.sources);
    run.catch(() => {}); // Awaited when it is its turn, unless another one fails before.
    running.push({ position, scores: run });
  }
  for (const { position, scores } of running) take(await scores, position);
}

/** Bytes of all labels, or of all scores. */
function resultBytes(input: Volume, classes: number, { type }: Reduction): number {
  return voxelCount(input) * (type === 'none' ? 4 * classes : 2);
}

/** Runs the network on a window, or on all its mirrored versions, whose scores are mirrored back and summed. */
function createPredictor(
  session: NetworkSession,
  spec: SlidingWindowSpec,
  components: number,
  dims: readonly number[],
): (window: Float32Array) => Promise<Tensor> {
  const flips = mirrorings(spec.mirrorAxes ?? []);
  const length = flips.length > 1 ? voxelCount({ size: spec.roiSize }) * components : 0;
  const mirrored = allocate(() => new Float32Array(length), length * 4);
  let sum = new Float32Array(0);

  const run = async (data: Float32Array): Promise<Tensor> => {
    const output = await session.run({ data, dims });
    if (isLabelTensor(output)) {
      throw new TomaatError(
        'BAD_MANIFEST',
        'The network gives label values, and a sliding window blends scores. Export the network without its argmax, or use the simple inferer.',
      );
    }
    checkScores(output, dims);
    if (output.dims[2] !== dims[2] || output.dims[3] !== dims[3] || output.dims[4] !== dims[4]) {
      throw new TomaatError(
        'BAD_MANIFEST',
        'The network gives one answer for a whole volume, so a sliding window makes no sense. Use the simple inferer.',
      );
    }
    return output;
  };

  return async (window) => {
    const first = await run(window);
    if (flips.length === 1) return first;
    if (sum.length !== first.data.length)
      sum = allocate(() => new Float32Array(first.data.length), first.data.byteLength);
    sum.set(first.data);
    for (const flip of flips.slice(1)) {
      mirror(window, components, spec.roiSize, flip, mirrored, false);
      const output = await run(mirrored);
      mirror(output.data, output.dims[1], spec.roiSize, flip, sum, true);
    }
    return { data: sum, dims: first.dims };
  };
}

interface Blend {
  /** Adds the scores of the window that starts at `at`. */
  add(scores: Tensor, at: Size): void;
  /** Reduces all planes before `next` along the ring's axis: no window will touch them again. */
  finish(next: number): void;
  readonly result: InferResult;
}

function createBlend(
  input: Volume,
  spec: SlidingWindowSpec,
  classes: number,
  reduction: Reduction,
  options: InferOptions,
): Blend {
  const { size, affine } = input;
  const [nx, ny, nz] = size;
  const [rx, ry, rz] = spec.roiSize;
  const count = voxelCount(input);
  checkChannels(reduction, classes);
  const plan = ringPlan(size, spec, classes, reduction.type, options.accumulator);
  const { axis, depth, plane, channels, weighted, offsets } = plan;
  const kernels = openKernels(plan.totalBytes, options.kernels);
  const stride = depth * plane;
  const window = rx * ry * rz;
  kernels.floats.set(
    importanceMap(spec.roiSize, spec.mode, spec.sigmaScale, spec.stepping),
    offsets.importance,
  );
  // The weight of a window counts once per mirrored version, because their scores are summed.
  kernels.floats.fill(mirrorings(spec.mirrorAxes ?? []).length, offsets.ones, offsets.ones + rx);

  const reduce = createReducer(kernels, plan, size, classes, reduction, count);
  const extent = axis === 'z' ? nz : ny;
  const firstChannel = reduction.type === 'threshold' ? reduction.channel : 0;
  let finished = 0;

  return {
    add(scores, at) {
      if (scores.dims[1] !== classes) {
        throw new TomaatError(
          'APP_OUTPUT',
          `The network gave ${classes} classes for one window and ${scores.dims[1]} for another. Export it so that it gives the same number for all.`,
        );
      }
      // The part of the window that is inside the volume.
      const [x0, y0, z0] = at.map((start) => Math.max(0, start));
      const [x1, y1, z1] = [Math.min(nx, at[0] + rx), Math.min(ny, at[1] + ry), Math.min(nz, at[2] + rz)];
      const inWindow = ((z0 - at[2]) * ry + (y0 - at[1])) * rx + (x0 - at[0]);
      const [from, to] = axis === 'z' ? [z0, z1] : [y0, y1];
      const [row0, row1] = axis === 'z' ? [y0, y1] : [z0, z1];
      const planeStep = axis === 'z' ? ry * rx : rx;
      const rowStep = axis === 'z' ? rx : ry * rx;
      const inPlane = row0 * nx + x0;
      const addPlanes = (ring: number, patch: number, patchPlane: number, patchRow: number) => {
        for (let p = from; p < to; p++) {
          const acc = ring + (p % depth) * plane + inPlane;
          const step = p - from;
          const weight = offsets.importance + inWindow + step * planeStep;
          kernels.accumulate(
            acc,
            nx,
            patch + step * patchPlane,
            patchRow,
            weight,
            rowStep,
            x1 - x0,
            row1 - row0,
          );
        }
      };
      for (let k = 0; k < channels; k++) {
        const channel = (firstChannel + k) * window;
        kernels.floats.set(scores.data.subarray(channel, channel + window), offsets.patch);
        addPlanes(offsets.scores + k * stride, offsets.patch + inWindow, planeStep, rowStep);
      }
      if (weighted) addPlanes(offsets.weights, offsets.ones, 0, 0);
    },
    finish(next) {
      if (options.accumulator === 'full' && next < extent) return;
      for (; finished < Math.min(next, extent); finished++) {
        const slot = (finished % depth) * plane;
        reduce.plane(finished, slot);
        for (let k = 0; k < channels; k++) {
          const at = offsets.scores + k * stride + slot;
          kernels.floats.fill(0, at, at + plane);
        }
        if (weighted) kernels.floats.fill(0, offsets.weights + slot, offsets.weights + slot + plane);
      }
    },
    get result(): InferResult {
      const volume = { voxels: reduce.voxels, size, components: reduce.components, affine };
      return reduction.type === 'none' ? { scores: volume } : { labels: volume };
    },
  };
}

/** Turns final planes of the ring (at element `slot` of each channel) into planes of the result. */
function createReducer(
  kernels: Kernels,
  plan: RingPlan,
  size: Size,
  classes: number,
  reduction: Reduction,
  count: number,
) {
  const { axis, depth, plane, channels, offsets } = plan;
  const [nx, ny, nz] = size;
  const stride = depth * plane;

  // Copies a plane to its position in one component of the result: in one piece along z, row by row along y.
  const put = <T extends Float32Array | Uint8Array | Uint16Array>(
    target: T,
    component: number,
    index: number,
    values: T,
  ) => {
    if (axis === 'z') target.set(values, component * count + index * plane);
    else
      for (let z = 0; z < nz; z++)
        target.set(values.subarray(z * nx, (z + 1) * nx), component * count + (z * ny + index) * nx);
  };
  const average = (channel: number, slot: number): Float32Array => {
    const at = offsets.scores + channel * stride + slot;
    kernels.divide(at, offsets.weights + slot, plane);
    return kernels.floats.subarray(at, at + plane);
  };

  if (reduction.type === 'none') {
    const voxels = allocate(() => new Float32Array(count * classes), count * classes * 4);
    return {
      voxels,
      components: classes,
      plane(index: number, slot: number) {
        for (let k = 0; k < channels; k++) put(voxels, k, index, average(k, slot));
      },
    };
  }
  const labelsAt = offsets.labels * 4;
  const voxels = createLabelsOf(reduction, classes, count);
  const wide = voxels instanceof Uint16Array;
  const values = wide
    ? new Uint16Array(kernels.bytes.buffer, labelsAt, plane)
    : kernels.bytes.subarray(labelsAt, labelsAt + plane);
  return {
    voxels,
    components: 1,
    plane(index: number, slot: number) {
      const first = offsets.scores + slot;
      // The argmax alone is the same of sums and of averages.
      if (reduction.type !== 'argmax') for (let k = 0; k < channels; k++) average(k, slot);
      if (reduction.type === 'argmax' || reduction.type === 'foreground')
        kernels.argmax(first, stride, classes, plane, labelsAt, wide);
      if (reduction.type === 'foreground') keepAbove(values, kernels.floats, first, stride, reduction.atMost);
      // Of a threshold the ring keeps its one channel.
      if (reduction.type === 'threshold')
        compose(values, kernels.floats, first, stride, [{ channel: 0, above: reduction.above, value: 1 }]);
      if (reduction.type === 'compose') compose(values, kernels.floats, first, stride, reduction.rules);
      put(voxels as Uint8Array, 0, index, values as Uint8Array);
    },
  };
}

function createLabelsOf(reduction: LabelReduction, classes: number, count: number): Uint8Array | Uint16Array {
  if (reduction.type === 'argmax') return createLabels(classes, count);
  if (reduction.type === 'foreground') return createForeground(classes, count);
  return createComposed(rulesOf(reduction), count);
}
