import { intensityTransforms } from './intensity.ts';
import { spatialTransforms } from './spatial.ts';
import type { VolumeTransform } from './transform.ts';

/** Every transform of images that a manifest may name, in the order of the documentation. */
export const imageTransforms: readonly VolumeTransform[] = [...spatialTransforms, ...intensityTransforms];
