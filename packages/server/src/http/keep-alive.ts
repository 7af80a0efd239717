import type { IncomingMessage, ServerResponse } from 'node:http';

/**
 * When a caller that waits is sent an interim answer (100 Continue), ms after it began to wait: no more than 30 s
 * of silence in the first 75 s, and no more than 60 s up to 210 s. There are four, because some clients give up after a number of
 * them: Go's HTTP client, and with it Caddy, at the sixth, Apache at the eleventh, Python at the hundredth; one more
 * may already have answered an `Expect` (docs/decisions/0006).
 */
export const interimAfterMs: readonly number[] = [20_000, 45_000, 95_000, 150_000];
const mostInterim = 4;
/** A connection silent for this long is probed, so that firewalls and NAT keep it open. */
export const tcpKeepAliveMs = 30_000;

/** Programs that skip any interim answer; others, such as undici (Node's fetch), treat an unrequested one as an error. */
const patientAgents = /^(?:curl|Wget|python-requests|python-urllib3|Python-urllib)\//i;
/** Headers that proxies add. The proxy then reads the answer, and its operator sets its timeout. */
const proxyHeaders = [
  'via',
  'forwarded',
  'x-real-ip',
  'x-forwarded-for',
  'x-forwarded-host',
  'x-forwarded-proto',
];

/** Whether a waiting client may be sent an unrequested `100 Continue` (RFC 9110, 15.2). */
function mayContinue({ httpVersion, headers }: IncomingMessage): boolean {
  if (httpVersion !== '1.1' || !patientAgents.test(headers['user-agent'] ?? '')) return false;
  return proxyHeaders.every((name) => headers[name] === undefined);
}

const sent = new WeakMap<ServerResponse, number>();

/** Sends an interim answer to a client that accepts it, up to the number that all clients accept. */
export function sendInterim(request: IncomingMessage, response: ServerResponse): void {
  const before = sent.get(response) ?? 0;
  if (before === mostInterim || response.headersSent || response.destroyed || !mayContinue(request)) return;
  sent.set(response, before + 1);
  response.writeContinue();
}

/**
 * Sends the few interim answers to a waiting client, until stopped or answered, so that it does not time
 * out. TCP probes (`tcpKeepAliveMs`) keep firewalls open for every client.
 */
export function keepAlive(
  request: IncomingMessage,
  response: ServerResponse,
  afterMs: readonly number[] = interimAfterMs,
): () => void {
  if (!mayContinue(request)) return () => {};
  const timers = afterMs.map((ms) => setTimeout(sendInterim, ms, request, response));
  return () => {
    for (const timer of timers) clearTimeout(timer);
  };
}
