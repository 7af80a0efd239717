import { createPrivateKey, createPublicKey, type KeyObject, X509Certificate } from 'node:crypto';
import { lookupService } from 'node:dns/promises';
import { mkdir, readFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { hostname, networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { createSecureContext } from 'node:tls';
import { TomaatError } from '@tomaat/core';
import { bare, isWildcard } from './addresses.ts';
import { writeWhole } from './store/files/whole-file.ts';

export interface Certificate {
  key: string;
  cert: string;
  /** SHA-256 of the certificate, upper-case hex pairs joined by `:`, as the Slicer client shows it. */
  fingerprint: string;
  /** Path of the certificate, for clients that are configured to trust it. */
  certFile: string;
  /** Whether it is the self-signed one of the data folder, not the operator's. */
  selfSigned: boolean;
  /** Its names and addresses; `*.example` matches one label. */
  names: readonly string[];
  /** Start and end of its validity, ms since 1970. */
  validFromMs: number;
  validToMs: number;
}

export interface CertificateOptions {
  /** The operator's own certificate and its key: files (PEM). */
  cert?: string;
  key?: string;
  /** Name or address to listen on; a self-signed certificate without it is renewed. */
  host?: string;
  /** More names or addresses that a self-signed certificate must cover, such as that of `--public-url`. */
  names?: readonly string[];
  logger?: { warn(about: object, message: string): void };
  /** The clock, in ms since 1970. */
  now?: () => number;
}

const dayMs = 86_400_000;
/** How long before its end a self-signed certificate is renewed, and the operator is warned about any other. */
export const renewBeforeMs = 30 * dayMs;
const selfSignedMs = 3650 * dayMs;

/**
 * The operator's own certificate, or the self-signed one of the data folder. That one is created on first use and kept, because
 * users pin its fingerprint, until it is about to expire or the server gets a name or address that it lacks; then it is
 * renewed with the same key.
 * @throws TomaatError BAD_REQUEST for files that cannot be read, are not a certificate or key, or do not belong together.
 */
export async function openCertificate(
  dataFolder: string,
  options: CertificateOptions = {},
): Promise<Certificate> {
  if (options.cert || options.key) {
    if (!options.cert || !options.key) {
      throw new TomaatError(
        'BAD_REQUEST',
        '--tls-cert and --tls-key belong together, but only one was given. Give both.',
      );
    }
    return load(options.cert, options.key);
  }
  const { now = Date.now } = options;
  const wanted = [options.host, ...(options.names ?? [])]
    .filter((name) => name !== undefined)
    .filter((name) => !isWildcard(name))
    .map(bare);
  const files = { certFile: join(dataFolder, 'tomaat.pem'), keyFile: join(dataFolder, 'tomaat.key') };
  const kept = await loadKept(files);
  const why = kept && reasonToRenew(kept, wanted, now());
  if (kept && why === undefined) return kept;
  await mkdir(dataFolder, { recursive: true });
  const fresh = await makeSelfSigned(files, wanted, kept, now());
  if (why !== undefined) {
    options.logger?.warn(
      { fingerprint: fresh.fingerprint, before: kept!.fingerprint },
      `The self-signed certificate was renewed: ${why}. Its key is the same, so tomaat commands that know this server (known_hosts) still work. Give ${fresh.certFile} again to the clients that use it (--ca, verify=), and the new SHA-256 fingerprint ${fresh.fingerprint} to those that compare it (--fingerprint, 3D Slicer).`,
    );
  }
  return fresh;
}

interface KeptFiles {
  readonly certFile: string;
  readonly keyFile: string;
}

async function loadKept({ certFile, keyFile }: KeptFiles): Promise<Certificate | undefined> {
  try {
    return await load(certFile, keyFile, true);
  } catch (error) {
    const { cause } = error as { cause?: { code?: unknown } };
    if (cause?.code === 'ENOENT') return undefined;
    throw error;
  }
}

function reasonToRenew(kept: Certificate, wanted: readonly string[], nowMs: number): string | undefined {
  const left = kept.validToMs - nowMs;
  if (left <= 0) return `the earlier one expired on ${day(kept.validToMs)}`;
  if (left <= renewBeforeMs) return `the earlier one expires on ${day(kept.validToMs)}`;
  const certificate = new X509Certificate(kept.cert);
  const missing = wanted.filter((name) => !isFor(certificate, name));
  return missing.length === 0 ? undefined : `the earlier one is not for ${missing.join(', ')}`;
}

const day = (ms: number) => new Date(ms).toISOString().slice(0, 10);

/** Creates the certificate, including the names of an earlier one, with its key and its subject. */
async function makeSelfSigned(
  { certFile, keyFile }: KeptFiles,
  wanted: readonly string[],
  before: Certificate | undefined,
  nowMs: number,
): Promise<Certificate> {
  const all = [
    ...['localhost', '127.0.0.1', '::1'],
    ...(await namesOfMachine()),
    ...wanted,
    ...(before?.names ?? []),
  ];
  const altNames = [...new Set(all.map((name) => name.toLowerCase()))].map((name) =>
    isIP(name) ? { type: 7 as const, ip: name } : { type: 2 as const, value: name },
  );
  const subject = before && new X509Certificate(before.cert).toLegacyObject().subject.CN;
  const commonName = typeof subject === 'string' ? subject : 'TOMAAT self-signed certificate';
  const key = await readKey(keyFile);
  // Needed once in ten years, and slow to load.
  const { generate } = await import('selfsigned');
  const made = await generate([{ name: 'commonName', value: commonName }], {
    keyType: key?.asymmetricKeyType === 'rsa' ? 'rsa' : 'ec',
    keyPair: key && pairOf(key),
    algorithm: 'sha256',
    notBeforeDate: new Date(nowMs),
    notAfterDate: new Date(nowMs + selfSignedMs),
    extensions: [
      // A root, so that a client can be configured to trust it (requests: verify='tomaat.pem').
      { name: 'basicConstraints', cA: true, critical: true },
      { name: 'keyUsage', digitalSignature: true, keyCertSign: true, critical: true },
      { name: 'extKeyUsage', serverAuth: true },
      { name: 'subjectAltName', altNames },
    ],
  });
  // A crash in between leaves a key without a certificate, or the earlier pair: never a pair that does not match.
  if (!key) await writeWhole(keyFile, made.private);
  await writeWhole(certFile, made.cert, { mode: 0o644 });
  return load(certFile, keyFile, true);
}

/** The key of the data folder, if it has one. */
async function readKey(file: string): Promise<KeyObject | undefined> {
  try {
    return parseKey(await readFile(file, 'utf8'), file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

function pairOf(key: KeyObject): { privateKey: string; publicKey: string } {
  return {
    privateKey: key.export({ type: 'pkcs8', format: 'pem' }).toString(),
    publicKey: createPublicKey(key).export({ type: 'spki', format: 'pem' }).toString(),
  };
}

function isFor(certificate: X509Certificate, host: string): boolean {
  return (isIP(host) ? certificate.checkIP(host) : certificate.checkHost(host)) !== undefined;
}

/** The names and addresses of a certificate; only if it has none, the common name (RFC 6125). */
function namesOf(certificate: X509Certificate): string[] {
  const names = (certificate.subjectAltName ?? '')
    .split(', ')
    .map((entry) => /^(?:DNS|IP Address):(.+)$/.exec(entry)?.[1] ?? '')
    .filter(Boolean);
  const { CN } = certificate.toLegacyObject().subject;
  return names.length > 0 || typeof CN !== 'string' ? names : [CN];
}

/** The names of this machine for others: its addresses, its name, and its name with the domain if DNS answers quickly. */
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
      () => '', // No full name is known; use the bare one.
    );
    const full = await Promise.race([known, delay(lookUpMs, '', { ref: false })]);
    if (isDnsName(full) && full.toLowerCase().startsWith(`${name.toLowerCase()}.`)) names.push(full);
  }
  return [...addresses, ...names];
}

const lookUpMs = 1000;
const isDnsName = (name: string) => name.length <= 253 && name.split('.').every(isDnsLabel);
const isDnsLabel = (label: string) =>
  /^[a-z0-9_][a-z0-9_-]*$/i.test(label) && (label.length === 1 || /[a-z0-9]$/i.test(label));

// ---- Files ----

async function load(certFile: string, keyFile: string, selfSigned = false): Promise<Certificate> {
  const cert = await readPem(certFile, selfSigned ? undefined : '--tls-cert');
  const key = await readPem(keyFile, selfSigned ? undefined : '--tls-key');
  const certificate = parseCertificate(cert, certFile);
  const privateKey = parseKey(key, keyFile);
  if (!certificate.checkPrivateKey(privateKey))
    throw mismatch(cert, privateKey, { certFile, keyFile }, selfSigned);
  try {
    createSecureContext({ cert, key });
  } catch (error) {
    throw new TomaatError(
      'BAD_REQUEST',
      `${certFile} and ${keyFile} cannot be used for TLS: ${(error as Error).message}. Ask for a certificate with a key of at least 2048 bits (RSA) or 256 bits (EC), signed with SHA-256.`,
      { cause: error },
    );
  }
  return {
    key,
    cert,
    fingerprint: certificate.fingerprint256,
    certFile,
    selfSigned,
    names: namesOf(certificate),
    validFromMs: Date.parse(certificate.validFrom),
    validToMs: Date.parse(certificate.validTo),
  };
}

async function readPem(file: string, flag: string | undefined): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const why =
      code === 'ENOENT'
        ? 'the file does not exist'
        : code === 'EACCES'
          ? 'this user may not read it'
          : String(code);
    throw new TomaatError(
      'BAD_REQUEST',
      `${file} cannot be read: ${why}. Check ${flag ?? 'the data folder'}.`,
      { cause: error },
    );
  }
}

function parseCertificate(pem: string, file: string): X509Certificate {
  try {
    return new X509Certificate(pem);
  } catch (error) {
    const hint = pem.includes('-----BEGIN CERTIFICATE-----')
      ? 'It is damaged. Copy it again; each -----BEGIN must be at the start of a line.'
      : pem.includes('PRIVATE KEY-----')
        ? 'It contains a key. Give the certificate as --tls-cert, and the key as --tls-key.'
        : `It must begin with -----BEGIN CERTIFICATE----- (PEM). If it is DER: openssl x509 -inform der -in ${file} -out cert.pem`;
    throw new TomaatError('BAD_REQUEST', `${file} is not a certificate in PEM format. ${hint}`, {
      cause: error,
    });
  }
}

function parseKey(pem: string, file: string): KeyObject {
  try {
    return createPrivateKey(pem);
  } catch (error) {
    const isEncrypted = pem.includes('ENCRYPTED');
    const hint = isEncrypted
      ? `It is encrypted, and the server cannot ask for its passphrase. Decrypt it: openssl pkey -in ${file} -out plain.key, with mode 0600.`
      : pem.includes('-----BEGIN CERTIFICATE-----')
        ? 'It contains a certificate. Give the certificate as --tls-cert, and the key as --tls-key.'
        : 'It must begin with -----BEGIN PRIVATE KEY----- (PEM).';
    throw new TomaatError('BAD_REQUEST', `${file} is not a usable private key. ${hint}`, {
      cause: error,
    });
  }
}

function mismatch(
  cert: string,
  key: KeyObject,
  { certFile, keyFile }: KeptFiles,
  selfSigned: boolean,
): TomaatError {
  const others = cert
    .split(/(?=-----BEGIN CERTIFICATE-----)/)
    .filter((text) => text.startsWith('-----BEGIN'))
    .slice(1);
  const isLater = others.some((text) => new X509Certificate(text).checkPrivateKey(key));
  const hint = isLater
    ? `The certificate of this key is not the first in ${certFile}. Put it first, and those of its authorities after it.`
    : selfSigned
      ? 'Delete both: new ones are created at the next start, and clients need the new certificate.'
      : 'Give the key for which the certificate was issued.';
  return new TomaatError(
    'BAD_REQUEST',
    `${keyFile} is not the key of the certificate ${certFile}: their public keys differ. ${hint}`,
  );
}
