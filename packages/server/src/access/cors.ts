import { exposedHeaders } from '@tomaat/client';
import type { FastifyReply, FastifyRequest } from 'fastify';

/** What an allowed page of another origin may send and read (Fetch standard, CORS protocol). */

const exposed = exposedHeaders.join(', ');

/** Lets the page read the response, including errors. */
export function allowOrigin(origin: string, reply: FastifyReply): void {
  reply
    .header('access-control-allow-origin', origin)
    .header('access-control-expose-headers', exposed)
    .header('vary', 'Origin');
}

/** Whether this is a preflight request. */
export const isPreflight = ({ method, headers }: FastifyRequest): boolean =>
  method === 'OPTIONS' && headers['access-control-request-method'] !== undefined;

export function answerPreflight(request: FastifyRequest, reply: FastifyReply): FastifyReply {
  return reply
    .header('access-control-allow-methods', 'GET, HEAD, POST, PUT, PATCH, DELETE')
    .header('access-control-allow-headers', allowedHeaders(request))
    .header('access-control-max-age', '600')
    .code(204)
    .send();
}

/** More names than a page sends would make a response too large for proxies. */
const longestList = 1000;

/** The header names that the page requests, as many as fit. */
function allowedHeaders({ headers }: FastifyRequest): string {
  const asked = headers['access-control-request-headers'];
  if (asked === undefined) return 'authorization, content-type';
  const names: string[] = [];
  let length = 0;
  for (const part of asked.split(',')) {
    const name = part.trim();
    if (!/^[\w!#$%&'*+.^`|~-]{1,100}$/.test(name)) continue;
    length += name.length + 2;
    if (length > longestList) break;
    names.push(name);
  }
  return names.join(', ');
}
