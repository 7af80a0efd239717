import type { Service } from '@tomaat/client';
import { useRef, useState } from 'react';
import type { Picked } from './dicom/picked-files.ts';
import { FileDrop } from './file-drop.tsx';
import type { FoundFits } from './form/fit-finder.ts';
import { handOver } from './form/handed-over.ts';
import { faultOf, Loading, Problem } from './ui.tsx';

/** A scan dropped on the first page: which services it fits. */
export interface FirstDrop {
  readonly busy: boolean;
  readonly error: unknown;
  readonly found: FoundFits | undefined;
  take(pick: () => Promise<Picked>): Promise<void>;
  clear(): void;
}

export function useFirstDrop(services: readonly Service[]): FirstDrop {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>();
  const [found, setFound] = useState<FoundFits>();
  const latest = useRef<AbortController>(undefined);
  function clear() {
    latest.current?.abort();
    handOver(undefined);
    setBusy(false);
    setError(undefined);
    setFound(undefined);
  }
  async function take(pick: () => Promise<Picked>) {
    clear();
    const abort = new AbortController();
    latest.current = abort;
    setBusy(true);
    try {
      const picked = await pick();
      // What reads headers is not part of the first page.
      const { findFits } = await import('./form/fit-finder.ts');
      const fits = await findFits(picked, services, abort.signal);
      if (abort.signal.aborted) return;
      handOver(picked);
      setFound(fits);
    } catch (fault) {
      if (!abort.signal.aborted) setError(fault);
    } finally {
      if (latest.current === abort) setBusy(false);
    }
  }
  return { busy, error, found, take, clear };
}

export function FirstDropArea({ drop: { busy, error, found, take, clear } }: { drop: FirstDrop }) {
  const fitting = found ? [...found.fits.values()].filter(({ fits }) => fits).length : 0;
  return (
    <section className="first-drop" aria-label="Which services fit">
      <FileDrop
        label="Drop a scan here"
        hasFile={found !== undefined}
        onPick={(pick) => void take(pick)}
        actions={
          found && (
            <button type="button" className="quiet" onClick={clear}>
              Remove
            </button>
          )
        }
      >
        <p>
          <strong>{found ? found.name : 'Drop a scan to see which services fit'}</strong>
          <span className="fine">
            Only its header is read, in this browser: size, spacing and type go to the server. Nothing is
            uploaded.
          </span>
        </p>
      </FileDrop>
      {busy && <Loading what="Reading the header …" />}
      {found && (
        <p role="status">
          {fitting === 0
            ? 'No service here takes this scan. Each card says why.'
            : `${fitting} of ${found.fits.size} services take this scan. Choose one to go on with it.`}
        </p>
      )}
      {error !== undefined && <Problem fault={faultOf(error)} />}
    </section>
  );
}
