import { type IncomingMessage, STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import { TomaatError } from '@tomaat/core';
import { toProblem } from '../problem/problem.ts';
import { type ProblemLink, problemPage, problemPagePolicy } from '../problem/problem-page.ts';

/**
 * Refuses what a proxy and a server may read differently, and what Node accepts: two Host headers (or none),
 * chunks in HTTP/1.0, a body where the method has none; and bodies in a coding that the server does not decode.
 */
export function checkFraming({ rawHeaders, headers, httpVersion, method }: IncomingMessage): void {
  const refuse = (field: string, message: string) => {
    throw new TomaatError('BAD_REQUEST', message, { field });
  };
  const hosts = rawHeaders.filter((name, i) => i % 2 === 0 && name.toLowerCase() === 'host').length;
  if (hosts > 1) refuse('Host', `The request has ${hosts} Host headers. Send one.`);
  if (hosts === 0 && httpVersion === '1.1') refuse('Host', 'The request has no Host header. Send one.');
  const chunked = headers['transfer-encoding'] !== undefined;
  if (chunked && httpVersion === '1.0') {
    refuse('Transfer-Encoding', 'HTTP/1.0 has no Transfer-Encoding. Send HTTP/1.1, or a Content-Length.');
  }
  const length = headers['content-length'];
  if ((method === 'GET' || method === 'HEAD') && (chunked || (length !== undefined && length !== '0'))) {
    refuse('Content-Length', `A ${method} request takes no body. Send it without one.`);
  }
  const coding = headers['content-encoding']?.trim().toLowerCase() ?? 'identity';
  if (coding !== 'identity' && coding !== '') {
    throw new TomaatError(
      'UNSUPPORTED_MEDIA',
      'Bodies with a Content-Encoding are not accepted. Send the body unencoded; a compressed file (.nii.gz) is sent unchanged, without this header.',
      { field: 'Content-Encoding' },
    );
  }
}

/** Answers input that is not HTTP, or too slow to become a request, with a Problem; then closes the connection. */
export function answerParseError(error: NodeJS.ErrnoException & { reason?: string }, socket: Duplex): void {
  // The response to the malformed request, if it got that far.
  const { _httpMessage: response } = socket as { _httpMessage?: { headersSent: boolean } };
  if (error.code === 'ECONNRESET' || !socket.writable || response?.headersSent) {
    socket.destroy();
    return;
  }
  socket.end(rawProblem(describeParseError(error)));
}

/**
 * A whole HTTP answer with the Problem of an error, after which the connection ends: for what is not a request.
 * With a link it is a page.
 */
export function rawProblem(error: TomaatError, link?: ProblemLink): Buffer {
  const problem = toProblem(error);
  const body = Buffer.from(link ? problemPage(problem, link) : JSON.stringify(problem));
  const type = link
    ? `text/html; charset=utf-8\r\nContent-Security-Policy: ${problemPagePolicy}`
    : 'application/problem+json';
  const head =
    `HTTP/1.1 ${problem.status} ${STATUS_CODES[problem.status]}\r\nContent-Type: ${type}\r\n` +
    `X-Content-Type-Options: nosniff\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n`;
  return Buffer.concat([Buffer.from(head, 'latin1'), body]);
}

function describeParseError({ code, reason }: { code?: string; reason?: string }): TomaatError {
  if (code === 'HPE_HEADER_OVERFLOW') {
    return new TomaatError(
      'HEADER_TOO_LARGE',
      `The header has more than ${headerBytes} bytes. Send a shorter one.`,
    );
  }
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') {
    return new TomaatError(
      'UPLOAD_TOO_SLOW',
      'The header of the request took too long to arrive. Try again over a better connection.',
    );
  }
  const field = /Content-Length|Transfer-Encoding|Host/i.exec(reason ?? '')?.[0];
  return new TomaatError(
    'BAD_REQUEST',
    `The request is not valid HTTP${reason ? ` (${reason})` : ''}. Send one that follows RFC 9112.`,
    { field },
  );
}

/** The most bytes that a request's header may have. */
export const headerBytes = 16_384;
