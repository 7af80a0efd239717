import type { FastifyInstance, FastifyReply } from 'fastify';
import { defaultPace } from '../intake/byte-counter.ts';

/** The slowest pace that is waited for, of senders and of readers. */
export interface Pace {
  /** 8 KiB/s unless told otherwise; 0 for any. */
  readonly minBytesPerSecond?: number;
  /** How long someone may fall behind that pace; 30 s unless told otherwise. */
  readonly patienceMs?: number;
}

/**
 * Hangs up on clients that ask and do not take the answer: each would hold an open file, buffers and a connection for as
 * long as it likes. Time counts only while bytes wait for the client; what it takes earns it time again.
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
    // A server that was busy itself does not blame the client for it.
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
