import { type ErrorCode, escapeUnseen, TomaatError } from '@tomaat/core';
import { parseHeaderValue } from './header-value.ts';
import {
  type Connection,
  type NetworkRemedies,
  networkFault,
  openConnection,
  readText,
  repeat,
} from './http.ts';

/** How requests reach a DICOMweb service: credentials, redirects, and the meaning of error responses. */

/**
 * Headers of every request: fixed ones, or a function that is called before each request, for example for a token
 * that expires.
 */
export type DicomWebHeaders =
  | Readonly<Record<string, string>>
  | (() => Readonly<Record<string, string>> | Promise<Readonly<Record<string, string>>>);

export interface DicomWebOptions {
  /** Root of the service, which contains `/studies`: for example `http://127.0.0.1:8042/dicom-web`. */
  url: string;
  /** Mainly credentials: `{ authorization: 'Bearer …' }`. They are sent only to the origin of `url`. */
  headers?: DicomWebHeaders;
  /** A custom fetch, for example one with its own certificates. */
  fetch?: typeof globalThis.fetch;
  /** How often a request is retried after a network error or while the server is busy; 2 if missing. */
  retries?: number;
  /** How long the server may be silent before a request is abandoned, in ms; 60 000 if missing. */
  silenceMs?: number;
  /** Largest accepted instance (one file, or a single-part response), in bytes; 2 GiB − 1 if missing. */
  maxInstanceBytes?: number;
  /** Maximum body size of one `store` request that contains more than one instance, in bytes; 32 MiB if missing. */
  batchBytes?: number;
}

export interface DicomWebConnection extends Connection {
  /** Host and port, for messages. */
  readonly host: string;
  readonly maxInstanceBytes: number;
  readonly batchBytes: number;
  /** @throws {TomaatError} BAD_REQUEST for an invalid header */
  headers(): Promise<Record<string, string>>;
}

export interface DicomWebCall {
  method?: 'GET' | 'POST';
  /** Relative to the root, with a leading slash. */
  path: string;
  /** The query string. Never part of a message: it may contain a patient's name. */
  search?: string;
  accept: string;
  contentType?: string;
  body?: Blob;
  signal?: AbortSignal;
  /** The purpose of the request, as named in messages. */
  task: 'search' | 'retrieve' | 'store';
  /** Whether the caller can use a response that is not 2xx. */
  takes?(response: Response): boolean;
}

const maxRedirects = 5;
const maxAnswerBytes = 2 ** 16;

/**
 * Checks the options and fills in the defaults.
 * @throws {TomaatError} BAD_REQUEST
 */
export function openDicomWeb(options: DicomWebOptions): DicomWebConnection {
  const { url, headers = {}, fetch, retries, silenceMs } = options;
  if (URL.canParse(url) && (new URL(url).username || new URL(url).password)) {
    throw new TomaatError(
      'BAD_REQUEST',
      'The address of a DICOMweb service may not hold a password: addresses are logged. Give it by headers: { authorization: … }.',
    );
  }
  const connection = openConnection({ baseUrl: url, fetch, retries, silenceMs });
  return {
    ...connection,
    host: new URL(connection.baseUrl).host,
    maxInstanceBytes: options.maxInstanceBytes ?? 2 ** 31 - 1,
    batchBytes: options.batchBytes ?? 2 ** 25,
    async headers() {
      const given = typeof headers === 'function' ? await headers() : headers;
      try {
        return Object.fromEntries(new Headers(given));
      } catch {
        // Neither the value nor the cause, which contains it: it may be a key.
        throw new TomaatError(
          'BAD_REQUEST',
          'The headers for the DICOMweb service have a name or a value that HTTP does not allow. Check for line breaks and characters beyond Latin-1.',
        );
      }
    },
  };
}

/**
 * One request, retried after network errors and while the server is busy: searching, retrieving and storing the same
 * instances again all give the same result. `alive` is called whenever data arrives.
 * @throws {TomaatError} for every response except 2xx, unless `takes` says otherwise, and for 206, which omits a part
 */
export async function sendDicomWeb(
  connection: DicomWebConnection,
  call: DicomWebCall,
  alive: () => void,
): Promise<Response> {
  return repeat(connection, true, call.signal, alive, async () => {
    const response = await followRedirects(connection, call, alive);
    if (response.ok && response.status !== 206) return response;
    if (call.takes?.(response)) return response;
    throw await refusalOf(connection, call, response);
  });
}

/** A failed fetch from a DICOMweb service, with advice; the caller's own abort is passed on unchanged. */
export const dicomWebFault = (
  connection: DicomWebConnection,
  path: string,
  error: unknown,
  signal?: AbortSignal,
): unknown => networkFault(error, connection.baseUrl + path, signal, remedies);

const remedies: NetworkRemedies = {
  untrusted: (host) =>
    `The certificate of ${host} is not trusted here. Get the certificate of the authority that issued it, or its own if it is self-signed; in Node, name that file in NODE_EXTRA_CA_CERTS.`,
  page: (host, page) =>
    `${host} cannot be reached, or it does not let pages of ${page} use it. Check the network and that the server runs; if it does, its operator must allow this origin (CORS), with the headers Accept, Authorization and Content-Type.`,
};

/**
 * By hand, since fetch would forward headers such as an API key to any host that a response names. A page cannot see
 * the target of a redirect.
 */
async function followRedirects(
  connection: DicomWebConnection,
  call: DicomWebCall,
  alive: () => void,
): Promise<Response> {
  const { method = 'GET', body, signal } = call;
  const headers = { ...(await connection.headers()), accept: call.accept };
  if (call.contentType) Object.assign(headers, { 'content-type': call.contentType });
  let address = new URL(connection.baseUrl + call.path + (call.search ? `?${call.search}` : ''));
  for (let redirects = 0; ; redirects++) {
    let response: Response;
    try {
      response = await connection.fetch(address.href, { method, headers, body, signal, redirect: 'manual' });
    } catch (error) {
      throw dicomWebFault(connection, call.path, error, signal);
    }
    alive();
    const target = redirectOf(connection, call, response, address);
    if (target === undefined) return response;
    await response.body?.cancel();
    if (redirects === maxRedirects) {
      throw new TomaatError(
        'UPSTREAM',
        `${connection.host} redirects more than ${maxRedirects} times. Check the address, and the proxy in front of the server.`,
      );
    }
    address = target;
  }
}

/** The target of a redirect; undefined if the response is not one. */
function redirectOf(
  { host, baseUrl }: DicomWebConnection,
  { method = 'GET' }: DicomWebCall,
  { status, type, headers }: Response,
  from: URL,
): URL | undefined {
  const where = headers.get('location');
  const isRedirect = [301, 302, 303, 307, 308].includes(status) && where !== null;
  if (!isRedirect && type !== 'opaqueredirect') return undefined;
  const refuse = (what: string) =>
    new TomaatError('UPSTREAM', `${host} redirects ${what}`, { detail: { httpStatus: status } });
  if (!isRedirect)
    throw refuse('this request, and the browser does not reveal the target. Give the final address as url.');
  if (!URL.canParse(where, from.href))
    throw refuse('to something that is not an address. Check the address.');
  const target = new URL(where, from);
  if (target.origin !== new URL(baseUrl).origin) {
    throw refuse(
      `to ${target.origin}, where credentials and images are not sent without your consent. If that server is the right one, give its address as url.`,
    );
  }
  if (method !== 'GET' && status !== 307 && status !== 308)
    throw refuse(`with HTTP ${status}, which drops what is sent. Give the final address as url.`);
  return target;
}

/** The media type of a response in lower case, or an empty string. */
export const mediaTypeOf = (response: Response): string =>
  parseHeaderValue(response.headers.get('content-type') ?? '')?.value.toLowerCase() ?? '';

/**
 * The error for a response (PS3.18, sections 8.5 and 10.4 to 10.6), with the beginning of its text in
 * `detail.answer`; `known` is that text if it has already been read.
 */
export async function refusalOf(
  connection: DicomWebConnection,
  call: DicomWebCall,
  response: Response,
  known?: string,
): Promise<TomaatError> {
  const { status, headers } = response;
  const text = known ?? (await readText(response, maxAnswerBytes, connection.host).catch(() => ''));
  const retryAfterSeconds = Number(headers.get('retry-after')) || undefined;
  const scheme = /^[\w-]{1,30}/.exec(headers.get('www-authenticate') ?? '')?.[0];
  const [code, message] = byStatus(status, connection, call, scheme);
  const answer = escapeUnseen(text.slice(0, 500).trim()) || undefined;
  return new TomaatError(code, message, { detail: { httpStatus: status, retryAfterSeconds, answer } });
}

function byStatus(
  status: number,
  { host, baseUrl, batchBytes }: DicomWebConnection,
  { path, task, accept }: DicomWebCall,
  scheme?: string,
): [ErrorCode, string] {
  const address = baseUrl + path;
  switch (status) {
    case 206:
      return [
        'UPSTREAM',
        `${host} gave only some of the instances (HTTP 206). Nothing was taken; its log says why.`,
      ];
    case 401:
      return [
        'UNAUTHORIZED',
        `${host} asks for a login${scheme ? ` (${scheme})` : ''}. Give valid credentials by headers: { authorization: … }.`,
      ];
    case 403:
      return ['FORBIDDEN', `${host} does not allow this user to ${task}. Ask its operator for access.`];
    case 404:
    case 410:
      return task === 'retrieve'
        ? [
            'NOT_FOUND',
            `${host} does not have ${path.slice(1)}. Search for it: it may have another UID, or be archived.`,
          ]
        : [
            'NOT_FOUND',
            `${address} does not exist. Give as url the root of the DICOMweb service, such as http://host:8042/dicom-web.`,
          ];
    case 405:
    case 501:
      return [
        'METHOD_NOT_ALLOWED',
        `${host} does not offer to ${task} at ${address} (HTTP ${status}). Check the address, and whether its operator can enable it.`,
      ];
    case 406:
      return [
        'NOT_ACCEPTABLE',
        `${host} cannot answer as ${accept}. Ask its operator which transfer syntaxes it can give.`,
      ];
    case 413:
    case 414:
      return task === 'store'
        ? [
            'UPLOAD_TOO_LARGE',
            `${host}, or a proxy in front of it, refuses bodies of this size. Make batchBytes smaller than ${batchBytes}, or ask for a higher limit.`,
          ]
        : [
            'BAD_REQUEST',
            `${host} refuses this search as too large (HTTP ${status}). Narrow it, or set a limit.`,
          ];
    case 415:
      return [
        'UNSUPPORTED_MEDIA',
        `${host} does not take this kind of file or transfer syntax. Check that they are DICOM files, and what the server accepts.`,
      ];
    case 429:
    case 503:
      return ['BUSY', `${host} is busy (HTTP ${status}). Try again later.`];
    case 502:
      return ['UPSTREAM', `The server behind ${host} failed (HTTP 502). Try again later.`];
    case 504:
      return ['UNREACHABLE', `A proxy waited in vain for ${host} (HTTP 504). Try again later.`];
    case 507:
      return ['DISK_FULL', `The disk of ${host} is full. Its operator must free space.`];
  }
  if (status >= 500) return ['INTERNAL', `${host} failed to ${task} (HTTP ${status}). Its log says why.`];
  return [
    'BAD_REQUEST',
    `${host} refuses to ${task} (HTTP ${status}). Check the query and the address ${address}.`,
  ];
}
