import type { Problem } from '@tomaat/client';
import { describeError, type ErrorCode, type ErrorData, TomaatError } from '@tomaat/core';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { takeInRest } from './send.ts';

/** Answers a request with the Problem of what was thrown; what is our fault goes to the log, with its cause. */
export function sendProblem(error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const known = toTomaatError(error);
  if (describeError(known.code).fault === 'server') {
    request.log.error(
      { err: known.cause ?? known, code: known.code, requestId: request.id },
      'request failed',
    );
  }
  const { retryAfterSeconds = retryAfter[known.code] } = known.detail ?? {};
  if (retryAfterSeconds !== undefined) reply.header('retry-after', String(retryAfterSeconds));
  takeInRest(request);
  const problem = toProblem(known, request.id);
  // As bytes: to a text fastify would add a charset, which this type does not have.
  return reply
    .code(problem.status)
    .type('application/problem+json')
    .send(Buffer.from(JSON.stringify(problem)));
}

/** When to try again after what passes by itself, s. */
const retryAfter: Partial<Record<ErrorCode, number>> = { BUSY: 5, WORKER_DIED: 5, DISK_FULL: 30 };

/** Any throw as a TomaatError: fastify's own refusals are translated, the unknown becomes INTERNAL without its text. */
export function toTomaatError(error: unknown): TomaatError {
  if (error instanceof TomaatError) return error;
  const { statusCode, code, message } = (error ?? {}) as {
    statusCode?: number;
    code?: string;
    message?: string;
  };
  if (code === 'ENOSPC')
    return new TomaatError('DISK_FULL', 'The disk of the server is full. Try again later.', { cause: error });
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
    return new TomaatError('BAD_REQUEST', `${message}. Mend the request and send it again.`, {
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
