import { TomaatError } from '../errors.ts';
import { shiftIndex } from '../geometry/affine.ts';
import { isLabelTensor, type LabelTensor, sizeOfDims, volumeToTensor } from '../tensor.ts';
import { type Size, type Volume, voxelCount } from '../volume.ts';
import { checkCanceled, checkInputDims, checkScores } from './checks.ts';
import { reduceScores } from './reduce.ts';
import { inferSlices, sliceSize, withinSlice } from './slices.ts';
import { ringPlan, slideWindows } from './sliding-window.ts';
import type { InfererSpec, InferOptions, InferResult, NetworkSession, Reduction } from './spec.ts';

/**
 * Applies a network to a volume (float32, C components). The result is on the input's grid; the single output of a
 * classifier is a volume of one voxel that covers it. Throws APP_FAILED or BAD_MANIFEST if network, volume and `spec`
 * do not match, APP_OUTPUT if the network's output is invalid, CANCELED after `signal`, and OUT_OF_MEMORY.
 */
export async function infer(
  input: Volume,
  session: NetworkSession,
  spec: InfererSpec,
  reduction: Reduction,
  options: InferOptions = {},
): Promise<InferResult> {
  checkCanceled(options.signal);
  if (spec.type === 'slidingWindow') return slideWindows(input, session, spec, reduction, options);
  if (spec.type === 'slice') {
    const within = withinSlice(spec, input.size);
    return inferSlices(
      input,
      session,
      spec.axis,
      (slice, flat, sliceOptions) => infer(slice, flat, within, reduction, sliceOptions),
      options,
    );
  }

  const tensor = volumeToTensor(input);
  checkInputDims(session, tensor.dims, 'the preprocessing made');
  const output =
    reduction.type === 'argmax' && session.runLabels
      ? await session.runLabels(tensor)
      : await session.run(tensor);
  checkCanceled(options.signal);
  options.onProgress?.(1);
  if (isLabelTensor(output)) return { labels: labelsOf(output, input, reduction) };

  const classes = checkScores(output, tensor.dims);
  const grid =
    output.dims.length === 2 || voxelCount({ size: sizeOfDims(output.dims) }) === 1
      ? wholeVoxel(input)
      : input;
  const { size, affine } = grid;
  const count = voxelCount(grid);
  if (reduction.type === 'none')
    return { scores: { voxels: output.data, size, components: classes, affine } };
  const voxels = reduceScores(output.data, classes, count, reduction, options.kernels);
  return { labels: { voxels, size, components: 1, affine } };
}

/**
 * Bytes that `infer` needs for a volume: its input, its result and intermediate buffers, but not what the network
 * itself needs. Compare it with the free memory before a prediction starts.
 */
export function estimateMemory(
  spec: InfererSpec,
  size: Size,
  components: number,
  classes: number,
  reduction: Reduction['type'] = 'argmax',
): number {
  const count = voxelCount({ size });
  const largest = { argmax: classes - 1, foreground: classes, threshold: 1, compose: 65_535, none: 0 };
  const labelBytes = largest[reduction] > 255 ? 2 : 1;
  const result = reduction === 'none' ? count * classes * 4 : count * labelBytes;
  const input = count * components * 4;
  if (spec.type === 'slice') {
    const slice = sliceSize(size, spec.axis);
    return input + result + estimateMemory(withinSlice(spec, size), slice, components, classes, reduction);
  }
  if (spec.type === 'simple') return input + count * classes * 4 + (reduction === 'none' ? 0 : result);
  const window = voxelCount({ size: spec.roiSize });
  const copies = spec.mirrorAxes?.length ? 2 : 1;
  const ring = ringPlan(size, spec, classes, reduction);
  return input + result + ring.totalBytes + copies * window * 4 * (components + classes);
}

function labelsOf(output: LabelTensor, input: Volume, reduction: Reduction): Volume {
  const { dims, data } = output;
  const grid = data.length === 1 ? wholeVoxel(input) : input;
  const [x, y, z] = grid.size;
  const [dz, dy, dx] = data.length === 1 ? [1, 1, 1] : dims.slice(-3);
  if (dz !== z || dy !== y || dx !== x || data.length !== x * y * z) {
    throw new TomaatError(
      'APP_OUTPUT',
      `The network gave labels of ${dims.join(' × ')} for a volume of ${z} × ${y} × ${x} (z × y × x). Export it so that its output has the size of its input.`,
    );
  }
  if (reduction.type !== 'argmax' && reduction.type !== 'none') {
    const step =
      reduction.type === 'foreground' ? 'backgroundAtMost of argmax' : `the ${reduction.type} step`;
    throw new TomaatError(
      'BAD_MANIFEST',
      `The network gives label values, not scores, so there is nothing to compare with a threshold. Remove ${step}.`,
    );
  }
  return { voxels: data, size: grid.size, components: 1, affine: grid.affine };
}

/** A grid of one voxel that covers all of another grid. */
function wholeVoxel(grid: Volume): { size: Size; affine: Volume['affine'] } {
  const [x, y, z] = grid.size;
  const centred = shiftIndex(grid.affine, [(x - 1) / 2, (y - 1) / 2, (z - 1) / 2]);
  const scale = [x, y, z];
  return { size: [1, 1, 1], affine: centred.map((v, i) => (i < 12 && i % 4 < 3 ? v * scale[i % 4] : v)) };
}
