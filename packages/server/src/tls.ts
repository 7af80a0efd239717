import { X509Certificate } from 'node:crypto';
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import { generate } from 'selfsigned';

export interface Certificate {
  key: string;
  cert: string;
  /** SHA-256 of the certificate, upper-case hex pairs joined by `:`, as the Slicer client shows it. */
  fingerprint: string;
  /** Where the certificate lies, for clients that are told to trust it. */
  certFile: string;
  selfMade: boolean;
}

/** The operator's own certificate, or the self-made one of the data folder (made on first use and kept). */
export async function openCertificate(
  dataFolder: string,
  own: { cert?: string; key?: string } = {},
): Promise<Certificate> {
  if (own.cert || own.key) {
    if (!own.cert || !own.key) {
      throw new TomaatError('BAD_REQUEST', '--tls-cert and --tls-key go together. Give both.');
    }
    return load(own.cert, own.key, false);
  }
  const certFile = join(dataFolder, 'tomaat.pem');
  const keyFile = join(dataFolder, 'tomaat.key');
  try {
    const kept = await load(certFile, keyFile, true);
    if (new Date(new X509Certificate(kept.cert).validTo).getTime() > Date.now()) return kept;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  await mkdir(dataFolder, { recursive: true });
  const addresses = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  const names = [
    { type: 2 as const, value: 'localhost' },
    ...['127.0.0.1', '::1', ...addresses.filter((a) => !a.internal && !a.scopeid).map((a) => a.address)].map(
      (ip) => ({
        type: 7 as const,
        ip,
      }),
    ),
  ];
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
  return load(certFile, keyFile, true);
}

async function load(certFile: string, keyFile: string, selfMade: boolean): Promise<Certificate> {
  const [cert, key] = await Promise.all([readFile(certFile, 'utf8'), readFile(keyFile, 'utf8')]);
  return { key, cert, fingerprint: new X509Certificate(cert).fingerprint256, certFile, selfMade };
}
