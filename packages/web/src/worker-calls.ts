import { type ErrorData, TomaatError } from '@tomaat/core';
import { dataOf } from './worker-errors.ts';

/** Calls from the page to a worker of its own, with progress and cancellation: both sides, and the messages between them. */

/** What a worker does: the input and output of each task, by name. */
export type OperationTable = Record<string, { given: unknown; result: unknown }>;

type Request =
  | { readonly id: number; readonly name: string; readonly given: unknown }
  | { readonly id: number; readonly name: 'cancel' };

type Reply =
  | { readonly id: number; readonly kind: 'progress'; done: number; total: number; what?: string }
  | { readonly id: number; readonly kind: 'done'; readonly result: unknown }
  | { readonly id: number; readonly kind: 'failed'; readonly error: ErrorData };

export interface CallOptions {
  signal?: AbortSignal;
  onProgress?(done: number, total: number, what?: string): void;
}

export interface Calls<Operations extends OperationTable> {
  /** Sends a request to the worker. Several calls may run at once. Rejects with its TomaatError, or the signal's reason. */
  call<Name extends keyof Operations & string>(
    name: Name,
    given: Operations[Name]['given'],
    options?: CallOptions,
  ): Promise<Operations[Name]['result']>;
  close(): void;
}

interface Waiting extends CallOptions {
  resolve(result: unknown): void;
  reject(error: unknown): void;
}

/** The page's side. */
export function callWorker<Operations extends OperationTable>(
  worker: Worker,
  { stopped, closed }: { stopped: string; closed: string },
): Calls<Operations> {
  const waiting = new Map<number, Waiting>();
  let lastId = 0;
  const failAll = (error: unknown) => {
    for (const { reject } of waiting.values()) reject(error);
    waiting.clear();
  };
  worker.onmessage = ({ data: reply }: MessageEvent<Reply>) => {
    const call = waiting.get(reply.id);
    if (reply.kind === 'progress') return call?.onProgress?.(reply.done, reply.total, reply.what);
    waiting.delete(reply.id);
    if (reply.kind === 'done') call?.resolve(reply.result);
    else call?.reject(TomaatError.from(reply.error));
  };
  worker.onerror = () => failAll(new TomaatError('INTERNAL', stopped));
  return {
    call(name, given, options = {}) {
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
        worker.postMessage({ id, name, given } satisfies Request);
      });
    },
    close() {
      worker.terminate();
      failAll(new TomaatError('BAD_INPUT', closed));
    },
  };
}

export interface Task {
  readonly signal: AbortSignal;
  report(done: number, total: number, what?: string): void;
}

export type Handlers<Operations extends OperationTable> = {
  [Name in keyof Operations]: (
    given: Operations[Name]['given'],
    task: Task,
  ) => Promise<Operations[Name]['result']>;
};

interface WorkerScope {
  onmessage: ((event: MessageEvent<Request>) => void) | null;
  postMessage(reply: Reply, transfer?: Transferable[]): void;
}
const reportMs = 100;

/**
 * The worker's side: answers every request by its handler.
 *
 * @param buffersOf the memory of a result that is transferred to the page instead of being copied
 */
export function answerCalls<Operations extends OperationTable>(
  handlers: Handlers<Operations>,
  buffersOf: (result: unknown) => Transferable[] = () => [],
): void {
  const scope = globalThis as unknown as WorkerScope;
  const running = new Map<number, AbortController>();
  scope.onmessage = ({ data: request }) => {
    const { id, name } = request;
    if (!('given' in request)) return running.get(id)?.abort(new TomaatError('BAD_INPUT', 'Cancelled.'));
    const abort = new AbortController();
    running.set(id, abort);
    let lastMs = 0;
    let lastWhat: string | undefined;
    const report = (done: number, total: number, what?: string) => {
      const now = performance.now();
      if (now - lastMs < reportMs && done < total && what === lastWhat) return;
      lastMs = now;
      lastWhat = what;
      scope.postMessage({ id, kind: 'progress', done, total, what });
    };
    handlers[name](request.given, { signal: abort.signal, report })
      .then(
        (result) => scope.postMessage({ id, kind: 'done', result }, buffersOf(result)),
        (error: unknown) => scope.postMessage({ id, kind: 'failed', error: dataOf(error) }),
      )
      .finally(() => running.delete(id));
  };
}
