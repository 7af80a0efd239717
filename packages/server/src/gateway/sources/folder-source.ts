import { TomaatError } from '@tomaat/core';
import type { SeenSeries, Source } from '../series.ts';
import { type FileFacts, filesBelow, readFacts, readUnchanged, type Stamp } from './folder-files.ts';

/*
 * A folder into which others put files. Nothing in it is changed. A file counts as complete when neither its size nor its
 * times have changed for the quiet time, and is read only then. While a folder holds a file that is not complete, or damaged, the
 * series beside it wait: that file may be one of theirs.
 */

export interface FolderSourceOptions {
  readonly name: string;
  readonly path: string;
  readonly quietMs: number;
  readonly maxFileBytes: number;
  /** Wall clock, by which files have their times, ms. */
  readonly now?: () => number;
  readonly monotonicMs?: () => number;
}

interface Known {
  readonly folder: string;
  readonly stamp: Stamp;
  /** By the monotonic clock: the times of a file on another machine's disk may lie in the future. */
  readonly sinceMs: number;
  /** Undefined until it is read; null for one that is no image. */
  readonly facts?: FileFacts | null;
  readonly fault?: unknown;
}

interface FolderSeries {
  readonly facts: FileFacts;
  readonly files: { readonly path: string; readonly stamp: Stamp; readonly instance: string }[];
  readonly instances: Set<string>;
  readonly folders: Set<string>;
}

interface Scan {
  readonly series: ReadonlyMap<string, FolderSeries>;
  /** Folders, with the number of files in them that are not complete or damaged. */
  readonly unsettled: ReadonlyMap<string, number>;
  readonly faults: readonly unknown[];
  readonly endedMs: number;
}

/** A scan is used for all who ask within this time, ms. */
const freshMs = 1000;

export function openFolderSource(options: FolderSourceOptions): Source {
  const { name, path: root, quietMs, maxFileBytes, now = Date.now } = options;
  const monotonicMs = options.monotonicMs ?? (() => performance.now());
  /** By path; what is not found again is forgotten. */
  let known = new Map<string, Known>();
  let last: Scan | undefined;
  let running: { scan: Promise<Scan>; stop: AbortController; waiting: number } | undefined;

  const isSettled = ({ stamp, sinceMs }: Known) =>
    now() - stamp.changedMs >= quietMs || monotonicMs() - sinceMs >= quietMs;

  async function scan(signal: AbortSignal): Promise<Scan> {
    const found = new Map<string, Known>();
    for await (const { path, folder, stamp } of filesBelow(root, signal)) {
      const before = known.get(path);
      let file: Known =
        before?.stamp.text === stamp.text ? before : { folder, stamp, sinceMs: monotonicMs() };
      const isUnread = file.facts === undefined;
      if (isUnread && isSettled(file)) file = await withFacts(path, file, signal);
      found.set(path, file);
    }
    known = found;
    last = summarize(found, monotonicMs());
    return last;
  }

  /** A scan that began after now, or ended within the last second; shared by all who ask. */
  async function freshScan(signal: AbortSignal): Promise<Scan> {
    signal.throwIfAborted();
    if (last && monotonicMs() - last.endedMs < freshMs) return last;
    if (!running) {
      const stop = new AbortController();
      const ended = scan(stop.signal).finally(() => {
        running = undefined;
      });
      running = { scan: ended, stop, waiting: 0 };
    }
    const shared = running;
    shared.waiting++;
    const aborted = Promise.withResolvers<never>();
    const abort = () => aborted.reject(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    try {
      return await Promise.race([shared.scan, aborted.promise]);
    } finally {
      signal.removeEventListener('abort', abort);
      // One who leaves does not end what others wait for.
      if (--shared.waiting === 0) shared.stop.abort(signal.reason);
    }
  }

  /** Images that a series has now, with files beside it that may belong to it: that many change when these are complete. */
  function countOf({ instances, folders }: FolderSeries, { unsettled }: Scan): number {
    return [...folders].reduce((sum, folder) => sum + (unsettled.get(folder) ?? 0), instances.size);
  }

  const toSeen = (found: FolderSeries, at: Scan): SeenSeries => {
    const { study, series, modality, bodyPart, description, studyDescription } = found.facts;
    const about = { modality, bodyPart, description, studyDescription };
    return { source: name, study, series, ...about, instances: countOf(found, at) };
  };

  return {
    name,
    async *search(signal) {
      const at = await freshScan(signal);
      for (const found of at.series.values())
        if (![...found.folders].some((folder) => at.unsettled.has(folder))) yield toSeen(found, at);
      if (at.faults.length > 0) throw unreadable(root, at.faults);
    },

    async look(study, series, signal) {
      const at = await freshScan(signal);
      const found = at.series.get(keyOf(study, series));
      return found && toSeen(found, at);
    },

    async instances(study, series, signal) {
      const at = await freshScan(signal);
      return [...(at.series.get(keyOf(study, series))?.instances ?? [])];
    },

    async *fetch(study, series, signal) {
      const files = (await freshScan(signal)).series.get(keyOf(study, series))?.files ?? [];
      for (const [index, { path, stamp }] of files.entries()) {
        signal.throwIfAborted();
        yield { name: `${index + 1}.dcm`, bytes: await readUnchanged(path, stamp, maxFileBytes) };
      }
    },
  };
}

const keyOf = (study: string, series: string) => `${study} ${series}`;

async function withFacts(path: string, file: Known, signal: AbortSignal): Promise<Known> {
  try {
    return { ...file, facts: (await readFacts(path, file.stamp, signal)) ?? null, fault: undefined };
  } catch (fault) {
    signal.throwIfAborted();
    const isDamaged = fault instanceof TomaatError;
    if (!isDamaged && (fault as NodeJS.ErrnoException).syscall === undefined) throw fault;
    // Removed meanwhile, or to be read again: the right to read it may be given later.
    return { ...file, fault };
  }
}

function summarize(files: ReadonlyMap<string, Known>, endedMs: number): Scan {
  const series = new Map<string, FolderSeries>();
  const unsettled = new Map<string, number>();
  const faults: unknown[] = [];
  for (const [path, { folder, stamp, facts, fault }] of files) {
    if (fault !== undefined) faults.push(fault);
    if (facts === undefined) unsettled.set(folder, (unsettled.get(folder) ?? 0) + 1);
    if (!facts) continue;
    const key = keyOf(facts.study, facts.series);
    const found = series.get(key) ?? { facts, files: [], instances: new Set(), folders: new Set() };
    series.set(key, found);
    found.files.push({ path, stamp, instance: facts.instance });
    found.instances.add(facts.instance);
    found.folders.add(folder);
  }
  return { series, unsettled, faults, endedMs };
}

/** Without the names of the files, which may be those of patients. */
function unreadable(root: string, faults: readonly unknown[]): TomaatError {
  const [first] = faults;
  const what = first instanceof TomaatError ? first.code : (first as NodeJS.ErrnoException).code;
  return new TomaatError(
    'UPSTREAM',
    `${faults.length} files in ${root} are damaged DICOM files or cannot be read (the first: ${what}). The series beside them wait. Replace or remove these files, or let the user of the gateway read them.`,
    { cause: first },
  );
}
