import { skipToken, useQuery, useQueryClient } from '@tanstack/react-query';
import type { JobIn } from '@tomaat/client';
import { TomaatError } from '@tomaat/core';
import { useState } from 'react';
import { formatTime } from '../format.ts';
import { client } from '../site.ts';
import { noteJob } from '../store.ts';
import { Time } from '../time.tsx';
import { faultOf, Problem } from '../ui.tsx';

type SucceededJob = JobIn<'succeeded'>;

const expiryKey = (id: string) => ['expiry', id];

/** When the server deletes a result: as the job says, or later if it is kept longer. */
export function useExpiry({ id, expiresTime }: SucceededJob): string {
  const { data } = useQuery<string>({ queryKey: expiryKey(id), queryFn: skipToken });
  return data !== undefined && data > expiresTime ? data : expiresTime;
}

/** When the result is deleted, and the button that postpones it. */
export function Keeping({ job }: { job: SucceededJob }) {
  const queries = useQueryClient();
  const expiresTime = useExpiry(job);
  const [isBusy, setBusy] = useState(false);
  const [answer, setAnswer] = useState<{ text: string; isLast?: boolean }>();
  const [error, setError] = useState<unknown>();

  async function keep() {
    setBusy(true);
    setError(undefined);
    try {
      const kept = await client.keep(job.id);
      noteJob(kept);
      if (kept.expiresTime) {
        queries.setQueryData(expiryKey(job.id), kept.expiresTime);
        setAnswer({ text: `Kept until ${formatTime(kept.expiresTime)}.` });
      }
    } catch (fault) {
      const isLast = fault instanceof TomaatError && fault.code === 'CONFLICT';
      if (isLast) setAnswer({ text: faultOf(fault).message, isLast });
      else setError(fault);
    } finally {
      setBusy(false);
    }
  }

  return (
    <div className="keeping">
      <span>
        The server deletes the result <Time at={expiresTime} />.
      </span>
      {!answer?.isLast && (
        <button type="button" className="quiet small" disabled={isBusy} onClick={() => void keep()}>
          Keep longer
        </button>
      )}
      <span role="status">{answer?.text}</span>
      {error !== undefined && <Problem fault={faultOf(error)} />}
    </div>
  );
}
