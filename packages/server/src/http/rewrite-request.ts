import type { IncomingMessage } from 'node:http';
import type { PublicAddress } from './public-address.ts';

/** Rewrites requests into the form that the routes expect, before a route is chosen. */
export function rewriteRequest(request: IncomingMessage, address: PublicAddress): string {
  const url = address.localUrl(request.url ?? '/', request.method);
  const method = overriddenMethod(request, url);
  if (method !== undefined) request.method = method;
  return url;
}

const uploadMethods = ['PATCH', 'HEAD', 'DELETE', 'POST'];

/**
 * tus 1.0, core protocol: the server must treat the method in X-HTTP-Method-Override as the request's own. Clients
 * send it if a proxy blocks PATCH. It applies only to uploads.
 */
function overriddenMethod({ method, headers }: IncomingMessage, url: string): string | undefined {
  const given = headers['x-http-method-override'];
  if (typeof given !== 'string' || (method !== 'POST' && method !== 'GET')) return undefined;
  if (!/^\/api\/uploads(?:[/?]|$)/.test(url)) return undefined;
  const wanted = given.trim().toUpperCase();
  return uploadMethods.includes(wanted) ? wanted : undefined;
}
