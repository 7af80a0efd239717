import type { Grid, Volume } from '@tomaat/core';
import { toNifti } from '../form/scan.ts';
import { labelsOn } from './labels-on.ts';
import { firstComponent, type Range, rangeOf, reduce } from './reduce.ts';

/* What the viewer draws of a volume, computed apart from NiiVue and from the page: in a worker where the volume is large. */

/** How voxels become those that are drawn. */
export type Reduction =
  /** Means of blocks of `factor`³ voxels, for values. */
  | { readonly kind: 'mean'; readonly factor: number }
  /** Labels, which have no mean, on the grid that is drawn. */
  | { readonly kind: 'labels'; readonly grid: Grid };

/** The range is of all voxels of a scan, before the reduction; values that are not finite do not count. */
export interface Prepared extends Range {
  /** NIfTI, on the reduced grid. */
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** What the viewer is given of a volume. */
export async function prepare(volume: Volume, by: Reduction): Promise<Prepared> {
  if (by.kind === 'labels') {
    const labels = labelsOn(volume, by.grid);
    return { bytes: await toNifti(labels), ...rangeOf(firstComponent(labels)) };
  }
  return prepareReduced(reduce(volume, by.factor));
}

export const prepareReduced = async ({ reduced, range }: ReturnType<typeof reduce>): Promise<Prepared> => ({
  bytes: await toNifti(reduced),
  ...range,
});
