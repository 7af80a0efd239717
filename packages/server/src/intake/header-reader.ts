import { Worker } from 'node:worker_threads';
import {
  type ErrorData,
  type FilePrefix,
  type InspectOptions,
  type ReadLimits,
  type Rewrite,
  TomaatError,
  type VolumeHeader,
} from '@tomaat/core';
import { ownExtension, ownNodeOptions } from '../source.ts';

/** A file on disk to search for identifying text. */
export interface StoredFile {
  path: string;
  /** Its extension distinguishes a header from voxel data. */
  name: string;
  sizeBytes: number;
  /** New names for the files that the header of a pair refers to, by their old names in lower case. */
  dataFiles: Readonly<Record<string, string>>;
}

/** A file on the disk whose header is read. */
export interface InspectedFile {
  readonly path: string;
  /** As its sender calls it: for messages, and what the header of a pair names. */
  readonly name: string;
  readonly sizeBytes: number;
}

/** A file of one volume, and where it is written without the identity. */
export interface FileToClean extends InspectedFile {
  readonly into: string;
}

export interface CleanOptions extends ReadLimits {
  /** Of the patient, as in DeidentifyOptions. */
  readonly keepPatientCharacteristics?: boolean;
  /** Bytes that all files together may take: what is compressed as it comes may be larger. Otherwise UPLOAD_TOO_LARGE. */
  readonly maxBytes?: number;
  /** Bytes for which there is room on the disk. Otherwise DISK_FULL. */
  readonly spareBytes?: number;
}

/** What was written, durably. */
export interface CleanedFile {
  readonly digest: string;
  readonly sizeBytes: number;
}

/** The request to a thread, and its response. */
export type HeaderTask =
  | { kind: 'start'; file: FilePrefix; limits: ReadLimits }
  | { kind: 'inspect'; files: readonly InspectedFile[]; options: InspectOptions; isLong: boolean }
  | { kind: 'identify'; file: StoredFile }
  | { kind: 'refuse identity'; files: readonly InspectedFile[]; limits: ReadLimits }
  | { kind: 'clean'; files: readonly FileToClean[]; key: string; options: CleanOptions };
type HeaderValue = VolumeHeader | Rewrite | readonly (CleanedFile | undefined)[] | undefined;
export type HeaderAnswer =
  | { kind: 'ready' }
  /** Its event loop turns: it waits for the disk, or pauses between two pieces of a long header. */
  | { kind: 'alive' }
  | { kind: 'done'; value: HeaderValue }
  | { kind: 'refused'; error: ErrorData };

/**
 * Reads headers of untrusted files. No parser is known to be slow, and every expression in them is proved
 * linear (scripts/check-regexes.ts); this guards against an unknown slow case. Headers are read in separate
 * threads, so the event loop keeps running however long a header takes, and a thread that hangs is ended.
 */
export interface HeaderReader extends AsyncDisposable {
  /** As inspectStart() of core: what the first bytes of one file can tell. Also BAD_HEADER when it takes longer than the deadline. */
  start(file: FilePrefix, limits: ReadLimits): Promise<void>;
  /**
   * As inspectFiles() of core: the files of one volume, whole, on the disk. `isLong` says that there may be thousands of headers in
   * them: one thread is left to others then.
   */
  inspect(files: readonly InspectedFile[], options: InspectOptions, isLong?: boolean): Promise<VolumeHeader>;
  /** How to write the file without identifying text; undefined if it contains none. As findIdentifyingText() of core. */
  identify(file: StoredFile): Promise<Rewrite | undefined>;
  /** As refuseIdentity() of core, for the files of one volume, also those in an archive. */
  refuseIdentity(files: readonly InspectedFile[], limits: ReadLimits): Promise<void>;
  /**
   * Removes the identity from DICOM files, or from an archive, of one volume. `key` is that of their UIDs, as in its file.
   * Undefined for a file that is no part of the volume. What is at `into` after an error is to be deleted.
   */
  clean(
    files: readonly FileToClean[],
    key: string,
    options: CleanOptions,
  ): Promise<readonly (CleanedFile | undefined)[]>;
}

interface Job {
  task: HeaderTask;
  resolve(value: HeaderValue): void;
  reject(error: unknown): void;
}

interface Thread {
  readonly worker: Worker;
  isReady: boolean;
  job?: Job;
  timer?: NodeJS.Timeout;
}

const threadFile = new URL(`./header-thread${ownExtension}`, import.meta.url);
/** A header takes about a millisecond; on a loaded machine the thread may have to wait. */
const usualDeadlineMs = 10_000;
/** One is left to short tasks: others may have to go through whole files, and a series has thousands. */
const mostThreads = 3;
const isLong = (task: HeaderTask | undefined) =>
  task !== undefined && task.kind !== 'start' && (task.kind !== 'inspect' || task.isLong);

/** Starts a thread with the first header, and another only while all are busy. */
export function openHeaderReader({
  deadlineMs = usualDeadlineMs,
  thread: file = threadFile,
}: {
  deadlineMs?: number;
  thread?: URL;
} = {}): HeaderReader {
  const waiting: Job[] = [];
  const threads = new Set<Thread>();
  let isClosed = false;

  const canStart = ({ task }: Job) =>
    !isLong(task) || [...threads].filter(({ job }) => isLong(job?.task)).length < mostThreads - 1;

  /** Assigns waiting headers to free threads. */
  function next(): void {
    for (let at = 0; at < waiting.length && !isClosed; ) {
      if (!canStart(waiting[at])) {
        at++;
        continue;
      }
      const idle = [...threads].find(({ isReady, job }) => isReady && !job);
      if (!idle) {
        // A thread that is starting will take it.
        const isStarting = [...threads].some(({ isReady }) => !isReady);
        if (!isStarting && threads.size < mostThreads) start();
        return;
      }
      [idle.job] = waiting.splice(at, 1);
      watch(idle);
      idle.worker.postMessage(idle.job.task);
    }
  }

  function watch(thread: Thread): void {
    clearTimeout(thread.timer);
    thread.timer = setTimeout(() => {
      fail(thread, tooSlow(deadlineMs));
    }, deadlineMs);
  }

  function start(): void {
    const worker = new Worker(file, {
      execArgv: [...ownNodeOptions],
      env: {},
    });
    const thread: Thread = { worker, isReady: false };
    threads.add(thread);
    worker.on('message', (answer: HeaderAnswer) => {
      if (!threads.has(thread)) return;
      if (answer.kind === 'ready') thread.isReady = true;
      else if (answer.kind === 'alive') {
        if (thread.job) watch(thread);
        return;
      } else if (answer.kind === 'done') settle(thread, (job) => job.resolve(answer.value));
      else settle(thread, (job) => job.reject(TomaatError.from(answer.error)));
      next();
    });
    worker.on('error', (error) => {
      if (!threads.has(thread)) return;
      // If no thread starts, the queue would wait forever.
      if (!thread.isReady) thread.job ??= waiting.shift();
      fail(thread, error);
    });
  }

  function settle(thread: Thread, say: (job: Job) => void): void {
    clearTimeout(thread.timer);
    const { job } = thread;
    thread.job = undefined;
    if (job) say(job);
  }

  /** The thread is no longer usable; the header that it was reading gets the error. */
  function fail(thread: Thread, error: unknown): void {
    threads.delete(thread);
    void thread.worker.terminate();
    settle(thread, (job) => job.reject(error));
    next();
  }

  function ask(task: HeaderTask): Promise<HeaderValue> {
    if (isClosed) return Promise.reject(stopped());
    return new Promise((resolve, reject) => {
      waiting.push({ task, resolve, reject });
      next();
    });
  }

  return {
    start: async ({ name, prefix, sizeBytes }, limits) => {
      // Only the prefix's bytes cross, not the whole buffer behind it.
      await ask({ kind: 'start', file: { name, prefix: Uint8Array.from(prefix), sizeBytes }, limits });
    },
    inspect: async (files, options, isLong = false) =>
      (await ask({ kind: 'inspect', files, options, isLong })) as VolumeHeader,
    identify: async (stored) => (await ask({ kind: 'identify', file: stored })) as Rewrite | undefined,
    refuseIdentity: async (files, limits) => {
      await ask({ kind: 'refuse identity', files, limits });
    },
    clean: async (files, key, options) =>
      (await ask({ kind: 'clean', files, key, options })) as readonly (CleanedFile | undefined)[],
    async [Symbol.asyncDispose]() {
      isClosed = true;
      for (const { reject } of waiting.splice(0)) reject(stopped());
      const ending = [...threads].map((thread) => {
        settle(thread, ({ reject }) => reject(stopped()));
        return thread.worker.terminate();
      });
      threads.clear();
      await Promise.all(ending);
    },
  };
}

const tooSlow = (deadlineMs: number) =>
  new TomaatError(
    'BAD_HEADER',
    `Reading the header takes more than ${deadlineMs / 1000} s. Rewrite the file with a plain header, without extra fields`,
  );
const stopped = () => new TomaatError('BUSY', 'The server is shutting down. Try again in a minute.');
