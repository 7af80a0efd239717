import type { z } from 'zod';
import type { Volume } from '../volume.ts';

/** What a transform may use besides its volume and its own parameters. */
export interface TransformContext {
  /** The caller's parameters of the prediction. */
  parameters: Record<string, unknown>;
  signal?: AbortSignal;
  log(text: string): void;
}

/**
 * One entry of a table of transforms: a function from volume to volume with a description of itself. A transform never
 * changes the volume that it is given. One that changes geometry gives the result a new affine, so that every voxel
 * keeps its place in the world; therefore restore() undoes any chain of them. Sizes and spacings among the
 * parameters are x, y, z of the volume as it is at that step.
 */
export interface VolumeTransform<P = unknown> {
  name: string;
  description: string;
  parameters: z.ZodType<P>;
  apply(volume: Volume, parameters: P, context: TransformContext): Volume | Promise<Volume>;
  /** The values that a label map may hold afterwards, by those before; the same ones if missing. */
  valuesAfter?(values: readonly number[], parameters: P): readonly number[];
}

/** A table's entry; the type of its parameters follows from their schema. */
export function defineTransform<S extends z.ZodType>(transform: {
  name: string;
  description: string;
  parameters: S;
  apply(volume: Volume, parameters: z.output<S>, context: TransformContext): Volume | Promise<Volume>;
  valuesAfter?(values: readonly number[], parameters: z.output<S>): readonly number[];
}): VolumeTransform {
  return transform as VolumeTransform;
}
