import type { GatewaySeries } from '@tomaat/client';
import { formatTime, sentence } from '../format.ts';
import { Tag } from '../ui.tsx';
import type { Action } from './data.ts';
import { counted, courseOf, formatNames, stateNames, titleOf } from './texts.ts';

/** The rows of the gateway, newest first: what each is, how far it came, and what can be done with it. */
export function SeriesList({
  rows,
  onAsk,
}: {
  rows: readonly GatewaySeries[];
  onAsk(action: Action, row: GatewaySeries): void;
}) {
  return (
    <ul className="series-list" aria-label="Series">
      {rows.map((row) => (
        <SeriesItem key={row.id} row={row} onAsk={(action) => onAsk(action, row)} />
      ))}
    </ul>
  );
}

/** Of the element of a row, to which the focus goes when its button has gone. */
export const rowId = ({ id }: GatewaySeries): string => `row-${id}`;

const canRetry = ({ state }: GatewaySeries) => state === 'failed' || state === 'dropped';
const canDrop = ({ state }: GatewaySeries) => state !== 'done' && state !== 'dropped';

function SeriesItem({ row, onAsk }: { row: GatewaySeries; onAsk(action: Action): void }) {
  const { name, tone } = stateNames[row.state];
  const title = titleOf(row);
  return (
    <li className="series-item" id={rowId(row)} tabIndex={-1}>
      <div className="series-what">
        <p className="series-title">
          {row.modality && <Tag>{row.modality}</Tag>} <strong>{title}</strong>
        </p>
        <p className="fine">
          {counted(row.instances, 'image')} from {row.source} · rule {row.rule} · {formatTime(row.seenTime)}
        </p>
      </div>
      <p className="series-state">
        <Tag tone={tone}>{name}</Tag> <span className="fine">{courseOf(row)}</span>
      </p>
      <div className="series-actions">
        {canRetry(row) && (
          <button
            type="button"
            className="quiet small"
            aria-label={`Begin again: ${title}, rule ${row.rule}`}
            onClick={() => onAsk('retry')}
          >
            Begin again
          </button>
        )}
        {canDrop(row) && (
          <button
            type="button"
            className="quiet small"
            aria-label={`Drop: ${title}, rule ${row.rule}`}
            onClick={() => onAsk('drop')}
          >
            Drop
          </button>
        )}
      </div>
      {row.reason && row.state !== 'done' && (
        <p className={row.state === 'failed' ? 'series-reason bad' : 'series-reason'}>
          {sentence(row.reason.message)} <code>{row.reason.code}</code>
        </p>
      )}
      <details className="series-details">
        <summary>
          Details<span className="visually-hidden"> of {title}</span>
        </summary>
        <Details row={row} />
      </details>
    </li>
  );
}

function Details({ row }: { row: GatewaySeries }) {
  return (
    <dl className="details">
      <dt>Study</dt>
      <dd>
        <code>{row.study}</code>
      </dd>
      <dt>Series</dt>
      <dd>
        <code>{row.series}</code>
      </dd>
      {row.results.map(({ format, sopInstance, storedAt }) => (
        <Fact
          key={sopInstance}
          term={formatNames[format] ?? format}
          text={`${sopInstance}${storedAt.length > 0 ? ` in ${storedAt.join(', ')}` : ', not stored yet'}`}
        />
      ))}
      {row.job && <Fact term="Job on the service" text={row.job} />}
      {row.predecessor && <Fact term="Follows row" text={row.predecessor} />}
      <dt>Row</dt>
      <dd>
        <code>{row.id}</code>
      </dd>
      <dt>Changed</dt>
      <dd>{formatTime(row.changedTime)}</dd>
    </dl>
  );
}

function Fact({ term, text }: { term: string; text: string }) {
  return (
    <>
      <dt>{term}</dt>
      <dd>
        <code>{text}</code>
      </dd>
    </>
  );
}
