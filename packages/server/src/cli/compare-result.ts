import { type ComparedLabel, formatAgreement, formatMl, type LabelComparison } from '@tomaat/core';
import Table from 'cli-table3';
import { openTable } from './console.ts';

/** A label map compared with that in a file. */
export interface Comparison extends LabelComparison {
  /** The file of the expected label map. */
  readonly expected: string;
}

/** The comparison as lines: what agrees, and a table of the labels. */
export function comparisonLines({ expected, voxels, differ, agree, labels }: Comparison): string[] {
  const lines = [
    differ === 0
      ? `  equal to ${expected}: all ${voxels} voxels`
      : `  compared with ${expected}: ${differ} of ${voxels} voxels differ (${formatAgreement(agree)} agree)`,
  ];
  if (labels.length === 0) return lines;
  const head = ['label', 'Dice', 'mean', '95 %', 'largest', 'found', 'expected'];
  const table = openTable(Table, head, labels.map(rowOf));
  const note = labels.some(({ surface }) => surface && surface.hausdorff > 0)
    ? ['  mean, 95 %, largest: distances of the surfaces (average symmetric, Hausdorff 95 %, Hausdorff)']
    : [];
  return [...lines, ...table.split('\n').map((line) => `  ${line}`), ...note];
}

const rowOf = ({ name, dice, surface, foundMl, expectedMl }: ComparedLabel): string[] => [
  name,
  dice === 1 ? '1' : (Math.floor(dice * 1e4) / 1e4).toFixed(4),
  ...[surface?.mean, surface?.hausdorff95, surface?.hausdorff].map((mm) =>
    mm === undefined ? '-' : `${mm.toFixed(mm < 10 ? 2 : 1)} mm`,
  ),
  `${formatMl(foundMl)} ml`,
  `${formatMl(expectedMl)} ml`,
];

/** The labels whose Dice is below the least one. */
export const labelsBelow = ({ labels }: LabelComparison, least: number) =>
  labels.filter(({ dice }) => dice < least);
