import type { Job, Service } from '@tomaat/client';
import {
  applyAffine,
  invert,
  labelPalette,
  labelsWith,
  numericVoxels,
  type Vec3,
  type Volume,
} from '@tomaat/core';

/** How a label is drawn and listed. */
export interface LabelStyle {
  value: number;
  name: string;
  /** "#rrggbb". */
  color: string;
  visible: boolean;
}

/** The labels of a service, and further ones in a label map, as drawn. */
export function labelStyles(
  service: Service | undefined,
  parameters: Job['parameters'],
  present: readonly number[],
): LabelStyle[] {
  const listed = labelsWith(service?.labels ?? [], parameters);
  const known = new Set(listed.map(({ value }) => value));
  const all = [
    ...listed.map(({ value, name, color }) => ({ value, name, color })),
    ...present
      .filter((value) => !known.has(value))
      .map((value) => ({ value, name: `label ${value}`, color: undefined })),
  ];
  return all.map(({ value, name, color }, i) => ({
    value,
    name,
    color: color ?? labelPalette[i % labelPalette.length],
    visible: true,
  }));
}

/** The values that occur in a label map, except 0, ascending. */
export function labelsIn(volume: Volume): number[] {
  const voxels = numericVoxels(volume.voxels);
  const found = new Set<number>();
  let last = 0;
  for (let i = 0; i < voxels.length; i++) if (voxels[i] !== last) found.add((last = voxels[i]));
  found.delete(0);
  return [...found].sort((a, b) => a - b);
}

/** Value of the voxel nearest to a world position (RAS+ mm); undefined outside the volume. */
export function createProbe(volume: Volume): (position: Vec3) => number | undefined {
  const toIndex = invert(volume.affine);
  const { size, voxels } = volume;
  return (position) => {
    const index = applyAffine(toIndex, position).map(Math.round);
    if (index.some((v, i) => v < 0 || v >= size[i])) return undefined;
    return Number(voxels[index[0] + size[0] * (index[1] + size[1] * index[2])]);
  };
}
