import { X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as tls from 'node:tls';
import { TomaatError } from '@tomaat/core';
import { isLoopback, isThisMachine } from '../addresses.ts';
import { checkToldAddress } from '../registry/targets.ts';
import { defaultServer } from '../settings.ts';
import { defaultAuthorities } from '../trust/authorities.ts';
import {
  createGuardedFetch,
  type FetchRules,
  peekCertificate,
  type Shown,
  untrusted,
} from '../trust/guarded-fetch.ts';
import {
  addPin,
  findPins,
  knownHostsFile,
  type Pin,
  parseFingerprint,
  updatePin,
} from '../trust/known-hosts.ts';
import { askOnTerminal } from './terminal.ts';

/** Shared by the commands that talk to servers. */
export interface ConnectOptions {
  registry?: string;
  apiKey?: string;
  ca?: string;
  data?: string;
  /** SHA-256 fingerprints of certificates that the user trusts. */
  fingerprint?: string[];
  signal?: AbortSignal;
  /** Asks the user; defaults to asking on the terminal. */
  ask?(question: string): Promise<boolean>;
}

/** A server or registry to which requests may be sent. */
export interface Reached {
  readonly fetch: typeof globalThis.fetch;
  /** Names in its certificate. */
  readonly hosts: readonly string[];
}

/** What is known about an address that came from a registry. */
export interface Told {
  /** The registry that it came from. */
  readonly registry: string;
  /** The certificate that its server announced, signed with a remembered key. */
  readonly certificate?: string;
}

/**
 * Prepares requests to this address and checks its certificate before any is sent. Accepted certificates: one trusted
 * by the system or --ca; that of the server on this machine; one in the file of known hosts; one announced under a
 * remembered key; and one that the user confirms once, on a terminal.
 * @throws TomaatError BAD_REQUEST if a key would leave this machine unencrypted, UNREACHABLE for a certificate that
 *   is unknown or has changed, FORBIDDEN for an address that a registry may not announce.
 */
export async function connectTo(address: string, options: ConnectOptions, told?: Told): Promise<Reached> {
  const url = parseUrl(address);
  const local = isLoopback(url.hostname);
  if (options.apiKey && url.protocol === 'http:' && !local) {
    throw new TomaatError(
      'BAD_REQUEST',
      `The API key would be sent to ${url.host} unencrypted. Use https://, or leave the key out.`,
    );
  }
  const registryIsHere = told !== undefined && isThisMachine(parseUrl(told.registry).hostname);
  const rules: FetchRules = {
    ca: options.ca && (await readCertificates(options.ca)),
    checkAddress: told && ((address) => checkToldAddress(address, registryIsHere)),
  };
  if (url.protocol === 'http:') return { fetch: createGuardedFetch(rules), hosts: [] };
  let shown: Shown;
  try {
    shown = await peekCertificate(url, rules, options.signal);
  } catch (error) {
    options.signal?.throwIfAborted();
    if (error instanceof TomaatError) throw error;
    // It is unreachable: the first request reports why, and may still succeed.
    return { fetch: createGuardedFetch(rules), hosts: [] };
  }
  if (!shown.authorized) await judge(url, shown, options, told);
  const { fingerprint, keyFingerprint, hosts } = shown;
  // The server may renew its certificate while this process runs.
  const isKnown = (other: string, otherKey: string) =>
    !shown.authorized && (other === fingerprint || otherKey === keyFingerprint);
  return { fetch: createGuardedFetch({ ...rules, isKnown }), hosts };
}

/** Throws unless a certificate without an authority is already known, or the user confirms it. */
async function judge(url: URL, shown: Shown, options: ConnectOptions, told?: Told): Promise<void> {
  const { fingerprint, keyFingerprint } = shown;
  const host = hostAndPort(url);
  const given = options.fingerprint?.map(parseFingerprint) ?? [];
  if (given.includes(fingerprint)) return;
  const dataFolder = await dataFolderOf(options);
  if (isLoopback(url.hostname) && fingerprint === (await ownFingerprint(dataFolder))) return;
  const file = knownHostsFile(dataFolder);
  const pins = await findPins(file, host);
  const known = findKnown(pins, shown);
  if (known) return keepUp(file, known, shown);
  if (pins.length > 0) {
    const [{ value, line }] = pins;
    throw new TomaatError(
      'UNREACHABLE',
      `${host} presents a different certificate than before. Either it was renewed, or somebody is intercepting the connection.\n  known  ${value}\n  shown  ${fingerprint}\nNothing was sent. Ask the operator of the server. If the certificate was renewed: tomaat trust remove ${host} (line ${line} of ${file}), then connect again.`,
      { detail: { hopeless: true, known: value, shown: fingerprint } },
    );
  }
  if (told?.certificate === fingerprint) return;
  if (told?.certificate !== undefined) {
    throw new TomaatError(
      'UNREACHABLE',
      `${host} presents a different certificate than its server announced. Either it was renewed just now, or somebody is intercepting the connection.\n  announced  ${told.certificate}\n  shown      ${fingerprint}\nNothing was sent. Try again in a minute. If this persists, ask the operator of the server.`,
      { detail: { hopeless: true, known: told.certificate, shown: fingerprint } },
    );
  }
  if (given.length > 0) {
    throw new TomaatError(
      'UNREACHABLE',
      `${host} presents a different certificate than the one given.\n  given  ${given.join(', ')}\n  shown  ${fingerprint}\nNothing was sent. Ask the operator of the server.`,
      { detail: { hopeless: true, shown: fingerprint } },
    );
  }
  const ask = options.ask ?? askOnTerminal;
  const question = `The certificate of ${host} is not known here. Its SHA-256 fingerprint is\n  ${fingerprint}\nThe server prints it at startup. Does it match, and do you trust it? [y/N] `;
  if (!(await ask(question))) throw untrusted(host, shown, options.data);
  await addPin(file, host, fingerprint, { keyFingerprint });
}

/** The line for a known certificate: by its fingerprint, or by its key. */
export const findKnown = (
  pins: readonly Pin[],
  { fingerprint, keyFingerprint }: Pick<Shown, 'fingerprint' | 'keyFingerprint'>,
): Pin | undefined =>
  pins.find(({ value }) => value === fingerprint) ??
  pins.find((pin) => pin.keyFingerprint === keyFingerprint);

/** Records the key of a known certificate, and the renewed certificate of a known key. */
async function keepUp(file: string, pin: Pin, { fingerprint, keyFingerprint }: Shown): Promise<void> {
  if (pin.value === fingerprint && pin.keyFingerprint === keyFingerprint) return;
  try {
    await updatePin(file, pin, { value: fingerprint, keyFingerprint });
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    // It is known anyway; the file is read-only for this user.
    if (!['EACCES', 'EPERM', 'EROFS'].includes(code)) throw error;
  }
}

export const hostAndPort = (url: URL): string =>
  `${url.hostname}:${url.port || (url.protocol === 'https:' ? 443 : 80)}`;

export const dataFolderOf = async ({ data }: Pick<ConnectOptions, 'data'>): Promise<string> =>
  data ?? (await import('../config.ts')).defaultDataFolder();

/** The fingerprint of the self-signed certificate of the server on this machine. */
async function ownFingerprint(dataFolder: string): Promise<string | undefined> {
  try {
    return new X509Certificate(await readFile(join(dataFolder, 'tomaat.pem'))).fingerprint256;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** Trusts the certificates of a file for all connections of this process. */
export async function trustEverywhere(file: string): Promise<void> {
  tls.setDefaultCACertificates([...defaultAuthorities(), await readCertificates(file)]);
}

/** The certificates of a PEM file. BAD_REQUEST if it contains none. */
export async function readCertificates(file: string): Promise<string> {
  const pem = await readFile(file, 'utf8');
  if (!pem.includes('-----BEGIN CERTIFICATE-----')) {
    throw new TomaatError(
      'BAD_REQUEST',
      `${file} contains no certificate. Give a PEM file such as the server's tomaat.pem.`,
    );
  }
  return pem;
}

export function parseUrl(address: string): URL {
  try {
    const url = new URL(address);
    if (url.protocol === 'http:' || url.protocol === 'https:') return url;
  } catch {}
  throw new TomaatError(
    'BAD_REQUEST',
    `“${address}” is not an http or https address. Give one such as ${defaultServer}.`,
  );
}
