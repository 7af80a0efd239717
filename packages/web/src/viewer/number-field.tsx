import { useState } from 'react';

/** A number that takes effect when it is complete: at Enter, when the field is left, or by its arrows. */
export function NumberField({
  label,
  shown = label,
  hint,
  value,
  minimum,
  maximum,
  step = 'any',
  after,
  onChange,
}: {
  /** The accessible name. */
  label: string;
  shown?: string;
  hint?: string;
  /** As it is displayed. */
  value: string;
  minimum?: number;
  maximum?: number;
  step?: number | 'any';
  after?: string;
  onChange(value: number): void;
}) {
  const [draft, setDraft] = useState<string>();
  const commit = () => {
    if (draft === undefined) return;
    setDraft(undefined);
    const number = Number(draft);
    if (draft.trim() === '' || !Number.isFinite(number)) return;
    onChange(Math.min(maximum ?? number, Math.max(minimum ?? number, number)));
  };
  return (
    <label className="number-field">
      <span title={hint}>{shown}</span>
      <input
        type="number"
        step={step}
        min={minimum}
        max={maximum}
        aria-label={label}
        value={draft ?? value}
        onChange={(event) => setDraft(event.target.value)}
        onBlur={commit}
        onKeyDown={(event) => {
          if (event.key !== 'Enter') return;
          // A preview lies in the form of its request, which Enter would send.
          event.preventDefault();
          commit();
        }}
      />
      {after && <span>{after}</span>}
    </label>
  );
}
