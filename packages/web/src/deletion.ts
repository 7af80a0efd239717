import { isCallersFault, type Job } from '@tomaat/client';
import { TomaatError } from '@tomaat/core';
import { useSyncExternalStore } from 'react';
import { baseUrl } from './base.ts';
import { stopRun } from './compute/runs.ts';
import { isLocalJob } from './job/local-id.ts';
import { entryAt, entryOf, forget, history, markDeleted, remember } from './store.ts';
import { discard, newKey } from './upload.ts';

/**
 * Deleting with undo. A deleted job disappears at once; the server is told when the time for undoing is over, or when the
 * page is closed. Until it has confirmed, the mark stays in the list, and the next visit carries it out.
 */

/** How long a deletion can be undone. */
const undoMs = 8000;
/** How long to wait before a server that did not respond is asked again. */
const repeatMs = 30_000;

export type Notice =
  | { readonly state: 'undoable'; readonly keys: readonly string[] }
  /** The server has not confirmed it; it is asked again. */
  | { readonly state: 'waiting'; readonly error: unknown }
  /** The server refused it: the jobs are in the list again. */
  | { readonly state: 'refused'; readonly error: unknown };

let notice: Notice | undefined;
let timer: ReturnType<typeof setTimeout> | undefined;
const listeners = new Set<() => void>();
const busy = new Set<string>();
/** Jobs that were opened by a link, and are in the list for the mark alone. */
const guests = new Set<string>();

function show(next: Notice | undefined): void {
  notice = next;
  for (const listener of listeners) listener();
}

export function useDeletionNotice(): Notice | undefined {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => notice,
  );
}

const undoableKeys = (): readonly string[] => (notice?.state === 'undoable' ? notice.keys : []);

/** Hides jobs, and deletes them everywhere a little later; further ones join those that can still be undone. */
export function deleteJobs(keys: readonly string[]): void {
  markDeleted(keys, new Date().toISOString());
  show({ state: 'undoable', keys: [...new Set([...undoableKeys(), ...keys])] });
  countDown();
}

/** The same for one job, which may be from elsewhere. */
export function deleteJob({ id, service, createdTime, state }: Job): void {
  let key = entryOf(id)?.key;
  if (key === undefined) {
    key = newKey();
    guests.add(key);
    remember({ key, jobId: id, service, serviceName: service, fileName: service, createdTime, state });
  }
  deleteJobs([key]);
}

export function undoDeletion(): void {
  const keys = undoableKeys();
  clearTimeout(timer);
  markDeleted(keys, undefined);
  for (const key of keys) if (guests.delete(key)) void forget(key);
  show(undefined);
}

/** Does not wait for the end of the time any longer; also closes a message. */
export function finishDeletion(): void {
  const keys = undoableKeys();
  closeUndo(keys);
  for (const key of keys) void carryOut(key);
}

/** From now on nobody undoes it, in any tab. */
function closeUndo(keys: readonly string[]): void {
  clearTimeout(timer);
  markDeleted(keys, new Date(0).toISOString());
  show(undefined);
}

/** While the message is pointed at or focused, its time does not run out. */
export const holdDeletion = (): void => clearTimeout(timer);
export function countDown(): void {
  clearTimeout(timer);
  if (notice?.state === 'undoable') timer = setTimeout(finishDeletion, undoMs);
}

/** Carries out what an earlier visit, another tab, or a lost connection left; those of another tab can still be undone there. */
export function resumeDeletions(): void {
  for (const { key, deleteTime } of history()) {
    if (deleteTime === undefined || undoableKeys().includes(key)) continue;
    const waitMs = Date.parse(deleteTime) + undoMs + 2000 - Date.now();
    if (waitMs > 0 && waitMs <= undoMs + 2000) setTimeout(() => void carryOut(key), waitMs);
    else void carryOut(key);
  }
}

async function carryOut(key: string): Promise<void> {
  const isUndone = () => entryAt(key)?.deleteTime === undefined || undoableKeys().includes(key);
  if (busy.has(key) || isUndone()) return;
  busy.add(key);
  try {
    stopRun(key);
    await discard(key);
    if (notice?.state === 'waiting') show(undefined);
  } catch (error) {
    const needsLogin = error instanceof TomaatError && error.code === 'UNAUTHORIZED';
    const isRefused = error instanceof TomaatError && isCallersFault(error) && !needsLogin;
    if (isRefused) markDeleted([key], undefined);
    if (undoableKeys().length === 0) show({ state: isRefused ? 'refused' : 'waiting', error });
    // After a login, `resumeDeletions()` is called.
    if (!isRefused && !needsLogin) setTimeout(() => void carryOut(key), repeatMs);
  } finally {
    busy.delete(key);
  }
}

window.addEventListener('pagehide', () => {
  const keys = undoableKeys();
  if (keys.length === 0) return;
  // The marks stay until the server confirms: the response does not reach a page that is closed.
  for (const key of keys) {
    const id = entryAt(key)?.jobId;
    if (id && !isLocalJob(id))
      void fetch(`${baseUrl}/api/jobs/${encodeURIComponent(id)}`, {
        method: 'DELETE',
        keepalive: true,
      }).catch(() => undefined);
  }
  closeUndo(keys);
});
window.addEventListener('pageshow', ({ persisted }) => {
  if (persisted) resumeDeletions();
});
