import { type ComparedLabel, formatMl, type LabelComparison } from '@tomaat/core';
import { ColumnHeader, RowHeader, Table, TableBody, TableCell, TableHead, TableRow } from '../table.tsx';
import { CopyButton } from '../ui.tsx';

/** Dice, distances and volumes of each label; the same numbers as `tomaat compare`. */
export function ComparisonTable({
  comparison,
  found,
  expected,
}: {
  comparison: LabelComparison;
  found: string;
  expected: string;
}) {
  return (
    <section className="panel" aria-labelledby="comparison-title">
      <h2 id="comparison-title">Labels</h2>
      <div className="table-frame stacks">
        <Table className="comparison">
          <TableHead>
            <TableRow>
              {columns.map(({ name, title, isText }) => (
                <ColumnHeader key={name} className={isText ? undefined : 'number'} title={title}>
                  {name}
                </ColumnHeader>
              ))}
            </TableRow>
          </TableHead>
          <TableBody>
            {comparison.labels.map((label) => (
              <TableRow key={label.value}>
                <RowHeader>{label.name}</RowHeader>
                {columns.slice(1).map(({ name, show }) => (
                  <TableCell key={name} className="number" data-title={name}>
                    {show(label)}
                  </TableCell>
                ))}
              </TableRow>
            ))}
          </TableBody>
        </Table>
      </div>
      <p className="fine">
        Distances are between surface voxels of {found} and {expected}, both ways. A dash: only one of them
        has the label.
      </p>
      <CopyButton text={tableText(comparison)} label="Copy the table" />
    </section>
  );
}

interface Column {
  readonly name: string;
  readonly title?: string;
  readonly isText?: boolean;
  /** In the table. */
  show(label: ComparedLabel): string;
  /** Copied: every digit. */
  exact(label: ComparedLabel): string | number | undefined;
}

const formatDice = (dice: number) => (dice === 1 ? '1' : (Math.floor(dice * 1e4) / 1e4).toFixed(4));
const distance = (name: string, title: string, of: (label: ComparedLabel) => number | undefined): Column => ({
  name,
  title,
  show(label) {
    const mm = of(label);
    return mm === undefined ? '–' : mm.toFixed(mm < 10 ? 2 : 1);
  },
  exact: of,
});

const columns: readonly Column[] = [
  { name: 'Label', isText: true, show: ({ name }) => name, exact: ({ name }) => name },
  {
    name: 'Dice',
    title: 'Overlap: 2 |A ∩ B| / (|A| + |B|)',
    show: ({ dice }) => formatDice(dice),
    exact: ({ dice }) => dice,
  },
  distance('Mean, mm', 'Average symmetric surface distance', ({ surface }) => surface?.mean),
  distance('95 %, mm', 'Hausdorff distance, 95th percentile', ({ surface }) => surface?.hausdorff95),
  distance('Largest, mm', 'Hausdorff distance', ({ surface }) => surface?.hausdorff),
  {
    name: 'Result, ml',
    show: ({ foundMl }) => formatMl(foundMl),
    exact: ({ foundMl }) => foundMl,
  },
  {
    name: 'Reference, ml',
    show: ({ expectedMl }) => formatMl(expectedMl),
    exact: ({ expectedMl }) => expectedMl,
  },
];

/** For a spreadsheet: columns by tabs. */
const tableText = ({ labels }: LabelComparison): string =>
  [columns.map(({ name }) => name), ...labels.map((label) => columns.map(({ exact }) => exact(label) ?? ''))]
    .map((cells) => cells.map((cell) => String(cell).replaceAll(/[\t\r\n]/g, ' ')).join('\t'))
    .join('\n');
