import type { z } from 'zod';
import type { Fit } from '../geometry/fit.ts';
import type { Grid, Volume } from '../volume.ts';

/** What a transform may use besides its volume and its own parameters. */
export interface TransformContext {
  /** The caller's parameters of the prediction. */
  parameters: Record<string, unknown>;
  signal?: AbortSignal;
  log(text: string): void;
}

/** The description of a transform. */
interface TransformDescription<P> {
  name: string;
  description: string;
  /**
   * The grid of `apply`'s result, by the grid of the volume: the memory that a prediction needs is estimated by it, before there
   * are voxels. `keepsGrid` where only values change.
   */
  gridOf(grid: Grid, parameters: P): Grid;
  /**
   * Set where the grid of the result depends on the voxels. `gridOf` then gives an upper bound: a grid that the result lies in,
   * with at least as many voxels along each axis.
   */
  gridIsUpperBound?: true;
  /** Where scores go back through the transform otherwise than by their place in the world: how. */
  fitOf?(grid: Grid, parameters: P): Fit | undefined;
  /** How many volumes, each as large as the larger of both, `apply` holds at once; 2 if missing: what it is given, and the result. */
  volumesHeld?(parameters: P): number;
  /** The values that a label map may hold afterwards, by those before; the same ones if missing. */
  valuesAfter?(values: readonly number[], parameters: P): readonly number[];
}

/**
 * One entry of a table of transforms: a function from volume to volume with a description of itself. A transform never
 * changes the volume that it is given, and keeps the number of its components. One that changes geometry gives the result a new
 * affine, so that every voxel keeps its place in the world; therefore restore() undoes any chain of them. Sizes and spacings
 * among the parameters are x, y, z of the volume as it is at that step.
 */
export interface VolumeTransform<P = unknown> extends TransformDescription<P> {
  parameters: z.ZodType<P>;
  apply(volume: Volume, parameters: P, context: TransformContext): Volume | Promise<Volume>;
}

/** `gridOf` of a transform that changes values alone. */
export const keepsGrid = (grid: Grid): Grid => grid;

/**
 * A table's entry; the type of its parameters follows from their schema. `apply` is given the grid that `gridOf` gave, so
 * that the arithmetic of a grid is written once.
 */
export function defineTransform<S extends z.ZodType>(
  transform: TransformDescription<z.output<S>> & {
    parameters: S;
    apply(
      volume: Volume,
      parameters: z.output<S>,
      context: TransformContext,
      grid: Grid,
    ): Volume | Promise<Volume>;
  },
): VolumeTransform {
  const defined: VolumeTransform<z.output<S>> = {
    ...transform,
    parameters: transform.parameters as z.ZodType<z.output<S>>,
    apply: (volume, parameters, context) =>
      transform.apply(volume, parameters, context, transform.gridOf(volume, parameters)),
  };
  return defined as VolumeTransform;
}
