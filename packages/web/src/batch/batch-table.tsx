import { type Outlier, orderByOutlier, outlierThreshold } from '@tomaat/core';
import { memo, useEffect, useMemo, useRef, useState } from 'react';
import { Link } from 'wouter';
import type { Picture } from '../dicom/messages.ts';
import { ColumnHeader, RowHeader, Table, TableBody, TableCell, TableHead, TableRow } from '../table.tsx';
import { Tag } from '../ui.tsx';
import type { BatchQueue, BatchState } from './queue.ts';
import { type BatchRow, describeOutlier, isOver, outliersOf, type RowState } from './rows.ts';
import { labelColumns, shownVolume } from './save.ts';

const stateNames: Record<RowState, string> = {
  checking: 'Checking',
  unfit: 'Does not fit',
  waiting: 'Waiting',
  sending: 'Sending',
  computing: 'Computing',
  measuring: 'Measuring',
  done: 'Done',
  failed: 'Failed',
};

/** One row a scan: in the order of the list, or with the failed and the unusual first. */
export function BatchTable({ queue, state: { rows, pictures } }: { queue: BatchQueue; state: BatchState }) {
  const [byOutlier, setByOutlier] = useState(false);
  const { labels } = queue.service;
  // Progress of a scan changes its row alone: what ended is compared again when there is more of it.
  const over = useSame(rows.filter(isOver));
  const columns = useMemo(() => labelColumns(over, labels), [over, labels]);
  const outliers = useMemo(() => outliersOf(over), [over]);
  const shown = useMemo(() => (byOutlier ? sortRows(rows, outliers) : rows), [rows, outliers, byOutlier]);
  return (
    <section className="panel batch-results" aria-label="Results">
      <label className="inline-field">
        Order
        <select
          value={byOutlier ? 'outlier' : 'list'}
          onChange={(event) => setByOutlier(event.target.value === 'outlier')}
        >
          <option value="list">As in the list</option>
          <option value="outlier">Failed and unusual first</option>
        </select>
      </label>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls is reached by keyboard */}
      <section className="batch-scroll" tabIndex={0} aria-label="Table of scans">
        <Table className="batch-table">
          <TableHead>
            <TableRow>
              <ColumnHeader>Result</ColumnHeader>
              <ColumnHeader>Scan</ColumnHeader>
              <ColumnHeader>State</ColumnHeader>
              {columns.map(({ value, name }) => (
                <ColumnHeader className="number" key={value}>
                  {name} (ml)
                </ColumnHeader>
              ))}
            </TableRow>
          </TableHead>
          <TableBody>
            {shown.map((row) => (
              <RowView
                key={row.id}
                queue={queue}
                row={row}
                outlier={textOf(outliers.get(row.id))}
                odd={oddOf(outliers.get(row.id))}
                picture={pictures.get(row.id)}
                columns={columns}
              />
            ))}
          </TableBody>
        </Table>
      </section>
      <p className="fine">
        Unusual: a volume whose modified z-score (from the median and the median absolute deviation of the
        logarithms) is {outlierThreshold} or more, or a label that most other scans have and this one lacks.
        It says where to look first, not what is wrong. At least five results are compared.
      </p>
    </section>
  );
}

/** The list of an earlier render, while its items are the same ones. */
function useSame<T>(list: readonly T[]): readonly T[] {
  const kept = useRef(list);
  if (list.length !== kept.current.length || list.some((item, i) => item !== kept.current[i]))
    kept.current = list;
  return kept.current;
}

const textOf = (outlier: Outlier | undefined): string => (outlier ? describeOutlier(outlier) : '');
/** The values of unusual labels, as a text that stays equal while they do. */
const oddOf = (outlier: Outlier | undefined): string =>
  outlier?.reasons.map(({ value }) => value).join(' ') ?? '';

/** Rows that are not over come last. */
export function sortRows(
  rows: readonly BatchRow[],
  outliers: ReadonlyMap<string, Outlier>,
): readonly BatchRow[] {
  const over = rows.filter(({ id }) => outliers.has(id));
  const order = orderByOutlier(over.map(({ id }) => outliers.get(id)!));
  return [...order.map((i) => over[i]), ...rows.filter(({ id }) => !outliers.has(id))];
}

interface RowViewProps {
  queue: BatchQueue;
  row: BatchRow;
  outlier: string;
  odd: string;
  picture: Picture | undefined;
  columns: readonly { value: number; name: string }[];
}

/** Drawn again only when its own scan changes. */
const RowView = memo(function RowView({ queue, row, outlier, odd, picture, columns }: RowViewProps) {
  const { id, name, state, fraction, reason, jobId } = row;
  const tone = state === 'done' ? 'good' : state === 'failed' || state === 'unfit' ? 'bad' : 'plain';
  const strange = new Set(odd.split(' '));
  const moves = (state === 'sending' || state === 'computing') && fraction !== undefined;
  return (
    <TableRow data-state={state} data-outlier={outlier !== ''}>
      <TableCell>
        <Thumbnail picture={picture} wanted={state === 'done'} onWanted={() => void queue.draw(id)} />
      </TableCell>
      <RowHeader>
        {jobId ? <Link href={`/jobs/${encodeURIComponent(jobId)}`}>{name}</Link> : name}
        {outlier !== '' && <span className="outlier">{outlier}</span>}
        {reason !== undefined && state !== 'done' && <span className="fine">{reason}</span>}
      </RowHeader>
      <TableCell>
        <Tag tone={tone}>
          {stateNames[state]}
          {moves && ` ${Math.round(100 * fraction)} %`}
        </Tag>
      </TableCell>
      {columns.map(({ value, name: label }) => (
        <TableCell
          key={value}
          className={strange.has(String(value)) ? 'number odd' : 'number'}
          data-title={`${label} (ml)`}
        >
          {state === 'done' ? shownVolume(row, value) : ''}
        </TableCell>
      ))}
    </TableRow>
  );
});

/** The result's picture; after a reload, it is drawn again when it comes into view. */
function Thumbnail({
  picture,
  wanted,
  onWanted,
}: {
  picture: Picture | undefined;
  wanted: boolean;
  onWanted(): void;
}) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    if (!canvas.current || !picture) return;
    canvas.current.width = picture.width;
    canvas.current.height = picture.height;
    canvas.current
      .getContext('2d')
      ?.putImageData(new ImageData(picture.rgba, picture.width, picture.height), 0, 0);
  }, [picture]);
  // biome-ignore lint/correctness/useExhaustiveDependencies: what it calls back is new with every render
  useEffect(() => {
    if (picture || !wanted || !canvas.current) return;
    const watcher = new IntersectionObserver(([entry]) => {
      if (!entry.isIntersecting) return;
      watcher.disconnect();
      onWanted();
    });
    watcher.observe(canvas.current);
    return () => watcher.disconnect();
  }, [picture, wanted]);
  return (
    <span aria-hidden="true">
      <canvas
        ref={canvas}
        className="batch-picture"
        width={1}
        height={1}
        data-there={picture !== undefined}
      />
    </span>
  );
}
