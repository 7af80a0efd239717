import { createHmac } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { dataset, value } from '../../test/deidentification-files.ts';
import { tags } from './tags.ts';
import { createUidKey, createUidMapper, formatUidKey, parseUidKey, pseudonymOf } from './uid-key.ts';

const key = Uint8Array.from({ length: 32 }, (_, i) => i * 8 + 7);

describe('parseUidKey()', () => {
  it('reads what formatUidKey() writes: 43 characters of base64url', () => {
    expect(formatUidKey(key)).toBe(Buffer.from(key).toString('base64url'));
    expect(parseUidKey(`${formatUidKey(key)}\n`)).toEqual(key);
    for (let i = 0; i < 50; i++) {
      const fresh = createUidKey();
      expect(parseUidKey(formatUidKey(fresh))).toEqual(fresh);
    }
    expect(formatUidKey(createUidKey())).not.toBe(formatUidKey(createUidKey()));
  });

  const written = formatUidKey(key);
  it.each([
    ['nothing', ''],
    ['31 bytes', written.slice(0, 42)],
    ['33 bytes', `${written}A`],
    ['padding', `${written}=`],
    ['the other alphabet', written.replace('-', '+').replace('_', '/').replace(/^./, '+')],
    ['white space within', `${written.slice(0, 20)} ${written.slice(21)}`],
    ['another form of the same bytes', `${written.slice(0, 42)}${next(written[42])}`],
  ])('refuses %s', (_, text) => {
    expect(() => parseUidKey(text)).toThrow(expect.objectContaining({ code: 'BAD_INPUT' }));
  });

  function next(letter: string): string {
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
    return alphabet[alphabet.indexOf(letter) + 1];
  }
});

describe('createUidMapper()', () => {
  it('gives 2.25. and a UUID of version 8 with the bits of an HMAC', () => {
    const uid = createUidMapper(key)('1.2.276.0.7230010.3');
    const number = BigInt(uid.slice(5)).toString(16).padStart(32, '0');
    const mac = createHmac('sha256', key).update('uid\x001.2.276.0.7230010.3').digest('hex').slice(0, 32);
    expect(number[12]).toBe('8');
    expect(number[16]).toMatch(/[89ab]/);
    expect(number.slice(0, 12) + number.slice(13, 16) + number.slice(17)).toBe(
      mac.slice(0, 12) + mac.slice(13, 16) + mac.slice(17),
    );
    expect(Number.parseInt(number[16], 16) & 3).toBe(Number.parseInt(mac[16], 16) & 3);
    expect(uid.length).toBeLessThanOrEqual(44);
  });

  it('depends on every bit of key and UID', () => {
    const other = Uint8Array.from(key);
    other[31] ^= 1;
    const uids = [
      createUidMapper(key)('1.2.3'),
      createUidMapper(key)('1.2.4'),
      createUidMapper(other)('1.2.3'),
    ];
    expect(new Set(uids).size).toBe(3);
    expect(createUidMapper(Uint8Array.from(key))('1.2.3')).toBe(uids[0]);
  });

  it('refuses a key of another length', () => {
    expect(() => createUidMapper(key.subarray(1))).toThrow(expect.objectContaining({ code: 'BAD_INPUT' }));
  });
});

describe('pseudonymOf()', () => {
  const of = (id: string, name = 'Meyer^Anna', study = '1.2.3', by = key) =>
    pseudonymOf(
      dataset(
        value(tags.patientId, 'LO', id),
        value(tags.patientName, 'PN', name),
        value(tags.studyInstanceUid, 'UI', study),
      ),
      by,
    );

  it('depends on the number alone, or without one on name and study', () => {
    expect(of('17', 'Meyer^Anna')).toEqual(of('17 ', 'MEYER^A', '1.2.4'));
    expect(of('17')).not.toEqual(of('18'));
    expect(of('', 'Meyer^Anna')).toEqual(of('  ', 'Meyer^Anna'));
    expect(of('', 'Meyer^Anna')).not.toEqual(of('', 'Meyer^Bert'));
    expect(of('', 'Meyer^Anna')).not.toEqual(of('', 'Meyer^Anna', '1.2.4'));
  });

  it('is another one under another key, in name and days', () => {
    const other = new Uint8Array(32);
    expect(of('17').name).not.toBe(of('17', 'Meyer', '1', other).name);
    const pairs = ['1', '2', '3', '4'].map((id) => [of(id).days, of(id, 'x', '1', other).days]);
    expect(pairs.some(([a, b]) => a !== b)).toBe(true);
  });

  it('spreads the days over ten years', () => {
    const days = Array.from({ length: 3000 }, (_, i) => of(`${i}`).days);
    expect(Math.min(...days)).toBeGreaterThanOrEqual(1);
    expect(Math.max(...days)).toBeLessThanOrEqual(3650);
    expect(days.filter((count) => count <= 1825).length / 3000).toBeCloseTo(0.5, 1);
    expect(new Set(days).size).toBeGreaterThan(1900);
  });

  it('recognises a pseudonym under its own key alone', () => {
    const { name } = of('17');
    expect(of(name)).toEqual({ name, days: 0 });
    expect(of(name, 'x', '1', new Uint8Array(32)).name).not.toBe(name);
    const forged = `${name.slice(0, -1)}${name.endsWith('A') ? 'B' : 'A'}`;
    expect(of(forged).name).not.toBe(forged);
    expect(of(forged).days).toBeGreaterThan(0);
  });
});
