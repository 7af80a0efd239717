import type { JobIn } from '@tomaat/client';
import { Link, useLocation } from 'wouter';
import { whoOpens } from '../access-texts.ts';
import { deleteJob } from '../deletion.ts';
import { useMe } from '../login.tsx';
import { Time } from '../time.tsx';
import { CopyButton } from '../ui.tsx';
import { useExpiry } from './keep.tsx';

/** The address of a result, and what else can be done with it. */
export function Share({ job }: { job: JobIn<'succeeded'> }) {
  const me = useMe();
  const [, navigate] = useLocation();
  const expiresTime = useExpiry(job);
  return (
    <section className="panel share" aria-labelledby="share-title">
      <h2 id="share-title">Link</h2>
      <p className="fine">
        This address shows the result, without the scan, until the server deletes it (
        <Time at={expiresTime} />
        ). {whoOpens(me.data)}
      </p>
      <div className="actions">
        <CopyButton text={location.href} label="Copy the link" />
        <button
          type="button"
          className="quiet small"
          onClick={() => {
            deleteJob(job);
            navigate('/jobs');
          }}
        >
          Delete the result now
        </button>
        {job.outputs.some(({ type }) => type === 'LabelVolume') && (
          <Link href={`/compare?result=${encodeURIComponent(job.id)}`}>Compare</Link>
        )}
        <Link href={`/services/${encodeURIComponent(job.service)}`}>Send another scan</Link>
      </div>
    </section>
  );
}
