import type { FastifyInstance, FastifyReply } from 'fastify';
import { defaultPace } from '../intake/byte-counter.ts';

/** The slowest accepted pace of senders and readers. */
export interface Pace {
  /** Default 8 KiB/s; 0 for no limit. */
  readonly minBytesPerSecond?: number;
  /** How long a client may fall behind that pace; default 30 s. */
  readonly patienceMs?: number;
}

/**
 * Disconnects clients that do not read their answer: each would hold an open file, buffers and a connection
 * indefinitely. Time counts only while bytes wait for the client; bytes that it reads earn it more time.
 */
export function hangUpOnSlowReaders(app: FastifyInstance, pace: Pace = {}): void {
  const { minBytesPerSecond = defaultPace.minBytesPerSecond, patienceMs = defaultPace.patienceMs } = pace;
  if (minBytesPerSecond === 0) return;
  const answers = new Map<FastifyReply['raw'], { taken: number; creditMs: number }>();
  app.addHook('onRequest', async (_request, reply) => {
    const { raw } = reply;
    answers.set(raw, { taken: 0, creditMs: patienceMs });
    raw.once('close', () => answers.delete(raw));
  });

  const everyMs = Math.min(1000, patienceMs / 4);
  let lastMs = performance.now();
  const timer = setInterval(() => {
    const nowMs = performance.now();
    // If the server itself was busy, the client is not blamed.
    const passedMs = Math.min(nowMs - lastMs, 2 * everyMs);
    lastMs = nowMs;
    for (const [{ socket }, state] of answers) {
      if (!socket) continue;
      const taken = socket.bytesWritten - socket.writableLength;
      const earnedMs = ((taken - state.taken) / minBytesPerSecond) * 1000;
      state.taken = taken;
      const spentMs = socket.writableLength > 0 ? passedMs : 0;
      state.creditMs = Math.min(patienceMs, state.creditMs + earnedMs - spentMs);
      if (state.creditMs < 0) socket.destroy();
    }
  }, everyMs).unref();
  app.addHook('onClose', async () => clearInterval(timer));
}
