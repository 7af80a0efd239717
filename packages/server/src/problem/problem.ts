import type { Problem } from '@tomaat/client';
import { describeError, type ErrorCode, type ErrorData, reservedWords, TomaatError } from '@tomaat/core';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { problemPage, problemPagePolicy } from './problem-page.ts';
import { takeInRest } from './take-in-rest.ts';

/** Answers a request with the Problem of what was thrown; what is our fault goes to the log, with its cause. */
export function sendProblem(error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const known = toTomaatError(error);
  if (describeError(known.code).fault === 'server') {
    request.log.error(
      { err: known.cause ?? known, code: known.code, requestId: request.id },
      'request failed',
    );
  }
  setRetryAfter(reply, known);
  forgetFile(reply);
  takeInRest(request, reply);
  const problem = toProblem(known, request.id);
  if (wantsPage(request)) {
    const link = request.server.publicAddress.rootFrom(request.originalUrl);
    return reply
      .code(problem.status)
      .header('content-security-policy', problemPagePolicy)
      .type('text/html; charset=utf-8')
      .send(problemPage(problem, { link, text: request.server.pageLink }));
  }
  // As bytes: to a text fastify would add a charset, which this type does not have.
  return reply
    .code(problem.status)
    .type('application/problem+json')
    .send(Buffer.from(JSON.stringify(problem)));
}

/** Takes back what was set for the answer that failed: a problem is neither a file to save nor a version of one. */
export function forgetFile(reply: FastifyReply): void {
  for (const name of ['content-disposition', 'etag']) reply.removeHeader(name);
}

/** Whether a person follows a link: what programs request is always answered as JSON. */
function wantsPage({ method, url, headers }: FastifyRequest): boolean {
  if (method !== 'GET' && method !== 'HEAD') return false;
  if (!/\btext\/html\b/i.test(headers.accept ?? '')) return false;
  const [, first] = url.split(/[/?]/, 2);
  return !(reservedWords as readonly string[]).includes(first) || pageWords.includes(first);
}

/** Reserved words at which the page has addresses, too. */
const pageWords = ['services', 'auth', 'assets'];

/** States when to retry, if that is known. */
export function setRetryAfter(reply: FastifyReply, { code, detail }: TomaatError): void {
  const { retryAfterSeconds = retryAfter[code] } = detail ?? {};
  if (retryAfterSeconds !== undefined) reply.header('retry-after', String(retryAfterSeconds));
}

/** When to retry after a temporary failure, s. */
const retryAfter: Partial<Record<ErrorCode, number>> = { BUSY: 5, WORKER_DIED: 5, DISK_FULL: 30 };

/** Any throw as a TomaatError: fastify's own refusals are translated, the unknown becomes INTERNAL without its text. */
export function toTomaatError(error: unknown): TomaatError {
  if (error instanceof TomaatError) return error;
  const { statusCode, code } = (error ?? {}) as { statusCode?: number; code?: string };
  // Some of fastify's own texts end with a full stop.
  const message = String((error as Error | undefined)?.message ?? '').replace(/\.{1,2}$/, '');
  if (code === 'ENOSPC')
    return new TomaatError('DISK_FULL', 'The server’s disk is full. Try again later.', { cause: error });
  if (statusCode === 404)
    return new TomaatError('NOT_FOUND', 'There is nothing at this address.', { cause: error });
  if (statusCode === 413)
    return new TomaatError('UPLOAD_TOO_LARGE', `${message}. Send less.`, { cause: error });
  if (statusCode === 415)
    return new TomaatError('UNSUPPORTED_MEDIA', `${message}. Send another content type.`, {
      field: 'Content-Type',
      cause: error,
    });
  if (statusCode !== undefined && statusCode >= 400 && statusCode < 500) {
    return new TomaatError('BAD_REQUEST', `${message}. Correct the request and send it again.`, {
      cause: error,
    });
  }
  return new TomaatError(
    'INTERNAL',
    'Something went wrong on the server. Its log has the details under the request id.',
    {
      cause: error,
    },
  );
}

/** The RFC 9457 body for an error. */
export function toProblem(error: ErrorData, requestId?: string): Problem {
  const { status, retryable, title } = describeError(error.code);
  return {
    type: `urn:tomaat:error:${error.code.toLowerCase().replaceAll('_', '-')}`,
    title,
    status,
    detail: error.message,
    code: error.code,
    retryable,
    field: error.field,
    requestId,
    facts: error.detail,
  };
}
