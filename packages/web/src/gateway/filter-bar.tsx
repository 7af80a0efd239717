import { type GatewaySummary, gatewaySeriesStates } from '@tomaat/client';
import { useState } from 'react';
import type { Filter } from './data.ts';
import { stateNames } from './texts.ts';

/** The states and rules to see, with how many there are. The address of the page has the choice, so that it can be sent on. */
export function FilterBar({
  filter,
  summary,
  onChange,
}: {
  filter: Filter;
  summary: GatewaySummary;
  onChange(filter: Filter): void;
}) {
  const count = (state?: Filter['state']) =>
    summary.counts
      .filter((row) => (filter.rule ?? row.rule) === row.rule && (state ?? row.state) === row.state)
      .reduce((sum, row) => sum + row.count, 0);
  // Rows of a rule that has left the file are kept for a while.
  const rules = [
    ...new Set([...summary.rules.map(({ id }) => id), ...summary.counts.map(({ rule }) => rule)]),
  ];
  return (
    <div className="gateway-filters">
      <fieldset className="segments">
        <legend className="visually-hidden">State</legend>
        {[undefined, ...gatewaySeriesStates].map((state) => (
          <label key={state ?? 'all'} data-selected={filter.state === state || undefined}>
            <input
              type="radio"
              name="state"
              className="visually-hidden"
              checked={filter.state === state}
              onChange={() => onChange({ ...filter, state })}
            />
            {state ? stateNames[state].name : 'All'} <span className="tally">{count(state)}</span>
          </label>
        ))}
      </fieldset>
      <label className="inline-field">
        Rule
        <select
          value={filter.rule ?? ''}
          onChange={({ target }) => onChange({ ...filter, rule: target.value || undefined })}
        >
          <option value="">All</option>
          {rules.map((rule) => (
            <option key={rule} value={rule}>
              {rule}
            </option>
          ))}
        </select>
      </label>
    </div>
  );
}

/** The filter in the address of the page. */
export function useFilter(): [Filter, (filter: Filter) => void] {
  const [filter, setFilter] = useState(() => readFilter(new URLSearchParams(location.search)));
  return [
    filter,
    (chosen) => {
      setFilter(chosen);
      const url = new URL(location.href);
      for (const name of ['state', 'rule'] as const) {
        const value = chosen[name];
        if (value === undefined) url.searchParams.delete(name);
        else url.searchParams.set(name, value);
      }
      history.replaceState(history.state, '', url);
    },
  ];
}

function readFilter(query: URLSearchParams): Filter {
  const state = gatewaySeriesStates.find((known) => known === query.get('state'));
  return { state, rule: query.get('rule')?.slice(0, 100) || undefined };
}
