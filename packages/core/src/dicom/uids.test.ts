import { createHmac } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { createUids } from './uids.ts';

describe('createUids()', () => {
  it('makes the UID of a UUID of HMAC-SHA-256', async () => {
    const hex = createHmac('sha256', 'a job').update('labels series').digest('hex').slice(0, 32);
    // Version 8 and the variant of RFC 9562.
    const variant = '89ab'[Number.parseInt(hex[16], 16) % 4];
    const uuid = `${hex.slice(0, 12)}8${hex.slice(13, 16)}${variant}${hex.slice(17)}`;
    const uid = await (await createUids('a job'))('labels series');
    expect(uid).toBe(`2.25.${BigInt(`0x${uuid}`)}`);
    expect(uid.length).toBeLessThanOrEqual(64);
  });

  it('gives the same UID for the same seed and role only', async () => {
    const uidOf = async (seed: string | undefined, role: string) => (await createUids(seed))(role);
    expect(await uidOf('a', 'x')).toBe(await uidOf('a', 'x'));
    const others = [await uidOf('a', 'x'), await uidOf('a', 'y'), await uidOf('b', 'x')];
    const random = [await uidOf(undefined, 'x'), await uidOf(undefined, 'x')];
    expect(new Set([...others, ...random]).size).toBe(5);
  });
});
