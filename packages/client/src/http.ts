import { describeError, type ErrorCode, errorCodes, TomaatError, withoutTrailingSlashes } from '@tomaat/core';
import type { z } from 'zod';

/** The address of a server or registry, and how to communicate with it. */
export interface ConnectionOptions {
  /** Base address, such as `http://127.0.0.1:9000`; a path prefix is kept. In a page it may be relative. */
  baseUrl: string;
  /** Sent as `Authorization: Bearer …`. */
  apiKey?: string;
  /** A custom fetch, for example one that trusts other certificates. Uploads then use it too. */
  fetch?: typeof globalThis.fetch;
  /** How often a request is retried after a network error or while the server is busy; 2 if missing. */
  retries?: number;
  /** How long a server may be silent before a request is abandoned, in ms; 60 000 if missing. */
  silenceMs?: number;
}

export interface Connection {
  /** Without a trailing slash. */
  readonly baseUrl: string;
  readonly apiKey?: string;
  readonly fetch: typeof globalThis.fetch;
  readonly ownFetch: boolean;
  readonly retries: number;
  readonly silenceMs: number;
}

export interface Call {
  method?: string;
  query?: Record<string, string | number | boolean | undefined>;
  headers?: Record<string, string | undefined>;
  /** A form or JSON; anything large uses `upload`. */
  body?: URLSearchParams | string;
  signal?: AbortSignal;
  /** Whether the request may be retried after a network error. True for everything except plain POSTs. */
  repeatable?: boolean;
  /** Maximum size of a JSON response; 32 MiB if missing. */
  maxBytes?: number;
}

const maxJsonBytes = 2 ** 25;
const maxProblemBytes = 2 ** 20;

/** Checks the address and fills in the defaults. Throws BAD_REQUEST if it is not an http(s) address. */
export function openConnection(options: ConnectionOptions): Connection {
  const page = (globalThis as { location?: { href?: string } }).location?.href;
  let url: URL | undefined;
  try {
    url = new URL(options.baseUrl, page?.startsWith('http') ? page : undefined);
  } catch {}
  if (url?.protocol !== 'http:' && url?.protocol !== 'https:') {
    throw new TomaatError(
      'BAD_REQUEST',
      `“${options.baseUrl}” is not an http or https address. Give one such as http://127.0.0.1:9000.`,
    );
  }
  if (url.username || url.password) {
    throw new TomaatError(
      'BAD_REQUEST',
      'An address may not hold a password. Give the API key by its own option.',
    );
  }
  return {
    baseUrl: url.origin + withoutTrailingSlashes(url.pathname),
    apiKey: options.apiKey,
    fetch: options.fetch ?? ((input, init) => globalThis.fetch(input, init)),
    ownFetch: options.fetch !== undefined,
    retries: options.retries ?? 2,
    silenceMs: options.silenceMs ?? 60_000,
  };
}

/** The full address of an API path. */
export function addressOf(connection: Connection, path: string, query: Call['query'] = {}): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value !== undefined) search.set(name, String(value));
  return `${connection.baseUrl}${path}${search.size > 0 ? `?${search}` : ''}`;
}

export function headersOf(connection: Connection, headers: Call['headers'] = {}): Record<string, string> {
  const all: Record<string, string> = connection.apiKey
    ? { authorization: `Bearer ${connection.apiKey}` }
    : {};
  for (const [name, value] of Object.entries(headers)) if (value !== undefined) all[name] = value;
  return all;
}

/** One request whose response is JSON of the given schema, or empty (204: undefined). */
export async function callJson<T>(
  connection: Connection,
  path: string,
  schema: z.ZodType<T>,
  call: Call = {},
): Promise<T | undefined> {
  const watchdog = startWatchdog(connection, call.signal);
  try {
    const response = await send(connection, path, { ...call, signal: watchdog.signal }, watchdog.alive);
    if (response.status === 204) return undefined;
    return await readJson(response, schema, addressOf(connection, path), watchdog.signal, call.maxBytes);
  } finally {
    watchdog.stop();
  }
}

/** As `callJson`, of an endpoint that always answers something; UPSTREAM if it does not. */
export async function callForJson<T>(
  connection: Connection,
  path: string,
  schema: z.ZodType<T>,
  call: Call = {},
): Promise<T> {
  const found = await callJson(connection, path, schema, call);
  if (found !== undefined) return found;
  throw new TomaatError('UPSTREAM', `${addressOf(connection, path)} answered nothing. Check the address.`);
}

/** The path of a job by its id. */
export const jobPath = (id: string) => `/api/jobs/${encodeURIComponent(id)}`;

/** The response's JSON, validated; a response from another kind of server gives an error that says so. */
export async function readJson<T>(
  response: Response,
  schema: z.ZodType<T>,
  address: string,
  signal?: AbortSignal,
  maxBytes = maxJsonBytes,
): Promise<T> {
  let text: string;
  try {
    text = await readText(response, maxBytes, address);
  } catch (error) {
    throw networkFault(error, address, signal);
  }
  let data: unknown;
  try {
    data = JSON.parse(text);
  } catch (cause) {
    throw notOurs(address, response, cause);
  }
  const parsed = schema.safeParse(data);
  if (!parsed.success) throw notOurs(address, response, parsed.error);
  return parsed.data;
}

/** The text of a response; one that is longer than allowed is not read to its end. */
export async function readText(response: Response, maxBytes: number, address: string): Promise<string> {
  const reader = response.body?.getReader();
  const decoder = new TextDecoder();
  let text = '';
  let bytes = 0;
  for (;;) {
    const { done, value } = (await reader?.read()) ?? { done: true, value: undefined };
    if (done || !value) return text + decoder.decode();
    bytes += value.length;
    if (bytes > maxBytes) {
      await reader?.cancel();
      throw new TomaatError(
        'UPSTREAM',
        `${address} answers with more than ${maxBytes} bytes, which is too long here. Check the address.`,
      );
    }
    text += decoder.decode(value, { stream: true });
  }
}

function notOurs(address: string, response: Response, cause?: unknown): TomaatError {
  return new TomaatError(
    'UPSTREAM',
    `${address} answered (HTTP ${response.status}), but not as a TOMAAT server of this version does. Check the address, and whether a proxy stands in between.`,
    { cause, detail: { httpStatus: response.status } },
  );
}

/**
 * One request, retried after network errors and while the server is busy, if that is safe. Every response except 2xx
 * becomes a TomaatError; `call.signal`'s reason is thrown unchanged.
 */
export async function send(
  connection: Connection,
  path: string,
  call: Call,
  alive: () => void = () => {},
): Promise<Response> {
  const address = addressOf(connection, path, call.query);
  const method = call.method ?? 'GET';
  return repeat(connection, call.repeatable ?? method !== 'POST', call.signal, alive, async () => {
    let response: Response;
    try {
      response = await connection.fetch(address, {
        method,
        headers: headersOf(connection, call.headers),
        body: call.body,
        signal: call.signal,
      });
    } catch (error) {
      throw networkFault(error, address, call.signal);
    }
    alive();
    if (!response.ok) throw await problemOf(response, address);
    return response;
  });
}

/** Retries a request, after a pause, while that may help; `alive` is called at the end of each pause. */
export async function repeat<T>(
  connection: Connection,
  repeatable: boolean,
  signal: AbortSignal | undefined,
  alive: () => void,
  attempt: () => Promise<T>,
): Promise<T> {
  for (let failures = 0; ; failures++) {
    try {
      return await attempt();
    } catch (error) {
      signal?.throwIfAborted();
      if (!(error instanceof TomaatError) || !repeatable || failures >= connection.retries) throw error;
      const hopeful =
        error.code === 'BUSY' || (error.code === 'UNREACHABLE' && error.detail?.hopeless !== true);
      if (!hopeful) throw error;
      const asked = Number(error.detail?.retryAfterSeconds);
      await pause(asked > 0 ? Math.min(asked, 20) * 1000 : 300 * 4 ** failures, signal);
      alive();
    }
  }
}

/** Waits; throws the signal's reason if it aborts first. */
export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const stop = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', stop);
      resolve();
    }, ms);
    signal?.addEventListener('abort', stop, { once: true });
  });
}

export interface Watchdog {
  readonly signal: AbortSignal;
  /** Data has arrived: restarts the timer. */
  alive(): void;
  /** The timer is off until `alive` is called. */
  rest(): void;
  /** Permanently: a late `alive` has no effect. */
  stop(): void;
}

/** A signal that aborts with the caller's, or with UNREACHABLE after the allowed silence. */
export function startWatchdog(
  connection: Connection,
  signal?: AbortSignal,
  silenceMs = connection.silenceMs,
): Watchdog {
  const controller = new AbortController();
  const bark = () =>
    controller.abort(
      new TomaatError(
        'UNREACHABLE',
        `${connection.baseUrl} kept silent for ${Math.round(silenceMs / 1000)} s. Check the network and the server's load, then try again.`,
      ),
    );
  const follow = () => controller.abort(signal?.reason);
  let timer = setTimeout(bark, silenceMs);
  let isStopped = false;
  if (signal?.aborted) follow();
  signal?.addEventListener('abort', follow, { once: true });
  return {
    signal: controller.signal,
    alive() {
      clearTimeout(timer);
      if (!isStopped) timer = setTimeout(bark, silenceMs);
    },
    rest: () => clearTimeout(timer),
    stop() {
      isStopped = true;
      clearTimeout(timer);
      signal?.removeEventListener('abort', follow);
    },
  };
}

/** The error in a response: our own Problem keeps its code, any other response gets one by its status. */
export async function problemOf(response: Response, address: string): Promise<TomaatError> {
  const retryAfterSeconds = Number(response.headers.get('retry-after')) || undefined;
  const text = await readText(response, maxProblemBytes, address).catch(() => '');
  let body:
    | { code?: unknown; detail?: unknown; field?: unknown; facts?: unknown; requestId?: unknown }
    | undefined;
  try {
    body = JSON.parse(text);
  } catch {}
  if (typeof body?.code === 'string' && typeof body.detail === 'string') {
    const facts = typeof body.facts === 'object' && body.facts !== null ? body.facts : {};
    return TomaatError.from({
      code: body.code as ErrorCode,
      message: body.detail,
      field: typeof body.field === 'string' ? body.field : undefined,
      detail: { ...facts, requestId: body.requestId, httpStatus: response.status, retryAfterSeconds },
    });
  }
  const { code, message } = byStatus(response.status, address);
  return new TomaatError(code, message, { detail: { httpStatus: response.status, retryAfterSeconds } });
}

function byStatus(status: number, address: string): { code: ErrorCode; message: string } {
  const host = new URL(address).host;
  if (status === 401)
    return { code: 'UNAUTHORIZED', message: `${host} wants a login. Give a valid API key.` };
  if (status === 403)
    return { code: 'FORBIDDEN', message: `${host} refuses this (HTTP 403). Ask its operator for access.` };
  if (status === 404) {
    return {
      code: 'NOT_FOUND',
      message: `${address} does not exist there. Check the address; is it a TOMAAT server?`,
    };
  }
  if (status === 413) {
    return {
      code: 'UPLOAD_TOO_LARGE',
      message: `${host}, or a proxy in front of it, refuses uploads of this size. Send less, or ask for a higher limit.`,
    };
  }
  if (status === 429 || status === 503)
    return { code: 'BUSY', message: `${host} is busy (HTTP ${status}). Try again later.` };
  if (status === 504)
    return {
      code: 'UNREACHABLE',
      message: `A proxy waited in vain for ${host} (HTTP 504). Try again later.`,
    };
  if (status === 502)
    return { code: 'UPSTREAM', message: `The server behind ${host} failed (HTTP 502). Try again later.` };
  if (status >= 500)
    return { code: 'INTERNAL', message: `${host} failed (HTTP ${status}). Its log says why.` };
  return {
    code: 'BAD_REQUEST',
    message: `${address} refuses this request (HTTP ${status}). Check the address; is it a TOMAAT server?`,
  };
}

const faults: Record<string, (host: string) => string> = {
  ECONNREFUSED: (host) =>
    `Nothing listens at ${host}. Check the address and the port, or start the server there.`,
  ENOTFOUND: (host) =>
    `The host ${host.replace(/:\d+$/, '')} was not found. Check the spelling and the network.`,
  EAI_AGAIN: (host) => `The name ${host.replace(/:\d+$/, '')} cannot be looked up now. Check the network.`,
  EHOSTUNREACH: (host) => `${host} is unreachable from here. Check the network, or a VPN.`,
  ENETUNREACH: (host) => `${host} is unreachable from here. Check the network, or a VPN.`,
  ETIMEDOUT: (host) => `${host} does not answer. Check the address, and whether a firewall is in between.`,
  UND_ERR_CONNECT_TIMEOUT: (host) =>
    `${host} does not answer. Check the address, and whether a firewall is in between.`,
};
/** The advice depends on whose server it is. */
export interface NetworkRemedies {
  /** The certificate is not trusted. */
  untrusted(host: string): string;
  /** A page of another origin received no response that it may read. */
  page(host: string, pageOrigin: string): string;
}
const remediesOfOurs: NetworkRemedies = {
  untrusted: (host) =>
    `The certificate of ${host} is not trusted here. If it is self-signed, get the server’s tomaat.pem and trust it. In Node: set NODE_EXTRA_CA_CERTS=tomaat.pem, or give createClient the fetch of (await connectTo(address, { ca: 'tomaat.pem' })) from the package tomaat. On the command line: --ca FILE.`,
  page: (host, page) =>
    `${host} cannot be reached, or it does not let pages of ${page} use it. Check the network and that the server runs; if it does, its operator lets this page in with --allow-origin ${page}.`,
};
const untrusted = [
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'CERT_SIGNATURE_FAILURE',
];
const certificateFaults: Record<string, (host: string) => string> = {
  CERT_HAS_EXPIRED: (host) =>
    `The certificate of ${host} has expired. The operator of the server must renew it.`,
  ERR_TLS_CERT_ALTNAME_INVALID: (host) =>
    `The certificate of ${host} is for another name. Use the name in the certificate, or ask the operator for a new one.`,
};

/** A failed fetch as UNREACHABLE, with advice; the caller's own abort is passed on unchanged. */
export function networkFault(
  error: unknown,
  address: string,
  signal?: AbortSignal,
  remedies = remediesOfOurs,
): unknown {
  if (signal?.aborted) return signal.reason;
  if (error instanceof TomaatError) return error;
  const url = new URL(address);
  const code = faultCode(error);
  const make = (message: string, hopeless: boolean) =>
    new TomaatError('UNREACHABLE', message, { cause: error, detail: { address, reason: code, hopeless } });
  const known = untrusted.includes(code) ? remedies.untrusted : (faults[code] ?? certificateFaults[code]);
  if (known) return make(known(url.host), code !== 'EAI_AGAIN');
  if (
    code === 'ERR_SSL_WRONG_VERSION_NUMBER' ||
    code === 'EPROTO' ||
    code === 'ERR_SSL_PACKET_LENGTH_TOO_LONG'
  ) {
    return make(`${url.host} does not speak HTTPS. Try http:// instead.`, true);
  }
  if (code.startsWith('HPE_')) {
    return make(
      `${url.host} does not speak HTTP at this port. Try ${url.protocol === 'http:' ? 'https' : 'http'}://, or another port.`,
      true,
    );
  }
  // The Fetch standard blocks ports that belong to other protocols.
  if ((error as { cause?: { message?: unknown } }).cause?.message === 'bad port') {
    return make(`Port ${url.port} may not be used for HTTP (Fetch standard). Choose another port.`, true);
  }
  const page = pageOrigin();
  if (page !== undefined && page !== url.origin) {
    // A browser does not tell a page which of the two happened.
    return make(remedies.page(url.host, page), false);
  }
  const what = code === 'ECONNRESET' || code === 'UND_ERR_SOCKET' || code === 'EPIPE' ? 'was cut' : 'failed';
  return make(
    `The connection to ${url.host} ${what}${code ? ` (${code})` : ''}. Check the network and that the server runs, then try again.`,
    false,
  );
}

/** The address of the current page; undefined outside a browser. */
function pageOrigin(): string | undefined {
  const { origin } = (globalThis as { location?: { origin?: string } }).location ?? {};
  return origin?.startsWith('http') ? origin : undefined;
}

function faultCode(error: unknown): string {
  for (
    let at = error as { code?: unknown; cause?: unknown } | undefined, depth = 0;
    at && depth < 5;
    depth++
  ) {
    if (typeof at.code === 'string') return at.code;
    at = at.cause as typeof at;
  }
  return '';
}

/** The Problem of a job or response as an error that can be thrown. */
export function errorOf(problem: {
  code: string;
  detail: string;
  field?: string;
  facts?: Record<string, unknown>;
}): TomaatError {
  return TomaatError.from({
    code: problem.code as ErrorCode,
    message: problem.detail,
    field: problem.field,
    detail: problem.facts,
  });
}

/** Whether the connection or the server's state is at fault, so that retrying later may help. */
export const isPassing = (error: unknown): error is TomaatError =>
  error instanceof TomaatError && ['UNREACHABLE', 'BUSY', 'UPSTREAM', 'INTERNAL'].includes(error.code);

/** Whether the code means a client error. */
export function isCallersFault(error: TomaatError): boolean {
  return errorCodes.includes(error.code) && describeError(error.code).fault === 'caller';
}
