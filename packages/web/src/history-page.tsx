import { useQueries } from '@tanstack/react-query';
import { isSettled } from '@tomaat/client';
import { TomaatError } from '@tomaat/core';
import { Link } from 'wouter';
import { isExpired, loginPhrase } from './access-texts.ts';
import { deleteJobs } from './deletion.ts';
import { isLocalJob } from './job/local-id.ts';
import { useMe } from './login.tsx';
import { client } from './site.ts';
import { type HistoryEntry, useHistory } from './store.ts';
import { ColumnHeader, RowHeader, Table, TableBody, TableCell, TableHead, TableRow } from './table.tsx';
import { Time } from './time.tsx';
import { Empty, isAway, NotResponding, Tag, useTitle } from './ui.tsx';
import { follow, uploadAddress } from './upload.ts';

const stateNames: Record<
  HistoryEntry['state'] | 'expired' | 'gone',
  { name: string; tone: 'good' | 'bad' | 'plain' }
> = {
  sending: { name: 'Sending', tone: 'plain' },
  queued: { name: 'Waiting', tone: 'plain' },
  running: { name: 'Computing', tone: 'plain' },
  succeeded: { name: 'Done', tone: 'good' },
  failed: { name: 'Failed', tone: 'bad' },
  canceled: { name: 'Cancelled', tone: 'plain' },
  expired: { name: 'Expired', tone: 'plain' },
  gone: { name: 'Gone', tone: 'plain' },
};

/** The jobs of this browser. Deleting one deletes it on the server, too. */
export default function HistoryPage() {
  useTitle('My jobs');
  const entries = useHistory();
  const login = loginPhrase(useMe().data);
  const jobs = useQueries({
    queries: entries.map((entry) => ({
      queryKey: ['job', entry.jobId ?? entry.key],
      enabled: entry.jobId !== undefined && !isLocalJob(entry.jobId),
      refetchInterval:
        entry.state !== 'sending' && !isSettled({ state: entry.state }) ? 2000 : (false as const),
      queryFn: async ({ signal }: { signal: AbortSignal }) => {
        const job = await client.job(entry.jobId!, { signal });
        follow(job);
        return job;
      },
    })),
  });
  const hasLocal = entries.some(({ jobId }) => jobId !== undefined && isLocalJob(jobId));
  const isGone = (i: number) => {
    const { error: fault } = jobs[i];
    return fault instanceof TomaatError && fault.code === 'NOT_FOUND';
  };

  return (
    <>
      <section className="hero">
        <h1>My jobs</h1>
        <p>
          Jobs that you sent from this browser{login && `, logged in ${login}`}. This browser keeps the list
          and a copy of the scans for a week
          {login && ', even after you log out; other logins cannot see them here'}. Deleting a job also
          deletes its data on the server.{' '}
          {hasLocal && 'Those “on this computer” were not sent: only this browser has their results. '}
          <Link href="/compare">Compare two results</Link>
        </p>
      </section>
      {entries.length === 0 ? (
        <Empty title="No jobs yet">
          <p>
            <Link href="/">Choose a service</Link> and drop a scan.
          </p>
        </Empty>
      ) : (
        <>
          {jobs.some(({ failureReason }) => isAway(failureReason)) && (
            <NotResponding>The states may be older ones.</NotResponding>
          )}
          <div className="table-frame">
            <Table className="jobs">
              <TableHead>
                <TableRow>
                  <ColumnHeader>Scan</ColumnHeader>
                  <ColumnHeader>Service</ColumnHeader>
                  <ColumnHeader>Sent</ColumnHeader>
                  <ColumnHeader>State</ColumnHeader>
                  <ColumnHeader>
                    <span className="visually-hidden">Delete</span>
                  </ColumnHeader>
                </TableRow>
              </TableHead>
              <TableBody>
                {entries.map((entry, i) => {
                  const end = isExpired(entry, Date.now()) ? 'expired' : 'gone';
                  const state = stateNames[isGone(i) ? end : entry.state];
                  return (
                    <TableRow key={entry.key}>
                      <RowHeader>
                        <Link
                          href={
                            entry.jobId
                              ? `/jobs/${encodeURIComponent(entry.jobId)}`
                              : uploadAddress(entry.key)
                          }
                        >
                          {entry.fileName}
                        </Link>
                      </RowHeader>
                      <TableCell>{entry.serviceName}</TableCell>
                      <TableCell>
                        <Time at={entry.createdTime} />
                      </TableCell>
                      <TableCell>
                        <Tag tone={state.tone}>{state.name}</Tag>
                        {entry.jobId && isLocalJob(entry.jobId) && (
                          <span className="fine"> on this computer{entry.expiresTime && ','}</span>
                        )}
                        {entry.expiresTime && !isGone(i) && (
                          <span className="fine">
                            {' '}
                            deleted <Time at={entry.expiresTime} />
                          </span>
                        )}
                      </TableCell>
                      <TableCell>
                        <button
                          type="button"
                          className="quiet small"
                          aria-label={`Delete the job of ${entry.fileName}`}
                          onClick={() => deleteJobs([entry.key])}
                        >
                          Delete
                        </button>
                      </TableCell>
                    </TableRow>
                  );
                })}
              </TableBody>
            </Table>
          </div>
          <p className="actions">
            <button type="button" className="quiet" onClick={() => deleteJobs(entries.map(({ key }) => key))}>
              Delete all
            </button>
          </p>
        </>
      )}
    </>
  );
}
