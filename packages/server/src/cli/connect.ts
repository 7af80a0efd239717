import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { TomaatError } from '@tomaat/core';
import { isLoopback } from '../registry/targets.ts';

/** What the commands that talk to servers have in common. */
export interface ConnectOptions {
  registry?: string;
  apiKey?: string;
  ca?: string;
  data?: string;
}

export const defaultRegistry = 'http://127.0.0.1:8001';
export const defaultServer = 'http://127.0.0.1:9000';

const trusted = new Set<string>();

/**
 * Makes HTTPS to this address possible: trusts --ca, and on this machine the certificate that the server here made
 * itself. Throws BAD_REQUEST when a key would leave this machine unencrypted.
 */
export async function prepareConnection(address: string, options: ConnectOptions): Promise<void> {
  const url = parseUrl(address);
  const local = isLoopback(url.hostname);
  if (options.apiKey && url.protocol === 'http:' && !local) {
    throw new TomaatError(
      'BAD_REQUEST',
      `The API key would go to ${url.host} unencrypted. Use https://, or leave the key out.`,
    );
  }
  if (options.ca) await trust(options.ca);
  else if (url.protocol === 'https:' && local) {
    const own = join(options.data ?? (await import('../config.ts')).defaultDataFolder(), 'tomaat.pem');
    if (existsSync(own)) await trust(own);
  }
}

/** Trusts the certificates of a file in all that this process connects to. */
export async function trust(file: string): Promise<void> {
  if (trusted.has(file)) return;
  setDefaultCACertificates([...getCACertificates('default'), await readCertificates(file)]);
  trusted.add(file);
}

/** The certificates of a PEM file. BAD_REQUEST when it holds none. */
export async function readCertificates(file: string): Promise<string> {
  const pem = await readFile(file, 'utf8');
  if (!pem.includes('-----BEGIN CERTIFICATE-----')) {
    throw new TomaatError(
      'BAD_REQUEST',
      `${file} holds no certificate. Give a PEM file such as the server's tomaat.pem.`,
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
    `“${address}” is no http or https address. Give one such as ${defaultServer}.`,
  );
}
