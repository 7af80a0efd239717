import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto';

/**
 * Encrypts text of a session that identifies a person. Only the session's cookie can decrypt what the database holds:
 * AES-256-GCM under a key derived (HKDF, SHA-256) from the session's token, of which the database has only the
 * hash.
 */

const prefix = 'sealed:';
const keyOf = (token: string) =>
  new Uint8Array(hkdfSync('sha256', token, new Uint8Array(), 'tomaat session label', 32));

/** `sealed:` and the base64 of nonce (12 bytes), tag (16) and text. */
export function sealText(text: string, token: string): string {
  const nonce = randomBytes(12);
  const cipher = createCipheriv('aes-256-gcm', keyOf(token), nonce);
  const sealed = Buffer.concat([cipher.update(text, 'utf8'), cipher.final()]);
  return prefix + Buffer.concat([nonce, cipher.getAuthTag(), sealed]).toString('base64');
}

/** The text; unsealed text is returned unchanged, and text sealed with another token gives undefined. */
export function unsealText(text: string, token: string): string | undefined {
  if (!text.startsWith(prefix)) return text;
  const bytes = Buffer.from(text.slice(prefix.length), 'base64');
  try {
    const decipher = createDecipheriv('aes-256-gcm', keyOf(token), bytes.subarray(0, 12));
    decipher.setAuthTag(bytes.subarray(12, 28));
    return decipher.update(bytes.subarray(28), undefined, 'utf8') + decipher.final('utf8');
  } catch {
    return undefined; // Damaged: the session continues without a name.
  }
}
