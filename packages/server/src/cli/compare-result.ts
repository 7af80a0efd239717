import {
  compareLabels,
  determinant,
  formatAgreement,
  formatMl,
  type LabelName,
  labelVoxels,
  orientationOf,
  originOf,
  reorient,
  sameGrid,
  spacingOf,
  TomaatError,
  type Volume,
} from '@tomaat/core';
import Table from 'cli-table3';
import { openTable } from './console.ts';

/** A result compared with the label map that was expected. */
export interface Comparison {
  /** The file of the expected label map. */
  expected: string;
  voxels: number;
  /** Voxels whose labels differ. */
  differ: number;
  /** Fraction of voxels with equal labels. */
  agree: number;
  labels: { value: number; name: string; dice: number; foundMl: number; expectedMl: number }[];
}

/** mm within which the grids of a result and of what was expected are the same. */
const toleranceMm = 1e-3;

/**
 * Compares a label map with the expected one, voxel by voxel at the same place. Their axes may be stored in another order.
 * @throws {TomaatError} BAD_INPUT, which says how they differ, if they do not lie on the same voxels, or `expected` is no label map
 */
export function compareWith(
  found: Volume,
  expected: Volume,
  file: string,
  names: readonly LabelName[],
): Comparison {
  try {
    labelVoxels(expected);
  } catch (cause) {
    if (!(cause instanceof TomaatError)) throw cause;
    throw new TomaatError('BAD_INPUT', `${file} is not a label map: ${cause.message}`, {
      field: 'expected',
      cause,
    });
  }
  const turned = reorient(found, orientationOf(expected.affine));
  if (!sameGrid(turned, expected, toleranceMm)) throw otherGrid(turned, expected, file);
  const agreement = compareLabels(turned, expected);
  const voxelMl = Math.abs(determinant(expected.affine)) / 1000;
  const nameOf = new Map(names.map(({ value, name }) => [value, name]));
  return {
    expected: file,
    voxels: agreement.voxels,
    differ: agreement.differ,
    agree: agreement.agree,
    labels: agreement.labels.map((label) => ({
      value: label.value,
      name: nameOf.get(label.value) ?? `label ${label.value}`,
      dice: label.dice,
      foundMl: label.found * voxelMl,
      expectedMl: label.expected * voxelMl,
    })),
  };
}

function otherGrid(found: Volume, expected: Volume, file: string): TomaatError {
  const show = (values: readonly number[], digits: number) =>
    values.map((value) => String(Number(value.toFixed(digits)))).join(' × ');
  const sizes = [found, expected].map(({ size }) => size.join(' × '));
  const spacings = [found, expected].map(({ affine }) => show(spacingOf(affine), 3));
  const [a, b] = [originOf(found.affine), originOf(expected.affine)];
  const apart = Math.hypot(...a.map((v, i) => v - b[i]));
  const ways = [
    sizes[0] === sizes[1] ? '' : `the result has ${sizes[0]} voxels, and ${file} has ${sizes[1]}`,
    spacings[0] === spacings[1]
      ? ''
      : `its voxels are ${spacings[0]} mm, and those of ${file} ${spacings[1]} mm`,
    apart > toleranceMm ? `their first voxels are ${Number(apart.toFixed(3))} mm apart` : '',
  ].filter(Boolean);
  const how = ways.length > 0 ? ways.join('; ') : 'their axes point in different directions';
  return new TomaatError(
    'BAD_INPUT',
    `The result and ${file} do not lie on the same voxels: ${how}. Give a label map that was made for this volume, or resample it onto its grid.`,
    { field: 'expected' },
  );
}

/** The comparison as lines: what agrees, and a table of the labels. */
export function comparisonLines(comparison: Comparison): string[] {
  const { expected, voxels, differ, agree, labels } = comparison;
  const lines = [
    differ === 0
      ? `  equal to ${expected}: all ${voxels} voxels`
      : `  compared with ${expected}: ${differ} of ${voxels} voxels differ (${formatAgreement(agree)} agree)`,
  ];
  if (labels.length === 0) return lines;
  const rows = labels.map(({ name, dice, foundMl, expectedMl }) => [
    name,
    dice === 1 ? '1' : (Math.floor(dice * 1e4) / 1e4).toFixed(4),
    `${formatMl(foundMl)} ml`,
    `${formatMl(expectedMl)} ml`,
  ]);
  const table = openTable(Table, ['label', 'Dice', 'found', 'expected'], rows);
  return [...lines, ...table.split('\n').map((line) => `  ${line}`)];
}

/** The labels whose Dice is below the least one. */
export const labelsBelow = ({ labels }: Comparison, least: number) =>
  labels.filter(({ dice }) => dice < least);
