import type { IncomingMessage } from 'node:http';
import type { Entry } from '@tomaat/client';
import { withoutTrailingSlashes } from '@tomaat/core';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { fitHeaders, headerBytes, relayedHeader } from '../http/header-budget.ts';
import { receiptLink } from '../http/receipts.ts';
import type { Headers } from './relay-request.ts';
import type { Target } from './targets.ts';

/** Which headers of a request and its answer the relay forwards. */

/** The caller's headers that are forwarded to the server. `authorization` too, but only to the registry's own server. */
const passedOn = [
  'content-type',
  'content-length',
  'content-encoding',
  'content-disposition',
  'accept',
  'accept-language',
  'prefer',
  'idempotency-key',
  'user-agent',
] as const;
/** The server's headers that are forwarded to the caller, in addition to all that begin with `tomaat-`. */
const passedBack = [
  'content-type',
  'content-length',
  'content-disposition',
  'content-encoding',
  'retry-after',
  'www-authenticate',
] as const;

/** The header of the request to the server. `added`: the headers that the registry will add to the answer. */
export function headerFor(request: FastifyRequest, target: Target, added: Headers): Headers {
  const headers: Headers = {
    // The server must leave room in its header for what is added here; a link to the receipt also becomes longer.
    [relayedHeader]: String(headerBytes(added) + String(added['tomaat-server']).length),
    // Kept alive, so that a server that refuses early can read on instead of breaking the connection under its answer.
    connection: 'keep-alive',
  };
  for (const name of passedOn) {
    const value = request.headers[name];
    if (value !== undefined) headers[name] = value;
  }
  // A credential never goes to an address that came from an announcement, not even on this machine, where any user may
  // listen. The registry's own server has the same keys.
  if (target.own && request.headers.authorization !== undefined) {
    headers.authorization = request.headers.authorization;
  }
  return headers;
}

/** The headers that the registry adds to an answer of the server. */
export function ownHeaders(reply: FastifyReply, { serverUrl = '' }: Entry): Headers {
  return {
    ...(reply.getHeaders() as Headers),
    // A server's answer must not act as the registry's own page.
    'content-security-policy': "default-src 'none'; sandbox",
    // In ASCII, even if the name is not.
    'tomaat-server': withoutTrailingSlashes(URL.parse(serverUrl)?.href ?? ''),
  };
}

/** The response headers that are sent back, with our own, which come first. */
export function headerBack({ headers: given }: IncomingMessage, own: Headers): Headers {
  const headers: Headers = {};
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined) continue;
    if (name.startsWith('tomaat-') || (passedBack as readonly string[]).includes(name)) headers[name] = value;
  }
  const receipt = linkedReceipt(given.link, String(own['tomaat-server']));
  if (receipt !== undefined) headers.link = receiptLink(receipt);
  return fitHeaders({ ...headers, ...own });
}

/** The address of the receipt of an answer, rewritten for clients that do not know the server. */
function linkedReceipt(link: string | string[] | undefined, serverUrl: string): string | undefined {
  const [, path, id] =
    /^<((?:\/[\w.~%-]{1,100}){0,20}\/api\/jobs\/([\w-]{1,100})\/receipt)>; rel="tomaat-receipt"/.exec(
      String(link ?? ''),
    ) ?? [];
  return id === undefined ? undefined : URL.parse(path, serverUrl)?.href;
}

/** The caller's query; `service` becomes the server's own id of the chosen entry. */
export function queryFor(request: FastifyRequest, entry: Entry): string {
  const url = request.raw.url ?? '';
  const query = new URLSearchParams(url.includes('?') ? url.slice(url.indexOf('?') + 1) : '');
  if (entry.serviceId !== undefined) query.set('service', entry.serviceId);
  return query.toString();
}
