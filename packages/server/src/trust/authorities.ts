import { readFileSync } from 'node:fs';
import * as tls from 'node:tls';

/** The certificates (PEM) that this process trusts by default. Looked up: Node has the function since 22.15. */
export function defaultAuthorities(): readonly string[] {
  const { getCACertificates, rootCertificates } = tls as Partial<typeof tls>;
  if (getCACertificates) return getCACertificates('default');
  const extra = process.env.NODE_EXTRA_CA_CERTS;
  return [...(rootCertificates ?? []), ...(extra ? [readFileSync(extra, 'utf8')] : [])];
}
