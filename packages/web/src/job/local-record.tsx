import type { JobIn } from '@tomaat/client';
import { useState } from 'react';
import { stemOf } from '../format.ts';
import { save } from '../save.ts';
import { Time } from '../time.tsx';
import { faultOf, Problem } from '../ui.tsx';
import { requireLocalResult } from './local.ts';
import { ResultActions } from './result-actions.tsx';

/** What is said of a result that this browser computed, in place of what a server says of its own. */

type LocalJob = JobIn<'succeeded'>;

export function LocalNote({ job }: { job: LocalJob }) {
  return (
    <div className="keeping">
      <span>
        Only this browser has the result, and deletes it <Time at={job.expiresTime} />.
      </span>
    </div>
  );
}

/** The record of the computation, and what else can be done with the result. */
export function LocalRecord({ job, fileName }: { job: LocalJob; fileName?: string }) {
  const [error, setError] = useState<unknown>();
  async function saveRecord() {
    try {
      const { record } = await requireLocalResult(job.id);
      const text = `${JSON.stringify(record, null, 2)}\n`;
      save(
        new Blob([text], { type: 'application/json' }),
        `${fileName ? stemOf(fileName) : job.service}_record.json`,
      );
    } catch (fault) {
      setError(fault);
    }
  }
  return (
    <section className="panel share" aria-labelledby="record-title">
      <h2 id="record-title">Record</h2>
      <p className="fine">
        This page computed the result: digests of the scan, the network and the results, the parameters and
        the engine are in its record. <strong>It is not signed by a server</strong>, so it proves nothing to
        others.
      </p>
      <div className="actions">
        <button type="button" className="quiet small" onClick={() => void saveRecord()}>
          Save the record
        </button>
        <ResultActions job={job} again="Another scan" />
      </div>
      {error !== undefined && <Problem fault={faultOf(error)} />}
    </section>
  );
}
