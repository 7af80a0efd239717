/** Creates a unique identifier for a role: the same for the same seed and role, different for any other. */
export type CreateUid = (role: string) => Promise<string>;

/**
 * Unique identifiers for the objects of one prediction. An object created again from the same seed, the identifier of
 * a job, has the same UID, so that an archive that already has it replaces it.
 *
 * A UID is 2.25. and a UUID as a decimal number (PS3.5 B.2), the UUID of version 8 (RFC 9562 5.8): the first 122 free
 * bits of HMAC-SHA-256 (RFC 2104) with the seed as its key.
 *
 * @param seed the secret of the prediction: with it, the UIDs can be computed. Random if missing
 */
export async function createUids(seed = randomSeed()): Promise<CreateUid> {
  const encoder = new TextEncoder();
  const algorithm = { name: 'HMAC', hash: 'SHA-256' };
  const key = await crypto.subtle.importKey('raw', encoder.encode(seed), algorithm, false, ['sign']);
  return async (role) => {
    const bytes = new Uint8Array(await crypto.subtle.sign('HMAC', key, encoder.encode(role))).subarray(0, 16);
    bytes[6] = (bytes[6] & 0x0f) | 0x80;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    return `2.25.${BigInt(`0x${hexOf(bytes)}`)}`;
  };
}

const hexOf = (bytes: Uint8Array) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');

const randomSeed = () => hexOf(crypto.getRandomValues(new Uint8Array(32)));
