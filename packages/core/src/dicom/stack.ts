import type { Affine } from '../geometry/affine.ts';
import type { Size } from '../volume.ts';
import type { DicomImage, FrameKeys } from './frames.ts';

/** Images that form a regular grid. */
export interface Stack {
  readonly size: Size;
  /** Voxel index → RAS+ mm: x along a row, y along a column, z in the order of the slices; sheared where the gantry was tilted. */
  readonly affine: Affine;
  /** Of each frame (time point, echo …) the images along z. */
  readonly frames: readonly (readonly DicomImage[])[];
  /** What tells the frames apart. */
  readonly frameKey?: keyof FrameKeys;
}
