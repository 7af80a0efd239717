import { TomaatError } from '@tomaat/core';
import Table from 'cli-table3';
import { requireOwner } from '../store/files/folder-owner.ts';
import { createGuardedFetch, peekCertificate, untrusted } from '../trust/guarded-fetch.ts';
import {
  addPin,
  findPins,
  knownHostsFile,
  parseFingerprint,
  readPins,
  removePins,
} from '../trust/known-hosts.ts';
import {
  type ConnectOptions,
  dataFolderOf,
  findKnown,
  hostAndPort,
  parseUrl,
  readCertificates,
} from './connect.ts';
import { openTable } from './console.ts';
import { askOnTerminal } from './terminal.ts';

export interface TrustFlags extends Pick<ConnectOptions, 'ca' | 'data' | 'fingerprint'> {
  json?: boolean;
}

/** `tomaat trust URL`: remembers the certificate that a server presents, after the user has compared it. */
export async function trust(address: string, flags: TrustFlags): Promise<number> {
  const url = parseUrl(address);
  if (url.protocol !== 'https:')
    throw new TomaatError(
      'BAD_REQUEST',
      `${address} is not an https address, so it has no certificate. Give one with https://.`,
    );
  const host = hostAndPort(url);
  requireOwner(await dataFolderOf(flags));
  const shown = await peek(url, flags);
  if (shown.authorized) {
    console.log(
      `An authority vouches for the certificate of ${host}; it is trusted without being remembered.`,
    );
    return 0;
  }
  const { fingerprint, keyFingerprint } = shown;
  const given = flags.fingerprint?.map(parseFingerprint);
  if (given && !given.includes(fingerprint)) {
    throw new TomaatError(
      'CONFLICT',
      `${host} presents a different certificate than the one given.\n  given  ${given.join(', ')}\n  shown  ${fingerprint}\nNothing was remembered. Ask the operator of the server.`,
    );
  }
  const file = knownHostsFile(await dataFolderOf(flags));
  const known = await findPins(file, host);
  if (findKnown(known, shown)) {
    console.log(`${host} is already trusted.`);
    return 0;
  }
  const before = known.map(({ value }) => `\n  known  ${value}`).join('');
  const question = `${host} shows the certificate with the SHA-256 fingerprint${before}\n  ${before ? 'shown  ' : ''}${fingerprint}\nThe server prints it at startup. Does it match, and do you trust it? [y/N] `;
  if (!given && !(await askOnTerminal(question))) throw untrusted(host, shown, flags.data);
  await addPin(file, host, fingerprint, { replace: true, keyFingerprint });
  console.log(`${host} is trusted from now on (${file}).`);
  return 0;
}

async function peek(url: URL, { ca }: TrustFlags) {
  const rules = { ca: ca && (await readCertificates(ca)) };
  try {
    return await peekCertificate(url, rules);
  } catch (error) {
    // A request reports why it cannot be reached.
    const { createClient } = await import('@tomaat/client');
    const client = createClient({ baseUrl: url.origin, retries: 0, fetch: createGuardedFetch(rules) });
    await client.services({});
    throw error;
  }
}

/** `tomaat trust list`. */
export async function trustList(flags: TrustFlags): Promise<number> {
  const file = knownHostsFile(await dataFolderOf(flags));
  const pins = await readPins(file);
  if (flags.json) console.log(JSON.stringify(pins));
  else if (pins.length === 0) console.log(`Nothing is remembered in ${file}.`);
  else {
    const rows = pins.map(({ name, value, firstSeen = '' }) => [name, value, firstSeen]);
    console.log(openTable(Table, ['NAME', 'FINGERPRINT OR KEY', 'FIRST SEEN'], rows));
  }
  return 0;
}

/** `tomaat trust remove NAME`. */
export async function trustRemove(name: string, flags: TrustFlags): Promise<number> {
  requireOwner(await dataFolderOf(flags));
  const file = knownHostsFile(await dataFolderOf(flags));
  const wanted = /^https?:\/\//.test(name) ? hostAndPort(parseUrl(name)) : name;
  if ((await removePins(file, wanted)) === 0) {
    throw new TomaatError(
      'NOT_FOUND',
      `${file} has no line for ${wanted}. “tomaat trust list” shows its lines.`,
    );
  }
  console.log(`${wanted} is forgotten.`);
  return 0;
}
