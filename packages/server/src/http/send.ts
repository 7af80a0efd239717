import { TomaatError } from '@tomaat/core';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { discardRest } from '../intake/byte-counter.ts';

/** A `Content-Disposition` that every client understands: plain ASCII, and the real name by RFC 8187. */
export function contentDisposition(fileName: string): string {
  const ascii = fileName.replace(/[^\w.-]+/g, '_');
  const encoded = encodeURIComponent(fileName).replace(
    /['()*]/g,
    (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`,
  );
  return `attachment; filename="${ascii}"; filename*=UTF-8''${encoded}`;
}

/** Resolves when the answer was written to the client's socket whole (true), or the client went away (false). */
export function answered(reply: FastifyReply): Promise<boolean> {
  return new Promise((resolve) => {
    if (reply.raw.writableFinished || reply.raw.destroyed) resolve(reply.raw.writableFinished);
    else reply.raw.once('close', () => resolve(reply.raw.writableFinished));
  });
}

/** Aborts when the client goes away before its answer was written. */
export function clientGone(reply: FastifyReply): AbortSignal {
  const gone = new AbortController();
  reply.raw.once('close', () => {
    if (!reply.raw.writableFinished) gone.abort(new TomaatError('CANCELED', 'The client went away.'));
  });
  return gone.signal;
}

/**
 * For a request that is answered before its body was read: takes in what the sender still writes, within bounds, so
 * that it gets round to reading the answer instead of finding the connection broken. Beyond them it is broken.
 */
export function takeInRest({ raw }: FastifyRequest): void {
  if (raw.complete) return;
  void discardRest(raw).then((ended) => {
    if (!ended) raw.socket.destroy();
  });
}
