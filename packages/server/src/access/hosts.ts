import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';
import { TomaatError } from '@tomaat/core';
import { bare, isLoopback, isWildcard, unmapped } from '../addresses.ts';
import { settings } from '../settings.ts';

/**
 * The host names that a server accepts, and the pages that may call it. A page of another site reaches a server on this
 * machine in two ways: by its own name that resolves to this address (DNS rebinding), which shows in `Host`; and by the
 * server's address (CSRF), which shows in `Origin` and `Sec-Fetch-Site`. Programs send neither of the latter two.
 */
export interface HostPolicy {
  /** @throws TomaatError MISDIRECTED if the request is for a host name that is not ours. */
  checkHost(request: IncomingMessage): void;
  /**
   * @param leadsHere whether another site may lead a browser to this address.
   * @throws TomaatError FORBIDDEN when the request comes from a page of another site.
   */
  checkOrigin(request: IncomingMessage, leadsHere: boolean): void;
  /** @throws TomaatError FORBIDDEN when a page of this address may not send requests here. */
  checkPage(request: IncomingMessage, address: string): void;
  /** The page's origin, if it is another one that the operator allowed. */
  allowedOrigin(request: IncomingMessage): string | undefined;
}

export interface HostOptions {
  /** The address to listen on; 127.0.0.1 if missing. */
  host?: string;
  /** Names and addresses of this machine, for a server that is reachable from others. */
  machineNames?: readonly string[];
  publicUrl?: string;
  allowHost?: readonly string[];
  /** Names and addresses in the operator's certificate now; `*.example` matches one label. */
  certificateNames?(): readonly string[];
  /** Origins, such as `https://viewer.example`, whose pages may send requests. */
  allowOrigin?: readonly string[];
}

/** A host as names are compared. */
const comparable = (host: string) => bare(host).toLowerCase();

export function createHostPolicy(options: HostOptions): HostPolicy {
  const { host = settings.host.default, publicUrl } = options;
  const beyond = !isLoopback(host);
  const names = new Set(
    [
      ...(isWildcard(host) ? [] : [host]),
      ...(beyond ? (options.machineNames ?? []) : []),
      ...(publicUrl === undefined ? [] : [new URL(publicUrl).hostname]),
      ...(options.allowHost ?? []),
    ].map(comparable),
  );
  const origins = new Set([
    ...(publicUrl === undefined ? [] : [new URL(publicUrl).origin]),
    ...(options.allowOrigin ?? []).map((origin) => new URL(origin).origin),
  ]);

  function isOurs(name: string, request: IncomingMessage): boolean {
    // No other site can use a name that always refers to this machine.
    if (name === 'localhost' || (isIP(name) !== 0 && isLoopback(name))) return true;
    if (names.has(name)) return true;
    if (options.certificateNames?.().some((pattern) => isNamedBy(pattern, name))) return true;
    // The address that the connection arrived at: no name resolves to it.
    return beyond && isIP(name) !== 0 && sameAddress(name, request.socket.localAddress);
  }

  function allowedOrigin(request: IncomingMessage): string | undefined {
    const { origin } = request.headers;
    return origin !== undefined && origins.has(origin) && !isSame(origin, request) ? origin : undefined;
  }

  return {
    allowedOrigin,
    checkPage(request, address) {
      const origin = URL.parse(address)?.origin ?? '';
      if (!isSame(origin, request) && !origins.has(origin)) throw foreignPage(address);
    },
    checkHost(request) {
      const { host: given } = request.headers;
      // HTTP/1.0 has no such header, and no browser speaks it.
      if (given === undefined && request.httpVersion === '1.0' && request.url?.startsWith('/')) return;
      const asked = [given ?? ''];
      // An absolute-form request line takes precedence over the header (RFC 9112).
      const whole = /^[a-z][a-z0-9+.-]*:\/\/([^/?#]*)/i.exec(request.url ?? '')?.[1];
      if (whole !== undefined) asked.push(whole);
      for (const text of asked) {
        const name = nameIn(text);
        if (name !== undefined && isOurs(name, request)) continue;
        throw new TomaatError(
          'MISDIRECTED',
          `This server does not serve the host name '${text.slice(0, 100)}'. Use the address that it printed at startup. If the name is correct, start it with --allow-host ${name ?? 'NAME'} or with --public-url.`,
          { field: 'Host' },
        );
      }
    },
    checkOrigin(request, leadsHere) {
      const { headers } = request;
      const { origin } = headers;
      if (origin !== undefined) {
        if (isSame(origin, request) || allowedOrigin(request) !== undefined) return;
        throw foreignPage(origin);
      }
      const site = headers['sec-fetch-site'];
      if (site === undefined || site === 'same-origin' || site === 'none') return;
      if (leadsHere && isNavigation(request)) return;
      throw refuse(
        'The request comes from a page of another site, which is not allowed to use this server. To allow it, start the server with --allow-origin and the origin of the page, such as https://viewer.example.',
      );
    },
  };
}

function foreignPage(address: string): TomaatError {
  const shown = address.replace(/[^\x21-\x7e]/g, '').slice(0, 100);
  return refuse(
    `The request comes from the page ${shown}, which is not allowed to use this server. If that is the address of a proxy in front of this server, start the server with --public-url ${shown}. To allow another site, start it with --allow-origin ${URL.parse(shown)?.origin ?? 'ORIGIN'}.`,
  );
}

const refuse = (message: string) => new TomaatError('FORBIDDEN', message, { field: 'Origin' });

/** Whether a name in a certificate is this host (RFC 9525, 6.3): a wildcard matches exactly one label, the first. */
export function isNamedBy(pattern: string, host: string): boolean {
  if (isIP(pattern) !== 0 || isIP(host) !== 0) return isIP(pattern) !== 0 && sameAddress(host, pattern);
  const wanted = pattern.toLowerCase().replace(/\.$/, '');
  const name = host.toLowerCase().replace(/\.$/, '');
  if (!wanted.startsWith('*.')) return wanted === name;
  const rest = wanted.slice(1);
  const firstDot = name.indexOf('.');
  // Not `*.com`: no authority issues that for a server, and anyone can have such a name.
  return (
    rest.indexOf('.', 1) > 0 && name.endsWith(rest) && firstDot > 0 && firstDot === name.length - rest.length
  );
}

/** The host in `name`, `name:port`, `[address]:port`; undefined for anything else. */
function nameIn(text: string): string | undefined {
  const found = /^(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::\d{1,5})?$/i.exec(text)?.[1];
  return found && comparable(found);
}

/** Whether the page comes from the same address that it calls. */
function isSame(origin: string, request: IncomingMessage): boolean {
  const scheme = (request.socket as { encrypted?: boolean }).encrypted ? 'https' : 'http';
  const own = `${scheme}://${request.headers.host ?? ''}`;
  return URL.canParse(own) && new URL(own).origin === origin;
}

/** A browser navigating to an address, not a page that fetches or embeds it. */
export function isNavigation({ method, headers }: IncomingMessage): boolean {
  return (
    method === 'GET' && headers['sec-fetch-mode'] === 'navigate' && headers['sec-fetch-dest'] === 'document'
  );
}

function sameAddress(name: string, local: string | undefined): boolean {
  return local !== undefined && plainAddress(name) === plainAddress(local);
}

function plainAddress(text: string): string {
  const address = unmapped(text.toLowerCase().split('%', 1)[0]);
  return isIP(address) === 6 ? new URL(`http://[${address}]`).hostname : address;
}

export interface BindOptions {
  host: string;
  login?: boolean;
  /** Whether the operator chose a certificate: their own files, or the self-signed one. */
  tlsChosen: boolean;
}

/**
 * An address beyond this machine needs a login and a chosen certificate.
 * @throws TomaatError BAD_REQUEST that names the missing flags.
 */
export function requireSafeBind({ host, login, tlsChosen }: BindOptions): void {
  if (isLoopback(host) || (login && tlsChosen)) return;
  const missing = [
    ...(login ? [] : ['--login']),
    ...(tlsChosen ? [] : ['--tls-self-made (or --tls-cert and --tls-key)']),
  ];
  throw new TomaatError(
    'BAD_REQUEST',
    `${host} is reachable from other machines: anyone who reaches the port could use the server${tlsChosen ? '' : ' and read its traffic'}. Give ${missing.join(' and ')}, or use --host 127.0.0.1.`,
  );
}
