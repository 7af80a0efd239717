import type { FileRef, Job, JobState, UploadFile } from '@tomaat/client';
import { TomaatError } from '@tomaat/core';
import { useSyncExternalStore } from 'react';
import { isLocalJob } from './job/local-id.ts';
import { client } from './site.ts';
import {
  entryAt,
  entryOf,
  findSubmission,
  forget,
  type HistoryEntry,
  keepSubmission,
  noteJob,
  remember,
  type Submission,
  updateEntry,
} from './store.ts';

/**
 * The uploads of this page. They continue while the user visits other views, and resume after a reload or a lost
 * connection. A failed or cancelled job leaves them on the server, so that it can be retried without sending
 * anything; they are deleted when the job has succeeded, when the user deletes it, or eventually by the server.
 */
export type UploadState =
  /** `isPutOff`: the server cannot take it now, and is asked again. */
  | { phase: 'sending'; sentBytes: number; totalBytes: number; secondsLeft?: number; isPutOff?: boolean }
  | { phase: 'sent'; job: Job }
  | { phase: 'failed'; error: unknown }
  | { phase: 'stopped'; isDeleted: boolean }
  | { phase: 'lost' };

/** How long a request is repeated that the server cannot take: its queue is full, or its database is away. */
const patienceMs = 180_000;
const askAgainMs = 3_000;

/** How long a server keeps an upload after its last use, in words. */
export const uploadLife = 'an hour';

interface Upload {
  state: UploadState;
  abort: AbortController;
}

const uploads = new Map<string, Upload>();
const listeners = new Set<() => void>();

function set(key: string, state: UploadState): void {
  const upload = uploads.get(key);
  if (!upload) return;
  upload.state = state;
  for (const listener of listeners) listener();
}

export function newKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
    byte.toString(16).padStart(2, '0'),
  ).join('');
}

/** Address of an upload that is not yet a job. */
export const uploadAddress = (key: string) => `/jobs/upload-${key}`;

/** Keeps the request in this browser and starts to send it; its address shows the progress. */
export async function submit(submission: Submission, uploads?: HistoryEntry['uploads']): Promise<string> {
  const { key, service, serviceName, fileName, createdTime, series } = submission;
  await keepSubmission(submission);
  remember({ key, service, serviceName, fileName, createdTime, series, state: 'sending', uploads });
  send(submission);
  return uploadAddress(key);
}

/** Submits the same request again, with what is still on the server, otherwise from this browser's copy. */
export function tryAgain(submission: Submission): Promise<string> {
  return submit(
    { ...submission, key: newKey(), createdTime: new Date().toISOString() },
    entryAt(submission.key)?.uploads,
  );
}

/** Sends it, or continues if it is being sent; the same key gives the same job, however often it arrives. */
export function send(submission: Submission): void {
  const { key } = submission;
  const running = uploads.get(key);
  if (running && (running.state.phase === 'sending' || running.state.phase === 'sent')) return;
  const abort = new AbortController();
  uploads.set(key, { state: { phase: 'sending', sentBytes: 0, totalBytes: totalOf(submission) }, abort });
  set(key, uploads.get(key)!.state);
  updateEntry(key, { state: 'sending' });
  alone(key, abort.signal, () => predictPatiently(submission, abort.signal)).then(
    (job) => {
      updateEntry(key, { jobId: job.id, state: job.state });
      set(key, { phase: 'sent', job });
    },
    async (error: unknown) => {
      const state: JobState = abort.signal.aborted ? 'canceled' : 'failed';
      updateEntry(key, { state });
      if (!abort.signal.aborted) return set(key, { phase: 'failed', error });
      const isDeleted = await deleteUploads(key).then(
        () => true,
        () => false,
      );
      set(key, { phase: 'stopped', isDeleted });
    },
  );
}

/** Two tabs that show the same upload do not both send it: the second waits, and then finds it on the server. */
function alone<T>(key: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  // Missing in pages loaded over plain HTTP from another machine; there the two alternate, chunk by chunk.
  const { locks } = navigator as { locks?: LockManager };
  return locks ? locks.request(`tomaat.${key}`, { signal }, work) : work();
}

async function predictPatiently(submission: Submission, signal: AbortSignal): Promise<Job> {
  const { key } = submission;
  for (const endMs = performance.now() + patienceMs; ; ) {
    try {
      return await predict(submission, signal);
    } catch (error) {
      if (!(error instanceof TomaatError) || error.code !== 'BUSY' || performance.now() > endMs) throw error;
    }
    const state = uploads.get(key)?.state;
    if (state?.phase === 'sending') set(key, { ...state, isPutOff: true });
    await pause(askAgainMs, signal);
  }
}

const pause = (ms: number, signal: AbortSignal) =>
  new Promise<void>((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    signal.addEventListener('abort', stop, { once: true });
  });

/** An upload may expire, or be deleted by another page, between two requests: then it is sent again, once. */
async function predict(submission: Submission, signal: AbortSignal): Promise<Job> {
  const { service, values, frame, key } = submission;
  for (let attempt = 1; ; attempt++) {
    const volumes = await uploadFiles(submission, signal);
    try {
      return await client.predict(service, {
        volumes,
        values,
        frame,
        idempotencyKey: key,
        keepText: true,
        signal,
      });
    } catch (error) {
      const isGone =
        error instanceof TomaatError &&
        error.code === 'NOT_FOUND' &&
        (error.field === 'upload' || Object.hasOwn(volumes, error.field ?? ''));
      if (!isGone || attempt > 1) throw error;
    }
  }
}

async function uploadFiles(
  submission: Submission,
  signal: AbortSignal,
): Promise<Record<string, (UploadFile | FileRef)[]>> {
  const { key } = submission;
  const report = createReport(key, totalOf(submission));
  const volumes: Record<string, (UploadFile | FileRef)[]> = {};
  let before = 0;
  for (const [input, files] of Object.entries(submission.files)) {
    volumes[input] = [];
    for (const [i, { name, blob }] of files.entries()) {
      const file = new File([blob], name, { type: 'application/octet-stream' });
      const place = `${input}/${i}`;
      const ref = await client.upload(file, {
        upload: entryAt(key)?.uploads?.[place],
        onBegin: (id) => updateEntry(key, { uploads: { ...entryAt(key)?.uploads, [place]: id } }),
        onUpload: ({ sentBytes }) => report(before + sentBytes),
        // It was removed when the submission was created (form/scan.ts).
        keepText: true,
        signal,
      });
      // A server without resumable uploads receives the file itself.
      volumes[input].push(ref ?? file);
      before += blob.size;
    }
  }
  return volumes;
}

/**
 * Shows how much has been sent, and the remaining time at the rate since this page started: earlier bytes may be from
 * another page.
 */
function createReport(key: string, totalBytes: number): (sentBytes: number) => void {
  let first: { sentBytes: number; ms: number } | undefined;
  let shownMs = Number.NEGATIVE_INFINITY;
  return (sentBytes) => {
    const ms = performance.now();
    // Not at every packet: screen readers announce the text.
    if (ms - shownMs < 250 && sentBytes < totalBytes) return;
    shownMs = ms;
    // After a lost connection the server may have less than was believed sent.
    if (!first || sentBytes < first.sentBytes) first = { sentBytes, ms };
    const seconds = (ms - first.ms) / 1000;
    const gained = sentBytes - first.sentBytes;
    const secondsLeft = seconds > 2 && gained > 0 ? ((totalBytes - sentBytes) / gained) * seconds : undefined;
    set(key, { phase: 'sending', sentBytes, totalBytes, secondsLeft });
  };
}

const totalOf = ({ files }: Submission): number =>
  Object.values(files)
    .flat()
    .reduce((sum, { blob }) => sum + blob.size, 0);

/** Resumes an upload that a reload interrupted, but not one that the user stopped. */
export async function resume(key: string): Promise<void> {
  if (uploads.has(key)) return;
  // Only those in the current user's list: files of another login of this browser are not sent on this user's behalf.
  const entry = entryAt(key);
  const submission = entry && (await findSubmission(key));
  if (uploads.has(key)) return;
  if (submission && entry.state !== 'canceled') return send(submission);
  const state: UploadState = submission
    ? { phase: 'stopped', isDeleted: entry.uploads === undefined }
    : { phase: 'lost' };
  uploads.set(key, { state, abort: new AbortController() });
  set(key, state);
}

export function stop(key: string): void {
  uploads.get(key)?.abort.abort();
}

/** Records the outcome of a job; the upload of a job that succeeded is deleted on the server. */
export function follow(job: Job): void {
  noteJob(job);
  const entry = job.state === 'succeeded' ? entryOf(job.id) : undefined;
  // If that fails, the server does it eventually.
  if (entry) void deleteUploads(entry.key).catch(() => undefined);
}

/** Deletes a job with everything that belongs to it, on the server and in this browser; see `deletion.ts`. */
export async function discard(key: string): Promise<void> {
  stop(key);
  const jobId = entryAt(key)?.jobId;
  if (jobId && !isLocalJob(jobId)) await client.remove(jobId);
  await deleteUploads(key);
  await forget(key);
}

async function deleteUploads(key: string): Promise<void> {
  const ids = Object.values(entryAt(key)?.uploads ?? {});
  if (ids.length === 0) return;
  await Promise.all(ids.map((id) => client.removeUpload(id)));
  updateEntry(key, { uploads: undefined });
}

export const uploadStateOf = (key: string): UploadState | undefined => uploads.get(key)?.state;

/** Calls the listener at every change of an upload, until the returned function is called. */
export function watchUploads(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function useUpload(key: string): UploadState | undefined {
  return useSyncExternalStore(watchUploads, () => uploadStateOf(key));
}

window.addEventListener('beforeunload', (event) => {
  // Browsers show their own text: the rest is sent only when the page is opened again.
  if ([...uploads.values()].some(({ state }) => state.phase === 'sending')) event.preventDefault();
});
