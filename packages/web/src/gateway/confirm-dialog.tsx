import type { GatewaySeries } from '@tomaat/client';
import { useEffect, useId, useRef, useState } from 'react';
import { faultOf, Problem } from '../ui.tsx';
import { type Action, useAct } from './data.ts';
import { titleOf } from './texts.ts';

/** An action on a series, to be confirmed. */
export interface Asked {
  readonly action: Action;
  readonly row: GatewaySeries;
}

const words: Record<Action, { title: string; doIt: string; busy: string; about: string; done: string }> = {
  retry: {
    title: 'Begin again with this series?',
    doIt: 'Begin again',
    busy: 'Beginning …',
    about:
      'Its images are fetched and sent to the service again. Results that are stored already are replaced, not doubled.',
    done: 'begins again',
  },
  drop: {
    title: 'Drop this series?',
    doIt: 'Drop it',
    busy: 'Dropping …',
    about:
      'Work on it stops, and nothing more of it is stored. Results that are stored already stay. It can be begun again later.',
    done: 'was dropped',
  },
};

/** Asks before an action; a modal dialog of the browser, which keeps the focus and closes with Escape. */
export function ConfirmDialog({
  asked: { action, row },
  onClose,
}: {
  asked: Asked;
  /** @param said what was done; nothing if undefined */
  onClose(said?: string): void;
}) {
  const dialog = useRef<HTMLDialogElement>(null);
  const said = useRef<string>(undefined);
  const act = useAct();
  const [isBusy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>();
  const [titleId, aboutId] = [useId(), useId()];
  useEffect(() => dialog.current?.showModal(), []);
  const { title, doIt, busy, about, done } = words[action];
  const name = titleOf(row);

  async function confirm() {
    setBusy(true);
    setError(undefined);
    try {
      await act(action, row);
      said.current = `${name} (rule ${row.rule}) ${done}.`;
      dialog.current?.close();
    } catch (fault) {
      setError(fault);
      setBusy(false);
    }
  }

  return (
    <dialog
      ref={dialog}
      className="confirm"
      aria-labelledby={titleId}
      aria-describedby={aboutId}
      onClose={() => onClose(said.current)}
    >
      <h2 id={titleId}>{title}</h2>
      <p>
        <strong>{name}</strong>, rule {row.rule}
      </p>
      <p id={aboutId}>{about}</p>
      {error !== undefined && <Problem fault={faultOf(error)} />}
      <div className="actions">
        <button type="button" disabled={isBusy} onClick={() => void confirm()}>
          {isBusy ? busy : doIt}
        </button>
        <button type="button" className="quiet" onClick={() => dialog.current?.close()}>
          Cancel
        </button>
      </div>
    </dialog>
  );
}
