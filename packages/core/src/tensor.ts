import { TomaatError } from './errors.ts';
import type { Size, Volume } from './volume.ts';

/**
 * The input and output of a network: float32 numbers, the last dimension fastest. A volume with C components is the
 * tensor [1, C, z, y, x] without any copy, because both keep x fastest and the components apart.
 */
export interface Tensor {
  readonly data: Float32Array;
  readonly dims: readonly number[];
}

/** The output of a network that decides by itself: label values, [1, 1, z, y, x]. */
export interface LabelTensor {
  readonly data: Uint8Array | Uint16Array;
  readonly dims: readonly number[];
  readonly integer: true;
}

/** Whether a network's output holds label values rather than scores. */
export function isLabelTensor(tensor: Tensor | LabelTensor): tensor is LabelTensor {
  return 'integer' in tensor;
}

/** The volume's voxels as the tensor [1, C, z, y, x]: the same memory. Throws APP_FAILED unless they are float32. */
export function volumeToTensor(volume: Volume): Tensor {
  if (!(volume.voxels instanceof Float32Array)) {
    throw new TomaatError(
      'APP_FAILED',
      'A network takes float32 voxels, and the preprocessing made another type. End it with a step that scales or normalises the intensities.',
    );
  }
  const [x, y, z] = volume.size;
  return { data: volume.voxels, dims: [1, volume.components, z, y, x] };
}

/** The last three dimensions as a volume's size (x, y, z). */
export function sizeOfDims(dims: readonly number[]): Size {
  const [z, y, x] = dims.slice(-3);
  return [x, y, z];
}
