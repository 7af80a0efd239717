import { isSettled, type Job, type JobIn, type Service } from '@tomaat/client';
import { TomaatError } from '@tomaat/core';
import { lazy, Suspense, useEffect, useState } from 'react';
import { Link, useLocation } from 'wouter';
import { goneText } from '../access-texts.ts';
import { computeAgain, useLocalJob } from '../compute/runs.ts';
import type { SentSeries } from '../dicom/originals.ts';
import { sentence, stemOf } from '../format.ts';
import { useMe } from '../login.tsx';
import { useLogins } from '../logins.ts';
import { client, impatientClient, useService } from '../site.ts';
import { entryOf, findSubmission, forget, type Submission, useIsDeleted } from '../store.ts';
import {
  Empty,
  type Fault,
  faultOf,
  isAway,
  Loading,
  NotResponding,
  Problem,
  titleOf,
  useTitle,
} from '../ui.tsx';
import { follow, tryAgain, uploadLife } from '../upload.ts';
import { useViewerAhead } from '../viewer/ahead.ts';
import { isLocalJob } from './local-id.ts';
import { Progress } from './progress.tsx';
import { Discard, UploadView } from './upload-view.tsx';

const Result = lazy(() => import('./result.tsx').then(({ Result }) => ({ default: Result })));

/** A job at its own address, from the upload to the result; it survives a reload. */
export default function JobPage({ id }: { id: string }) {
  if (id.startsWith('upload-')) return <UploadView uploadKey={id.slice('upload-'.length)} />;
  return isLocalJob(id) ? <LocalJobView id={id} /> : <ServerJobView id={id} />;
}

const ServerJobView = ({ id }: { id: string }) => <JobView id={id} {...useJob(id)} />;
/** Of a job that this browser computes. */
const LocalJobView = ({ id }: { id: string }) => <JobView id={id} {...useLocalJob(id)} />;

interface JobViewProps {
  id: string;
  job?: Job;
  error?: unknown;
  /** Whether the server does not respond. */
  silent?: boolean;
}

function JobView({ id, job, error, silent }: JobViewProps) {
  const submission = useSubmission(id);
  const service = useService(job?.service);
  const name = service.data?.name ?? job?.service;
  const fileName = submission?.fileName ?? entryOf(id)?.fileName;
  const sent = seriesOfResult(service.data, submission, entryOf(id)?.series);
  useTitle(job ? `${titleOfState(job)} – ${fileName ?? name}` : 'Job');
  const isDeleted = useIsDeleted(id);
  useViewerAhead(job !== undefined && !isSettled(job), 0);

  if (isDeleted)
    return (
      <Empty title="This job was deleted">
        <p>
          <Link href="/jobs">My jobs</Link>
        </p>
      </Empty>
    );
  if (error !== undefined) return <JobGone id={id} error={error} submission={submission} />;
  if (!job)
    return (
      <>
        {silent && <NotResponding />}
        <Loading what="Loading the job …" />
      </>
    );
  return (
    <>
      <p className="crumbs">
        <Link href="/">Services</Link> /{' '}
        <Link href={`/services/${encodeURIComponent(job.service)}`}>{name}</Link>
      </p>
      <section className="job-head">
        <h1>{fileName ? stemOf(fileName) : name}</h1>
        <p className="fine">
          {[
            fileName && name,
            job.attempt > 1 && `attempt ${job.attempt}`,
            isLocalJob(id) && 'on this computer',
          ]
            .filter(Boolean)
            .join(' · ')}
        </p>
      </section>
      {silent && !isSettled(job) && (
        <NotResponding>The job is stored there, and continues when the server is back.</NotResponding>
      )}
      {!isSettled(job) && <Progress job={job} serviceName={name ?? job.service} />}
      {job.state === 'succeeded' && (
        <Suspense fallback={<Loading what="Loading the viewer …" />}>
          <Result
            key={job.id}
            job={job}
            service={service.data}
            submission={submission}
            fileName={fileName}
            sent={sent}
          />
        </Suspense>
      )}
      {(job.state === 'failed' || job.state === 'canceled') && (
        <JobFailed job={job} submission={submission} />
      )}
    </>
  );
}

/** The series that results lie on: that of the first volume sent, if it was DICOM. */
function seriesOfResult(
  service: Service | undefined,
  submission: Submission | undefined,
  remembered: Submission['series'],
): SentSeries | undefined {
  const series = submission?.series ?? remembered ?? {};
  const first = service?.inputs.find(
    (input) =>
      input.type === 'volume' &&
      (submission ? submission.files[input.name] : series[input.name] || !input.optional),
  );
  return first && series[first.name];
}

const titleOfState = (job: Job) =>
  job.state === 'running' && job.fraction !== undefined
    ? `${Math.round(job.fraction * 100)} %`
    : { queued: 'Waiting', running: 'Computing', succeeded: 'Done', failed: 'Failed', canceled: 'Cancelled' }[
        job.state
      ];

/** Follows the job as the server reports it, while it changes. Waits for a server that is down. */
function useJob(id: string): { job?: Job; error?: unknown; silent: boolean } {
  const [job, setJob] = useState<Job>();
  const [error, setError] = useState<unknown>();
  const [silent, setSilent] = useState(false);
  const logins = useLogins();
  // biome-ignore lint/correctness/useExhaustiveDependencies: after a login it is asked again
  useEffect(() => {
    setError(undefined);
    const abort = new AbortController();
    let settled = false;
    (async () => {
      for (;;) {
        try {
          for await (const next of client.watch(id, {
            signal: abort.signal,
            patienceMs: 60_000,
            pollMs: 500,
          })) {
            settled = isSettled(next);
            setSilent(false);
            setJob(next);
            follow(next);
          }
          return;
        } catch (fault) {
          if (abort.signal.aborted) return;
          if (!(fault instanceof TomaatError) || fault.code !== 'UNREACHABLE') return setError(fault);
          setSilent(true);
        }
      }
    })();
    // The event stream does not show that a server went down; an occasional small request does.
    const look = setInterval(() => {
      if (settled) return clearInterval(look);
      impatientClient.job(id, { signal: abort.signal }).then(
        () => setSilent(false),
        (fault: unknown) => {
          if (!abort.signal.aborted) setSilent(isAway(fault));
        },
      );
    }, 3000);
    return () => {
      clearInterval(look);
      abort.abort();
    };
  }, [id, logins]);
  return { job, error, silent };
}

function useSubmission(jobId: string): Submission | undefined {
  const [submission, setSubmission] = useState<Submission>();
  useEffect(() => {
    let stale = false;
    const key = entryOf(jobId)?.key;
    if (key) void findSubmission(key).then((found) => !stale && setSubmission(found));
    return () => {
      stale = true;
    };
  }, [jobId]);
  return submission;
}

function JobGone({ id, error, submission }: { id: string; error: unknown; submission?: Submission }) {
  const [, navigate] = useLocation();
  const entry = entryOf(id);
  const me = useMe();
  const service = useService(entry?.service);
  const isGone = error instanceof TomaatError && error.code === 'NOT_FOUND' && !isLocalJob(id);
  const fault: Fault = isGone
    ? goneText(me.data, entry, { keepSeconds: service.data?.keepSeconds, nowMs: Date.now() })
    : faultOf(error);
  return (
    <Problem fault={fault}>
      {submission && isLocalJob(id) && <Retry submission={submission} isLocal />}
      {entry && (
        <button type="button" onClick={() => void forget(entry.key).then(() => navigate('/jobs'))}>
          Remove from my list
        </button>
      )}
      <Link href={entry ? `/services/${encodeURIComponent(entry.service)}` : '/'}>
        {entry ? 'Back to the service' : 'All services'}
      </Link>
    </Problem>
  );
}

function JobFailed({ job, submission }: { job: JobIn<'failed' | 'canceled'>; submission?: Submission }) {
  const entry = entryOf(job.id);
  const isLocal = isLocalJob(job.id);
  const fault: Fault =
    job.state === 'canceled'
      ? {
          title: 'Cancelled',
          message: isLocal
            ? job.error.detail
            : entry?.uploads
              ? `The job was cancelled. Your upload stays on the server for ${uploadLife}, so that you can try again without uploading again. “Delete it” deletes it immediately.`
              : 'The job was cancelled. Its data has been deleted from the server.',
        }
      : { title: titleOf(job.error.code), message: sentence(job.error.detail), code: job.error.code };
  return (
    <Problem fault={fault}>
      {submission && <Retry submission={submission} isLocal={isLocal} />}
      {entry && <Discard uploadKey={entry.key} />}
      <Link href={`/services/${encodeURIComponent(job.service)}`}>Back to the service</Link>
    </Problem>
  );
}

/** Submits the same request again, to where it was computed before. */
function Retry({ submission, isLocal }: { submission: Submission; isLocal: boolean }) {
  const [, navigate] = useLocation();
  const [error, setError] = useState<unknown>();
  const again = () => (isLocal ? computeAgain(submission) : tryAgain(submission)).then(navigate, setError);
  return (
    <>
      <button type="button" onClick={() => void again()}>
        {isLocal ? 'Compute again' : 'Try again'}
      </button>
      {error !== undefined && <span role="alert">{faultOf(error).message}</span>}
    </>
  );
}
