import { type CallOptions, type Calls, callWorker } from '../worker-calls.ts';
import type { NamedFile, Operations, SeriesCards } from './messages.ts';

export type { CallOptions };

/** DICOM files that the user selected, held by a dedicated worker until they are closed. */
export interface DicomSession extends SeriesCards, Calls<Operations> {
  /** The user's name for the files: the folder, the archive, the file; undefined for several files. */
  readonly name?: string;
}

/**
 * Reads the headers of files, including those in archives, and sorts them into series.
 *
 * @throws TomaatError of the worker, or the signal's reason
 */
export async function openDicomSession(
  name: string | undefined,
  files: readonly NamedFile[],
  options: CallOptions = {},
): Promise<DicomSession> {
  const { call, close } = startWorker();
  try {
    const cards = await call('open', { files }, options);
    return { ...cards, name, call, close };
  } catch (error) {
    close();
    throw error;
  }
}

const startWorker = () =>
  callWorker<Operations>(new Worker(new URL('./worker.ts', import.meta.url), { type: 'module' }), {
    stopped: 'The part of this page that reads DICOM stopped. Reload the page and try again.',
    closed: 'The files were closed.',
  });
