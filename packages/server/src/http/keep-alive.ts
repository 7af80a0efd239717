import type { IncomingMessage, ServerResponse } from 'node:http';

/**
 * When a caller that waits is sent an interim answer (100 Continue), ms after it began to wait: no more than 30 s
 * of silence in the first 75 s, and no more than 60 s up to 210 s. They are four, because there are parties that give up at a number of
 * them: Go's HTTP client, and with it Caddy, at the sixth, Apache at the eleventh, Python at the hundredth; one more
 * may have answered an `Expect` (docs/decisions/0006).
 */
export const interimAfterMs: readonly number[] = [20_000, 45_000, 95_000, 150_000];
const mostInterim = 4;
/** A connection on which nothing is said for this long is probed, so that firewalls and NAT keep it open. */
export const tcpKeepAliveMs = 30_000;

/** Programs that skip any interim answer; others, such as undici (Node's fetch), take one that they did not ask for as a fault. */
const patientAgents = /^(?:curl|Wget|python-requests|python-urllib3|Python-urllib)\//i;
/** What proxies add. Whoever reads the answer then is the proxy, whose patience its operator sets. */
const proxyHeaders = [
  'via',
  'forwarded',
  'x-real-ip',
  'x-forwarded-for',
  'x-forwarded-host',
  'x-forwarded-proto',
];

/** Whether a waiting client may be sent `100 Continue` unasked (RFC 9110, 15.2). */
function mayContinue({ httpVersion, headers }: IncomingMessage): boolean {
  if (httpVersion !== '1.1' || !patientAgents.test(headers['user-agent'] ?? '')) return false;
  return proxyHeaders.every((name) => headers[name] === undefined);
}

const sent = new WeakMap<ServerResponse, number>();

/** Sends an interim answer to a client that bears it, as long as it has not had as many as all bear. */
export function sendInterim(request: IncomingMessage, response: ServerResponse): void {
  const before = sent.get(response) ?? 0;
  if (before === mostInterim || response.headersSent || response.destroyed || !mayContinue(request)) return;
  sent.set(response, before + 1);
  response.writeContinue();
}

/**
 * Sends the few interim answers to a client that waits, until stopped or answered, so that it does not think that
 * we died. Firewalls are kept open by the probes of TCP (`tcpKeepAliveMs`), for every client.
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
