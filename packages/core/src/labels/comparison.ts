import { TomaatError } from '../errors.ts';
import { determinant, orientationOf, originOf, spacingOf } from '../geometry/affine.ts';
import { reorient } from '../geometry/exact.ts';
import { sameGrid } from '../geometry/grid.ts';
import type { Volume } from '../volume.ts';
import { compareLabels } from './agreement.ts';
import { type LabelName, labelVoxels } from './label-map.ts';
import { type SurfaceDistance, surfaceDistances } from './surface-distance.ts';

/** A label map compared with the expected one: what `tomaat run --expected`, `tomaat compare` and the page show. */
export interface LabelComparison {
  readonly voxels: number;
  /** Voxels whose labels differ. */
  readonly differ: number;
  /** Fraction of voxels with equal labels, background included. */
  readonly agree: number;
  /** Every label that occurs in either map, ascending by value. */
  readonly labels: readonly ComparedLabel[];
}

export interface ComparedLabel {
  readonly value: number;
  readonly name: string;
  /** 2 |A ∩ B| / (|A| + |B|). */
  readonly dice: number;
  readonly foundMl: number;
  readonly expectedMl: number;
  /** Missing if only one of the maps has the label, or `surfaceDistances()` leaves it out. */
  readonly surface?: SurfaceDistance;
}

/** What messages call the two label maps. */
export interface ComparedNames {
  /** “the result” if missing. */
  readonly found?: string;
  readonly expected: string;
}

/** mm within which two label maps lie on the same voxels. */
const toleranceMm = 1e-3;

/**
 * Compares a label map with the expected one, voxel by voxel at the same place (RAS+ mm). Their axes may be stored in another
 * order and direction.
 *
 * @throws {TomaatError} BAD_INPUT if one is no label map or, with how they differ, if they do not lie on the same voxels
 */
export function compareLabelMaps(
  found: Volume,
  expected: Volume,
  files: ComparedNames,
  names: readonly LabelName[] = [],
): LabelComparison {
  const placed = onSameVoxels(found, expected, files);
  const { voxels, differ, agree, labels } = compareLabels(placed, expected);
  const distances = surfaceDistances(placed, expected);
  const voxelMl = Math.abs(determinant(expected.affine)) / 1000;
  const nameOf = new Map(names.map(({ value, name }) => [value, name]));
  return {
    voxels,
    differ,
    agree,
    labels: labels.map((label) => {
      const surface = distances.get(label.value);
      return {
        value: label.value,
        name: nameOf.get(label.value) ?? `label ${label.value}`,
        dice: label.dice,
        foundMl: label.found * voxelMl,
        expectedMl: label.expected * voxelMl,
        ...(surface && { surface }),
      };
    }),
  };
}

/** The labels of a difference map. */
export const differenceLabels: readonly LabelName[] = [
  { value: 1, name: 'only in the result' },
  { value: 2, name: 'only in the reference' },
  { value: 3, name: 'another label' },
];

/**
 * Where two label maps differ, on the grid of the expected one, uint8: 0 equal, else a value of `differenceLabels`.
 *
 * @param label compares this label alone
 * @throws {TomaatError} as compareLabelMaps()
 */
export function differenceMap(found: Volume, expected: Volume, files: ComparedNames, label?: number): Volume {
  const [left, right] = [onSameVoxels(found, expected, files), expected].map(labelVoxels);
  const voxels = new Uint8Array(right.length);
  for (let i = 0; i < voxels.length; i++) {
    const [a, b] = [left[i], right[i]];
    if (a === b) continue;
    if (label === undefined) voxels[i] = b === 0 ? 1 : a === 0 ? 2 : 3;
    else if (a === label) voxels[i] = 1;
    else if (b === label) voxels[i] = 2;
  }
  return { voxels, size: expected.size, components: 1, affine: expected.affine };
}

/** The found label map with its voxels in the order of the expected one. */
function onSameVoxels(found: Volume, expected: Volume, files: ComparedNames): Volume {
  for (const [volume, file] of [
    [found, files.found ?? 'The result'] as const,
    [expected, files.expected] as const,
  ]) {
    try {
      labelVoxels(volume);
    } catch (cause) {
      if (!(cause instanceof TomaatError)) throw cause;
      throw new TomaatError('BAD_INPUT', `${file} is not a label map: ${cause.message}`, {
        field: 'expected',
        cause,
      });
    }
  }
  const turned = reorient(found, orientationOf(expected.affine));
  if (!sameGrid(turned, expected, toleranceMm)) throw otherGrid(turned, expected, files);
  return { ...turned, affine: expected.affine };
}

function otherGrid(found: Volume, expected: Volume, files: ComparedNames): TomaatError {
  const show = (values: readonly number[], digits: number) =>
    values.map((value) => String(Number(value.toFixed(digits)))).join(' × ');
  const sizes = [found, expected].map(({ size }) => size.join(' × '));
  const spacings = [found, expected].map(({ affine }) => show(spacingOf(affine), 3));
  const [a, b] = [originOf(found.affine), originOf(expected.affine)];
  const apart = Math.hypot(...a.map((v, i) => v - b[i]));
  const ways = [
    sizes[0] === sizes[1]
      ? ''
      : `${files.found ?? 'the result'} has ${sizes[0]} voxels, and ${files.expected} has ${sizes[1]}`,
    spacings[0] === spacings[1]
      ? ''
      : `its voxels are ${spacings[0]} mm, and those of ${files.expected} ${spacings[1]} mm`,
    apart > toleranceMm ? `their first voxels are ${Number(apart.toFixed(3))} mm apart` : '',
  ].filter(Boolean);
  const how = ways.length > 0 ? ways.join('; ') : 'their axes point in different directions';
  return new TomaatError(
    'BAD_INPUT',
    `${files.found ?? 'The result'} and ${files.expected} do not lie on the same voxels: ${how}. Give a label map that was made for this volume, or resample it onto its grid.`,
    { field: 'expected' },
  );
}
