import { isIP } from 'node:net';
import { type Manifest, type ModelServerAddress, modelServersOf, TomaatError } from '@tomaat/core';
import { contains, createRanges, isLoopback, isNowhere } from '../addresses.ts';

/**
 * What the operator of this machine permits of model servers: the network in which apps may use them, what proves their identity, and
 * the keys that they want. Plain data: the process that computes gets it as a message.
 */
export interface ModelServers {
  /** Ranges (`10.1.0.0/16`) or single addresses in addition to loopback. */
  readonly allowNet: readonly string[];
  /** Certificates (PEM) to trust in addition to those of the system. */
  readonly ca?: string;
  /** By `host:port`. Secrets: never logged, never an argument of a process. */
  readonly keys: Readonly<Record<string, string>>;
}

/** The key in a line `HOST:PORT=KEY`; undefined if it is not such a line. */
export function parseModelServerKey(line: string): { name: string; key: string } | undefined {
  const at = line.indexOf('=');
  const address = `http://${line.slice(0, Math.max(0, at))}`;
  const key = line.slice(at + 1);
  if (at < 0 || !URL.canParse(address) || !/^[\x21-\x7e]{1,4096}$/.test(key)) return undefined;
  const { hostname, port, pathname, username, search, hash, host } = new URL(address);
  const isPlain = pathname === '/' && username + search + hash === '';
  // The parser leaves out :80, which http assumes.
  const hasPort = port !== '' || line.slice(0, at).endsWith(':80');
  return isPlain && hasPort && hostname !== '' ? { name: port === '' ? `${host}:80` : host, key } : undefined;
}

/** The keys of the setting `modelServerKeys`, by `host:port`. */
export const readModelServerKeys = (lines: readonly string[]): Record<string, string> =>
  Object.fromEntries(
    lines.flatMap((line) => {
      const found = parseModelServerKey(line);
      return found ? [[found.name, found.key]] : [];
    }),
  );

/** What the process of an app may know: the keys of its own model servers alone. Undefined for an app that uses none. */
export function modelServersFor(
  { manifest }: { manifest: Pick<Manifest, 'model'> },
  permitted: ModelServers | undefined,
): ModelServers | undefined {
  const used = modelServersOf(manifest).map(({ name }) => name);
  if (used.length === 0) return undefined;
  const { allowNet = [], ca, keys = {} } = permitted ?? {};
  return {
    allowNet,
    ca,
    keys: Object.fromEntries(Object.entries(keys).filter(([name]) => used.includes(name))),
  };
}

/** The least prefix of a range that permits addresses which are no server's: `::/0` does not name a metadata service. */
const leastPrefix = 10;

/**
 * The rule about addresses that a model server's name resolves to. Loopback is permitted, because the app itself runs here; all others
 * only in the operator's ranges, and link-local and reserved ones only if a range names these.
 * @throws {TomaatError} from the rule: BAD_MANIFEST, with the flag that permits the address
 */
export function createAddressRule(
  { name, secure }: ModelServerAddress,
  { allowNet, keys }: ModelServers,
): (address: string) => void {
  const allowed = createRanges(allowNet);
  const named = createRanges(
    allowNet.filter((range) => {
      const [base, prefix = '128'] = range.split('/');
      return isNowhere(base) && Number(prefix) >= leastPrefix;
    }),
  );
  return (address) => {
    if (isLoopback(address)) return;
    if (!contains(isNowhere(address) ? named : allowed, address)) {
      throw new TomaatError(
        'BAD_MANIFEST',
        `The app uses the model server ${name} at ${address}, and this machine may not connect to that address. Its operator can permit it: --allow-net ${address}/${isIP(address) === 6 ? 128 : 32}, or the setting allowNet.`,
        { field: 'model.url' },
      );
    }
    if (!secure && Object.hasOwn(keys, name)) {
      throw new TomaatError(
        'BAD_MANIFEST',
        `The key for the model server ${name} is sent over TLS or to this machine only, and the address in the manifest has no TLS. Write grpcs:// or https:// in model.url, or remove the key from modelServerKeys.`,
        { field: 'model.url' },
      );
    }
  };
}
