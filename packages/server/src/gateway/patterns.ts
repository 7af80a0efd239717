import { TomaatError } from '@tomaat/core';

/*
 * The texts of rules: `*` stands for any characters, also none, `?` for one. `\*` and `\?` stand for themselves (“T2\* GRE”). Upper and
 * lower case are alike, and so are full-width and half-width forms, as scanners in Japan write them (Unicode simple case folding after
 * NFKC). A pattern describes a whole text; spaces at its ends count in neither.
 */

/** A pattern as it is matched: characters, folded, or what stands for others. */
export type CompiledPattern = readonly (string | typeof any | typeof one)[];

const any = Symbol('any characters');
const one = Symbol('one character');

/** @throws TomaatError BAD_INPUT if a `\` stands before another character */
export function compilePattern(pattern: string): CompiledPattern {
  const parts: (string | typeof any | typeof one)[] = [];
  let text = '';
  const endText = () => {
    parts.push(...characters(text));
    text = '';
  };
  const given = [...pattern.trim()];
  for (let i = 0; i < given.length; i++) {
    const character = given[i];
    if (character === '\\') {
      const next = given[++i];
      if (next !== '*' && next !== '?')
        throw new TomaatError('BAD_INPUT', 'A \\ may stand only before * and ?. Leave it out.');
      text += next;
    } else if (character === '*' || character === '?') {
      endText();
      // Several stars are one.
      if (character === '?') parts.push(one);
      else if (parts.at(-1) !== any) parts.push(any);
    } else text += character;
  }
  endText();
  return parts;
}

/**
 * Whether the text is one that the pattern describes. Takes at most (length of the text + 1) × (length of the pattern + 1) steps: of all
 * stars, only the last one before a place is ever tried with more characters.
 * @param onStep called for each comparison
 */
export function matchesPattern(pattern: CompiledPattern, text: string, onStep?: () => void): boolean {
  const given = characters(text.trim());
  let at = 0;
  let next = 0;
  /** Where the pattern goes on after the last star, and the place in the text at which that was tried last. */
  let afterStar: number | undefined;
  let triedAt = 0;
  while (at < given.length) {
    onStep?.();
    if (pattern[next] === any) {
      afterStar = ++next;
      triedAt = at;
      // A star at the end stands for all the rest.
      if (next === pattern.length) return true;
    } else if (next < pattern.length && (pattern[next] === one || pattern[next] === given[at])) {
      at++;
      next++;
    } else if (afterStar !== undefined) {
      at = ++triedAt;
      next = afterStar;
    } else return false;
  }
  if (pattern[next] === any) next++;
  return next === pattern.length;
}

/** The characters of a text in one form: NFKC, then simple case folding. */
const characters = (text: string): string[] => [...text.normalize('NFKC')].map(fold);

/**
 * Simple case folding of one character (Unicode CaseFolding.txt, C and S): where upper and lower case of it have one character each. The
 * dotless ı and the dotted İ are letters of their own.
 */
function fold(character: string): string {
  if (character === 'ı' || character === 'İ') return character;
  const upper = single(character.toUpperCase()) ?? character;
  return single(upper.toLowerCase()) ?? upper;
}

/** The text if it is one character. */
const single = (text: string): string | undefined =>
  text.length === (text.codePointAt(0)! > 0xffff ? 2 : 1) ? text : undefined;
