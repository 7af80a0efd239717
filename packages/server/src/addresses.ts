import { BlockList, isIP, isIPv4 } from 'node:net';
import { hostname } from 'node:os';
import { TomaatError } from '@tomaat/core';

/** How addresses of machines are written: one to listen on (`--host`) when it is printed, announced and called; that of a caller. */

/** The host of a URL for a lookup: an IPv6 address without its brackets. */
export const bare = (host: string) => host.replace(/^\[(.*)\]$/, '$1');
/** A name or address as written in a URL. */
export const inUrl = (host: string) => (host.includes(':') ? `[${host}]` : host);

/** The IPv4 address of one in IPv6 form (::ffff:192.0.2.1); any other unchanged. */
export const unmapped = (address: string) =>
  address.slice(0, 7).toLowerCase() === '::ffff:' && isIPv4(address.slice(7)) ? address.slice(7) : address;

/** Whether it means all addresses of this machine. */
export function isWildcard(host: string): boolean {
  return ['0.0.0.0', '::', '0:0:0:0:0:0:0:0'].includes(bare(host));
}

/** The host of an address for others; for all addresses, this machine's name. */
export function hostForOthers(host: string): string {
  return isWildcard(host) ? hostname() : inUrl(bare(host));
}

/** The host of an address at which this machine reaches itself, without DNS. */
export function hostForSelf(host: string): string {
  if (!isWildcard(host)) return inUrl(bare(host));
  return bare(host).includes(':') ? '[::1]' : '127.0.0.1';
}

/**
 * A list of network ranges (`10.1.0.0/16`, `fd00::/8`) and single addresses.
 * @throws TomaatError BAD_REQUEST for a text that is not a range.
 */
export function createRanges(ranges: readonly string[]): BlockList {
  const list = new BlockList();
  for (const range of ranges) {
    const [address, prefix, ...rest] = range.split('/');
    const version = isIP(address);
    const bits = version === 4 ? 32 : 128;
    const length = prefix === undefined ? bits : /^\d{1,3}$/.test(prefix) ? Number(prefix) : Number.NaN;
    if (version === 0 || rest.length > 0 || !(length <= bits)) {
      throw new TomaatError(
        'BAD_REQUEST',
        `'${range}' is not a network range. Write it like 10.1.0.0/16 or fd00::/8.`,
        {
          field: 'allow-net',
        },
      );
    }
    list.addSubnet(address, length, version === 4 ? 'ipv4' : 'ipv6');
  }
  return list;
}

/** Whether an address is in the list; IPv4 in IPv6 form (::ffff:…) counts as the IPv4 address that it connects to. A name is in no list. */
export function contains(list: BlockList, address: string): boolean {
  const version = isIP(address);
  return version !== 0 && list.check(address, version === 4 ? 'ipv4' : 'ipv6');
}

const loopback = createRanges(['127.0.0.0/8', '::1/128']);

/** Whether an address, or a name that always means this machine, is loopback. */
export function isLoopback(host: string): boolean {
  const name = bare(host).toLowerCase();
  return name === 'localhost' || contains(loopback, name);
}

/** Addresses that mean the connecting machine itself, wherever they came from. */
const thisMachine = createRanges(['127.0.0.0/8', '0.0.0.0/8', '::1/128', '::/128']);

/** Whether a host, as written in an address, is this machine by its spelling. */
export const isThisMachine = (host: string): boolean => isLoopback(host) || contains(thisMachine, bare(host));

/**
 * Ranges without hospital servers: link-local and the metadata services of clouds, multicast, reserved, and the forms
 * of IPv6 that hide an IPv4 address (compatible, translated, NAT64, 6to4, Teredo).
 */
const nowhere = createRanges([
  ...['169.254.0.0/16', 'fe80::/10', 'fec0::/10', 'fd00:ec2::254', '100.100.100.200', '168.63.129.16'],
  ...['224.0.0.0/4', 'ff00::/8', '240.0.0.0/4', '192.0.0.0/24', '100::/64'],
  ...['::/96', '::ffff:0:0:0/96', '64:ff9b::/96', '64:ff9b:1::/48', '2002::/16', '2001::/32'],
]);

/** Whether an address cannot be that of a hospital's server. */
export const isNowhere = (address: string): boolean => contains(nowhere, address);
