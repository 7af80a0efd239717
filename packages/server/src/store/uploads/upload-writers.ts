import { setTimeout as delay } from 'node:timers/promises';
import { TomaatError } from '@tomaat/core';

/** The current writer of each upload: at most one, which the next one ends. */

/** The writer of an upload: its progress, how to end it, and when it has ended. */
export interface UploadWriter {
  at: number;
  readonly stop: AbortController;
  ended: Promise<unknown>;
}

/** A sender that is silent this long is considered dead when another request wants to continue. */
const silenceMs = 150;
/** An active sender may continue this long. */
const longestGraceMs = 10_000;
export function createUploadWriters() {
  const writers = new Map<string, UploadWriter>();

  /**
   * Ends the current writer of the upload, and waits until the received bytes are durable. A broken connection may
   * still hold bytes to be read: only a writer that receives none is stopped.
   */
  async function takeOver(
    id: string,
    graceMs = silenceMs,
    why = 'Another request is already continuing this upload.',
  ): Promise<void> {
    const endMs = performance.now() + longestGraceMs;
    for (let writer = writers.get(id); writer; writer = writers.get(id)) {
      const before = writer.at;
      const settled = writer.ended.then(
        () => true,
        () => true,
      );
      const isOver = graceMs > 0 && (await Promise.race([settled, delay(graceMs, false, { ref: false })]));
      if (isOver || (graceMs > 0 && writer.at > before && performance.now() < endMs)) continue;
      writer.stop.abort(new TomaatError('CONFLICT', why));
      await settled;
    }
  }

  return {
    takeOver,
    isWritten: (id: string): boolean => writers.has(id),
    /** Writes once no other request does. Requests that wait for the same writer continue in their order. */
    async run<T>(id: string, atBytes: number, write: (writer: UploadWriter) => Promise<T>): Promise<T> {
      do await takeOver(id);
      while (writers.has(id));
      const writer: UploadWriter = { at: atBytes, stop: new AbortController(), ended: Promise.resolve() };
      const ended = write(writer).finally(() => writers.delete(id));
      writer.ended = ended;
      writers.set(id, writer);
      return ended;
    },
    /** Ends all writers, and waits until the received bytes are durable. */
    endAll: async (): Promise<void> => {
      await Promise.all([...writers.keys()].map((id) => takeOver(id, 0)));
    },
  };
}
