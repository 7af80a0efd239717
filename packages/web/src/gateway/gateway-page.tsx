import type { GatewaySummary } from '@tomaat/client';
import { useRef, useState } from 'react';
import { formatTime } from '../format.ts';
import { Empty, faultOf, Loading, Problem, useTitle } from '../ui.tsx';
import { type Asked, ConfirmDialog } from './confirm-dialog.tsx';
import { Connections } from './connections.tsx';
import { type Filter, useSeries, useSummary } from './data.ts';
import { FilterBar, useFilter } from './filter-bar.tsx';
import { rowId, SeriesList } from './series-list.tsx';
import { stateNames } from './texts.ts';

/** What came, what waits, what failed and why. */
export function GatewayPage() {
  useTitle('Gateway');
  const [filter, setFilter] = useFilter();
  const summary = useSummary();
  const [asked, setAsked] = useState<Asked>();
  const [said, setSaid] = useState('');
  const status = useRef<HTMLParagraphElement>(null);
  return (
    <>
      <section className="hero">
        <h1>Series</h1>
        <p>
          What came from the sources, what waits, what failed and why. The gateway stores no names of
          patients. This page is up to date within seconds.
        </p>
      </section>
      {summary.error && <Problem fault={faultOf(summary.error)} />}
      {summary.isPending && <Loading what="Asking the gateway …" />}
      {summary.data && (
        <>
          {summary.data.databaseFault && (
            <Problem
              fault={{
                title: 'The gateway cannot write its database',
                message: `${summary.data.databaseFault.message}. Series wait until it can; nothing is lost.`,
                code: summary.data.databaseFault.code,
              }}
            />
          )}
          <Connections sources={summary.data.sources} destinations={summary.data.destinations} />
          <FilterBar filter={filter} summary={summary.data} onChange={setFilter} />
          <p className="said" ref={status} tabIndex={-1}>
            <span role="status">{said}</span>
            {summary.data.oldestWaitingTime && (
              <span className="fine"> Oldest unfinished: {formatTime(summary.data.oldestWaitingTime)}</span>
            )}
          </p>
          <Rows
            filter={filter}
            summary={summary.data}
            onClear={() => setFilter({})}
            onAsk={(action, row) => {
              setSaid('');
              setAsked({ action, row });
            }}
          />
        </>
      )}
      {asked && (
        <ConfirmDialog
          asked={asked}
          onClose={(done) => {
            setAsked(undefined);
            if (done === undefined) return;
            setSaid(done);
            // Its button has gone, and maybe the row as well.
            (document.getElementById(rowId(asked.row)) ?? status.current)?.focus();
          }}
        />
      )}
    </>
  );
}

function Rows({
  filter,
  summary,
  onAsk,
  onClear,
}: {
  filter: Filter;
  summary: GatewaySummary;
  onAsk: Parameters<typeof SeriesList>[0]['onAsk'];
  onClear(): void;
}) {
  const series = useSeries(filter);
  const rows = series.data?.pages.flatMap((page) => page.series) ?? [];
  return (
    <>
      {series.error && <Problem fault={faultOf(series.error)} />}
      {series.isPending && <Loading what="Asking for the series …" />}
      {series.data && rows.length === 0 && <Nothing filter={filter} summary={summary} onClear={onClear} />}
      {rows.length > 0 && <SeriesList rows={rows} onAsk={onAsk} />}
      {series.hasNextPage && (
        <p>
          <button
            type="button"
            className="quiet"
            disabled={series.isFetchingNextPage}
            onClick={() => void series.fetchNextPage()}
          >
            {series.isFetchingNextPage ? 'Loading …' : 'Show older series'}
          </button>
        </p>
      )}
    </>
  );
}

/** Why there is nothing to see, and what to do. */
function Nothing({
  filter: { state, rule },
  summary,
  onClear,
}: {
  filter: Filter;
  summary: GatewaySummary;
  onClear(): void;
}) {
  if (state !== undefined || rule !== undefined) {
    const which = [state && `in the state ${stateNames[state].name}`, rule && `of the rule ${rule}`];
    return (
      <Empty title="No such series">
        <p>There is none {which.filter(Boolean).join(' ')}.</p>
        <button type="button" className="quiet" onClick={onClear}>
          Show all series
        </button>
      </Empty>
    );
  }
  const names = (peers: readonly { name: string }[]) => peers.map(({ name }) => name).join(', ');
  return (
    <Empty title="No series yet">
      <p>
        The gateway looks for new series in {names(summary.sources)}. One that matches a rule (
        {summary.rules.map(({ id }) => id).join(', ')}) appears here.
      </p>
      <ol className="next-steps">
        <li>
          See whether sources, services and destinations answer:{' '}
          <code>tomaat gateway check --config FILE --connect</code>
        </li>
        <li>Send a CT or MR series to a source. It is taken once no more images come for a while.</li>
        <li>
          If it does not appear, no rule matches it: compare the rules with its modality and description.
        </li>
      </ol>
    </Empty>
  );
}
