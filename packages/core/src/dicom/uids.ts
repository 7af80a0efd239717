import { hmac } from '@noble/hashes/hmac.js';
import { sha256 } from '@noble/hashes/sha2.js';

/** Creates a unique identifier for a role: the same for the same seed and role, different for any other. */
export type CreateUid = (role: string) => string;

/**
 * Unique identifiers for the objects of one prediction. An object created again from the same seed, the identifier of
 * a job, has the same UID, so that an archive that already has it replaces it.
 *
 * @param seed the secret of the prediction, the key of the HMAC: with it, the UIDs can be computed. Random if missing
 */
export function createUids(seed = createSeed()): CreateUid {
  const key = new TextEncoder().encode(seed);
  return (role) => uidOf(keyedDigest(key, role));
}

/** A random seed, for objects that refer to each other. */
export const createSeed = (): string => hexOf(crypto.getRandomValues(new Uint8Array(32)));

/**
 * HMAC-SHA-256 (RFC 2104) of a text in UTF-8. By a library, because WebCrypto is asynchronous and not available in
 * pages without TLS.
 */
export const keyedDigest = (key: Uint8Array, text: string): Uint8Array =>
  hmac(sha256, key, new TextEncoder().encode(text));

/**
 * The UID of a digest: 2.25. and a UUID as a decimal number (PS3.5 B.2), the UUID of version 8 (RFC 9562 5.8) with
 * the first 122 free bits of the digest.
 */
export function uidOf(digest: Uint8Array): string {
  const bytes = digest.slice(0, 16);
  bytes[6] = (bytes[6] & 0x0f) | 0x80;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  return `2.25.${BigInt(`0x${hexOf(bytes)}`)}`;
}

const hexOf = (bytes: Uint8Array) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
