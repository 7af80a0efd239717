import type { LabelMeasurement } from '@tomaat/core';

export interface MeasurementColumn {
  readonly name: string;
  readonly title: string;
  /** A name, a number, or undefined where nothing was measured. */
  read(row: LabelMeasurement): string | number | undefined;
  readonly isWhole?: boolean;
}

const side = (axis: 0 | 1 | 2, title: string): MeasurementColumn => ({
  name: `box${axis}`,
  title,
  read: ({ boxMm }) => boxMm && boxMm.max[axis] - boxMm.min[axis],
});

/** The columns of the table of measurements, in order. */
export const measurementColumns: readonly MeasurementColumn[] = [
  { name: 'label', title: 'Label', read: ({ name }) => name },
  { name: 'value', title: 'Value', read: ({ value }) => value, isWhole: true },
  { name: 'ml', title: 'Volume, ml', read: ({ volumeMl }) => volumeMl },
  { name: 'voxels', title: 'Voxels', read: ({ voxels }) => voxels, isWhole: true },
  side(0, 'Box left to right, mm'),
  side(1, 'Box back to front, mm'),
  side(2, 'Box down to up, mm'),
  { name: 'mean', title: 'Mean of the scan', read: ({ meanIntensity }) => meanIntensity },
];

/** Orders by a column; rows without a number are last either way, and equal ones keep their order. */
export const compareRows =
  ({ read }: MeasurementColumn, isDescending: boolean) =>
  (a: LabelMeasurement, b: LabelMeasurement): number => {
    const [x, y] = [read(a), read(b)];
    if (x === undefined || y === undefined) return Number(x === undefined) - Number(y === undefined);
    const order =
      typeof x === 'string' || typeof y === 'string'
        ? String(x).localeCompare(String(y), undefined, { numeric: true })
        : x - y;
    return isDescending ? -order : order;
  };
