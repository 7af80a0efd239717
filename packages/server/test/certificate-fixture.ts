import { writeFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { join } from 'node:path';
import { generate } from 'selfsigned';

export const dayMs = 86_400_000;

export interface OwnCertificate {
  /** Files, as for --tls-cert and --tls-key. */
  readonly cert: string;
  readonly key: string;
  readonly pem: string;
  readonly keyPem: string;
}

/** A certificate as an operator has it, in two files of a folder. */
export async function makeCertificate(
  folder: string,
  options: { file?: string; names?: readonly string[]; fromMs?: number; toMs?: number } = {},
): Promise<OwnCertificate> {
  const { file = 'own', names = ['tomaat.hospital.example'], fromMs = Date.now() - dayMs } = options;
  const made = await generate([{ name: 'commonName', value: names[0] }], {
    keyType: 'ec',
    algorithm: 'sha256',
    notBeforeDate: new Date(fromMs),
    notAfterDate: new Date(options.toMs ?? Date.now() + 365 * dayMs),
    extensions: [
      { name: 'basicConstraints', cA: true, critical: true },
      {
        name: 'subjectAltName',
        altNames: names.map((name) => (isIP(name) ? { type: 7, ip: name } : { type: 2, value: name })),
      },
    ],
  });
  const [cert, key] = [join(folder, `${file}.pem`), join(folder, `${file}.key`)];
  const pem = `${made.cert.trim()}\n`;
  await writeFile(cert, pem);
  await writeFile(key, made.private, { mode: 0o600 });
  return { cert, key, pem, keyPem: made.private };
}
