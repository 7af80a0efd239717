import { isCallersFault } from '@tomaat/client';
import { TomaatError } from '@tomaat/core';
import { useEffect, useState } from 'react';
import { Link, useLocation } from 'wouter';
import { loginPhrase } from '../access-texts.ts';
import { deleteJobs } from '../deletion.ts';
import { formatBytes, formatClock, stemOf } from '../format.ts';
import { useMe } from '../login.tsx';
import { useLogins } from '../logins.ts';
import { PartBar } from '../part-bar.tsx';
import { entryAt, findSubmission, type Submission } from '../store.ts';
import { Empty, faultOf, Loading, Problem, useTitle } from '../ui.tsx';
import { resume, send, stop, type UploadState, uploadLife, useUpload } from '../upload.ts';
import { useViewerAhead } from '../viewer/ahead.ts';

/** An upload in progress; once the server has it, the job's own page follows. */
export function UploadView({ uploadKey }: { uploadKey: string }) {
  const state = useUpload(uploadKey);
  const [submission, setSubmission] = useState<Submission>();
  const [, navigate] = useLocation();
  useTitle(sentTitle(state));
  useEffect(() => {
    const entry = entryAt(uploadKey);
    if (entry?.jobId) return navigate(`/jobs/${encodeURIComponent(entry.jobId)}`, { replace: true });
    if (entry) void findSubmission(uploadKey).then(setSubmission);
    void resume(uploadKey);
  }, [uploadKey, navigate]);
  useViewerAhead(state !== undefined, 0);
  const login = loginPhrase(useMe().data);
  const logins = useLogins();
  // What stopped because a login was missing continues after the login.
  // biome-ignore lint/correctness/useExhaustiveDependencies: the login is what it waits for
  useEffect(() => {
    const error = state?.phase === 'failed' ? state.error : undefined;
    if (submission && error instanceof TomaatError && error.code === 'UNAUTHORIZED') send(submission);
  }, [logins]);
  useEffect(() => {
    if (state?.phase === 'sent') navigate(`/jobs/${encodeURIComponent(state.job.id)}`, { replace: true });
  }, [state, navigate]);

  const back = submission && (
    <Link href={`/services/${encodeURIComponent(submission.service)}`}>Back to the service</Link>
  );
  if (!state || state.phase === 'sent') return <Loading what="One moment …" />;
  if (state.phase === 'lost') {
    return (
      <Empty title="This browser does not have this upload">
        {login && <p>You are logged in {login}. Uploads from other logins are not shown.</p>}
        <p>
          <Link href="/">Choose a service</Link> and drop the scan again.
        </p>
      </Empty>
    );
  }
  if (state.phase === 'stopped') {
    return (
      <Problem
        fault={{
          title: 'Cancelled',
          message: state.isDeleted
            ? 'The upload was stopped. The server keeps none of it.'
            : `The upload was stopped, but the server could not be reached. It deletes what it received within ${uploadLife}.`,
        }}
      >
        {submission && (
          <button type="button" onClick={() => send(submission)}>
            Send it after all
          </button>
        )}
        {back}
        <Discard uploadKey={uploadKey} />
      </Problem>
    );
  }
  if (state.phase === 'failed') {
    const hopeless = state.error instanceof TomaatError && isCallersFault(state.error);
    return (
      <Problem fault={faultOf(state.error)}>
        {submission && !hopeless && (
          <button type="button" onClick={() => send(submission)}>
            Try again
          </button>
        )}
        {back}
        <Discard uploadKey={uploadKey} />
      </Problem>
    );
  }
  const { sentBytes, totalBytes, secondsLeft, isPutOff } = state;
  const progress =
    sentBytes >= totalBytes && totalBytes > 0
      ? 'All sent; the server is checking it …'
      : `Sending: ${formatBytes(sentBytes)} of ${formatBytes(totalBytes)}${secondsLeft === undefined ? '' : `, about ${formatClock(secondsLeft)} left`}`;
  return (
    <>
      <section className="job-head">
        <h1>{submission ? stemOf(submission.fileName) : 'Sending'}</h1>
        <p className="fine">{submission?.serviceName}</p>
      </section>
      <section className="panel progress-panel">
        <PartBar label="Upload" part={totalBytes > 0 ? sentBytes / totalBytes : 0} />
        <p className="progress-text" role="status">
          {isPutOff ? 'The server cannot take it now. This page keeps trying.' : progress}
        </p>
        <p className="fine">
          If the connection drops or you reload this page, the upload resumes where it stopped.
        </p>
        <div className="actions">
          <button type="button" className="quiet" onClick={() => stop(uploadKey)}>
            Cancel
          </button>
        </div>
      </section>
    </>
  );
}

const sentTitle = (state: UploadState | undefined): string =>
  state?.phase === 'sending' && state.totalBytes > 0
    ? `Sending ${Math.floor((100 * state.sentBytes) / state.totalBytes)} %`
    : 'Sending';

/** Deletes a request and everything kept for it, here and on the server. */
export function Discard({ uploadKey }: { uploadKey: string }) {
  const [, navigate] = useLocation();
  return (
    <button
      type="button"
      className="quiet"
      onClick={() => {
        deleteJobs([uploadKey]);
        navigate('/jobs');
      }}
    >
      Delete it
    </button>
  );
}
