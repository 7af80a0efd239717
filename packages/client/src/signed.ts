import { TomaatError } from '@tomaat/core';
import { base64url, calculateJwkThumbprint, compactVerify, EmbeddedJWK, type JWK } from 'jose';

/** The content of a signed text, and who signed it. */
export interface Signed {
  payload: unknown;
  /** The protected header, which the signature covers too. */
  header: Readonly<Record<string, unknown>>;
  /**
   * SHA-256 thumbprint (RFC 7638, base64url) of the Ed25519 key that signed; the caller decides whether to trust that
   * key.
   */
  thumbprint: string;
}

const longest = 65_536;

/**
 * Checks a compact JWS made by a TOMAAT server: Ed25519 only, of this type only, with the key in its header.
 * @throws TomaatError BAD_SIGNATURE for anything else.
 */
export async function verifySigned(text: string, type: string): Promise<Signed> {
  try {
    if (text.length > longest) throw new Error('it is too long');
    // The last base64url character may have several spellings: only the canonical one is accepted.
    if (text.split('.').some((part) => toBase64url(part) !== part)) throw new Error('it is not base64url');
    const { payload, protectedHeader } = await compactVerify(text, EmbeddedJWK, { algorithms: ['EdDSA'] });
    if (protectedHeader.typ !== type) throw new Error(`it is of another type than ${type}`);
    const jwk = protectedHeader.jwk as JWK;
    if (jwk.kty !== 'OKP' || jwk.crv !== 'Ed25519') throw new Error('its key is not of the kind Ed25519');
    return {
      payload: JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(payload)),
      header: protectedHeader,
      thumbprint: await calculateJwkThumbprint(jwk, 'sha256'),
    };
  } catch (error) {
    throw new TomaatError(
      'BAD_SIGNATURE',
      `The signature does not hold: ${(error as Error).message}. What was signed has been changed, or was signed by something else.`,
      { cause: error },
    );
  }
}

const toBase64url = (part: string): string => base64url.encode(base64url.decode(part));
