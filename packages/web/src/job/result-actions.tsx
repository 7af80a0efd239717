import type { JobIn } from '@tomaat/client';
import { Link, useLocation } from 'wouter';
import { deleteJob } from '../deletion.ts';

/** What can be done with a result, wherever it was computed. */
export function ResultActions({ job, again }: { job: JobIn<'succeeded'>; again: string }) {
  const [, navigate] = useLocation();
  return (
    <>
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
      <Link href={`/services/${encodeURIComponent(job.service)}`}>{again}</Link>
    </>
  );
}
