import { describe, expect, it } from 'vitest';
import { base64Length, decodeBase64Text, encodeBase64 } from './base64.ts';

const bytes = Uint8Array.from({ length: 1000 }, (_, i) => (i * 167 + (i >> 3)) & 255);

async function encode(pieces: Uint8Array[]): Promise<string> {
  let text = '';
  for await (const chunk of encodeBase64(pieces)) text += Buffer.from(chunk).toString('latin1');
  return text;
}

describe('encodeBase64()', () => {
  it('equals Buffer’s base64 in lines of 76, base64Length() its length, at every remainder', async () => {
    for (const n of [0, 1, 2, 3, 56, 57, 58, 59, 60, 113, 114, 115, 1000]) {
      const text = await encode([bytes.subarray(0, n)]);
      const lines =
        Buffer.from(bytes.subarray(0, n))
          .toString('base64')
          .match(/.{1,76}/g) ?? [];
      expect(text).toBe(lines.map((line) => `${line}\n`).join(''));
      expect(base64Length(n)).toBe(text.length);
    }
  });

  it('gives the same however the bytes are cut', async () => {
    const whole = await encode([bytes]);
    for (const step of [1, 2, 7, 56, 57, 58, 200]) {
      const pieces: Uint8Array[] = [];
      for (let i = 0; i < bytes.length; i += step)
        pieces.push(bytes.subarray(i, i + step), new Uint8Array(0));
      expect(await encode(pieces)).toBe(whole);
    }
  });
});

describe('encodeBase64() of every 12 bits', () => {
  it('equals Buffer’s base64, and yields no empty piece', async () => {
    const all = Uint8Array.from({ length: 4096 * 3 }, (_, i) => {
      const [bits, other] = [Math.floor(i / 3), 4095 - Math.floor(i / 3)];
      return [bits >> 4, (bits << 4) | (other >> 8), other][i % 3];
    });
    expect((await encode([all])).replaceAll('\n', '')).toBe(Buffer.from(all).toString('base64'));
    const lengths: number[] = [];
    for await (const piece of encodeBase64([all.subarray(0, 57), all.subarray(0, 58), all.subarray(0, 3)]))
      lengths.push(piece.length);
    expect(lengths).toEqual([77, 77, 9]);
  });
});

describe('base64Length()', () => {
  it.each([
    [0, 0],
    [1, 5],
    [3, 5],
    [4, 9],
    [57, 77],
    [58, 82],
    [114, 154],
    [1_000_000, 1_350_880],
  ])('of %d bytes is %d', (count, length) => {
    expect(base64Length(count)).toBe(length);
  });
});

describe('decodeBase64Text()', () => {
  it('takes the characters of RFC 4648 and blanks, and no others', () => {
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
    for (let code = 0; code < 300; code++) {
      const letter = String.fromCharCode(code);
      const decode = () => decodeBase64Text(`AAA${letter}`);
      if (alphabet.includes(letter)) expect(decode()).toEqual(Uint8Array.of(0, 0, alphabet.indexOf(letter)));
      else if (letter === '=') expect(decode()).toEqual(Uint8Array.of(0, 0));
      else if (' \t\r\n'.includes(letter)) expect(decode).toThrow(/cut off/);
      else expect(decode, String(code)).toThrow(/character outside base64 at position 3/);
    }
    expect(decodeBase64Text(' T\tW\rF\nu')).toEqual(Uint8Array.of(77, 97, 110));
  });

  it.each([
    ['', []],
    ['TQ==', [77]],
    ['TQ = =\n', [77]],
    ['TWE=', [77, 97]],
    ['////', [255, 255, 255]],
    ['TWFuTWE=', [77, 97, 110, 77, 97]],
  ])('reads %j as %j', (text, wanted) => {
    expect(decodeBase64Text(text)).toEqual(Uint8Array.from(wanted));
  });

  it.each([
    ['AA=A', /continues after its padding at character 3/],
    ['AA==\nA', /continues after its padding at character 5/],
    ['A-', /character outside base64 at position 1/],
    ['AAAAA', /cut off/],
    ['AA', /cut off/],
    ['AA=', /cut off/],
    ['AAA==', /cut off/],
    ['AA===', /cut off/],
    ['=', /cut off/],
    ['AAAA====', /cut off/],
  ])('says where %j is wrong', (text, message) => {
    expect(() => decodeBase64Text(text)).toThrow(message);
    expect(() => decodeBase64Text(text)).toThrow(expect.objectContaining({ code: 'BAD_REQUEST' }));
  });

  it('reads back what encodeBase64() wrote, with any line breaks', async () => {
    for (const n of [0, 1, 2, 3, 57, 999, 1000]) {
      const text = await encode([bytes.subarray(0, n)]);
      expect(decodeBase64Text(text)).toEqual(bytes.subarray(0, n));
      expect(decodeBase64Text(text.replaceAll('\n', '\r\n '))).toEqual(bytes.subarray(0, n));
    }
  });

  it.each(['AAA', 'A', 'AA=', 'AAAA=', 'AA==AA==', 'AA=A', 'A===', 'AA-A', 'AAé=', '===='])(
    'refuses %j',
    (text) => {
      expect(() => decodeBase64Text(text)).toThrow(/base64/);
    },
  );
});
