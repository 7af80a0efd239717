import type { FastifyReply, FastifyRequest } from 'fastify';
import { discardRest } from '../intake/byte-counter.ts';

/** Resolves when the whole response was written to the client's socket (true), or the client disconnected (false). */
export function answered(reply: FastifyReply): Promise<boolean> {
  return new Promise((resolve) => {
    if (reply.raw.writableFinished || reply.raw.destroyed) resolve(reply.raw.writableFinished);
    else reply.raw.once('close', () => resolve(reply.raw.writableFinished));
  });
}

/**
 * For a request that is answered before its body was read: reads what the sender still writes, within limits, so that it
 * reads the response instead of finding the connection broken. Beyond them it is broken.
 */
export function takeInRest({ raw }: FastifyRequest, reply: FastifyReply): void {
  if (raw.complete) return;
  void Promise.all([discardRest(raw), answered(reply)]).then(([ended]) => {
    if (ended) return;
    // Broken at once, a connection with bytes that nobody read takes the answer with it (RFC 9112, 9.6).
    raw.socket.end();
    setTimeout(() => raw.destroy(), lingerMs).unref();
  });
}

/** Time that a sender has to read a response before its connection is closed. */
const lingerMs = 1000;
