import { type ErrorData, TomaatError } from '@tomaat/core';
import type { NamedFile, OperationName, Operations, Reply, Request, SeriesCards } from './messages.ts';

export interface CallOptions {
  signal?: AbortSignal;
  onProgress?(done: number, total: number): void;
}

/** DICOM files that the user selected, held by a dedicated worker until they are closed. */
export interface DicomSession extends SeriesCards {
  /** The user's name for the files: the folder, the archive, the file. */
  readonly name: string;
  /** Sends a request to the worker. Several calls may run at once. */
  call<Name extends OperationName>(
    name: Name,
    given: Operations[Name]['given'],
    options?: CallOptions,
  ): Promise<Operations[Name]['result']>;
  close(): void;
}

/**
 * Reads the headers of files, including those in archives, and sorts them into series.
 *
 * @throws TomaatError of the worker, or the signal's reason
 */
export async function openDicomSession(
  name: string,
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

interface Waiting extends CallOptions {
  resolve(result: unknown): void;
  reject(error: unknown): void;
}

function startWorker(): Pick<DicomSession, 'call' | 'close'> {
  const worker = new Worker(new URL('./worker.ts', import.meta.url), { type: 'module' });
  const waiting = new Map<number, Waiting>();
  let lastId = 0;
  const failAll = (error: unknown) => {
    for (const { reject } of waiting.values()) reject(error);
    waiting.clear();
  };
  worker.onmessage = ({ data: reply }: MessageEvent<Reply>) => {
    const call = waiting.get(reply.id);
    if (reply.kind === 'progress') return call?.onProgress?.(reply.done, reply.total);
    waiting.delete(reply.id);
    if (reply.kind === 'done') call?.resolve(reply.result);
    else call?.reject(revived(reply.error));
  };
  worker.onerror = () =>
    failAll(
      new TomaatError(
        'INTERNAL',
        'The part of this page that reads DICOM stopped. Reload the page and try again.',
      ),
    );
  return {
    call<Name extends OperationName>(
      name: Name,
      given: Operations[Name]['given'],
      options: CallOptions = {},
    ): Promise<Operations[Name]['result']> {
      const { signal } = options;
      if (signal?.aborted) return Promise.reject(signal.reason);
      const id = ++lastId;
      return new Promise<unknown>((resolve, reject) => {
        const cancel = () => {
          waiting.delete(id);
          worker.postMessage({ id, name: 'cancel' } satisfies Request);
          reject(signal?.reason);
        };
        const settled = () => signal?.removeEventListener('abort', cancel);
        signal?.addEventListener('abort', cancel, { once: true });
        waiting.set(id, {
          ...options,
          resolve(result) {
            settled();
            resolve(result);
          },
          reject(error) {
            settled();
            reject(error);
          },
        });
        worker.postMessage({ id, name, given } as Request);
      }) as Promise<Operations[Name]['result']>;
    },
    close() {
      worker.terminate();
      failAll(new TomaatError('BAD_INPUT', 'The files were closed.'));
    },
  };
}

const revived = (error: ErrorData) => TomaatError.from(error);
