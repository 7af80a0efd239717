import { TomaatError } from '../errors.ts';
import type { Volume } from '../volume.ts';
import { labelVoxels } from './label-map.ts';

/** The most labels whose numbers fit one byte beside 0 (background) and 255, which some viewers keep for themselves. */
export const mostNumberedLabels = 254;

/**
 * A label map (one component) as uint8 on the same grid, in which the voxels of the k-th of `values` are k + 1, and all
 * others 0: for viewers that know labels by their position in a list. Throws NOT_ACCEPTABLE if there are more than 254 values, and
 * APP_OUTPUT if a voxel has a value other than 0 that is not listed.
 */
export function numberLabels(volume: Volume, values: readonly number[]): Volume {
  if (values.length > mostNumberedLabels) {
    throw new TomaatError(
      'NOT_ACCEPTABLE',
      `The app has ${values.length} labels, but the voxels of this protocol can tell only ${mostNumberedLabels} apart. Use the API or the page, which give label maps with their own values.`,
    );
  }
  const labels = labelVoxels(volume);
  const numbers = new Map(values.map((value, k) => [value, k + 1]));
  numbers.set(0, 0);
  const voxels = new Uint8Array(labels.length);
  // Neighbours mostly have the same label.
  let last = 0;
  let number: number | undefined = 0;
  for (let i = 0; i < labels.length; i++) {
    const value = labels[i];
    if (value !== last) {
      last = value;
      number = numbers.get(value);
    }
    if (number === undefined) {
      throw new TomaatError(
        'APP_OUTPUT',
        `The label map contains the value ${value}, which the app’s labels do not name. Name it in the manifest, or request the label map with its own values.`,
      );
    }
    voxels[i] = number;
  }
  return { ...volume, voxels };
}
