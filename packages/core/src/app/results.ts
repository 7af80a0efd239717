import { TomaatError } from '../errors.ts';
import type { SpatialTransform } from '../formats/transform-file.ts';
import { applyAffine, invert, spacingOf, type Vec3 } from '../geometry/affine.ts';
import { corners } from '../geometry/grid.ts';
import { type LabelMeasurement, measureLabels, volumeReport } from '../labels/measure.ts';
import { buildSurface, type Mesh } from '../labels/surface.ts';
import { type Grid, numericVoxels, type Volume, voxelCount } from '../volume.ts';
import type { Label, Output } from './elements.ts';
import type { OutputValue } from './values.ts';

/*
 * Checks what an app returned for its outputs against the manifest and the grid, and derives
 * other outputs from its label maps.
 */

/** An output derived from a label map, if its type allows it. */
export async function derive(
  output: Output,
  labelMap: Volume,
  labels: readonly Label[],
): Promise<OutputValue | undefined> {
  if (output.type === 'VTKMesh') {
    return buildSurface(labelMap, {
      labels: output.labels,
      smooth: output.smooth,
      keepTriangles: output.keepTriangles,
    });
  }
  const measurements = measureLabels(labelMap, labels);
  if (output.type === 'Measurements') return measurements;
  if (output.type === 'PlainText' && output.report === 'volumes') return volumeReport(measurements);
  if (output.type === 'Fiducials')
    return measurements.filter((m) => m.voxels > 0).map((m) => m.centroidMm as Vec3);
  return undefined;
}

/** The label map from which an output is derived. */
export const fromOf = (output: Output) => ('from' in output ? output.from : undefined);
export const isVolume = (value: unknown): value is Volume =>
  typeof value === 'object' && value !== null && 'affine' in value && 'voxels' in value;
const isMesh = (value: unknown): value is Mesh =>
  typeof value === 'object' && value !== null && 'triangles' in value;

function isMeasurement(value: unknown): boolean {
  const row = value as Partial<LabelMeasurement> | null;
  return (
    typeof row?.name === 'string' &&
    [row.value, row.voxels, row.volumeMl].every((number) => Number.isFinite(number))
  );
}

/** APP_OUTPUT: an output of the manifest that was not returned and cannot be derived. */
export function missingOutput(name: string): TomaatError {
  return new TomaatError('APP_OUTPUT', `The app returned nothing for its output ${name}.`, { field: name });
}

/** Whether any voxel is labelled. */
export function hasLabel({ voxels }: Volume): boolean {
  for (let i = 0; i < voxels.length; i++) if (Number(voxels[i]) !== 0) return true;
  return false;
}

/**
 * Refuses a label map that has the size of the app's input but another position: its program dropped the header, and
 * the labels would be elsewhere in the body. Axes may be in another order, and a program may use its own
 * grid of that size (such as 256³ at 1 mm) around the same centre.
 */
export function checkPlace(name: string, value: OutputValue, given: readonly Volume[]): void {
  if (!isVolume(value)) return;
  const sorted = (size: readonly number[]) => [...size].sort((a, b) => a - b).join();
  const twins = given.filter((volume) => sorted(volume.size) === sorted(value.size));
  if (twins.length === 0) return;
  const own = corners(value, 'edges');
  // The default of libraries: no rotation, the first voxel at 0.
  const isDefault = value.affine.every((v, i) => i % 5 === 0 || Math.abs(v) < 1e-6);
  const middle = (grid: Grid) =>
    applyAffine(grid.affine, [(grid.size[0] - 1) / 2, (grid.size[1] - 1) / 2, (grid.size[2] - 1) / 2]);
  const lies = twins.some((volume) => {
    const toleranceMm = Math.max(...spacingOf(volume.affine));
    const isSameBox = corners(volume, 'edges').every(([x, y, z]) =>
      own.some((p) => Math.hypot(p[0] - x, p[1] - y, p[2] - z) <= toleranceMm),
    );
    if (isSameBox) return true;
    const at = applyAffine(invert(volume.affine), middle(value));
    return !isDefault && at.every((v, axis) => Math.abs((v + 0.5) / volume.size[axis] - 0.5) < 0.25);
  });
  if (lies) return;
  throw new TomaatError(
    'APP_OUTPUT',
    `The label map ${name} has the size of the volume (${value.size.join(' × ')}) but another position: its affine was lost or changed. Write it with the affine (spacing, directions, origin) of the volume that the app received.`,
    { field: name },
  );
}

/** Any volume of whole numbers from 0 to 65535 as uint8 or uint16. */
export function asLabels(name: string, value: OutputValue): Volume {
  if (!isVolume(value) || value.components !== 1) {
    throw new TomaatError(
      'APP_OUTPUT',
      `The app’s output ${name} is not a label map. Return a volume of one component.`,
      { field: name },
    );
  }
  if (
    value.voxels.length !== voxelCount(value) ||
    value.affine.length !== 16 ||
    !value.affine.every(Number.isFinite)
  ) {
    throw new TomaatError(
      'APP_OUTPUT',
      `The label map ${name} has ${value.voxels.length} voxels for a size of ${value.size.join(' × ')}, or an affine that is not 16 finite numbers. Return all three of the same volume.`,
      { field: name },
    );
  }
  if (value.voxels instanceof Uint8Array || value.voxels instanceof Uint16Array) return value;
  const source = numericVoxels(value.voxels);
  let highest = 0;
  for (let i = 0; i < source.length; i++) {
    const v = source[i];
    if (!(v >= 0 && v <= 65_535 && Number.isInteger(v))) {
      throw new TomaatError(
        'APP_OUTPUT',
        `The label map ${name} contains the value ${v}. Labels must be whole numbers from 0 to 65535.`,
        { field: name },
      );
    }
    if (v > highest) highest = v;
  }
  return { ...value, voxels: highest < 256 ? Uint8Array.from(source) : Uint16Array.from(source) };
}

/** APP_OUTPUT unless the value matches the output's type. */
export function checkType(name: string, output: Output, value: OutputValue): void {
  const fits: Record<Output['type'], boolean> = {
    LabelVolume: isVolume(value),
    VTKMesh: isMesh(value),
    Fiducials:
      Array.isArray(value) &&
      value.every((p) => Array.isArray(p) && p.length === 3 && p.every(Number.isFinite)),
    PlainText: typeof value === 'string',
    Measurements: Array.isArray(value) && (value as readonly unknown[]).every(isMeasurement),
    TransformGrid: (value as SpatialTransform)?.kind === 'grid',
    TransformBSpline: (value as SpatialTransform)?.kind === 'bspline',
    TransformLinear: (value as SpatialTransform)?.kind === 'linear',
  };
  if (!fits[output.type]) {
    throw new TomaatError(
      'APP_OUTPUT',
      `The app’s output ${name} does not match its type ${output.type}. Return a value of that type.`,
      { field: name },
    );
  }
}
