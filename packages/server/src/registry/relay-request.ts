import { type ClientRequest, request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { isIP } from 'node:net';
import { TomaatError, withoutTrailingSlashes } from '@tomaat/core';
import { bare } from '../addresses.ts';
import { connectTls, createJudgingAgent } from '../trust/guarded-fetch.ts';
import type { Target } from './targets.ts';

/** Requests of the relay to announced servers. */

export type Headers = Record<string, string | string[] | number>;

/** Which certificates of a server are accepted. */
export interface Trust {
  /** Certificates (PEM) in addition to those that Node trusts. */
  ca?: string;
  /** Fingerprint of the certificate in the server's signed announcement. */
  certificate?: string;
}

/**
 * A request to a permitted address. On this machine the certificate is not checked, because nobody can intercept the
 * connection and servers create their own; elsewhere it must be trusted here, or be the one that the server announced.
 */
export function openRequest(
  target: Target,
  method: string,
  path: string,
  headers: Headers,
  trust: Trust,
  signal: AbortSignal,
): ClientRequest {
  const { url, address, family } = target;
  const secure = url.protocol === 'https:';
  const hostname = bare(url.hostname);
  const base = withoutTrailingSlashes(url.pathname);
  const common = {
    host: address,
    family,
    port: url.port || (secure ? 443 : 80),
    method,
    path: base + path,
    headers: { ...headers, host: url.host },
    agent: false as const,
    signal,
  };
  if (!secure) return httpRequest(common);
  const servername = isIP(hostname) ? '' : hostname;
  const agent = createJudgingAgent(
    ({ port }) => connectTls({ host: address, port, servername }, trust.ca, signal),
    (shown) =>
      target.loopback || shown.authorized || shown.fingerprint === trust.certificate
        ? undefined
        : Object.assign(new Error('untrusted'), { code: shown.reason }),
  );
  return httpsRequest({ ...common, agent });
}

/** What went wrong with a server, for users of the registry. */
export function describeFailure(error: unknown, probeMs: number): string {
  if (error instanceof TomaatError) return error.message;
  const { name, code } = error as NodeJS.ErrnoException;
  if (name === 'TimeoutError' || name === 'AbortError' || code === 'ABORT_ERR')
    return `no response within ${probeMs / 1000} s`;
  if (code === 'ECONNREFUSED') return 'nothing is listening there';
  if (code === 'ECONNRESET' || code === 'EPIPE') return 'it closed the connection';
  if (code === 'EHOSTUNREACH' || code === 'ENETUNREACH' || code === 'ETIMEDOUT')
    return 'the machine cannot be reached';
  if (code?.startsWith('HPE_')) return 'it does not speak HTTP';
  if (code?.startsWith('ERR_TLS') || code?.includes('CERT') || code?.includes('SSL'))
    return `its certificate is not trusted here (${code})`;
  return code ?? 'it failed';
}
