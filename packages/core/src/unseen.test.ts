import { describe, expect, it } from 'vitest';
import { escapeUnseen, hasUnseen, withoutUnseen } from './unseen.ts';

const tricks = [
  ...['\u0000', '\u001b[2J', '\n', '\r', '\t', '\u007f', '\u009b2J', '\u0085', '\u2028', '\u2029'],
  ...['\u202a', '\u202b', '\u202c', '\u202d', '\u202e', '\u2066', '\u2067', '\u2068', '\u2069', '\u061c'],
  ...['\u200b', '\u200e', '\u200f', '\u2060', '\ufeff', '\ud800', '\u{e0041}'],
];
const honest = ['Lunge', 'Schädel', '肺', 'می\u200cخواهم', '👩\u200d⚕️', 'a b', '“x”', 'e\u0301', '\u00a0'];

describe('hasUnseen()', () => {
  it.each(tricks.map((text) => JSON.stringify(text)))('finds %s', (text) => {
    expect(hasUnseen(`a${JSON.parse(text)}b`)).toBe(true);
  });

  it.each(honest)('passes %s', (text) => {
    expect(hasUnseen(text)).toBe(false);
    expect(escapeUnseen(text)).toBe(text);
  });
});

describe('escapeUnseen()', () => {
  it('shows what JSON reads as the same text', () => {
    expect(escapeUnseen('a\nb\u202ec\u001bd')).toBe('a\\nb\\u202ec\\u001bd');
    for (const text of tricks) {
      expect(hasUnseen(escapeUnseen(text))).toBe(false);
      expect(JSON.parse(`"${escapeUnseen(text)}"`)).toBe(text);
    }
  });
});

describe('withoutUnseen()', () => {
  it('leaves one line', () => {
    expect(withoutUnseen('  Lung\n \u202enet\t2 ')).toBe('Lung net 2');
  });
});
