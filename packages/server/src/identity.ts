import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import {
  CompactSign,
  type CryptoKey,
  calculateJwkThumbprint,
  exportJWK,
  exportPKCS8,
  generateKeyPair,
  importPKCS8,
  type JWK,
} from 'jose';
import { readOrMakeSecret } from './store/files/secret-file.ts';

/**
 * The identity of a data folder: an Ed25519 key (RFC 8037), created once. Announcements and receipts are signed with it
 * as compact JWS (RFC 7515); its name is the SHA-256 thumbprint of the public key (RFC 7638).
 */
export interface Identity {
  /** base64url, 43 characters. */
  readonly thumbprint: string;
  /** Public part: kty, crv, x. */
  readonly publicKey: JWK;
  /** Whether the key has just been created. */
  readonly isNew: boolean;
  /**
   * A compact JWS of the payload; `type` (header `typ`) states its kind, so that one kind is never accepted as another. `header`:
   * further members of the protected header.
   */
  sign(type: SignedType, payload: object, header?: object): Promise<string>;
}

export type SignedType = 'tomaat-announcement+jws' | 'tomaat-receipt+jws' | 'tomaat-audit+jws';

const identityFile = 'identity.key';

/** Opens the identity of a data folder, or creates it. The key file is readable only by its owner. */
export async function openIdentity(dataFolder: string): Promise<Identity> {
  const file = join(dataFolder, identityFile);
  const { text, isNew } = await readOrMakeSecret(file, async () => {
    const { privateKey } = await generateKeyPair('EdDSA', { crv: 'Ed25519', extractable: true });
    return exportPKCS8(privateKey);
  });
  const { key, publicKey, thumbprint } = await parseKey(text, file);
  return {
    thumbprint,
    publicKey,
    isNew,
    sign: (type, payload, header) =>
      new CompactSign(new TextEncoder().encode(JSON.stringify(payload)))
        .setProtectedHeader({ ...header, alg: 'EdDSA', typ: type, jwk: publicKey })
        .sign(key),
  };
}

/** The thumbprint of a data folder's identity, or why it is unavailable, as the end of a sentence. Creates nothing. */
export async function thumbprintOf(dataFolder: string): Promise<{ thumbprint?: string; fault?: string }> {
  const file = join(dataFolder, identityFile);
  try {
    return { thumbprint: (await parseKey(await readFile(file, 'utf8'), file)).thumbprint };
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return { fault: `${file} is missing` };
    if (code === 'EACCES' || code === 'EPERM') return { fault: `you may not read ${file}` };
    if (error instanceof TomaatError) return { fault: error.message };
    throw error;
  }
}

async function parseKey(
  text: string,
  file: string,
): Promise<{ key: CryptoKey; publicKey: JWK; thumbprint: string }> {
  try {
    const key = await importPKCS8(text, 'EdDSA', { extractable: true });
    const { kty, crv, x } = await exportJWK(key);
    const publicKey: JWK = { kty, crv, x };
    return { key, publicKey, thumbprint: await calculateJwkThumbprint(publicKey, 'sha256') };
  } catch (cause) {
    throw new TomaatError(
      'INTERNAL',
      `${file} is not an Ed25519 key in PKCS #8 (PEM). Restore it from a backup`,
      { cause },
    );
  }
}
