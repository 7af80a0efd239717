import { formatMl, type LabelMeasurement, type Vec3 } from '@tomaat/core';
import { useState } from 'react';
import { Switch } from 'react-aria-components';
import { ColumnHeader, RowHeader, Table, TableBody, TableCell, TableHead, TableRow } from '../table.tsx';
import type { LabelStyle } from '../viewer/labels.ts';

/** With fewer labels, all are seen at a glance. */
const searchedLabels = 8;

/** The labels: which are shown, their volumes, and the way to each of them. */
export function LabelTable({
  measured,
  labels,
  onShow,
  onGo,
}: {
  measured: readonly LabelMeasurement[];
  labels: readonly LabelStyle[];
  /** The values that are shown from now on. */
  onShow(visible: ReadonlySet<number>): void;
  onGo(position: Vec3): void;
}) {
  const [search, setSearch] = useState('');
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  const found = measured.filter(({ name, value }) =>
    words.every((word) => name.toLowerCase().includes(word) || String(value) === word),
  );
  const visible = new Set(labels.filter((label) => label.visible).map(({ value }) => value));
  const present = measured.filter(({ voxels }) => voxels > 0).map(({ value }) => value);
  const toggle = (value: number, isShown: boolean) => {
    const next = new Set(visible);
    if (isShown) next.add(value);
    else next.delete(value);
    onShow(next);
  };
  const showOnly = ({ value, centroidMm }: LabelMeasurement) => {
    onShow(new Set([value]));
    if (centroidMm) onGo(centroidMm);
  };
  return (
    <section className="panel" aria-labelledby="labels-title">
      <div className="labels-head">
        <h2 id="labels-title">Labels</h2>
        {present.length > 1 && (
          <div className="actions">
            <button
              type="button"
              className="quiet small"
              onClick={() => onShow(new Set(labels.map(({ value }) => value)))}
            >
              Show all
            </button>
            <button type="button" className="quiet small" onClick={() => onShow(new Set())}>
              Hide all
            </button>
          </div>
        )}
      </div>
      {measured.length > searchedLabels && (
        <label className="stacked label-search">
          Search labels
          <input type="search" value={search} onChange={(event) => setSearch(event.target.value)} />
        </label>
      )}
      <div className="table-frame label-frame">
        <Table className="labels">
          <TableHead>
            <TableRow>
              <ColumnHeader>Shown</ColumnHeader>
              <ColumnHeader>Name</ColumnHeader>
              <ColumnHeader className="number">Volume, ml</ColumnHeader>
              <ColumnHeader>
                <span className="visually-hidden">Show only this label</span>
              </ColumnHeader>
            </TableRow>
          </TableHead>
          <TableBody>
            {found.map((row) => (
              <LabelRow
                key={row.value}
                row={row}
                style={labels.find(({ value }) => value === row.value)}
                onToggle={(isShown) => toggle(row.value, isShown)}
                onOnly={present.length > 1 ? () => showOnly(row) : undefined}
                onGo={onGo}
              />
            ))}
          </TableBody>
        </Table>
      </div>
      <p className="fine" role="status">
        {words.length > 0 && `${found.length} of ${measured.length} labels`}
      </p>
    </section>
  );
}

function LabelRow({
  row: { name, voxels, volumeMl, centroidMm },
  style,
  onToggle,
  onOnly,
  onGo,
}: {
  row: LabelMeasurement;
  style?: LabelStyle;
  onToggle(isShown: boolean): void;
  onOnly?(): void;
  onGo(position: Vec3): void;
}) {
  return (
    <TableRow className={voxels === 0 ? 'absent' : ''}>
      <TableCell>
        <Switch
          className="switch"
          aria-label={`Show ${name}`}
          isSelected={style?.visible ?? true}
          isDisabled={voxels === 0}
          onChange={onToggle}
        >
          <span className="swatch" style={{ backgroundColor: style?.color }} aria-hidden="true" />
          <span className="track" aria-hidden="true" />
        </Switch>
      </TableCell>
      <RowHeader>
        {centroidMm ? (
          <button
            type="button"
            className="as-link"
            aria-label={`Go to the centre of ${name}`}
            title="Go to its centre"
            onClick={() => onGo(centroidMm)}
          >
            {name}
          </button>
        ) : (
          name
        )}
      </RowHeader>
      <TableCell className="number">{voxels === 0 ? 'not found' : formatMl(volumeMl)}</TableCell>
      <TableCell>
        {voxels > 0 && onOnly && (
          <button type="button" className="quiet small" aria-label={`Show only ${name}`} onClick={onOnly}>
            Only
          </button>
        )}
      </TableCell>
    </TableRow>
  );
}
