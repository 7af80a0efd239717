import { link, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  CompactSign,
  calculateJwkThumbprint,
  exportJWK,
  exportPKCS8,
  generateKeyPair,
  importPKCS8,
  type JWK,
} from 'jose';

/**
 * The identity of a data folder: an Ed25519 key (RFC 8037), made once. Announcements and receipts are signed with it
 * as compact JWS (RFC 7515); its name is the SHA-256 thumbprint of the public key (RFC 7638).
 */
export interface Identity {
  /** base64url, 43 characters. */
  readonly thumbprint: string;
  /** Public part: kty, crv, x. */
  readonly publicKey: JWK;
  /** A compact JWS of the payload; `type` (header `typ`) says what it is, so that one kind never passes as another. */
  sign(type: SignedType, payload: object): Promise<string>;
}

export type SignedType = 'tomaat-announcement+jws' | 'tomaat-receipt+jws' | 'tomaat-audit+jws';

const fileName = 'identity.key';

/** Opens the identity of a data folder, or makes it. The key file is readable by its owner alone. */
export async function openIdentity(dataFolder: string): Promise<Identity> {
  const file = join(dataFolder, fileName);
  const key = await importPKCS8(await readOrMake(file), 'EdDSA', { extractable: true });
  const { kty, crv, x } = await exportJWK(key);
  const publicKey: JWK = { kty, crv, x };
  const thumbprint = await calculateJwkThumbprint(publicKey, 'sha256');
  return {
    thumbprint,
    publicKey,
    sign: (type, payload) =>
      new CompactSign(new TextEncoder().encode(JSON.stringify(payload)))
        .setProtectedHeader({ alg: 'EdDSA', typ: type, jwk: publicKey })
        .sign(key),
  };
}

async function readOrMake(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  const { privateKey } = await generateKeyPair('EdDSA', { crv: 'Ed25519', extractable: true });
  const part = `${file}.${process.pid}.part`;
  await writeFile(part, await exportPKCS8(privateKey), { mode: 0o600 });
  try {
    // Whoever came first has made it.
    await link(part, file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  } finally {
    await rm(part, { force: true });
  }
  return readFile(file, 'utf8');
}
