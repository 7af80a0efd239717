import { webcrypto } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { sealText, unsealText } from './seal.ts';

const token = 'a-session-token';
const text = 'Ada Größe, 3 €';

/** The key by another implementation: Web Crypto. */
async function keyOf(secret: string) {
  const base = await webcrypto.subtle.importKey('raw', Buffer.from(secret), 'HKDF', false, ['deriveKey']);
  const info = Buffer.from('tomaat session label');
  return webcrypto.subtle.deriveKey(
    { name: 'HKDF', hash: 'SHA-256', salt: new Uint8Array(), info },
    base,
    { name: 'AES-GCM', length: 256 },
    false,
    ['encrypt', 'decrypt'],
  );
}

describe('sealText()', () => {
  it('gives nonce, tag and text under a key of the token', async () => {
    const sealed = sealText(text, token);
    expect(sealed).toMatch(/^sealed:[A-Za-z0-9+/]+=*$/);
    const bytes = Buffer.from(sealed.slice(7), 'base64');
    expect(bytes).toHaveLength(12 + 16 + Buffer.byteLength(text));
    // Web Crypto has the tag at the end.
    const plain = await webcrypto.subtle.decrypt(
      { name: 'AES-GCM', iv: bytes.subarray(0, 12), tagLength: 128 },
      await keyOf(token),
      Buffer.concat([bytes.subarray(28), bytes.subarray(12, 28)]),
    );
    expect(Buffer.from(plain).toString()).toBe(text);
    expect(sealText(text, token)).not.toBe(sealed);
  });
});

describe('unsealText()', () => {
  it('opens what was sealed with the same token', async () => {
    expect(unsealText(sealText(text, token), token)).toBe(text);
    expect(unsealText(sealText('', token), token)).toBe('');
    const iv = Buffer.alloc(12, 7);
    const made = Buffer.from(
      await webcrypto.subtle.encrypt({ name: 'AES-GCM', iv }, await keyOf(token), Buffer.from(text)),
    );
    const bytes = Buffer.concat([iv, made.subarray(-16), made.subarray(0, -16)]);
    expect(unsealText(`sealed:${bytes.toString('base64')}`, token)).toBe(text);
  });

  it('gives nothing for another token or a changed byte', () => {
    const sealed = sealText(text, token);
    expect(unsealText(sealed, `${token}x`)).toBeUndefined();
    const bytes = Buffer.from(sealed.slice(7), 'base64');
    for (let at = 0; at < bytes.length; at++) {
      const changed = Buffer.from(bytes);
      changed[at] ^= 1;
      expect(unsealText(`sealed:${changed.toString('base64')}`, token), `byte ${at}`).toBeUndefined();
    }
    for (const size of [0, 11, 12, 27, 28, bytes.length - 1])
      expect(
        unsealText(`sealed:${bytes.subarray(0, size).toString('base64')}`, token),
        `${size} bytes`,
      ).toBeUndefined();
  });

  it.each(['', 'ward 3', 'Sealed:AAAA', 'seale', ' sealed:'])(
    'gives %j, which is not sealed, as it is',
    (plain) => {
      expect(unsealText(plain, token)).toBe(plain);
    },
  );
});
