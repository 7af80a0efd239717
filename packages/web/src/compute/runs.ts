import type { Job, JobIn, Service } from '@tomaat/client';
import { describeError, formatsOf, TomaatError } from '@tomaat/core';
import { useEffect, useState, useSyncExternalStore } from 'react';
import { requireLocalResult } from '../job/local.ts';
import { isLocalJob, keyOfLocal, localIdOf } from '../job/local-id.ts';
import { client } from '../site.ts';
import {
  entryAt,
  findLocalResult,
  history,
  keepLocalResult,
  keepSubmission,
  keptMs,
  type LocalResult,
  remember,
  type Submission,
  updateEntry,
} from '../store.ts';
import { newKey } from '../upload.ts';
import { dataOf } from '../worker-errors.ts';
import type { Computed, ComputedOutput, Plan } from './messages.ts';
import { fetchModel } from './models.ts';
import { findAbilities, openComputer } from './session.ts';

/**
 * Predictions that this browser computes itself: nothing of the scan is sent. They continue while the user visits other views of
 * this page, and end with it.
 */

interface Run {
  job: JobIn<'running'>;
  readonly abort: AbortController;
}

const runs = new Map<string, Run>();
const listeners = new Set<() => void>();
const changed = () => {
  for (const listener of listeners) listener();
};

/** Why this browser cannot compute, in a sentence; undefined if it can. */
export function whyNotHere(): string | undefined {
  if (globalThis.isSecureContext === false)
    return 'Computing on this computer needs a page that was loaded by HTTPS: browsers allow it nowhere else.';
  if (typeof WebAssembly === 'undefined' || typeof Worker === 'undefined')
    return 'This browser cannot compute networks: it has no WebAssembly.';
  return undefined;
}

/**
 * Checks that a prediction fits into the memory of this browser, and starts it. Returns the address that shows its progress.
 *
 * @throws TomaatError TOO_MANY_VOXELS with the numbers if it does not fit; as the client's manifest()
 */
export async function computeHere(submission: Submission): Promise<string> {
  const { key, service, serviceName, fileName, createdTime, series, shapes = {}, values } = submission;
  const { allowedBytes } = findAbilities();
  const [manifest, { runBytes }] = await Promise.all([client.manifest(service), client.service(service)]);
  const computer = openComputer();
  let plan: Plan;
  try {
    plan = await computer.call('plan', { manifest, volumes: shapes, values, allowedBytes, runBytes });
  } finally {
    computer.close();
  }
  await keepSubmission(submission);
  const jobId = localIdOf(key);
  remember({ key, jobId, service, serviceName, fileName, createdTime, series, state: 'running' });
  start(submission, { manifest, plan, runBytes });
  return `/jobs/${jobId}`;
}

/** Computes the same request again. */
export const computeAgain = (submission: Submission): Promise<string> =>
  computeHere({ ...submission, key: newKey(), createdTime: new Date().toISOString() });

/** What is computed, besides the files. */
interface Work {
  readonly manifest: string;
  readonly plan: Plan;
  readonly runBytes: Service['runBytes'];
}

function start(submission: Submission, work: Work): void {
  const { plan } = work;
  const { key, service } = submission;
  const now = new Date().toISOString();
  const abort = new AbortController();
  const job: JobIn<'running'> = {
    id: localIdOf(key),
    service,
    state: 'running',
    attempt: 1,
    createdTime: submission.createdTime,
    startedTime: now,
    parameters: plan.parameters,
    outputs: [],
  };
  runs.set(key, { job, abort });
  changed();
  const isOver = () => abort.signal.aborted;
  held(key, () => compute(submission, work, abort.signal))
    .then(
      (computed) => settle(key, succeeded(job, computed), submission, plan, computed),
      (error: unknown) => settle(key, ended(job, isOver() ? stoppedError() : error), submission, plan),
    )
    .finally(() => {
      runs.delete(key);
      changed();
    });
}

const stoppedError = () => new TomaatError('CANCELED', 'The computation was stopped. Nothing was sent.');

/** As long as this page computes, other tabs see it by this lock. */
const lockOf = (key: string) => `tomaat.local.${key}`;
function held<T>(key: string, work: () => Promise<T>): Promise<T> {
  const { locks } = navigator as { locks?: LockManager };
  return locks ? locks.request(lockOf(key), work) : work();
}

async function compute(
  submission: Submission,
  { manifest, plan: { models }, runBytes }: Work,
  signal: AbortSignal,
): Promise<Computed> {
  const { key, service, files, values, frame, series, shapes = {} } = submission;
  const { threads, allowedBytes } = findAbilities();
  const fetched: Record<string, Blob> = {};
  for (const [i, sha256] of models.entries()) {
    const what =
      models.length === 1 ? 'Fetching the network' : `Fetching network ${i + 1} of ${models.length}`;
    const onProgress = (done: number, total: number) => report(key, what, done / total);
    report(key, what, 0);
    fetched[sha256] = await fetchModel(service, sha256, { signal, onProgress });
  }
  const computer = openComputer();
  const stop = () => computer.close();
  signal.addEventListener('abort', stop);
  try {
    signal.throwIfAborted();
    const modelBytes = Object.values(fetched).reduce((sum, { size }) => sum + size, 0);
    await computer.call('plan', {
      ...{ manifest, volumes: shapes, values, allowedBytes, modelBytes, runBytes },
    });
    const [first] = Object.keys(files);
    return await computer.call(
      'predict',
      { manifest, files, values, frame, isSeries: series?.[first] !== undefined, models: fetched, threads },
      { onProgress: (fraction, _total, stage) => report(key, stage, fraction) },
    );
  } finally {
    signal.removeEventListener('abort', stop);
    computer.close();
  }
}

function report(key: string, stage: string | undefined, fraction: number): void {
  const run = runs.get(key);
  if (!run) return;
  run.job = { ...run.job, stage, fraction };
  changed();
}

// ---- The end ----

function ending({ createdTime }: JobIn<'running'>) {
  const settledMs = Date.now();
  return {
    settledTime: new Date(settledMs).toISOString(),
    expiresTime: new Date(Date.parse(createdTime) + keptMs).toISOString(),
  };
}

function succeeded(job: JobIn<'running'>, { outputs }: Computed): JobIn<'succeeded'> {
  const { stage: _, fraction: __, expectedSeconds: ___, ...common } = job;
  return { ...common, ...ending(job), state: 'succeeded', outputs: outputs.map(present) };
}

/** An output as a server would list it: with the formats that it can be had in. */
const present = ({ name, type, label, primary, format, digest, blob }: ComputedOutput) => ({
  ...{ name, type, label, primary, format, digest },
  formats: formatsOf({ type, format }),
  fileName: `${name}.${format}`,
  sizeBytes: blob.size,
  url: '',
});

function ended(job: JobIn<'running'>, error: unknown): JobIn<'failed' | 'canceled'> {
  const { stage: _, fraction: __, expectedSeconds: ___, ...common } = job;
  const { code, message, field } = dataOf(error);
  const { title, status, retryable } = describeError(code);
  return {
    ...common,
    ...ending(job),
    state: code === 'CANCELED' ? 'canceled' : 'failed',
    outputs: [],
    error: { type: 'about:blank', title, status, detail: message, code, retryable, field },
  };
}

async function settle(
  key: string,
  job: Job,
  submission: Submission,
  plan: Plan,
  computed?: Computed,
): Promise<void> {
  // Deleted meanwhile.
  if (!entryAt(key)) return;
  await keepLocalResult({
    key,
    job,
    outputs: computed?.outputs ?? [],
    labels: computed?.labels ?? [],
    record: computed && recordOf(job as JobIn<'succeeded'>, submission, plan, computed),
  });
  updateEntry(key, { state: job.state, expiresTime: job.expiresTime });
}

/** What was computed of what, as a server's receipt says it, without a signature. */
function recordOf(
  job: JobIn<'succeeded'>,
  { frame }: Submission,
  { manifest, models }: Plan,
  { inputs, outputs, times, engine }: Computed,
): unknown {
  return {
    kind: 'tomaat-local-record/1',
    signed: false,
    notice:
      'Computed in a browser, and not signed by a server: it proves nothing to those who do not trust that browser. For research use only.',
    service: {
      id: job.service,
      version: manifest.version,
      from: client.baseUrl,
      manifest: `sha256:${manifest.sha256}`,
      models: models.map((sha256) => `sha256:${sha256}`),
    },
    startedTime: job.startedTime,
    settledTime: job.settledTime,
    inputs,
    parameters: job.parameters,
    frame,
    outputs: outputs.map(({ name, type, format, primary, digest, blob }) => ({
      ...{ name, type, format, primary, digest },
      sizeBytes: blob.size,
    })),
    stagesMs: times,
    engine,
    browser: navigator.userAgent,
  };
}

/** Stops a computation: its worker ends at once. */
export function stopRun(key: string): void {
  runs.get(key)?.abort.abort();
}

// ---- For views ----

function watchRuns(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export interface LocalJobState {
  readonly job?: Job;
  readonly result?: LocalResult;
  readonly error?: unknown;
}

/** A job of this browser: as it runs here, or as it ended. */
export function useLocalJob(id: string): LocalJobState {
  const key = keyOfLocal(id);
  const running = useSyncExternalStore(watchRuns, () => runs.get(key)?.job);
  const [found, setFound] = useState<LocalJobState>({});
  const isRunning = running !== undefined;
  useEffect(() => {
    if (isRunning) return;
    let stale = false;
    const show = (state: LocalJobState) => !stale && setFound(state);
    void findEnded(id).then(
      (result) => show({ job: result.job, result }),
      (error: unknown) => show({ error }),
    );
    return () => {
      stale = true;
    };
  }, [id, isRunning]);
  return running ? { job: running } : found;
}

async function findEnded(id: string): Promise<LocalResult> {
  const key = keyOfLocal(id);
  const entry = entryAt(key);
  const found = entry && (await findLocalResult(key));
  if (found) return found;
  if (!entry || !['running', 'failed'].includes(entry.state)) return requireLocalResult(id);
  if (entry.state === 'running' && (await isHeld(key))) {
    throw new TomaatError(
      'NOT_READY',
      'Another tab of this browser is computing it. Go to that tab, or load this page again when it is done.',
    );
  }
  updateEntry(key, { state: 'failed' });
  throw new TomaatError(
    'APP_FAILED',
    'The page that computed it was closed before it was done. Compute it again.',
  );
}

async function isHeld(key: string): Promise<boolean> {
  const { locks } = navigator as { locks?: LockManager };
  const { held: all = [] } = (await locks?.query()) ?? {};
  return all.some(({ name }) => name === lockOf(key));
}

/** Jobs whose page was closed while it computed have failed. */
export async function settleLostRuns(): Promise<void> {
  for (const { key, jobId, state } of history())
    if (jobId && isLocalJob(jobId) && state === 'running' && !runs.has(key) && !(await isHeld(key)))
      updateEntry(key, { state: 'failed' });
}

window.addEventListener('beforeunload', (event) => {
  // Browsers show their own text: what was computed so far would be lost.
  if (runs.size > 0) event.preventDefault();
});
