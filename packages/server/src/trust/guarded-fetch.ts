import { createHash } from 'node:crypto';
import { lookup as dnsLookup } from 'node:dns';
import { once } from 'node:events';
import {
  type ClientRequest,
  Agent as HttpAgent,
  request as httpRequest,
  type IncomingMessage,
} from 'node:http';
import { type AgentOptions, Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { isIP, type LookupFunction } from 'node:net';
import { Readable } from 'node:stream';
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls';
import { TomaatError } from '@tomaat/core';
import { bare } from '../addresses.ts';
import { defaultAuthorities } from './authorities.ts';

/**
 * `fetch` for Node with rules that the built-in one does not support: accepted certificates, allowed addresses, no
 * redirects. Nothing of a request, neither key nor path, is sent before both are checked.
 */
export interface FetchRules {
  /** Certificates (PEM) to trust in addition to those of the system. */
  ca?: string;
  /** Whether to accept a certificate that no authority vouches for; by its SHA-256 fingerprint, and that of its key. */
  isKnown?(fingerprint: string, keyFingerprint: string): boolean;
  /** Throws if connections to this address, to which the host resolves, are not allowed. */
  checkAddress?(address: string): void;
  /** Used instead of DNS. */
  resolve?(hostname: string): Promise<{ address: string; family: number }[]>;
}

export interface Shown {
  /** SHA-256, as upper-case hex pairs joined by `:`. */
  readonly fingerprint: string;
  /** SHA-256 of its public key (SubjectPublicKeyInfo), base64url: the same after a renewal that keeps the key. */
  readonly keyFingerprint: string;
  /** Whether a trusted authority vouches for it under this name. */
  readonly authorized: boolean;
  /** Why not. */
  readonly reason?: string;
  /** The DNS names and addresses that it is for. */
  readonly hosts: readonly string[];
}

const portOf = (url: URL) => Number(url.port || (url.protocol === 'https:' ? 443 : 80));

/** A TLS connection with any certificate; the caller checks the certificate before a byte is sent. */
export function connectTls(
  options: ConnectionOptions & { host: string; port: number },
  ca: string | undefined,
  signal?: AbortSignal,
): Promise<{ socket: TLSSocket; shown: Shown }> {
  const { host } = options;
  return new Promise((resolve, reject) => {
    const socket = connect({
      ...options,
      servername: options.servername ?? (isIP(host) ? '' : host),
      minVersion: 'TLSv1.2',
      ALPNProtocols: options.ALPNProtocols ?? ['http/1.1'],
      // Checked below: the certificate must be received before it can be trusted.
      rejectUnauthorized: false,
      ...(ca !== undefined && { ca: [...defaultAuthorities(), ca] }),
    });
    const giveUp = () => socket.destroy(signal?.reason as Error);
    signal?.addEventListener('abort', giveUp, { once: true });
    socket.once('error', reject);
    socket.once('close', () => signal?.removeEventListener('abort', giveUp));
    socket.once('secureConnect', () => {
      socket.off('error', reject);
      signal?.removeEventListener('abort', giveUp);
      const { fingerprint256, subjectaltname = '' } = socket.getPeerCertificate();
      const spki = socket.getPeerX509Certificate()!.publicKey.export({ type: 'spki', format: 'der' });
      resolve({
        socket,
        shown: {
          fingerprint: fingerprint256,
          keyFingerprint: createHash('sha256').update(spki).digest('base64url'),
          authorized: socket.authorized,
          reason: socket.authorized ? undefined : String(socket.authorizationError),
          hosts: subjectaltname
            .split(', ')
            .map((name) => /^(?:DNS|IP Address):(.+)$/.exec(name)?.[1] ?? '')
            .filter(Boolean),
        },
      });
    });
  });
}

const peekMs = 15_000;

/** The certificate that a server presents. Only the handshake is sent to it. */
export async function peekCertificate(url: URL, rules: FetchRules, signal?: AbortSignal): Promise<Shown> {
  const host = bare(url.hostname);
  checkLiteral(host, rules);
  const limit = AbortSignal.any([AbortSignal.timeout(peekMs), ...(signal ? [signal] : [])]);
  const options = { host, port: portOf(url), lookup: guardedLookup(rules) };
  const { socket, shown } = await connectTls(options, rules.ca, limit);
  socket.destroy();
  return shown;
}

/** Whether the rules accept what a server presents. */
const isGood = (shown: Shown, rules: FetchRules): boolean =>
  shown.authorized || rules.isKnown?.(shown.fingerprint, shown.keyFingerprint) === true;

export function checkLiteral(host: string, rules: FetchRules): void {
  if (isIP(host)) rules.checkAddress?.(host);
}

/** DNS, with the addresses that may be connected to; the connection goes to one of these and no other. */
export function guardedLookup(rules: FetchRules): LookupFunction {
  return (hostname, options, callback) => {
    const settle = (error: Error | null, found: { address: string; family: number }[]) => {
      if (error) return callback(error as NodeJS.ErrnoException, []);
      const allowed: typeof found = [];
      let refusal: unknown;
      for (const one of found) {
        try {
          rules.checkAddress?.(one.address);
          allowed.push(one);
        } catch (fault) {
          refusal = fault;
        }
      }
      if (allowed.length === 0)
        return callback((refusal ?? new Error('no address')) as NodeJS.ErrnoException, []);
      if (options.all) return callback(null, allowed);
      callback(null, allowed[0].address, allowed[0].family);
    };
    if (rules.resolve) {
      rules.resolve(hostname).then(
        (found) => settle(null, found),
        (error: Error) => settle(error, []),
      );
    } else dnsLookup(hostname, { ...options, all: true }, settle);
  };
}

/** The host and the port that a request goes to. */
interface Destination {
  readonly host: string;
  readonly port: number;
}

/** An agent for HTTPS that judges each connection by its certificate, before a byte is sent: `refusal` gives the error if it is refused. */
export function createJudgingAgent(
  connect: (to: Destination) => ReturnType<typeof connectTls>,
  refusal: (shown: Shown, to: Destination) => Error | undefined,
  options?: AgentOptions,
): HttpsAgent {
  const agent = new HttpsAgent(options);
  agent.createConnection = (given, callback) => {
    const { host, port } = given as { host: string; port: number | string };
    const to = { host, port: Number(port) };
    connect(to).then(
      ({ socket, shown }) => {
        const error = refusal(shown, to);
        if (!error) return callback?.(null, socket);
        socket.destroy();
        callback?.(error, socket);
      },
      (error: Error) => callback?.(error, undefined as never),
    );
    return undefined as never;
  };
  return agent;
}

/** `fetch` under these rules. */
export function createGuardedFetch(rules: FetchRules): typeof globalThis.fetch {
  const plain = new HttpAgent({ keepAlive: true });
  const lookup = guardedLookup(rules);
  const secure = createJudgingAgent(
    (to) => connectTls({ ...to, lookup }, rules.ca),
    (shown, { host, port }) => (isGood(shown, rules) ? undefined : untrusted(`${host}:${port}`, shown)),
    { keepAlive: true },
  );

  return async (input, init = {}) => {
    const url = new URL(String(input instanceof Request ? input.url : input));
    const { signal, method = 'GET' } = init;
    signal?.throwIfAborted();
    const host = bare(url.hostname);
    checkLiteral(host, rules);
    const { body, headers } = bodyOf(init);
    const request = url.protocol === 'https:' ? httpsRequest : httpRequest;
    const sent = request(url, {
      method,
      headers,
      agent: url.protocol === 'https:' ? secure : plain,
      lookup,
      signal: signal ?? undefined,
    });
    const answer = await exchange(sent, body).catch((error: unknown) => {
      // As the standard requires.
      signal?.throwIfAborted();
      throw error;
    });
    const status = answer.statusCode!;
    if (status >= 300 && status < 400 && status !== 304) {
      answer.destroy();
      const to = plainText(answer.headers.location ?? 'nowhere');
      throw new TomaatError(
        'UPSTREAM',
        `${url.origin}${url.pathname} redirects to ${to}, which is not followed. If you trust that address, give it instead.`,
      );
    }
    return responseOf(answer, status);
  };
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is taken out
const plainText = (text: string) => text.slice(0, 200).replace(/[\u0000-\u001f\u007f-\u009f]/g, '');

/**
 * The error for a certificate that nobody vouches for.
 * @param data folder whose known hosts were asked, if it is not the user’s own
 */
export function untrusted(host: string, { fingerprint, reason }: Shown, data?: string): TomaatError {
  const where = data === undefined ? '' : ` --data ${data}`;
  return new TomaatError(
    'UNREACHABLE',
    `The certificate of ${host} is not trusted here (${reason}). Its SHA-256 fingerprint is\n  ${fingerprint}\nCompare it with the one that the server prints at startup. If they match: tomaat trust https://${host} --fingerprint ${fingerprint}${where}\n(for this call only: --fingerprint, TOMAAT_FINGERPRINT, or the option fingerprint of connectTo(); or the server's tomaat.pem as a trusted certificate: --ca FILE, or the option ca)`,
    { detail: { hopeless: true, reason, fingerprint } },
  );
}

function bodyOf(init: RequestInit): {
  body?: Buffer | ReadableStream<Uint8Array>;
  headers: Record<string, string>;
} {
  const headers = Object.fromEntries(new Headers(init.headers));
  if (init.body === undefined || init.body === null) return { headers };
  if (typeof init.body === 'string' || init.body instanceof URLSearchParams) {
    const body = Buffer.from(String(init.body));
    const type =
      typeof init.body === 'string'
        ? 'text/plain;charset=UTF-8'
        : 'application/x-www-form-urlencoded;charset=UTF-8';
    return { body, headers: { 'content-type': type, ...headers, 'content-length': String(body.length) } };
  }
  const wrapped = new Response(init.body);
  const type = wrapped.headers.get('content-type');
  return {
    body: wrapped.body!,
    headers: {
      ...(type && { 'content-type': type }),
      ...(init.body instanceof Blob && { 'content-length': String(init.body.size) }),
      ...headers,
    },
  };
}

/** Sends the body and waits for the head of the response; an error response ends the upload. */
function exchange(
  request: ClientRequest,
  body: Buffer | ReadableStream<Uint8Array> | undefined,
): Promise<IncomingMessage> {
  const ended = new AbortController();
  request.once('close', () => ended.abort());
  return new Promise((resolve, reject) => {
    let answered = false;
    request.on('error', (error) => {
      ended.abort();
      if (!answered) reject(error);
    });
    request.once('response', (answer) => {
      answered = true;
      if (answer.statusCode! >= 300) ended.abort();
      // The connection of a partly sent request cannot be reused.
      answer.once('close', () => {
        if (!request.writableFinished) request.destroy();
      });
      resolve(answer);
    });
    if (body === undefined || Buffer.isBuffer(body)) request.end(body);
    else {
      pump(body, request, ended.signal).catch((error: unknown) => {
        if (ended.signal.aborted) return;
        request.destroy(error as Error);
        reject(error);
      });
    }
  });
}

async function pump(
  body: ReadableStream<Uint8Array>,
  request: ClientRequest,
  ended: AbortSignal,
): Promise<void> {
  for await (const chunk of body) {
    if (ended.aborted) return;
    if (!request.write(chunk)) await once(request, 'drain', { signal: ended });
  }
  request.end();
}

function responseOf(answer: IncomingMessage, status: number): Response {
  const headers = new Headers();
  for (let at = 0; at < answer.rawHeaders.length; at += 2)
    headers.append(answer.rawHeaders[at], answer.rawHeaders[at + 1]);
  const empty = [204, 205, 304].includes(status) || answer.headers['content-length'] === '0';
  if (empty) answer.resume();
  const body = empty ? null : (Readable.toWeb(answer) as ReadableStream<Uint8Array<ArrayBuffer>>);
  return new Response(body, { status, headers });
}
