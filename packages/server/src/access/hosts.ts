import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import { isIP } from 'node:net';
import { TomaatError } from '@tomaat/core';
import { isWildcard, unmapped } from '../addresses.ts';
import { isLoopback } from '../registry/targets.ts';

/**
 * By which names a server is called, and which pages may call it. A page of another site reaches a server on this
 * machine in two ways: by a name of its own that leads here (DNS rebinding), which shows in `Host`; and by the
 * server's address (CSRF), which shows in `Origin` and `Sec-Fetch-Site`. Programs send neither of the latter two.
 */
export interface HostPolicy {
  /** @throws TomaatError MISDIRECTED when the request is for a name that is not ours. */
  checkHost(request: IncomingMessage): void;
  /**
   * @param leadsHere whether another site may lead a browser to this address.
   * @returns the page's origin, where it is another one that the operator allowed.
   * @throws TomaatError FORBIDDEN when the request comes from a page of another site.
   */
  checkOrigin(request: IncomingMessage, leadsHere: boolean): string | undefined;
}

export interface HostOptions {
  /** The address that is listened on; 127.0.0.1 if missing. */
  host?: string;
  /** Names and addresses of this machine, for what listens beyond it. */
  machineNames?: readonly string[];
  publicUrl?: string;
  allowHost?: readonly string[];
  /** Origins, such as `https://viewer.example`, whose pages may send requests. */
  allowOrigin?: readonly string[];
}

const bare = (host: string) => host.replace(/^\[(.*)\]$/, '$1').toLowerCase();

export function createHostPolicy(options: HostOptions): HostPolicy {
  const { host = '127.0.0.1', publicUrl } = options;
  const beyond = !isLoopback(host);
  const names = new Set(
    [
      ...(isWildcard(host) ? [] : [host]),
      ...(beyond ? (options.machineNames ?? []) : []),
      ...(publicUrl === undefined ? [] : [new URL(publicUrl).hostname]),
      ...(options.allowHost ?? []),
    ].map(bare),
  );
  const origins = new Set([
    ...(publicUrl === undefined ? [] : [new URL(publicUrl).origin]),
    ...(options.allowOrigin ?? []).map((origin) => new URL(origin).origin),
  ]);

  function isOurs(name: string, request: IncomingMessage): boolean {
    // What means this machine wherever it is said, no other site can have as its name.
    if (name === 'localhost' || (isIP(name) !== 0 && isLoopback(name))) return true;
    if (names.has(name)) return true;
    // An address that the connection came in on: no name leads to it.
    return beyond && isIP(name) !== 0 && sameAddress(name, request.socket.localAddress);
  }

  return {
    checkHost(request) {
      const { host: given } = request.headers;
      // HTTP/1.0 has no such header, and no browser speaks it.
      if (given === undefined && request.httpVersion === '1.0' && request.url?.startsWith('/')) return;
      const asked = [given ?? ''];
      // A request line with a whole address goes before the header (RFC 9112).
      const whole = /^[a-z][a-z0-9+.-]*:\/\/([^/?#]*)/i.exec(request.url ?? '')?.[1];
      if (whole !== undefined) asked.push(whole);
      for (const text of asked) {
        const name = nameIn(text);
        if (name !== undefined && isOurs(name, request)) continue;
        throw new TomaatError(
          'MISDIRECTED',
          `This server does not answer to the name '${text.slice(0, 100)}'. Use the address that it printed at its start; if the name is right, start it with --allow-host ${name ?? 'NAME'} or with --public-url.`,
          { field: 'Host' },
        );
      }
    },
    checkOrigin(request, leadsHere) {
      const { headers } = request;
      const { origin } = headers;
      if (origin !== undefined) {
        if (isSame(origin, request)) return undefined;
        if (origins.has(origin)) return origin;
        throw foreign(`from the page ${origin.slice(0, 100)}`);
      }
      const site = headers['sec-fetch-site'];
      if (site === undefined || site === 'same-origin' || site === 'none') return undefined;
      if (leadsHere && isNavigation(request.method, headers)) return undefined;
      throw foreign('from a page of another site');
    },
  };
}

const foreign = (from: string) =>
  new TomaatError(
    'FORBIDDEN',
    `The request comes ${from}, which may not use this server. If it is meant to, start the server with --allow-origin and its address (https://viewer.example), or with --public-url where a proxy stands in front.`,
    { field: 'Origin' },
  );

/** The host in `name`, `name:port`, `[address]:port`; undefined for whatever else. */
function nameIn(text: string): string | undefined {
  const found = /^(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::\d{1,5})?$/i.exec(text)?.[1];
  return found && bare(found);
}

/** Whether the page comes from the very address that it calls. */
function isSame(origin: string, request: IncomingMessage): boolean {
  const scheme = (request.socket as { encrypted?: boolean }).encrypted ? 'https' : 'http';
  const own = `${scheme}://${request.headers.host ?? ''}`;
  return URL.canParse(own) && new URL(own).origin === origin;
}

/** A browser that goes to an address as a whole, not a page that fetches or embeds it. */
function isNavigation(method: string | undefined, headers: IncomingHttpHeaders): boolean {
  return (
    method === 'GET' && headers['sec-fetch-mode'] === 'navigate' && headers['sec-fetch-dest'] === 'document'
  );
}

function sameAddress(name: string, local: string | undefined): boolean {
  return local !== undefined && plainAddress(name) === plainAddress(local);
}

function plainAddress(text: string): string {
  const address = unmapped(text.toLowerCase().replace(/%.*$/, ''));
  return isIP(address) === 6 ? new URL(`http://[${address}]`).hostname : address;
}

export interface BindOptions {
  host: string;
  login?: boolean;
  /** Whether the operator said which certificate: files of his own, or the self-made one. */
  tlsChosen: boolean;
}

/**
 * An address beyond this machine needs a login and a chosen certificate.
 * @throws TomaatError BAD_REQUEST that names the flags which are missing.
 */
export function requireSafeBind({ host, login, tlsChosen }: BindOptions): void {
  if (isLoopback(host) || (login && tlsChosen)) return;
  const missing = [
    ...(login ? [] : ['--login']),
    ...(tlsChosen ? [] : ['--tls-self-made (or --tls-cert and --tls-key)']),
  ];
  throw new TomaatError(
    'BAD_REQUEST',
    `${host} is not this machine alone: whoever reaches the port could use it${tlsChosen ? '' : ' and read along'}. Give ${missing.join(' and ')}; or --host 127.0.0.1.`,
  );
}
