import type { IncomingMessage, ServerResponse } from 'node:http';

const everyMs = 10_000;

/**
 * Whether a waiting client may be sent `100 Continue` unasked. requests, curl and browsers skip over any
 * number of them (RFC 9110 15.2); undici, which is also Node's fetch, takes one for a fault.
 */
export function mayContinue(request: IncomingMessage): boolean {
  const agent = request.headers['user-agent'];
  return request.httpVersion === '1.1' && agent !== undefined && !/^(node|undici)\b/i.test(agent);
}

/** Sends `100 Continue` now and then until stopped or answered, so that no proxy or client thinks that we died. */
export function keepAlive(
  request: IncomingMessage,
  response: ServerResponse,
  intervalMs = everyMs,
): () => void {
  if (!mayContinue(request)) return () => {};
  const timer = setInterval(() => {
    if (response.headersSent || response.destroyed) clearInterval(timer);
    else response.writeContinue();
  }, intervalMs);
  return () => clearInterval(timer);
}
