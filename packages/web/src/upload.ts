import type { Job, JobState } from '@tomaat/client';
import { useSyncExternalStore } from 'react';
import { client } from './site.ts';
import { findSubmission, keepSubmission, remember, type Submission, updateEntry } from './store.ts';

/** The uploads of this page. They go on while the user looks elsewhere in it, and begin again after a reload. */
export type UploadState =
  | { phase: 'sending'; sentBytes: number; totalBytes: number; startedMs: number }
  | { phase: 'sent'; job: Job }
  | { phase: 'failed'; error: unknown }
  | { phase: 'stopped' }
  | { phase: 'lost' };

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

/** Address of an upload that is no job yet. */
export const uploadAddress = (key: string) => `/jobs/upload-${key}`;

/** Keeps the request in this browser and begins to send it; its address shows how it goes. */
export async function submit(submission: Submission): Promise<string> {
  const { key, service, serviceName, fileName, createdTime } = submission;
  await keepSubmission(submission);
  remember({ key, service, serviceName, fileName, createdTime, state: 'sending' });
  send(submission);
  return uploadAddress(key);
}

/** Sends it, or goes on with what is being sent; the same key makes the same job, however often it arrives. */
export function send(submission: Submission): void {
  const { key } = submission;
  const running = uploads.get(key);
  if (running && (running.state.phase === 'sending' || running.state.phase === 'sent')) return;
  const abort = new AbortController();
  const totalBytes = Object.values(submission.files)
    .flat()
    .reduce((sum, { blob }) => sum + blob.size, 0);
  uploads.set(key, { state: { phase: 'sending', sentBytes: 0, totalBytes, startedMs: Date.now() }, abort });
  set(key, uploads.get(key)!.state);
  const startedMs = Date.now();
  client
    .predict(submission.service, {
      volumes: Object.fromEntries(
        Object.entries(submission.files).map(([input, files]) => [
          input,
          files.map(({ name, blob }) => new File([blob], name, { type: 'application/octet-stream' })),
        ]),
      ),
      values: submission.values,
      frame: submission.frame,
      idempotencyKey: key,
      onUpload: (progress) => set(key, { phase: 'sending', ...progress, startedMs }),
      signal: abort.signal,
    })
    .then(
      (job) => {
        updateEntry(key, { jobId: job.id, state: job.state });
        set(key, { phase: 'sent', job });
      },
      (error: unknown) => {
        const state: JobState = abort.signal.aborted ? 'canceled' : 'failed';
        updateEntry(key, { state });
        set(key, abort.signal.aborted ? { phase: 'stopped' } : { phase: 'failed', error });
      },
    );
}

/** Goes on with an upload that a reload broke off. */
export async function resume(key: string): Promise<void> {
  if (uploads.has(key)) return;
  const submission = await findSubmission(key);
  if (uploads.has(key)) return;
  if (submission) return send(submission);
  uploads.set(key, { state: { phase: 'lost' }, abort: new AbortController() });
  set(key, { phase: 'lost' });
}

export function stop(key: string): void {
  uploads.get(key)?.abort.abort();
}

export function useUpload(key: string): UploadState | undefined {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => uploads.get(key)?.state,
  );
}

window.addEventListener('beforeunload', (event) => {
  // Browsers show a text of their own. A reload goes on; a closed tab does not.
  if ([...uploads.values()].some(({ state }) => state.phase === 'sending')) event.preventDefault();
});
