import { isSettled, type Job } from '@tomaat/client';
import { TomaatError } from '@tomaat/core';
import { useSyncExternalStore } from 'react';
import { basePath, keptAt } from './base.ts';
import { client } from './site.ts';
import { follow } from './upload.ts';

/**
 * Notifications of the operating system when a job is done, if the user asked for one: only while this page is hidden, and
 * without the name of the scan, because a lock screen may show them. They are asked for per tab, and survive its reload.
 */

const listKey = keptAt('tomaat.notify');
/** How long to wait before a server that does not respond is asked again. */
const repeatMs = 5000;

/** The jobs to be notified of, with the name of the service. */
let wanted: Readonly<Record<string, string>> = readWanted();
const listeners = new Set<() => void>();

function readWanted(): Record<string, string> {
  try {
    const list: unknown = JSON.parse(sessionStorage.getItem(listKey) ?? '{}');
    const pairs = Object.entries(list ?? {}).filter(([, name]) => typeof name === 'string');
    return Object.fromEntries(pairs);
  } catch {
    return {};
  }
}

function setWanted(next: Readonly<Record<string, string>>): void {
  wanted = next;
  try {
    sessionStorage.setItem(listKey, JSON.stringify(next));
  } catch {
    // Then it lasts as long as the page.
  }
  for (const listener of listeners) listener();
}

/** Browsers offer them only to pages loaded over HTTPS or from this machine, and those of Android only to service workers. */
const isOffered = () =>
  'Notification' in window && isSecureContext && !navigator.userAgent.includes('Android');

export type NotifyState = 'missing' | 'off' | 'blocked' | 'on';

/** Whether the user is notified of a job. */
export function useNotifyState(jobId: string): NotifyState {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => {
      if (!isOffered()) return 'missing';
      if (Notification.permission === 'denied') return 'blocked';
      return Object.hasOwn(wanted, jobId) ? 'on' : 'off';
    },
  );
}

/** Asks the browser for permission if it has not been given, and notifies the user when the job is done. */
export async function notifyOf(jobId: string, serviceName: string): Promise<void> {
  const permission = await Notification.requestPermission();
  if (permission === 'granted') {
    setWanted({ ...wanted, [jobId]: serviceName });
    void watch(jobId);
  } else setWanted({ ...wanted });
}

export function dropNotification(jobId: string): void {
  const { [jobId]: _, ...rest } = wanted;
  setWanted(rest);
}

const outcomes = {
  succeeded: ['Done', 'The result is ready.'],
  failed: ['Failed', 'The page shows the reason.'],
  canceled: ['Cancelled', 'The job was cancelled.'],
} as const;

function announce(job: Job): void {
  const serviceName = wanted[job.id];
  dropNotification(job.id);
  if (!isSettled(job) || serviceName === undefined || !document.hidden) return;
  const [title, body] = outcomes[job.state];
  // The tag keeps two tabs from announcing the same job twice.
  const notification = new Notification(`${title}: ${serviceName}`, { body, tag: `tomaat-${job.id}` });
  notification.onclick = () => {
    window.focus();
    notification.close();
    const address = `${basePath}/jobs/${encodeURIComponent(job.id)}`;
    if (location.pathname !== address) location.assign(address);
  };
}

const watched = new Set<string>();

/** Follows a job until it is settled, whatever the page shows. */
async function watch(jobId: string): Promise<void> {
  if (watched.has(jobId)) return;
  watched.add(jobId);
  while (Object.hasOwn(wanted, jobId)) {
    try {
      const job = await client.wait(jobId);
      follow(job);
      announce(job);
    } catch (error) {
      if (!(error instanceof TomaatError) || error.code !== 'UNREACHABLE') dropNotification(jobId);
      else await new Promise((resolve) => setTimeout(resolve, repeatMs));
    }
  }
  watched.delete(jobId);
}

/** After a reload. */
export function resumeNotifications(): void {
  for (const jobId of Object.keys(wanted)) void watch(jobId);
}
