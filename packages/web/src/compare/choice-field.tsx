import type { UseQueryResult } from '@tanstack/react-query';
import { useId, useRef } from 'react';
import { volumePicker } from '../form/scan.ts';
import { formatTime } from '../format.ts';
import { type HistoryEntry, useHistory } from '../store.ts';
import { faultOf, Loading, Problem } from '../ui.tsx';
import type { Choice, Side } from './use-side.ts';

let chosenFiles = 0;

/** Chooses one side of a comparison: a result of this browser's jobs, or files of this computer. */
export function ChoiceField({
  label,
  choice,
  query,
  onChange,
}: {
  label: string;
  choice: Choice | undefined;
  query: UseQueryResult<Side>;
  onChange(choice: Choice | undefined): void;
}) {
  const id = useId();
  const picker = useRef<HTMLInputElement>(null);
  const jobs = useHistory().filter(({ state, jobId }) => state === 'succeeded' && jobId !== undefined);
  const isListed = choice?.kind === 'job' && jobs.some(({ jobId }) => jobId === choice.id);
  const chosen = choice === undefined ? '' : choice.kind === 'job' ? choice.id : 'file';
  const take = (files: readonly File[]) =>
    files.length > 0 && onChange({ kind: 'files', files, number: ++chosenFiles });
  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: files may also be dropped here; the button does the same
    <div
      className="panel compare-choice"
      onDragOver={(event) => event.preventDefault()}
      onDrop={(event) => {
        event.preventDefault();
        take([...event.dataTransfer.files]);
      }}
    >
      <label htmlFor={id}>{label}</label>
      <select
        id={id}
        value={chosen}
        onChange={({ target }) => onChange(target.value ? { kind: 'job', id: target.value } : undefined)}
      >
        <option value="">Choose a result …</option>
        {choice?.kind === 'files' && <option value="file">{choice.files[0].name}</option>}
        {choice?.kind === 'job' && !isListed && (
          <option value={choice.id}>{query.data?.title ?? 'The result of the link'}</option>
        )}
        {jobs.map((entry) => (
          <option key={entry.key} value={entry.jobId}>
            {nameOf(entry)}
          </option>
        ))}
      </select>
      <button type="button" className="quiet small" onClick={() => picker.current?.click()}>
        Open a file …
      </button>
      <input
        ref={picker}
        type="file"
        hidden
        multiple
        accept={volumePicker.join(',')}
        aria-label={`${label}: a label map`}
        onChange={({ target }) => {
          take([...(target.files ?? [])]);
          target.value = '';
        }}
      />
      {query.isLoading && <Loading what="Reading …" />}
      {query.data?.about && <p className="fine">{query.data.about}</p>}
      {query.error && <Problem fault={faultOf(query.error)} />}
    </div>
  );
}

const nameOf = ({ fileName, serviceName, createdTime }: HistoryEntry) =>
  `${fileName}: ${serviceName}, ${formatTime(createdTime)}`;
