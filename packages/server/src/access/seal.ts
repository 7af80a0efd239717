import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto';

/**
 * Text of a session that says who somebody is. The database holds it only in a form that the session's cookie opens:
 * AES-256-GCM under a key derived (HKDF, SHA-256) from the session's token, of which the database has no more than the
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

/** The text; a text that is not sealed is as it is, and undefined stands for one that another token sealed. */
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
