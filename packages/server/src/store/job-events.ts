import { EventEmitter } from 'node:events';

/** Notifies listeners in this process that a job or the queue has changed. */

export type JobEvents = ReturnType<typeof createJobEvents>;

export function createJobEvents() {
  const emitter = new EventEmitter().setMaxListeners(0);

  function listen(event: string, listener: (id: string) => void): () => void {
    emitter.on(event, listener);
    return () => emitter.off(event, listener);
  }

  return {
    changed: (id: string): void => void emitter.emit(`job:${id}`),
    /** There may be work. */
    queued: (): void => void emitter.emit('queued'),
    /** Positions have changed. */
    moved: (): void => void emitter.emit('queue'),
    canceled: (id: string): void => void emitter.emit('cancel', id),
    /** Calls `listener` at each change of the job; returns a function that stops this. */
    watch: (id: string, listener: () => void): (() => void) => listen(`job:${id}`, listener),
    /** `queued`: there may be work; `queue`: positions have changed; `cancel`: this job was cancelled. */
    on: (event: 'queued' | 'queue' | 'cancel', listener: (id: string) => void): (() => void) =>
      listen(event, listener),
  };
}

/** Reads again at each change of the job until `isOver`; rejects when `signal` aborts. */
export async function readUntil<T>(
  read: () => Promise<T>,
  isOver: (value: T) => boolean,
  { watch, signal }: { watch(listener: () => void): () => void; signal?: AbortSignal },
): Promise<T> {
  for (;;) {
    signal?.throwIfAborted();
    let wake = () => {};
    const change = new Promise<void>((resolve) => {
      wake = resolve;
    });
    const unwatch = watch(wake);
    signal?.addEventListener('abort', wake);
    try {
      const value = await read();
      if (isOver(value)) return value;
      await change;
    } finally {
      unwatch();
      signal?.removeEventListener('abort', wake);
    }
  }
}
