import { hostname } from 'node:os';

/** How addresses of machines are written: one to listen on (`--host`) in what is printed, announced and called; one that calls. */

const bare = (host: string) => host.replace(/^\[(.*)\]$/, '$1');
/** A name or address as it stands in a URL. */
export const inUrl = (host: string) => (host.includes(':') ? `[${host}]` : host);

/** The IPv4 address that one in IPv6 form (::ffff:192.0.2.1) is; any other as it stands. */
export const unmapped = (address: string) => address.replace(/^::ffff:(?=\d+\.\d+\.\d+\.\d+$)/i, '');

/** Whether it means all addresses of this machine. */
export function isWildcard(host: string): boolean {
  return ['0.0.0.0', '::', '0:0:0:0:0:0:0:0'].includes(bare(host));
}

/** The host of an address for others; for all addresses, this machine's name. */
export function hostForOthers(host: string): string {
  return isWildcard(host) ? hostname() : inUrl(bare(host));
}

/** The host of an address at which this machine reaches itself, whatever DNS says. */
export function hostForSelf(host: string): string {
  if (!isWildcard(host)) return inUrl(bare(host));
  return bare(host).includes(':') ? '[::1]' : '127.0.0.1';
}
