import { X509Certificate } from 'node:crypto';
import { lookupService } from 'node:dns/promises';
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { hostname, networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { TomaatError } from '@tomaat/core';
import { generate } from 'selfsigned';
import { isWildcard } from './addresses.ts';

export interface Certificate {
  key: string;
  cert: string;
  /** SHA-256 of the certificate, upper-case hex pairs joined by `:`, as the Slicer client shows it. */
  fingerprint: string;
  /** Where the certificate lies, for clients that are told to trust it. */
  certFile: string;
  selfMade: boolean;
}

export interface CertificateOptions {
  /** The operator's own certificate and its key: files (PEM). */
  cert?: string;
  key?: string;
  /** Name or address that is listened on; a self-made certificate that lacks it is made anew. */
  host?: string;
  /** More names or addresses for a certificate that is made. */
  names?: readonly string[];
  logger?: { warn(about: object, message: string): void };
}

/**
 * The operator's own certificate, or the self-made one of the data folder. That is made on first use and kept, as
 * users pin its fingerprint, until it runs out or the server listens on a name or address that it lacks.
 */
export async function openCertificate(
  dataFolder: string,
  options: CertificateOptions = {},
): Promise<Certificate> {
  if (options.cert || options.key) {
    if (!options.cert || !options.key) {
      throw new TomaatError('BAD_REQUEST', '--tls-cert and --tls-key go together. Give both.');
    }
    return load(options.cert, options.key, false);
  }
  const host = options.host === undefined || isWildcard(options.host) ? undefined : bare(options.host);
  const certFile = join(dataFolder, 'tomaat.pem');
  const keyFile = join(dataFolder, 'tomaat.key');
  let earlier: string[] = [];
  let why: string | undefined;
  try {
    const kept = await load(certFile, keyFile, true);
    const certificate = new X509Certificate(kept.cert);
    const runsOut = new Date(certificate.validTo).getTime() <= Date.now();
    if (!runsOut && (host === undefined || isFor(certificate, host))) return kept;
    earlier = namesOf(certificate);
    why = runsOut ? 'the self-made certificate has run out' : `the self-made certificate is not for ${host}`;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  await mkdir(dataFolder, { recursive: true });
  const all = [
    ...['localhost', '127.0.0.1', '::1'],
    ...(await namesOfMachine()),
    ...(host === undefined ? [] : [host]),
    ...(options.names ?? []).map(bare),
    ...earlier,
  ];
  const names = [...new Set(all.map((name) => name.toLowerCase()))].map((name) =>
    isIP(name) ? { type: 7 as const, ip: name } : { type: 2 as const, value: name },
  );
  const made = await generate([{ name: 'commonName', value: 'TOMAAT self-made certificate' }], {
    keyType: 'ec',
    algorithm: 'sha256',
    notAfterDate: new Date(Date.now() + 3650 * 86_400_000),
    extensions: [
      // A root of its own, so that a client can be told to trust it (requests: verify='tomaat.pem').
      { name: 'basicConstraints', cA: true, critical: true },
      { name: 'keyUsage', digitalSignature: true, keyCertSign: true, critical: true },
      { name: 'extKeyUsage', serverAuth: true },
      { name: 'subjectAltName', altNames: names },
    ],
  });
  await writeFile(keyFile, made.private, { mode: 0o600 });
  await chmod(keyFile, 0o600);
  await writeFile(certFile, made.cert);
  const fresh = await load(certFile, keyFile, true);
  if (why !== undefined) {
    options.logger?.warn(
      { fingerprint: fresh.fingerprint },
      `${why}: a new one was made; clients that trust the earlier one have to be given ${certFile} again`,
    );
  }
  return fresh;
}

const bare = (host: string) => host.replace(/^\[(.*)\]$/, '$1');

function isFor(certificate: X509Certificate, host: string): boolean {
  return (isIP(host) ? certificate.checkIP(host) : certificate.checkHost(host)) !== undefined;
}

/** The names and addresses that a certificate is for. */
function namesOf(certificate: X509Certificate): string[] {
  return (certificate.subjectAltName ?? '')
    .split(', ')
    .map((entry) => /^(?:DNS|IP Address):(.+)$/.exec(entry)?.[1] ?? '')
    .filter(Boolean);
}

/** How others may call this machine: its addresses, its name, and its name with the domain if DNS tells it at once. */
export async function namesOfMachine(): Promise<string[]> {
  const addresses = Object.values(networkInterfaces())
    .flatMap((list) => list ?? [])
    .filter((a) => !a.internal && !a.scopeid)
    .map((a) => a.address);
  const name = hostname();
  const names = isDnsName(name) ? [name] : [];
  if (addresses.length > 0 && !name.includes('.')) {
    const known = lookupService(addresses[0], 0).then(
      (found) => found.hostname,
      () => '', // No name is known; the bare one has to do.
    );
    const full = await Promise.race([known, delay(lookUpMs, '', { ref: false })]);
    if (isDnsName(full) && full.toLowerCase().startsWith(`${name.toLowerCase()}.`)) names.push(full);
  }
  return [...addresses, ...names];
}

const lookUpMs = 1000;
const isDnsName = (name: string) =>
  /^(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9])?)*$/i.test(name);

async function load(certFile: string, keyFile: string, selfMade: boolean): Promise<Certificate> {
  const [cert, key] = await Promise.all([readFile(certFile, 'utf8'), readFile(keyFile, 'utf8')]);
  return { key, cert, fingerprint: new X509Certificate(cert).fingerprint256, certFile, selfMade };
}
