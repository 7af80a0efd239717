import { describe, expect, it } from 'vitest';
import { base64Length, decodeBase64Text, encodeBase64 } from './base64.ts';

const bytes = Uint8Array.from({ length: 1000 }, (_, i) => (i * 167 + (i >> 3)) & 255);

async function encode(pieces: Uint8Array[]): Promise<string> {
  let text = '';
  for await (const chunk of encodeBase64(pieces)) text += Buffer.from(chunk).toString('latin1');
  return text;
}

describe('encodeBase64()', () => {
  it('equals Buffer’s base64 in lines of 76, and base64Length() its length, for every length of the end', async () => {
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

describe('decodeBase64Text()', () => {
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
