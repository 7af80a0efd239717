import {
  formatMl,
  type LabelMeasurement,
  measurementsToCsv,
  measurementsToTsv,
  type Vec3,
} from '@tomaat/core';
import { useMemo, useState } from 'react';
import { formatMm } from '../format.ts';
import { save } from '../save.ts';
import { ColumnHeader, RowHeader, Table, TableBody, TableCell, TableHead, TableRow } from '../table.tsx';
import { CopyButton } from '../ui.tsx';
import { compareRows, type MeasurementColumn, measurementColumns } from './measurement-columns.ts';
import type { Measurements } from './use-measurements.ts';

interface Order {
  readonly column: MeasurementColumn;
  readonly isDescending: boolean;
}

/** Everything that is measured, sorted as wanted, to be copied or saved with all digits. */
export function MeasurementTable({
  measured: { rows, fault },
  unit,
  fileStem,
  onGo,
}: {
  measured: Measurements;
  /** Of the scan's values, if its files state it. */
  unit?: string;
  fileStem: string;
  onGo(position: Vec3): void;
}) {
  const [order, setOrder] = useState<Order>();
  const sorted = useMemo(
    () => (order ? [...rows].sort(compareRows(order.column, order.isDescending)) : rows),
    [rows, order],
  );
  const hasMean = rows.some(({ meanIntensity }) => meanIntensity !== undefined);
  const columns = measurementColumns.filter(({ name }) => name !== 'mean' || hasMean);
  const titleOf = ({ name, title }: MeasurementColumn) =>
    name === 'mean' && unit ? `${title}, ${unit}` : title;
  const sortBy = (column: MeasurementColumn) =>
    setOrder((old) => ({
      column,
      isDescending: old?.column === column ? !old.isDescending : column.name !== 'label',
    }));
  return (
    <section className="panel measurements" aria-labelledby="measurements-title">
      <div className="labels-head">
        <h2 id="measurements-title">Measurements</h2>
        <div className="actions">
          <CopyButton text={measurementsToTsv(sorted)} label="Copy the table" />
          <button
            type="button"
            className="quiet small"
            onClick={() =>
              save(
                new Blob([measurementsToCsv(sorted)], { type: 'text/csv;charset=utf-8' }),
                `${fileStem}_measurements.csv`,
              )
            }
          >
            Save as CSV
          </button>
        </div>
      </div>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reached by the keyboard */}
      <section className="table-frame stacks" aria-label="Table of measurements" tabIndex={0}>
        <Table>
          <TableHead>
            <TableRow>
              {columns.map((column) => (
                <ColumnHeader
                  key={column.name}
                  className={column.name === 'label' ? undefined : 'number'}
                  aria-sort={
                    order?.column !== column ? undefined : order.isDescending ? 'descending' : 'ascending'
                  }
                >
                  <button type="button" className="sort" onClick={() => sortBy(column)}>
                    {titleOf(column)}
                  </button>
                </ColumnHeader>
              ))}
            </TableRow>
          </TableHead>
          <TableBody>
            {sorted.map((row) => (
              <TableRow key={row.value} className={row.voxels === 0 ? 'absent' : ''}>
                {columns.map((column) => (
                  <Cell key={column.name} row={row} column={column} title={titleOf(column)} onGo={onGo} />
                ))}
              </TableRow>
            ))}
          </TableBody>
        </Table>
      </section>
      <p className="fine">
        The table shows rounded numbers; copy and file have every digit. The box is the smallest one along the
        body's axes that holds the label.{fault && ` There is no mean of the scan: ${fault}`}
      </p>
    </section>
  );
}

function Cell({
  row,
  column,
  title,
  onGo,
}: {
  row: LabelMeasurement;
  column: MeasurementColumn;
  title: string;
  onGo(position: Vec3): void;
}) {
  const { centroidMm } = row;
  if (column.name === 'label') {
    return (
      <RowHeader>
        {centroidMm ? (
          <button type="button" className="as-link" title="Go to its centre" onClick={() => onGo(centroidMm)}>
            {row.name}
          </button>
        ) : (
          row.name
        )}
      </RowHeader>
    );
  }
  const value = column.read(row);
  return (
    <TableCell className="number" data-title={title}>
      {typeof value === 'number' ? formatCell(value, column) : '–'}
    </TableCell>
  );
}

function formatCell(value: number, { name, isWhole }: MeasurementColumn): string {
  if (name === 'ml') return formatMl(value);
  return isWhole ? String(value) : formatMm(value);
}
