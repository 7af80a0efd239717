import type { OutgoingHttpHeaders, ServerResponse } from 'node:http';
import { TomaatError } from '@tomaat/core';
import type { FastifyReply } from 'fastify';
import type { AnswerHeaders } from './header-budget.ts';

/**
 * A `Content-Disposition` that every client understands: plain ASCII, with letters without their accents, and the real name as in
 * RFC 8187.
 */
export function contentDisposition(fileName: string): string {
  const ascii = fileName
    .normalize('NFKD')
    .replace(/\p{M}+/gu, '')
    .replace(/[^\w.-]+/g, '_');
  const encoded = encodeURIComponent(fileName.toWellFormed()).replace(
    /['()*]/g,
    (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`,
  );
  return `attachment; filename="${ascii}"; filename*=UTF-8''${encoded}`;
}

/**
 * Takes an answer over from fastify and begins it with the headers set so far, such as those that let an allowed page
 * read it.
 */
export function takeOver(reply: FastifyReply, status: number, headers: AnswerHeaders): ServerResponse {
  const all = { ...reply.getHeaders(), ...headers } as OutgoingHttpHeaders;
  reply.hijack();
  return reply.raw.writeHead(status, all);
}

const goneSignals = new WeakMap<FastifyReply, AbortSignal>();

/** Aborts when the client disconnects before its answer was written. One signal for each reply. */
export function clientGone(reply: FastifyReply): AbortSignal {
  const known = goneSignals.get(reply);
  if (known) return known;
  const gone = new AbortController();
  goneSignals.set(reply, gone.signal);
  reply.raw.once('close', () => {
    if (!reply.raw.writableFinished) gone.abort(new TomaatError('CANCELED', 'The client disconnected.'));
  });
  return gone.signal;
}
