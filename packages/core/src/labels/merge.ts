import { createVoxels, type Grid, type Volume, voxelCount } from '../volume.ts';
import { labelTypeFor, labelVoxels } from './label-map.ts';

/** A value of a label map, and what it becomes in another one. */
export interface LabelRule {
  readonly from: number;
  readonly to: number;
}

/** An empty label map on a grid that can hold the values of all rules. */
export function createMerged({ size, affine }: Grid, rules: readonly LabelRule[]): Volume {
  const voxels = createVoxels(labelTypeFor(rules.map(({ to }) => to)), voxelCount({ size }));
  return { voxels, size, components: 1, affine };
}

/**
 * Writes the labels of one map into another on the same grid, in place, each value as its rule says. Values without a rule, 0
 * among them, leave the voxel as it is.
 */
export function mergeInto(merged: Volume, labels: Volume, rules: readonly LabelRule[]): void {
  const source = labelVoxels(labels);
  const target = merged.voxels as Uint8Array | Uint16Array;
  const table = new Uint16Array(Math.max(...rules.map(({ from }) => from)) + 1);
  for (const { from, to } of rules) table[from] = to;
  for (let i = 0; i < source.length; i++) {
    const value = source[i];
    if (value <= 0 || value >= table.length) continue;
    const to = table[value];
    if (to !== 0) target[i] = to;
  }
}
