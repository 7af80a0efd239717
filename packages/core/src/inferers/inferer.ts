import { z } from 'zod';
import { TomaatError } from '../errors.ts';
import { shiftIndex } from '../geometry/affine.ts';
import { isLabelTensor, type LabelTensor, sizeOfDims, type Tensor, volumeToTensor } from '../tensor.ts';
import { type Size, type Volume, voxelCount } from '../volume.ts';
import { checkCanceled, checkChannel, checkInputDims, checkScores } from './checks.ts';
import { allocate, argmaxScores } from './kernels.ts';
import { ringPlan, slideWindows } from './sliding-window.ts';

/** A loaded network: one tensor in, one tensor out. */
export interface NetworkSession {
  /**
   * [1, C, z, y, x] → scores [1, K, z, y, x], label values [1, 1, z, y, x], or one answer for the whole volume ([1, K] or
   * [1, K, 1, 1, 1]). `input` is read only until the promise settles.
   */
  run(input: Tensor): Promise<Tensor | LabelTensor>;
  /**
   * The class with the largest score of each voxel (the first of equals), [1, 1, z, y, x]: given where the engine can spare
   * the copy of all scores.
   */
  runLabels?(input: Tensor): Promise<LabelTensor>;
  /** The dimensions that the network takes, null where any will do; left out when unknown. */
  readonly inputDims?: readonly (number | null)[];
}

const perAxis = <T extends z.ZodType>(item: T) => z.tuple([item, item, item]);
const overlapSchema = z.number().min(0).lt(1);

const simpleSchema = z.strictObject({ type: z.literal('simple') }).describe('The whole volume at once');

const slidingWindowSchema = z
  .strictObject({
    type: z.literal('slidingWindow'),
    roiSize: perAxis(z.int().min(1).max(4096)).describe('Voxels of a window along x, y and z'),
    overlap: z
      .union([overlapSchema, perAxis(overlapSchema)])
      .default(0.25)
      .describe('Part of a window that the next one covers again, for all axes or for x, y and z'),
    mode: z.enum(['constant', 'gaussian']).default('constant').describe('Weight of the voxels of a window'),
    sigmaScale: z.number().positive().max(10).default(0.125).describe('Standard deviation over roiSize'),
    paddingMode: z
      .enum(['constant', 'reflect', 'replicate'])
      .default('constant')
      .describe('What surrounds a volume that is smaller than a window'),
    paddingValue: z.number().default(0),
    stepping: z
      .enum(['monai', 'nnunet'])
      .default('monai')
      .describe('Positions and Gaussian weights of the windows as MONAI or as nnU-Net computes them'),
    mirrorAxes: z
      .array(z.enum(['x', 'y', 'z']))
      .max(3)
      .optional()
      .describe('Average over all mirrorings along these axes (test-time augmentation)'),
  })
  .describe('Overlapping windows, blended');

/** How a network is applied to a volume; the names and defaults are MONAI's (SimpleInferer, SlidingWindowInferer). */
export const infererSchema = z.discriminatedUnion('type', [simpleSchema, slidingWindowSchema]);
export type InfererSpec = z.output<typeof infererSchema>;
export type SlidingWindowSpec = z.output<typeof slidingWindowSchema>;

/**
 * What becomes of the class scores: kept; the class with the largest one (the first of equals); or 1 where the score
 * of one class is above a number, else 0.
 */
export type Reduction =
  | { readonly type: 'none' }
  | { readonly type: 'argmax' }
  | { readonly type: 'threshold'; readonly channel: number; readonly above: number };

export interface InferOptions {
  /** Called with the part that is done, 0 … 1, after each window. */
  onProgress?: (fraction: number) => void;
  /** Looked at between windows: a run of the network itself cannot be stopped. */
  signal?: AbortSignal;
  /** 'plain' does without WebAssembly; 'full' keeps all scores instead of a ring. The labels are the same. */
  kernels?: 'auto' | 'plain';
  accumulator?: 'ring' | 'full';
}

/** Scores (float32, K components) or a label map (uint8; uint16 where values above 255 occur or may occur). */
export type InferResult = { readonly scores: Volume } | { readonly labels: Volume };

/**
 * Applies a network to a volume (float32, C components). The result lies on the input's grid; the one answer of a
 * classifier is a volume of one voxel that covers it. Throws APP_FAILED or BAD_MANIFEST where network, volume and
 * `spec` do not fit each other, APP_OUTPUT where the network's answer is of no use, CANCELED after `signal`, and
 * OUT_OF_MEMORY.
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
  const labels = (voxels: Uint8Array | Uint16Array) => ({ labels: { voxels, size, components: 1, affine } });
  if (reduction.type === 'none')
    return { scores: { voxels: output.data, size, components: classes, affine } };
  if (reduction.type === 'argmax') return labels(argmaxScores(output.data, classes, count, options.kernels));
  checkChannel(reduction.channel, classes);
  const voxels = allocate(() => new Uint8Array(count), count);
  const first = reduction.channel * count;
  for (let i = 0; i < count; i++) if (output.data[first + i] > reduction.above) voxels[i] = 1;
  return labels(voxels);
}

/**
 * Bytes that `infer` needs for a volume: its input, its result and what it keeps meanwhile, but not what the network
 * itself takes. To be compared with what is free before a prediction starts.
 */
export function estimateMemory(
  spec: InfererSpec,
  size: Size,
  components: number,
  classes: number,
  reduction: Reduction['type'] = 'argmax',
): number {
  const count = voxelCount({ size });
  const labelBytes = reduction === 'argmax' && classes > 256 ? 2 : 1;
  const result = reduction === 'none' ? count * classes * 4 : count * labelBytes;
  const input = count * components * 4;
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
  if (reduction.type === 'threshold') {
    throw new TomaatError(
      'BAD_MANIFEST',
      'The network gives label values, not scores, so there is nothing to compare with a threshold. Remove the threshold step.',
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
