import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import { TomaatError } from '@tomaat/core';
import { bare, contains, createRanges, isLoopback, isNowhere, isThisMachine } from '../addresses.ts';

/**
 * Where the relay may connect to. An allow-list of addresses, loopback (of a registry that itself listens on loopback
 * alone) and what the operator adds; checked on the resolved address that is connected to, so that neither a spelling
 * nor a changing name bypasses it.
 */
export interface Target {
  /** The base address as announced. */
  readonly url: URL;
  /** The permitted address to connect to, instead of asking DNS again. */
  readonly address: string;
  readonly family: 4 | 6;
  /** Whether the address is on this machine. */
  readonly loopback: boolean;
  /** Whether it is the registry's own server. */
  readonly own: boolean;
}

export type Resolve = (hostname: string) => Promise<{ address: string; family: number }[]>;

export interface TargetPolicy {
  /**
   * The permitted addresses of an announced server, in the order of DNS.
   * @throws TomaatError FORBIDDEN if none is permitted, UNREACHABLE if the name is unknown.
   */
  resolve(serverUrl: string): Promise<Target[]>;
}

/**
 * The rule for a client about an address that came from a registry. Private networks are permitted: a
 * hospital's servers are there, and the user chose the registry. This machine's own addresses are not, unless the registry
 * is on it too: a remote registry does not know what runs here, and could only attack services that trust loopback.
 * @throws TomaatError FORBIDDEN.
 */
export function checkToldAddress(address: string, registryIsHere: boolean): void {
  if (isThisMachine(address)) {
    if (registryIsHere) return;
    throw new TomaatError(
      'FORBIDDEN',
      `The registry gave the address ${address}, which is this machine itself, so no connection was made. If it is intended, give the address of the service instead of its name.`,
    );
  }
  if (!isNowhere(address)) return;
  throw new TomaatError(
    'FORBIDDEN',
    `The registry gave the address ${address}, which cannot be that of a server (link-local, multicast, reserved or a hidden form), so no connection was made. If it is intended, give the address of the service instead of its name.`,
  );
}

/** A server that runs with the registry. */
export interface OwnServer {
  /** Its base address as announced to clients. */
  readonly announced: string;
  /** Its base address for this machine. */
  readonly local: string;
}

/**
 * @param own is reached at its local address, whatever its announced address resolves to.
 * @param allowNet ranges (`10.1.0.0/16`, `fd00::/8`) or single addresses in addition to loopback.
 * @param loopbackToo whether loopback is permitted without being in a range.
 * @throws TomaatError BAD_REQUEST for an invalid range.
 */
export function createTargetPolicy(
  allowNet: readonly string[] = [],
  resolve: Resolve = resolveByDns,
  own?: OwnServer,
  loopbackToo = true,
): TargetPolicy {
  const allowed = createRanges(allowNet);
  return {
    async resolve(serverUrl) {
      const isOwn = serverUrl === own?.announced;
      const url = checkAddress(isOwn ? own.local : serverUrl);
      const hostname = bare(url.hostname);
      const known = isIP(hostname)
        ? [{ address: hostname, family: isIP(hostname) }]
        : await resolve(hostname).catch((error: unknown) => {
            throw new TomaatError('UNREACHABLE', `the name ${hostname} is not known to DNS`, {
              cause: error,
            });
          });
      const targets = known
        .map(({ address, family }): Target => {
          const here = isOwn || isLoopback(address);
          return { url, address, family: family === 6 ? 6 : 4, loopback: here, own: isOwn };
        })
        .filter((target) => isOwn || (target.loopback && loopbackToo) || contains(allowed, target.address));
      if (targets.length === 0) {
        throw new TomaatError(
          'FORBIDDEN',
          `the registry may not connect to ${url.host}; its operator can allow that with --allow-net`,
        );
      }
      return targets;
    },
  };
}

/**
 * An announced address as a URL.
 * @throws TomaatError FORBIDDEN unless it is a plain http or https address without user, password or fragment.
 */
export function checkAddress(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (!url || (url.protocol !== 'http:' && url.protocol !== 'https:') || url.hostname === '') {
    throw new TomaatError('FORBIDDEN', 'the address is not an http or https address');
  }
  if (url.username !== '' || url.password !== '') {
    throw new TomaatError(
      'FORBIDDEN',
      'the address contains a user name or password, which is not allowed here',
    );
  }
  if (url.hash !== '')
    throw new TomaatError('FORBIDDEN', 'the address has a fragment (#…), which is not allowed here');
  return url;
}

function resolveByDns(hostname: string): Promise<{ address: string; family: number }[]> {
  return lookup(hostname, { all: true });
}
