import { describe, expect, it } from 'vitest';
import { decodeText } from './character-sets.ts';

const bytes = (hex: string) => new Uint8Array(Buffer.from(hex.replaceAll(' ', ''), 'hex'));

describe('decodeText()', () => {
  // The names of PS3.5 annexes H.3.1 (Japanese), I.2 (Korean), J.1 (UTF-8) and J.3 (GB18030), byte by byte.
  it.each<[string, string[], string, string]>([
    [
      'Japanese kanji, IR 87',
      ['', 'ISO 2022 IR 87'],
      '59616d6164615e5461726f753d1b2442 3b33 4544 1b28425e1b2442 4240 4f3a 1b28423d1b2442 2464 245e 2440 1b28425e1b2442 243f 246d 2426 1b2842',
      'Yamada^Tarou=山田^太郎=やまだ^たろう',
    ],
    ['Japanese katakana, IR 13', ['ISO_IR 13'], 'd4cfc0de5ec0dbb3', 'ﾔﾏﾀﾞ^ﾀﾛｳ'],
    [
      'Korean, IR 149',
      ['', 'ISO 2022 IR 149'],
      '486f6e675e47696c646f6e673d1b242943 fbf3 5e1b242943 d1ce d4d7 3d1b242943 c8ab 5e1b242943 b1e6 b5bf',
      'Hong^Gildong=洪^吉洞=홍^길동',
    ],
    ['UTF-8', ['ISO_IR 192'], '57616e675e5869616f446f6e673de78e8b5ee5b08fe69db1', 'Wang^XiaoDong=王^小東'],
    ['GB18030', ['GB18030'], '57616e675e5869616f446f6e673dcdf55ed0a1b6ab', 'Wang^XiaoDong=王^小东'],
    ['Latin 1', ['ISO_IR 100'], '42756368e9', 'Buch\u00e9'],
    [
      'Cyrillic',
      ['ISO_IR 144'],
      'bbeeda63',
      'Люкc'.replace('Люк', 'Люъ').replace('Люъc', '\u041b\u044e\u043ac'),
    ],
    ['Greek', ['ISO_IR 126'], 'c4e9efedf5f3e9eff2', '\u0394\u03b9\u03bf\u03bd\u03c5\u03c3\u03b9\u03bf\u03c2'],
    ['none named', [], '416e6e61', 'Anna'],
    ['an unknown one', ['ISO_IR 999'], '42756368e9', 'Buch\u00e9'],
  ])('%s', (_, sets, hex, expected) => {
    expect(decodeText(bytes(hex), sets)).toBe(expected);
  });

  it('never fails on bytes that a set lacks', () => {
    const all = Uint8Array.from({ length: 256 }, (_, i) => i);
    for (const set of ['ISO_IR 192', 'ISO 2022 IR 87', 'GB18030', 'ISO 2022 IR 149', 'ISO_IR 13'])
      expect(decodeText(all, [set]).length).toBeGreaterThan(100);
  });
});
