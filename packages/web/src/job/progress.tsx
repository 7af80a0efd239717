import type { JobIn } from '@tomaat/client';
import { type Stage, stages } from '@tomaat/core';
import { useEffect, useState } from 'react';
import { loginPhrase } from '../access-texts.ts';
import { stopRun } from '../compute/runs.ts';
import { formatClock, formatSeconds } from '../format.ts';
import { useMe } from '../login.tsx';
import { PartBar } from '../part-bar.tsx';
import { client } from '../site.ts';
import { faultOf, Problem } from '../ui.tsx';
import { isLocalJob, keyOfLocal } from './local-id.ts';
import { NotifyButton } from './notify-button.tsx';

/** The worker's stages, in plain words. */
const stageNames: Record<Stage, string> = {
  decode: 'Reading the volume',
  preprocess: 'Preparing',
  infer: 'Computing',
  postprocess: 'Finishing the result',
  encode: 'Writing the files',
};

/** A waiting or running job: its position in the queue, stage, progress, time. */
export function Progress({ job, serviceName }: { job: JobIn<'queued' | 'running'>; serviceName: string }) {
  const [canceling, setCanceling] = useState(false);
  const [error, setError] = useState<unknown>();
  const login = loginPhrase(useMe().data);
  const seconds = useElapsed(job.startedTime ?? job.createdTime);
  const isLocal = isLocalJob(job.id);
  const queued = job.state === 'queued';
  const at = (stages as readonly (string | undefined)[]).indexOf(job.stage);
  const percent = job.fraction === undefined ? undefined : Math.round(job.fraction * 100);
  const before = job.queuePosition ?? 0;
  return (
    <section className="panel progress-panel" aria-label="Progress">
      <PartBar
        label="Progress of the job"
        part={queued || percent === undefined ? undefined : percent / 100}
      />
      <p className="progress-text" role="status">
        {queued
          ? before === 0
            ? 'Waiting: next in line'
            : `Waiting: ${before} ${before === 1 ? 'job' : 'jobs'} ahead`
          : `${at < 0 ? job.stage || 'Starting' : stageNames[stages[at]]}${percent === undefined ? '' : `, ${percent} %`}`}
      </p>
      {!queued && (
        <ol className="stages">
          {stages.map((stage, i) => (
            <li
              key={stage}
              className={i < at ? 'done' : i === at ? 'now' : ''}
              aria-current={i === at ? 'step' : undefined}
            >
              {stageNames[stage]}
            </li>
          ))}
        </ol>
      )}
      <p className="fine">
        {formatClock(seconds)} {queued ? 'waiting' : 'elapsed'}
        {job.expectedSeconds !== undefined && `; usually takes ${formatSeconds(job.expectedSeconds)}`}.{' '}
        {isLocal ? (
          'This page computes it, and sends nothing of the scan. Keep it open until it is done.'
        ) : (
          <>
            You can close this page: the job continues, and “My jobs” in this browser finds it again
            {login && `, logged in ${login}`}.
          </>
        )}
      </p>
      {error !== undefined && <Problem fault={faultOf(error)} />}
      <div className="actions">
        <button
          type="button"
          className="quiet"
          disabled={canceling}
          onClick={() => {
            setCanceling(true);
            if (isLocal) return stopRun(keyOfLocal(job.id));
            client.cancel(job.id).catch((fault: unknown) => {
              setCanceling(false);
              setError(fault);
            });
          }}
        >
          {canceling ? 'Cancelling …' : 'Cancel'}
        </button>
        {!isLocal && <NotifyButton jobId={job.id} serviceName={serviceName} />}
      </div>
    </section>
  );
}

function useElapsed(since: string): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 500);
    return () => clearInterval(timer);
  }, []);
  return Math.max(0, (now - Date.parse(since)) / 1000);
}
