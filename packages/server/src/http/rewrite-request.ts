import type { IncomingMessage } from 'node:http';
import type { PublicAddress } from './public-address.ts';

/** What a request says in another way than the routes expect it, put right before one is chosen. */
export function rewriteRequest(request: IncomingMessage, address: PublicAddress): string {
  const url = address.localUrl(request.url ?? '/', request.method);
  const method = overriddenMethod(request, url);
  if (method !== undefined) request.method = method;
  return url;
}

const uploadMethods = ['PATCH', 'HEAD', 'DELETE', 'POST'];

/**
 * tus 1.0, core protocol: the server must take the method in X-HTTP-Method-Override for the request's own. Clients
 * send it where a proxy lets no PATCH through. It counts for uploads alone.
 */
function overriddenMethod({ method, headers }: IncomingMessage, url: string): string | undefined {
  const given = headers['x-http-method-override'];
  if (typeof given !== 'string' || (method !== 'POST' && method !== 'GET')) return undefined;
  if (!/^\/api\/uploads(?:[/?]|$)/.test(url)) return undefined;
  const wanted = given.trim().toUpperCase();
  return uploadMethods.includes(wanted) ? wanted : undefined;
}
