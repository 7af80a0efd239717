import type { InputParameter, Job, JobState } from '@tomaat/client';
import type { Label, VolumeFactsOf } from '@tomaat/core';
import { useSyncExternalStore } from 'react';
import { keptAt } from './base.ts';
import type { ComputedOutput } from './compute/messages.ts';
import type { SentSeries } from './dicom/originals.ts';

/**
 * What this browser remembers: the list of its jobs (localStorage), and the files sent for each (IndexedDB), so that
 * a reload continues, the scan can be shown with its result, and a failed job can be sent again. None of it leaves
 * the browser; it is deleted with the job.
 */
export interface HistoryEntry {
  /** Created before the upload; identifies the files in this browser, and the request at the server. */
  key: string;
  /** Missing until the server has accepted the upload. */
  jobId?: string;
  service: string;
  serviceName: string;
  fileName: string;
  createdTime: string;
  state: JobState | 'sending';
  /** The user who submitted it, if the server has logins: another user of this browser does not see it. */
  owner?: string;
  expiresTime?: string;
  /** When the user deleted it: it is hidden, and the server is told a little later (`deletion.ts`). */
  deleteTime?: string;
  /** Ids of the uploads on the server, by input and file number (`volume/0`), for as long as they may exist. */
  uploads?: Readonly<Record<string, string>>;
  /** The sent DICOM series, by input. */
  series?: Readonly<Record<string, SentSeries>>;
}

/** A request as submitted, with the files as sent. */
export interface Submission {
  key: string;
  service: string;
  serviceName: string;
  /** The files of each input, in the form in which they are sent. */
  files: Record<string, { name: string; blob: Blob }[]>;
  values: Record<string, InputParameter>;
  frame?: number;
  /** The DICOM series among the files, by input. */
  series?: Readonly<Record<string, SentSeries>>;
  /** Of what is computed here: the shapes of the volumes, from their headers, by input. */
  shapes?: Readonly<Record<string, VolumeFactsOf>>;
  /** What the user's file is called here; the server may know it by a neutral name. */
  fileName: string;
  createdTime: string;
}

/** A settled job that this browser computed itself, with its results. */
export interface LocalResult {
  key: string;
  job: Job;
  outputs: readonly ComputedOutput[];
  /** Names and colours of the values of its label maps. */
  labels: readonly Label[];
  /** What was computed of what, for the user to keep. */
  record: unknown;
}

const listKey = keptAt('tomaat.jobs');
/** More than two batches of 200 scans. */
const longestList = 500;
/** How long this browser keeps a job with its files. */
export const keptMs = 7 * 24 * 3_600_000;

// ---- The list ----

/** All stored entries, those of the current user, and of these what is not deleted. */
interface Lists {
  text: string | null;
  all: readonly HistoryEntry[];
  own: readonly HistoryEntry[];
  list: readonly HistoryEntry[];
}
let shown: Lists = { text: null, all: [], own: [], list: [] };
let owner: string | undefined;

/** Sets the owner of the list. */
export function belongTo(who: string): void {
  if (who === owner) return;
  owner = who;
  shown = listsOf(shown.text, shown.all);
  for (const listener of listeners) listener();
}

export const currentOwner = (): string | undefined => owner;

const ownOf = (all: readonly HistoryEntry[]) => all.filter((entry) => entry.owner === owner);

function listsOf(text: string | null, all: readonly HistoryEntry[]): Lists {
  const own = ownOf(all);
  return { text, all, own, list: own.filter(({ deleteTime }) => deleteTime === undefined) };
}

/** If the browser stores nothing, the list lasts as long as the page. */
let withoutStorage: string | null = null;
const listeners = new Set<() => void>();

function readText(): string | null {
  try {
    return localStorage.getItem(listKey) ?? withoutStorage;
  } catch {
    return withoutStorage;
  }
}

function readShown() {
  const text = readText();
  if (text !== shown.text) {
    shown = listsOf(text, parseList(text));
  }
  return shown;
}

/** The current user's entries, with those that are deleted and of which the server has not been told. */
export const history = (): readonly HistoryEntry[] => readShown().own;
const others = () => readShown().all.filter((entry) => entry.owner !== owner);

function parseList(text: string | null): HistoryEntry[] {
  try {
    const list: unknown = JSON.parse(text ?? '[]');
    return Array.isArray(list) ? list.filter(isEntry) : [];
  } catch {
    return [];
  }
}

function isEntry(value: unknown): value is HistoryEntry {
  const entry = value as HistoryEntry;
  return ['key', 'service', 'serviceName', 'fileName', 'createdTime', 'state'].every(
    (name) => typeof entry?.[name as keyof HistoryEntry] === 'string',
  );
}

function writeList(list: readonly HistoryEntry[], rest = others()): void {
  const text = JSON.stringify([...list.slice(0, longestList), ...rest]);
  try {
    localStorage.setItem(listKey, text);
  } catch {
    withoutStorage = text;
  }
  for (const listener of listeners) listener();
}

export function remember(entry: HistoryEntry): void {
  writeList([{ ...entry, owner }, ...history().filter(({ key }) => key !== entry.key)]);
}

/** Marks jobs as deleted, or as not deleted. */
export function markDeleted(keys: readonly string[], deleteTime: string | undefined): void {
  writeList(history().map((entry) => (keys.includes(entry.key) ? { ...entry, deleteTime } : entry)));
}

export function updateEntry(key: string, change: Partial<HistoryEntry>): void {
  const list = history();
  const old = list.find((entry) => entry.key === key);
  if (!old || Object.entries(change).every(([name, value]) => old[name as keyof HistoryEntry] === value))
    return;
  writeList(list.map((entry) => (entry.key === key ? { ...entry, ...change } : entry)));
}

/** Records the outcome of a job; a job that was opened by a link from elsewhere is not added to the list. */
export function noteJob(job: Job): void {
  const entry = entryOf(job.id);
  if (entry) updateEntry(entry.key, { state: job.state, expiresTime: job.expiresTime });
}

export const entryAt = (key: string): HistoryEntry | undefined =>
  history().find((entry) => entry.key === key);

export function entryOf(jobId: string): HistoryEntry | undefined {
  return history().find((entry) => entry.jobId === jobId);
}

/** Forgets a job and its files, in this browser only. */
export async function forget(key: string): Promise<void> {
  writeList(history().filter((entry) => entry.key !== key));
  await deleteFiles(key);
}

function onHistory(listener: () => void): () => void {
  listeners.add(listener);
  window.addEventListener('storage', listener);
  return () => {
    listeners.delete(listener);
    window.removeEventListener('storage', listener);
  };
}

/** The current user's jobs, without deleted ones. */
export const useHistory = (): readonly HistoryEntry[] =>
  useSyncExternalStore(onHistory, () => readShown().list);

/** Whether the user deleted this job. */
export const useIsDeleted = (jobId: string): boolean =>
  useSyncExternalStore(onHistory, () => entryOf(jobId)?.deleteTime !== undefined);

// ---- The files ----

const memory = new Map<string, Submission>();
const resultsInMemory = new Map<string, LocalResult>();
type StoreName = 'submissions' | 'results';
/** A database for each: a tab with an older version of this page goes on with those that it knows. */
const databaseNames: Readonly<Record<StoreName, string>> = {
  submissions: keptAt('tomaat'),
  results: keptAt('tomaat.results'),
};
const databases = new Map<StoreName, Promise<IDBDatabase>>();

function openStore(name: StoreName): Promise<IDBDatabase> {
  const opened =
    databases.get(name) ??
    new Promise<IDBDatabase>((resolve, reject) => {
      const request = indexedDB.open(databaseNames[name], 1);
      request.onupgradeneeded = () => request.result.createObjectStore(name, { keyPath: 'key' });
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  databases.set(name, opened);
  return opened;
}

async function inStore<T>(
  name: StoreName,
  mode: IDBTransactionMode,
  act: (store: IDBObjectStore) => IDBRequest<T>,
): Promise<T> {
  const opened = await openStore(name);
  return new Promise((resolve, reject) => {
    const transaction = opened.transaction(name, mode);
    const request = act(transaction.objectStore(name));
    transaction.oncomplete = () => resolve(request.result);
    transaction.onabort = () => reject(transaction.error);
  });
}

/** Keeps the files for a reload; false if the browser has no room, in which case they last as long as the page. */
export async function keepSubmission(submission: Submission): Promise<boolean> {
  memory.set(submission.key, submission);
  try {
    await inStore('submissions', 'readwrite', (store) => store.put(submission));
    // From there it is read again: the files of many scans do not stay in memory.
    memory.delete(submission.key);
    return true;
  } catch {
    return false;
  }
}

export const findSubmission = (key: string): Promise<Submission | undefined> =>
  findIn('submissions', memory, key);

/** Keeps what this browser computed; without room for it, it lasts as long as the page. */
export async function keepLocalResult(result: LocalResult): Promise<void> {
  resultsInMemory.set(result.key, result);
  try {
    await inStore('results', 'readwrite', (store) => store.put(result));
    resultsInMemory.delete(result.key);
  } catch {
    // It stays in memory.
  }
}

export const findLocalResult = (key: string): Promise<LocalResult | undefined> =>
  findIn('results', resultsInMemory, key);

async function findIn<T>(
  name: StoreName,
  inMemory: ReadonlyMap<string, T>,
  key: string,
): Promise<T | undefined> {
  const found = inMemory.get(key);
  if (found) return found;
  try {
    return (await inStore<T | undefined>(name, 'readonly', (store) => store.get(key))) ?? undefined;
  } catch {
    return undefined;
  }
}

async function deleteFiles(key: string): Promise<void> {
  memory.delete(key);
  resultsInMemory.delete(key);
  for (const name of ['submissions', 'results'] as const)
    await inStore(name, 'readwrite', (store) => store.delete(key)).catch(() => undefined);
}

/** Deletes files that belong to no job in the list, and jobs after a week. */
export async function tidy(): Promise<void> {
  const { all } = readShown();
  const young = all.filter((entry) => Date.now() - Date.parse(entry.createdTime) < keptMs);
  if (young.length < all.length)
    writeList(
      ownOf(young),
      young.filter((entry) => entry.owner !== owner),
    );
  const known = new Set(young.map(({ key }) => key));
  for (const name of ['submissions', 'results'] as const) {
    const keys = await inStore(name, 'readonly', (store) => store.getAllKeys()).catch(() => []);
    for (const key of keys) if (typeof key === 'string' && !known.has(key)) await deleteFiles(key);
  }
}
