import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { compilePattern, matchesPattern } from './patterns.ts';

const matches = (pattern: string, text: string) => matchesPattern(compilePattern(pattern), text);

describe('matchesPattern()', () => {
  it.each([
    ['*', '', true],
    ['', '', true],
    ['', 'a', false],
    ['?', '', false],
    ['?', '𠮷', true],
    ['thorax*', 'Thorax 1.0 B31f', true],
    ['thorax', 'Thorax 1.0', false],
    ['*thorax*', 'CT-THORAX', true],
    ['a*b*c', 'axxbyyc', true],
    ['a*b*c', 'axxbyy', false],
    ['a??c', 'abbc', true],
    ['a??c', 'abc', false],
    ['*ab', 'aab', true],
    ['*aab', 'aaab', true],
    ['*a?b', 'aaacab', false],
    ['*a?b', 'aaacaab', true],
    ['T2\\*', 'T2*', true],
    ['T2\\*', 'T2 tse', false],
    ['T2\\* \\?', 't2* ?', true],
    ['(a+)+$', 'aaaa', false],
    ['[ct]', 'c', false],
    ['schädel', 'SCHÄDEL', true],
    // As a Mac writes it: a letter and a combining mark.
    ['schädel', 'SCHA\u0308DEL', true],
    ['größe', 'GRÖẞE', true],
    ['grösse', 'GRÖßE', false],
    ['σς', 'ΣΣ', true],
    ['胸部*', '胸部単純CT', true],
    ['胸部ＣＴ', '胸部ct', true],
    ['ｶﾞﾝﾏ', 'ガンマ', true],
    ['İstanbul', 'istanbul', false],
    ['  ct * ', 'CT x', true],
    ['ct', 'ct ', true],
  ])('%j on %j: %s', (pattern, text, expected) => {
    expect(matches(pattern, text)).toBe(expected);
  });

  it('agrees with the regular expression of the same meaning', () => {
    const letter = fc.constantFrom('a', 'b', 'A', '*', '?', '.');
    const word = fc.array(letter, { maxLength: 9 }).map((letters) => letters.join(''));
    fc.assert(
      fc.property(word, word, (pattern, text) => {
        const source = pattern.replaceAll('.', '\\.').replaceAll('*', '[^]*').replaceAll('?', '[^]');
        expect(matches(pattern, text)).toBe(new RegExp(`^${source}$`, 'iu').test(text));
      }),
      { numRuns: 1000 },
    );
  });

  it('folds as Unicode does, character by character', () => {
    // NFKC changes some characters first: of those, nothing is said here.
    for (let code = 0x21; code < 0x3000; code++) {
      const character = String.fromCodePoint(code);
      if (/[*?\\\s\p{C}\p{M}]/u.test(character) || character.normalize('NFKC') !== character) continue;
      for (const other of [character.toLowerCase(), character.toUpperCase()]) {
        if ([...other].length !== 1 || other.normalize('NFKC') !== other) continue;
        const expected = new RegExp(`^${character.replace(/[.^$+()[\]{}|/]/, '\\$&')}$`, 'iu').test(other);
        if (matches(character, other) !== expected)
          expect.fail(`U+${code.toString(16)} and ${other}: ${!expected}`);
      }
    }
  });
});

describe('compilePattern()', () => {
  it('refuses a backslash before anything but * and ?', () => {
    expect(() => compilePattern('a\\d')).toThrow('A \\ may stand only before * and ?.');
    expect(() => compilePattern('a\\')).toThrow(/Leave it out/);
  });
});

describe('hostile patterns', () => {
  const long = 10_000;
  const aaa = 'a'.repeat(long);
  const texts = [aaa, `${aaa.slice(1)}b`, 'ab'.repeat(long / 2), 'ä'.repeat(long)];
  const repeated = (part: string, times: number, end = '') => part.repeat(times) + end;
  const patterns = [
    ...['*a', '*a*', '?*', '*?', '**', '*ab', '*a?', '?a*'].map((part) => repeated(part, 100, 'b')),
    ...['*a', '*ab', '*aa', '*?a'].map((part) => repeated(part, long, 'b')),
    ...['*', '?', 'a', '?*', '*?*'].map((part) => repeated(part, long)),
    ...['a', '?', 'a?', 'ab'].map((part) => `*${repeated(part, 100)}c`),
    ...['a', 'aab', '?'].map((part) => `*${repeated(part, 100)}*${repeated(part, 100)}*c`),
    ...['(a+)+$', '(a|a)*b', '[a-z]*', '^.*$', '\\*'.repeat(100), '\u0000*b'],
  ];

  it('are thirty, and none takes more steps than the product of the lengths', () => {
    expect(patterns).toHaveLength(30);
    for (const pattern of patterns) {
      const compiled = compilePattern(pattern);
      for (const text of texts) {
        let steps = 0;
        matchesPattern(compiled, text, () => steps++);
        const most = (text.length + 1) * (Math.min(compiled.length, 1002) + 1);
        expect(steps, pattern.slice(0, 20)).toBeLessThanOrEqual(most);
      }
    }
  });

  it('with a star before each character take two steps a character', () => {
    const compiled = compilePattern(repeated('*a', long / 2, 'b'));
    let steps = 0;
    expect(matchesPattern(compiled, aaa, () => steps++)).toBe(false);
    expect(steps).toBeLessThanOrEqual(2 * long + 1);
  });
});
