import { hostname } from 'node:os';

/** How an address to listen on (`--host`) stands in the addresses that are printed, announced and called. */

const bare = (host: string) => host.replace(/^\[(.*)\]$/, '$1');
/** A name or address as it stands in a URL. */
export const inUrl = (host: string) => (host.includes(':') ? `[${host}]` : host);

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
