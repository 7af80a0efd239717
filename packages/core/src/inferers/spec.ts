import { z } from 'zod';
import type { LabelTensor, Tensor } from '../tensor.ts';
import type { Volume } from '../volume.ts';

/** A loaded network: one tensor in, one tensor out. */
export interface NetworkSession {
  /**
   * [1, C, z, y, x] → scores [1, K, z, y, x], label values [1, 1, z, y, x], or one output for the whole volume:
   * [1, K] or [1, K, 1, 1, 1]. With the inferer `slice` the same without one axis, and perhaps without batch. `input` is read only until the promise settles.
   */
  run(input: Tensor): Promise<Tensor | LabelTensor>;
  /**
   * The class with the largest score of each voxel (the first one on a tie), [1, 1, z, y, x]: present if the engine
   * can avoid copying all scores.
   */
  runLabels?(input: Tensor): Promise<LabelTensor>;
  /** The input dimensions of the network, null where any is accepted; missing if unknown. */
  readonly inputDims?: readonly (number | null)[];
  /** Names of the faster forms in which the engine computes operators of its file; missing if there are none. */
  readonly rewrites?: readonly string[];
  /**
   * The same network in several sessions, each for one run at a time, all at the same time: present if the engine can do that. Asked after the
   * first window; a list of one if more of them would gain nothing or do not fit into the memory.
   */
  spread?(rest: WindowsLeft): Promise<readonly NetworkSession[]>;
}

/** What is left of a volume after its first window. */
export interface WindowsLeft {
  readonly windows: number;
  /** What the first one took, with its preparation. */
  readonly windowMs: number;
  /** Input, output and inside of a window, as far as they are known, bytes. */
  readonly windowBytes: number;
  /** What the rest of the prediction may still allocate, bytes. */
  readonly otherBytes: number;
}

const perAxis = <T extends z.ZodType>(item: T) => z.tuple([item, item, item]);
const overlapSchema = z.number().min(0).lt(1);

const simpleSchema = z.strictObject({ type: z.literal('simple') }).describe('The whole volume at once');

const roiLength = z.int().min(1).max(4096);

/** What windows of volumes and of slices share. */
const windowKeys = {
  mode: z.enum(['constant', 'gaussian']).default('constant').describe('Weight of the voxels of a window'),
  sigmaScale: z.number().positive().max(10).default(0.125).describe('Standard deviation over roiSize'),
  paddingMode: z
    .enum(['constant', 'reflect', 'replicate'])
    .default('constant')
    .describe('Padding of a volume that is smaller than a window'),
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
};

const slidingWindowSchema = z
  .strictObject({
    type: z.literal('slidingWindow'),
    roiSize: perAxis(roiLength).describe('Voxels of a window along x, y and z'),
    overlap: z
      .union([overlapSchema, perAxis(overlapSchema)])
      .default(0.25)
      .describe('Fraction of a window that overlaps the next one, for all axes or for x, y and z'),
    ...windowKeys,
  })
  .describe('Overlapping windows, blended');

const sliceSchema = z
  .strictObject({
    type: z.literal('slice'),
    axis: z
      .enum(['x', 'y', 'z'])
      .default('z')
      .describe('The axis of the prepared volume that the slices lie across'),
    roiSize: z
      .tuple([roiLength, roiLength])
      .optional()
      .describe(
        'Overlapping windows within the slice, their voxels along its two axes in the order x, y, z; each slice as a whole if missing, and then the following keys but mirrorAxes do nothing',
      ),
    overlap: z
      .union([overlapSchema, z.tuple([overlapSchema, overlapSchema])])
      .default(0.25)
      .describe('Fraction of a window that overlaps the next one, for both axes or for each'),
    ...windowKeys,
  })
  .refine(({ axis, mirrorAxes }) => !mirrorAxes?.includes(axis), {
    message: 'must be axes within the slice, not the one across it',
    path: ['mirrorAxes'],
  })
  .describe(
    'A 2-D network on each slice across an axis. It takes batch × components × rows × columns, or the same without batch. Rows and columns are y and x across z, z and x across y, z and y across x',
  );

/** How a network is applied to a volume; names and defaults are MONAI's (SimpleInferer, SlidingWindowInferer, SliceInferer). */
export const infererSchema = z.discriminatedUnion('type', [simpleSchema, slidingWindowSchema, sliceSchema]);
export type InfererSpec = z.output<typeof infererSchema>;
export type SlidingWindowSpec = z.output<typeof slidingWindowSchema>;
export type SliceSpec = z.output<typeof sliceSchema>;

/** The value of the voxels whose score in one channel is above a number. */
export interface ComposeRule {
  readonly channel: number;
  readonly above: number;
  readonly value: number;
}

/**
 * What to do with the class scores: keep them; the class with the largest one (the first one on a tie); the same of a
 * network without a background channel, as 1 + the class, and 0 where no score is above `atMost`; 1 where the score of
 * one class is above a number, otherwise 0; or the value of the last rule that a voxel meets, otherwise 0.
 */
export type Reduction =
  | { readonly type: 'none' }
  | { readonly type: 'argmax' }
  | { readonly type: 'foreground'; readonly atMost: number }
  | { readonly type: 'threshold'; readonly channel: number; readonly above: number }
  | { readonly type: 'compose'; readonly rules: readonly ComposeRule[] };

export interface InferOptions {
  /** Called with the completed fraction, 0 … 1, after each window. */
  onProgress?: (fraction: number) => void;
  /** Checked between windows: a running network cannot be interrupted. */
  signal?: AbortSignal;
  /** 'plain' avoids WebAssembly; 'full' keeps all scores instead of a ring. The labels are the same. */
  kernels?: 'auto' | 'plain';
  accumulator?: 'ring' | 'full';
}

/** Scores (float32, K components) or a label map (uint8; uint16 if values above 255 occur or may occur). */
export type InferResult = { readonly scores: Volume } | { readonly labels: Volume };
