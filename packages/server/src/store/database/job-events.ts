import { EventEmitter } from 'node:events';

/** Notifies listeners that a job or the queue has changed: those in this process, and by a channel those in others. */

export type JobEvents = ReturnType<typeof createJobEvents>;

/** Carries messages to the other processes that share a database. */
export interface Channel extends AsyncDisposable {
  /** Messages that are said in the same turn of the event loop may arrive together. Nothing is thrown if they cannot be sent. */
  say(message: string): void;
}

/** What a channel calls. */
export interface ChannelListener {
  heard(message: string): void;
  /** Messages may have been lost. */
  missed(): void;
}

/** `openChannel`: to other processes; there are none if it is missing. */
export function createJobEvents(openChannel?: (listener: ChannelListener) => Channel) {
  const emitter = new EventEmitter().setMaxListeners(0);

  function listen(event: string, listener: (id: string) => void): () => void {
    emitter.on(event, listener);
    return () => emitter.off(event, listener);
  }

  /** As events are named in messages: the kind and, of `job` and `cancel`, the id. */
  function hear(message: string): void {
    const [kind, id] = message.split(' ', 2);
    if (kind === 'job') emitter.emit(`job:${id}`);
    else if (kind === 'queued' || kind === 'queue') emitter.emit(kind);
    else if (kind === 'cancel') emitter.emit('cancel', id);
  }

  const channel = openChannel?.({
    heard: hear,
    missed() {
      for (const event of emitter.eventNames())
        if (event === 'queued' || event === 'queue' || String(event).startsWith('job:')) emitter.emit(event);
    },
  });

  function tell(message: string): void {
    hear(message);
    channel?.say(message);
  }

  return {
    changed: (id: string): void => tell(`job ${id}`),
    /** There may be work. */
    queued: (): void => tell('queued'),
    /** Positions have changed. */
    moved: (): void => tell('queue'),
    canceled: (id: string): void => tell(`cancel ${id}`),
    close: async (): Promise<void> => channel?.[Symbol.asyncDispose](),
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
